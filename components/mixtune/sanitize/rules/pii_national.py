"""Identity numbers of many countries: the form of each, its check, and the word before it where both are too weak."""

from collections.abc import Callable, Sequence

from mixtune.sanitize.rules import pii_checksums as ids

_CHINESE = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_NORWEGIAN = ((3, 7, 6, 1, 8, 9, 4, 5, 2, 1), (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1))
_SINGAPORE = {"S": (0, "JZIHGFEDCBA"), "T": (4, "JZIHGFEDCBA"), "F": (0, "XWUTRQPNMLK"), "G": (4, "XWUTRQPNMLK")}
_CURP = "0123456789ABCDEFGHIJKLMN\u00d1OPQRSTUVWXYZ"
Check = Callable[[str], bool]


def _sum(text: str, weights: Sequence[int]) -> int:
    """Return the weighted sum of a text's first digits."""
    return sum(weight * int(digit) for weight, digit in zip(weights, ids.digits_of(text), strict=False))


def _has_zero_sum(*lists: Sequence[int]) -> Check:
    """Return a check that weighted sums of all digits are 0, modulo 11."""
    return lambda text: len(set(ids.digits_of(text))) > 1 and all(_sum(text, weights) % 11 == 0 for weights in lists)


def _has_last(*lists: Sequence[int]) -> Check:
    """Return a check of the digits behind those with weights: 11 less the sum modulo 11, 0 where that has two."""

    def check(text: str) -> bool:
        digits = ids.digits_of(text)
        lasts = [(11 - _sum(text, weights) % 11) % 11 % 10 for weights in lists]
        return len(set(digits)) > 1 and list(map(int, digits[-len(lists) :])) == lasts

    return check


def _is_date(month: str, day: str) -> bool:
    return 1 <= int(month) <= 12 and 1 <= int(day) <= 31


def is_steuer_id(text: str) -> bool:
    """Return whether the text is a German tax number of a person (ISO 7064, modulo 11 and 10)."""
    digits, product = ids.digits_of(text), 10
    for digit in digits[:10]:
        product = ((int(digit) + product) % 10 or 10) * 2 % 11
    repeats = [count for count in map(digits[:10].count, set(digits[:10])) if count > 1]  # one digit, twice or thrice
    return digits[0] != "0" and repeats in ([2], [3]) and (11 - product) % 10 == int(digits[10])


def is_personnummer(text: str) -> bool:
    """Return whether the text is a Swedish personal number."""
    digits = ids.digits_of(text)[-10:]
    return _is_date(digits[2:4], digits[4:6]) and ids.is_luhn(digits)


def is_tckn(text: str) -> bool:
    """Return whether the text is a Turkish identity number."""
    digits = list(map(int, text))
    tenth = (sum(digits[0:9:2]) * 7 - sum(digits[1:8:2])) % 10
    return digits[0] != 0 and digits[9:] == [tenth, sum(digits[:10]) % 10]


def is_belgian(text: str) -> bool:
    """Return whether the text is a Belgian national number, of before or after the year 2000, modulo 97."""
    digits = ids.digits_of(text)
    return int(digits[9:]) in (97 - int(century + digits[:9]) % 97 for century in ("", "2"))


def is_chinese(text: str) -> bool:
    """Return whether the text is a Chinese resident's number: a date and a check."""
    is_born = text[6:8] in ("19", "20") and _is_date(text[10:12], text[12:14])
    return is_born and "10X98765432"[_sum(text[:17], _CHINESE) % 11] == text[17]


def is_nric(text: str) -> bool:
    """Return whether the text is a Singapore identity number by its letter."""
    start, letters = _SINGAPORE[text[0]]
    return letters[(start + _sum(text, (2, 7, 6, 5, 4, 3, 2))) % 11] == text[8]


def is_hetu(text: str) -> bool:
    """Return whether the text is a Finnish personal code: a date and a check."""
    number = int(text[:6] + text[7:10])
    return _is_date(text[2:4], text[:2]) and "0123456789ABCDEFHJKLMNPRSTUVWXY"[number % 31] == text[10]


def is_curp(text: str) -> bool:
    """Return whether the text is a Mexican CURP by its last digit."""
    total = sum(_CURP.index(letter) * (18 - place) for place, letter in enumerate(text[:17]))
    return _is_date(text[6:8], text[8:10]) and -total % 10 == int(text[17])


def is_rut(text: str) -> bool:
    """Return whether the text is a Chilean RUT, modulo 11."""
    number, last = ids.digits_of(text[:-1])[::-1], text[-1].upper()
    return "0123456789K0"[11 - _sum(number, (2, 3, 4, 5, 6, 7, 2, 3)) % 11] == last


def is_pps(text: str) -> bool:
    """Return whether the text is an Irish PPS number by its letter."""
    second = "WABCDEFGHI".index(text[8]) if len(text) > 8 else 0
    return "WABCDEFGHIJKLMNOPQRSTUV"[(_sum(text[:7], range(8, 1, -1)) + 9 * second) % 23] == text[7]


