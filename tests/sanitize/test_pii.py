"""Personal data: what is found, what is not, and what becomes of it."""

import random
import sys
from collections import Counter
from pathlib import Path

import phonenumbers
import pytest

from mixtune.errors import ConfigError
from mixtune.sanitize.rules.pii import KEY_FILE, Personal
from mixtune.sanitize.rules.text_batch import join_texts
from mixtune.settings.sanitize import SanitizeSettings, TextSettings, advise_region


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("mail jo.doe+x@ex-ample.co.uk now", "mail [EMAIL] now"),
        ("call (415) 555-2671 or +49 170 1234567", "call [PHONE] or [PHONE]"),
        ("card 4111 1111 1111 1111 exp 12/25", "card [CARD] exp 12/25"),
        ("iban DE89 3704 0044 0532 0130 00 ok", "iban [IBAN] ok"),
        ("ssn 123-45-6789", "ssn [SSN]"),
        ("from 8.8.8.8 and 2001:db8:0:0:8:800:200c:417a", "from [IP] and [IP]"),
        ("key AKIAIOSFODNN7EXAMPLE", "key [SECRET]"),
        ("MRN: 12345678", "[MEDICAL_RECORD]"),
        ("DE89 3704 0044 0532 0130 00 SSN 123-45-6789", "[IBAN] SSN [SSN]"),
        ("AB12 4111 1111 1111 1111", "AB12 [CARD]"),
        ("password: hunter2hunter2, API_KEY='9f8e7d6c5b'", "password: [SECRET] API_KEY='[SECRET]'"),
        ("fax 451-267-6122, you can reach us: 6992315827", "fax [PHONE], you can reach us: [PHONE]"),
        ("api_key=jane.doe@example.org, token: +49170-1234567", "api_key=[EMAIL], token: [PHONE]"),
        ("NIR 207012B03356554", "NIR [NATIONAL_ID]"),
        (
            "DNI 12345678Z, fiscal RSSMRA85T10A562S, CPF 529.982.247-25",
            "DNI [NATIONAL_ID], fiscal [NATIONAL_ID], CPF [NATIONAL_ID]",
        ),
    ],
)
def test_personal_data_becomes_a_placeholder_of_its_kind(text: str, redacted: str) -> None:
    assert Personal().apply(text, Counter()) == redacted
    assert Personal().apply(redacted, Counter()) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "card 4111 1111 1111 1112",
        "ssn 000-12-3456",
        "iban DE89 3704 0044 0532 0130 01",
        "localhost 127.0.0.1, mask 255.255.255.0",
        "order 1234567890, pi 3.14159265358, 2024-01-15 10:00",
        "Natalia sold 48/2 = 24 clips, 1,000,000 and 12 - 3 - 45",
        "std::vector at 12:30:45",
        "token = tokenizer.encode(text1), password=password, secret: something",
        "during 2023 1234567890 rings, rows 123-456-789, recall 10 000 000 000",
        "account 3704 0044 0532 0130 01",
        "28980 - 18480 = 10500 and 1:9:36:84:126:126:84:36:9:1",
    ],
)
def test_numbers_that_fail_their_check_stay(text: str) -> None:
    assert Personal().apply(text, Counter()) == text


def test_pseudonyms_are_consistent_and_their_key_comes_from_a_mounted_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_FILE, str(tmp_path / "key"))
    with pytest.raises(ConfigError, match="pseudonyms need a key; mount a secret"):
        Personal(policies={"email": "pseudonym"})
    (tmp_path / "key").write_text("short")
    with pytest.raises(ConfigError, match="5 bytes; at least 16"):
        Personal(policies={"email": "pseudonym"})
    (tmp_path / "key").write_text("0123456789abcdef")
    one, two, other = (
        Personal(policies={"email": "pseudonym"}).apply(text, Counter()) for text in ("a@b.com", "A@B.com", "c@b.com")
    )
    assert one == two != other
    assert one.startswith("[EMAIL-")


def test_an_unknown_kind_or_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown kind 'mail'"):
        SanitizeSettings(personal_data={"mail": "redact"})
    with pytest.raises(ConfigError, match="email is 'erase'"):
        SanitizeSettings(personal_data={"email": "erase"})


