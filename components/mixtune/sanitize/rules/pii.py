"""Personal data in texts: candidates by one linear-time scan, decided by validators; then dropped or replaced.

The scan is one RE2 alternation, whose time is linear in the text however hostile it is. What it finds is small, so
that checksums and the telephone numbering plans (phonenumbers) may be slow. Names and addresses need a language
model (`names`), and are looked for only where a policy asks for it.
"""

import hashlib
import hmac
import ipaddress
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

import re2

from mixtune.errors import ConfigError
from mixtune.sanitize.rules import pii_checksums as ids
from mixtune.sanitize.rules import pii_context as context
from mixtune.sanitize.rules import pii_names, pii_national
from mixtune.sanitize.rules.pii_spellings import MAY_BE, read_plainly
from mixtune.sanitize.rules.text_batch import Texts
from mixtune.settings.sanitize import NAME_KINDS, PERSONAL_KINDS, PHONE_ELSEWHERE

KEY_FILE = "MIXTUNE_PSEUDONYM_KEY_FILE"
"""Environment variable: the file, of a mounted secret, that holds the key of pseudonyms."""
_DEFAULT_KEY_FILE = "/etc/mixtune/pseudonym-key"

_SAID = rf"(?i: at (?:{ids.WORDS['spelled']['providers']}) dot )"
"""How an address goes on that is said; of other hosts than these it may be a place."""
_SIGNS, _BEFORE_AT = ids.WORDS["spelled"]["signs"], ids.WORDS["spelled"]["before_at"]
_IP6_FORM = ids.WORDS["forms"]["ip6"]
_GROUPS = {
    **ids.WORDS["forms"],
    "secret": "|".join(ids.WORDS["secrets"].values()),
    "national_id": rf"\b(?:{'|'.join(pattern for pattern, _, _ in pii_national.CODED_IDS)})\b",
}.items()


def _no_captures() -> object:
    options = re2.Options()
    options.never_capture = True
    return options


_SCAN = re2.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _GROUPS))
_SCAN_ASCII = re2.compile(_SCAN.pattern.encode())
_KINDS_BY_PLACE = list(enumerate((name for name, _ in _GROUPS), start=1))[::-1]
"""Numbers first, since they are most of what is found."""
_LOOSE = ("password", "iban")
_STRICT = re2.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _GROUPS if name not in (*_LOOSE, "ip6")))
_SURE = {**ids.WORDS["sure"], "email": f"{ids.WORDS['sure']['email']}|{_SAID}"}
"""What every match of a form holds: with far fewer states than the form, since little of it can begin anywhere."""
_MAY_HOLD = re2.compile(
    "|".join([*(_SURE.get(name, pattern) for name, pattern in _GROUPS), MAY_BE]).encode(), options=_no_captures()
)
_MAY_BE_SPELLED = re2.compile(MAY_BE.encode(), options=_no_captures())
_IP6 = re2.compile(_IP6_FORM)
_LETTERS = "a-z\u00c0-\u024f\u0370-\u03ff\u0400-\u052f\u1e00-\u1fff"
"""Of Latin, Greek and Cyrillic: of scripts that write no spaces an address would take the words around it."""
_ODD_EMAIL = re.compile(
    rf"[{_LETTERS}0-9._%+-]{{1,64}}@(?:[\w-]{{1,63}}\.)+[{_LETTERS}]{{2,24}}"
    r"|[a-z0-9._%+-]{1,64} ?[\[({<]at[\])}>] ?(?:[a-z0-9-]{1,63}(?:\.| ?[\[({<]dot[\])}>] ?))+[a-z]{2,24}"
    rf"|(?:[a-z0-9]{{1,30}} (?:{_SIGNS}) ){{0,3}}(?<![a-z0-9._+-])(?!(?:{_BEFORE_AT}) )[a-z0-9._+-]{{1,64}}{_SAID}"
    r"[a-z]{2,3}(?: dot [a-z]{2})?\b",
    re.I,
)
"""An address with letters beyond ASCII, or with its signs spelled out."""
_SPELLED_OUT = re2.compile(r"(?i)[\[({<]at[\])}>]|" + _SAID)
_MORE_GROUPS = re.compile(":?[0-9A-Fa-f]")
_IP = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]*\d)")
_SSN = re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])")
_SSN_NAMED = re.compile(r"(?<![\d.-])\d{3}[ .]\d{2}[ .]\d{4}(?![\d.-])")
_SSN_ALONE = re.compile(r"(?<![\d.-])\d{9}(?![\d.-])")
_CARD = re.compile(r"(?<!\d)\d(?:[ -]?\d){11,18}(?!\d)")
_PIECE = re.compile(r"(?:[^/)]|\)(?!\.))+")
_DIALLED = re.compile(r"\+|\(?\d{3}\)?[-. ]{1,2}\d{3}[-. ]\d{4}$")
_WITH_TRUNK = re.compile(r"\(?0[1-9]\d{0,4}\)?[ /-]{1,3}\d{2,}(?:[ -]\d{2,})*$")
"""A number that is dialled with a 0 before its area, as in most of Europe."""
_TRUNK_DIGITS = range(9, 13)
_MIN_DIALLED = 9
"""Digits from which on a number that is written or introduced like a telephone's is one, though it is not assigned."""
_PASSWORD = re.compile(r"[:=]\s*['\"]?(?=[^\s'\"]*\d)(?=[^\s'\"]*[A-Za-z])([^\s'\"(){}]+)$")
_NATIONAL, _CODED = (
    tuple((re.compile(pattern), check, re.compile(name) if name else None) for pattern, check, name in table)
    for table in (pii_national.NATIONAL_IDS, pii_national.CODED_IDS)
)
Finding = tuple[str, int, int]


