"""Pools in the formats of others: Nova, OpenAI chat, ShareGPT, Alpaca. What a format cannot say is counted.

| format      | holds                                                         | refuses                              |
|-------------|---------------------------------------------------------------|--------------------------------------|
| `nova`      | `bedrock-conversation-2024`; a file per kind of content       | a call of a tool not described       |
| `nova-eval` | `gen_qa`: `query`, `response`, `system`                       | more than one turn, reasoning, tools |
| `openai`    | `messages` and `tools` of OpenAI's fine-tuning                |                                      |
| `sharegpt`  | `conversations` of system, human and gpt                      | reasoning, tools                     |
| `alpaca`    | `instruction`, `input`, `output`, `system`                    | more than one turn, reasoning, tools |

`sanitize` reads each of them again and finds the same messages and tools, but for what Nova has no place for: several
system messages, or turns in a row of one side, become one; a call without an id gets one. Nova's checkers want the same
kinds of content in every row of a file, so rows with reasoning or tools go to files of their own.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import orjson

from mixtune import storage
from mixtune.artifacts.pools import SPLITS, PoolsManifest
from mixtune.errors import ConfigError, DataError
from mixtune.records import Message, Record, dump_json, template_messages, template_tools
from mixtune.sanitize.rules.markers import Markers

Row = dict[str, Any]


def export_pools(
    pools: PoolsManifest, form: str, folder: str, split: str = "train", names: tuple[str, ...] = ()
) -> Row:
    """Write the records of pools, or of those named, in one of `FORMATS`; no file appears unless all are whole.

    The files are `<split>.jsonl`, for Nova also `<split>-<kind>.jsonl`. Returned, and in `export-<split>.json`, are
    `format`, `split`, `files` (rows by file) and `refused` (records by reason). The same export replaces its files.

    Raises:
        ConfigError: No such format or split, or the folder holds such files that no such export wrote.
        DataError: No such pool, or no record that the format can hold.
    """
    if form not in FORMATS or split not in SPLITS:
        raise ConfigError(f"{form}, {split}: an export is one of {', '.join(FORMATS)} of one of {', '.join(SPLITS)}")
    chosen = [pools[name].name for name in names] or [pool.name for pool in pools.pools]
    summary_uri = storage.join(folder, f"export-{split}.json")
    before = _written_before(folder, summary_uri, form, split)
    with_system = any(_system(record) for record in _records(pools, chosen, split))
    files: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    with ExitStack() as opened:
        streams: dict[str, storage.Writer] = {}
        for record in _records(pools, chosen, split):
            try:
                if form != "openai" and not all(message.get("learn", True) for message in record["messages"]):
                    raise DataError("a turn that is not learned has no place in this format")
                row = FORMATS[form](record, with_system)
            except DataError as error:
                refused[str(error)] += 1
                continue
            name = f"{split}{_kind(row)}.jsonl"
            if name not in streams:
                streams[name] = opened.enter_context(storage.open_write(storage.join(folder, name)))
            streams[name].write(dump_json(row, orjson.OPT_APPEND_NEWLINE))
            files[name] += 1
        if not files:
            why = "; ".join(f"{count} x {reason}" for reason, count in refused.items()) or f"no {split} records"
            raise DataError(f"nothing to export as {form}: {why}")
    summary = {"format": form, "split": split, "files": dict(sorted(files.items())), "refused": dict(refused)}
    storage.write_json(summary_uri, summary)
    for name in before - files.keys():
        storage.delete(storage.join(folder, name))
    return summary


def _written_before(folder: str, summary_uri: str, form: str, split: str) -> set[str]:
    """Return the names of the files that the same export wrote into a folder before."""
    paths = [file.path for file in storage.list_files(folder)] if storage.exists(folder) else []
    there = {path for path in paths if re.fullmatch(rf"{split}(-\w+)*\.jsonl", path)}
    before: Row = storage.read_json(summary_uri) if storage.exists(summary_uri) else {"format": form, "files": {}}
    if others := sorted(there if before["format"] != form else there - before["files"].keys()):
        raise ConfigError(f"{folder}: {others[0]} is there, which no export as {form} wrote; take another folder")
    return there


def _records(pools: PoolsManifest, names: Iterable[str], split: str) -> Iterator[Record]:
    for name in names:
        yield from pools.records(name, split)


def _nova(record: Record, with_system: bool) -> Row:
    """Nova's form; `system` stands in every row as soon as one has it, or its checkers refuse the file."""
    tools = [{"toolSpec": _tool_spec(tool)} for tool in record.get("tools", [])]
    names = [spec["toolSpec"]["name"].strip() for spec in tools]
    if len(set(names)) < len(names) or not all(names):
        raise DataError("two tools have one name, or one has none")
    messages = _nova_turns(record)
    row: Row = {"schemaVersion": "bedrock-conversation-2024"}
    if with_system:
        row["system"] = [{"text": Markers().rewrite(_system(record), Counter())}]
    if tools:
        row["toolConfig"] = {"tools": tools}
    return {**row, "messages": messages}


def _tool_spec(tool: Row) -> Row:
    description = (tool.get("description") or "").strip() or tool["name"]
    schema = {"json": {"type": "object", **tool.get("parameters", {})}}
    return {"name": tool["name"], "description": description, "inputSchema": schema}


