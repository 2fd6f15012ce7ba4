"""Messages of every published form into the form of a record: OpenAI's, Converse's, Anthropic's, Gemini's, ShareGPT's.

A message is a role with a content: a text, or parts. Text, reasoning, calls and results of tools are read from
either, in any combination; what else stands there is counted by name, or refused where it has a meaning.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from mixtune.errors import DataError
from mixtune.records import ROLES, Message, ToolCall
from mixtune.sanitize.reading import fields, turn_forms
from mixtune.sanitize.reading.fields import CALLS, LEARN, REASONING, account, first_filled
from mixtune.sanitize.reading.values import (
    Json,
    JsonObject,
    Unread,
    is_blank,
    json_text,
    parse_column,
    plain_json,
    printed,
    text_of,
)

_ROLE_NAMES = {name: role for role, speakers in fields.TABLES["speakers"].items() for name in speakers.split()}
"""Roles by the names that published forms have for them; `call` is the assistant's."""
_CONTENTS = ("content", "value", "parts", "text", "message", "utterance", "contentParts", "contents", "blocks")
_SPEAKERS = ("role", "from", "author", "speaker", "sender")
_CALLING, _SIMPLE = (frozenset(("role", "content", *more)) for more in (["tool_calls"], ["tool_call_id", *LEARN]))
_OPENAI = _SIMPLE | _CALLING
_SPOKEN = ("refusal", "tool_plan")
"""What the assistant says where there is no content, as OpenAI and Cohere have it."""
_READ = frozenset((*_SPEAKERS, *_CONTENTS, *REASONING, *LEARN, *CALLS, *_SPOKEN, "tool_call_id", "channel"))
_TYPED_TEXTS = ("text", "input_text", "output_text", "refusal")
_THOUGHTS = ("thinking", "text", "value", "content", "summary")
_PART = frozenset(("type", "thought"))
_PAIRED = (("user", "assistant"), ("human", "assistant"), ("input", "output"), ("query", "response"))
"""Names of the two sides where one object is a question with its answer."""
_LEARNED_IF = "output_with_loss"


@dataclass(kw_only=True)
class _Turn:
    """A message while it is read."""

    role: str
    texts: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    results: list[Message] = field(default_factory=list)
    between: str = "\n"
    """What stands between its texts: nothing where they are pieces of one, as Gemini's and those with citations are."""

    def message(self) -> Message:
        out: Message = {"role": self.role, "content": self.between.join(self.texts)}
        if not is_blank(self.reasoning):
            out["reasoning"] = "\n".join(self.reasoning)
        if self.calls:
            out["tool_calls"] = self.calls
        return out

    @property
    def is_filled(self) -> bool:
        return bool(any(self.texts) or self.calls or self.reasoning or not self.results)


def is_canonical(messages: Json) -> bool:
    """Return whether messages already have a record's form, without calls and reasoning, as most do."""
    if type(messages) is not list:
        return False
    try:
        for message in messages:
            if len(message) != 2 or message["role"] not in ROLES or type(message["content"]) is not str:
                return False
    except (KeyError, TypeError):
        return False
    return True


def read_messages(value: Json, unread: Unread) -> list[Message]:
    """Return messages in a record's form, from a list of messages or one, or the same as JSON text.

    Raises:
        DataError: They cannot be read; the reason alone, without content.
    """
    if is_canonical(value):
        messages: list[Message] = value
        return messages
    value = parse_column(value)
    if isinstance(value, list) and value and fields.goes_on(value[-1]):
        fields.check_linear(value)
    out: list[Message] = []
    turns = list(value) if isinstance(value, (list, tuple)) else [value]
    if not all(map(_is_openai, turns)):
        turns = turn_forms.plain_turns(turn_forms.without_asides(turns, unread))
    for turn in turns:
        is_plain = type(turn) is dict and turn.keys() <= _SIMPLE and type(turn.get("content")) is str
        if is_plain and turn.get("role") in ROLES:
            out.append(_marked({"role": turn["role"], "content": turn["content"]}, turn))
        elif _only_calls(turn):
            calls = _calls_of(turn["tool_calls"], unread)
            out.append({"role": "assistant", "content": turn["content"] or "", "tool_calls": calls})
        else:
            _join(out, list(_read_turn(turn, unread)), turn)
    return out


