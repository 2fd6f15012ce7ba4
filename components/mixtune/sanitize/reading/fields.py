"""Names of fields: which say the same in every schema, which mean nothing for training, which cannot be honoured."""

import re

from mixtune.errors import DataError
from mixtune.sanitize.reading.values import Json, JsonObject, Unread, is_blank
from mixtune.sanitize.rules.record_texts import Refused

SYSTEM = ("system", "system_prompt", "system_message", "systemInstruction", "system_instruction", "preamble")
"""Columns of a system text: a text, or parts."""
BESIDE = ("input", "context", "contexts", "passage", "document", "background", "knowledge", "choices",
          "options")  # fmt: skip
"""Columns that a question goes on in."""
REASONING = ("reasoning", "reasoning_content", "thinking")
TOOLS = ("tools", "functions", "toolConfig", "tool_config")
HISTORY = ("history", "chat_history", "conversation_history")
"""Turns before the question: pairs of question and answer, or messages."""
CHOSEN = ("chosen", "preferred_output", "completions")
"""The wanted answer of a pair; its other half is never learned."""
KEPT = ("group", "consent")
"""Columns that mean the same in whatever schema; a class is a label only where a schema or a mapping says so."""
AROUND = (*SYSTEM, *TOOLS, *HISTORY, *KEPT)
WANTED = ("label", "kto_tag", "desirable", "is_desirable", "is_preferred", "is_chosen", "thumbs_up")
"""Columns that may say whether an answer is wanted, true or false."""
_MEANINGLESS = frozenset((
    "id", "idx", "index", "_id", "_key", "uuid", "guid", "row_id", "prompt_id", "conversation_id", "message_id",
    "schema_version", "parallel_tool_calls", "cache_point", "cache_control", "signature", "thought_signature", "strict",
    "additional_properties", "__typename",
))  # fmt: skip
_MEDIA = re.compile(
    "(?:(?:input|question|prompt|query|user|context)_)?(?:image|img|picture|photo|audio|video|media)s?"
    "(?:_(?:path|url|uri|file|id|name|data|base64|bytes)s?)?|pixel_values|speech|(?:file|inline)_data"
)
_REFUSED = {
    "documents": "documents beside a conversation are not read; write them into its messages",
    **dict.fromkeys(
        ("train_detail", "training_detail"),
        "parts of a turn cannot be left out of training; split the turn, or mark it whole by `train`",
    ),
    "guard_content": "guarded content is not read; give it as text",
}
_YES_NO = {"true": True, "false": False}


def fold(name: str) -> str:
    """Return a column's name as it is compared: without case and outer spaces, spaces and humps inside as `_`."""
    return re.sub(r"[\s-]+|(?<=[a-z])(?=[A-Z])", "_", name.strip()).lower()


def account(fields: JsonObject, read: frozenset[str], unread: Unread, place: str = "", *, refuses: bool = True) -> None:
    """Count the fields of a row, or of a `place` in it, that are there and are not read.

    Raises:
        DataError: One has a meaning that cannot be honoured, and `refuses`.
    """
    for name, value in fields.items():
        if name in read or is_blank(value):
            continue
        folded = fold(name)
        if refuses and _MEDIA.fullmatch(folded):
            raise DataError(
                f"{place}{name}: images, audio and video are not read; leave out such rows, or give columns"
            )
        if refuses and folded in _REFUSED:
            raise DataError(f"{place}{name}: {_REFUSED[folded]}")
        if folded and folded not in _MEANINGLESS and not folded.startswith(("unnamed:", "__index_level_")):
            unread[f"{place}{name}"] += 1


def first_filled(row: JsonObject, names: tuple[str, ...], unread: Unread, place: str = "") -> Json:
    """Return the first value of some fields that says something, or None; others that differ are counted as unread."""
    filled = [name for name in names if name in row and not is_blank(row[name])]
    for name in filled[1:]:
        if row[name] != row[filled[0]]:
            unread[f"{place}{name}"] += 1
    return row[filled[0]] if filled else None


def check_wanted(row: JsonObject, unread: Unread) -> None:
    """Refuse an answer that is marked as unwanted, as data for KTO do; raise DataError where that is not sure."""
    for name in WANTED:
        value = row.get(name)
        wish = _YES_NO.get(value.strip().lower()) if isinstance(value, str) else value
        if wish is False:
            raise Refused(f"unwanted answer ({name} is false)")
        if name == "label" and type(wish) is int and wish in (0, 1):
            raise DataError("label is 0 or 1 beside an answer; give columns, or true and false for what is wanted")
        if wish is not True and not is_blank(value):
            unread[name] += 1


def is_wish(value: Json) -> bool:
    """Return whether a label says that an answer is wanted or not, and is no class."""
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in _YES_NO)
