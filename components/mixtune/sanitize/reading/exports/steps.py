"""What one side of an exported chat said, step by step, and why an answer among these is context alone."""

from dataclasses import dataclass

from mixtune.sanitize.reading.values import Json
from mixtune.sanitize.rules.record_texts import Refused

AFTER = "turns behind the last answer that is learned"
TOOLS = "answers by an app's tools, as context"
CUT_OFF = "answers that were cut off, as context"
DISLIKED = "answers that were disliked, as context"
_ENDED = ("stop", "finished_successfully", "end_turn", "stop_sequence", "eosFound", "stopStringFound")
"""What the apps say of an answer that is whole."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one side said, or a part of it."""

    role: str
    text: str = ""
    thought: str = ""
    flaw: str = ""
    """Why the answer that it belongs to is not learned."""


def check_files(*files: Json) -> None:
    """Refuse a message that has files."""
    if any(files):
        raise Refused("attachments, which are not read")


def flaw_of(*ends: Json) -> str:
    """Return the flaw of an answer by what is said of its end."""
    return "" if all(not end or end in _ENDED for end in ends) else CUT_OFF