def _is_openai(turn: Json) -> bool:
    return type(turn) is dict and turn.keys() <= _OPENAI and not isinstance(turn.get("content"), (list, tuple))


def _join(messages: list[Message], turns: list[Message], turn: JsonObject) -> None:
    """Add turns; a call that is a turn of its own belongs to the answer before it, with the calls beside it."""
    before = messages[-1] if messages and messages[-1]["role"] == "assistant" else None
    if before is None or "learn" in before or not turns or turns[0].keys() != _CALLING or not _is_call(turn):
        messages += turns
    else:
        messages[-1] = {**before, "tool_calls": [*before.get("tool_calls", ()), *turns[0]["tool_calls"]]}


def _is_call(turn: Json) -> bool:
    """Return whether a turn is nothing but a call, by the name of its speaker."""
    return any(_role_of(turn[name]) == "call" for name in _SPEAKERS if turn.get(name))


def _only_calls(turn: Json) -> bool:
    """Return whether a message is the assistant's in OpenAI's form, with calls and nothing else beside its text."""
    if type(turn) is not dict or turn.keys() != _CALLING or turn["role"] != "assistant":
        return False
    return bool(turn["tool_calls"]) and (turn["content"] is None or type(turn["content"]) is str)


def is_message(value: Json) -> bool:
    """Return whether a value is a message of any form."""
    if not isinstance(value, dict):
        return False
    return (
        any(key in value for key in _SPEAKERS)
        or turn_forms.is_message(value)
        or turn_forms.is_item(value)
        or turn_forms.is_exchange(value)
        or any(set(pair) <= set(value) for pair in _PAIRED)
    )


def names_speaker(value: Json) -> bool:
    """Return whether a value is a message that has a field for its speaker."""
    return isinstance(value, dict) and any(key in value for key in (*_SPEAKERS, "type"))


def is_message_of(value: Json) -> bool:
    """Return whether a value is a message whose speaker has a name that is known."""
    if not isinstance(value, dict):
        return False
    speaker = next((value[key] for key in _SPEAKERS if key in value), None)
    return str(speaker).lower() in _ROLE_NAMES and any(key in value for key in (*_CONTENTS, *CALLS))


def is_part(value: Json) -> bool:
    """Return whether a value is a typed part of a message's content that is a text."""
    return isinstance(value, dict) and value.get("type") in _TYPED_TEXTS and value.keys() <= {"type", "text"}


def read_system(value: Json, unread: Unread) -> str:
    """Return a system text that stands beside the messages: a text, or parts."""
    if isinstance(value, str):
        return value
    turn = _Turn(role="system")
    if isinstance(value, dict):
        account(value, frozenset(("role", *_CONTENTS)), unread, "system.")
        value = first_filled(value, _CONTENTS, unread, "system.")
    _read_content(turn, value, unread)
    return "\n\n".join(filter(None, turn.texts))


def _read_turn(turn: Json, unread: Unread) -> Iterator[Message]:
    if not isinstance(turn, dict):
        raise DataError("a message is not an object")
    if turn_forms.is_message(turn):
        turn = turn_forms.spoken(turn)
    role = first_filled(turn, _SPEAKERS, unread, "messages.")
    if role is None and (pair := next((pair for pair in _PAIRED if set(pair) <= set(turn)), None)):
        account(turn, frozenset((*pair, "system", _LEARNED_IF)), unread, "messages.")
        pairs = (("system", turn.get("system")), ("user", turn[pair[0]]), ("assistant", turn[pair[1]]))
        for speaker, text in pairs:
            if not is_blank(text):
                message: Message = {"role": speaker, "content": text_of(text)}
                yield (
                    {**message, "learn": False}
                    if speaker == "assistant" and turn.get(_LEARNED_IF) is False
                    else message
                )
        return
    name = _role_of(role)
    if name is None:
        raise DataError(
            f"a message's role is not one of {', '.join(sorted(_ROLE_NAMES))}; of a chat between people, give the role "
            "user to who asks and assistant to who answers"
        )
    if turn.get("channel") not in (None, "", "final"):
        raise DataError("messages.channel: only the final one is read; give the analysis as the answer's `reasoning`")
    if turn.get("type") == "message":
        turn = {key: value for key, value in turn.items() if key != "type"}
    if not turn.keys() <= _READ:
        fields.check_turn(turn, name, is_learned="learn" not in _marked({"role": name, "content": ""}, turn))
        account(turn, _READ | fields.ENDS, unread, "messages.")
    yield from _read_message(turn, name, unread)


