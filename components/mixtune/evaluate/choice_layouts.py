"""Where a row of a benchmark has its choices and its right answer.

Lists, objects, a column each, one text, or the right one and wrong ones apart: `tests/evaluate/published_layouts.yaml`
has what is published.
"""

import hashlib
import math
import re
import string
from collections.abc import Sequence
from typing import NamedTuple

from mixtune.benchmark_files import ANSWERS, FAMILIES, LISTS, NUMBERED, Row, parse_cell, text_asked
from mixtune.errors import DataError

_TEXTS, _LABELS = ("text", "value", "content", "atext"), ("label", "key", "id", "letter", "aid")
"""What an object that is one choice calls its text and its name."""
_KEYS = (string.ascii_lowercase, *([str(number) for number in range(first, first + 26)] for first in (0, 1)))
WRONG = re.compile(r"distractor_?\d|incorrect_answer_?\d|distractors|incorrect_answers")
_LETTERED = re.compile(r"\(?([A-Za-z]) ?[).:]\s*(.*)", re.DOTALL)
_FILLER = "N/A"
"""What MMLU-Pro writes for a choice that is missing."""
_BEFORE_LETTERS = (r"\n|(?:^|,) ?(?=[a-z] \) )", r"(?<![\s,;|])[\s,;|]+(?=\(?[A-Z] ?[).:]\s)")
"""What parts lettered choices in one cell: a line each, or MathQA's commas; blanks and marks in one line."""


class Choices(NamedTuple):
    """A row's choices and its right answer."""

    texts: list[str]
    names: list[str]
    """What each may be called in `answer`."""
    answer: object
    """As it is written."""
    also_right: tuple[int, ...] = ()
    """Indexes of further right ones (TruthfulQA's mc2)."""


def read_choices(row: Row, place: str) -> Choices:
    """Return a row's choices and its right answer.

    Raises:
        DataError: It has none of these layouts.
    """
    value = next((row[name] for name in LISTS if not is_blank(row.get(name))), None)
    value = _parse_list(value, place) if isinstance(value, str) else value
    if value is None and (columns := _numbered_columns(row)):
        value = [row[name] for name in columns]
    if value is None and isinstance(row.get("answers"), list):
        value = row["answers"]
    if value is None and (wrong := _wrong_ones(row)):
        right, stem = str(first_filled(row, ("correct_answer", "best_answer"), place)).strip(), text_asked(row, place)
        texts = sorted([right, *wrong], key=lambda text: hashlib.sha256(f"{stem}{text}".encode()).digest())
        return _checked(texts, None, right, place)
    if isinstance(value, dict) and isinstance(value.get("labels"), list):
        return _marked(value["labels"], value.get("choices"), place)
    if value is None:
        answers = [row[name] for name in ANSWERS if not is_blank(row.get(name))]
        return _implied(row, *answers[:1]) or _checked(None, None, None, place)
    choices, names = _named(value)
    answer = first_filled(row, ANSWERS, place)
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    names_of_columns, name = list(map(_bare, _numbered_columns(row))), _bare(answer)
    if name in names_of_columns:
        answer = string.ascii_uppercase[names_of_columns.index(name)]
    return _checked(choices, names, answer, place, fills="options" in row)


def first_filled(row: Row, names: Sequence[str], place: str) -> object:
    """Return the value of the first of several columns that has one.

    Raises:
        DataError: None has.
    """
    for name in names:
        if not is_blank(row.get(name)) and str(row[name]).strip():
            return row[name]
    if empty := next((name for name in names if name in row), ""):
        raise DataError(f"{place}: nothing in its column {empty!r}; fill it in, or leave the row out")
    missing = f"no column {names[0]!r}, nor {', '.join(names[1:])}; there are {', '.join(row)}"
    raise DataError(f"{place}: {missing}; say which it is, as columns={{{names[0]!r}: ...}}")


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
    for family in ("", *FAMILIES):
        for keys in _KEYS if family else _KEYS[:1]:
            columns = families.get(family, {})
            names = [columns[key] for place, key in enumerate(keys) if all(k in columns for k in keys[: place + 1])]
            if len(names) > 1:
                return names
    return []


def _bare(name: object) -> str:
    """Return a column's name without what its spellings differ in: `Option 3` is `option_3`."""
    return re.sub(r"[\W_]", "", str(name)).lower()


