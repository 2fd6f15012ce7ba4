"""Small grammars for the demo's texts: `(a|b)` is one of two, `{name}` a slot."""

import itertools
import random
import re
from collections.abc import Iterator

_CHOICE = re.compile(r"\(([^()]*)\)")


def expand(sentence: str, draw: random.Random, **slots: str) -> str:
    """One text of a sentence: slots are filled, and may hold alternatives themselves; then one of each is chosen."""
    return _CHOICE.sub(lambda match: draw.choice(match[1].split("|")), sentence.format(**slots))


def expansions(sentence: str) -> Iterator[str]:
    """All texts of a sentence, its slots left open."""
    parts = _CHOICE.split(sentence)  # every second part is the inside of a choice
    choices = [part.split("|") if place % 2 else [part] for place, part in enumerate(parts)]
    return ("".join(chosen) for chosen in itertools.product(*choices))
