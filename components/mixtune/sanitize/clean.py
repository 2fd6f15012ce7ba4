"""A part of a file to clean records: read, map, normalise, rewrite; every row is kept, or dropped for a reason."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from itertools import islice
from json.encoder import encode_basestring as _quoted
from typing import NamedTuple

from ahocorasick_rs import BytesAhoCorasick

from mixtune.errors import ConfigError, DataError
from mixtune.records import Message, Record, content_id
from mixtune.sanitize.reading.readers import read_rows, split_of
from mixtune.sanitize.reading.row import WHOLE, Range, Row
from mixtune.sanitize.reading.schemas import Schema, find_schema
from mixtune.sanitize.reading.values import JsonObject
from mixtune.sanitize.rules.consent import Consent
from mixtune.sanitize.rules.markers import Markers, strip_end_token
from mixtune.sanitize.rules.normalize import normalise, suspects, tidy
from mixtune.sanitize.rules.pii import Personal
from mixtune.sanitize.rules.record_texts import Refused, all_texts, check_emptied, check_empty, is_blank, replace_texts
from mixtune.sanitize.rules.text_batch import join_texts

NOTED_PER_RULE = 1000
"""Quarantine lines per rule and part for records that were changed; those dropped are all noted."""
EARLY_ROWS = 2000
"""Rows of a part after which a share of unusable ones above `max_bad_ratio` stops the run, not at the file's end."""
REASONS = 100
"""Reasons of unusable rows that are told apart in a part; further ones are"""
OTHER_REASONS = "of another kind"
NAMED_REASONS = 3
"""Reasons that a message names, the commonest first."""
EXAMPLES_PER_RULE = 3
"""Examples kept per rule and part, personal data hidden."""
UNLEARNED = "turns that are context alone, by their weight"
"""Rule under which records with such turns are counted."""
BATCH = 256
"""Records that are scanned together,"""
BATCH_CHARACTERS = 2**22
"""or fewer, of so many characters."""
_CONTEXT = 60
"""Characters of an example before and after the first one that changed."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The rules for records, whatever their source, ready to be applied."""

    markers: Markers = field(default_factory=Markers)
    personal: Personal = field(default_factory=Personal)
    consent: Consent = field(default_factory=Consent)
    also: tuple[str, ...] = ()
    """Normalisation on request: `quotes`, `spaces`."""
    control_tokens: tuple[str, ...] = ()
    """The base model's control tokens, counted here and made harmless when tokenizing."""
    max_bad_ratio: float = 0.05
    encoding: str = ""
    """See `settings.sanitize.TextSettings`."""


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file of one source, or a part of it."""

    pool: str
    split: str
    uri: str
    columns: dict[str, str]
    part: Range = WHOLE
    digest: str = ""
    """Of the source's bytes; empty where no part is kept for another run."""

    @cached_property
    def name(self) -> str:
        """The file's name, as records' origins have it."""
        return self.uri.rsplit("/", 1)[-1]


@dataclass(kw_only=True)
class Tally:
    """Counts of a part's rows."""

    read: int = 0
    schema: str = ""
    unusable: Counter[str] = field(default_factory=Counter)
    """Rows that cannot be used, by why."""
    first_lines: dict[str, int] = field(default_factory=dict)
    """Line of the first of them, by why."""
    unread: Counter[str] = field(default_factory=Counter)
    """Rows by the name of a field that is there and is not read."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Rows by reason."""
    changed: Counter[str] = field(default_factory=Counter)
    """Records by rule."""
    control_tokens: Counter[str] = field(default_factory=Counter)
    """Occurrences of the base model's control tokens."""
    personal: Counter[str] = field(default_factory=Counter)
    """Personal data, by kind."""
    consent: Counter[str] = field(default_factory=Counter)
    """Records by verdict on consent."""
    labels_read: Counter[str] = field(default_factory=Counter)
    """Records by label, before any was dropped."""
    examples: dict[str, list[list[str]]] = field(default_factory=dict)
    """By rule: place, text before and text after."""

    @property
    def kept(self) -> int:
        """Rows that are records now."""
        return self.read - sum(self.dropped.values())


