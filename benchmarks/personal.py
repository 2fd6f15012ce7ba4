"""Precision and recall of the search for personal data, on texts generated with known contents, beside presidio.

    python benchmarks/personal.py [--records 4000] [--name-model en_core_web_sm] [--plain FILE ...]

    python benchmarks/personal.py --alone      # no Faker, no presidio: telephone numbers of all countries, hard negatives

Faker makes the data, by its own rules; hard negatives are numbers that look alike. `--plain` names files without
personal data (JSONL, JSON, CSV): whatever is found there is a false alarm. Needs `pip install faker presidio-analyzer`.
`--alone` takes numbers of every country in the forms of libphonenumber's own metadata, and mathematics, code, logs,
tables and references with random numbers in them, in which nothing is to be found.
"""

import argparse
import logging
import platform
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import phonenumbers

from mixtune.sanitize.reading.readers import read_rows
from mixtune.sanitize.rules.pii import Finding, Personal

SEED = 7
SENTENCES = {
    "email": ("Write to {}.", "cc: <{}>;", "{} wrote:", "mailto:{}"),
    "phone": ("Call me on {} after six.", "Tel. {}", "fax={}", "You can reach us: {}, any day."),
    "card": ("My card {} was declined.", "PAN {};", "paid with {} in May"),
    "iban": ("Transfer it to {} please.", "IBAN:{}", "account {}, thanks"),
    "ssn": ("SSN {}.", "her number is {} and", "({})"),
    "national_id": ("ID {} was checked.", "documento {}", "number: {},"),
    "ip": ("from {} port 22", "[{}] refused", "host={}"),
    "secret": ("export TOKEN={}", '"key": "{}"', "the key {} leaked"),
    "medical_record": ("{} was admitted.", "see {}.", "({})"),
    "name": ("I spoke with {} about it.", "Regards, {}", "Dear {}, thank you."),
    "address": ("It was sent to {} yesterday.", "I live at {}."),
}
NEGATIVES = (
    "Order {d8} shipped on 2024-0{d1}-1{d1}.", "pi is 3.14159{d8}", "version 10.{d1}.{d2}", "{d2}:{d2}:{d2} UTC", "ISBN 978-3-16-{d6}-0",
    "commit {hex}", "costs ${d3},{d3}.{d2} or {d2} %", "rows {d3}-{d3}-{d3}", "x = {d2} * {d3} + {d4}", "card ending in {d4}",
    "user@localhost and @handle{d2}", "http://example.com/a?id={d6}", "std::vector<int>::size", "GB{d2} and IBAN are words",
    "ticket #{d6} of {d4}", "lat {d2}.{d6}, lon -{d2}.{d6}", "invoice 2023/{d4}-{d2}", "0x{hex}", "127.0.0.1:{d4}", "MRN is an acronym",
)  # fmt: skip


