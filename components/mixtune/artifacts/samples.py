"""Samples on disk: one row per evaluated item, in Parquet, written part by part.

A samples artifact is a manifest (`Samples`) beside `<axis>/<part>.parquet`. A part is a fixed set of items, so
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
| `response`, `latency_seconds`, `truncated`, `error` | the generated text without its thoughts, and how it came |
| `thought`, `unfinished` | what a reasoning model thought before; whether it never ended, so that there is no answer |
| `measures` | further numbers of the item, by name |
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from mixtune import storage
from mixtune.artifacts.typed_json import Manifest, read_artifact
from mixtune.errors import DataError
from mixtune.settings.inference import CustomerOptions

TOKENIZER_FILE = "tokenizer/tokenizer.json"
"""The tokenizer that the items were read with, beside the rows."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One evaluated item; see the table above."""

    axis: str
    subject: str
    cluster: str = ""
    item_id: str
    prompt_hash: str
    text: str = ""
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
    thought: str = ""
    unfinished: bool = False
    measures: dict[str, float] = field(default_factory=dict)


_COLUMNS = {
    str: pa.string(),
    int: pa.int64(),
    bool: pa.bool_(),
    float: pa.float64(),
    float | None: pa.float64(),
    tuple[float, ...]: pa.list_(pa.float32()),
    dict[str, float]: pa.map_(pa.string(), pa.float64()),
}
SCHEMA = pa.schema([(name, _COLUMNS[kind]) for name, kind in get_type_hints(Sample).items()])


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """All of a model and its engine that what it writes depends on."""

    base_model: str = ""
    """A digest, as are the next two."""
    tokenizer: str = ""
    chat_template: str = ""
    engine: str = ""
    dtype: str = ""
    device: str = ""
    """`cpu` or `cuda`."""
    versions: dict[str, str] = field(default_factory=dict)
    """By library."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkIdentity:
    """A benchmark as it was evaluated."""

    form: str
    data: str
    """Digest of its files; empty without files."""
    options: dict[str, object]
    """All others of its form."""


@dataclass(frozen=True, kw_only=True)
class Identity(ModelIdentity):
    """Everything that an evaluation's rows depend on."""

    model: str = ""
    """Digest of the tuned model; empty: the base itself."""
    model_kind: str = "base"
    """`base`, `adapter`, `weights`, `quantized` or `served` (`model` says where); `failed` where there is no model."""
    strength: float = 1.0
    """How far the model is from its base, above 0 to 1, as trained."""
    benchmarks: dict[str, BenchmarkIdentity] = field(default_factory=dict)
    """By axis."""
    customer: str = ""
    general: str = ""
    """Digests of the pools."""
    limit: int = 0
    axis_limits: dict[str, int] = field(default_factory=dict)
    thinking: str = "template"
    """Whether records and benchmarks are asked with thoughts."""
    on_lost: dict[str, str] = field(default_factory=dict)
    """What of a conversation is taken off where the chat template leaves it out."""
    customer_options: CustomerOptions = field(default_factory=CustomerOptions)


@dataclass(frozen=True, kw_only=True)
class AxisSummary:
    """The scores of an axis."""

    form: str
    """Of the benchmark."""
    metric: str
    """The score that the verdict is about."""
    scores: dict[str, float]
    num_items: int
    errors: int = 0
    """Items that could not be scored; they count as wrong."""
    labels: tuple[str, ...] = ()
    """Classes of a classification."""
    max_new_tokens: int = 0
    """Tokens of a generated answer at most; 0: nothing was generated."""
    truncated: int = 0
    """Answers that this, or the model's length, cut."""
    thoughts: int = 0
    """Answers with a thought before them, cut before anything was scored."""
    unfinished: int = 0
    """Thoughts that never ended; they count as wrong."""
    left_out: int = 0
    """Items without a label, which are not among those of this axis."""

    @property
    def score(self) -> float:
        """The score that the verdict is about."""
        return self.scores[self.metric]


@dataclass(frozen=True, kw_only=True)
class Samples(Manifest):
    """A samples artifact."""

    KIND: ClassVar[str] = "samples"
    VERSION: ClassVar[int] = 2

    axes: dict[str, AxisSummary] = field(default_factory=dict)
    identity: Identity = Identity()
    model_uri: str = ""
    """Fingerprinted URI of the tuned model; empty: the base itself."""
    limit: int = 0
    """Items of an axis at most; 0: all."""
    seconds: float = 0.0
    failed: str = ""
    """Why there is no model to evaluate; else empty."""

    def table(self, axis: str) -> pa.Table:
        """Return all rows of an axis, in their order; a DataError where there is no such axis."""
        if axis not in self.axes:
            raise DataError(f"no axis {axis!r} in these samples; there are {', '.join(self.axes)}")
        paths = sorted(entry.path for entry in self.files if entry.path.startswith(f"{axis}/"))
        return read_parts(storage.join(self.data_uri, path) for path in paths)


@dataclass(frozen=True, kw_only=True)
class DialPoint:
    """A tuned model at one strength."""

    strength: float
    samples: str = ""
    """Manifest of its samples; empty where it could not be evaluated."""
    reason: str = ""
    """Why it could not."""


@dataclass(frozen=True, kw_only=True)
class Dial(Manifest):
    """What `sweep_dial` writes: a tuned model between its base and itself, its samples beside the manifest."""

    KIND: ClassVar[str] = "dial"
    VERSION: ClassVar[int] = 1

    points: tuple[DialPoint, ...] = ()
    """From the lowest strength."""


def prompt_hash(prompt: str) -> str:
    """Return the digest of a prompt: 32 hex digits."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def write_part(uri: str, samples: Iterable[Sample]) -> storage.FileEntry:
    """Write one part; it appears whole or not at all."""
    rows = [{**vars(sample), "cluster": sample.cluster or sample.item_id} for sample in samples]
    table = pa.Table.from_pylist([{**row, "measures": sorted(row["measures"].items())} for row in rows], schema=SCHEMA)
    with storage.open_write(uri) as stream, pa.PythonFile(stream, mode="w") as sink:
        pq.write_table(table, sink, compression="zstd")
    return stream.entry(uri.rsplit("/", 1)[-1])


def read_part(uri: str) -> pa.Table:
    """Return the rows of one part."""
    with storage.open_read(uri) as stream:
        return pq.read_table(pa.PythonFile(stream, mode="r"))


def count_true(table: pa.Table, column: str) -> int:
    """Return the number of items whose column is true, or not empty."""
    return sum(map(bool, table[column].to_pylist()))


def read_parts(uris: Iterable[str]) -> pa.Table:
    """Return the rows of several parts, one after another."""
    tables = [read_part(uri) for uri in uris]
    return pa.concat_tables(tables) if tables else SCHEMA.empty_table()


def read_samples(path: str) -> Samples:
    """Open a samples artifact by its manifest, and check that its files are whole.

    Raises:
        DataError: No manifest, or files that are missing, cut or changed.
    """
    samples = read_artifact(Samples, path)
    samples.verify()
    return samples
