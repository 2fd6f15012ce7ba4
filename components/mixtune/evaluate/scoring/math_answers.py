"""Answers to competition mathematics: where a solution puts its answer, and which spellings of one are the same.

Two answers are the same where Hendrycks' `is_equiv` says so: without spaces, units, degrees, dollars and percents, with
fractions and roots in one form. Nothing is computed, but numbers are compared as numbers: 055 is 55, and 27.0 is 27.
"""

import re
from decimal import Decimal

_REMOVED = ("\\displaystyle", "\\left", "\\right", "^{\\circ}", "^\\circ", "°", "\\$")
_STYLED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\{([^{} ][^{}]*)\}")
"""Letters or digits in a face of their own; a space before them begins a unit."""
_UNIT = re.compile(r"(?:\\[,;: ]|~)\s*\\(?:text|mathrm)\{\s*(?!(?:and|or)\b)")
"""What stands before a unit that a space of its own parts from the number."""
_LETTER = re.compile(r"\(([A-Za-z])\)")
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?<=\d)")
_SLASH = re.compile(r"\A(0|-?[1-9]\d*)/(0|-?[1-9]\d*)\Z")
_DOLLAR = re.compile(r"(?<!\\)\$")
_COMMA = re.compile(r",(?![^(\[]*[)\]])(?!\d{3}(?!\d))")
"""One that parts answers: outside of brackets, and not of thousands."""
_BOXES = ("\\boxed", "\\fbox")


def read_boxed(text: str) -> str:
    """Return the content of the last box of a solution; empty where there is none."""
    start = next((place for place in (text.rfind(box) for box in _BOXES) if place >= 0), -1)
    if start >= 0 and re.match(r"\\boxed +[^ {]", text[start:]):
        return text[start:].removeprefix("\\boxed ").split("$")[0]
    opening = text.find("{", start) if start >= 0 else -1
    depth = 0
    for place in range(opening, len(text)) if opening >= 0 else ():
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            content, before = text[opening + 1 : place], text[:start]
            return content or (read_boxed(before) if _BOXES[0] in before else "")
    return ""


def read_answer(text: str) -> str:
    """Return the answer of a response: its last box, else what stands between its first and last dollar, else all."""
    if boxed := read_boxed(text):
        return boxed
    first, last = text.find("$"), text.rfind("$")
    return text[first + 1 : last] if 0 <= first < last else text.strip()


def are_same(first: str, second: str, tolerance: float = 0.0) -> bool:
    """Return whether two lists of answers, parted by commas outside of brackets, are the same in any order."""
    answers, rest = ([piece.strip() for piece in _COMMA.split(text)] for text in (first, second))
    for answer in answers:
        match = next((candidate for candidate in rest if is_same(answer, candidate, tolerance)), None)
        if match is None:
            return False
        rest.remove(match)
    return not rest


def is_same(first: str, second: str, tolerance: float = 0.0) -> bool:
    """Return whether two answers are the same but for their spelling, or but for what numbers may differ by."""
    try:
        texts = [normalise_answer(text) for text in (first, second)]
    except ValueError:  # a fraction or a root that ends where it begins
        return first == second
    numbers = [number for text in texts if (number := _read_number(text)) is not None]
    return abs(numbers[0] - numbers[1]) <= Decimal(str(tolerance)) if len(numbers) == 2 else texts[0] == texts[1]


def _read_number(text: str) -> Decimal | None:
    """Return the number that a normalised answer is; None: it is none."""
    plain = "0.5" if text == "\\frac{1}{2}" else re.sub("^[−–]", "-", text).removeprefix("+").rstrip("%.")
    plain = plain.replace("{,}", ",").replace("\\,", ",")
    return Decimal(plain.replace(",", "")) if _NUMBER.fullmatch(plain) else None


def normalise_answer(text: str) -> str:
    """Return an answer in one spelling.

    Raises:
        ValueError: A fraction or a root without its parts.
    """
    text = _UNIT.sub(r"\\text{ ", text)
    text = _STYLED.sub(r"\1", _DOLLAR.sub("", text)).replace("\n", "").replace("\\!", "").replace("\\\\", "\\")
    text = text.replace("tfrac", "frac").replace("dfrac", "frac")
    for piece in _REMOVED:
        text = text.replace(piece, "")
    text, *units = text.split("\\text{ ")
    if len(units) > 1:
        raise ValueError("two units")
    text = text.replace("\\%", "")
    text = text.replace(" .", " 0.").replace("{.", "{0.")
    if not text:
        return text
    text = f"0{text}" if text[0] == "." else text
    name, equals, value = text.partition("=")
    if equals and "=" not in value and len(name) <= 2:
        text = value
    if "" in text.split("\\sqrt")[1:]:
        raise ValueError("a root of nothing")
    text = _with_braces(re.sub(r"\\sqrt *([^{ ])", r"\\sqrt{\1}", text).replace(" ", ""))
    text = letter[1] if (letter := _LETTER.fullmatch(text)) else text
    return "\\frac{1}{2}" if text == "0.5" else _SLASH.sub(r"\\frac{\1}{\2}", text)


def _with_braces(text: str) -> str:
    """Return a text whose fractions of two signs have braces, too; as it is where one is too short."""
    if short := re.search(r"\\frac(?!\{)(.?)(?:\\frac|$)", text):
        if not short[1]:
            raise ValueError("a fraction of nothing")
        return text
    text = re.sub(r"\\frac([^{])(?=\{)", r"\\frac{\1}", text)
    return re.sub(r"\\frac([^{])(.)", r"\\frac{\1}{\2}", text)