class _Mapped(NamedTuple):
    """A row, mapped but not yet clean."""

    row: Row
    record: Record | Exception
    """The exception says why there is none."""
    texts: list[str]


Rule = Callable[[str, Counter[str]], str]
"""Takes a text and counts of its findings; returns the changed text."""
UNUSABLE = (Refused, DataError, LookupError, TypeError, AttributeError, ValueError, RecursionError)
"""What rows raise that are no records, or none that may be kept."""


class Cleaner:
    """Cleans the rows of one part of a file."""

    def __init__(self, source: SourceFile, rules: Rules) -> None:
        self.source, self.rules, self.tally = source, rules, Tally()
        self.notes: list[bytes] = []
        self._noted: Counter[str] = Counter()
        self._schema: Schema | None = None

    def records(self) -> Iterator[Record]:
        """Yield the records that are kept, in order."""
        for batch in self._batches():
            suspicious, dirty, personal = self._scan(batch)
            for number, item in enumerate(batch):
                self.tally.read += 1
                record = item.record
                try:
                    if isinstance(record, Exception):
                        raise record
                    if number in suspicious:
                        self._clean(record, dirty, personal)
                    check_empty(record["messages"])
                    if "label" in record:  # a rule may have left a space at its end
                        record["label"] = _spell_label(record["label"])
                    record["id"] = content_id(record["messages"], record.get("tools"))
                except UNUSABLE as error:
                    self._refuse(item.row, error)
                    continue
                yield record

    def _batches(self) -> Iterator[list[_Mapped]]:
        """Yield rows in batches of bounded size."""
        batch, size = list[_Mapped](), 0
        for row in read_rows(self.source.uri, self.source.part, self.rules.encoding):
            try:
                record = self._map(row)
                texts = all_texts(record)
                size += sum(map(len, texts))
                for text in texts:
                    if not text.isascii():
                        text.encode()  # raises for half a surrogate pair
                batch.append(_Mapped(row, record, texts))
            except UNUSABLE as error:
                batch.append(_Mapped(row, error, []))
            if len(batch) == BATCH or size > BATCH_CHARACTERS:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _map(self, row: Row) -> Record:
        if row.problem:
            raise DataError(row.problem)
        if self._schema is None:
            try:
                of_file = self._schema_of_file if self.source.part.start else None
                self._schema = of_file or find_schema(row.value, self.source.columns)
            except ConfigError as error:  # it lists the columns, which are data where a file has no header
                raise ConfigError(f"{self.source.name}: {self.rules.personal.hide(str(error))}") from None
            self.tally.schema = self._schema.name
        value = self._of_split(row.value) if "split" in row.value and not self.source.columns else row.value
        record = self._schema.record(value, self.source.name, row.line, self.tally.unread)
        if verdict := self.rules.consent.verdict(record):
            self.tally.consent[verdict] += 1
            if verdict != "granted":
                raise Refused(f"consent {verdict}")
            record["consent"] = verdict
        for message in record["messages"]:
            if len(message) > 2 and "learn" in message:
                self.tally.changed[UNLEARNED] += 1
                break
        if "label" in record:
            if (label := _spell_label(record["label"])) != record["label"]:
                self.tally.changed["spaces or accents of a label"] += 1
                record["label"] = label
            self.tally.labels_read[record["label"]] += 1
        if "group" in record:
            record["group"] = hashlib.sha256(record["group"].encode(errors="surrogatepass")).hexdigest()[:16]
        return record

    @cached_property
    def _schema_of_file(self) -> Schema | None:
        """The schema of the first row that has one, as the file's first part finds it."""
        for row in islice((row for row in read_rows(self.source.uri) if not row.problem), EARLY_ROWS):
            try:
                return find_schema(row.value, self.source.columns)
            except ConfigError:
                raise
            except UNUSABLE:
                continue
        return None

    def _of_split(self, value: JsonObject) -> JsonObject:
        """Return a row without the column that says its split; refuse a row of another split than the source's."""
        name = value["split"]
        if not isinstance(name, str) or not (split := split_of(name)):
            return value
        if split != self.source.split:
            raise Refused(f"of another split than {self.source.split!r} by its column `split`: {split}")
        return {key: item for key, item in value.items() if key != "split"}

    def _scan(self, batch: list[_Mapped]) -> tuple[set[int], set[str], set[str]]:
        """Scan a batch once per rule for the only texts that the rules can change; there are no false negatives.

        Returned are the numbers of the records, their texts to be normalised or rewritten, and those with personal
        data.
        """
        owners = [number for number, item in enumerate(batch) for _ in item.texts]
        texts = join_texts([text for item in batch for text in item.texts])
        if tokens := self.rules.control_tokens:
            matches = _token_finder(tokens).find_matches_as_indexes(texts.joined, overlapping=True)
            self.tally.control_tokens.update(tokens[index] for index, _, _ in matches)
        dirty = set(range(len(owners))) if self.rules.also else suspects(texts) | self.rules.markers.suspects(texts)
        personal = self.rules.personal.suspects(texts)
        suspicious = {owners[number] for number in dirty | personal}
        return suspicious, {texts.texts[number] for number in dirty}, {texts.texts[number] for number in personal}

    def _clean(self, record: Record, dirty: set[str], personal: set[str]) -> None:
        """Apply the rules to a record's suspicious texts, and count and note what they changed."""
        counts: Counter[str] = Counter()

        def apply(prefix: str, rule: Rule, text: str) -> str:
            findings: Counter[str] = Counter()
            changed = rule(text, findings)
            for name, number in findings.items():
                counts[prefix + name] += number
                self._add_example(prefix + name, record, text, changed)
            return changed

        def clean(text: str) -> str:
            original = text
            if text in dirty:
                before = None
                while text != before:  # removing a marker can leave what is to be composed, and that can be a marker
                    before = text
                    text = apply("", normalise, text)
                    if self.rules.also:
                        text = apply("", partial(tidy, rules=self.rules.also), text)
                    text = apply("marker ", self.rules.markers.rewrite, text)
            if text is original and text not in personal:
                return text
            return apply("personal data ", self._replace_personal, text)

        had_text = [not is_blank(message["content"]) for message in record["messages"]]
        replace_texts(record, clean)
        self._check_markers(record, counts)
        record["messages"] = [_without_end_token(message, counts) for message in record["messages"]]
        check_emptied(record["messages"], had_text)
        for rule in counts:
            self.tally.changed[rule] += 1
            self._noted[rule] += 1
            if self._noted[rule] <= NOTED_PER_RULE:
                self._note(record["origin"]["line"], "changed", rule)

    def _replace_personal(self, text: str, counts: Counter[str]) -> str:
        changed = self.rules.personal.apply(text, counts)
        self.tally.personal.update(counts)
        for kind in counts:
            if self.rules.personal.policy(kind) == "drop":
                raise Refused(f"personal data: {kind}")
        return changed

    def _check_markers(self, record: Record, names: Iterable[str]) -> None:
        marker = next((name.removeprefix("marker ") for name in names if name.startswith("marker ")), "")
        if marker and self.rules.markers.mode == "fail":
            place = f"{self.source.name} line {record['origin']['line']}"
            raise ConfigError(f"{place}: reserved marker {marker!r}; rewrite it, or choose another markers mode")
        if marker and self.rules.markers.mode == "drop":
            raise Refused("reserved marker")

    def _add_example(self, rule: str, record: Record, before: str, after: str) -> None:
        examples = self.tally.examples.setdefault(rule, [])
        if before == after or len(examples) == EXAMPLES_PER_RULE or self._is_hidden_by_form(before):
            return
        pairs = enumerate(zip(before, after, strict=False))
        first = next((index for index, (old, new) in pairs if old != new), len(after))
        start, end = max(0, first - _CONTEXT), first + _CONTEXT
        hidden, changed = (self.rules.personal.hide(text) for text in (before, after))
        place = f"{self.source.name} line {record['origin']['line']}"
        examples.append([place, hidden[start:end], changed[start : max(first, end + len(changed) - len(hidden))]])

    def _is_hidden_by_form(self, text: str) -> bool:
        """Return whether personal data shows only once a text is clean (`jane<unk>@x.org`): then it is no example."""
        plain = self.rules.markers.rewrite(normalise(text, Counter()), Counter())
        return self.rules.personal.hide(plain).count("[") != self.rules.personal.hide(text).count("[")

    def _refuse(self, row: Row, error: Exception) -> None:
        """Drop a row for the reason that a rule or the data gave; where the job is to blame, stop."""
        if isinstance(error, ConfigError):
            raise error
        if isinstance(error, Refused):
            self.tally.dropped[str(error)] += 1
            self._note(row.line, "dropped", str(error))
            return
        reason = self.rules.personal.hide(_describe(error))
        if reason not in self.tally.unusable and len(self.tally.unusable) >= REASONS:
            reason = OTHER_REASONS
        self.tally.unusable[reason] += 1
        self.tally.first_lines.setdefault(reason, row.line)
        self.tally.dropped["unreadable"] += 1
        self._note(row.line, "dropped", reason)
        if self.tally.read >= EARLY_ROWS:
            check_bad(self.source.uri, [self.tally], self.rules.max_bad_ratio)

    def _note(self, line: int, action: str, rule: str) -> None:
        self.notes.append(note_line(self.source.pool, self.source.name, line, action, rule))


