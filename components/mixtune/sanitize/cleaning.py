"""One file to clean records: read, map, normalise, rewrite markers; every row is kept, or dropped for a reason."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixtune import pools, storage
from mixtune.errors import ConfigError, DataError
from mixtune.records import Message, Record, content_id
from mixtune.sanitize.markers import Markers, strip_end_token
from mixtune.sanitize.readers import Row, read_rows
from mixtune.sanitize.schemas import Mapper, find_mapper, to_record
from mixtune.sanitize.text import has_surrogate, normalise

NOTED_PER_RULE = 1000
"""Lines noted in the quarantine per rule and file for records that were changed; those dropped are all noted."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is done to records, whatever their source."""

    markers: Markers = field(default_factory=Markers)
    control_tokens: tuple[str, ...] = ()
    """The base model's own control tokens, counted here and made harmless when tokenizing."""
    max_bad_ratio: float = 0.05
    """Share of a file's rows that may be unreadable or no conversation, 0 to 1; above it the run stops."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_bad_ratio <= 1:
            raise ConfigError(f"max_bad_ratio is a share, 0 to 1; got {self.max_bad_ratio}")


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file of one source."""

    pool: str
    split: str
    uri: str
    columns: dict[str, str]

    @property
    def name(self) -> str:
        """The file's name, as records' origins have it."""
        return self.uri.rsplit("/", 1)[-1]


@dataclass(kw_only=True)
class Tally:
    """What became of rows."""

    read: int = 0
    schema: str = ""
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    """Control tokens of the base model, by token."""

    @property
    def kept(self) -> int:
        """Rows that are records now."""
        return self.read - sum(self.dropped.values())


