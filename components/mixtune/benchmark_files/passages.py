"""What a question is about, however a data set keeps it: texts, titles with sentences, objects, or columns of them."""

from collections.abc import Callable
from typing import NamedTuple

from mixtune.benchmark_files.tables import COLUMNS, Row, parse_cell

_TEXTS = COLUMNS["passage_texts"]
PASSAGE_FIELDS = frozenset((*_TEXTS, *COLUMNS["about_passages"]))
"""Fields that data sets have in a passage."""
Allowed = Callable[[str, object], bool]
"""Whether a field, by its name and value, may stand beside a passage's text and title."""


class Passage(NamedTuple):
    """One passage."""

    text: str
    title: str = ""
    beside: tuple[str, ...] = ()
    """Names of what else is said about it."""


def read_passages(value: object, is_allowed: Allowed) -> list[Passage] | None:
    """Return the passages that a value is, a table's cell with JSON or as printed, too; None: it is something else."""
    match value:
        case str() if value.lstrip()[:1] in ("[", "{") and isinstance(parsed := parse_cell(value), list | dict):
            listed = read_passages(parsed, is_allowed)
            return [Passage(value)] if listed is None else listed
        case str():
            return [Passage(value)]
        case {"contexts": [*paragraphs], **rest}:  # PubMedQA
            listed = read_passages(paragraphs, is_allowed)
            return listed and [listed[0]._replace(beside=tuple(map(str, rest))), *listed[1:]]
        case dict() if value:
            return _of_object(value, is_allowed)
        case [title, sentences] if _is_titled(value):
            return _of_object({"title": title, "sentences": sentences}, is_allowed)
        case [*items]:  # a list of lists is a table
            is_table = any(isinstance(item, list | tuple) and not _is_titled(item) for item in items)
            read = [None if is_table else read_passages(item, is_allowed) for item in items]
            return None if None in read else [passage for part in read for passage in part or ()]
    return [] if _is_blank(value) else None


def _of_object(value: Row, is_allowed: Allowed) -> list[Passage] | None:
    lists = [cells for cells in value.values() if isinstance(cells, list | tuple)]
    if lists and len(lists) == len(value) and len(set(map(len, lists))) == 1:  # as `datasets` keeps a sequence
        return read_passages([dict(zip(value, cells, strict=True)) for cells in zip(*lists, strict=True)], is_allowed)
    name = next((name for name in _TEXTS if not _is_blank(value.get(name))), "")
    beside = {key: rest for key, rest in value.items() if key not in (name, "title")}
    sentences = value.get(name)
    sentences = sentences if isinstance(sentences, list | tuple) else [sentences]
    if not (all(isinstance(text, str) for text in sentences) and all(map(is_allowed, beside, beside.values()))):
        return None
    glue = "" if any(text[:1].isspace() for text in sentences[1:]) else " "
    title = "" if _is_blank(value.get("title")) else str(value["title"])
    return [Passage(glue.join(sentences), title, tuple(key for key, rest in beside.items() if not _is_blank(rest)))]


def _is_titled(value: object) -> bool:
    """Return whether a value is a title and its sentences, as HotpotQA has them."""
    return isinstance(value, list | tuple) and list(map(type, value)) in ([str, list], [str, tuple])


def _is_blank(value: object) -> bool:
    return value is None or value in ("", [], (), {}) or value != value