@dataclass(frozen=True, kw_only=True)
class Personal:
    """The policies for personal data, ready to be applied."""

    policies: Mapping[str, str] = field(default_factory=dict)
    """`redact` (a placeholder such as `[EMAIL]`), `pseudonym` (`[EMAIL-1f0c...]`, the same for the same datum),
    `drop` (the record goes), `report` (counted only) or `keep` (not looked for). The key `default` is for the kinds
    that are not named; without it they are redacted."""
    region: str = "US"
    """Country whose telephone numbers may stand without their country's code; two letters."""
    name_model: str = "en_core_web_sm"
    """spaCy model that finds names and addresses, where `name` or `address` has a policy: installed, or a folder."""

    def __post_init__(self) -> None:
        """Check that there are a key and a model where they are needed."""
        if "pseudonym" in map(self.policy, (*PERSONAL_KINDS, *NAME_KINDS)):
            _key()
        if not _shortest_phone(self.region):
            raise ConfigError(f"phone_region: no country {self.region!r} has a numbering plan; it is such as DE or GB")
        if self.wants_names:
            pii_names.load_analyzer(self.name_model)

    @cached_property
    def wants_names(self) -> bool:
        """Whether the slow tier runs."""
        return any(self.policy(kind) != "keep" for kind in NAME_KINDS)

    def policy(self, kind: str) -> str:
        """Return the policy for a kind; names and addresses stay where they are not named."""
        if kind in NAME_KINDS:
            return self.policies.get(kind, "keep")
        if kind == PHONE_ELSEWHERE:
            return "keep" if self.policy("phone") == "keep" else "report"
        return self.policies.get(kind) or self.policies.get("default") or "redact"

    def find(self, text: str) -> list[Finding]:
        """Return kind, start and end of every finding, in order, without overlaps."""
        candidates: list[Finding] = []
        if _MAY_HOLD.search(encoded := text.encode(errors="surrogatepass")):
            candidates += self._candidates(text)
            if _MAY_BE_SPELLED.search(encoded):
                plain = read_plainly(text)
                candidates += [(kind, plain.origin(a), plain.origin(b)) for kind, a, b in self._candidates(plain.text)]
        if self.wants_names:
            candidates += pii_names.find_names(text, self.name_model)
        findings, at = [], 0
        for kind, start, end in sorted(candidates, key=lambda item: (item[1], -item[2])):
            if start >= at and self.policy(kind) != "keep":
                findings.append((kind, start, end))
                at = end
        return findings

    def suspects(self, texts: Texts) -> set[int]:
        """Return the numbers of the texts that may hold personal data; the others surely hold none of the kinds."""
        return set(range(len(texts.texts))) if self.wants_names else texts.matches(_MAY_HOLD)

    def apply(self, text: str, counts: Counter[str]) -> str:
        """Return the text by the policies; findings are counted by kind."""
        findings = self.find(text)
        counts.update(kind for kind, _, _ in findings)
        return _replace(text, findings, self._replaced)

    def hide(self, text: str) -> str:
        """Return the text with every finding as a placeholder, whatever the policies: for reports."""
        policies = {kind: "redact" for kind in NAME_KINDS if self.policy(kind) != "keep"}
        findings = replace(self, policies=policies).find(text)
        return _replace(text, findings, lambda kind, _: f"[{kind.upper()}]")

    def _replaced(self, kind: str, datum: str) -> str:
        policy = self.policy(kind)
        if policy == "redact":
            return f"[{kind.upper()}]"
        if policy == "pseudonym":
            datum = read_plainly(datum).text
            plain = re.sub(r"[\s().-]", "", datum).lower() if kind != "email" else datum.lower()
            return f"[{kind.upper()}-{hmac.new(_key(), f'{kind} {plain}'.encode(), hashlib.sha256).hexdigest()[:12]}]"
        return datum

    def _candidates(self, text: str) -> Iterator[Finding]:
        for match in _IP6.finditer(text) if text.count(":") > 2 else ():
            before, after = text[max(0, match.start() - 1) : match.start()], text[match.end() : match.end() + 2]
            if _is_ip6(match[0]) and before != ":" and not _MORE_GROUPS.match(after):
                yield "ip", *match.span()
        if ("@" in text and not text.isascii()) or _SPELLED_OUT.search(text):
            for match in _ODD_EMAIL.finditer(text):
                yield from self._judged("email", text, *match.span())
        for match in _SCAN_ASCII.finditer(text.encode()) if text.isascii() else _SCAN.finditer(text):
            kind = next(name for place, name in _KINDS_BY_PLACE if match.start(place) >= 0)
            start, end = match.span()
            if kind not in _LOOSE:
                yield from self._judged(kind, text, start, end)
                continue
            length = _iban_length(text, start, end) if kind == "iban" else 0
            if length:
                yield kind, start, start + length
            elif password := _PASSWORD.search(text[start:end]):
                yield "secret", start + password.start(1), end
            start += length or 4
            for inner in _STRICT.finditer(text[start : end + 40]):  # a loose form may be wrong, and hide another
                if inner.start() < end - start:
                    kind = next(name for name, value in inner.groupdict().items() if value is not None)
                    yield from self._judged(kind, text, start + inner.start(), start + inner.end())

    def _judged(self, kind: str, text: str, start: int, end: int) -> Iterator[Finding]:
        datum = text[start:end]
        if kind == "number":
            yield from self._in_number(text, start, end)
        elif kind == "national_id":
            before = text[max(0, start - context.BEFORE) : start]
            if any(
                pattern.fullmatch(datum) and check(datum) and _is_of_person(before, name)
                for pattern, check, name in _CODED
            ):
                yield kind, start, end
            elif datum[-1].isdigit():  # its form is that of an identity number, and of others
                yield from self._in_number(text, start, end)
        elif kind != "ip6" and (kind != "email" or context.is_mailbox(text, start, end)):
            yield kind, start, end

    def _in_number(self, text: str, start: int, end: int) -> Iterator[Finding]:
        """What a run of digits holds: addresses, cards and identity numbers by their forms, the rest if it rings."""
        if sum(map(str.isdigit, text[start:end])) < 7 and text.count(".", start, end) < 3:
            return
        before = text[max(0, start - context.BEFORE) : start]
        addresses = list(_IP.finditer(text, start, end))
        for match in addresses:
            if _is_ip4(match[0]) and not context.is_version(text, *match.span()):
                yield "ip", *match.span()
        is_introduced = bool(context.INTRODUCED.search(before))
        if context.is_arithmetic(text, start, end) and not (is_introduced or context.CARD.search(before)):
            return
        numbers = list(_identity_numbers(text, start, end, before))
        yield from numbers
        if addresses or numbers:
            return
        if is_introduced and context.is_phone_form(text[start:end]):
            extension = context.EXTENSION.match(text, end)
            yield "phone", start, extension.end() if extension else end
            return
        if context.UNIT.match(text, end) and not context.EXTENSION.match(text, end):
            return
        # A stroke stands between numbers, as a bracket does that ends a sentence.
        phones = [item for piece in _PIECE.finditer(text, start, end) for item in self._phones(text, *piece.span())]
        if not phones and _is_with_trunk(text[start:end]) and not _has_trunk(self.region):
            phones.append((PHONE_ELSEWHERE, start, end))
        yield from phones

    def _phones(self, text: str, start: int, end: int) -> Iterator[Finding]:
        import phonenumbers

        raw, digits = text[start:end], len(ids.digits_of(text[start:end]))
        is_short = "+" not in raw and digits < _shortest_phone(self.region)
        if not 7 <= digits <= 30 or is_short or raw.isdigit() or context.NO_PHONE.match(raw):
            return
        dialled = _DIALLED.match(raw) and digits >= _MIN_DIALLED
        leniency = phonenumbers.Leniency.POSSIBLE if dialled else phonenumbers.Leniency.STRICT_GROUPING
        for begin, stop in _match_phones(raw, self.region, leniency):
            yield "phone", start + begin, start + stop


