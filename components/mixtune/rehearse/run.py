"""A general pool out of the base model alone: conversations that it holds with itself, filtered and counted.

Replaying what a model itself says protects it nearly as well as its own training data would, which nobody has:
Huang et al. 2024, "Mitigating Catastrophic Forgetting in Large Language Models with Self-Synthesized Rehearsal"
(arXiv:2403.01244); from nothing but the start of a text, arXiv:2505.13811. Users' turns are sampled as Xu et al. 2024
do (Magpie, arXiv:2406.08464): from what the chat template writes before them.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import orjson
import pyarrow as pa

from mixtune import benchmark_files, storage
from mixtune.artifacts.rehearsal import Rehearsal, RehearsalIdentity
from mixtune.artifacts.samples import read_part
from mixtune.artifacts.typed_json import write_artifact
from mixtune.errors import ConfigError, DataError, ModelError
from mixtune.inference import loading, parallel
from mixtune.inference.loading import ModelSource
from mixtune.inference.parallel import Part, make_parts
from mixtune.inference.thoughts import split_thought
from mixtune.rehearse.conversations import AXIS, ConversationGenerator, RehearseSettings, find_turn
from mixtune.report import pages
from mixtune.report.outputs import Outputs

RECORDS_FILE = "records.jsonl"
MANIFEST_FILE = "manifest.json"
PARTS_FOLDER = "_drawn"
TEXTS_PER_PART = 128
MAX_EXAMPLES, MAX_LETTERS = 10, 200
"""Records that the summary shows, and letters of each text."""
MAX_DRAWS = 4
"""Conversations sampled at most, as a multiple of `num_records`."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The model, and how much of it."""

    base_model: str
    num_records: int = 2000
    """Records of the pool; with `prompts_uri`, at most."""
    prompts_uri: str = ""
    """File or folder with a column `prompt`; empty: the model asks itself."""

    def __post_init__(self) -> None:
        if self.num_records < 1:
            raise ConfigError(f"rehearse: num_records is 1 or more, got {self.num_records}")


def run(settings: RehearseSettings, inputs: Inputs, outputs: Outputs) -> str:
    """Sample conversations until there are enough records, and return their URI; parts of a killed task are used again.

    Raises:
        ModelError: The chat template has no place for a user's turn, or too little of the output can be used.
        DataError: A row of `prompts_uri` has no prompt.
    """
    source = ModelSource.of(settings, inputs.base_model).resolved()
    fetched = loading.fetch(source)
    tokenizer = loading.load_tokenizer(source, fetched)
    prompts = read_prompts(inputs.prompts_uri) if inputs.prompts_uri else ()
    if not inputs.prompts_uri:
        find_turn(tokenizer)
    identity = RehearsalIdentity(
        **vars(loading.identify(source, fetched)),
        **settings.sampling_options,
        prompts=loading.digest(storage.check_fingerprint(inputs.prompts_uri)) if inputs.prompts_uri else "",
        texts_per_part=TEXTS_PER_PART,
    )
    folder = storage.join(outputs.data_uri, PARTS_FOLDER)
    written = parallel.resume_or_reset(folder, identity)
    load = partial(loading.load_engine, source, fetched)
    devices = parallel.find_devices(source.device, source.gpus_per_model)
    pool = UsableRecords(target=inputs.num_records)
    parts = plan_parts(inputs.num_records, prompts, ConversationGenerator(tokenizer, settings))
    while parts and not pool.is_full:
        batch, parts = parts[: pool.parts_needed], parts[pool.parts_needed :]
        parallel.score_parts([part for part in batch if part.path not in written], folder, load, devices)
        for part in batch:
            pool.add(read_part(storage.join(folder, part.path)))
    check_enough(pool, inputs)
    records_uri = storage.join(outputs.data_uri, RECORDS_FILE)
    with storage.open_write(records_uri) as stream:
        for prompt, answer in pool.records.values():
            stream.write(record_line(prompt, answer))
    rehearsal = Rehearsal(
        base_model=inputs.base_model,
        identity=identity,
        num_records=len(pool.records),
        num_drawn=pool.num_drawn,
        dropped=dict(sorted(pool.dropped.items())),
        data_uri=outputs.data_uri,
        files=(stream.entry(RECORDS_FILE),),
    )
    write_summary(rehearsal, list(pool.records.values())[:MAX_EXAMPLES], outputs.markdown_path)
    for path in (storage.join(outputs.data_uri, MANIFEST_FILE), outputs.json_path):
        write_artifact(path, rehearsal)
    print(f"rehearse: {len(pool.records)} records of {pool.num_drawn} conversations; {pool.losses}", flush=True)
    return records_uri


