"""Questions with choices, in the layouts in which benchmarks publish them.

| layout | question | choices | right answer |
|---|---|---|---|
| MMLU | `question` | `choices`: a list, or as JSON; or columns `A`, `B` ... | `answer`: index or letter |
| MMLU's own CSV | without a header: question, choices, letter; the subject is the file's name | | |
| MMLU-Pro | `question` | `options` | `answer`, `answer_index`; the subject is `category` |
| ARC, CommonsenseQA, OpenBookQA | `question` or `question_stem` | `choices`: `text` and `label` | `answerKey` |
| ARC's own JSONL | `question.stem` | `question.choices`: objects with `text` and `label` | `answerKey` |
| HellaSwag; PIQA | `ctx`; `goal` | `endings`; `sol1`, `sol2` | `label` |
| MedMCQA | `question` | `opa` to `opd` | `cop`, from 0 |
"""

import ast
import json
import string
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mixtune.errors import DataError
from mixtune.storage import benchmark_files
from mixtune.storage.benchmark_files import Row

_QUESTION = ("question", "question_stem", "ctx", "goal")
_CHOICES = ("choices", "options", "endings")
_COLUMNS = (("sol1", "sol2"), ("opa", "opb", "opc", "opd"))
_ANSWER = ("answer", "answerKey", "answer_index", "label", "cop", "gold")
_FILLER = "N/A"
"""What MMLU-Pro puts in the place of a choice that is not there."""
_HIDDEN = ("", "-1", "None")
"""What published test splits have in the place of answers that are kept secret."""
_MIN_INDEXES = 50
"""So many indexes without a 0 among them count from 1: by chance less than once in a million of four choices."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One item."""

    item_id: str
    subject: str
    question: str
    choices: tuple[str, ...]
    answer: int
    """Index into `choices`."""

    @property
    def letters(self) -> str:
        """One letter per choice."""
        return string.ascii_uppercase[: len(self.choices)]


def read_questions(uri: str) -> dict[str, list[Question]]:
    """Return the questions of a benchmark by split: `test`, `dev` and `validation`; one without answers is left out.

    Raises:
        DataError: A row in none of the layouts above.
    """
    splits = {}
    for split, rows in benchmark_files.read_splits(uri, ("test", "dev", "validation")).items():
        if rows and all(_is_hidden(row) for row in rows):
            print(f"{uri}: its {split} split has no answers and is left out", flush=True)
        else:
            splits[split] = _questions(rows, uri)
    return splits


def _is_hidden(row: Row) -> bool:
    """Return whether a row has a place for the right answer, and none there."""
    values = [str(row[name]).strip() for name in _ANSWER if name in row]
    return bool(values) and all(value in _HIDDEN for value in values)


def _questions(rows: list[Row], uri: str) -> list[Question]:
    counts: dict[str, int] = defaultdict(int)
    questions, indexes = [], []
    for number, row in enumerate(rows, 1):
        place = f"{uri} row {number}"
        subject = str(row.get("subject") or row.get("category") or "all")
        stem = row.get("question")
        if isinstance(stem, dict):  # ARC's own JSONL
            row = {**row, "question": stem.get("stem"), "choices": stem.get("choices")}
        texts, names = _choices(row, place)
        value = _first(row, _ANSWER, place)
        answer = _answer(value, names, place)
        if str(value).strip().upper() not in names:
            indexes.append(answer)
            if isinstance(value, str) and value.strip() in texts and texts[answer] != value.strip():
                raise DataError(f"{place}: answer {value!r} is an index and a choice's text; write its letter")
        questions.append(
            Question(
                item_id=f"{subject}/{counts[subject]}",
                subject=subject,
                question=str(_first(row, _QUESTION, place)),
                choices=tuple(texts),
                answer=answer,
            )
        )
        counts[subject] += 1
    if len(indexes) >= _MIN_INDEXES and 0 not in indexes:
        raise DataError(f"{uri}: none of {len(indexes)} answers is 0, so they count from 1; write letters, or from 0")
    return questions


def _first(row: Row, names: Sequence[str], place: str) -> object:
    """Return the value of the first of several columns that the row has."""
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise DataError(f"{place}: no column {names[0]!r}, nor {', '.join(names[1:])}; there are {', '.join(row)}")


def _choices(row: Row, place: str) -> tuple[list[str], list[str]]:
    """Return the choices' texts and what the right answer may be called, in the same order."""
    value: Any = next((row[name] for name in _CHOICES if row.get(name) is not None), None)
    if isinstance(value, str):
        value = _parse_list(value, place)
    if value is None:
        value = _from_columns(row)
    names = None
    if isinstance(value, dict):
        value, names = value.get("text"), value.get("label")
    elif isinstance(value, list) and (objects := [item for item in value if isinstance(item, dict)]):
        value, names = [item.get("text") for item in objects], [item.get("label") for item in objects]
    if not isinstance(value, list) or not 2 <= len(value) <= len(string.ascii_uppercase):
        raise DataError(
            f"{place}: choices is a list of 2 to 26 texts, an object with text and label, or columns A, B ...; "
            f"got {value!r}"
        )
    if names is not None and len(names) != len(value):
        raise DataError(f"{place}: {len(value)} choices, {len(names)} labels; one each is needed")
    if row.get("options") is not None:
        while len(value) > 2 and value[-1] == _FILLER:
            value = value[:-1]
    letters = list(string.ascii_uppercase[: len(value)])
    return list(map(str, value)), [str(name).strip() for name in names] if names is not None else letters


def _from_columns(row: Row) -> list[object] | None:
    """Return the choices in columns of their own; an empty one before the last keeps its letter."""
    for columns in _COLUMNS:
        if all(row.get(name) is not None for name in columns):
            return [row[name] for name in columns]
    if "A" not in row:
        return None
    texts = ["" if row.get(letter) is None else row[letter] for letter in string.ascii_uppercase if letter in row]
    while texts and texts[-1] == "":
        texts.pop()
    return texts


def _parse_list(text: str, place: str) -> object:
    """Return a list that is written as JSON or as Python prints it."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, TypeError, RecursionError):
            continue
        if isinstance(value, list | tuple | dict) and len(value) > 1:
            return value if isinstance(value, dict) else list(value)
    hint = "; numpy printed it, which loses where a text ends: write JSON" if text.lstrip().startswith("[") else ""
    raise DataError(f"{place}: choices is not a JSON list{hint}; got {text[:80]!r}")


def _answer(value: object, names: list[str], place: str) -> int:
    """Return the index of the right choice, which is given as such or by its name."""
    text = str(value).strip()
    for name in (text, text.upper()):
        if name in names:
            return names.index(name)
    if isinstance(value, float) and value.is_integer():
        text = str(int(value))
    letters_only = all(name.isalpha() for name in names)
    index = int(text) if text.isdigit() and letters_only else -1
    if not 0 <= index < len(names):
        raise DataError(
            f"{place}: answer is an index 0 to {len(names) - 1} or one of {', '.join(names)}; got {value!r}"
        )
    return index
