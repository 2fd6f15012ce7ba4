"""Where a row of a benchmark has its choices and its right answer.

| choices | such as |
|---|---|
| `choices`, `options`, `endings`: a list, also as JSON | MMLU, MMLU-Pro, HellaSwag, RACE |
| the same: an object by letter, or of `text` and `label` | MedQA, ARC |
| columns by letter or number: `A`, `option_a`, `opa`, `sol1`, `ending0`, `mc_answer1` | CMMLU, KMMLU, PIQA, Belebele |
| `mc1_targets`: `choices`, and `labels` of which one is 1 | TruthfulQA, BIG-bench |
| the right one and wrong ones apart: put in an order of our own | GPQA, SciQ |
| none, and a right answer that is yes or no | BoolQ, PubMedQA |
| a CSV without a header: question, choices, letter | MMLU's authors |
"""

import ast
import hashlib
import json
import math
import re
import string
from collections.abc import Sequence
from typing import NamedTuple

from mixtune.benchmark_files import ANSWERS, Row, text_asked
from mixtune.errors import DataError

LISTS = ("choices", "options", "endings", "mc1_targets", "answer_options")
_FAMILIES = ("", "option", "op", "choice", "ending", "mc_answer", "sol", "answer")
NUMBERED = re.compile(rf"({'|'.join(_FAMILIES[1:])}|)[_#]*([a-z]|\d\d?)")
"""A column of one choice; one without a word has a letter."""
_KEYS = (string.ascii_lowercase, *([str(number) for number in range(first, first + 26)] for first in (0, 1)))
_WRONG = re.compile(r"distractor_?\d|incorrect_answer_?\d|distractors|incorrect_answers")
_LETTERED = re.compile(r"\(?([A-Za-z])[).:]\s*(.*)", re.DOTALL)
_FILLER = "N/A"
"""What MMLU-Pro puts in the place of a choice that is not there."""


class Choices(NamedTuple):
    """A row's choices and its right answer."""

    texts: list[str]
    names: list[str]
    """What each may be called in `answer`."""
    answer: object
    """As it is written."""


def read_choices(row: Row, place: str) -> Choices:
    """Return a row's choices and its right answer.

    Raises:
        DataError: It has none of these layouts.
    """
    value = next((row[name] for name in LISTS if not is_blank(row.get(name))), None)
    if value is None and "multiple_choice_targets" in row:  # BIG-bench
        value = {"choices": row["multiple_choice_targets"], "labels": row.get("multiple_choice_scores")}
    value = _parse_list(value, place) if isinstance(value, str) else value
    if value is None and (columns := _numbered_columns(row)):
        value = [row[name] for name in columns]
    if value is None and (wrong := _wrong_ones(row)):
        right, stem = str(first_filled(row, ("correct_answer", "best_answer"), place)), text_asked(row, place)
        texts = sorted([right, *wrong], key=lambda text: hashlib.sha256(f"{stem}{text}".encode()).digest())
        return _checked(texts, None, right, place)
    if isinstance(value, dict) and isinstance(value.get("labels"), list):
        marks, value = [float(mark) for mark in value["labels"]], value.get("choices")
        if marks.count(1.0) != 1:
            raise DataError(f"{place}: labels have one 1, for the right choice, and 0 for the others; got {marks}")
        return _checked(value, None, string.ascii_uppercase[marks.index(1.0) % 26], place)
    if value is None:
        answers = [str(row[name]).lower() for name in ANSWERS if not is_blank(row.get(name))]
        return _implied(row, *answers[:1]) or _checked(None, None, None, place)
    choices, names = _named(value)
    answer = first_filled(row, ANSWERS, place)
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    return _checked(choices, names, answer, place, fills="options" in row)


def first_filled(row: Row, names: Sequence[str], place: str) -> object:
    """Return the value of the first of several columns that has one.

    Raises:
        DataError: None has.
    """
    for name in names:
        if not is_blank(row.get(name)):
            return row[name]
    raise DataError(
        f"{place}: no column {names[0]!r}, nor {', '.join(names[1:])}; there are {', '.join(row)}; "
        f"say which it is, as columns={{{names[0]!r}: ...}}"
    )


