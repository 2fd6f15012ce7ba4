"""Which rows of a benchmark are asked, and what each asks: one file, or a folder with a split in each name."""

import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mixtune import storage
from mixtune.benchmark_files.passages import read_passages
from mixtune.benchmark_files.published_rows import GUARDED, LEFT_OUT, as_asked
from mixtune.benchmark_files.tables import COLUMNS, FORMATS, Row, plain_name, read_rows
from mixtune.errors import ConfigError, DataError

SPLITS = ("test", "dev", "validation", "train")
_ASKED_FIRST = ("test", "validation", "dev", "train")
_SPLIT_NAMES = {"validation": ("val", "valid")}
QUESTIONS, CONVERSATIONS, CONTEXTS, LISTS, FAMILIES, ANSWERS, SUBJECTS = (
    COLUMNS[name] for name in ("questions", "conversations", "contexts", "lists", "families", "answers", "subjects")
)
"""Columns in which benchmarks put what they ask, its passage, its choices, which is right, and what it is about."""
NUMBERED = re.compile(rf"({'|'.join(FAMILIES)}|)[_#]*([a-z]|\d\d?)")
"""A column of one choice; one without a word has a letter."""
_METADATA = COLUMNS["metadata"]
FILE = "_file"
"""The column of a row's file's name, where that tells what it is about (C-Eval)."""
_NOT_ASKED = {*COLUMNS["not_asked"], *ANSWERS}
"""Columns in which two rows that ask the same may differ: XSTest's completions ask each prompt of five models."""
_READ = {"choices", *QUESTIONS, *CONTEXTS, *CONVERSATIONS, *ANSWERS, *SUBJECTS, "id", "ground_truth"}
_CHANCE_REPEATED, _CHANCE_RATIO = 4, 0.1
"""Rows of a file that may be asked twice without being a copy: so many, or this share of it."""
_MEDIA = re.compile(r"(?:decoded_|question_)?(?:image|img|picture|photo|audio|video)s?(?:_?(?:\d+|path|url|file))*")
_NO_SUBJECT = {"data", "default", "of", "valid", "val", *SPLITS}
NO_COLUMNS: Mapping[str, str] = {}
Item = TypeVar("Item")


def read_splits(
    uri: str, splits: Collection[str] = SPLITS, columns: Mapping[str, str] = NO_COLUMNS, *, repeats: bool = False
) -> dict[str, list[Row]]:
    """Return the rows of a benchmark by split; the split is in a file's or folder's name, else it is `test`.

    A file whose rows all stand in others of its split is a second copy (hub folders have an `all` beside their parts,
    or one table in two formats), and is passed over. Files of other `splits` are not opened. With `repeats` a file may
    ask the same again and again.

    Raises:
        DataError: Nothing there, no file of a known format, an image, or what is asked twice: by two files, or in one.
    """
    plain = storage.plain_uri(uri)
    files: dict[str, dict[str, list[Row]]] = defaultdict(dict)
    for path, source in _list_tables(uri):
        split = _split(path.removesuffix(".gz"))
        files[split][path] = _read(source, columns) if split in splits else []
        _check_media(files[split][path], source)
    _name_files(files)
    return {split: _without_copies(tables, plain, repeats) for split, tables in files.items() if split in splits}


def _read(source: str, columns: Mapping[str, str]) -> list[Row]:
    """Return a file's rows with the columns that a user names under our names."""
    named = {ours.lower(): plain_name(theirs) for ours, theirs in columns.items()}
    if unknown := [ours for ours in named if ours not in {*_READ, *COLUMNS["of_items"], *string.ascii_lowercase}]:
        raise ConfigError(f"columns: unknown {unknown[0]!r}; there are question, context, choices, answer, A, B ...")
    has_question, has_choices = "question" in named, bool({"choices", "a"} & set(named))
    read = [row if has_question or has_choices else as_asked(row, source) for row in read_rows(source)]
    rows = [row for row in read if LEFT_OUT not in row]
    if why := next((row[LEFT_OUT] for row in read if LEFT_OUT in row), ""):
        print(f"{source}: {len(read) - len(rows)} rows are left out, whose {why}", flush=True)
    if not named:
        return rows
    if missing := [(theirs, row) for row in rows[:1] for theirs in named.values() if theirs not in row]:
        raise DataError(f"{source}: columns: no column {missing[0][0]!r}; there are {', '.join(missing[0][1])}")
    hidden = {*named.values(), *((*QUESTIONS, *CONVERSATIONS) if has_question else ()), *(LISTS if has_choices else ())}
    hidden |= set(ANSWERS if "answer" in named else ())
    hidden |= {name for row in rows[:1] if has_choices for name in filter(NUMBERED.fullmatch, row)}
    rest = [{name: value for name, value in row.items() if name not in hidden} for row in rows]
    return [shown | {ours: row.get(named[ours]) for ours in named} for shown, row in zip(rest, rows, strict=True)]


