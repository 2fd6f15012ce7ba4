"""The demo's further general pools: small talk and sums, which the base model has hardly met."""

import random

from mixtune.demo.grammar import TEXTS

_GREETINGS, _FEELINGS, _PLANS, _WHEN, _REPLIES = TEXTS["small_talk"].values()


def draw_small_talk(draw: random.Random) -> tuple[str, str]:
    """Something that a person says, and a reply."""
    greeting, feeling = draw.choice(_GREETINGS), draw.choice(_FEELINGS)
    plan, when = draw.choice(_PLANS), draw.choice(_WHEN)
    message = draw.choice(
        (
            f"{greeting} I am {feeling} and want to {plan} {when}.",
            f"{greeting} I feel {feeling}. I will {plan} {when}.",
            f"I am {feeling}. Maybe I {plan} {when}?",
        )
    )
    return message, f"So you are {feeling}. {draw.choice(_REPLIES)}"


def draw_sum(draw: random.Random) -> tuple[str, str]:
    """A sum or difference of small numbers, and its value."""
    first, second = draw.randint(0, 20), draw.randint(0, 20)
    low, high = sorted((first, second))
    return draw.choice(
        (
            (f"What is {first} plus {second}?", str(first + second)),
            (f"What is {high} minus {low}?", str(high - low)),
            (f"Add {first} and {second}.", str(first + second)),
        )
    )