def _role_of(name: Json) -> str | None:
    """Return the role of a speaker's name, written with spaces or hyphens, too; None where it is not known."""
    role = _ROLE_NAMES.get(name) if isinstance(name, str) else None
    return role or _ROLE_NAMES.get(re.sub("[ -]", "_", str(name).strip().lower()))


def _read_message(turn: JsonObject, role: str, unread: Unread) -> Iterator[Message]:
    out = _Turn(role="assistant" if role == "call" else role, between="" if "parts" in turn else "\n")
    content = first_filled(turn, (*_CONTENTS, *_SPOKEN), unread, "messages.")
    if content is None:
        content = next((turn[key] for key in _CONTENTS if turn.get(key) is not None), None)
    if role == "call":
        out.calls += _calls_of(content, unread)
    elif role == "tool" and isinstance(content, dict):
        out.texts.append(json_text(content))
    else:
        _read_content(out, content, unread)
    if (reasoning := fields.thought_of(turn, unread, "messages.")) is not None:
        out.reasoning.insert(0, text_of(reasoning))
    for name in CALLS:
        if turn.get(name):
            out.calls += _calls_of(turn[name], unread)
    if not (out.texts or out.calls or out.results):
        raise DataError("a message's content is not text")
    message = _marked(out.message(), turn)
    yield from out.results
    if out.is_filled:
        yield message


def _marked(message: Message, turn: JsonObject) -> Message:
    """Return a message with what stands beside its content: which call it answers, and whether it is learned."""
    if len(turn) == 2:
        return message
    if turn.get("tool_call_id"):
        message["tool_call_id"] = str(turn["tool_call_id"])
    for name in turn.keys() & LEARN.keys():
        if turn[name] is None:
            continue
        if LEARN[name] is None:
            raise DataError(f"a message's {name} may say what is learned, or what is not; write `train`, true or false")
        if turn[name] not in (0, 1):
            raise DataError("a message's weight is not 0 or 1; give the record's weight as a column of its own")
        if bool(turn[name]) != LEARN[name]:
            message["learn"] = False
    return message


def _read_content(turn: _Turn, content: Json, unread: Unread) -> None:
    if isinstance(content, str):
        turn.texts.append(content)
    elif content is not None and not isinstance(content, (list, tuple)):
        raise DataError("a message's content is not text")
    for part in content if isinstance(content, (list, tuple)) else ():
        if isinstance(part, str):
            turn.texts.append(part)
        elif isinstance(part, dict):
            _read_part(turn, _filled(part), unread)
        else:
            raise DataError("a content part is not an object")


def _filled(part: JsonObject) -> JsonObject:
    """Return a part without nulls, its text beside what is said about it, where the Assistants API has an object."""
    filled = {key.removeprefix("block_"): value for key, value in part.items() if value is not None}
    text = filled.get("text")
    if not (isinstance(text, dict) and isinstance(text.get("value"), str)):
        return filled
    return {**filled, **{key: value for key, value in text.items() if key != "value"}, "text": text["value"]}


def _read_part(turn: _Turn, part: JsonObject, unread: Unread) -> None:
    kind = part.get("type")
    names = [name for name in _UNTYPED if name in part and kind is None]
    if kind in _TYPED_TEXTS or (kind is None and "text" in part):
        key = next((key for key in ("text", "value", "content", "refusal") if key in part), "text")
        if not isinstance(part.get(key), str):
            raise DataError("a content part's text is not text")
        if turn.calls and part[key].strip() and not part.get("thought"):
            raise DataError("a message speaks behind its call, where no template can say it; make two messages of it")
        (turn.reasoning if part.get("thought") is True else turn.texts).append(part[key])
        names.append(key)
        turn.between = "" if part.get("citations") else turn.between
    elif kind in ("thinking", "reasoning"):
        turn.reasoning.append(_nested_text(first_filled(part, _THOUGHTS, unread, "parts."), unread))
        names += _THOUGHTS
    elif kind in ("tool_use", "tool_call", "tool_calls", "function_call"):
        turn.calls += _calls_of(part.get("value", part), unread)
        return
    elif kind == "tool_result":
        turn.results.append(_result(part.get("tool_use_id"), part.get("content"), unread))
        names += ["tool_use_id", "content"]
    elif kind == "tool_call_response":  # OpenTelemetry's
        result = next((part[key] for key in ("response", "result") if key in part), "")
        turn.results.append(_result(part.get("id"), [{"json": result}], unread))
        names += ["id", "name", "response", "result"]
    elif kind in ("source-url", "source-document", "source"):  # what an answer shows beside its text
        unread[f"parts.{kind}"] += 1
        return
    elif kind == "document" and turn.role == "tool":
        turn.texts.append(text_of(part["document"]))
        names += ["document"]
    elif not names and "cachePoint" not in part:
        readable = "text, reasoning, calls and results of tools are read"
        raise DataError(f"content part of an unknown kind: {kind or ', '.join(sorted(part))}; {readable}")
    for name in _UNTYPED.keys() & set(names):
        _read_untyped(turn, name, part[name], unread)
    account(part, _PART | set(names), unread, "parts.")


