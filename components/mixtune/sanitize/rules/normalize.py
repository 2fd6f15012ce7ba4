"""Normalisation that changes no meaning: line ends, invisible characters, composed letters, broken encodings.

Spaces and quotes stay as they are unless it is asked for: collapsing spaces would damage code and tables, which much
of real text is.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable

import ftfy
import re2
from ftfy.badness import is_bad

from mixtune.sanitize.rules.text_batch import Texts, join_texts

_ZERO_WIDTH = re.compile("[\u200b\u2060\ufeff]")
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufdd0-\ufdef\uffff]")
_ASCII_CONTROLS = bytes((*range(9), *range(11, 32), 127))
_CONTROL_BYTES = re.compile(b"[%b]" % re.escape(_ASCII_CONTROLS))
_SUSPECT = re.compile("[\x00-\x08\x0b-\x1f\x7f\x85\u00a0\u200b\u202f\u2060\ufdd0-\ufdef\ufeff\uffff]")
_MAY_BE_UNCLEAN = re2.compile(  # in UTF-8; ftfy calls a text broken for its pairs of letters, but for these few
    (
        r"[\x{80}-\x{a0}\x{200b}\x{202f}\x{2060}\x{fdd0}-\x{fdef}\x{feff}\x{ffff}ŒœÃÂ]"
        r"|[\x{80}-\x{2fff}\x{f8ff}\x{fb01}\x{fb02}]{2}"
    ).encode()
)
_NEXT_LINE = re.compile("(?<![\x80-\xff])\x85(?![\x80-\xff])")
"""C1's line end, where it is no byte of a letter that was decoded wrongly."""
_FOREIGN = re.compile("[\x80-\u2fff]+(?:[^\x80-\u2fff]{1,8}[\x80-\u2fff]+)*")
_FENCE = re.compile(r"(```.*?(?:```|\Z))", re.DOTALL)

_CODE = re.compile(r"^\s|[|{}\[\]<>=;`\t\\]")
"""A line that is indented, or holds what prose seldom does, is left as it is."""
_SPACES = re.compile(r"(?<=\S) {2,}(?=\S)")
_QUOTES = str.maketrans("\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f", "'" * 4 + '"' * 4)
ALSO: dict[str, Callable[[str], str]] = {
    "quotes": lambda line: line.translate(_QUOTES),
    "spaces": lambda line: _SPACES.sub(" ", line),
}
"""Rules on request: typographic quotes become straight ones, runs of spaces within a line become one."""


def normalise(text: str, counts: Counter[str]) -> str:
    """Return the text, normalised; every rule that changed it is counted."""
    if is_clean(text):
        return text
    for rule, apply in _RULES:
        changed = apply(text)
        if changed != text:
            counts[rule] += 1
            text = changed
    return text


def tidy(text: str, counts: Counter[str], rules: tuple[str, ...]) -> str:
    """Return the text by rules on request (ALSO), in lines of prose alone: never in code, tables or JSON."""
    if not rules:
        return text
    parts = _FENCE.split(text)
    for place in range(0, len(parts), 2):  # every other part is a code fence
        lines = parts[place].split("\n")
        for rule in rules:
            changed = [line if _CODE.search(line) else ALSO[rule](line) for line in lines]
            if changed != lines:
                counts[f"{rule} in prose"] += 1
            lines = changed
        parts[place] = "\n".join(lines)
    return "".join(parts)


def suspects(texts: Texts) -> set[int]:
    """Return the numbers of the texts that have to be normalised; the others surely need nothing."""
    numbers = set[int]()
    if foreign := [number for number, text in enumerate(texts.texts) if not text.isascii()]:
        some = join_texts([texts.texts[number] for number in foreign])
        numbers |= {number for number in foreign if not unicodedata.is_normalized("NFC", texts.texts[number])}
        numbers |= {foreign[place] for place in some.matches(_MAY_BE_UNCLEAN) if not is_clean(some.texts[place])}
    if len(texts.joined.translate(None, _ASCII_CONTROLS)) < len(texts.joined):
        numbers |= texts.owners(match.start() for match in _CONTROL_BYTES.finditer(texts.joined))
    return numbers


def is_clean(text: str) -> bool:
    """Return whether a text surely needs no normalisation: the quick way out."""
    if text.isascii():
        return len(text.encode().translate(None, _ASCII_CONTROLS)) == len(text)
    if _SUSPECT.search(text) or "```" in text or not unicodedata.is_normalized("NFC", text):
        return False
    return not _is_broken(text)


def _is_broken(text: str) -> bool:
    """Return whether a text was decoded wrongly, as ftfy sees it."""
    # Every form of broken text that ftfy knows holds one of these letters, and is shorter than what is looked at here.
    near = "\n".join(text[max(0, match.start() - 4) : match.end() + 4] for match in _FOREIGN.finditer(text))
    return is_bad(near)


def _outside_code(text: str) -> str:
    """Mojibake is mended where the text is bad, outside code fences."""
    if text.isascii():
        return text
    parts = _FENCE.split(text)
    return "".join(
        ftfy.fix_encoding(part) if not part.startswith("```") and _is_broken(part) else part for part in parts
    )


_RULES = (
    ("line ends", lambda text: _NEXT_LINE.sub("\n", text.replace("\r\n", "\n").replace("\r", "\n"))),
    ("control characters", lambda text: _CONTROLS.sub("", text)),
    ("broken encoding", _outside_code),
    ("no-break spaces", lambda text: text.replace("\u00a0", " ").replace("\u202f", " ")),
    ("zero-width characters", lambda text: _ZERO_WIDTH.sub("", text)),
    ("composed letters", lambda text: unicodedata.normalize("NFC", text)),
)
