"""Names of fields: which say the same in every schema, which mean nothing for training, which cannot be honoured."""

import re
import tomllib
from pathlib import Path

from mixtune.errors import DataError
from mixtune.sanitize.reading.values import Json, JsonObject, Unread, is_blank
from mixtune.sanitize.rules.record_texts import Refused


def _names(text: str) -> tuple[str, ...]:
    """Return the names in a text, which spaces separate."""
    return tuple(text.split())


CONVERSATIONS = _names("messages conversations conversation dialog dialogue turns contents chat_messages trajectory")
"""Columns of a whole conversation."""
SYSTEM = _names(
    "system system_prompt system_message systemInstruction system_instruction system_instructions instructions "
    "meta_instruction preamble"
)
"""Columns of a system text: a text, or parts."""
CONTEXTS = _names("context contexts passage passages document article background knowledge support evidence paragraph")
"""Columns of what a question is about."""
CHOICES = _names("choices options")
BESIDE = ("input", *CONTEXTS, *CHOICES)
"""Columns that a question goes on in."""
REASONING = _names("reasoning reasoning_content thinking reasoning_trace chain_of_thought complex_cot cot")
CALLS = _names("tool_calls function_call")
TOOLS = _names("tools functions toolConfig tool_config")
LEARN: dict[str, bool | None] = {
    **dict.fromkeys(_names("learn weight train trainable training loss loss_weight loss_mask"), True),
    **dict.fromkeys(_names("masked ignore ignored no_loss"), False),
    "mask": None,
}
"""Fields that leave a turn out of training, and what says that it is learned; None: data sets differ in that."""
HISTORY = _names("history chat_history conversation_history")
"""Turns before the question: pairs of question and answer, or messages."""
CHOSEN = _names("chosen preferred_output completions chosen_response")
"""The wanted answer of a pair; its other half is never learned."""
ANSWERS = _names("completion response answer output")
"""The answer beside a conversation that does not end with one."""
KEPT = _names("group consent")
"""Columns that mean the same in whatever schema; a class is a label only where a schema or a mapping says so."""
AROUND = (*SYSTEM, *TOOLS, *HISTORY, *KEPT)
_UNWANTED_IF_FALSE = _names(
    "label kto_tag desirable is_desirable preferred is_preferred is_chosen thumbs_up liked correct is_correct "
    "accepted is_accepted approved is_approved valid is_valid is_good passed is_passed success is_success "
    "is_successful resolved is_resolved"
)
_UNWANTED_IF_TRUE = _names("rejected is_rejected deleted is_deleted discarded thumbs_down disliked is_bad")
WANTED = dict.fromkeys(_UNWANTED_IF_FALSE, False) | dict.fromkeys(_UNWANTED_IF_TRUE, True)
"""Columns that may say whether an answer is wanted, each with the value that says it is not."""
_ENDS = _names("finish_reason finishReason stop_reason stopReason")
_CUT_OFF = frozenset(_names("length max_tokens out_of_tokens content_filter content_filtered safety"))
JUDGING = frozenset(
    _names(
        "status state quality quality_score rating score reward verdict outcome decision grade feedback vote toxic "
        "is_toxic flagged is_flagged harmful is_harmful spam is_spam verified correctness helpfulness review_result"
    )
)
"""Names of columns that may say how good a row is, in words or numbers that data sets differ in."""
_MEANINGLESS = frozenset(
    _names(
        "id idx index _id _key uuid guid row_id prompt_id conversation_id message_id schema_version "
        "parallel_tool_calls cache_point cache_control signature thought_signature strict additional_properties "
        "__typename"
    )
)
_MEDIA = re.compile(
    "(?:(?:input|question|prompt|query|user|context)_)?(?:image|img|picture|photo|audio|video|media)s?"
    "(?:_(?:path|url|uri|file|id|name|data|base64|bytes)s?)?|pixel_values|speech|(?:file|inline)_data"
)
_REFUSED = tomllib.loads(Path(__file__).with_name("refused_fields.toml").read_text(encoding="utf-8"))
_TRUTHS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
_SWITCHES = frozenset(_names("on off true false yes no enabled disabled auto minimal low medium high xhigh"))
"""What a field of a thought's name holds that is no thought."""
_DECISIONS = {"accept": True, "reject": False, "ignore": False}
"""What Prodigy writes as `answer` beside a text and its class."""


def fold(name: str) -> str:
    """Return a column's name as it is compared: without case and outer spaces, spaces and humps inside as `_`."""
    return re.sub(r"[\s-]+|(?<=[a-z])(?=[A-Z](?:[a-z]|[A-Z]))", "_", name.strip()).lower()


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
        if refuses and (way := _REFUSED.get(folded) or _REFUSED.get(place + folded)):
            raise DataError(f"{place}{name}: {way}")
        if folded and folded not in _MEANINGLESS and not folded.startswith(("unnamed:", "__index_level_")):
            unread[f"{place}{name}"] += 1


def first_filled(row: JsonObject, names: tuple[str, ...], unread: Unread, place: str = "") -> Json:
    """Return the first value of some fields that says something, or None; others that differ are counted as unread."""
    filled = [name for name in names if name in row and not is_blank(row[name])]
    for name in filled[1:]:
        if row[name] != row[filled[0]]:
            unread[f"{place}{name}"] += 1
    return row[filled[0]] if filled else None


def thought_of(fields: JsonObject, unread: Unread, place: str = "") -> Json:
    """Return the thought among some fields, or None; what only says whether or how much was thought is unread."""
    switches = [name for name in REASONING if name in fields and str(fields[name]).strip().lower() in _SWITCHES]
    unread.update(f"{place}{name}" for name in switches)
    return first_filled(fields, tuple(name for name in REASONING if name not in switches), unread, place)


def check_wanted(row: JsonObject, unread: Unread, *, labels: bool = False) -> None:
    """Refuse an answer that is marked as unwanted, as data for KTO do; raise DataError where that is not sure.

    `unread` counts the columns that say something else; with `labels`, `label` is a class where it is neither true nor
    false.
    """
    check_end(row)
    for name in WANTED.keys() & row.keys():
        value = row[name]
        truth = _truth(value)
        if name == "label" and not is_wish(value):
            if truth is not None and not labels:
                raise DataError("label is 0 or 1 beside an answer; give columns, or true and false for what is wanted")
            truth = None
        if truth is WANTED[name]:
            raise Refused(f"unwanted answer ({name} is {str(truth).lower()})")
        if truth is None and not is_blank(value) and not (labels and name == "label"):
            unread[name] += 1


def check_end(fields: JsonObject) -> None:
    """Refuse an answer that was cut off."""
    if fields.keys().isdisjoint(_ENDS):
        return
    end = next((str(fields[name]).lower() for name in _ENDS if fields.get(name)), "")
    if end in _CUT_OFF:
        raise Refused(f"an answer that was cut off ({end})")


def check_decision(row: JsonObject, unread: Unread) -> None:
    """Refuse a class that was rejected or passed over when it was assigned by hand."""
    answer = str(row.get("answer") or "").strip().lower()
    is_accepted = _DECISIONS.get(answer)
    if is_accepted is False:
        raise Refused(f"unwanted class (answer is {answer})")
    if answer and is_accepted is None:
        unread["answer"] += 1


def is_wish(label: Json) -> bool:
    """Return whether a label says that an answer is wanted or not, and is no class."""
    return isinstance(label, bool) or (isinstance(label, str) and label.strip().lower() in ("true", "false"))


def _truth(value: Json) -> bool | None:
    return _TRUTHS.get(str(value).strip().lower()) if isinstance(value, (bool, int, float, str)) else None
