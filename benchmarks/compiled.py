"""Compiled layers beside the same as they are written: losses and gradients in float32, by architecture and method.

    python benchmarks/compiled.py [TYPE ...] [--backend inductor] [--results benchmarks/results/compiled.md]

A tiny model with random weights of each type, with an adapter or without, takes two packed micro batches of other lengths
and numbers of records. Each is a forward and a backward pass, first as transformers writes the layers, then as torch
compiles them: one graph for all layers that are alike and for both micro batches. `inductor` runs kernels in C++, where
there is a compiler for it; the default decomposes, differentiates and cuts the same graphs, and runs them by torch's own
kernels, in seconds. Products and attention are kept for the backward pass (`activations=selective`)
where a model's layers do not change them in place.
"""

import argparse
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
import transformers
from architectures import make_base, records

from mixtune.artifacts.shards import TokenRecord
from mixtune.settings.from_dict import from_dict
from mixtune.settings.train import METHODS, TrainSettings
from mixtune.train.batches import Layout, pack
from mixtune.train.modeling import activations
from mixtune.train.modeling.activations import set_activations
from mixtune.train.modeling.attention import try_training
from mixtune.train.modeling.probe import probe
from mixtune.train.modeling.speed import compile_layers, undo_compile
from mixtune.train.modeling.trainable import Trainable, load_trainable

TYPES = (
    "llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "phi3", "olmo2", "granite", "smollm3", "glm4",
    "cohere2", "qwen3_moe", "deepseek_v3", "gpt_oss", "qwen3_5_text",
)  # fmt: skip
LIMIT = 1e-5
"""Of a difference in float32: in nats of a token's loss, and beside the largest gradient of the same matrix, at least 1."""
LAYERS = "aot_eager_decomp_partition"
"""Of torch's compiler: everything but Inductor's kernels."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What compiling changes in one model."""

    losses: float = 0.0
    """Nats, of the token that moves most."""
    gradients: float = 0.0
    """Of the value that moves most; the loss is a mean over tokens."""
    layout: str = ""
    graphs: int = 0
    reason: str = ""
    """Why it does not compile; it then trains as it is written."""

    @property
    def holds(self) -> bool:
        """Whether compiling changes nothing beyond rounding, or is left out with its reason."""
        return bool(self.reason) or max(self.losses, self.gradients) < LIMIT


def compare_type(kind: str, method: str, scratch: Path, backend: str = LAYERS) -> Difference:
    """Return how far a model's compiled layers are from those that are written.

    Args:
        kind: Model type.
        method: `lora` or `sft`.
        scratch: A folder for the model.
        backend: Of torch's compiler.
    """
    base = scratch / kind
    if not base.exists():
        make_base(kind, base)
    with patch.object(activations, "LEAST_INNER", 16):  # of products of a tiny model, too
        options = {"method": method, "memory": {"activations": "selective"}} | (
            {"lora_rank": 4} if method == "lora" else {}
        )
        model = load_trainable(base, from_dict(TrainSettings, options, "settings"))
        if try_training(model.loss, records(1)[:1]):  # its layers change products in place
            set_activations(model.causal, "recompute")
        draw_adapter(model)
        batches = [records(1)[:3], records(2)]
        probe(model.loss, batches[0])
        if model.loss.layout is Layout.SINGLE:
            batches = [[record] for record in batches[0]]
        written = [gradients(model, batch) for batch in batches]
        torch._dynamo.utils.counters.clear()
        if reason := compile_layers(
            model.loss, batches[0][:1] if model.loss.layout is Layout.SINGLE else batches[0], backend
        ):
            return Difference(reason=reason, layout=str(model.loss.layout))
        try:
            compiled = [gradients(model, batch) for batch in batches]
        finally:
            graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
            undo_compile(model.loss)
    pairs = list(zip(written, compiled, strict=True))
    return Difference(
        losses=max(float((before[0] - after[0]).abs().max()) for before, after in pairs),
        gradients=max(_largest(before[1], after[1]) for before, after in pairs),
        layout=str(model.loss.layout),
        graphs=graphs,
    )


def draw_adapter(model: Trainable) -> None:
    """Let an adapter do something: its B matrices begin as zeros, and hide the A matrices' gradients."""
    torch.manual_seed(4)
    with torch.no_grad():
        for name, value in model.parameters().items():
            if "lora_B" in name:
                value.normal_(std=0.05)


def gradients(model: Trainable, batch: list[TokenRecord]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the losses of a micro batch, and the gradients of their mean by parameter."""
    losses = model.loss(pack(batch))
    losses.mean().backward()
    out = {name: value.grad.clone() for name, value in model.parameters().items() if value.grad is not None}
    model.saved.zero_grad()
    return losses.detach(), out


def _largest(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    if set(before) != set(after):
        raise ValueError(f"gradients of other parameters: {sorted(set(before) ^ set(after))[:3]}")
    return max(
        float((value - after[name]).abs().max() / max(1.0, float(value.abs().max()))) for name, value in before.items()
    )


def table(results: Path) -> dict[str, str]:
    """Return the rows of a table that was written before, by type and method."""
    lines = results.read_text().splitlines() if results.exists() else []
    return {" ".join(line.split()[1:4:2]): line for line in lines if line.startswith("| `")}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", default=TYPES)
    parser.add_argument("--backend", default=LAYERS)
    parser.add_argument("--results", type=Path, help="rows of other types stay in it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    head = ["| type | method | records | graphs | losses | gradients | CPU s |", "|---|---|---|--:|--:|--:|--:|"]
    print("\n".join(head), flush=True)
    rows = table(options.results) if options.results else {}
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        for kind in options.types:
            for method in METHODS:
                begin = time.process_time()
                row = compare_type(kind, method, Path(scratch), options.backend)
                failed += not row.holds
                figures = f"{row.graphs} | {row.losses:.0e} | {row.gradients:.0e}"
                figures = f"as written: {row.reason} | | " if row.reason else figures
                seconds = time.process_time() - begin
                line = f"| `{kind}` | {method} | {row.layout} | {figures} | {seconds:.0f} |"
                print(line, flush=True)
                rows[f"`{kind}` {method}"] = line
                if options.results:
                    words = f"torch {torch.__version__}, `{options.backend}`, float32 on a CPU; differences beyond {LIMIT:g} fail. No GPU."
                    text = "\n".join(["# Compiled layers beside written ones", "", words, "", *head, *rows.values()])
                    options.results.write_text(text + "\n")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
