"""The demo's customer: short messages to a shop, each with the category that its service desk files it under.

Messages are drawn from small grammars (`(a|b)` is one of two), in a shop's usual mess: typos, capitals, greetings.
Held-out messages come from sentences and greetings that no training message has.
"""

import random
import re
from dataclasses import dataclass

from mixtune.demo.grammar import expand

_SLOTS = {
    "item": "(kettle|toaster|headphones|laptop|phone|speaker|keyboard|monitor|backpack|lamp|blender|vacuum|printer|"
    "router|tablet|charger|watch|drone|heater|fan)",
    "time": "(yesterday|last week|on Monday|two days ago|this morning|last month|three weeks ago|on Friday)",
    "days": "(two|three|four|five|six|seven|nine|ten|twelve)",
    "money": "(12|15|19|25|29|35|49|60|75|89|99|120)",
}


@dataclass(frozen=True, kw_only=True)
class Category:
    """One label with the sentences that mean it."""

    label: str
    sentences: tuple[str, ...]
    held_out: tuple[str, ...]


CATEGORIES = (
    Category(
        label="delivery",
        sentences=(
            "my (parcel|package|order) with the {item} (has not arrived|never came|is still not here)",
            "(where is|I am still waiting for) my (parcel|package|order), the courier said {days} days",
            "the (courier|driver) left my (parcel|package) (at the wrong address|with a stranger|in the rain)",
            "tracking for the {item} (has not moved|shows nothing new) (for|since) {days} days",
        ),
        held_out=(
            "the (parcel|package) is still not here, tracking shows nothing new since {time}",
            "the courier said {time} but my {item} (never came|has not arrived)",
        ),
    ),
    Category(
        label="refund",
        sentences=(
            "I (returned|sent back) the {item} {time} and (want|still wait for) my money back",
            "when (will I get|do you pay) the refund of {money} (euros|dollars) for the {item}",
            "you (promised|confirmed) a refund {time} but (nothing|no money) is on my account",
            "please (reimburse|pay back) the {money} (euros|dollars) I paid for the {item}",
        ),
        held_out=(
            "I sent the {item} back and no refund of {money} (euros|dollars) is on my account",
            "you promised my money back {time}, please pay back the {money} (euros|dollars)",
        ),
    ),
    Category(
        label="billing",
        sentences=(
            "I was (charged|billed) twice for the {item} {time}",
            "the invoice (shows|lists) {money} (euros|dollars) that I (do not know|never agreed to)",
            "my card was (charged|debited) {money} (euros|dollars) (without reason|by mistake)",
            "(send me|I need) a correct invoice for the {item} (for my tax|with my company on it)",
        ),
        held_out=(
            "the invoice for the {item} is not correct, I was charged {money} (euros|dollars) by mistake",
            "my card was debited twice {time} for one {item}",
        ),
    ),
    Category(
        label="damage",
        sentences=(
            "the {item} (arrived|came) (broken|cracked|scratched) (in its box|on one side)",
            "the (box|screen|lid) of the {item} was (smashed|dented|cracked) when I opened it",
            "a piece of the {item} was (broken off|bent) when I unpacked it",
            "I unpacked the {item} {time} and found (a dent|scratches|a crack) on it",
        ),
        held_out=(
            "when I opened the box the {item} was (scratched|bent) on one side",
            "I unpacked a (broken|smashed) {item} {time}, the lid was cracked",
        ),
    ),
    Category(
        label="login",
        sentences=(
            "I cannot (log in|sign in) since {time}, it says my password is wrong",
            "the (reset|confirmation) link for my password (does not work|has expired)",
            "my account is (locked|blocked) after {days} (tries|attempts)",
            "the (website|app) does not (accept|know) my (username|password) any more",
        ),
        held_out=(
            "the app says that my account is locked and the reset link has expired",
            "since {time} I cannot sign in, the website does not accept my username",
        ),
    ),
    Category(
        label="cancellation",
        sentences=(
            "please cancel my (order|subscription) from {time}, I (do not need|changed my mind about) it",
            "I want to (stop|end) my (subscription|contract) (before|by) the end of the month",
            "how (can|do) I (cancel|stop) the (order|subscription) for the {item}",
            "I ordered the {item} by accident, (cancel it|stop the order) before you ship it",
        ),
        held_out=(
            "I changed my mind about the {item} from {time}, please stop the order before you ship it",
            "how do I end the contract, I do not need the subscription for the {item}",
        ),
    ),
    Category(
        label="warranty",
        sentences=(
            "the {item} (stopped working|died) after {days} months, is it (under warranty|covered)",
            "how long does the (warranty|guarantee) of the {item} (last|run)",
            "does the (warranty|guarantee) cover a (battery|motor) that (failed|died)",
            "I need a (repair|replacement) under warranty, my {item} (does not turn on|keeps failing)",
        ),
        held_out=(
            "my {item} died after {days} months, does the guarantee cover a replacement",
            "is a repair of the {item} covered, the battery failed and it does not turn on",
        ),
    ),
    Category(
        label="stock",
        sentences=(
            "when will the {item} be (back in stock|available again)",
            "is the {item} (available|in stock) in (black|white|blue|red)",
            "your page says sold out for the {item}, (when do you restock|will there be more)",
            "do you have {days} pieces of the {item} (in your store|ready to ship)",
        ),
        held_out=(
            "the {item} in (black|blue) is sold out, when will it be available again",
            "will there be more of the {item} in stock in your store",
        ),
    ),
    Category(
        label="discount",
        sentences=(
            "my (voucher|coupon) code (is rejected|does not work) at checkout",
            "do you (offer|have) a (student|loyalty|family) discount on the {item}",
            "the {item} was {money} (euros|dollars) cheaper in your sale {time}, can I have that price",
            "how do I (use|redeem) the (coupon|gift card) of {money} (euros|dollars)",
        ),
        held_out=(
            "the coupon of {money} (euros|dollars) is rejected at checkout for the {item}",
            "can I redeem a voucher on the {item}, or do you have a student discount",
        ),
    ),
    Category(
        label="praise",
        sentences=(
            "the {item} is (great|wonderful|fantastic), I (love it|am very happy)",
            "(thanks to|big praise for) your (team|support), they were so (friendly|helpful)",
            "best {item} I ever (had|bought), I will (recommend|tell) all my friends",
            "(excellent|perfect) service, the {item} came early and (works|looks) great",
        ),
        held_out=(
            "your support was so friendly and the {item} looks fantastic, I am very happy",
            "I love the {item}, perfect service, I will recommend your team",
        ),
    ),
)
LABELS = tuple(sorted(category.label for category in CATEGORIES))