def test_names_are_looked_for_only_on_request_and_need_presidio_and_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Jane Doe of Springfield, jane@example.org"
    assert Personal().apply(text, Counter()) == "Jane Doe of Springfield, [EMAIL]"
    assert Personal(policies={"default": "drop"}).policy("name") == "keep"
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(ConfigError, match="need presidio; build the data image with the extra `names`"):
        Personal(policies={"name": "redact"})


def test_names_and_places_become_placeholders_by_an_installed_model_offline(tmp_path: Path) -> None:
    pytest.importorskip("presidio_analyzer", reason="the extra `names` is not installed")
    import spacy

    with pytest.raises(ConfigError, match="'nowhere' is neither installed nor a folder"):
        Personal(policies={"name": "redact"}, name_model="nowhere")
    tiny = spacy.blank("en")
    ruler = tiny.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PERSON", "pattern": "Jane Doe"}, {"label": "GPE", "pattern": "Springfield"},
                        {"label": "PERSON", "pattern": "NAME"}])  # fmt: skip
    tiny.to_disk(tmp_path / "tiny")
    personal = Personal(policies={"name": "redact", "address": "report"}, name_model=str(tmp_path / "tiny"))
    counts: Counter[str] = Counter()
    clean = personal.apply("Jane Doe of Springfield, jane@example.org", counts)
    assert clean == "[NAME] of Springfield, [EMAIL]"
    assert counts == {"name": 1, "address": 1, "email": 1}
    assert personal.apply(clean, Counter()) == clean
    assert personal.hide("Jane Doe of Springfield") == "[NAME] of [ADDRESS]"


REGISTRY = """
AD1200012030200359100100 AE070331234567890123456 AL47212110090000000235698741 AT611904300234573201 AZ21NABZ00000000137010001944
BA391290079401028494 BE68539007547034 BG80BNBG96611020345678 BH67BMAG00001299123456 BI4210000100010000332045181
BR1800360305000010009795493C1 BY13NBRB3600900000002Z00AB00 CH9300762011623852957 CR05015202001026284066
CY17002001280000001200527600 CZ6508000000192000145399 DE89370400440532013000 DK5000400440116243
DO28BAGR00000001212453611324 EE382200221020145685 EG380019000500000000263180002 ES9121000418450200051332
FI2112345600000785 FO6264600001631634 FR1420041010050500013M02606 GB29NWBK60161331926819 GE29NB0000000101904917
GI75NWBK000000007099453 GL8964710001000206 GR1601101250000000012300695 GT82TRAJ01020000001210029690 HR1210010051863000160
HU42117730161111101800000000 IE29AIBK93115212345678 IL620108000000099999999 IQ98NBIQ850123456789012
IS140159260076545510730339 IT60X0542811101000000123456 JO94CBJO0010000000000131000302 KW81CBKU0000000000001234560101
KZ86125KZT5004100100 LB62099900000001001901229114 LC55HEMM000100010012001200023015 LI21088100002324013AA
LT121000011101001000 LU280019400644750000 LV80BANK0000435195001 MC5811222000010123456789030 MD24AG000225100013104168
ME25505000012345678951 MK07250120000058984 MR1300020001010000123456753 MT84MALT011000012345MTLCAST001S
MU17BOMM0101101030300200000MUR NL91ABNA0417164300 NO9386011117947 PK36SCBL0000001123456702 PL61109010140000071219812874
PS92PALS000000000400123456702 PT50000201231234567890154 QA58DOHB00001234567890ABCDEFG RO49AAAA1B31007593840000
RS35260005601001611379 SA0380000000608010167519 SC18SSCB11010000000000001497USD SE4550000000058398257466 SI56263300012039086
SK3112000000198742637541 SM86U0322509800000000270100 ST23000100010051845310146 SV62CENR00000000000000700025
TL380080012345678910157 TN5910006035183598478831 TR330006100519786457841326 UA213223130000026007233566001
VA59001123000012345678 VG96VPVG0000012345678901 XK051212012345678906
"""
"""The registry's own examples of IBANs."""


def test_ibans_of_every_country_of_the_registry_are_found() -> None:
    for iban in REGISTRY.split():
        spaced = " ".join(iban[place : place + 4] for place in range(0, len(iban), 4))
        for text in (iban, spaced, f"IBAN {iban.lower()}", f"pay {spaced.lower()} now"):
            assert Personal().apply(text, Counter()).count("[IBAN]") == 1, text
        assert Personal().find(iban[:-1] + "0123456789"[(int(iban[-1], 36) + 1) % 10]) == [], iban