def _nova_turns(record: Record) -> list[Row]:
    """Turns of user and assistant by turns, each with its parts; a tool's result is the user's."""
    turns: list[Row] = []
    calls = _Calls(record)
    for message in record["messages"]:
        if message["role"] == "system":
            continue
        side = "assistant" if message["role"] == "assistant" else "user"
        parts = calls.result(message) if message["role"] == "tool" else calls.parts(message)
        if turns and turns[-1]["role"] == side:
            turns[-1]["content"] += parts
        else:
            turns.append({"role": side, "content": parts})
    if turns[0]["role"] != "user":
        raise DataError("the assistant speaks first")
    return turns


class _Calls:
    """The tool calls of one conversation: each has an id of its own, and a result follows its call."""

    def __init__(self, record: Record) -> None:
        self._tools = {tool["name"] for tool in record.get("tools", [])}
        self._ids: list[str] = []
        self._open: list[str] = []

    def parts(self, message: Message) -> list[Row]:
        """The parts of the user's or the assistant's message."""
        parts: list[Row] = []
        if message.get("reasoning"):
            parts.append({"reasoningContent": {"reasoningText": {"text": _text(message["reasoning"])}}})
        if message["content"]:
            parts.append({"text": _text(message["content"])})
        for call in message.get("tool_calls", []):
            key = call.get("id") or f"call-{len(self._ids) + 1}"
            if call["name"] not in self._tools:
                raise DataError("a tool is called that the record does not describe")
            if key in self._ids:
                raise DataError("two tool calls have one id")
            self._ids.append(key)
            self._open.append(key)
            parts.append({"toolUse": {"toolUseId": key, "name": call["name"], "input": call["arguments"]}})
        if not parts:
            raise DataError("a message is empty")
        return parts

    def result(self, message: Message) -> list[Row]:
        """The part of a tool's message."""
        key = message.get("tool_call_id") or (self._open[0] if self._open else "")
        if key not in self._open:
            raise DataError("a tool's result has no call before it")
        self._open.remove(key)
        return [{"toolResult": {"toolUseId": key, "content": [{"text": _text(message["content"])}]}}]


def _kind(row: Row) -> str:
    """What kinds of content a Nova row has beside text, as the end of its file's name."""
    parts = (
        {key for turn in row["messages"] for part in turn["content"] for key in part} if "schemaVersion" in row else ()
    )
    kinds = {"reasoningContent": "reasoning", "toolUse": "calls", "toolResult": "results"}
    return "".join(f"-{kind}" for part, kind in kinds.items() if part in parts)


def _nova_eval(record: Record, with_system: bool) -> Row:
    prompt, answer = _single(record)
    return {"query": _text(prompt), "response": _text(answer), **({"system": _system(record)} if with_system else {})}


def _openai(record: Record, _: bool) -> Row:
    messages = template_messages(record["messages"])
    for turn, message in enumerate(messages):
        if not record["messages"][turn].get("learn", True):
            message["weight"] = 0
        for number, call in enumerate(message.get("tool_calls", [])):
            call["function"]["arguments"] = dump_json(call["function"]["arguments"]).decode()
            call.setdefault("id", f"call-{turn}-{number}")
    tools = template_tools(record.get("tools"))
    return {"messages": messages, **({"tools": tools} if tools else {})}


def _sharegpt(record: Record, _: bool) -> Row:
    _plain(record)
    sides = {"system": "system", "user": "human", "assistant": "gpt"}
    turns = [{"from": sides[message["role"]], "value": message["content"]} for message in record["messages"]]
    return {"conversations": turns}


def _alpaca(record: Record, _: bool) -> Row:
    prompt, answer = _single(record)
    system = _system(record)
    return {"instruction": prompt, "input": "", "output": answer, **({"system": system} if system else {})}


FORMATS: dict[str, Callable[[Record, bool], Row]] = {
    "nova": _nova,
    "nova-eval": _nova_eval,
    "openai": _openai,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
}
"""What writes a record; the second argument says whether any record has a system message."""


def _system(record: Record) -> str:
    """All system messages as one."""
    return "\n\n".join(message["content"] for message in record["messages"] if message["role"] == "system")


def _plain(record: Record) -> None:
    if record.get("tools") or any(m["role"] == "tool" or m.get("tool_calls") for m in record["messages"]):
        raise DataError("tools have no place in this format")
    if any(message.get("reasoning") for message in record["messages"]):
        raise DataError("reasoning has no place in this format")


def _single(record: Record) -> tuple[str, str]:
    """The question and the answer of a record that has one of each, after at most one system message."""
    _plain(record)
    roles = [message["role"] for message in record["messages"]]
    if roles not in (["user", "assistant"], ["system", "user", "assistant"]):
        raise DataError("more than one turn has no place in this format")
    return record["messages"][-2]["content"], record["messages"][-1]["content"]


def _text(text: str) -> str:
    """A text that Nova's checkers accept: none of the thirteen markers in it, and not empty."""
    clean = Markers().rewrite(text, Counter())
    if not clean.strip():
        raise DataError("a text is empty, or was but markers")
    return clean
