"""Peak memory of real training steps against preflight's estimate, on CPU: three model shapes, both methods.

    python benchmarks/preflight.py

Every case runs in a process of its own, through the training loop itself: two steps of two micro batches each, of one
long record or of four packed ones. Measured is resident memory at its highest, less what the process held before the
model was loaded. `GPU` rows train as on a GPU, in bfloat16 with layers computed again, but on the CPU: full tuning is then
in slices, which takes several processes, and is not measured.
"""

import argparse
import gc
import multiprocessing
import os
import resource
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mixtune.artifacts.shards import Shards, ShardsManifest, TokenRecord
from mixtune.preflight.memory import Memory, Training, estimate_memory
from mixtune.preflight.shape import Shape

SHAPES: dict[str, dict[str, Any]] = {
    "llama, deep and narrow": {
        "model_type": "llama", "num_hidden_layers": 20, "hidden_size": 384, "intermediate_size": 1024,
        "num_attention_heads": 6, "num_key_value_heads": 6, "vocab_size": 8000, "tie_word_embeddings": True,
    },
    "qwen2, grouped keys, large vocabulary": {
        "model_type": "qwen2", "num_hidden_layers": 8, "hidden_size": 512, "intermediate_size": 2048,
        "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 64000, "tie_word_embeddings": True,
    },
    "llama, wide, embeddings untied": {
        "model_type": "llama", "num_hidden_layers": 6, "hidden_size": 1024, "intermediate_size": 2816,
        "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 16000, "tie_word_embeddings": False,
    },
}  # fmt: skip
WARM_UP = "warm-up"
TINY: dict[str, Any] = {
    "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 8000, "tie_word_embeddings": True,
}  # fmt: skip
PACKED = 4
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""What is freed leaves the process at once, so that its resident memory is what is in use."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One training that is measured."""

    shape: str
    method: str
    tokens: int
    """Of a micro batch."""
    records: int
    """Of a micro batch, all equally long."""
    as_gpu: bool = False
    """Whether it trains as on a GPU."""

    @property
    def sizes(self) -> dict[str, Any]:
        """Of the model."""
        return {**SHAPES, WARM_UP: TINY}[self.shape]

    @property
    def training(self) -> Training:
        """What the estimate is told."""
        return Training(
            method=self.method,
            micro_tokens=self.tokens,
            gpu=self.as_gpu,
            packed=self.records > 1,
        )

    def estimate(self) -> Memory:
        """Preflight's."""
        return estimate_memory(Shape.from_config(self.sizes), self.training)


class Drawn(Shards):
    """Two steps of two micro batches each, of random tokens."""

    def step(self, step: int) -> list[TokenRecord]:
        """The records of a global batch."""
        draw, length = np.random.default_rng(step), self.manifest.max_record_tokens
        ones = np.ones(length, np.uint8)
        return [
            TokenRecord(
                pool=0,
                record_id=str(number),
                input_ids=draw.integers(0, 8000, length).astype(np.int32),
                loss_mask=ones,
                weight=1.0,
            )
            for number in range(self.manifest.global_batch_size)
        ]


def measure(case: Case) -> int:
    """Bytes over what the process had before, at the peak of two steps; in a process of its own."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=lambda: sender.send(_measure_after_warming(case)))
    child.start()
    sender.close()
    peak: int = receiver.recv()
    child.join()
    return peak


def _measure_after_warming(case: Case) -> int:
    """A tiny training first: what libraries load and keep for themselves is no part of a training's memory."""
    _train(replace(case, shape=WARM_UP, tokens=64))
    return _train(case)


def _train(case: Case) -> int:
    from mixtune.settings.train import MemorySettings, TrainSettings
    from mixtune.train.checkpoints import NoCheckpoints
    from mixtune.train.distributed import ProcessGroup
    from mixtune.train.loop import train_steps
    from mixtune.train.modeling.trainable import load_trainable
    from mixtune.train.trainer import make_trainer

    how: dict[str, Any] = {"dtype": "bfloat16", "activations": "recompute"} if case.as_gpu else {}
    memory = MemorySettings(max_tokens_per_gpu=case.tokens, **how)
    settings = TrainSettings(method=case.method, memory=memory)
    drawn = ShardsManifest(
        num_steps=2,
        pools=("p",),
        shards=(),
        global_batch_size=2 * case.records,
        max_record_tokens=case.tokens // case.records,
    )
    shards = Drawn(Path(), drawn)
    with tempfile.TemporaryDirectory() as folder:
        _save_model(case.sizes, case.tokens, folder)
        gc.collect()
        before = _resident()
        model = load_trainable(Path(folder), settings)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: loading is not training
        group = ProcessGroup()
        list(train_steps(make_trainer(shards, model, settings, group), NoCheckpoints(group)))
        return _peak() - before


def _save_model(shape: dict[str, Any], tokens: int, folder: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    options = {key: value for key, value in shape.items() if key != "model_type"}
    config = AutoConfig.for_model(shape["model_type"], max_position_embeddings=tokens, **options)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _peak() -> int:
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


def _cases(shapes: list[str], tokens: int) -> Iterator[Case]:
    for shape in shapes:
        for method in ("lora", "sft"):
            for records in (1, PACKED):
                yield Case(shape=shape, method=method, tokens=tokens, records=records)
        yield Case(shape=shape, method="lora", tokens=tokens, records=1, as_gpu=True)


def main() -> None:
    """Measure every case and print the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024, help="of a micro batch (default: %(default)s)")
    parser.add_argument("--models", nargs="*", choices=list(SHAPES), help="these alone (default: all)")
    options = parser.parse_args()
    if any(os.environ.get(key) != value for key, value in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})
    import transformers

    import mixtune.train.loop  # noqa: F401  # imported once, before the processes part

    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    print("| model | method | as on | records in a micro batch | measured, MB | estimated, MB | ratio |")
    print("|---|---|---|--:|--:|--:|--:|", flush=True)
    for case in _cases(options.models or list(SHAPES), options.tokens):
        measured, estimated = measure(case) / 1e6, case.estimate().total / 1e6
        device, ratio = "GPU" if case.as_gpu else "CPU", estimated / measured
        sizes = f"{measured:,.0f} | {estimated:,.0f} | {ratio:.2f}"
        print(f"| {case.shape} | {case.method} | {device} | {case.records} | {sizes} |", flush=True)


if __name__ == "__main__":
    main()