def _identity_numbers(text: str, start: int, end: int, before: str) -> Iterator[Finding]:
    """Yield the cards and identity numbers in a run of digits, by their forms and by what stands before."""
    for kind, pattern, check in _FORMS:
        for match in pattern.finditer(text, start, end):
            if check(match[0], before):
                yield kind, *match.span()
    for pattern, is_valid, name in _NATIONAL:
        for match in pattern.finditer(text, start, end):
            if is_valid(match[0]) and _is_of_person(before, name):
                yield "national_id", *match.span()


def _is_of_person(before: str, name: re.Pattern[str] | None) -> bool:
    """Return whether what stands before a number lets it be a person's: the name that it needs, or no thing's."""
    return bool(name.search(before)) if name else not context.OF_A_THING.search(before)


@lru_cache
def _shortest_phone(region: str) -> int:
    """Digits of a region's shortest telephone number, without the country's code."""
    from phonenumbers import PhoneMetadata

    metadata = PhoneMetadata.metadata_for_region(region, None)
    return min(metadata.general_desc.possible_length) if metadata and metadata.general_desc else 0


@lru_cache
def _has_trunk(region: str) -> bool:
    """Return whether a region's numbers are dialled with a 0 before their area."""
    from phonenumbers import PhoneMetadata

    metadata = PhoneMetadata.metadata_for_region(region, None)
    return bool(metadata and metadata.national_prefix == "0")