_OPENERS = (
    "",
    "",
    "",
    "hi, ",
    "hello, ",
    "good morning, ",
    "dear team, ",
    "hey, ",
    "hi there, ",
    "to whom it concerns: ",
)
_CLOSERS = ("", "", ". thanks", ". please help", ". regards", ". please answer soon", ". this is urgent", ". thank you")
_HELD_OUT_OPENERS = ("", "", "hello there, ", "hi team, ", "good evening, ", "dear support, ")
_HELD_OUT_CLOSERS = ("", "", ". many thanks", ". please answer", ". best regards", ". please help me soon")


def draw_message(category: Category, draw: random.Random, *, held_out: bool = False) -> str:
    """A message of a category, in training or in held-out sentences."""
    sentence = expand(draw.choice(category.held_out if held_out else category.sentences), draw, **_SLOTS)
    opener = draw.choice(_HELD_OUT_OPENERS if held_out else _OPENERS)
    closer = draw.choice(_HELD_OUT_CLOSERS if held_out else _CLOSERS)
    return _mess(opener + sentence + closer, draw)


def vocabulary() -> list[str]:
    """The words of all messages: a tokenizer should know them, and a general model has met them."""
    texts = [text for category in CATEGORIES for text in (*category.sentences, category.label)]
    texts += [*_OPENERS, *_CLOSERS, *_SLOTS.values()]
    words = {word for text in texts for word in re.findall(r"[A-Za-z]+", re.sub(r"\{\w+\}", " ", text))}
    return sorted(words)


def _mess(text: str, draw: random.Random) -> str:
    style = draw.random()
    if style < 0.35:
        text = text[0].upper() + text[1:]
    elif style < 0.42:
        text = text.upper()
    elif style < 0.7:
        text = text.lower()
    if draw.random() < 0.15:
        text = _typo(text, draw)
    return text + draw.choice(("", "", ".", "!", "!!", " ..."))


def _typo(text: str, draw: random.Random) -> str:
    """Swap, drop or double one letter inside a word."""
    places = [index for index in range(1, len(text) - 1) if text[index - 1 : index + 2].isalpha()]
    at = draw.choice(places)
    return draw.choice(
        (
            text[: at - 1] + text[at] + text[at - 1] + text[at + 1 :],
            text[:at] + text[at + 1 :],
            text[:at] + text[at] + text[at:],
        )
    )
