"""The demo's texts, and their small grammars: `(a|b)` is one of two, `{name}` a slot."""

import random
import re
import tomllib
from pathlib import Path
from typing import Any

TEXTS: dict[str, Any] = tomllib.loads(Path(__file__).with_name("texts.toml").read_text(encoding="utf-8"))
"""By the module that makes something of them."""
_CHOICE = re.compile(r"\(([^()]*)\)")


def expand(sentence: str, draw: random.Random, **slots: str) -> str:
    """One text of a sentence: slots are filled, and may hold alternatives themselves; then one of each is chosen."""
    return _CHOICE.sub(lambda match: draw.choice(match[1].split("|")), sentence.format(**slots))
