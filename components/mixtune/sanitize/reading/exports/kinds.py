"""How rows of exports are told from others: by the form of their values, never by a column's name alone."""

from mixtune.sanitize.reading.values import Json, JsonObject, is_blank

_ELSE = ("messages", "conversations", "prompt", "completion", "response", "text")
"""Columns that no export has, but for those that it is read from."""


def is_more(row: JsonObject, read: frozenset[str]) -> bool:
    """Return whether a row has messages, a question or an answer beside what would be read of an export."""
    return any(not is_blank(row.get(name)) for name in _ELSE if name not in read)


def is_deepseek(row: JsonObject) -> bool:
    """Return whether a row is a tree of messages, each with the time when it was inserted."""
    return has_nodes(row) and any("inserted_at" in (node.get("message") or ()) for node in row["mapping"].values())


def has_nodes(row: JsonObject) -> bool:
    """Return whether a row is a tree of messages by their ids."""
    nodes = row.get("mapping")
    return isinstance(nodes, dict) and all(
        isinstance(node, dict) and "id" in node and isinstance(node.get("message"), (dict, type(None)))
        for node in nodes.values()
    )


def is_open_webui(row: JsonObject) -> bool:
    """Return whether a row is a chat with its messages by their ids, and the one that it ends with."""
    history = row["chat"].get("history") if isinstance(row.get("chat"), dict) else None
    return isinstance(history, dict) and isinstance(history.get("messages"), dict) and "currentId" in history


def is_claude(row: JsonObject) -> bool:
    """Return whether a row is a list of messages of a human and an assistant, or an empty one."""
    messages: Json = row.get("chat_messages")
    return messages == [] or (
        begins(messages, "sender") and all(message.get("sender") in ("human", "assistant") for message in messages)
    )


def begins(messages: Json, name: str) -> bool:
    """Return whether a value is a list of messages that have a field of this name."""
    return isinstance(messages, list) and bool(messages) and isinstance(messages[0], dict) and name in messages[0]
