"""Find which of several names a text contains, at the coarsest spelling at which they still differ.

Three spellings of a name are compared, from exact to coarse: as it is written (composed accents, single spaces);
without case, width and presentation; without punctuation, too, but with symbols and signs. A name counts at a spelling
only where no other name is spelled alike, so `C`, `C++` and `C#`, `US` and `us`, or `1` and `-1` stay apart.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import cached_property

SPACELESS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]"
)
"""Letters of scripts that put no space between words, or hang particles on them: Thai to Hangul."""
_PRESENTATION = re.compile("[\ufe00-\ufe0f\u200b\u200c\u2060\ufeff]")
_PUNCTUATION = re.compile(
    r"(?:[\s_:;!?\"'’‘“”„«»()\[\]{}/\\|`~¿¡。、，；：！？「」『』（）【】《》·…]"
    r"|(?<!\d)[.,]|[.,](?!\d)|(?<=\w)[-‐‑‒–—−](?=\w)|(?<!\w)[-‐‑‒–—−](?!\d))+"
)
"""All but decimal points, the sign of a number and a grade's minus."""
_SIGNS_AFTER = "+#%^~€£°"
"""Signs that belong to what they follow: `C++` does not name `C`, nor `5%` the label `5`."""
_WRAPPING = " \t\n\"'`_.,;:!?()[]{}“”„«»。！？"
_NEGATION = re.compile(
    r"(?:\b(?:not|(?:is|are|was|were|does|do|did|would|could|should)n['’ ]t|never|neither|nor|nicht"
    r"|keine?[nrs]?|pas|non|niet|geen|inte|ikke|nie|не|ни)"
    r"(?:[- ]+(?:be|an?|any|the|at all|eine?n?|une?|de|d['’ ]))?[- ]*"
    r"|(?:不是|不属于|不屬於|[不非没沒无無])\s*)[\"'“„«*`]*\Z"
)
"""What makes a name that follows one that is not said: `spam` in "not spam", unless `not spam` is a name, too."""
_NEGATION_CHARACTERS = 24
_COMPARISON = re.compile(r"([<>≤≥=])\s+(?=[\d.])")
_ACRONYM_LETTERS = 3
"""A capital name of so few letters is found within a sentence in capitals only: `IT` is not said by `it`."""


