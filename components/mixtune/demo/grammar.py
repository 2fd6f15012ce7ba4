"""Small grammars for the demo's texts: `(a|b)` is one of two, `{name}` a slot."""

import random
import re

_CHOICE = re.compile(r"\(([^()]*)\)")


def expand(sentence: str, draw: random.Random, **slots: str) -> str:
    """One text of a sentence: slots are filled, and may hold alternatives themselves; then one of each is chosen."""
    return _CHOICE.sub(lambda match: draw.choice(match[1].split("|")), sentence.format(**slots))
