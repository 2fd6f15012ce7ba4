"""Short free answers: whether one is the best of its references, and which share of the words they have in common.

Three published rules say what does not count: SQuAD's and TriviaQA's case, punctuation and articles, and DROP's, which
reads numbers and compares several spans that are right together. Beyond English, punctuation of all scripts is left
out, and where a script puts no spaces between words, each of its letters is a word.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mixtune.evaluate.scoring.label_names import SPACELESS

SQUAD, TRIVIA_QA, DROP, EXACT = "squad", "trivia_qa", "drop", "exact"
"""By `EXACT` an answer is right by SQuAD's rule, or wrong: a part of it, or its words in another order, are nothing."""
Reference = tuple[str, ...]
"""A right answer: one text, or by DROP's rule several that are right together."""
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NUMBER = re.compile(r"[$€£¥₹₩]? ?([-+−]?)[$€£¥₹₩]? ?(\d{1,3}(?:[, '’]\d{3})+|\d+)?(\.\d+)? ?[%$€£¥₹₩]?")
_LISTED = re.compile(r",(?!\d)|;|&|\band\b")
"""What parts the spans of an answer that has several."""


class Match(NamedTuple):
    """How well an answer matches a reference, each 0 to 1."""

    exact: float
    f1: float


def best_match(answer: str, references: Iterable[Reference], rule: str) -> Match:
    """Return the best exact match and the best F1 of an answer over its references, by one of the rules."""
    matches = [
        _match_spans(answer, reference) if rule == DROP else match(answer, reference[0], spaced=rule == TRIVIA_QA)
        for reference in dict.fromkeys(references)
    ]
    exact = max(item.exact for item in matches)
    return Match(exact, exact if rule == EXACT else max(item.f1 for item in matches))


def match(answer: str, reference: str, *, spaced: bool = False) -> Match:
    """Return how well an answer matches a reference by SQuAD's rule; `spaced`: punctuation parts words (TriviaQA).

    Two numbers match where they are the same number: the rule alone takes away signs and decimal points. A reference
    of nothing but punctuation and articles is compared as it is written.
    """
    words, expected = words_of(answer, spaced=spaced), words_of(reference, spaced=spaced)
    numbers = _number(answer), _number(reference)
    if not expected or None not in numbers:
        is_same = numbers[0] == numbers[1] if expected else _plain(answer) == _plain(reference)
        return Match(float(is_same), float(is_same))
    common = sum((Counter(words) & Counter(expected)).values())
    return Match(float(words == expected), 2 * common / (len(words) + len(expected)))


def words_of(text: str, *, spaced: bool = False) -> list[str]:
    """Return the words of a text without case, punctuation and articles; `spaced`: punctuation parts words."""
    bare = "".join((" " if spaced else "") if _is_punctuation(letter) else letter for letter in _plain(text))
    return SPACELESS.sub(r" \g<0> ", _ARTICLES.sub(" ", bare)).split()


def _plain(text: str) -> str:
    """Return a text in one spelling of accents and width, without case and outer spaces."""
    return unicodedata.normalize("NFKC", text.replace("´", "'")).casefold().strip()


def _is_punctuation(letter: str) -> bool:
    return letter in string.punctuation or unicodedata.category(letter).startswith("P")


def _number(text: str) -> float | None:
    """Return the number that a text is and nothing else, whatever its currency, thousands and full stop."""
    parts = _NUMBER.fullmatch(_plain(text).replace("٬", ",").replace("٫", ".").removesuffix("."))
    if not parts or not (parts[2] or parts[3]):
        return None
    value = float(re.sub(r"\D", "", parts[2] or "0") + (parts[3] or ""))
    return -value if parts[1] in ("-", "−") else value


def _match_spans(answer: str, reference: Reference) -> Match:
    """Return how well an answer matches by DROP's rule; where the reference has several spans, it may list them."""
    expected = [_drop_words(span) for span in reference]
    readings = [[_drop_words(answer)]]
    if len(expected) > 1 and (parts := [part for part in _LISTED.split(answer) if part.strip()]):
        readings.append([_drop_words(part) for part in parts])
    matches = [Match(float(_are_same(spans, expected)), _aligned_f1(spans, expected)) for spans in readings]
    return Match(max(item.exact for item in matches), max(item.f1 for item in matches))


def _are_same(spans: Sequence[Sequence[str]], expected: Sequence[Sequence[str]]) -> bool:
    return len(spans) == len(expected) and set(map(tuple, spans)) == set(map(tuple, expected))


def _aligned_f1(spans: Sequence[Sequence[str]], expected: Sequence[Sequence[str]]) -> float:
    """Return the mean F1 of spans that are paired so that it is largest, to two decimals, as DROP has it."""
    from scipy.optimize import linear_sum_assignment

    scores = np.array([[_set_f1(set(words), set(right)) for words in spans] for right in expected])
    rows, columns = linear_sum_assignment(scores, maximize=True)  # scores: (expected spans, spans)
    return round(float(scores[rows, columns].sum()) / max(len(spans), len(expected)), 2)


def _set_f1(words: set[str], expected: set[str]) -> float:
    """Return the F1 of two sets of words; 0 where numbers are expected, and none of them is there."""
    numbers = set(filter(_is_float, expected))
    if numbers and not numbers & words:
        return 0.0
    precision = len(words & expected) / len(words) if words else 1.0
    recall = len(words & expected) / len(expected) if expected else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _drop_words(text: str) -> list[str]:
    """Return the words of a text as DROP counts them: parted by hyphens, too, and numbers as floats."""
    tokens = []
    for token in re.split("[ −-]", text.lower()):
        plain = str(float(token)) if _is_float(token) else "".join(c for c in token if c not in string.punctuation)
        plain = str(float(plain)) if _is_float(plain) else plain
        tokens += _ARTICLES.sub(" ", plain).split()
    return tokens


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
