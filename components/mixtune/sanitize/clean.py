"""A part of a file to clean records: read, map, normalise, rewrite; every row is kept, or dropped for a reason."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import Any

from ahocorasick_rs import BytesAhoCorasick

from mixtune.errors import ConfigError, DataError
from mixtune.records import Message, Record, content_id
from mixtune.sanitize.reading.readers import WHOLE, Range, Row, read_rows
from mixtune.sanitize.reading.schemas import Mapper, find_mapper, to_record
from mixtune.sanitize.rules.consent import Consent
from mixtune.sanitize.rules.markers import Markers, strip_end_token
from mixtune.sanitize.rules.normalize import ALSO, normalise, suspects, tidy
from mixtune.sanitize.rules.pii import Personal
from mixtune.sanitize.rules.record_texts import Refused, all_texts, check_emptied, check_empty, is_blank, replace_texts
from mixtune.sanitize.rules.text_batch import join_texts

NOTED_PER_RULE = 1000
"""Lines noted in the quarantine per rule and part for records that were changed; those dropped are all noted."""
EARLY_ROWS = 2000
"""Rows of a part after which a share of unusable ones above `max_bad_ratio` stops the run, not at the file's end."""
EXAMPLES_PER_RULE = 3
"""Examples kept per rule and part, personal data hidden."""
BATCH = 256
"""Records that are scanned together,"""
BATCH_CHARACTERS = 2**22
"""or fewer, of so many characters."""
_AROUND = 60


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is done to records, whatever their source."""

    markers: Markers = field(default_factory=Markers)
    personal: Personal = field(default_factory=Personal)
    consent: Consent = field(default_factory=Consent)
    also: tuple[str, ...] = ()
    """Normalisation on request: `quotes`, `spaces`."""
    control_tokens: tuple[str, ...] = ()
    """The base model's own control tokens, counted here and made harmless when tokenizing."""
    max_bad_ratio: float = 0.05
    """Share of a file's rows that may be unreadable or no conversation, 0 to 1; above it the run stops: at the file's
    end, or earlier where it holds for the first EARLY_ROWS or more of one of its parts."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_bad_ratio <= 1:
            raise ConfigError(f"max_bad_ratio is a share, 0 to 1; got {self.max_bad_ratio}")
        if unknown := sorted(set(self.also) - set(ALSO)):
            raise ConfigError(f"also_normalise: unknown rule {unknown[0]!r}; there are {', '.join(ALSO)}")


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file of one source, or a part of it."""

    pool: str
    split: str
    uri: str
    columns: dict[str, str]
    part: Range = WHOLE
    digest: str = ""
    """What the source's bytes are; empty where nothing is kept for another run."""

    @cached_property
    def name(self) -> str:
        """The file's name, as records' origins have it."""
        return self.uri.rsplit("/", 1)[-1]


@dataclass(kw_only=True)
class Tally:
    """What became of rows."""

    read: int = 0
    schema: str = ""
    first_bad: str = ""
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    """Control tokens of the base model, by token."""
    personal: Counter[str] = field(default_factory=Counter)
    """Personal data, by kind."""
    consent: Counter[str] = field(default_factory=Counter)
    """Records by what was said on consent."""
    labels_read: Counter[str] = field(default_factory=Counter)
    """Records by label, before any was dropped."""
    examples: dict[str, list[list[str]]] = field(default_factory=dict)
    """Place, text before and text after, by rule."""

    @property
    def kept(self) -> int:
        """Rows that are records now."""
        return self.read - sum(self.dropped.values())


Rule = Callable[[str, Counter[str]], str]
_Mapped = tuple[Row, Record | Exception, list[str]]
_Unusable = (Refused, DataError, LookupError, TypeError, AttributeError, ValueError, RecursionError)
"""What rows raise that are no records, or none that may be kept."""