class _Cleaner:
    def __init__(self, source: SourceFile, rules: Rules, notes: Path) -> None:
        self.source, self.rules, self.tally = source, rules, Tally()
        self.noted: Counter[str] = Counter()
        self.notes = open(notes, "w", encoding="utf-8")  # noqa: SIM115 - held open over the whole file
        self.first_bad = ""
        self.mapper: Mapper | None = None

    def records(self) -> Iterator[Record]:
        for row in read_rows(self.source.uri):
            self.tally.read += 1
            record = self._record(row)
            if record is not None:
                yield record
        self.notes.close()
        self._check_bad()

    def _record(self, row: Row) -> Record | None:
        if row.problem:
            self._bad(row, row.problem)
            return None
        if self.mapper is None:
            self.tally.schema, self.mapper = find_mapper(row.value, self.source.columns)
        try:
            record = to_record(self.mapper(row.value), self.source.name, row.line)
        except DataError as error:
            self._bad(row, str(error))
            return None
        except RecursionError:
            self._bad(row, "nested too deep")
            return None
        except (KeyError, TypeError, AttributeError) as error:
            self._bad(row, f"not as the file's first row ({type(error).__name__} at {error})")
            return None
        texts = [text for message in record["messages"] for text in _texts(message)]
        if any(map(has_surrogate, texts)):
            self._bad(row, "half a surrogate pair")
            return None
        return self._cleaned(record)

    def _cleaned(self, record: Record) -> Record | None:
        counts: Counter[str] = Counter()
        markers: Counter[str] = Counter()
        messages = [self._message(message, counts, markers) for message in record["messages"]]
        if markers and self.rules.markers.mode == "fail":
            at = f"{self.source.name} line {record['origin']['line']}"
            raise DataError(
                f"{at}: reserved marker {next(iter(markers))!r}; rewrite it, or choose another markers mode"
            )
        if markers and self.rules.markers.mode == "drop":
            self._drop(record["origin"]["line"], "reserved marker")
            return None
        if not any(
            message["content"] or message.get("tool_calls") for message in messages if message["role"] != "system"
        ):
            self._drop(record["origin"]["line"], "empty")
            return None
        if not messages[-1]["content"].strip() and not messages[-1].get("tool_calls"):
            self._drop(record["origin"]["line"], "empty answer")
            return None
        for rule in [*counts, *(f"marker {marker}" for marker in markers)]:
            self._changed(record["origin"]["line"], rule)
        for token in self.rules.control_tokens:
            if number := sum(message["content"].count(token) for message in messages):
                self.tally.found[token] += number
        return {**record, "messages": messages, "id": content_id(messages, record.get("tools"))}

    def _message(self, message: Message, counts: Counter[str], markers: Counter[str]) -> Message:
        def clean(text: str) -> str:
            return self.rules.markers.rewrite(normalise(text, counts), markers)

        content = message["content"]
        if message["role"] == "assistant" and (stripped := strip_end_token(content)) != content:
            counts["end token at the end of an answer"] += 1
            content = stripped
        out: Message = {**message, "content": clean(content)}
        if "reasoning" in out:
            out["reasoning"] = clean(out["reasoning"])
        if "tool_calls" in out:
            out["tool_calls"] = [
                {**call, "arguments": _map_texts(call["arguments"], clean)} for call in out["tool_calls"]
            ]
        return out

    def _bad(self, row: Row, reason: str) -> None:
        self.first_bad = self.first_bad or f"line {row.line}: {reason}"
        self.tally.dropped["unreadable"] += 1
        self._note(row.line, "dropped", reason)

    def _drop(self, line: int, reason: str) -> None:
        self.tally.dropped[reason] += 1
        self._note(line, "dropped", reason)

    def _changed(self, line: int, rule: str) -> None:
        self.tally.changed[rule] += 1
        self.noted[rule] += 1
        if self.noted[rule] <= NOTED_PER_RULE:
            self._note(line, "changed", rule)

    def _note(self, line: int, what: str, rule: str) -> None:
        value = {"pool": self.source.pool, "file": self.source.name, "line": line, "what": what, "rule": rule}
        self.notes.write(json.dumps(value, ensure_ascii=False) + "\n")

    def _check_bad(self) -> None:
        bad, total = self.tally.dropped["unreadable"], self.tally.read
        if total == 0:
            raise DataError(f"{self.source.uri}: no rows in it")
        if bad > self.rules.max_bad_ratio * total:
            raise DataError(
                f"{self.source.uri}: {bad} of {total} rows cannot be used, more than max_bad_ratio "
                f"{self.rules.max_bad_ratio:g}; the first: {self.first_bad}"
            )


def clean_file(source: SourceFile, rules: Rules, target: Path, notes: Path) -> Tally:
    """Clean one file's records into a file of the pools' form, and note what was dropped or changed.

    Raises:
        DataError: The file cannot be read, has no rows, or too many that cannot be used.
        ConfigError: The column mapping does not fit it.
    """
    cleaner = _Cleaner(source, rules, notes)
    try:
        pools.write_records(str(target), cleaner.records())
    except ConfigError as error:
        raise ConfigError(f"{source.name}: {error}") from error
    except DataError as error:
        at = "" if source.name in str(error) else f"{source.name}: "
        raise DataError(f"{at}{error}") from error
    tally = cleaner.tally
    print(f"{source.pool}: {source.name}, {tally.schema}: {tally.read:,} rows, {tally.kept:,} kept", flush=True)
    return tally


def control_tokens(folder: Path) -> tuple[str, ...]:
    """The control tokens of a model folder: the special ones among its tokenizer's added tokens."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return ()
    added = storage.read_json(str(file)).get("added_tokens") or []
    return tuple(sorted(token["content"] for token in added if token.get("special")))


def _texts(message: Message) -> Iterator[str]:
    yield message["content"]
    yield message.get("reasoning", "")
    for call in message.get("tool_calls", []):
        yield json.dumps(call["arguments"], ensure_ascii=False)


def _map_texts(value: Any, apply: Any) -> Any:
    if isinstance(value, str):
        return apply(value)
    if isinstance(value, list):
        return [_map_texts(item, apply) for item in value]
    return {key: _map_texts(item, apply) for key, item in value.items()} if isinstance(value, dict) else value
