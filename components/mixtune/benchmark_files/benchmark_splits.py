"""Which rows of a benchmark are asked, and what each asks: one file, or a folder with a split in each name."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mixtune import storage
from mixtune.benchmark_files.tables import FORMATS, Row, read_rows
from mixtune.errors import DataError

SPLITS = ("test", "dev", "validation", "train")
_ASKED_FIRST = ("test", "validation", "dev", "train")
_SPLIT_NAMES = {"validation": ("val", "valid")}
_METADATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "_provenance.json")
"""What stands beside a benchmark's rows."""
QUESTIONS = (
    *("question", "question_stem", "problem", "prompt", "goal", "ctx", "query", "sentence", "qtext", "question_str"),
    *("startphrase", "sent1", "input", "instruction", "behavior", "user_input", "forbidden_prompt"),
)
"""Columns in which benchmarks put what they ask, the first one counts."""
CONTEXTS = (
    *("context", "contexts", "passage", "article", "support", "narrative", "story", "premise", "flores_passage"),
    "contextstring",
)
"""Columns in which they put the passage that a question is about."""
ANSWERS = (
    *("answer", "answerkey", "answer_key", "answer_index", "answer_idx", "label", "cop", "gold", "correct"),
    *("correct_option", "correct_answer_num", "correct_answer_id", "correct_answer", "final_decision", "ra", "target"),
)
"""Columns in which they put which choice is right."""
_NOT_ASKED = {
    *("subject", "id", "key", "item_id", "question_id", "unique_id", "idx", "ind", "index", "answers", "solution"),
    *("cot_content", "ground_truth", "calls", *ANSWERS),
}
"""Columns in which two rows that ask the same may differ; the subject may come from the file's name."""
_CHANCE_REPEATED, _CHANCE_RATIO = 4, 0.1
"""Rows of a file that may be asked twice without being a copy: so many, or this share of it."""
Item = TypeVar("Item")


def read_splits(uri: str, splits: Collection[str] = SPLITS, *, repeats: bool = False) -> dict[str, list[Row]]:
    """Return the rows of a benchmark by split; the split is in a file's or folder's name, else it is `test`.

    A file whose rows all stand in others of its split is a second copy (hub folders have an `all` beside their parts,
    or one table in two formats), and is passed over. Files of other `splits` are not opened. With `repeats` a file may
    ask the same again and again.

    Raises:
        DataError: Nothing there, no file of a known format, or what is asked twice: by two files, or within one.
    """
    plain = storage.split_fingerprint(uri)[0]
    files: dict[str, dict[str, list[Row]]] = defaultdict(dict)
    for path, source in _list_tables(uri):
        split = _split(path.removesuffix(".gz"))
        files[split][path] = read_rows(source) if split in splits else []
    return {split: _without_copies(tables, plain, repeats) for split, tables in files.items() if split in splits}


def read_asked(uri: str) -> Iterator[str]:
    """Yield what every item of a benchmark asks, whatever its form; of a `train` split where there is no other.

    Raises:
        DataError: Nothing there, or a row that asks nothing.
    """
    tables = _list_tables(uri)
    others = [table for table in tables if _split(table[0].removesuffix(".gz")) != "train"]
    for _, source in others or tables:
        for number, row in enumerate(read_rows(source), 1):
            if not row.keys() <= _NOT_ASKED:  # BFCL has its answers in a file of their own
                yield text_asked(row, f"{source} row {number}")


def text_asked(row: Row, place: str) -> str:
    """Return what a row asks: its messages or question, or else, under columns of other names, its longest text.

    Raises:
        DataError: It has no text.
    """
    if text := next((text for name in ("messages", *QUESTIONS) if (text := _text_of(row.get(name)))), ""):
        return text
    texts = [value for key, value in row.items() if key not in _NOT_ASKED and isinstance(value, str) and value]
    if not texts:
        raise DataError(f"{place}: no text that is asked, such as a question or prompt; there are {', '.join(row)}")
    return max(texts, key=len)


def text_of_problem(row: Row, place: str) -> str:
    """Return the problem of a row, behind the passage that it is about; of SVAMP its body, too.

    Raises:
        DataError: It has none, or it has choices.
    """
    if not any(row.get(name) for name in QUESTIONS):
        raise DataError(f"{place}: no column 'problem' or 'question'; there are {', '.join(row)}")
    if row.get("choices") or row.get("options") or {"a", "b"} <= row.keys():
        raise DataError(f"{place}: it has choices, which would not be asked; take form multiple_choice or mmlu")
    passages = [row[name] for name in CONTEXTS if isinstance(row.get(name), str) and row[name]]
    return "\n\n".join(
        [*passages, f"{row['body']} {text_asked(row, place)}" if row.get("body") else text_asked(row, place)]
    )


def only_answer(value: Any, place: str) -> str:
    """Return the right answer, a text or a number, possibly alone in a list; empty where there is none.

    Raises:
        DataError: Several are right, or it is an object.
    """
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list | dict):
        raise DataError(f"{place}: answer is one text or number; of several right ones lm_eval's own tasks know")
    return "" if value is None else str(value).strip()


def _text_of(value: object) -> str:
    """Return a text, the stem of ARC's questions, or what the users of a conversation say; else an empty text."""
    if isinstance(value, dict):
        return _text_of(value.get("stem") or (value.get("content") if value.get("role") == "user" else ""))
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
        raise DataError(f"{plain}: no file of a known format in it; a benchmark is {', '.join(FORMATS)}")
    return [(path, plain if storage.file_exists(plain) else storage.join(plain, path)) for path in paths]


def _without_copies(tables: dict[str, list[Row]], uri: str, repeats: bool) -> list[Row]:
    """Return the rows of a split's files in the files' order, copies of others left out."""
    counted, all_questions = Counter[str](), Counter[str]()
    copies = set()
    for path in sorted(tables, key=lambda path: -len(tables[path])):
        rows, questions = Counter(map(_content, tables[path])), Counter(map(_asked, tables[path]))
        shared, total = (questions & all_questions).total(), rows.total()
        if not repeats and (repeated := total - len(questions)) > max(_CHANCE_REPEATED, _CHANCE_RATIO * total):
            raise DataError(f"{uri}: {repeated} of the {total} rows of {path} ask what others ask; each counts once")
        if total and (rows & counted).total() == total:
            copies.add(path)
        elif 2 * shared > total:
            raise DataError(
                f"{uri}: {shared} of the {total} rows of {path} are in other files of it, too; every item counts once: "
                "give one file, or a folder without copies"
            )
        else:
            counted |= rows
            all_questions |= questions
    if copies:
        names = ", ".join(sorted(copies)[:3])
        print(f"{uri}: {len(copies)} files ({names}) are copies of others, and are passed over", flush=True)
    return [row for path, rows in tables.items() if path not in copies for row in rows]


def _content(row: Row) -> str:
    """Return what makes a row the same as another's; the subject may come from the file's name."""
    return repr([(key, value) for key, value in sorted(row.items()) if key != "subject"])


def _asked(row: Row) -> str:
    """Return what a row asks; all of it, where it is no more than an answer."""
    question = {key: value for key, value in row.items() if key not in _NOT_ASKED}
    return _content(question or row)


def read_items(uri: str) -> list[Row]:
    """Return the rows that are asked: those of the `test` split, or else of the first other one."""
    splits = read_splits(uri)
    if "test" in splits and len(splits) > 1:
        print(f"{uri}: its test split is asked, not {', '.join(sorted(set(splits) - {'test'}))}", flush=True)
    return choose_split(splits, uri)


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