def _wrong_ones(row: Row) -> list[str]:
    """Return the wrong choices; in one text they are parted by semicolons (TruthfulQA's CSV)."""
    wrong = {name: row[name] for name in row if WRONG.fullmatch(name) and not is_blank(row[name])}
    values = [text.split(";") if isinstance(text, str) and name[-1] == "s" else text for name, text in wrong.items()]
    texts = [str(text).strip() for value in values for text in (value if isinstance(value, list) else [value])]
    return list(dict.fromkeys(filter(None, texts)))


def _implied(row: Row, answer: object = "") -> Choices | None:
    """Return the choices of a question that is answered by yes or no (or maybe, by PubMedQA); None: it is not."""
    text = {True: "yes", False: "no"}[answer] if isinstance(answer, bool) else str(answer).strip().lower()
    for texts in (["yes", "no", "maybe"] if "final_decision" in row else ["no", "yes"], ["False", "True"]):
        if text in [choice.lower() for choice in texts]:
            texts = [choice.capitalize() for choice in texts] if str(answer) == text.capitalize() != "True" else texts
            return Choices(texts, texts, text)
    return None


def _named(value: object) -> tuple[object, list[object] | None]:
    """Return choices' texts, and their names where they have some."""
    if isinstance(value, dict) and "text" in value:
        return value["text"], value.get("label")
    if isinstance(value, dict):  # MedQA: by letter; Parquet has all rows' letters
        filled = {name: text for name, text in value.items() if text is not None}
        return list(filled.values()), list(filled)
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        text, label = (next((key for key in keys if key in value[0]), "") for keys in (_TEXTS, _LABELS))
        if text:
            return [item.get(text) for item in value], [item.get(label) for item in value]
    return value, None


def _marked(labels: list[object], value: object, place: str) -> Choices:
    """Return choices of which a 1 marks each right one."""
    marks = [float(str(label)) for label in labels]
    places = [index for index, mark in enumerate(marks) if mark == 1]
    if not places or len(places) == len(marks):
        raise DataError(f"{place}: labels have a 1 for each right choice and a 0 for each wrong one; got {marks}")
    return _checked(value, None, string.ascii_uppercase[places[0] % 26], place)._replace(also_right=tuple(places[1:]))


def _checked(
    value: object, names: Sequence[object] | None, answer: object, place: str, *, fills: bool = False
) -> Choices:
    if isinstance(value, list):
        while len(value) > 2 and (is_blank(value[-1]) or (fills and value[-1] == _FILLER)):
            value = value[:-1]
    letters = string.ascii_uppercase
    if not isinstance(value, list) or not 2 <= len(value) <= len(letters) or any(map(_is_nested, value)):
        raise DataError(
            f"{place}: choices is a list of 2 to 26 texts, an object with text and label, or columns A, B ...; another "
            f"column is named as columns={{'choices': ...}}, and what has none may be a task of form lm_eval, or for "
            f"short_answers; got {str(value)[:200]}"
        )
    if isinstance(answer, bool) or any(isinstance(text, int | float) for text in value):
        answer = str(answer)  # it may be a choice's text, not only its index
    texts = ["" if is_blank(text) else str(text) for text in value]
    if all(split_letter(text)[0] == letter for text, letter in zip(texts, letters, strict=False)):
        texts = [split_letter(text)[1] for text in texts]
    labels = [str(name).strip() for name in names or () if not is_blank(name)] or list(letters[: len(texts)])
    if len(labels) != len(texts):
        raise DataError(f"{place}: {len(texts)} choices, {len(labels)} labels; one each is needed")
    return Choices(texts, labels, answer)


def _is_nested(value: object) -> bool:
    return isinstance(value, dict | list)


def _parse_list(text: str, place: str) -> object:
    """Return a list that is written as JSON, as Python or NumPy prints it, or with a lettered choice a line."""
    value = parse_cell(text)
    if isinstance(value, list | tuple | dict) and len(value) > 1:
        return value if isinstance(value, dict) else list(value)
    for mark in _BEFORE_LETTERS:
        lines = [line.strip(" ,") for line in re.split(mark, text.strip()) if line.strip()]
        if len(lines) > 1 and [split_letter(line)[0] for line in lines] == list(string.ascii_uppercase[: len(lines)]):
            return lines
    hint = "; numpy printed it, perhaps in part: write JSON" if text.lstrip().startswith("[") else ""
    way = hint or '; write ["x", "y"], or a column for each choice'
    raise DataError(f"{place}: choices is not a JSON list{way}; got {text[:80]!r}")
