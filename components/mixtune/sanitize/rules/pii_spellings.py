"""Signs as URLs, HTML and typesetting spell them, read plainly: `john%40x.com`, dashes that are no hyphens."""

import html
import re
from bisect import bisect_right
from dataclasses import dataclass
from urllib.parse import unquote

_TYPESET = dict(
    zip("\u00a0\u2007\u2009\u202f\u2010\u2011\u2012\u2013\uff20\uff0e\uff0b\uff0d", "    ----@.+-", strict=True)
)
_TYPESET |= {chr(0xFF10 + digit): str(digit) for digit in range(10)}
_LETTERS = "".join(_TYPESET)
_ESCAPE = "%(?:25)*(?:[2-7][B-Fb-f]|2[0-9Aa]|3[Aa]|40|[89A-Fa-f][0-9A-Fa-f])"
_SPELLED = re.compile(
    rf"(?:{_ESCAPE})+|&(?:#\d{{2,5}}|#[xX][0-9A-Fa-f]{{2,4}}|commat|nbsp|period|lowbar);|[\[(][@.][\])]|\\u00[24][0-9A-Fa-f]"
    rf"|[{_LETTERS}]"
)
_ESCAPED = re.compile(_ESCAPE)
MAY_BE = (
    r"%(?:25)*(?:40|3[ADad])|&(?:#64|#[xX]40|commat);|[\[(][@.][\])]|\\u0040|\x{ff20}"
    rf"|[\d)](?:%(?:25)*[28][0-9A-Fa-f]|%(?:25)*[CEce]2|&[#n]\w{{1,5}};|\\u002|[{_LETTERS}]){{1,4}}[\d(]"
    r"|[\x{ff10}-\x{ff19}]{2}"
)
"""What every text holds in which something is found that is spelled so: an expression of RE2."""


@dataclass(frozen=True)
class Plain:
    """A text read plainly, and where each of its pieces comes from."""

    text: str
    places: list[int]
    """Where pieces begin in it,"""
    origins: list[int]
    """and in the text that it was."""

    def origin(self, place: int) -> int:
        """Return the place in the text that it was."""
        piece = bisect_right(self.places, place) - 1
        return self.origins[piece] + place - self.places[piece]


def read_plainly(text: str) -> Plain:
    """Return a text with its signs as themselves."""
    pieces, places, origins, at, length = list[str](), [0], [0], 0, 0
    for match in _SPELLED.finditer(text):
        pieces.append(text[at : match.start()])
        length += match.start() - at
        at = match.start()
        for letter, end in _letters(match[0]):
            places += [length, length + 1]
            origins += [at, match.start() + end]
            pieces.append(letter)
            at, length = match.start() + end, length + 1
    return Plain("".join([*pieces, text[at:]]), places, origins)


def _letters(spelled: str) -> list[tuple[str, int]]:
    """Return the letters of a spelling, each with its end in it."""
    if spelled[0] == "%":
        ends = [match.end() for match in _ESCAPED.finditer(spelled)]
        letters, place, out = unquote("".join("%" + spelled[end - 2 : end] for end in ends)), 0, list[tuple[str, int]]()
        for letter in letters if "\ufffd" not in letters else "":
            place += len(letter.encode())
            out.append((letter, ends[place - 1]))
        return out
    if spelled[0] == "&":
        return [(_TYPESET.get(html.unescape(spelled), html.unescape(spelled)[:1]), len(spelled))]
    letter = chr(int(spelled[2:], 16)) if spelled[0] == "\\" else _TYPESET.get(spelled, spelled[len(spelled) // 2])
    return [(letter, len(spelled))]
