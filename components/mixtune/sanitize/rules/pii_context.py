"""What stands around a number, and says what it is: the word for a telephone or a card, an operator, a version's name.

A number that is introduced as a telephone's is one in any country's form. One beside an operator is arithmetic, one
behind the name of a version or a section is no address.
"""

import re

import re2

BEFORE = 48
"""Characters before a number that are looked at."""
_TELEPHONE = (
    "tele(?:ph|f)on[eo]?|telef[óo]n|t[ée]l[ée]phone|telefoon|telefonnummer|rufnummer|telefax|phones?|cellphone|fone|"
    "tel|tlf|t[ée]l|tfno|cell|cel|celular|cellulare|mobiles?|mobil|mobiel|m[óo]vil|handy|portable|fax|gsm|"
    "whats ?app|sms|call(?:ed|ing)?|ring|dial|contact|reach|hotline|landline|ll[aá]m[ae](?:r|me|nos)?|ligue|rufen sie|"
    "anrufen|appele[rz]|"
    "chiam[ai](?:re)?|puhelin|kom[óo]rka|telefonu|телефон|тел|моб|звоните|τηλ|τηλέφωνο|κινητό|هاتف|جوال|फ़ोन|फोन|"
    "โทร|điện thoại|电话|電話|手机|手機|携帯|전화|휴대폰|טלפון"
)
_FILLER = (
    "number|no|nr|num|n[úu]mero|numer|nummer|номер|n|is|are|ist|est|es|at|on|me|us|him|her|them|my|our|your|the|under|"
    "uns|unter|auf|al|au|a|to|via|by|is|был"
)
_SEPARATORS = "[\\s\u00a0\u202f\u3000" r":：=.#()/,;*°º\"'|-]{0,4}"
INTRODUCED = re2.compile(rf"(?i)(?:^|\PL)(?:{_TELEPHONE}){_SEPARATORS}(?:(?:{_FILLER}){_SEPARATORS}){{0,4}}$")
_OF_A_THING = (
    "order|orders|invoice|ticket|part|article|item|serial|sku|batch|lot|model|product|tracking|parcel|shipment|case|rma|"
    "receipt|quote|asset|build|pedido|factura|boleta|compra|gu[íi]a|nota fiscal|auftrags?|bestell(?:ung)?|rechnungs?|"
    "artikel|auftragsnummer|bestellnummer|rechnungsnummer|artikelnummer|commande|facture|colis|ordine|fattura|bestelling|"
    "factuur|zam[óo]wienie|заказ|订单|注文"
)
OF_A_THING = re2.compile(rf"(?i)(?:^|\PL)(?:{_OF_A_THING}){_SEPARATORS}(?:(?:{_FILLER}|id|code){_SEPARATORS}){{0,4}}$")
"""What introduces the number of a thing, not of a person."""
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
CARD = re.compile(
    r"(?i)card|visa|maestro|amex|karte|carte|tarjeta|cart[ãa]o|carta|kaart|kort|\bpan\b|credit|debit|\bcc\b"
)
ACCOUNT = re.compile(r"(?i)iban|konto|account|bank|cuenta|compte|conto|rekening|transfer|überweis")
SSN = re.compile(r"(?i)\bssn\b|social security")
_MATHS = re2.compile(
    r"(?i)\b(?:calculate|compute|evaluate|simplify|solve|sum|product|difference|quotient|add|subtract|multiply|divide|"
    r"plus|minus|times|equals|factor(?:ize|ise)?|mod(?:ulo)?|sqrt)\b[^\n?!]{0,40}$"
)
_OPERATOR_BEFORE = re.compile(
    r"(?:[*^×÷<>≤≥%∙·]\s?|(?:\b[A-Za-z]|[\d)\]])\s?=\s?|[\d)\]]\s?/\s?|[\d)\]](?:[-+−]|\s[-+−]\s))\(?$"
)
_OPERATOR = 8
"""Characters that an operator before a number, and what stands before it, take at most."""
_OPERATOR_AFTER = re.compile(r"\)?(?:\s?(?:[*^×÷%∙·]|/\s?\(?\d|=)|(?:[-+−]|\s[-+−]\s)\(?\d)")
_DIGIT_BEFORE_PLUS = re.compile(r"[\w)\]]\+$")
_MINUS = re.compile(r"\d{5,} ?-+ ?\d{5,}|\d+ [-−] \d+$")
_VERSION = re.compile(
    r"(?i)(?:\bv(?:er(?:sions?)?)?|releases?|firmware|builds?|revision|\brev|sections?|\bsect?|chapters?|clauses?|"
    r"articles?|paragraphs?|tables?|figures?|\bfig|appendix|rules?|items?|steps?|§+|\biso|\brfc|\boid|kernel|driver|"
    r"upgraded? (?:from|to)|updated? to|[a-z]/)[\s.:=-]{0,3}$"
)
_VERSION_AFTER = re.compile(
    r"(?i)[-+_]?(?:rc|alpha|beta|dev|snapshot|final)\b|\.(?:tar|zip|jar|whl|gz|deb|rpm|exe|msi|dll|so)\b"
)
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