def note_line(pool: str, file: str, line: int, action: str, rule: str, copy_of: str = "") -> bytes:
    """Return a line of the quarantine file."""
    start = f'"pool": {_quoted(pool)}, "file": {_quoted(file)}'
    copy = f', "copy_of": {_quoted(copy_of)}' if copy_of else ""
    return f'{{{start}, "line": {line}, "what": {_quoted(action)}, "rule": {_quoted(rule)}{copy}}}\n'.encode()


def _spell_label(label: str) -> str:
    """Return a label with single spaces and composed accents; a blank one as it is."""
    return " ".join(unicodedata.normalize("NFC", label).split()) or label


def check_bad(uri: str, tallies: list[Tally], max_bad_ratio: float) -> None:
    """Check a file's share of rows that cannot be used.

    Raises:
        DataError: No rows, or more unusable ones than `max_bad_ratio`: with the commonest reasons.
    """
    bad, total = sum(tally.dropped["unreadable"] for tally in tallies), sum(tally.read for tally in tallies)
    if total == 0:
        raise DataError(f"{uri}: no rows in it")
    if bad > max_bad_ratio * total:
        raise DataError(
            f"{uri}: {bad} of {total} rows cannot be used, more than max_bad_ratio {max_bad_ratio:g}: "
            f"{describe_unusable(tallies)}; mend the rows, or raise text.max_bad_ratio (of a pipeline: "
            "sanitize_options.text.max_bad_ratio)"
        )