PLACES = ("Phone: {}", "call me at {}", "My mobile number is {}.", "Telefon: {}", "Tél. : {}", "fax={};", "电话：{}")


def test_introduced_numbers_of_every_country_are_found_whole() -> None:
    missed = []
    for number, region in enumerate(sorted(phonenumbers.SUPPORTED_REGIONS)):
        for form in (phonenumbers.PhoneNumberFormat.NATIONAL, phonenumbers.PhoneNumberFormat.INTERNATIONAL):
            if not (example := phonenumbers.example_number(region)):
                continue
            datum = phonenumbers.format_number(example, form)
            before, after = PLACES[number % len(PLACES)].split("{}")
            if (
                sum(map(str.isdecimal, datum)) >= 7
                and Personal().apply(f"{before}{datum}{after}", Counter()) != f"{before}[PHONE]{after}"
            ):
                missed.append(f"{region} {datum}")
    assert missed == []


@pytest.mark.parametrize("operator", ["+", "-", "*", "/", " + ", " - ", " × ", " ÷ "])
def test_no_sum_is_cut(operator: str) -> None:
    draw, personal = random.Random(3), Personal()
    for digits in (6, 8, 9, 10, 11, 12, 13, 16):
        for form in ("Compute {}.", "{}=?", "What is {}?", "{} = x"):
            numbers = [str(draw.randrange(10 ** (digits - 1), 10**digits)) for _ in range(2)]
            text = form.format(operator.join(numbers))
            assert personal.find(text) == [], text


NO_DATA = [
    "version 10.2.14.3", "section 3.2.1.4 says so", "v10.2.14.3", "Chrome/10.2.14.3 Safari/537.36", "lib-10.2.14.3.tar.gz",
    "upgrade to build 10.2.14.3", "git clone git@github.com:org/repo.git", "deploy@example.com:srv/app", "y = A.T@B.inv(x)",
    "1234 5678 9012 3456 7890", "| 1234 5678 | 9012 3456 |", "x = 4111111111111111 + 2", "2024-01-15 10:30:22,123 ERROR 12345678",
    "call on 2024-01-15", "call f(12345678)", "ISBN 978-3-16-148410-0", "order 12345678 of 20", "[0.123456, 12.34567]",
    "heap 385233837K->385233837K(6818382411K)", "669447108 669447108 669447108", "EAN 5751662401812", "(681) 838-2411px wide",
    "commit de12abcdef0123456789ab", "lat 48.1374300, lon 11.5754900", "row 1234567", "3-5-7-9-11-13-15",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_DATA)
def test_versions_sections_code_and_tables_are_left_alone(text: str) -> None:
    assert Personal().find(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("call 555-123-4567 ext. 89 now", "call [PHONE] now"),
        ("Phone 030/1234567", "Phone [PHONE]"),
        ("SSN 123 45 6789", "SSN [SSN]"),
        ("social security number 123.45.6789", "social security number [SSN]"),
        ("IBAN de89370400440532013000", "IBAN [IBAN]"),
        ("pay al47 2121 1009 0000 0002 3569 8741 now", "pay [IBAN] now"),
        ("IBAN LC14BOSL123456789012345678901234", "IBAN [IBAN]"),
        ("my card 6759 6498 2648", "my card [CARD]"),
        ("the number 675964982648 of atoms", "the number 675964982648 of atoms"),
        ("JCB card 180014366785460", "JCB card [CARD]"),
        ("old Visa card 4222222222222", "old Visa card [CARD]"),
        ("call (681) 838-2411x12", "call [PHONE]"),
        ("from host 10.20.30.40", "from host [IP]"),
        ("Llámame al 612 34 56 78 hoy", "Llámame al [PHONE] hoy"),
        ("Rufen Sie uns unter 030 / 123 456 78 an", "Rufen Sie uns unter [PHONE] an"),
    ],
)
def test_a_datum_is_found_in_its_seldom_forms(text: str, expected: str) -> None:
    assert Personal().apply(text, Counter()) == expected


