"""What stands around a number, and says what it is: the word for a telephone or a card, an operator, a version's name.

A number that is introduced as a telephone's is one in any country's form. One beside an operator is arithmetic, one
behind the name of a version or a section is no address.
"""

import re

import re2

from mixtune.sanitize.rules.pii_checksums import WORDS

BEFORE = 48
"""Characters before a number that are looked at."""
_BEFORE_IT = WORDS["introduce"]
_TELEPHONE, _FILLER, _OF_A_THING = (_BEFORE_IT[name] for name in ("telephone", "filler", "of_a_thing"))
_SEPARATORS = "[\\s\u00a0\u202f\u3000" r":：=.#()/,;*°º\"'|-]{0,4}"
INTRODUCED = re2.compile(rf"(?i)(?:^|\PL)(?:{_TELEPHONE}){_SEPARATORS}(?:(?:{_FILLER}){_SEPARATORS}){{0,4}}$")
OF_A_THING = re2.compile(rf"(?i)(?:^|\PL)(?:{_OF_A_THING}){_SEPARATORS}(?:(?:{_FILLER}|id|code){_SEPARATORS}){{0,4}}$")
"""What introduces the number of a thing, not of a person."""
SSN_BEFORE = re2.compile(rf"(?i)(?:^|\PL)(?:{_BEFORE_IT['ssn']}){_SEPARATORS}(?:(?:{_FILLER}){_SEPARATORS}){{0,4}}$")
NO_PHONE = re.compile(
    r"\d+\.\d+$|(?:19|20)\d\d[-./ ][01]?\d[-./ ][0-3]?\d(?!\d)|[0-3]?\d[-./ ][0-3]?\d[-./ ](?:19|20)\d\d(?!\d)"
)
"""A decimal number, or a date."""
EXTENSION = re.compile(
    r"(?i)[\s,;]{0,3}(?:ext(?:ension)?\.?|x|extn\.?|durchwahl|poste|int\.?)[\s.:#]{0,2}\d{1,6}(?!\d)"
)
"""What follows a number that is not dialled at once."""
UNIT = re.compile("[A-Za-z]")
"""What follows a number that is one of something: `(6818382411K)`."""
CARD, ACCOUNT, SSN = (re.compile(f"(?i){_BEFORE_IT[name]}") for name in ("card", "account", "ssn"))
_MATHS = re2.compile(rf"(?i)\b(?:{_BEFORE_IT['sum']})\b[^\n?!]{{0,40}}$")
_OPERATOR_BEFORE = re.compile(
    r"(?:[*^×÷<>≤≥∙·]\s?|(?:[\d)\]]|\b[A-Za-z])\s?%\s?|(?:\b[A-Za-z]|[\d)\]])\s?=\s?|[\d)\]]\s?/\s?|[\d)\]](?:[-+−]|\s[-+−]\s))\(?$"
)
_OPERATOR = 8
"""Characters that an operator before a number, and what stands before it, take at most."""
_OPERATOR_AFTER = re.compile(r"\)?(?:\s?(?:[*^×÷%∙·]|/\s?\(?\d|=)|(?:[-+−]|\s[-+−]\s)\(?\d)")
_DIGIT_BEFORE_PLUS = re.compile(r"[\w)\]]\+$")
_MINUS = re.compile(r"\d{5,} ?-+ ?\d{5,}|\d+ [-−] \d+$")
_VERSION = re.compile(rf"(?i)(?:{_BEFORE_IT['version']})[\s.:=-]{{0,3}}$")
_VERSION_AFTER = re.compile(f"(?i){_BEFORE_IT['version_after']}")
_REPOSITORY = re.compile(r":(?!\d+/)[\w~.-]+/")
_MACHINES = frozenset(("git", "hg", "svn"))
"""Who has no mailbox, though the name is an address's."""


def is_phone_form(text: str) -> bool:
    """Return whether a run of digits may be dialled: 7 to 15 digits, no date and no decimal number."""
    return 7 <= sum(map(str.isdecimal, text)) <= 15 and not NO_PHONE.match(text)


def is_arithmetic(text: str, start: int, end: int) -> bool:
    """Return whether a number is a part of a calculation."""
    if text[start] == "+":
        return bool(_DIGIT_BEFORE_PLUS.search(text[max(0, start - 1) : start + 1]) or _OPERATOR_AFTER.match(text, end))
    before = text[max(0, start - BEFORE) : start]
    if (
        _OPERATOR_BEFORE.search(before[-_OPERATOR:])
        or _OPERATOR_AFTER.match(text, end)
        or _MINUS.search(text[start:end])
    ):
        return True
    return bool(_MATHS.search(before))


def is_version(text: str, start: int, end: int) -> bool:
    """Return whether four numbers with points are a version's or a section's, not an address."""
    return bool(_VERSION.search(text[max(0, start - 24) : start]) or _VERSION_AFTER.match(text, end))


def is_mailbox(text: str, start: int, end: int) -> bool:
    """Return whether what has an address's form is one, not the place of a repository or an operation of code."""
    local = text[start:end].partition("@")[0].lower()
    return local not in _MACHINES and text[end : end + 1] != "(" and not _REPOSITORY.match(text, end)
