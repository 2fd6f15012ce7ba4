"""Whether bytes that are not UTF-8 are Windows-1252, as Excel writes it in western countries: told by their letters.

Other code pages put other letters in the same places. In each row the letters have to be those of one language that
Windows-1252 is for: Czech or Turkish read so has letters together that no such language has, Polish has signs inside
words, and Cyrillic has words of nothing else.
"""

import re
from collections.abc import Iterable

NAME = "cp1252"
_LEAST_FITTING = 0.95
"""Share of rows, of those that are not UTF-8, that have to fit."""
_LETTERS = "äöüßéèêàâáçñôï àâæçéèêëîïôœùûüö áéíñóúüçï áâãàçéêíóôõúü àèéìíîòóùú áéëïöüèêç åäöæøéèüà áðéíóúýþæö"
_LANGUAGES = tuple(frozenset(letters + letters.upper().replace("SS", "")) for letters in _LETTERS.split())
"""Letters of German, French, Spanish, Portuguese, Italian, Dutch, the Nordic languages and Icelandic."""
_HIGH = re.compile("[\x80-\uffff]")
_SIGN_IN_WORD = re.compile(
    r"(?<=[^\W\d_])[^\x00-\x7f\w\u2019\u00b4\xa0\u2013\u2014\u2026\u00b7\u2022](?=[^\W\d_])|[²³¹ª](?=[a-z])"
)
_ODD_RUN = re.compile("[\xc0-\xff]{4}|\xf5(?!e)|(?<=[a-z])\xfe|[\x80-\x9f]")


def is_western(rows: Iterable[bytes]) -> bool:
    """Return whether rows that are not UTF-8 are Windows-1252."""
    fits = list(map(_fits, rows))
    return bool(fits) and sum(fits) >= _LEAST_FITTING * len(fits)


def _fits(row: bytes) -> bool:
    try:
        text = row.decode(NAME)
    except UnicodeDecodeError:
        return False
    letters = {letter for letter in _HIGH.findall(text) if letter.isalpha() and letter not in "ªºµƒ"}
    if _ODD_RUN.search(text) or _SIGN_IN_WORD.search(text):
        return False
    return any(letters <= language for language in _LANGUAGES)