INTRODUCED = (
    "Phone: {}",
    "call me at {}",
    "My mobile number is {}.",
    "Telefon: {}",
    "Tél. : {}",
    "fax={};",
    "WhatsApp {}",
    "手机：{}",
)
HARD: dict[str, tuple[str, ...]] = {
    "mathematics": ("{d10}+{d10}=?", "What is {d12} - {d11}?", "Compute {d8} * {d9}.", "x = {d10} / {d3}", "{d4}^{d2} mod {d9}", "({d8}) + ({d8}) = {d9}",
                    "Solve {d3}x + {d4} = {d9}", "round({d3}.{d9})", "Add {d10} and {d10}", "{d11} ÷ {d3} ≈ {d8}.{d2}", "sum: {d9}, {d9}, {d9}"),
    "code": ("x = [{d8}, {d9}, {d10}]", "id: int = {d12}", "assert f({d10}) == {d8}", "0x{hex} & 0x{hex}", "std::{d2}::map<int>", "return {d4}-{d4}-{d4}",
             "git clone git@host.org:org/repo{d3}.git", "sha256:{hex}{hex}", "time.sleep({d8}e-{d1})", "PORT={d4} ./run --seed {d10}", "lib-{d1}.{d2}.{d1}.{d2}.tar.gz"),
    "logs": ("2024-0{d1}-1{d1} 10:{d2}:{d2},{d3} INFO pid={d8}", "[{d10}.{d6}] usb {d1}-{d1}: new device", "took {d9} ns, {d8} bytes", "request_id={hex} status={d3}",
             "GET /items/{d10}?page={d2} HTTP/1.1", "version 10.{d1}.{d2}.{d1}", "offset {d12} lag {d8}", "0.0.0.0:{d4}", "heap {d9}K->{d9}K({d10}K)"),
    "tables": ("| {d4} {d4} | {d4} {d4} |", "{d8}\t{d9}\t{d10}", "{d3},{d3},{d3} | {d2}.{d2} %", "row {d10}: {d8};{d8}", "1,{d3},{d3}.{d2} EUR", "{d9} {d9} {d9}"),
    "references": ("ISBN 978-3-16-{d6}-0", "section {d1}.{d1}.{d1}.{d1}", "order {d10} of {d2}", "ticket #{d9}", "§ {d3} Abs. {d1}", "doi:10.{d4}/{d8}", "invoice 2023/{d6}-{d2}",
                   "lat {d2}.{d6}, lon -{d2}.{d6}", "article {d8}", "RFC {d4}.{d2}", "arXiv:{d4}.{d5}", "EAN {d13}", "tracking no {d12}"),
    "numbers of things": ("Order {rut} has shipped.", "Invoice no. 2{d1}-{d8}-{d1}", "part #{d8}{letter}", "Artikelnummer: AB{d6}C", "Your ticket is {rut}",
                          "tracking code {d4} {d4} {d4}", "pedido {d3}.{d3}.{d3}-{d2}", "serial no. 1{d13}", "SKU {d6}-{d3}{letter}", "batch {d2}.1{d1}.2{d1}-{d3}.{d2}"),
}  # fmt: skip
"""Texts in which nothing is personal; `{d9}` is a number of nine digits."""


def alone(number: int) -> None:
    """Print recall of telephone numbers of all countries, and alarms in texts without personal data."""
    personal, rng, rows = Personal(), random.Random(SEED), {}
    kinds = phonenumbers.PhoneNumberType
    for title, form in (("national", phonenumbers.PhoneNumberFormat.NATIONAL), ("international", phonenumbers.PhoneNumberFormat.INTERNATIONAL),
                        ("E.164", phonenumbers.PhoneNumberFormat.E164)):  # fmt: skip
        for kind in (kinds.MOBILE, kinds.FIXED_LINE):
            for region in phonenumbers.SUPPORTED_REGIONS:
                example = phonenumbers.example_number_for_type(region, kind)
                datum = phonenumbers.format_number(example, form) if example else ""
                if sum(map(str.isdecimal, datum)) < 7:
                    continue
                for place in INTRODUCED:
                    row = rows.setdefault(title, [0, 0, set()])
                    row[0] += 1
                    row[1] += personal.apply(place.format(datum), Counter()) == place.format("[PHONE]")
                    row[2].add(region)
    print("\n| telephone numbers, introduced | countries | texts | found whole |\n|---|---|---|---|")
    for title, (total, whole, regions) in rows.items():
        print(f"| {title} | {len(regions)} | {total:,} | {whole / total:.3f} |")
    print("\n| nothing personal | texts | with an alarm | kinds |\n|---|---|---|---|")
    for title, forms in HARD.items():
        alarms, total = Counter[str](), 0
        for _ in range(number):
            digits = {f"d{n}": str(rng.randrange(10 ** (n - 1), 10**n)) for n in range(1, 14)}
            digits |= {"hex": f"{rng.randrange(16**12):012x}", "letter": rng.choice("ABCDEFGHJKLMNPQRSTVWXYZ")}
            digits["rut"] = f"1{digits['d1']}.{digits['d3']}.{digits['d3'][::-1]}-{rng.randrange(10)}"
            found = {kind for kind, _, _ in personal.find(rng.choice(forms).format(**digits))}
            alarms.update(found)
            total += bool(found)
        print(f"| {title} | {number:,} | {total} | {dict(alarms) or ''} |")


