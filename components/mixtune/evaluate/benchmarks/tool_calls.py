"""Tool calls: whether a model calls the right tool with the right arguments, and none where none fits."""

import json
import re
from collections import Counter
from dataclasses import dataclass

from mixtune import benchmark_files
from mixtune.benchmark_files import CONVERSATIONS, QUESTIONS, Row
from mixtune.errors import ConfigError, DataError
from mixtune.evaluate.answers import AnswerColumns
from mixtune.evaluate.asked import (
    AskedForm,
    AskedItem,
    AskedOptions,
    Judgment,
    item_id,
    read_messages,
    read_object,
    read_objects,
)
from mixtune.evaluate.scoring.call_matching import Expected, are_expected
from mixtune.evaluate.scoring.written_calls import Value, WrittenCall, read_calls
from mixtune.inference.engine import Tokenizer
from mixtune.inference.parallel import Part
from mixtune.inference.prompts import render

_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}
"""BFCL's types, as JSON schemas call them."""
_NOT_COMPARED = re.compile(
    r"(?:simple_)?java(?:script)?(?=_)|exec_\w+?(?=_\d)|rest(?=_)|sql(?=_)|chatable(?=_)|multi_turn_\w+?(?=_\d)"
    r"|live_relevance(?=_)|memory(?=_)|web_search(?=_)"
)
"""Ids of BFCL's kinds that are in other languages, in several turns, or run; or any call is right."""


@dataclass(frozen=True, kw_only=True)
class CallItem(AskedItem):
    """One item."""

    expected: tuple[tuple[str, Expected], ...] = ()
    """Name and right arguments of every call; empty: no tool fits."""
    declared: tuple[Row, ...] = ()
    """The tools with the types that the benchmark gives them."""


class ToolCalls(AskedForm[AskedOptions]):
    """Rows with `messages`, `tools` and `calls` (`name`, `arguments`; none: no tool fits), or files of BFCL."""

    name, options, metric, default_limit = "tool_calls", AskedOptions, "accuracy", 0.03
    keeps_control_tokens = True

    def read_items(self, options: AskedOptions, tokenizer: Tokenizer) -> list[AskedItem]:
        """Return all items; of BFCL its questions, with the possible answers that a file beside them has.

        Raises:
            DataError: A row of neither form, or answers to no question.
        """
        rows, left_out = benchmark_files.read_items(options.uri, options.columns), Counter[str]()
        answers = {str(row["id"]): row["ground_truth"] for row in rows if "ground_truth" in row and "id" in row}
        items = []
        for number, row in enumerate(rows, 1):
            if set(row) - {benchmark_files.FILE} == {"id", "ground_truth"}:
                continue
            place, name = f"{options.uri} row {number}", item_id(row, number)
            if "calls" not in row and (kind := _NOT_COMPARED.match(name)):
                left_out[kind[0]] += 1
                continue
            if answers and not any(row.get(column) for column in (*CONVERSATIONS, *QUESTIONS)):
                left_out["that ask nothing"] += 1
                continue
            declared = _read_tools(row, place)
            expected = _read_expected(row, answers.get(name), name, declared, place)
            items.append(
                CallItem(
                    item_id=name,
                    subject=("no call", "one call")[len(expected)] if len(expected) < 2 else "several calls",
                    messages=read_messages(row, place),
                    gold=json.dumps([{tool: dict(arguments)} for tool, arguments in expected], default=str),
                    tools=[{**tool, "parameters": _schema(tool["parameters"])} for tool in declared],
                    expected=expected,
                    declared=tuple(declared),
                )
            )
        if left_out:
            counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(left_out.items()))
            text = f"{options.uri}: {left_out.total():,} rows are left out, whose calls are not compared: {counts}"
            if not items:
                raise DataError(f"{text}; that is all of it")
            print(text, flush=True)
        return list(items)

    def plan(self, axis: str, options: AskedOptions, tokenizer: Tokenizer, limit: int) -> list[Part]:
        """Return the items; a ConfigError where the chat template does not show the tools."""
        parts = super().plan(axis, options, tokenizer, limit)
        item = parts[0].items[0]
        if not all(str(tool["name"]) in render(tokenizer, item.messages, item.tools) for tool in item.tools):
            raise ConfigError(
                f"{axis}: the chat template of {tokenizer.name_or_path} has no place for tools, so the model would "
                "never see them; take a template that has, or leave the axis out"
            )
        return parts

    def judge(self, item: AskedItem, answer: AnswerColumns) -> Judgment:
        """Return whether the calls are the expected ones."""
        assert isinstance(item, CallItem)
        calls = read_calls(answer["response"])
        written = json.dumps([{call.name: call.arguments} for call in calls], default=str)
        return Judgment(correct=are_expected(calls, item.expected, item.declared), prediction=written)


FORM = ToolCalls()


def _read_expected(row: Row, truth: Value, name: str, tools: list[Row], place: str) -> tuple[tuple[str, Expected], ...]:
    """Return the calls that are right.

    Raises:
        DataError: There are none, or one that no model could give, by what its tool declares.
    """
    if truth is not None:  # BFCL: a list of {name: {argument: [values]}}
        return tuple((tool, arguments) for call in read_objects(truth, place) for tool, arguments in call.items())
    if "calls" in row:
        expected = []
        for number, call in enumerate(read_objects(row["calls"] or [], place), 1):
            arguments = read_object(call.get("arguments"), place)
            only = {key: [_nested(value)] for key, value in arguments.items()}
            expected.append((str(benchmark_files.need(call, "name", place, number)), only))
            if not are_expected([WrittenCall(name=expected[-1][0], arguments=arguments)], expected[-1:], tools):
                raise DataError(
                    f"{place}: no answer could be right: the call {expected[-1][0]!r} has an argument or a type that "
                    f"its tool does not declare, or lacks a required one; mend either; got {str(arguments)[:200]}"
                )
        return tuple(expected)
    if "irrelevance" in name:
        return ()
    raise DataError(f"{place}: no calls (a list; empty where no tool fits), and no ground_truth for {name!r}")


def _nested(value: Value) -> Value:
    """Return a value as the comparison has it: in an object every entry is a list of right values."""
    if isinstance(value, dict):
        return {key: [item] for key, item in value.items()}
    if isinstance(value, list):
        return [_nested(item) for item in value]
    return value


def _read_tools(row: Row, place: str) -> list[Row]:
    """Return the tools as records have them: name, description, parameters."""
    tools: list[Row] = []
    for tool in read_objects(row.get("tools") or row.get("function") or [], place):
        function = tool.get("function", tool)
        tools.append(
            {
                "name": str(benchmark_files.need(function, "name", place, len(tools) + 1)),
                "description": function.get("description", ""),
                "parameters": read_object(function.get("parameters"), place),
            }
        )
    if not tools and "irrelevance" not in str(row.get("id")):  # BFCL asks without any tool, too
        raise DataError(f"{place}: no tools; a row lists what may be called")
    return tools


def _schema(value: Value) -> Value:
    """Return a JSON schema with the types' own names."""
    if isinstance(value, dict):
        return {
            key: _TYPES.get(str(item), item) if key == "type" and isinstance(item, str) else _schema(item)
            for key, item in value.items()
        }
    return [_schema(item) for item in value] if isinstance(value, list) else value
