"""Inputs that nobody wrote: rows and files changed at random, and what sanitize does with them.

    python benchmarks/fuzz_inputs.py 100000 [FOLDER ...] > fuzz_inputs.md

Half of the inputs are rows of known forms with fields added, taken away, moved or put into other values; a text of its
own is in every added field. Half are files (of the folders, and of these rows) with bytes changed, cut, doubled or
moved. It is counted how often anything but an error of mixtune's is raised, how often rows read are not rows kept plus
rows dropped, and how often an added field is neither in the record nor counted by its name.
"""

import contextlib
import copy
import io
import json
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mixtune.errors import MixtuneError
from mixtune.sanitize.clean import Cleaner, Rules, SourceFile
from mixtune.sanitize.reading.fields import _MEANINGLESS, fold
from mixtune.sanitize.reading.readers import is_readable
from mixtune.sanitize.reading.schemas import find_schema
from mixtune.sanitize.rules.record_texts import Refused

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
ROWS: tuple[dict[str, Any], ...] = (
    {"messages": [USER, ANSWER]},
    {"messages": [USER, {**ANSWER, "tool_calls": [CALL]}, {"role": "tool", "content": "r", "tool_call_id": "1"}, ANSWER], "tools": [TOOL]},
    {"system": "s", "messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, ANSWER]},
    {"system": [{"text": "s"}], "messages": [
        {"role": "user", "content": [{"text": "q"}]},
        {"role": "assistant", "content": [{"reasoningContent": {"reasoningText": {"text": "t"}}},
                                          {"toolUse": {"toolUseId": "1", "name": "f", "input": {"x": 1}}}]},
        {"role": "user", "content": [{"toolResult": {"toolUseId": "1", "content": [{"text": "r"}]}}]},
        {"role": "assistant", "content": [{"text": "a"}]}]},
    {"contents": [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [{"text": "a"}]}]},
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"},
    {"prompt": [USER], "completion": [ANSWER]},
    {"prompt": "q", "chosen": "a", "rejected": "b"},
    {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]},
    {"instruction": "q", "input": "i", "output": "a", "history": [["h", "k"]]},
    {"question": "q", "context": "c", "answer": "a"},
    {"question": "q", "choices": ["x", "y"], "answer": 1},
    {"text": "q", "label": "l"},
)  # fmt: skip
NAMES = ("name", "weight", "images", "system", "history", "tools", "context", "input", "label", "reasoning", "content", "role", "note",
         "id", "text", "type", "toolUse", "chosen", "value", "tool_calls", "function_call", "documents", "score", "messages")  # fmt: skip
VALUES: tuple[Any, ...] = (None, True, False, 0, 1, -1, 0.5, float("nan"), 10**30, "", " ", "x", "{", "[]", "[{}]", [], [None], {}, [[]],
                           {"role": "user"}, [{"role": "assistant", "content": "z"}], [["a", "b"]], b"x", "\ud800")  # fmt: skip
MARKS = re.compile("mark[0-9]+mark")


def containers(value: Any) -> Iterator[Any]:
    """Yield all objects and lists in a value, itself first."""
    if isinstance(value, (dict, list)):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from containers(item)