def _is_with_trunk(raw: str) -> bool:
    return bool(_WITH_TRUNK.match(raw)) and len(ids.digits_of(raw)) in _TRUNK_DIGITS and not context.NO_PHONE.match(raw)


@lru_cache(maxsize=2**14)
def _match_phones(raw: str, region: str, leniency: int) -> list[tuple[int, int]]:
    import phonenumbers

    return [(match.start, match.end) for match in phonenumbers.PhoneNumberMatcher(raw, region, leniency)]


def _replace(text: str, findings: list[Finding], by: Callable[[str, str], str]) -> str:
    pieces, at = [], 0
    for kind, start, end in findings:
        pieces += [text[at:start], by(kind, text[start:end])]
        at = end
    return "".join([*pieces, text[at:]]) if pieces else text


def _is_ip4(text: str) -> bool:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or text.startswith("255."))


def _is_ip6(text: str) -> bool:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return sum(bool(part) for part in text.split(":")) >= 3 and not address.is_loopback


_FORMS: tuple[tuple[str, re.Pattern[str], Callable[[str, str], bool]], ...] = (
    ("ssn", _SSN, lambda text, before: ids.is_ssn(text)),
    ("ssn", _SSN_NAMED, lambda text, before: ids.is_ssn(text) and bool(context.SSN.search(before))),
    ("ssn", _SSN_ALONE, lambda text, before: ids.is_ssn(text) and bool(context.SSN_BEFORE.search(before))),
    ("card", _CARD, lambda text, before: ids.is_card(text, is_named=bool(context.CARD.search(before)))),
)
"""Kind, pattern, and check of a number with what stands before it."""


def _iban_length(text: str, start: int, stop: int) -> int:
    """Characters of the IBAN that a candidate begins with; 0: none. One in small letters has to be spoken of."""
    for end in range(stop, start + 14, -1):
        if text[end - 1].isalnum() and ids.is_iban(text[start:end]):
            datum = text[start:end]
            is_told = (
                datum.isupper() or " " in datum or context.ACCOUNT.search(text[max(0, start - context.BEFORE) : start])
            )
            return end - start if is_told else 0
    return 0


def _key() -> bytes:
    path = Path(os.environ.get(KEY_FILE) or _DEFAULT_KEY_FILE)
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(
            f"personal_data: pseudonyms need a key; mount a secret as {path}, or set {KEY_FILE}"
        ) from error
    if len(key) < 16:
        raise ConfigError(f"personal_data: the key in {path} has {len(key)} bytes; at least 16 are needed")
    return key
