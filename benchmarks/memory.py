"""The memory estimate against the training loop on tensors without values: peaks of one GPU at the sizes of real models.

    python benchmarks/memory.py [--only TEXT] [--results benchmarks/results/memory.md]

Every row loads a model of its real size as torch's fake tensors, which have sizes and storages and hold nothing, and lets
the training loop accumulate the gradients of one global batch, in bfloat16, with varlen attention, in slices (FSDP2) where
there are several GPUs. Every storage counts from the operation that makes it to its last reference, resized ones as they
are. AdamW's moments are there from an earlier step. What kernels take within, and what CUDA and NCCL take beside, does not
show; nor do copies in the host's memory. A row takes some ten seconds of a CPU.
"""

import argparse
import tempfile
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed._tools.fake_collectives  # collectives of fake tensors
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.common_utils import get_untyped_storages
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from mixtune.artifacts.shards import TokenRecord
from mixtune.preflight.memory import Memory, Training, estimate_memory
from mixtune.preflight.shape import Shape
from mixtune.settings.from_dict import from_dict
from mixtune.settings.train import TrainSettings
from mixtune.train.distributed import ProcessGroup
from mixtune.train.loop import accumulate_gradients
from mixtune.train.metrics import PhaseTimer
from mixtune.train.modeling import loss as loss_module
from mixtune.train.modeling import sharding, trainable
from mixtune.train.modeling.kernels import VARLEN
from mixtune.train.modeling.trainable import load_trainable
from mixtune.train.trainer import make_trainer
from mixtune.training_math import GPU_LOGITS_AT_ONCE

MODELS: dict[str, dict[str, Any]] = {
    "Llama 3 8B": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
    },
    "Llama 3 70B": {
        "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
    },
    "Qwen3 14B": {
        "model_type": "qwen3", "hidden_size": 5120, "intermediate_size": 17408, "num_hidden_layers": 40, "head_dim": 128,
        "num_attention_heads": 40, "num_key_value_heads": 8, "vocab_size": 151936, "tie_word_embeddings": False,
    },
    "Gemma 3 1B": {
        "model_type": "gemma3_text", "hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 26,
        "head_dim": 256, "num_attention_heads": 4, "num_key_value_heads": 1, "vocab_size": 262144,
        "tie_word_embeddings": True,
    },
}  # fmt: skip
RECORDS = 4
"""Of a micro batch, all equally long."""
BOUNDS = (0.85, 1.15)
"""Of the estimate over the peak."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One training."""

    model: str
    method: str
    tokens: int
    """Of a micro batch."""
    activations: str = "recompute"
    micro_batches: int = 2
    gpus: int = 1
    float32_base: bool = False
    layers: int = 0
    """0: as many as the model has."""

    @property
    def sizes(self) -> dict[str, Any]:
        """Of the model."""
        sizes = {**MODELS[self.model], "max_position_embeddings": 131072}
        return {**sizes, "num_hidden_layers": self.layers or sizes["num_hidden_layers"]}

    @property
    def words(self) -> str:
        """As in the table."""
        base = ", base in float32" if self.float32_base else ""
        spread = f" over {self.gpus}" if self.gpus > 1 else ""
        return (
            f"{self.model} | {self.method}{base}{spread} | {self.activations} | {self.tokens:,} | {self.micro_batches}"
        )

    @property
    def settings(self) -> TrainSettings:
        """Of the training."""
        memory = {
            "dtype": "bfloat16",
            "activations": self.activations,
            "max_tokens_per_gpu": self.tokens,
            "shard_base": self.method == "lora" and self.gpus > 1,
        }
        return from_dict(TrainSettings, {"method": self.method, "memory": memory}, "settings")

    def estimate(self) -> Memory:
        """Preflight's."""
        training = Training(
            method=self.method,
            micro_tokens=self.tokens,
            activations=self.activations,
            micro_batches=self.micro_batches,
            shards=self.gpus,
            float32_base=self.float32_base,
        )
        return estimate_memory(Shape.from_config(self.sizes), training)


LLAMA = "Llama 3 8B"
CASES = (
    Case(model=LLAMA, method="lora", tokens=16384),
    Case(model=LLAMA, method="lora", tokens=65536),
    Case(model=LLAMA, method="lora", tokens=16384, float32_base=True),
    Case(model=LLAMA, method="lora", tokens=8192, activations="keep"),
    Case(model=LLAMA, method="lora", tokens=8192, activations="selective"),
    Case(model=LLAMA, method="lora", tokens=16384, activations="selective"),
    Case(model=LLAMA, method="lora", tokens=16384, gpus=8),
    Case(model=LLAMA, method="lora", tokens=65536, gpus=8),
    Case(model=LLAMA, method="sft", tokens=16384, gpus=8, micro_batches=1),
    Case(model=LLAMA, method="sft", tokens=16384, gpus=8),
    Case(model=LLAMA, method="sft", tokens=32768, gpus=8, micro_batches=1),
    Case(model=LLAMA, method="sft", tokens=65536, gpus=8, micro_batches=1),
    Case(model=LLAMA, method="sft", tokens=8192, gpus=8, micro_batches=1, activations="keep"),
    Case(model=LLAMA, method="sft", tokens=8192, gpus=8, micro_batches=1, activations="selective"),
    Case(model=LLAMA, method="sft", tokens=2048, gpus=32),
    Case(model="Llama 3 70B", method="lora", tokens=16384, gpus=8),
    Case(model="Llama 3 70B", method="sft", tokens=4096, gpus=32),
    Case(model="Qwen3 14B", method="lora", tokens=16384),
    Case(model="Qwen3 14B", method="lora", tokens=4096, activations="selective"),
    Case(model="Qwen3 14B", method="sft", tokens=8192, gpus=8),
    Case(model="Gemma 3 1B", method="lora", tokens=16384, activations="selective"),
)


