"""Text markers that would break a chat format, rewritten to a fixed point.

The list is Nova's thirteen, matched without regard to case and as substrings, so that both of AWS's own checkers are
satisfied: role words get a space before their colon and keep their letters; the others are removed. Removing one can
make another (`[E<unk>OS]`), so the rules run until nothing changes.
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import re2
from ahocorasick_rs import BytesAhoCorasick, MatchKind

from mixtune.sanitize.rules.text_batch import Texts, join_texts

ROLE_WORDS = ("system", "user", "bot", "assistant", "thought")
TAGS = ("[EOS]", "<image>", "<video>", "<unk>")
END_TOKENS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<|im_end|>", "<|eot_id|>")
"""End tokens that published files leave at the end of an answer; stripped there, and only there."""
_ODD_LETTERS = re2.compile("[\u0130\u0131\u017f\u212a]".encode())
"""Letters beyond ASCII that are an `i`, an `s` or a `k` where case does not count."""


@dataclass(frozen=True)
class Markers:
    """The rule for reserved text markers, ready to be applied."""

    mode: str = "space"
    """`space`: a space before the colon, tags removed; `strip`: both removed; `drop`: the record goes; `fail`: the run
    stops; `keep`: they stay."""
    extra: tuple[str, ...] = ()
    """Further markers, removed wherever they stand."""

    def rewrite(self, text: str, counts: Counter[str]) -> str:
        """Return the text without markers, by the mode; they are counted by marker."""
        if self.mode == "keep" or not self.may_hold(text) or not (matches := self.find(text)):
            return text
        counts.update(matches)
        if self.mode in ("drop", "fail"):
            return text
        pattern = _pattern(self.extra)
        text = pattern.sub(lambda match: f"{match[1]} :" if match[1] and self.mode == "space" else "", text)
        return (self._settled(text, counts) if self.may_hold(text) and pattern.search(text) else text).strip()

    def _settled(self, text: str, counts: Counter[str]) -> str:
        """Return the text without the markers that the removal of others made, in one linear pass."""
        any_at_end = re.compile(f"(?:{_pattern(self.extra).pattern})\\Z", re.IGNORECASE)
        longest = max(map(len, (*ROLE_WORDS, *TAGS, *self.extra))) + 1
        ahead, out = list(reversed(text)), list[str]()
        while ahead:
            out.append(ahead.pop())
            if match := any_at_end.search("".join(out[-longest:])):
                counts[match[0].lower()] += 1
                del out[-len(match[0]) :]
                if self.mode == "space" and match[1]:
                    out += match[0][:-1]
                    ahead += ":", " "
        return "".join(out)

    def may_hold(self, text: str) -> bool:
        """Return whether a marker may be in a text; false is certain."""
        return bool(self.suspects(join_texts([text])))

    def suspects(self, texts: Texts) -> set[int]:
        """Return the numbers of the texts that may hold a marker or an end token; the others surely hold none."""
        matches = _automaton(self.extra).find_matches_as_indexes(texts.joined.lower())
        owners = texts.owners(start for _, start, _ in matches)
        return owners if texts.joined.isascii() else owners | texts.matches(_ODD_LETTERS)

    def find(self, text: str) -> list[str]:
        """Return the markers in a text, in lower case, one entry per occurrence."""
        pattern = _ascii_pattern(self.extra) if text.isascii() else _pattern(self.extra)
        return [match[0].lower() for match in pattern.finditer(text)]


@lru_cache
def _automaton(extra: tuple[str, ...]) -> BytesAhoCorasick:
    """Return what finds, in bytes whose ASCII letters are lower case, whatever may be a marker without regard to case.

    Letters beyond ASCII have no case there: of a marker with such, it is a part without any that is looked for.
    """
    words = [*(f"{word}:" for word in ROLE_WORDS), *TAGS, *END_TOKENS]
    for word in map(str.strip, extra):
        words += re.findall(r"[\x00-\x09\x0b-\x7f]+", word)[:1] or re.findall(re.escape(word[0]), _letters(), re.I)
    return BytesAhoCorasick([word.encode().lower() for word in words], matchkind=MatchKind.LeftmostFirst)


@lru_cache
def _letters() -> str:
    return "".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000))))


def strip_end_token(text: str) -> str:
    """Return an answer without the end tokens behind it."""
    if not text.rstrip().endswith(END_TOKENS):
        return text
    end = stripped_end = len(text)
    while True:
        while end and text[end - 1].isspace():
            end -= 1
        token = next((token for token in END_TOKENS if text.endswith(token, 0, end)), "")
        if not token:
            return text[:end] if stripped_end < len(text) else text
        end = stripped_end = end - len(token)


@lru_cache
def _pattern(extra: tuple[str, ...]) -> re.Pattern[str]:
    """Return the pattern of any marker; a role's word is its first group."""
    tags = "|".join(map(re.escape, TAGS + extra))
    return re.compile(f"({'|'.join(ROLE_WORDS)}):|{tags}", re.IGNORECASE)


@lru_cache
def _ascii_pattern(extra: tuple[str, ...]) -> re.Pattern[str]:
    """Return the same for texts of ASCII, many times as fast; beyond it letters have other cases in RE2."""
    pattern: re.Pattern[str] = re2.compile(f"(?i){_pattern(extra).pattern}")
    return pattern