def change_row(draw: random.Random) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a row of a known form, changed, and the names of added fields by the mark in them."""
    row, marks = copy.deepcopy(draw.choice(ROWS)), dict[str, str]()
    for number in range(draw.randint(1, 3)):
        place = draw.choice(list(containers(row)))
        action = draw.random()
        if isinstance(place, dict) and action < 0.5:
            name = draw.choice((*NAMES, f"odd{number}"))
            if name not in place:
                mark = f"mark{number}mark"
                place[name] = (
                    mark
                    if draw.random() < 0.6
                    else draw.choice(([mark], {"k": mark}, [{"text": mark}], [{"role": "user", "content": mark}]))
                )
                marks[mark] = name
        elif isinstance(place, dict) and place:
            name = draw.choice(list(place))
            if action < 0.7:
                del place[name]
            else:
                place[name] = copy.deepcopy(draw.choice(VALUES))
        elif isinstance(place, list):
            place.insert(draw.randint(0, len(place)), copy.deepcopy(draw.choice(VALUES)))
    return row, marks


def above(value: Any, mark: str) -> list[str]:
    """Return the names of the fields in which a mark stands, from the outside in; empty where it does not."""
    for name, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        names = [name] if isinstance(name, str) else []
        if item == mark:
            return [*names, ""]
        if deeper := above(item, mark):
            return [*names, *deeper]
    return []


def check_row(row: dict[str, Any], marks: dict[str, str]) -> str:
    """Return what is wrong about how a row is read; empty: nothing."""
    unread: Counter[str] = Counter()
    try:
        record = find_schema(row, {}).record(row, "f", 1, unread)
    except (MixtuneError, Refused, LookupError, TypeError, AttributeError, ValueError, RecursionError):
        return ""  # dropped with its line and a reason
    present = set(MARKS.findall(json.dumps(row, default=str)))
    lost = present & set(marks) - set(MARKS.findall(json.dumps(record, default=str)))
    named = {part for name in unread for part in name.split(".")}
    silent = [
        marks[mark]
        for mark in lost
        if not any((name and name in named) or fold(name) in (*_MEANINGLESS, "type") for name in above(row, mark))
    ]
    return f"not named: {', '.join(silent)} in {json.dumps(row, default=str)[:300]}" if silent else ""


def change_bytes(content: bytes, draw: random.Random) -> bytes:
    """Return the bytes of a file with some changed, cut, doubled, moved or put in."""
    out = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at, size = draw.randint(0, len(out)), draw.choice((1, 1, 2, 7, 60, 400))
        action = draw.randrange(5)
        if action == 0 and at < len(out):
            out[at] = draw.randrange(256)
        elif action == 1:
            del out[at : at + size]
        elif action == 2:
            out[at:at] = out[at : at + size] * draw.randint(1, 3)
        elif action == 3:
            out[at:at] = draw.choice(
                (b'"', b"\n", b"\r", b",", b"\0", b"\xff", b"\xef\xbb\xbf", b"{", b"]", b"\t", b";", b"NaN", b"1e999")
            )
        else:
            out[at:at] = out[: draw.randint(0, 50)]
    return bytes(out)


def check_file(path: Path) -> str:
    """Return what is wrong about how a file is read; empty: nothing."""
    cleaner = Cleaner(SourceFile(pool="p", split="train", uri=str(path), columns={}), Rules(max_bad_ratio=1))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            number = sum(1 for _ in cleaner.records())
    except MixtuneError:
        return ""
    except Exception as error:  # whatever it is, it would reach the user
        return f"{type(error).__name__}: {str(error)[:200]}"
    dropped = sum(cleaner.tally.dropped.values())
    return (
        "" if cleaner.tally.read == number + dropped else f"{cleaner.tally.read} rows, {number} kept, {dropped} dropped"
    )


def seed_files(folders: list[Path]) -> list[tuple[str, bytes]]:
    """Return name and content of small files: of folders, and of the rows above in two formats."""
    files = [(f"r{number}.jsonl", (json.dumps(row) + "\n").encode() * 5) for number, row in enumerate(ROWS)]
    files += [
        ("r.json", json.dumps(list(ROWS[:1]) * 5).encode()),
        ("r.csv", b'text,label\n"a, b",x\nc,y\n' * 5),
        ("r.tsv", b"text\tlabel\na\tx\n" * 5),
    ]
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and is_readable(path.name)):
            if path.stat().st_size < 100_000:
                files.append((path.name, path.read_bytes()))
    return files


def fuzz(number: int, folders: list[Path], seed: int = 1) -> Counter[str]:
    """Return how often each thing went wrong, with one example each."""
    draw, wrong, files = random.Random(seed), Counter[str](), seed_files(folders)
    for _ in range(number // 2):
        if problem := check_row(*change_row(draw)):
            wrong[problem] += 1
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(number - number // 2):
            name, content = draw.choice(files)
            path = Path(folder) / f"f{''.join(Path(name).suffixes[-2:])}"
            path.write_bytes(change_bytes(content, draw))
            if problem := check_file(path):
                wrong[f"{name}: {problem}"] += 1
    return wrong


def main() -> None:
    """Print a table."""
    number, folders = int(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
    wrong = fuzz(number, folders)
    print(
        f"| inputs | seed files | went wrong |\n|---|---|---|\n| {number:,} | {len(seed_files(folders))} | {wrong.total()} |"
    )
    for problem, times in wrong.most_common(20):
        print(f"\n{times}: {problem}")


if __name__ == "__main__":
    main()
