"""A record: one training example in canonical chat form, as a plain dictionary.

    {"id": "3f2a...", "messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}],
     "origin": {"file": "train.csv", "line": 17}, "label": "card_arrival"}

| key        | value                                                                                            |
|------------|--------------------------------------------------------------------------------------------------|
| `id`       | 32 hex digits: the digest of `messages` and `tools`; the same content has the same id            |
| `messages` | `role` (system, user, assistant, tool), `content` (text), and, where there are any, `reasoning`  |
|            | (assistant), `tool_calls` (assistant: list of `id`, `name`, `arguments`), `tool_call_id` (tool), |
|            | `learn` (false: a turn of the assistant's that is never learned)                                 |
| `tools`    | optional: list of `name`, `description`, `parameters` (a JSON schema)                            |
| `origin`   | `file` and `line` (1-based; the row for formats without lines)                                   |
| `label`    | optional: the class of a classification example                                                  |
| `consent`  | optional: `granted`, where the file says who consented                                           |
| `group`    | optional: digest of the group's name; records of one group never straddle two splits             |
| `weight`   | optional: factor on the record's loss in training, 0 or more; 1 where there is none              |
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

import orjson

from mixtune.errors import DataError

ROLES = ("system", "user", "assistant", "tool")


TemplateValue = dict[str, Any]
"""A message or a tool in the form that chat templates take."""


class ToolCall(TypedDict):
    """One call of a tool by the assistant."""

    id: NotRequired[str]
    name: str
    arguments: TemplateValue


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str
    reasoning: NotRequired[str]
    tool_calls: NotRequired[list[ToolCall]]
    tool_call_id: NotRequired[str]
    learn: NotRequired[bool]


class Origin(TypedDict):
    """Where a record was read."""

    file: str
    line: int


class Record(TypedDict):
    """One training example."""

    id: str
    messages: list[Message]
    origin: Origin
    tools: NotRequired[list[TemplateValue]]
    label: NotRequired[str]
    consent: NotRequired[str]
    group: NotRequired[str]
    weight: NotRequired[float]


def content_id(messages: list[Message], tools: list[TemplateValue] | None = None) -> str:
    """Return the digest of a record's content: 32 hex digits, whatever the order of keys."""
    text = orjson.dumps([messages, tools or []], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:32]


def where(record: Record) -> str:
    """`file line n`, for messages about a record."""
    return f"{record['origin']['file']} line {record['origin']['line']}"


def prompt_and_answer(record: Record) -> tuple[list[Message], Message]:
    """Return the messages before the last assistant turn, and that turn.

    Raises:
        DataError: The last message is not the assistant's.
    """
    *prompt, answer = record["messages"]
    if answer["role"] != "assistant":
        raise DataError(f"{where(record)}: the last message is the {answer['role']}'s, an answer is needed")
    return prompt, answer


def template_messages(messages: Sequence[Message]) -> list[TemplateValue]:
    """Messages as chat templates expect them: OpenAI's form of tool calls; reasoning under every name it is read by."""
    return [_template_message(message) for message in messages]


def template_tools(tools: Sequence[TemplateValue] | None) -> list[TemplateValue] | None:
    """Tools as chat templates expect them: OpenAI's function form; None where there are none."""
    return [{"type": "function", "function": tool} for tool in tools] if tools else None


def _template_message(message: Message) -> TemplateValue:
    out: TemplateValue = {"role": message["role"], "content": message["content"]}
    if message.get("reasoning"):
        out["reasoning"] = out["reasoning_content"] = out["thinking"] = message["reasoning"]
    if message.get("tool_calls"):
        out["tool_calls"] = [_template_call(call) for call in message["tool_calls"]]
    if message.get("tool_call_id"):
        out["tool_call_id"] = message["tool_call_id"]
    return out


def _template_call(call: ToolCall) -> TemplateValue:
    function = {"name": call["name"], "arguments": call["arguments"]}
    return {"type": "function", "function": function, **({"id": call["id"]} if "id" in call else {})}
