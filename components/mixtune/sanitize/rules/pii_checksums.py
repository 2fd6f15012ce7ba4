"""Checks that tell a real card, account or identity number from any other number: checksums, lengths, prefixes."""

import re
import tomllib
from pathlib import Path

WORDS: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("pii_words.toml").read_text(encoding="utf-8"))
_IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in WORDS["iban"]["lengths"].split()}
"""Characters by country, as the registry of ISO 13616 lists them."""
_ISSUER = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5\d{15}|(?:50|5[6-8])\d{11,17}|2[2-7]\d{14}|6\d{12,18}"
    r"|3[47]\d{13}|3[0689]\d{12,17}|35\d{14,17}"
)
_RARE_ISSUER = re.compile(r"(?:50|5[6-9]|6\d)\d{10}|(?:2131|1800)\d{11}|1\d{14}")
"""Maestro of 12 digits, JCB and UATP of 15: too short, or too common a beginning, to stand for themselves."""
_OLD_CARD = 13
"""Digits of old cards, and of every article's number (EAN): such a one has to be named."""
_CARD_GROUP = 7
"""Digits of a card's longest group, where it has groups."""
_PRODUCTS = """
0123456789 1234067895 2340178956 3401289567 4012395678 5987604321 6598710432 7659821043 8765932104 9876543210
"""
_VERHOEFF = _PRODUCTS.split()
_TURNS = """
0123456789 1576283094 5803796142 8916043527 9453126870 4286573901 2793806415 7046913258
"""
_VERHOEFF_TURN = _TURNS.split()
_ODD_VALUES = "1 0 5 7 9 13 15 17 19 21 2 4 18 20 11 3 6 8 12 14 16 10 22 25 24 23"
_ODD_LETTERS = list(map(int, _ODD_VALUES.split()))
_ODD = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", _ODD_LETTERS, strict=True))
_ODD |= {str(digit): _ODD_LETTERS[digit] for digit in range(10)}


def digits_of(text: str) -> str:
    """Return the ASCII digits of a text."""
    return re.sub("[^0-9]", "", text)


def is_luhn(text: str) -> bool:
    """Return whether the digits pass Luhn's check (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(map(int, reversed(digits_of(text)))):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def is_card(text: str, *, is_named: bool = False) -> bool:
    """Return whether the text is a payment card's number (ISO/IEC 7812, Luhn), of a seldom form where it is named."""
    digits = digits_of(text)
    is_odd = len(digits) == _OLD_CARD or (not text.isdigit() and max(map(len, re.split("[ -]", text))) > _CARD_GROUP)
    if is_odd and not is_named:
        return False
    is_issued = bool(_ISSUER.fullmatch(digits) or (is_named and _RARE_ISSUER.fullmatch(digits)))
    return is_issued and len(set(digits)) > 1 and is_luhn(digits)


def is_iban(text: str) -> bool:
    """Return whether the text is an IBAN of its country's length, modulo 97 (ISO 13616)."""
    code = re.sub(r"[\s-]", "", text).upper()
    if len(code) != _IBAN_LENGTHS.get(code[:2], 0):
        return False
    return int("".join(str(int(letter, 36)) for letter in code[4:] + code[:4])) % 97 == 1


def is_ssn(text: str) -> bool:
    """Return whether the text is a United States social security number that can have been issued."""
    digits = digits_of(text)
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def is_dni(text: str) -> bool:
    """Return whether the text is a Spanish DNI or NIE by its letter."""
    number = text[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return len(text) == 9 and number.isdigit() and "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == text[-1]


def is_codice_fiscale(text: str) -> bool:
    """Return whether the text is an Italian fiscal code by its letter."""
    total = 0
    for place, letter in enumerate(text[:15]):
        plain = int(letter) if letter.isdigit() else ord(letter) - ord("A")
        total += plain if place % 2 else _ODD[letter]
    return chr(65 + total % 26) == text[15]


def is_nir(text: str) -> bool:
    """Return whether the text is a French social security number, modulo 97; Corsica's 2A and 2B count as 19 and 18."""
    digits = digits_of(text.replace("2A", "19").replace("2B", "18"))
    return len(digits) == 15 and digits[0] in "12" and 97 - int(digits[:13]) % 97 == int(digits[13:])


def is_pesel(text: str) -> bool:
    """Return whether the text is a Polish PESEL."""
    digits = [int(digit) for digit in digits_of(text)]
    return (10 - sum(w * d for w, d in zip((1, 3, 7, 9) * 3, digits[:10], strict=False)) % 10) % 10 == digits[10]


def is_nhs(text: str) -> bool:
    """Return whether the text is a number of the United Kingdom's National Health Service, modulo 11."""
    digits = [int(digit) for digit in digits_of(text)]
    check = 11 - sum((10 - place) * digit for place, digit in enumerate(digits[:9])) % 11
    return check % 11 == digits[9] and check != 10


def is_aadhaar(text: str) -> bool:
    """Return whether the text is an Indian Aadhaar number by Verhoeff's check."""
    check = 0
    for place, digit in enumerate(reversed(digits_of(text))):
        check = int(_VERHOEFF[check][int(_VERHOEFF_TURN[place % 8][int(digit)])])
    return check == 0 and text[0] not in "01"