def is_blank(value: object) -> bool:
    """Return whether a cell has nothing in it."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def split_letter(text: str) -> tuple[str, str]:
    """Return the letter before a choice's text, such as `B) Paris`, and the text; no letter: the text alone."""
    match = _LETTERED.fullmatch(text)
    return (match[1].upper(), match[2]) if match else ("", text)


def _numbered_columns(row: Row) -> list[str]:
    """Return the columns that have one choice each, in their order: letters from a, or numbers from 0 or 1."""
    families: dict[str, dict[str, str]] = {}
    for name in row:
        if match := NUMBERED.fullmatch(name):
            families.setdefault(match[1], {})[match[2]] = name
    for family in _FAMILIES:
        for keys in _KEYS if family else _KEYS[:1]:
            columns = families.get(family, {})
            names = [columns[key] for place, key in enumerate(keys) if all(k in columns for k in keys[: place + 1])]
            if len(names) > 1:
                return names
    return []


def _wrong_ones(row: Row) -> list[str]:
    wrong = [row[name] for name in row if _WRONG.fullmatch(name) and not is_blank(row[name])]
    return [str(text) for value in wrong for text in (value if isinstance(value, list) else [value])]


def _implied(row: Row, answer: str = "") -> Choices | None:
    """Return the choices of a question that is answered by yes or no (or maybe, by PubMedQA); None: it is not."""
    texts = ["yes", "no", "maybe"] if "final_decision" in row else ["no", "yes"]
    answer = {"true": "yes", "false": "no"}.get(answer, answer)
    return Choices(texts, texts, answer) if answer in texts else None


def _named(value: object) -> tuple[object, list[object] | None]:
    """Return choices' texts, and their names where they have some."""
    if isinstance(value, dict) and "text" in value:
        return value["text"], value.get("label")
    if isinstance(value, dict):  # MedQA: by letter
        return list(value.values()), list(value)
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return [item.get("text") for item in value], [item.get("label") for item in value]
    return value, None


def _checked(
    value: object, names: Sequence[object] | None, answer: object, place: str, *, fills: bool = False
) -> Choices:
    if isinstance(value, list):
        while len(value) > 2 and (is_blank(value[-1]) or (fills and value[-1] == _FILLER)):
            value = value[:-1]
    letters = string.ascii_uppercase
    if not isinstance(value, list) or not 2 <= len(value) <= len(letters):
        raise DataError(
            f"{place}: choices is a list of 2 to 26 texts, an object with text and label, or columns A, B ...; another "
            f"column is named as columns={{'choices': ...}}; got {str(value)[:200]}"
        )
    texts = ["" if is_blank(text) else str(text) for text in value]
    if all(split_letter(text)[0] == letter for text, letter in zip(texts, letters, strict=False)):
        texts = [split_letter(text)[1] for text in texts]
    labels = [str(name).strip() for name in names or () if not is_blank(name)] or list(letters[: len(texts)])
    if len(labels) != len(texts):
        raise DataError(f"{place}: {len(texts)} choices, {len(labels)} labels; one each is needed")
    return Choices(texts, labels, answer)


def _parse_list(text: str, place: str) -> object:
    """Return a list that is written as JSON, as Python prints it, or with a lettered choice a line."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, TypeError, RecursionError):
            continue
        if isinstance(value, list | tuple | dict) and len(value) > 1:
            return value if isinstance(value, dict) else list(value)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and [split_letter(line)[0] for line in lines] == list(string.ascii_uppercase[: len(lines)]):
        return lines
    hint = "; numpy printed it, which loses where a text ends: write JSON" if text.lstrip().startswith("[") else ""
    way = hint or '; write ["x", "y"], or a column for each choice'
    raise DataError(f"{place}: choices is not a JSON list{way}; got {text[:80]!r}")