def spell_exactly(text: str) -> str:
    """Return a text with composed accents and single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def spell_without_case(text: str) -> str:
    """Return a text without case, width and the presentation of emoji, with one minus, and `<5` for `< 5`."""
    plain = _PRESENTATION.sub("", unicodedata.normalize("NFKC", text).casefold()).replace("−", "-")
    return _COMPARISON.sub(r"\1", " ".join(plain.split()))


def spell_without_punctuation(text: str) -> str:
    """Return a text without case and punctuation; symbols stay."""
    return _PUNCTUATION.sub(" ", spell_without_case(text)).strip()


SPELLINGS: tuple[Callable[[str], str], ...] = (spell_exactly, spell_without_case, spell_without_punctuation)


class NameTable:
    """Names, each standing for a value."""

    def __init__(self, names: Mapping[str, str]) -> None:
        """Hold names with their values; two names may stand for one value."""
        self.names = dict(names)

    @cached_property
    def _by_spelling(self) -> list[dict[str, str]]:
        """Value by spelled name for each spelling, of names that it does not confuse."""
        tables = []
        for spell in SPELLINGS:
            values: dict[str, set[str]] = {}
            for name, value in self.names.items():
                values.setdefault(spell(name), set()).add(value)
            tables.append({name: next(iter(group)) for name, group in values.items() if name and len(group) == 1})
        return tables

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        """What finds the names of each spelling, longest first."""
        return [
            re.compile("|".join(map(re.escape, sorted(table, key=len, reverse=True))) or "(?!)")
            for table in self._by_spelling
        ]

    def look_up(self, text: str) -> str:
        """Return the value of a text that is a name and nothing else; empty if it is none."""
        bare = text.strip(_WRAPPING)
        if bare.startswith("*"):  # Markdown's emphasis
            bare = bare.strip("*" + _WRAPPING)
        for candidate in (text, bare):
            for spell, table in zip(SPELLINGS, self._by_spelling, strict=True):
                if value := table.get(spell(candidate)):
                    return value
        return ""

    def find(self, text: str) -> set[str]:
        """Return the values of all names in a text that it does not deny; of overlapping ones the longest counts.

        A name is looked for at the coarsest spelling that has it, where longer ones that hide it are found, too.
        """
        return {
            self._by_spelling[place][name]
            for place, spell in enumerate(SPELLINGS)
            for name in self._find_spelled(spell(text), place)
            if not any(self._looks_for(SPELLINGS[other](name), other) for other in range(place + 1, len(SPELLINGS)))
        }

    def _looks_for(self, name: str, place: int) -> bool:
        return name in self._by_spelling[place] and name not in self._acronyms[place]

    @cached_property
    def _acronyms(self) -> list[set[str]]:
        """The names of each spelling that are found in capitals only."""
        capitals = [name for name in self.names if len(name) <= _ACRONYM_LETTERS and name.isalpha() and name.isupper()]
        return [set(), *({spell(name) for name in capitals} for spell in SPELLINGS[1:])]

    def _find_spelled(self, text: str, place: int) -> set[str]:
        pattern, names, start = self._patterns[place], set[str](), 0
        while match := pattern.search(text, start):
            name = self._longest_alone(match, place)
            lead = text[max(0, match.start() - _NEGATION_CHARACTERS) : match.start()].casefold()
            if name and name not in self._acronyms[place] and not _NEGATION.search(lead):
                names.add(name)
            start = match.start() + (len(name) or 1)
        return names

    def _longest_alone(self, match: re.Match[str], place: int) -> str:
        """Return the longest name that stands alone where one was found; empty if none does."""
        if _stands_alone(match.string, match.start(), match[0]):
            return match[0]
        pieces = (match[0][:length] for length in range(len(match[0]) - 1, 0, -1))
        table = self._by_spelling[place]
        return next((name for name in pieces if name in table and _stands_alone(match.string, match.start(), name)), "")


def _stands_alone(text: str, start: int, name: str) -> bool:
    """Return whether a name that a text has at a place is no piece of a longer word, number or sign."""
    end = start + len(name)
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if joins(name[0], before[-1:]) or joins(name[-1], after[:1]):
        return False
    return not (_is_cut_before(name, before) or _is_cut_behind(name, after))


def _is_cut_before(name: str, before: str) -> bool:
    """Return whether a sign or a decimal point before a number belongs to it: `1` is not said by `-1` or `0.1`."""
    if not name[0].isdigit() or not before:
        return False
    sign, beyond = before[-1], before[:-1]
    if sign in ".,":
        return beyond.isdigit()
    return sign in "+-−<>≤≥=$€£" and not (beyond.isalnum() or beyond in ('"', "'", "/"))


def _is_cut_behind(name: str, after: str) -> bool:
    """Return whether what follows belongs to a name: a sign, decimals, a grade's minus, an accent, a skin tone."""
    if not after:
        return False
    sign, beyond = after[0], after[1:]
    if sign in _SIGNS_AFTER or unicodedata.category(sign).startswith("M") or "\U0001f3fb" <= sign <= "\U0001f3ff":
        return True
    if sign in ".,":
        return name[-1].isdigit() and beyond.isdigit()
    return sign in "-−*" and len(name) == 1 and not beyond.isalnum() and beyond != "*"


def joins(edge: str, neighbour: str) -> bool:
    """Return whether a letter goes on from the edge of a name, in a script that parts its words by spaces."""
    both = edge.isalnum() and neighbour.isalnum()
    return both and not SPACELESS.match(edge) and not SPACELESS.match(neighbour)
