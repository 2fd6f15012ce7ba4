"""A general pool out of the base model alone: conversations that it holds with itself, filtered and counted.

Replaying what a model itself says protects it nearly as well as its own training data would, which nobody has:
Huang et al. 2024, "Mitigating Catastrophic Forgetting in Large Language Models with Self-Synthesized Rehearsal"
(arXiv:2403.01244); from nothing but the start of a text, arXiv:2505.13811. Users' turns are drawn as Xu et al. 2024
draw them (Magpie, arXiv:2406.08464): from what the chat template writes before them.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import orjson
import torch
import transformers

from mixtune import models, storage
from mixtune.artifacts.samples import read_part
from mixtune.chat.template_files import read_templates, templates_digest
from mixtune.errors import ConfigError, DataError, ModelError
from mixtune.evaluate import benchmark_files
from mixtune.inference import loading, parallel
from mixtune.inference.loading import ModelSource
from mixtune.inference.parallel import Part, make_parts
from mixtune.rehearse.conversations import (
    AXIS,
    END_OF_THOUGHT,
    ConversationGenerator,
    SamplingSettings,
    find_turn,
)
from mixtune.report import pages

RECORDS_FILE = "records.jsonl"
MANIFEST_FILE = "manifest.json"
PARTS_FOLDER = "_drawn"
TEXTS_PER_PART = 128
SHOWN, WIDTH = 10, 200
"""Records that the summary shows, and letters of each text."""
MAX_DRAWS = 4
"""Conversations drawn at most, as a multiple of the records that are wanted."""


@dataclass(frozen=True, kw_only=True)
class RehearsalInputs:
    """What `rehearse` reads."""

    model: ModelSource
    drawing: SamplingSettings = field(default_factory=SamplingSettings)
    num_records: int = 2000
    """Records wanted; with `prompts_uri`, at most."""
    prompts_uri: str = ""
    """File or folder with a column `prompt`; empty: the model asks itself."""

    def __post_init__(self) -> None:
        if self.num_records < 1:
            raise ConfigError(f"rehearse: num_records is 1 or more, got {self.num_records}")


@dataclass(frozen=True, kw_only=True)
class RehearsalOutputs:
    """Where `rehearse` writes."""

    folder: str
    """URI of the pool's folder."""
    manifest_path: str
    summary_path: str


def run_rehearsal(inputs: RehearsalInputs, outputs: RehearsalOutputs) -> str:
    """Draw conversations until there are records enough; what was drawn by a killed task is kept.

    Returns:
        URI of the records.

    Raises:
        ModelError: The chat template has no place for a user's turn, or too little of what comes can be used.
        DataError: A row of `prompts_uri` has no prompt.
    """
    fetched = loading.fetch(inputs.model)
    tokenizer = loading.load_tokenizer(fetched)
    prompts = read_prompts(inputs.prompts_uri) if inputs.prompts_uri else ()
    if not inputs.prompts_uri:
        find_turn(tokenizer)
    identity = describe(inputs, fetched)
    folder = storage.join(outputs.folder, PARTS_FOLDER)
    done = parallel.resume_or_reset(folder, identity)
    load = partial(loading.load_engine, inputs.model, fetched)
    devices = parallel.find_devices(inputs.model.resolved().device, inputs.model.gpus_per_model)
    kept = Kept(wanted=inputs.num_records)
    parts = plan_parts(inputs, prompts, tokenizer)
    while parts and not kept.enough:
        now, parts = parts[: kept.parts_needed], parts[kept.parts_needed :]
        parallel.score_parts([part for part in now if part.path not in done], folder, load, devices)
        for part in now:
            kept.take(read_part(storage.join(folder, part.path)).to_pylist())
    check_enough(kept, inputs)
    records_uri = storage.join(outputs.folder, RECORDS_FILE)
    with storage.open_write(records_uri) as stream:
        for prompt, answer in kept.records.values():
            stream.write(record_line(prompt, answer))
    manifest = {
        "kind": "rehearsal",
        "base_model": inputs.model.base_model,
        "identity": identity,
        "num_records": len(kept.records),
        "num_drawn": kept.num_drawn,
        "dropped": dict(sorted(kept.dropped.items())),
    }
    write_summary(manifest, list(kept.records.values())[:SHOWN], outputs.summary_path)
    for path in (storage.join(outputs.folder, MANIFEST_FILE), outputs.manifest_path):
        storage.write_manifest(path, manifest, outputs.folder, [stream.entry(RECORDS_FILE)])
    print(f"rehearse: {len(kept.records)} records of {kept.num_drawn} conversations; {kept.why()}", flush=True)
    return records_uri


