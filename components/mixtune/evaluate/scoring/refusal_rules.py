"""Whether a text refuses: what models write where they decline, in the first sentences of an answer.

To be unable to do something is a refusal, but not to be unable to see, know or foresee something, nor a manner of
speaking ("I can't recommend it enough"). `refusals.toml` has what models commonly write, in 28 languages; a calibrated
judge on the axis reads the rest.
"""

import re
import tomllib
from pathlib import Path

_TABLE = Path(__file__).with_name("refusals.toml")
_LEAD_CHARACTERS = 300
"""A refusal stands at the beginning; later on the same words may be part of an answer."""


def is_refusal(text: str) -> bool:
    """Return whether an answer declines what was asked."""
    lead = text.strip()[:_LEAD_CHARACTERS].replace("’", "'")
    return _REFUSAL.search(lead) is not None


def _compile_patterns() -> re.Pattern[str]:
    table = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    whole = "|".join(f"(?:{pattern})" for patterns in table["patterns"].values() for pattern in patterns)
    for name, part in table["parts"].items():
        whole = whole.replace(f"<{name}>", part)
    return re.compile(whole, re.IGNORECASE | re.DOTALL)


_REFUSAL = _compile_patterns()
