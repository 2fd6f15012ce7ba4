"""A record: one training example in canonical chat form, as a plain dictionary.

    {"id": "3f2a...", "messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}],
     "origin": {"file": "train.csv", "line": 17}, "label": "card_arrival"}

| key        | value                                                                                            |
|------------|--------------------------------------------------------------------------------------------------|
| `id`       | 32 hex digits: the digest of `messages` and `tools`; the same content has the same id            |
| `messages` | `role` (system, user, assistant, tool), `content` (text), and, where there are any, `reasoning`  |
|            | (assistant), `tool_calls` (assistant: list of `id`, `name`, `arguments`), `tool_call_id` (tool), |
|            | `learn` (false: a turn that is context alone, never learned)                                     |
| `tools`    | optional: list of `name`, `description`, `parameters` (a JSON schema)                            |
| `origin`   | `file` and `line` (1-based; the row for formats without lines)                                   |
| `label`    | optional: the class of a classification example                                                  |
| `consent`  | optional: `granted`, where the file says who consented                                           |
| `group`    | optional: digest of the group's name; records of one group never straddle two splits             |
| `weight`   | optional: factor on the record's loss in training, 0 or more; 1 where there is none              |
"""

import hashlib
import json
import re
from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from typing import Any, NotRequired, Self, TypedDict

import orjson

from mixtune.errors import DataError

ROLES = ("system", "user", "assistant", "tool")
THOUGHT_KEYS = ("reasoning", "reasoning_content", "thinking", "thought")
"""What chat templates call a message's thought."""
ROW_LISTS = ("data", "rows", "examples", "instances", "records", "items")
"""Keys under which a JSON object holds its rows."""
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


class Written(Decimal):
    """A number of a tool's call or schema that no number of Python's is written as, and how it is written."""

    text: str

    def __new__(cls, text: str) -> Self:
        """Take the text."""
        value = super().__new__(cls, text)
        value.text = text
        return value

    def __str__(self) -> str:
        """Return the number as it is written."""
        return self.text

    __repr__ = __str__


def exact_number(text: str) -> int | float | Written:
    """Return what JSON writes as this text again, whoever writes it."""
    if text.lstrip("-").isdigit():
        return int(text) if len(text) < 19 and text != "-0" else Written(text)
    number = float(text)
    return number if repr(number) == text == orjson.dumps(number).decode() else Written(text)


def dump_json(value: Any, option: int = 0) -> bytes:
    """Return a record, or a part of one, as JSON."""
    return orjson.dumps(value, _as_fragment, option)


def json_text(value: Any, **options: Any) -> str:
    """Return a part of a record as Python's json writes it, by the options of `json.dumps`."""
    texts = list[str]()

    def note(item: Any) -> str:
        if not isinstance(item, Written):
            raise TypeError(f"Object of type {type(item).__name__} is not JSON serializable")
        texts.append(item.text)
        return "\ufdd2"

    text = json.dumps(value, default=note, **options)
    if not texts:
        return text
    first, *rest = re.split(r'"(?:\ufdd2|\\ufdd2)"', text)  # no text of a record holds a noncharacter
    return first + "".join(number + piece for number, piece in zip(texts, rest, strict=True))


def read_record(line: bytes) -> Record:
    """Return a record from its line in a pool."""
    may_lose = _HAS_TOOLS.search(line) and _MAY_LOSE_FORM.search(line)
    exactly = partial(json.loads, parse_float=exact_number, parse_int=exact_number)
    record: Record = exactly(line) if may_lose else orjson.loads(line)
    return record


_HAS_TOOLS = re.compile(rb'"(?:tool_calls|tools)"')
_MAY_LOSE_FORM = re.compile(rb"[:\[,](?:-0|-?(?:\d+[.eE]|\d{19}))")


def _as_fragment(value: Any) -> orjson.Fragment:
    if isinstance(value, Written):
        return orjson.Fragment(value.text)
    raise TypeError(type(value).__name__)


def content_id(messages: list[Message], tools: list[TemplateValue] | None = None) -> str:
    """Return the digest of a record's content: 32 hex digits, whatever the order of keys."""
    text = dump_json([messages, tools or []], orjson.OPT_SORT_KEYS)
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
    if len(message) == 2:
        return out
    if message.get("reasoning"):
        out |= dict.fromkeys(THOUGHT_KEYS, message["reasoning"])
    if message.get("tool_calls"):
        out["tool_calls"] = [_template_call(call) for call in message["tool_calls"]]
    if message.get("tool_call_id"):
        out["tool_call_id"] = message["tool_call_id"]
    if message.get("learn") is False:
        out["learn"] = False
    return out


def _template_call(call: ToolCall) -> TemplateValue:
    function = {"name": call["name"], "arguments": call["arguments"]}
    return {"type": "function", "function": function, **({"id": call["id"]} if "id" in call else {})}