@dataclass(kw_only=True)
class UsableRecords:
    """The conversations that can be used, in the order of their numbers."""

    target: int
    num_drawn: int = 0
    records: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Prompt and answer, by the prompt's words."""
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def is_full(self) -> bool:
        """Whether the target is reached."""
        return len(self.records) >= self.target

    @property
    def parts_needed(self) -> int:
        """Parts that will do, if as many of the next can be used as so far; of the first, nine in ten."""
        share = max(len(self.records) / self.num_drawn, 1 / MAX_DRAWS) if self.num_drawn else 0.9
        return math.ceil((self.target - len(self.records)) / share / TEXTS_PER_PART)

    @property
    def losses(self) -> str:
        """What was dropped, in words."""
        return ", ".join(f"{count} {error}" for error, count in self.dropped.most_common()) or "none dropped"

    def add(self, samples: pa.Table) -> None:
        """Add one part's conversations up to the target, or count why they are dropped."""
        columns = (samples[name].to_pylist() for name in ("text", "response", "error"))
        for prompt, answer, error in zip(*columns, strict=True):
            if self.is_full:
                return
            self.num_drawn += 1
            key = " ".join(prompt.casefold().split())
            if reason := error or ("prompt: duplicate" if key in self.records else ""):
                self.dropped[reason] += 1
            else:
                self.records[key] = (prompt, answer)


def check_enough(pool: UsableRecords, inputs: Inputs) -> None:
    """Check that there is a pool; a ModelError where there are too few records, with prompts where there are none."""
    if pool.is_full or (inputs.prompts_uri and pool.records):
        return
    advice = "this model does not ask by its chat template: give prompts_uri, else fewer num_records"
    if inputs.prompts_uri:
        advice = "this model does not answer these prompts: another max_new_tokens or temperature may help"
    count = f"{len(pool.records)} of {pool.target} records after {pool.num_drawn} conversations"
    raise ModelError(f"rehearse: {count} ({pool.losses}); {advice}")


def plan_parts(num_records: int, prompts: Sequence[str], generate: ConversationGenerator) -> list[Part]:
    """Return all conversations that may be sampled, in parts; without prompts, in whole ones."""
    count = len(prompts) or TEXTS_PER_PART * math.ceil(MAX_DRAWS * num_records / TEXTS_PER_PART)
    items = [(number, prompts[number] if prompts else "") for number in range(count)]
    return make_parts(AXIS, items, TEXTS_PER_PART, generate)


def read_prompts(uri: str) -> tuple[str, ...]:
    """Return the prompts of a file or folder, in its order.

    Raises:
        DataError: There are none, or a row has no text under `prompt`.
    """
    rows = enumerate((row for rows in benchmark_files.read_splits(uri, repeats=True).values() for row in rows), 1)
    prompts = tuple(str(benchmark_files.need(row, "prompt", uri, number)).strip() for number, row in rows)
    if not all(prompts):
        raise DataError(f"{uri} row {prompts.index('') + 1}: its prompt is empty")
    if not prompts:
        raise DataError(f"{uri}: no prompt in it; leave prompts_uri empty to let the model ask itself")
    return prompts


def record_line(prompt: str, answer: str) -> bytes:
    """Return one record as a line of canonical chat JSONL; a reasoning model's thoughts go by their own key."""
    text, thought, _ = split_thought(answer)
    message = {"role": "assistant", "content": text, **({"reasoning": thought} if thought else {})}
    return orjson.dumps({"messages": [{"role": "user", "content": prompt}, message]}, option=orjson.OPT_APPEND_NEWLINE)


def write_summary(rehearsal: Rehearsal, examples: list[tuple[str, str]], path: str) -> None:
    """Write the counts and some records, as Markdown."""
    rows = [["drawn", str(rehearsal.num_drawn)], ["kept", str(rehearsal.num_records)]]
    rows += [[f"dropped, {reason}", str(count)] for reason, count in rehearsal.dropped.items()]
    lines = [
        "# Rehearsal",
        f"{rehearsal.num_records} records out of {rehearsal.base_model} alone.",
        pages.markdown_table(["conversations", "number"], rows),
        pages.markdown_table(
            ["asked", "answered"],
            [[" ".join(text.split())[:MAX_LETTERS] for text in record] for record in examples],
        ),
    ]
    pages.write_text(path, "\n\n".join(lines) + "\n")