def _check_media(rows: list[Row], uri: str) -> None:
    for number, row in enumerate(rows, 1):
        filled = [key for key, value in row.items() if isinstance(value, str | dict | list) and value]
        if media := next(filter(_MEDIA.fullmatch, filled), ""):
            raise DataError(f"{uri} row {number}: its {media!r} would not be shown; leave out rows that have one")


def _name_files(files: Mapping[str, Mapping[str, list[Row]]]) -> None:
    """Give rows the name of their file or folder as a subject, where these tell them apart (C-Eval)."""
    names = [{_subject(path) for path, rows in tables.items() if rows} for tables in files.values()]
    if all(map(all, names)) and any(len(of_split) > 1 for of_split in names):
        for path, row in ((path, row) for tables in files.values() for path, rows in tables.items() for row in rows):
            row[FILE] = _subject(path)


def _subject(path: str) -> str:
    """Return what a path names besides splits and numbers: its file's name, or else its folder's; empty: nothing."""
    for name in (Path(path.removesuffix(".gz")).stem, *(folder.name for folder in Path(path).parents)):
        words = [word for word in re.split(r"[-_. ]", name) if word.lower() not in _NO_SUBJECT and not word.isdigit()]
        if words:
            return "_".join(words)
    return ""


def read_asked(uri: str, question: str = "") -> Iterator[str]:
    """Yield what every item of a benchmark asks, whatever its form; of a `train` split where there is no other.

    `question` is the column that asks; empty: one of the usual names.

    Raises:
        DataError: Nothing there, or a row that asks nothing.
    """
    tables = _list_tables(uri)
    others = [table for table in tables if _split(table[0].removesuffix(".gz")) != "train"]
    for _, source in others or tables:
        for number, row in enumerate(_read(source, {"question": question} if question else NO_COLUMNS), 1):
            if not row.keys() <= _NOT_ASKED:  # BFCL has its answers in a file of their own
                yield row.get(GUARDED) or text_asked(row, f"{source} row {number}")


def text_asked(row: Row, place: str) -> str:
    """Return what a row asks: its messages or question, or else, under columns of other names, its longest text.

    Raises:
        DataError: It has no text.
    """
    if text := next((text for name in (*CONVERSATIONS, *QUESTIONS) if (text := _text_of(row.get(name)))), ""):
        return text
    texts = [value for key, value in row.items() if key not in _NOT_ASKED and isinstance(value, str) and value]
    if not texts:
        raise DataError(f"{place}: no text that is asked, such as a question or prompt; there are {', '.join(row)}")
    return max(texts, key=len)


def text_of_problem(row: Row, place: str) -> str:
    """Return the problem of a row, behind the passage that it is about.

    Raises:
        DataError: It has none, or it has choices.
    """
    if not any(row.get(name) for name in QUESTIONS):
        raise DataError(f"{place}: no column 'problem' or 'question'; there are {', '.join(row)}; name it in columns")
    if row.get("choices") or row.get("options") or {"a", "b"} <= row.keys():
        raise DataError(f"{place}: it has choices, which would not be asked; take form multiple_choice or mmlu")
    question = text_asked(row, place)
    return "\n\n".join([*passages(row, place), question])


def passages(row: Row, place: str) -> list[str]:
    """Return the passages that a row is about, each of which may be in paragraphs behind their titles.

    Raises:
        DataError: One is no text, such as a table, or has other prose beside it.
    """
    texts = []
    for name in CONTEXTS:
        read = read_passages(row.get(name), lambda _, value: not _has_prose(value))
        if read is None:
            raise DataError(
                f"{place}: its {name} is a text, or a list of them; write it as one: {str(row[name])[:80]!r}"
            )
        texts.append("\n".join(f"{title}: {text}" if title else text for text, title, _ in read if text))
    return list(filter(None, texts))


def only_answer(value: Any, place: str) -> str:
    """Return the right answer, a text or a number, possibly alone in a list; empty where there is none.

    Raises:
        DataError: Several are right, or it is an object.
    """
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list | dict):
        raise DataError(f"{place}: answer is one text or number; of several right ones short_answers knows")
    return "" if value is None else str(value).strip()


def _text_of(value: object) -> str:
    """Return a text, the stem of ARC's questions, or what the users of a conversation say; else an empty text."""
    if isinstance(value, dict):
        is_user = (value.get("role") or value.get("from")) in ("user", "human")
        content = (value.get("content") or value.get("value")) if is_user else ""
        return _text_of(value.get("stem") or value.get("text") or content)
    if isinstance(value, list):
        return "\n".join(filter(None, map(_text_of, value)))
    return value if isinstance(value, str) else ""