NATIONAL = """
BSN 111222333|burgerservicenummer 1112.22.333|Steuer-ID: 36 574 261 809|CPF 39053344705|16.727.230/0001-97|20-05536168-2
personnummer 880320-0016|Personnummer: 198803200016|fødselsnummer 151086 95088|85.07.30-033.28|756.9217.0769.85
NIF 501964843|AMKA 01013099997|rodné číslo 710319/2745|SIN 123-456-782|TFN 123 456 782|ID number 7503305044089
TC Kimlik 17291716060|360426199101010071|NRIC S1234567D|131052-308T|BOXW310820HNERXN09|12.531.909-2|PPS 6433435F
Aadhaar 234123412346|マイナンバー 123456789018
"""


def test_identity_numbers_of_many_countries_are_told_by_their_checks() -> None:
    personal = Personal()
    for text in NATIONAL.replace("\n", "|").strip("|").split("|"):
        assert personal.apply(text, Counter()).endswith("[NATIONAL_ID]"), text
        place = max(number for number, letter in enumerate(text) if letter.isdigit())
        changed = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
        assert "national_id" not in [kind for kind, _, _ in personal.find(changed)], changed
    for text in ("PAN: ACUPA7085R", "CPR-nr 211062-5629"):
        assert personal.apply(text, Counter()).endswith("[NATIONAL_ID]"), text


THINGS = """
order 12.531.909-2|Your order number is 12.531.909-2|Invoice no. 20-05536168-2|factura n.º 20-05536168-2|part #12345678Z
Artikelnummer: AB123456C|SKU AB 12 34 56 C|tracking code 2341 2341 2346|Bestellung 131052-308T|pedido 390.533.447-05|订单：12.531.909-2
"""


def test_a_number_that_is_introduced_as_a_things_is_no_identity_number() -> None:
    personal = Personal()
    for text in THINGS.replace("\n", "|").strip("|").split("|"):
        assert "national_id" not in [kind for kind, _, _ in personal.find(text)], text
        datum = text[
            next(number for number, letter in enumerate(text) if letter.isdigit() or text[number:].startswith("AB")) :
        ]
        for person in ("My order is late, RUT {}", "I am {}, where is my order?", "order of {}", "ID {}"):
            assert "national_id" in [kind for kind, _, _ in personal.find(person.format(datum))], (person, datum)


def test_order_numbers_are_no_identity_numbers() -> None:
    draw, personal = random.Random(5), Personal()
    for length in (*range(7, 14), 15, 16):
        for form in ("order {}", "Order no. {} shipped", "A{}", "#{}", "SKU-{}-X", "ABC{}"):
            for _ in range(30):
                text = form.format(draw.randrange(10 ** (length - 1), 10**length))
                assert "national_id" not in [kind for kind, _, _ in personal.find(text)], text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("an müller@beispiel.de und info@münchen.de,", "an [EMAIL] und [EMAIL],"),
        ("почта@пример.рф, γεια@παράδειγμα.ελ", "[EMAIL], [EMAIL]"),
        ("请联系user@example.com谢谢", "请联系[EMAIL]谢谢"),
        ("jane [at] example [dot] com, jo.doe(AT)mail.example.org", "[EMAIL], [EMAIL]"),
        (
            "meet (at) noon. com; look at amazon dot com; a @ b.com",
            "meet (at) noon. com; look at amazon dot com; a @ b.com",
        ),
    ],
)
def test_an_address_is_found_beyond_ascii_and_spelled_out(text: str, expected: str) -> None:
    assert Personal().apply(text, Counter()) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a%20555-12-3456 ssn=555%2D12%2D3456&x=1", "a%20[SSN] ssn=[SSN]&x=1"),
        ("mailto%3Ajohn%40example.com, e=john%2Bnews%2540example.com", "mailto%3A[EMAIL], e=[EMAIL]"),
        ("?phone=%2B14155552671&tel=%28415%29%20555-2671", "?phone=[PHONE]&tel=[PHONE]"),
        ("card=4111%201111%201111%201111 iban=DE89%203704%200044%200532%200130%2000", "card=[CARD] iban=[IBAN]"),
        ("password%3Dhunter2secret9", "password%3D[SECRET]"),
        ("john&#64;example.com john&commat;example.com", "[EMAIL] [EMAIL]"),
        (r"{\"e\": \"john\u0040example.com\"}", r"{\"e\": \"[EMAIL]\"}"),
        ("john[@]example.com, john@example[.]com, 192[.]0[.]2[.]44", "[EMAIL], [EMAIL], [IP]"),
        ("call +1 (415) 555\u20112671, 415\u00a0555\u20132671", "call [PHONE], [PHONE]"),
        ("j\u00fcrgen%40m%C3%BCller.de, john\uff20example.com", "[EMAIL], [EMAIL]"),
        ("tel \uff14\uff11\uff15-555-2671", "tel [PHONE]"),
    ],
)
def test_a_datum_is_found_as_urls_html_and_typesetting_spell_it(text: str, expected: str) -> None:
    assert Personal().apply(text, Counter()) == expected
    assert Personal().suspects(join_texts(["", text])) == {1}