def make_values(seed: int) -> dict[str, Callable[[], str]]:
    """A maker of data by kind."""
    from faker import Faker

    Faker.seed(seed)
    rng = random.Random(seed)
    fakes = {place: Faker(place) for place in ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "pt_BR", "pl_PL")}
    us = fakes["en_US"]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

    def some(number: int) -> str:
        return "".join(rng.choices(letters, k=number))

    def spaced(text: str) -> str:
        return " ".join(text[at : at + 4] for at in range(0, len(text), 4)) if rng.random() < 0.5 else text

    ids = (fakes["es_ES"].nif, fakes["es_ES"].nie, fakes["it_IT"].ssn, fakes["pt_BR"].cpf, fakes["fr_FR"].ssn, fakes["en_GB"].ssn,
           lambda: f"PESEL {fakes['pl_PL'].pesel()}")  # fmt: skip
    return {
        "email": lambda: rng.choice((us.email, us.company_email, us.free_email))(),
        "phone": lambda: rng.choice((us.basic_phone_number, lambda: f"+44 20 7{rng.randrange(10**6, 10**7)}", lambda: f"+49 170 {rng.randrange(10**6, 10**7)}"))(),
        "card": lambda: spaced(us.credit_card_number(rng.choice(("visa16", "mastercard", "amex", "discover")))),
        "iban": lambda: spaced(rng.choice((fakes["de_DE"], fakes["fr_FR"], fakes["en_GB"], fakes["it_IT"])).iban()),
        "ssn": us.ssn,
        "national_id": lambda: rng.choice(ids)(),
        "ip": lambda: rng.choice((us.ipv4_public, us.ipv6))(),
        "secret": lambda: rng.choice((lambda: "ghp_" + some(36), lambda: "AKIA" + some(16).upper(), lambda: "sk-" + some(40), us.password))(),
        "medical_record": lambda: f"{rng.choice(('MRN', 'MRN:', 'Medical record number', 'mrn #'))} {rng.randrange(10**6, 10**8)}",
        "name": us.name,
        "address": lambda: us.address().replace("\n", ", "),
    }  # fmt: skip


def make_texts(number: int, kinds: list[str]) -> Iterator[tuple[str, list[Finding]]]:
    """Texts of some sentences, and what is in them: kind, start, end."""
    rng, values = random.Random(SEED), make_values(SEED)
    for _ in range(number):
        text, found = "", []
        for _ in range(rng.randint(2, 6)):
            kind = rng.choice([*kinds, "", ""])
            if not kind:
                digits = {f"d{n}": str(rng.randrange(10 ** (n - 1), 10**n)) for n in (1, 2, 3, 4, 6, 8)}
                text += rng.choice(NEGATIVES).format(hex=f"{rng.randrange(16**12):012x}", **digits) + " "
                continue
            before, after = rng.choice(SENTENCES[kind]).split("{}")
            value = values[kind]()
            start = len(text) + len(before)
            start += 6 if kind == "national_id" and value.startswith("PESEL ") else 0
            text += f"{before}{value}{after} "
            found.append((kind, start, len(text) - len(after) - 1))
        yield text, found