def _nested_text(value: Json, unread: Unread) -> str:
    inner = _Turn(role="assistant")
    _read_content(inner, value, unread)
    return "\n".join(inner.texts)


def _read_untyped(turn: _Turn, name: str, value: JsonObject, unread: Unread) -> None:
    """Read what a part without a `type` holds beside a text."""
    if not isinstance(value, dict):
        raise DataError(f"{name} is not an object")
    if _UNTYPED[name]:
        account(value, _UNTYPED[name], unread, f"parts.{name}.")
    if name == "reasoningContent":
        inner = value.get("reasoningText") or {}
        if not isinstance(inner.get("text"), str):
            raise DataError("reasoningContent has no text; redacted reasoning cannot be learned")
        turn.reasoning.append(inner["text"])
        account(inner, frozenset(("text",)), unread, "parts.reasoningText.")
    elif name == "toolResult":
        turn.results.append(_result(value.get("toolUseId"), value.get("content"), unread))
    elif "response" in value:
        turn.results.append(_result(value.get("id"), [{"json": value["response"]}], unread))
    else:
        turn.calls += _calls_of(value, unread)


_CALL = frozenset(("function", "id", "toolUseId", "type", "index"))
_PLAIN_CALL = frozenset((*_CALL, "name", "arguments"))
_UNTYPED = {name: frozenset(read.split()) for name, read in fields.TABLES["parts"].items()}
"""Fields of a part without a `type` beside its text, and what is read of each; of a call see `_call`."""


def _result(identity: Json, content: Json, unread: Unread) -> Message:
    items = content if isinstance(content, (list, tuple)) else [content]
    texts = []
    for item in items:
        plain = {key: value for key, value in item.items() if value is not None} if isinstance(item, dict) else item
        if isinstance(plain, dict) and "json" in plain:
            value = plain["json"]
            texts.append(json_text(value) if isinstance(value, (list, tuple)) else text_of(value))
        else:
            texts.append(_nested_text([plain] if not is_blank(plain) else "", unread))
    out: Message = {"role": "tool", "content": "\n".join(texts)}
    if identity:
        out["tool_call_id"] = str(identity)
    return out


def _calls_of(value: Json, unread: Unread) -> list[ToolCall]:
    """Return the calls in a field: a list of them, one, or either as JSON text."""
    if is_blank(value):
        return []
    value = parse_column(printed(value) if isinstance(value, str) else value)
    return [read_call(item, unread) for item in (value if isinstance(value, (list, tuple)) else [value])]


def read_call(value: Json, unread: Unread) -> ToolCall:
    """Return one call of a tool, of any form."""
    value = parse_column(value)
    function = value.get("function", value) if isinstance(value, dict) else {}
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise DataError("a tool call has no name")
    key = next((key for key in ("arguments", "input", "args", "parameters") if key in function), "arguments")
    arguments = plain_json(parse_column(function.get(key), "a tool call's arguments are") or {}, "a tool call")
    if not isinstance(arguments, dict):
        raise DataError("a tool call's arguments are not an object")
    if not function.keys() <= _PLAIN_CALL:
        account(function, _CALL | {key, "name"}, unread, "tool_calls.")
    if function is not value and not value.keys() <= _CALL:
        account(value, _CALL, unread, "tool_calls.")
    out: ToolCall = {"name": function["name"], "arguments": arguments}
    identity = next((value[key] for key in ("id", "toolUseId") if value.get(key)), None)
    return {"id": str(identity), **out} if identity else out