def _list_tables(uri: str) -> list[tuple[str, str]]:
    """Return the files of a benchmark that hold rows, by their path within it and by their URI.

    Raises:
        DataError: There is none.
    """
    plain = storage.check_fingerprint(uri)
    paths = [entry.path for entry in storage.list_files(plain)]
    paths = [path for path in paths if path.removesuffix(".gz").endswith(FORMATS) and Path(path).name not in _METADATA]
    if not paths:
        raise DataError(f"{plain}: no file in it is named {', '.join(FORMATS)}; name each by what it holds")
    return [(path, plain if storage.file_exists(plain) else storage.join(plain, path)) for path in paths]


def _without_copies(tables: dict[str, list[Row]], uri: str, repeats: bool) -> list[Row]:
    """Return the rows of a split's files in the files' order, copies of others left out."""
    counted, all_questions = Counter[str](), Counter[str]()
    copies = set()
    parts_first = sorted(tables, key=lambda path: (_subject(path) == "all", -len(tables[path])))
    for path in parts_first:
        rows, questions = Counter(map(_content, tables[path])), Counter(map(_asked, tables[path]))
        shared, total = (questions & all_questions).total(), rows.total()
        if not repeats and (repeated := total - len(questions)) > max(_CHANCE_REPEATED, _CHANCE_RATIO * total):
            raise DataError(f"{uri}: {repeated} of the {total} rows of {path} ask what others ask; each counts once")
        if total and (rows & counted).total() == total:
            copies.add(path)
        elif 2 * shared > total:
            way = "every item counts once: give one file, or a folder without copies"
            raise DataError(f"{uri}: {shared} of the {total} rows of {path} are in other files of it, too; {way}")
        else:
            counted |= rows
            all_questions |= questions
    if copies:
        names = ", ".join(sorted(copies)[:3])
        print(f"{uri}: {len(copies)} files ({names}) are copies of others, and are passed over", flush=True)
    return [row for path, rows in tables.items() if path not in copies for row in rows]


def _content(row: Row) -> str:
    """Return what makes a row the same as another's; the subject may come from the file's name."""
    return repr([(key, value) for key, value in sorted(row.items()) if key not in ("subject", FILE)])


def _asked(row: Row) -> str:
    """Return what a row asks; all of it, where it is no more than an answer."""
    question = {key: value for key, value in row.items() if key not in _NOT_ASKED}
    return _content(question or row)


def name_unread(rows: Iterable[Row], read: Collection[str], uri: str) -> None:
    """Say in which columns there is prose, though they are none of those that are read."""
    unread = dict.fromkeys(name for row in rows for name, value in row.items() if _has_prose(value))
    if names := [name for name in unread if name not in {*_READ, *read} and not _MEDIA.fullmatch(name)]:
        print(f"{uri}: nothing is read from {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}", flush=True)


def _has_prose(value: object) -> bool:
    """Return whether a cell has a text of several words, however deep."""
    if isinstance(value, dict | list):
        return any(map(_has_prose, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and " " in value.strip()


def read_items(uri: str, columns: Mapping[str, str] = NO_COLUMNS) -> list[Row]:
    """Return the rows that are asked: those of the `test` split, or else of the first other one."""
    splits = read_splits(uri, columns=columns)
    if "test" in splits and len(splits) > 1:
        print(f"{uri}: its test split is asked, not {', '.join(sorted(set(splits) - {'test'}))}", flush=True)
    rows = choose_split(splits, uri)
    name_unread(rows, COLUMNS["of_items"], uri)
    return rows


def choose_split(splits: dict[str, list[Item]], uri: str) -> list[Item]:
    """Return what is asked of a benchmark: its `test` split, or else `validation`, `dev` or `train`.

    Raises:
        DataError: None of them has an item.
    """
    name = next((name for name in _ASKED_FIRST if splits.get(name)), "")
    if not name:
        raise DataError(f"{uri}: no items in it; name a file test.jsonl, test.parquet or test.csv")
    if name != "test":
        print(f"{uri}: its {name} split is asked, as it has no test split", flush=True)
    return splits[name]


def stratified_subset(items: Sequence[Item], stratum: Callable[[Item], str], limit: int) -> list[Item]:
    """Return at most `limit` items (0: all) in their order, from every stratum in turn."""
    if not limit or len(items) <= limit:
        return list(items)
    counts: Counter[str] = Counter()
    ranked = []
    for index, name in enumerate(map(stratum, items)):
        ranked.append((counts[name], index))
        counts[name] += 1
    return [items[index] for index in sorted(index for _, index in sorted(ranked)[:limit])]


def _split(path: str) -> str:
    """Return the split that a path names; the file's own name counts before its folders'."""
    for name in (Path(path).stem, *(folder.name for folder in Path(path).parents)):
        words = re.split(r"[-_. ]", name.lower())
        for split in SPLITS:
            if split in words or any(word in words for word in _SPLIT_NAMES.get(split, ())):
                return split
    return "test"
