"""Records that a chat template cannot give to learn from: how many may be, and the way out for each reason."""

from collections.abc import Mapping

from mixtune.errors import DataError

COMMONEST = 3
"""Reasons that an error names."""
NO_PLACE = "the chat template has no place for its "
"""How a reason begins that a part of the record is lost."""
ALWAYS_THINKS = "the chat template asks for every answer with a thought, and one has none"
NO_END = "the chat template writes no end of turn, so that the model would not learn to stop"
PART_NAMES = {"reasoning": "reasoning", "system": "system prompt", "tool_calls": "tool calls",
              "tool_results": "tool results", "tools": "list of tools"}  # fmt: skip
"""What reasons call the parts of `settings.chat.LOSABLE`."""
TOO_LONG, NO_WEIGHT = CHOSEN = ("longer than max_length", "weight 0")
"""Reasons that settings and data ask for; they do not count as refusals."""


def check_refused(pool: str, num_read: int, reasons: Mapping[str, int], limit: float) -> None:
    """Check that at most a share (0 to 1) of a pool's records is refused, by reason; `CHOSEN` do not count.

    Raises:
        DataError: More are refused; it names the commonest reasons and the way out.
    """
    refused = {reason: count for reason, count in reasons.items() if reason not in CHOSEN}
    total = sum(refused.values())
    if total <= limit * num_read:
        return
    commonest = sorted(refused, key=lambda reason: (-refused[reason], reason))[:COMMONEST]
    listed = "; ".join(f"{refused[reason]:,} x {reason}" for reason in commonest)
    ways = "; ".join(dict.fromkeys(way_out(reason) for reason in commonest))
    raise DataError(
        f"pool {pool!r}: {total:,} of {num_read:,} records cannot be learned as the model is asked, more than "
        f"max_refused_ratio {limit:g}: {listed}. The way out: {ways}; or raise max_refused_ratio and go on without them"
    )


def way_out(reason: str) -> str:
    """Return what a user can do about a reason."""
    if reason == ALWAYS_THINKS:
        return "thinking='on' learns an empty thought there, thinking='off' asks without thoughts, also in evaluation"
    if reason == NO_END:
        return (
            "write {{ eos_token }} behind what the assistant says in a copy of the template; chat_template_uri names it"
        )
    part = next((part for part, name in PART_NAMES.items() if reason == NO_PLACE + name), "")
    without = f"on_lost={{'{part}': 'drop_field'}} learns without it, " if part else "mend the records, or "
    return f"{without}chat_template_uri names another template"