_DUTCH, _AUSTRALIAN = (9, 8, 7, 6, 5, 4, 3, 2, -1), (1, 4, 3, 7, 5, 8, 6, 9, 10)
_JAPANESE = (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)
_BEFORE, _AFTER = r"(?<![\d.-])", r"(?![\d-])"
_is_cpf = _has_last(range(10, 1, -1), range(11, 1, -1))
NATIONAL_IDS: tuple[tuple[str, Check, str], ...] = (
    (r"(?<!\d)\d{3}\.\d{3}\.\d{3}-\d{2}(?!\d)", _is_cpf, ""),
    (r"(?<!\d)[12] ?\d{2} ?\d{2} ?\d{2} ?\d{3} ?\d{3} ?\d{2}(?!\d)", ids.is_nir, ""),
    (r"(?<!\d)(?<!\d )\d{4} \d{4} \d{4}(?! ?\d)", ids.is_aadhaar, ""),
    (r"(?<!\d)\d{11}(?!\d)", ids.is_pesel, r"(?i)pesel"),
    (r"(?<!\d)\d{3} ?\d{3} ?\d{4}(?!\d)", ids.is_nhs, r"(?i)nhs"),
    (rf"{_BEFORE}\d{{12}}{_AFTER}", ids.is_aadhaar, r"(?i)aadhaa?r|\buid|आधार"),
    (rf"{_BEFORE}\d{{11}}{_AFTER}", _is_cpf, r"(?i)\bcpf\b"),
    (rf"{_BEFORE}\d{{2}}\.\d{{3}}\.\d{{3}}/\d{{4}}-\d{{2}}{_AFTER}",
     _has_last((5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2), (6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)), ""),
    (rf"{_BEFORE}(?:20|23|24|27)-\d{{8}}-\d{_AFTER}", _has_last((5, 4, 3, 2, 7, 6, 5, 4, 3, 2)), ""),
    (rf"{_BEFORE}\d{{4}}[. ]?\d{{2}}[. ]?\d{{3}}{_AFTER}", _has_zero_sum(_DUTCH), r"(?i)\bbsn|burgerservice|sofi"),
    (rf"{_BEFORE}\d{{2}} ?\d{{3}} ?\d{{3}} ?\d{{3}}{_AFTER}", is_steuer_id, r"(?i)steuer|\bidnr|\btin\b|tax id"),
    (rf"{_BEFORE}(?:19|20)?\d{{6}}[-+ ]?\d{{4}}{_AFTER}", is_personnummer, r"(?i)person(?:al|nummer|bevis)|samordning"),
    (rf"{_BEFORE}\d{{6}}[- ]?\d{{4}}{_AFTER}", lambda text: _is_date(text[2:4], text[:2]), r"(?i)\bcpr"),
    (rf"{_BEFORE}\d{{6}} ?\d{{5}}{_AFTER}", _has_zero_sum(*_NORWEGIAN), r"(?i)f[øo]dsels|personnummer|\bfnr"),
    (rf"{_BEFORE}\d{{2}}\.\d{{2}}\.\d{{2}}-\d{{3}}\.\d{{2}}{_AFTER}", is_belgian, ""),
    (rf"{_BEFORE}756\.\d{{4}}\.\d{{4}}\.\d{{2}}{_AFTER}", lambda text: _sum(text, (1, 3) * 6 + (1,)) % 10 == 0, ""),
    (rf"{_BEFORE}\d{{3}} ?\d{{3}} ?\d{{3}}{_AFTER}", _has_last(range(9, 1, -1)), r"(?i)\bnif\b|contribuinte"),
    (rf"{_BEFORE}\d{{11}}{_AFTER}", lambda text: _is_date(text[2:4], text[:2]) and ids.is_luhn(text), r"(?i)amka|αμκα"),
    (rf"{_BEFORE}\d{{6}}/?\d{{4}}{_AFTER}", lambda text: int(ids.digits_of(text)) % 11 == 0, r"(?i)rodn[ée]|\brč"),
    (rf"{_BEFORE}\d{{3}}[- ]?\d{{3}}[- ]?\d{{3}}{_AFTER}", ids.is_luhn, r"\bSIN\b|(?i:social insurance)"),
    (rf"{_BEFORE}\d{{3}} ?\d{{3}} ?\d{{3}}{_AFTER}", _has_zero_sum(_AUSTRALIAN), r"(?i)\btfn|tax file"),
    (rf"{_BEFORE}\d{{13}}{_AFTER}",
     lambda text: _is_date(text[2:4], text[4:6]) and ids.is_luhn(text), r"(?i)\bid (?:number|no)|identity|\brsa id"),
    (rf"{_BEFORE}\d{{11}}{_AFTER}", is_tckn, r"(?i)kimlik|tckn|t\.c\."),
    (rf"{_BEFORE}\d{{12}}{_AFTER}", _has_last(_JAPANESE), r"(?i)my ?number|マイナンバー|個人番号"),
)  # fmt: skip
"""Pattern, check, and the word that must stand before where the check alone is too weak."""
CODED_IDS: tuple[tuple[str, Check, str], ...] = (
    (r"[XYZ]?\d{7,8}[A-Z]", ids.is_dni, ""),
    (r"[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z]", ids.is_codice_fiscale, ""),
    (r"[12] ?\d{2} ?\d{2} ?2[AB] ?\d{3} ?\d{3} ?\d{2}", ids.is_nir, ""),
    (r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]", lambda text: True, ""),
    (r"\d{17}[\dX]", is_chinese, ""),
    (r"[STFG]\d{7}[A-Z]", is_nric, r"(?i)nric|\bfin\b|identity"),
    (r"\d{6}[-+A]\d{3}[0-9A-FHJ-NPR-Y]", is_hetu, ""),
    (r"[A-Z]{4}\d{6}[HMX][A-Z]{5}[A-Z\d]\d", is_curp, ""),
    (r"\d{1,2}\.\d{3}\.\d{3}-[\dkK]", is_rut, ""),
    (r"[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]", lambda text: True, r"(?i)\bpan\b|permanent account"),
    (r"\d{7}[A-W][A-IW]?", is_pps, r"(?i)\bpps"),
)
"""The same of identity numbers with letters, or whose form alone is like no other's."""
