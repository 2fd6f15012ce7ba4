"""A part of a file to clean records: read, map, normalise, rewrite; every row is kept, or dropped for a reason."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ahocorasick_rs import AhoCorasick

from mixtune import storage
from mixtune.errors import ConfigError, DataError
from mixtune.records import Message, Record, content_id
from mixtune.sanitize.consent import Consent
from mixtune.sanitize.markers import Markers, strip_end_token
from mixtune.sanitize.personal import Personal
from mixtune.sanitize.readers import WHOLE, Range, Row, read_rows
from mixtune.sanitize.schemas import Mapper, find_mapper, to_record
from mixtune.sanitize.text import ALSO, has_surrogate, is_clean, normalise, tidy

NOTED_PER_RULE = 1000
"""Lines noted in the quarantine per rule and part for records that were changed; those dropped are all noted."""
EARLY_ROWS = 2000
"""Rows of a part after which a share of unusable ones above `max_bad_ratio` stops the run, not at the file's end."""
EXAMPLES_PER_RULE = 3
"""Examples kept per rule and part, personal data hidden."""
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

    @property
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


class _Refused(Exception):
    """A record is dropped, for a reason."""


class Cleaner:
    """Cleans the rows of one part of a file."""

    def __init__(self, source: SourceFile, rules: Rules) -> None:
        self.source, self.rules, self.tally = source, rules, Tally()
        self.notes: list[bytes] = []
        self._noted: Counter[str] = Counter()
        self._mapper: Mapper | None = None

    def records(self) -> Iterator[Record]:
        """The records that are kept, in order."""
        for row in read_rows(self.source.uri, self.source.part):
            self.tally.read += 1
            try:
                yield self._record(row)
            except _Refused as reason:
                self._drop(row.line, str(reason))
            except DataError as error:
                self._bad(row, str(error))
            except ConfigError:
                raise
            except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
                if "ecursion" in str(error):
                    self._bad(row, "nested too deep")
                    continue
                at = f" at {error}" if isinstance(error, KeyError) else ""
                self._bad(row, f"not as the file's first row ({type(error).__name__}{at})")

    def _record(self, row: Row) -> Record:
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
                raise _Refused(f"consent {verdict}")
            record["consent"] = verdict
        if "label" in record:
            self.tally.labels_read[record["label"]] += 1
        if "group" in record:
            record["group"] = hashlib.sha256(record["group"].encode(errors="surrogatepass")).hexdigest()[:16]
        text = "\n".join(_texts(record))
        if has_surrogate(text):
            raise DataError("half a surrogate pair")
        if tokens := self.rules.control_tokens:
            found = _finder(tokens).find_matches_as_indexes(text, overlapping=True)
            self.tally.found.update(tokens[place] for place, _, _ in found)
        return self._cleaned(record, text)

    def _cleaned(self, record: Record, text: str) -> Record:
        counts: Counter[str] = Counter()
        messages = record["messages"]
        had = [bool(message["content"].strip()) for message in messages]
        if rules := self._needed(text):
            clean = self._clean_by(rules, counts, record)
            messages = [_map_message(message, clean) for message in messages]
            if "tools" in record:
                record["tools"] = _map_texts(record["tools"], clean)
            if "label" in record:
                record["label"] = clean(record["label"])
            self._check_markers(record, counts)
        messages = [_without_end_token(message, counts) for message in messages]
        _check_emptied(messages, had)
        _check_empty(messages)
        for rule in counts:
            self._changed(record["origin"]["line"], rule)
        record["messages"] = messages
        record["id"] = content_id(messages, record.get("tools"))
        return record

    def _needed(self, text: str) -> tuple[bool, bool, bool]:
        """Which of normalisation, markers and personal data have work in a record's texts, by one look at them all."""
        ordinary = not self.rules.also and is_clean(text)
        marked = self.rules.markers.mode != "keep" and (not ordinary or self.rules.markers.may_hold(text))
        look = self.rules.personal
        personal = not ordinary or marked or look.wants_names or bool(look.find(text))
        needed = (not ordinary, marked, personal)
        return needed if any(needed) else ()  # type: ignore[return-value]

    def _clean_by(self, needed: tuple[bool, bool, bool], counts: Counter[str], record: Record) -> Callable[[str], str]:
        normal, marked, personal = needed

        def apply(name: str, rule: Rule, text: str) -> str:
            found: Counter[str] = Counter()
            changed = rule(text, found)
            for key, number in found.items():
                counts[name + key] += number
                self._example(name + key, record, text, changed)
            return changed

        def clean(text: str) -> str:
            before = None
            while text != before:  # a marker's removal can leave what is to be composed or mended, and that a marker
                before = text
                text = apply("", normalise, text) if normal else text
                text = apply("", partial(tidy, rules=self.rules.also), text) if self.rules.also else text
                if marked and self.rules.markers.may_hold(text):
                    text = apply("marker ", self.rules.markers.rewrite, text)
            return apply("personal data ", self._personal, text) if personal else text

        return clean

    def _personal(self, text: str, counts: Counter[str]) -> str:
        changed = self.rules.personal.apply(text, counts)
        self.tally.personal.update(counts)
        for kind in counts:
            if self.rules.personal.policy(kind) == "drop":
                raise _Refused(f"personal data: {kind}")
        return changed

    def _check_markers(self, record: Record, counts: Counter[str]) -> None:
        marker = next((key.removeprefix("marker ") for key in counts if key.startswith("marker ")), "")
        if marker and self.rules.markers.mode == "fail":
            at = f"{self.source.name} line {record['origin']['line']}"
            raise ConfigError(f"{at}: reserved marker {marker!r}; rewrite it, or choose another markers mode")
        if marker and self.rules.markers.mode == "drop":
            raise _Refused("reserved marker")

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


