"""Rows of published benchmarks whose question stands in no column as it is asked: put together as their own tasks do.

Asking and guarding read the same rows, so what is asked is what no training record may hold. `published_rows.toml` has
the benchmarks by their columns; its values are Jinja expressions over a row.
"""

import re
import tomllib
from functools import cache, lru_cache
from pathlib import Path

from jinja2 import Environment, TemplateError, Undefined
from jinja2.environment import TemplateExpression

from mixtune.benchmark_files.tables import Row, plain_name
from mixtune.errors import DataError

CONTINUED = "_continued"
"""In a row whose choices go on with its question, or fill its blank `_`, instead of answering it."""
BIAS = "_bias"
"""In a row of BBQ: of each choice, whether it confirms a stereotype (1), contradicts it (-1), or says nothing (0)."""
GUARDED = "_guarded"
"""What training records may not hold of a row whose question alone says too little."""
LEFT_OUT = "_left_out"
"""In a row that cannot be asked: why not."""
_Layout = tuple[str, frozenset[str], TemplateExpression, dict[str, TemplateExpression]]
_ENTAILMENT = ("rte", "wnli", "cb", "anli", "mnli", "snli", "xnli", "multi")
_TABLE = tomllib.loads(Path(__file__).with_name("published_rows.toml").read_text(encoding="utf-8"))


def as_asked(row: Row, uri: str) -> Row:
    """Return a row as it is asked where it is of such a benchmark, by plain names of columns; else as it is."""
    for name, columns, test, values in _layouts():
        fields = {**row, "path": _words_of(uri)} if columns <= row.keys() else {}
        if fields and test(fields):
            try:
                shown = {ours: value(fields) for ours, value in values.items()}
                if none := [ours for ours, value in shown.items() if isinstance(value, Undefined)]:
                    raise ValueError(f"no {none[0]}")
            except (TemplateError, TypeError, ValueError) as error:
                way = _TABLE["needs"].get(name, "look at its columns")
                raise DataError(f"{uri}: a row that is not asked as one of {name} ({error}); {way}") from error
            row = {**{column: value for column, value in row.items() if column not in columns}, **shown}
    return row


@lru_cache
def _words_of(uri: str) -> list[str]:
    """Return the words of a file's path, in which a translation's languages are none."""
    return re.split(r"[-_./]", re.sub("(translation)-[a-z]{2}", r"\1", uri.lower()))


def _bias(info: list[str], stereotyped: list[str], polarity: str) -> float:
    """Return whether an answer confirms a stereotype: to a negative question its group does, to others the rest."""
    text = "_".join(info)
    for pattern, name in _TABLE["groups"]:
        text = re.sub(pattern, name, text)
    is_other = {group.lower() for group in stereotyped}.isdisjoint(text.lower().split("_"))
    return 0.0 if text.lower().endswith("unknown") else 1.0 if is_other != (polarity == "neg") else -1.0


def _turns(value: object) -> list[str]:
    """Return the texts of a conversation's questions or answers, as the authors of CoQA or the hub have them."""
    if isinstance(value, dict):
        return list(value["input_text"])
    return [turn["input_text"] if isinstance(turn, dict) else turn for turn in value] if isinstance(value, list) else []


def _class(label: object, names: str, *, named: bool = False) -> int | None:
    """Return which of several classes a label is, by its name or, where it need not be `named`, its number from 0."""
    text, classes = plain_name(str(label)).replace("-", "_"), names.split()
    if text in classes or named:
        return classes.index(text) if text in classes else None
    number = {"false": "0", "true": "1"}.get(text, text).removesuffix(".0")
    return int(number) if number.isdigit() and int(number) < len(classes) else None


def _set_named(path: list[str]) -> str:
    """Return which data set of entailment a path names last: a folder around it may have another's name."""
    return next((word for word in reversed(path) if word in _ENTAILMENT), "")


def _history(questions: list[str], answers: list[str]) -> str:
    """Return the questions of a conversation but the last, with their answers."""
    pairs = list(zip(questions, answers, strict=True))[:-1]
    return "".join(f"\nQuestion: {question}\nAnswer: {answer}" for question, answer in pairs)


_JINJA = Environment()
_JINJA.globals |= {"bias": _bias, "history": _history, "connectives": _TABLE["connectives"]}
_JINJA.filters |= {"turns": _turns, "class": _class, "set_named": _set_named}
_JINJA.filters["without"] = lambda text, pattern: re.sub(pattern, "", text)
_JINJA.filters["tidy"] = lambda text: re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


@cache
def _layouts() -> list[_Layout]:
    """Return the layouts of the table; compiling them takes longer than all that a small command does."""
    return [
        (
            name,
            frozenset(layout["columns"].split()),
            _JINJA.compile_expression(layout.get("where", "true")),
            {
                ours: _JINJA.compile_expression(value, undefined_to_none=False)
                for ours, value in layout.items()
                if ours not in ("columns", "where")
            },
        )
        for name, layout in _TABLE["layouts"].items()
    ]