@pytest.mark.parametrize(
    "text",
    [
        "x=1%2C2, 100%2020-10-10, date=2024%2D10%2D11T10%3A20%3A30",
        "pages 1990\u20132000 and 2001\u20132010, 1\u00a0234\u00a0567\u00a0890 \u20ac",
        "user:pass%40host, 50% of 100%, %E7%94%A8%E6%88%B7, version 1[.]2",
        "order 555123456, 123456789 items",
        "look at live dot com, I worked at outlook dot com, meet us at web dot com",
        "(pp. 480-487). 1998. (pp. 480\u2013487). 1998.",
    ],
)
def test_what_is_spelled_so_and_is_no_datum_stays(text: str) -> None:
    assert Personal().apply(text, Counter()) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("john dot doe at gmail dot com please", "[EMAIL] please"),
        ("o'brien@example.com, 'jane@example.com'", "[EMAIL], '[EMAIL]'"),
        ("john<at>example<dot>com, john@\u4f8b\u3048.jp\u3067\u3059", "[EMAIL], [EMAIL]\u3067\u3059"),
        ("My SSN is 123456789; SSN: 555123456", "My SSN is [SSN]; SSN: [SSN]"),
        ("SSN 123456789 and order 555123456", "SSN [SSN] and order 555123456"),
        ("SSN%555-12-3456", "SSN%[SSN]"),
    ],
)
def test_a_datum_is_found_as_it_is_said_or_named(text: str, expected: str) -> None:
    assert Personal().apply(text, Counter()) == expected


def test_a_pseudonym_is_the_same_however_a_datum_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("0123456789abcdef")
    monkeypatch.setenv(KEY_FILE, str(tmp_path / "key"))
    first, second = Personal(policies={"default": "pseudonym"}).apply("a@x.org a%40x.org", Counter()).split()
    assert first == second


@pytest.mark.parametrize(
    "text", ["unter 089 1234567", "büro (030) 12 34 56-78", "au 01 23 45 67 89", "044/668 18 00 ab"]
)
def test_a_number_in_another_countrys_form_stays_and_is_counted_with_what_to_set(text: str) -> None:
    counts: Counter[str] = Counter()
    assert Personal().apply(text, counts) == text and counts == {"phone_elsewhere": 1}
    assert "1 numbers are written like telephones of another country than US" in advise_region(counts, "US")
    assert not advise_region({"phone": 3}, "US")
    for region in ("DE", "CH", "FR"):  # where numbers have a 0 before them, what fits none is not asked about
        assert "phone_elsewhere" not in [kind for kind, _, _ in Personal(region=region).find(text)]
    assert not Personal(policies={"phone": "keep"}).find(text)


@pytest.mark.parametrize(
    "text", ["am 01 02 2024 um 10", "0815 4711", "order 0012345678", "0.123456789", "room 012 34 56"]
)
def test_a_date_or_a_short_number_is_no_telephone_of_another_country(text: str) -> None:
    assert not Personal().find(text)


@pytest.mark.parametrize("region", ["de", "Germany", "DEU", "", "49"])
def test_a_region_that_is_no_countrys_letters_is_refused_before_anything_is_read(region: str) -> None:
    with pytest.raises(ConfigError, match="phone_region is a country's two capital letters, such as DE; got"):
        TextSettings(phone_region=region)


@pytest.mark.parametrize("region", ["XX", "UK"])
def test_a_region_without_a_numbering_plan_is_refused(region: str) -> None:
    with pytest.raises(ConfigError, match=f"phone_region: no country '{region}' has a numbering plan"):
        Personal(region=region)