def describe_unusable(tallies: list[Tally]) -> str:
    """Return the commonest reasons of rows that cannot be used, each with their number and the first one's line."""
    counts, lines = Counter[str](), dict[str, int]()
    for tally in tallies:
        counts.update(tally.unusable)
        lines = tally.first_lines | lines
    named = [f"{number:,} {reason} (line {lines[reason]})" for reason, number in counts.most_common(NAMED_REASONS)]
    return "; ".join([*named, *(["..."] if len(counts) > NAMED_REASONS else [])])


@lru_cache(maxsize=1)
def _token_finder(tokens: tuple[str, ...]) -> BytesAhoCorasick:
    return BytesAhoCorasick([token.encode() for token in tokens])


def _describe(error: Exception) -> str:
    """Return why a row is no record."""
    if isinstance(error, DataError):
        return str(error)
    if isinstance(error, UnicodeEncodeError):
        return "half a surrogate pair"
    if "ecursion" in str(error):
        return "nested too deep"
    place = f" at {error}" if isinstance(error, KeyError) else ""
    return f"not as the file's first row ({type(error).__name__}{place})"


def _without_end_token(message: Message, counts: Counter[str]) -> Message:
    content = message["content"]
    if message["role"] != "assistant" or (stripped := strip_end_token(content)) == content:
        return message
    counts["end token at the end of an answer"] += 1
    return {**message, "content": stripped}
