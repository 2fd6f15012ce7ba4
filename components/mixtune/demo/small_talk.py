"""The demo's further general pools: small talk and sums, which the base model has hardly met."""

import random

_GREETINGS = ("Hello!", "Hi there!", "Good morning!", "Good evening!", "Hey!", "Nice to meet you.")
_FEELINGS = ("fine", "tired", "curious", "cheerful", "bored", "busy", "relaxed", "hungry")
_PLANS = (
    "read a book", "cook some soup", "walk in the park", "visit my sister", "learn to swim", "paint the fence",
    "clean my desk", "play the piano", "write a letter", "plant some herbs", "watch the birds", "fix my bike",
)  # fmt: skip
_WHEN = ("today", "tomorrow", "tonight", "this weekend", "after lunch", "next week")
_REPLIES = (
    "That sounds good. Enjoy it!",
    "How nice. I hope it goes well.",
    "Good idea. Tell me how it was.",
    "Lovely. Take your time.",
)


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