def control_tokens(folder: Path) -> tuple[str, ...]:
    """The control tokens of a model folder: the special ones among its tokenizer's added tokens."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return ()
    added = storage.read_json(str(file)).get("added_tokens") or []
    return tuple(sorted(token["content"] for token in added if token.get("special")))


@lru_cache(maxsize=1)
def _finder(tokens: tuple[str, ...]) -> AhoCorasick:
    return AhoCorasick(tokens)


def _first_value(uri: str) -> dict[str, Any]:
    return next((row.value for row in read_rows(uri) if not row.problem), {})


def _without_end_token(message: Message, counts: Counter[str]) -> Message:
    content = message["content"]
    if message["role"] != "assistant" or (stripped := strip_end_token(content)) == content:
        return message
    counts["end token at the end of an answer"] += 1
    return {**message, "content": stripped}


def _check_emptied(messages: list[Message], had: list[bool]) -> None:
    for message, before in zip(messages, had, strict=True):
        if before and not message["content"].strip() and not message.get("tool_calls"):
            raise _Refused("empty")


def _check_empty(messages: list[Message]) -> None:
    if not any(message["content"].strip() for message in messages if message["role"] in ("user", "tool")):
        raise _Refused("empty")
    if not messages[-1]["content"].strip() and not messages[-1].get("tool_calls"):
        raise _Refused("empty answer")


def _map_message(message: Message, clean: Callable[[str], str]) -> Message:
    out: Message = {**message, "content": clean(message["content"])}
    if reasoning := clean(out.pop("reasoning", "")):
        out["reasoning"] = reasoning
    if "tool_calls" in out:
        out["tool_calls"] = _map_texts(out["tool_calls"], clean)
    if "tool_call_id" in out:
        out["tool_call_id"] = clean(out["tool_call_id"])
    return out


def _texts(record: Record) -> list[str]:
    texts = [message["content"] for message in record["messages"]]
    for message in record["messages"]:
        if len(message) > 2:
            for key in ("reasoning", "tool_calls", "tool_call_id"):
                texts += _strings(message.get(key))
    return [*texts, *_strings(record.get("tools")), record.get("label", "")]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)


def _map_texts(value: Any, apply: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return apply(value)
    if isinstance(value, list):
        return [_map_texts(item, apply) for item in value]
    if not isinstance(value, dict):
        return value
    out = {apply(key): _map_texts(item, apply) for key, item in value.items()}
    if len(out) < len(value):
        raise _Refused("two keys of an object are one once they are clean")
    return out