def score(
    texts: list[tuple[str, list[Finding]]], find: Callable[[str], list[Finding]]
) -> tuple[dict[str, list[int]], float]:
    """By kind: planted, found of these, alarms, true alarms; and the CPU seconds."""
    out: dict[str, list[int]] = {}
    seconds = 0.0
    for text, planted in texts:
        start = time.process_time()
        found = find(text)
        seconds += time.process_time() - start
        for kind, begin, end in planted:
            row = out.setdefault(kind, [0, 0, 0, 0])
            row[0] += 1
            row[1] += any(one == kind and a < end and begin < b for one, a, b in found)
        for kind, begin, end in found:
            row = out.setdefault(kind, [0, 0, 0, 0])
            row[2] += 1
            row[3] += any(a < end and begin < b for _, a, b in planted)
    return out, seconds


def presidio_finder() -> Callable[[str], list[Finding]]:
    """Presidio's own pattern recognisers for the kinds that both know, its default threshold."""
    from presidio_analyzer import predefined_recognizers as known

    pairs = {"email": known.EmailRecognizer(), "phone": known.PhoneRecognizer(), "card": known.CreditCardRecognizer(),
             "iban": known.IbanRecognizer(), "ssn": known.UsSsnRecognizer(), "ip": known.IpRecognizer()}  # fmt: skip

    logging.disable()  # its list of top-level domains is not there offline

    def find(text: str) -> list[Finding]:
        found = []
        for kind, recognizer in pairs.items():
            results = recognizer.analyze(text, recognizer.supported_entities, None) or []
            found += [(kind, item.start, item.end) for item in results if item.score >= 0.3]
        return found

    find("warm up a@b.com")
    return find


def show(title: str, rows: dict[str, list[int]], mbs: float) -> None:
    """A table in Markdown."""
    print(
        f"\n{title}: {mbs:.2f} MB per CPU-second\n\n| kind | planted | recall | alarms | precision |\n|---|---|---|---|---|"
    )
    rows = {kind: row for kind, row in rows.items() if row[1] or row[2]}
    total = [sum(column) for column in zip(*rows.values(), strict=True)]
    for kind, (planted, hit, alarms, right) in [*sorted(rows.items()), ("all", total)]:
        recall = f"{hit / planted:.3f}" if planted else "-"
        print(f"| {kind} | {planted:,} | {recall} | {alarms:,} | {right / alarms if alarms else 1:.3f} |")


def count_false_alarms(files: list[Path], personal: Personal) -> None:
    """What is found in texts that hold nothing personal."""
    print("\n| file without personal data | million characters | found |\n|---|---|---|")
    for file in files:
        texts = [str(value) for row in read_rows(str(file)) for value in row.value.values()]
        found = Counter(kind for text in texts for kind, _, _ in personal.find(text))
        print(f"| {file.parent.name}/{file.name} | {sum(map(len, texts)) / 1e6:.2f} | {dict(found)} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--name-model", default="")
    parser.add_argument("--plain", type=Path, nargs="*", default=[])
    parser.add_argument("--alone", action="store_true")
    options = parser.parse_args()
    if options.alone:
        alone(options.records)
        return
    fast = [kind for kind in SENTENCES if kind not in ("name", "address")]
    texts = list(make_texts(options.records, fast))
    size = sum(len(text) for text, _ in texts) / 1e6
    print(f"{date.today()}, {platform.machine()}, one core; {options.records:,} texts, {size:.2f} MB, seed {SEED}")
    for title, find in (("mixtune", Personal().find), ("presidio, pattern recognisers", presidio_finder())):
        rows, seconds = score(texts, find)
        show(title, rows, size / seconds)
    if options.name_model:
        texts = list(make_texts(options.records // 20, ["name", "address", "email"]))
        size = sum(len(text) for text, _ in texts) / 1e6
        slow = Personal(policies={"name": "redact", "address": "redact"}, name_model=options.name_model)
        slow.find("warm up")
        rows, seconds = score(texts, slow.find)
        show(f"mixtune with names and addresses ({options.name_model})", rows, size / seconds)
    count_false_alarms(options.plain, Personal())


if __name__ == "__main__":
    main()