class Cleaner:
    """Cleans the rows of one part of a file."""

    def __init__(self, source: SourceFile, rules: Rules) -> None:
        self.source, self.rules, self.tally = source, rules, Tally()
        self.notes: list[bytes] = []
        self._noted: Counter[str] = Counter()
        self._mapper: Mapper | None = None

    def records(self) -> Iterator[Record]:
        """The records that are kept, in order."""
        for batch in self._batches():
            suspects, dirty, personal = self._suspects(batch)
            for number, (row, made, _) in enumerate(batch):
                self.tally.read += 1
                if isinstance(made, Exception):
                    self._refuse(row, made)
                    continue
                try:
                    if number in suspects:
                        self._clean(made, dirty, personal)
                    check_empty(made["messages"])
                    made["id"] = content_id(made["messages"], made.get("tools"))
                except _Unusable as error:
                    self._refuse(row, error)
                    continue
                yield made

    def _batches(self) -> Iterator[list[_Mapped]]:
        """Rows, what they are as records (or why they are none) and their texts, some at once."""
        batch, size = list[_Mapped](), 0
        for row in read_rows(self.source.uri, self.source.part):
            made: Record | Exception
            texts: list[str] = []
            try:
                made = self._map(row)
                texts = all_texts(made)
                size += sum(map(len, texts))
                for text in texts:
                    if not text.isascii():
                        text.encode()
            except _Unusable as error:
                made, texts = error, []
            batch.append((row, made, texts))
            if len(batch) == BATCH or size > BATCH_CHARACTERS:
                yield batch
                batch, size = list[_Mapped](), 0
        if batch:
            yield batch

    def _refuse(self, row: Row, reason: Exception) -> None:
        """Drop a row, for a reason that a rule or the data gave; where the job is to blame, stop."""
        if isinstance(reason, ConfigError):
            raise reason
        if isinstance(reason, Refused):
            self._drop(row.line, str(reason))
        elif isinstance(reason, DataError):
            self._bad(row, str(reason))
        elif isinstance(reason, UnicodeEncodeError):
            self._bad(row, "half a surrogate pair")
        elif "ecursion" in str(reason):
            self._bad(row, "nested too deep")
        else:
            at = f" at {reason}" if isinstance(reason, KeyError) else ""
            self._bad(row, f"not as the file's first row ({type(reason).__name__}{at})")

    def _map(self, row: Row) -> Record:
        if row.problem:
            raise DataError(row.problem)
        if self._mapper is None:
            first = row.value if self.source.part.start == 0 else _first_value(self.source.uri)
            try:
                self.tally.schema, self._mapper = find_mapper(first, self.source.columns)
            except ConfigError as error:  # it lists the columns, which are data where a file has no header
                raise ConfigError(self.rules.personal.hide(str(error))) from None
        record = to_record(self._mapper(row.value), self.source.name, row.line)
        if verdict := self.rules.consent.verdict(record):
            self.tally.consent[verdict] += 1
            if verdict != "granted":
                raise Refused(f"consent {verdict}")
            record["consent"] = verdict
        if "label" in record:
            self.tally.labels_read[record["label"]] += 1
        if "group" in record:
            record["group"] = hashlib.sha256(record["group"].encode(errors="surrogatepass")).hexdigest()[:16]
        return record

    def _suspects(self, batch: list[_Mapped]) -> tuple[set[int], set[str], set[str]]:
        """What a rule may change, by one scan of each rule over all texts of a batch: surely, it changes no others.

        Returns:
            The numbers of the records, their texts to be normalised or rewritten, and those with personal data.
        """
        owners = [number for number, (_, _, texts) in enumerate(batch) for _ in texts]
        texts = join_texts([text for _, _, texts in batch for text in texts])
        if tokens := self.rules.control_tokens:
            found = _finder(tokens).find_matches_as_indexes(texts.joined, overlapping=True)
            self.tally.found.update(tokens[place] for place, _, _ in found)
        dirty = set(range(len(owners))) if self.rules.also else suspects(texts) | self.rules.markers.suspects(texts)
        personal = self.rules.personal.suspects(texts)
        return (
            {owners[number] for number in dirty | personal},
            {texts.texts[number] for number in dirty},
            {texts.texts[number] for number in personal},
        )

    def _clean(self, record: Record, dirty: set[str], personal: set[str]) -> None:
        """Apply the rules to those texts of a record that are suspect."""
        counts: Counter[str] = Counter()
        had = [not is_blank(message["content"]) for message in record["messages"]]
        replace_texts(record, self._clean_by(dirty, personal, counts, record))
        self._check_markers(record, counts)
        record["messages"] = [_without_end_token(message, counts) for message in record["messages"]]
        check_emptied(record["messages"], had)
        for rule in counts:
            self._changed(record["origin"]["line"], rule)

    def _clean_by(
        self, dirty: set[str], personal: set[str], counts: Counter[str], record: Record
    ) -> Callable[[str], str]:
        def apply(name: str, rule: Rule, text: str) -> str:
            found: Counter[str] = Counter()
            changed = rule(text, found)
            for key, number in found.items():
                counts[name + key] += number
                self._example(name + key, record, text, changed)
            return changed

        def clean(text: str) -> str:
            if text not in dirty:
                return apply("personal data ", self._personal, text) if text in personal else text
            before = None
            while text != before:  # a marker's removal can leave what is to be composed or mended, and that a marker
                before = text
                text = apply("", normalise, text)
                text = apply("", partial(tidy, rules=self.rules.also), text) if self.rules.also else text
                text = apply("marker ", self.rules.markers.rewrite, text)
            return apply("personal data ", self._personal, text)

        return clean

    def _personal(self, text: str, counts: Counter[str]) -> str:
        changed = self.rules.personal.apply(text, counts)
        self.tally.personal.update(counts)
        for kind in counts:
            if self.rules.personal.policy(kind) == "drop":
                raise Refused(f"personal data: {kind}")
        return changed

    def _check_markers(self, record: Record, counts: Counter[str]) -> None:
        marker = next((key.removeprefix("marker ") for key in counts if key.startswith("marker ")), "")
        if marker and self.rules.markers.mode == "fail":
            at = f"{self.source.name} line {record['origin']['line']}"
            raise ConfigError(f"{at}: reserved marker {marker!r}; rewrite it, or choose another markers mode")
        if marker and self.rules.markers.mode == "drop":
            raise Refused("reserved marker")

    def _example(self, rule: str, record: Record, before: str, after: str) -> None:
        examples = self.tally.examples.setdefault(rule, [])
        if before != after and len(examples) < EXAMPLES_PER_RULE and not self._hidden_by_form(before):
            at = next((n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(after))
            start, end = max(0, at - _AROUND), at + _AROUND
            place = f"{self.source.name} line {record['origin']['line']}"
            hidden, changed = (self.rules.personal.hide(text) for text in (before, after))
            examples.append([place, hidden[start:end], changed[start : max(at, end + len(changed) - len(hidden))]])

    def _hidden_by_form(self, text: str) -> bool:
        """Whether personal data shows only once a text is clean (`jane<unk>@x.org`): then it is no example."""
        plain = self.rules.markers.rewrite(normalise(text, Counter()), Counter())
        return self.rules.personal.hide(plain).count("[") != self.rules.personal.hide(text).count("[")

    def _bad(self, row: Row, reason: str) -> None:
        reason = self.rules.personal.hide(reason)
        self.tally.first_bad = self.tally.first_bad or f"line {row.line}: {reason}"
        self.tally.dropped["unreadable"] += 1
        self._note(row.line, "dropped", reason)
        if self.tally.read >= EARLY_ROWS:
            check_bad(self.source.uri, [self.tally], self.rules.max_bad_ratio)

    def _drop(self, line: int, reason: str) -> None:
        self.tally.dropped[reason] += 1
        self._note(line, "dropped", reason)

    def _changed(self, line: int, rule: str) -> None:
        self.tally.changed[rule] += 1
        self._noted[rule] += 1
        if self._noted[rule] <= NOTED_PER_RULE:
            self._note(line, "changed", rule)

    def _note(self, line: int, what: str, rule: str) -> None:
        self.notes.append(note_line(self.source.pool, self.source.name, line, what, rule))


def note_line(pool: str, file: str, line: int, what: str, rule: str, copy_of: str = "") -> bytes:
    """A line of the quarantine file."""
    value = {"pool": pool, "file": file, "line": line, "what": what, "rule": rule}
    value |= {"copy_of": copy_of} if copy_of else {}
    return (json.dumps(value, ensure_ascii=False) + "\n").encode()


def check_bad(uri: str, tallies: list[Tally], max_bad_ratio: float) -> None:
    """Check a file's share of rows that cannot be used.

    Raises:
        DataError: No rows, or more of them than `max_bad_ratio`.
    """
    bad, total = sum(tally.dropped["unreadable"] for tally in tallies), sum(tally.read for tally in tallies)
    if total == 0:
        raise DataError(f"{uri}: no rows in it")
    if bad > max_bad_ratio * total:
        first = next(tally.first_bad for tally in tallies if tally.first_bad)
        raise DataError(
            f"{uri}: {bad} of {total} rows cannot be used, more than max_bad_ratio {max_bad_ratio:g}; "
            f"the first: {first}"
        )


@lru_cache(maxsize=1)
def _finder(tokens: tuple[str, ...]) -> BytesAhoCorasick:
    return BytesAhoCorasick([token.encode() for token in tokens])


def _first_value(uri: str) -> dict[str, Any]:
    return next((row.value for row in read_rows(uri) if not row.problem), {})


def _without_end_token(message: Message, counts: Counter[str]) -> Message:
    content = message["content"]
    if message["role"] != "assistant" or (stripped := strip_end_token(content)) == content:
        return message
    counts["end token at the end of an answer"] += 1
    return {**message, "content": stripped}
