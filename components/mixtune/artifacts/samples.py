"""Samples on disk: one row per evaluated item, in Parquet, written part by part.

A samples artifact is a manifest (`kind: samples`) beside `<axis>/<part>.parquet`. A part is a fixed set of items, so
an evaluation that was killed goes on with the parts that are missing, and the result does not depend on how many
processes share the work.

| column | meaning |
|---|---|
| `axis`, `subject` | the axis; MMLU subject, pool, or label: the stratum of the comparison |
| `cluster` | items of one cluster are not independent (a customer's `group`); else the item itself |
| `item_id`, `prompt_hash` | which item; SHA-256 of the rendered prompt, 32 hex digits |
| `text` | what the item itself says, without template and shots: looked for in the training data |
| `prediction`, `gold`, `correct` | label, letter or text; 1.0, 0.0 or null where nothing can be right |
| `choice_logprobs` | nats, one per choice or label, in their order |
| `nll`, `num_tokens` | negative log-likelihood of the gold answer in nats, and its tokens |
| `response`, `latency_seconds`, `truncated`, `error` | the generated text and how it came |
| `measures` | further numbers of the item, by name |
"""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mixtune import storage
from mixtune.errors import DataError

TOKENIZER_FILE = "tokenizer/tokenizer.json"
"""The tokenizer that the items were read with, beside the rows."""

SCHEMA = pa.schema(
    [
        ("axis", pa.string()),
        ("subject", pa.string()),
        ("cluster", pa.string()),
        ("item_id", pa.string()),
        ("prompt_hash", pa.string()),
        ("text", pa.string()),
        ("prediction", pa.string()),
        ("gold", pa.string()),
        ("correct", pa.float64()),
        ("choice_logprobs", pa.list_(pa.float32())),
        ("nll", pa.float64()),
        ("num_tokens", pa.int64()),
        ("response", pa.string()),
        ("latency_seconds", pa.float64()),
        ("truncated", pa.bool_()),
        ("error", pa.string()),
        ("measures", pa.map_(pa.string(), pa.float64())),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One evaluated item; see the table above."""

    axis: str
    subject: str
    item_id: str
    prompt_hash: str
    text: str = ""
    cluster: str = ""
    prediction: str = ""
    gold: str = ""
    correct: float | None = None
    choice_logprobs: tuple[float, ...] = ()
    nll: float | None = None
    num_tokens: int = 0
    response: str = ""
    latency_seconds: float = 0.0
    truncated: bool = False
    error: str = ""
    measures: dict[str, float] = field(default_factory=dict)


def prompt_hash(prompt: str) -> str:
    """Which prompt it was: 32 hex digits."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def write_part(uri: str, samples: Iterable[Sample]) -> storage.FileEntry:
    """Write one part; it appears whole or not at all."""
    rows = [{**asdict(sample), "cluster": sample.cluster or sample.item_id} for sample in samples]
    table = pa.Table.from_pylist([{**row, "measures": sorted(row["measures"].items())} for row in rows], schema=SCHEMA)
    with storage.open_write(uri) as stream, pa.PythonFile(stream, mode="w") as sink:
        pq.write_table(table, sink, compression="zstd")
    return stream.entry(uri.rsplit("/", 1)[-1])


def read_part(uri: str) -> pa.Table:
    """The rows of one part."""
    with storage.open_read(uri) as stream:
        return pq.read_table(pa.PythonFile(stream, mode="r"))


def count_errors(table: pa.Table) -> int:
    """Return the number of items that could not be scored; they count as wrong."""
    return sum(map(bool, table["error"].to_pylist()))


@dataclass(frozen=True)
class Samples:
    """A samples artifact, opened."""

    manifest: dict[str, Any]

    @property
    def axes(self) -> dict[str, dict[str, Any]]:
        """Per axis: its metric, its score, further scores and number of items."""
        return dict(self.manifest["axes"])

    def table(self, axis: str) -> pa.Table:
        """All rows of an axis, in their order.

        Raises:
            DataError: There is no such axis.
        """
        if axis not in self.axes:
            raise DataError(f"no axis {axis!r} in these samples; there are {', '.join(self.axes)}")
        files = [item["path"] for item in self.manifest["files"] if item["path"].startswith(f"{axis}/")]
        return read_parts(storage.join(self.manifest["data_uri"], path) for path in sorted(files))


def read_parts(uris: Iterable[str]) -> pa.Table:
    """The rows of several parts, one after another."""
    tables = [read_part(uri) for uri in uris]
    return pa.concat_tables(tables) if tables else SCHEMA.empty_table()


def read_samples(path: str) -> Samples:
    """Open a samples artifact by its manifest, and check that its files are whole.

    Raises:
        DataError: No manifest, or files that are missing, cut or changed.
    """
    manifest = storage.read_manifest(path, "samples")
    storage.verify(manifest)
    return Samples(manifest)
