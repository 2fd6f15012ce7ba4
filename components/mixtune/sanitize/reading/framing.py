"""What stands around a conversation in a row, and means the same in every schema: system text, history, tools."""

from dataclasses import dataclass, field

from mixtune.errors import DataError
from mixtune.records import Message
from mixtune.sanitize.reading import fields as names
from mixtune.sanitize.reading.fields import first_filled
from mixtune.sanitize.reading.message_forms import is_message, read_messages, read_system, read_tools
from mixtune.sanitize.reading.values import Json, JsonObject, Unread, label_of, parse_column, text_of


@dataclass(kw_only=True, slots=True)
class Fields:
    """What a schema reads of a row."""

    messages: list[Message]
    tools: list[JsonObject] = field(default_factory=list)
    label: str = ""
    group: str = ""
    consent: str = ""
    weight: Json = None


def finished(fields: Fields, row: JsonObject) -> Fields:
    """Return fields with those that mean the same in every schema."""
    fields.group, fields.consent = (label_of(row[name]) if name in row else "" for name in names.KEPT)
    return fields


def question_and_answer(question: str, answer: str) -> list[Message]:
    """Return the two turns."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def framed(messages: list[Message], row: JsonObject, unread: Unread) -> list[Message]:
    """Return messages with the system text and the history that stand beside them."""
    if (history := first_filled(row, names.HISTORY, unread)) is not None:
        messages = [*_history(parse_column(history, "its history is"), unread), *messages]
    if (system := first_filled(row, names.SYSTEM, unread)) is not None:
        messages = with_system(messages, [read_system(system, unread)])
    return messages


def with_system(messages: list[Message], texts: list[str]) -> list[Message]:
    """Return messages behind the first of some system texts, if any; a DataError where they begin with another."""
    if not texts or not texts[0].strip():
        return messages
    if messages and messages[0]["role"] == "system":
        if messages[0]["content"].strip() == texts[0].strip():
            return messages
        raise DataError("a system text stands beside messages that begin with another one; keep one of them")
    return [{"role": "system", "content": texts[0]}, *messages]


def _history(history: Json, unread: Unread) -> list[Message]:
    if isinstance(history, (list, tuple)) and all(map(is_message, history)):
        return read_messages(list(history), unread)
    out: list[Message] = []
    for pair in history if isinstance(history, (list, tuple)) else [None]:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise DataError("its history is neither pairs of question and answer nor messages")
        out += question_and_answer(text_of(pair[0]), text_of(pair[1]))
    return out


def tools_of(row: JsonObject, unread: Unread) -> list[JsonObject]:
    """Return the tools that stand beside a conversation."""
    tools = first_filled(row, names.TOOLS, unread)
    return [] if tools is None else read_tools(tools, unread)