class Storages(TorchDispatchMode):
    """Adds up the storages that operations make, until nothing refers to them."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._total = 0
        self._sizes: dict[int, int] = {}

    def add(self, tensor: torch.Tensor) -> None:
        """Count the storages of a tensor, each once."""
        for storage in get_untyped_storages(tensor):
            if storage._cdata not in self._sizes:
                self._sizes[storage._cdata] = 0
                weakref.finalize(storage, self._drop, storage._cdata)
            self._resize(storage._cdata, storage.size())

    def _resize(self, number: int, size: int) -> None:
        self._total += size - self._sizes[number]
        self._sizes[number] = size
        self.peak = max(self.peak, self._total)

    def _drop(self, number: int) -> None:
        self._total -= self._sizes.pop(number)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, torch.Tensor):
                self.add(value)
        return out

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count while the block runs; FSDP2 empties storages that it keeps."""
        resize = torch.UntypedStorage.resize_

        def resize_and_count(storage: torch.UntypedStorage, size: int) -> None:
            resize(storage, size)
            if storage._cdata in self._sizes:
                self._resize(storage._cdata, size)

        with patch.object(torch.UntypedStorage, "resize_", resize_and_count), self:
            yield


class AsGpu(ProcessGroup):
    """A process that trains as on a GPU."""

    on_cpu = False


class Drawn:
    """One global batch of equally long records."""

    def __init__(self, case: Case) -> None:
        self.num_steps, self.pools = 1, ("random",)
        ids = np.full(case.tokens // RECORDS, 7, np.int32)
        count = RECORDS * case.micro_batches * case.gpus
        self.records = [
            TokenRecord(pool=0, record_id="0" * 32, input_ids=ids, loss_mask=np.ones_like(ids, np.uint8), weight=1.0)
        ] * count

    def step(self, step: int) -> list[TokenRecord]:
        """Return the records of the global batch."""
        return self.records


@contextmanager
def gpus(count: int) -> Iterator[ProcessGroup]:
    """Be the first of so many processes that are not there, each with a GPU."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=count)
    mesh = sharding.init_device_mesh("cpu", (count,))  # it reads values
    with patch.object(sharding, "init_device_mesh", lambda *_args, **_options: mesh):
        try:
            yield AsGpu(size=count, local_size=count)
        finally:
            dist.destroy_process_group()


def simulate(case: Case) -> int:
    """Return the bytes of one GPU at the peak of a step."""
    config = AutoConfig.for_model(
        case.sizes["model_type"], **{k: v for k, v in case.sizes.items() if k != "model_type"}
    )

    def load(_folder: Path, dtype: torch.dtype | str, _names: tuple[str, ...]) -> PreTrainedModel:
        kind = torch.float32 if case.float32_base else torch.bfloat16
        return AutoModelForCausalLM.from_config(config, dtype=kind, attn_implementation=VARLEN)

    def chunk(*, gpu: bool) -> int:
        return GPU_LOGITS_AT_ONCE

    def set_data(value: torch.Tensor, other: torch.Tensor) -> None:
        value.data = other.data

    with (
        gpus(case.gpus) as group,
        FakeTensorMode(allow_non_fake_inputs=True),
        patch.object(trainable, "load_with_attention", load),
        patch.object(loss_module, "logits_at_once", chunk),
        patch.object(torch.utils, "swap_tensors", set_data),  # which takes no fake tensors
        tempfile.TemporaryDirectory() as folder,
    ):
        shards: Any = Drawn(case)
        model = load_trainable(Path(folder), case.settings, group)
        trainer = make_trainer(shards, model, case.settings, group)
        for value in model.parameters().values():
            value.grad = torch.zeros_like(value)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)
        storages = Storages()
        moments = [value for state in trainer.optimizer.state.values() for value in state.values()]
        for value in (*model.saved.parameters(), *model.saved.buffers(), *moments):
            storages.add(value)
        with storages.counting():
            accumulate_gradients(trainer, trainer.shards.step(0), case.gpus, PhaseTimer(torch.device("cpu")))
    return storages.peak


def table(results: Path) -> dict[str, float]:
    """Return the simulated peaks of a table that was written, in GB, by the case's words."""
    rows = [line.strip("| ").split(" | ") for line in results.read_text().splitlines() if line.count("|") == 9]
    return {" | ".join(row[:5]): float(row[5]) for row in rows[2:]}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows with this text in them")
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    lines = [
        "| model | method and GPUs | activations | tokens | micro batches | simulated, GB | estimated, GB | ratio |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    print("\n".join(lines), flush=True)
    ratios = []
    for case in CASES:
        if options.only not in case.words:
            continue
        peak, estimate = simulate(case), case.estimate().total
        ratios.append(estimate / peak)
        lines.append(f"| {case.words} | {peak / 1e9:.1f} | {estimate / 1e9:.1f} | {ratios[-1]:.2f} |")
        print(lines[-1], flush=True)
    if options.results:
        words = f"torch {torch.__version__}: the loop on fake tensors, bfloat16; no GPU. The estimate is {min(ratios):.2f} to {max(ratios):.2f} of the peak."
        options.results.write_text(
            "# The memory estimate against simulated peaks\n\n" + words + "\n\n" + "\n".join(lines) + "\n"
        )
    raise SystemExit(not all(BOUNDS[0] <= ratio <= BOUNDS[1] for ratio in ratios))


if __name__ == "__main__":
    main()