@dataclass(kw_only=True)
class Kept:
    """The conversations that can be used, in the order of their numbers, until there are enough."""

    wanted: int
    num_drawn: int = 0
    records: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Prompt and answer, by the prompt's words."""
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def enough(self) -> bool:
        """Whether there are as many as are wanted."""
        return len(self.records) >= self.wanted

    @property
    def parts_needed(self) -> int:
        """Parts that will do, if the next ones are like those so far; of the first, nine in ten."""
        share = max(len(self.records) / self.num_drawn, 1 / MAX_DRAWS) if self.num_drawn else 0.9
        return math.ceil((self.wanted - len(self.records)) / share / TEXTS_PER_PART)

    def take(self, rows: Iterable[dict[str, Any]]) -> None:
        """Look at one part's conversations, each kept or counted by why it is not."""
        for row in rows:
            if self.enough:
                return
            self.num_drawn += 1
            key = " ".join(row["text"].casefold().split())
            error = row["error"] or ("prompt: duplicate" if key in self.records else "")
            if error:
                self.dropped[error] += 1
            else:
                self.records[key] = (row["text"], row["response"])

    def why(self) -> str:
        """What was dropped, in words."""
        return ", ".join(f"{count} {error}" for error, count in self.dropped.most_common()) or "none dropped"


def check_enough(kept: Kept, inputs: RehearsalInputs) -> None:
    """Make sure that there is a pool.

    Raises:
        ModelError: Fewer records than wanted; where prompts were given, none.
    """
    if kept.enough or (inputs.prompts_uri and kept.records):
        return
    raise ModelError(
        f"rehearse: {len(kept.records)} of {inputs.num_records} records after {kept.num_drawn} conversations "
        f"({kept.why()}); "
        + (
            "this model does not answer these prompts: another max_new_tokens or temperature may help"
            if inputs.prompts_uri
            else "this model does not ask by its chat template: give prompts_uri, else fewer num_records"
        )
    )


def plan_parts(inputs: RehearsalInputs, prompts: Sequence[str], tokenizer: Any) -> list[Part]:
    """Return all conversations that may be sampled, in parts; without prompts, in whole ones."""
    count = len(prompts) or MAX_DRAWS * inputs.num_records
    count += 0 if prompts else -count % TEXTS_PER_PART
    items = [(number, prompts[number] if prompts else "") for number in range(count)]
    generate = ConversationGenerator(tokenizer, inputs.drawing)
    return make_parts(AXIS, items, TEXTS_PER_PART, generate)


def read_prompts(uri: str) -> tuple[str, ...]:
    """The prompts of a file or folder, in its order.

    Raises:
        DataError: There are none, or a row has no text under `prompt`.
    """
    rows = [row for split in benchmark_files.read_splits(uri).values() for row in split]
    prompts = tuple(str(benchmark_files.need(row, "prompt", uri, number)).strip() for number, row in enumerate(rows, 1))
    if not all(prompts):
        raise DataError(f"{uri} row {prompts.index('') + 1}: its prompt is empty")
    if not prompts:
        raise DataError(f"{uri}: no prompt in it; leave prompts_uri empty to let the model ask itself")
    return prompts


def describe(inputs: RehearsalInputs, fetched: loading.Fetched) -> dict[str, Any]:
    """Everything that a conversation depends on; how many are wanted is not among it."""
    source = inputs.model.resolved()
    return {
        "base_model": loading.digest(source.base_model, fetched.base),
        "tokenizer": models.tokenizer_digest(fetched.base),
        "chat_template": templates_digest(read_templates(fetched.base)),
        "prompts": digest_of(inputs.prompts_uri) if inputs.prompts_uri else "",
        "engine": source.engine,
        "dtype": source.dtype,
        "device": source.device.split(":")[0],
        **asdict(inputs.drawing),
        "texts_per_part": TEXTS_PER_PART,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def digest_of(uri: str) -> str:
    """What is there now.

    Raises:
        DataError: The URI came with the digest of something else.
    """
    return storage.split_fingerprint(storage.fingerprint(storage.check_fingerprint(uri)))[1]


def record_line(prompt: str, answer: str) -> bytes:
    """One record as a line of canonical chat JSONL; what a reasoning model thinks first goes by its own key."""
    thought, found, said = answer.rpartition(END_OF_THOUGHT)
    message = {"role": "assistant", "content": said.strip()}
    if found and thought.removeprefix("<think>").strip():
        message["reasoning"] = thought.removeprefix("<think>").strip()
    return orjson.dumps({"messages": [{"role": "user", "content": prompt}, message]}, option=orjson.OPT_APPEND_NEWLINE)


def write_summary(manifest: dict[str, Any], shown: list[tuple[str, str]], path: str) -> None:
    """The counts, and the first records, as Markdown."""
    rows = [["drawn", str(manifest["num_drawn"])], ["kept", str(manifest["num_records"])]]
    rows += [[f"dropped, {reason}", str(count)] for reason, count in manifest["dropped"].items()]
    examples = [[" ".join(text.split())[:WIDTH] for text in record] for record in shown]
    lines = [
        "# Rehearsal",
        f"{manifest['num_records']} records out of {manifest['base_model']} alone.",
        pages.markdown_table(["conversations", "number"], rows),
        pages.markdown_table(["asked", "answered"], examples),
    ]
    pages.write_text(path, "\n\n".join(lines) + "\n")
