"""Kernels and bytes of one layer of Llama 3 8B, by LoRA and by full tuning: as it is written, and as torch compiles it.

    python benchmarks/layer_traffic.py [--tokens 1024] [--results benchmarks/results/layer_traffic.md]

A step of the layer, forward and backward, is traced, not run: weights and tokens have sizes and no values. Eager rows add
up what every operation reads and writes; compiled ones take the count of torch's own scheduler (Inductor) after fusion.
Elementwise is all that is neither a matrix product nor attention: norms, activations, rotary embeddings, copies. The
first row is how mixtune 0.1 ran a layer: inputs recomputed, adapters with copies in float32.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from peft.tuners.lora.layer import LoraLayer
from torch._inductor import cpu_vec_isa
from torch._inductor.graph import GraphLowering
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

from mixtune.settings.from_dict import from_dict
from mixtune.settings.train import TrainSettings
from mixtune.train.modeling.activations import set_activations
from mixtune.train.modeling.adapters import add_adapter
from mixtune.train.modeling.kernels import VARLEN
from mixtune.train.modeling.speed import skip_casts

LLAMA_8B = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
    "num_hidden_layers": 1, "vocab_size": 64,
}  # fmt: skip
PRODUCTS = ("mm", "bmm", "addmm", "_scaled_dot_product", "_varlen_attn", "_flash_attention")


@dataclass(kw_only=True)
class Count:
    """What a step of one layer takes."""

    kernels: int = 0
    """Elementwise ones, fused or not."""
    num_bytes: int = 0
    """That they read and write."""
    products: int = 0
    """Matrix products and attention."""
    casts: int = 0
    """Copies into another dtype, where they are operations of their own."""


class Eager(TorchDispatchMode):
    """Counts operations as they are called."""

    def __init__(self, count: Count) -> None:
        super().__init__()
        self.count = count

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        outputs = [value for value in tree_leaves(out) if isinstance(value, torch.Tensor)]
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        storages = {value.untyped_storage()._cdata for value in inputs}
        is_view = all(value.untyped_storage()._cdata in storages for value in outputs)
        if name.startswith(PRODUCTS):
            self.count.products += 1
        elif not is_view:
            self.count.kernels += 1
            self.count.casts += name == "_to_copy"
            self.count.num_bytes += sum(value.numel() * value.element_size() for value in (*inputs, *outputs))
        return out


@contextmanager
def scheduled(count: Count) -> Iterator[None]:
    """While the block runs, Inductor schedules graphs, which are counted and neither built nor run."""

    def count_nodes(graph: Any) -> Any:
        graph.init_wrapper_code()
        graph._update_scheduler()  # lowers, plans and fuses
        for node in graph.scheduler.nodes:
            if node.is_extern():
                count.products += node.node is not None and "MultiOutput" not in type(node.node).__name__
            elif num_bytes := node.get_read_write_buffers_sizes():
                count.kernels += 1
                count.num_bytes += num_bytes
        shapes = [
            (out.get_size(), out.get_stride(), out.get_dtype())
            if hasattr(out, "get_dtype") and out.has_tensor_output()
            else None
            for out in graph.graph_outputs
        ]

        def empty(_inputs: list[Any]) -> list[Any]:
            return [
                None
                if item is None
                else torch.empty_strided([int(n) for n in item[0]], [int(n) for n in item[1]], dtype=item[2])
                for item in shapes
            ]

        return SimpleNamespace(call=empty, __file__="", runner=None)

    options = {"fx_graph_cache": False, "comprehensive_padding": False}
    isa = patch(
        "torch._inductor.cpu_vec_isa.pick_vec_isa", return_value=cpu_vec_isa.invalid_vec_isa
    )  # else it compiles
    with isa, patch.object(GraphLowering, "compile_to_module", count_nodes), torch._inductor.config.patch(options):
        yield


def as_fake(module: torch.nn.Module, mode: FakeTensorMode) -> None:
    """Turn what a module holds on the device `meta` into tensors of a CPU without values."""
    converter, device = mode.fake_tensor_converter, torch.device("cpu")
    with mode:
        for part in module.modules():
            for name, value in part._parameters.items():
                if value is not None:
                    fake = converter.from_meta_and_device(mode, value.detach(), device)
                    part._parameters[name] = torch.nn.Parameter(fake, requires_grad=value.requires_grad)
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = converter.from_meta_and_device(mode, buffer, device)


def make_layer(
    method: str,
    activations: str,
    *,
    has_casts: bool,
    tokens: int,
    sizes: dict[str, int],
    mode: FakeTensorMode | None = None,
) -> Callable[[], None]:
    """Return a step over one layer without values."""
    config = AutoConfig.for_model("llama", **sizes)
    settings = from_dict(TrainSettings, {"method": method}, "settings")
    with torch.device("meta"):
        causal = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation=VARLEN)
        saved = add_adapter(causal, settings, "base").peft if method == "lora" else causal
    causal.config.use_cache = False
    if method == "lora":
        if not has_casts:
            skip_casts(causal)
        assert has_casts == any(
            part.cast_input_dtype_enabled for part in causal.modules() if isinstance(part, LoraLayer)
        )
    saved.train()
    set_activations(causal, activations)
    if mode:
        as_fake(saved, mode)
    else:
        saved.to_empty(device="cpu")
    (layer,) = causal.model.layers
    width = config.hidden_size // config.num_attention_heads
    with mode or nullcontext():
        hidden = torch.zeros(1, tokens, config.hidden_size, dtype=torch.bfloat16, requires_grad=True)
        tables = tuple(torch.zeros(1, tokens, width, dtype=torch.bfloat16) for _ in range(2))
        starts = torch.tensor([0, tokens], dtype=torch.int32)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(
                hidden, position_embeddings=tables, cu_seq_lens_q=starts, cu_seq_lens_k=starts, max_length_q=tokens
            )
        out.backward(torch.zeros_like(out))

    step.layer = layer  # type: ignore[attr-defined]
    return step


def count_layer(
    method: str, activations: str, *, compiled: bool = True, has_casts: bool = False, tokens: int = 1024, **sizes: int
) -> Count:
    """Return what one layer takes for so many tokens."""
    count = Count()
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    if not compiled:
        step = make_layer(
            method, activations, has_casts=has_casts, tokens=tokens, sizes={**LLAMA_8B, **sizes}, mode=mode
        )
        with mode, Eager(count):
            step()
        return count
    torch._dynamo.reset()
    step = make_layer(method, activations, has_casts=has_casts, tokens=tokens, sizes={**LLAMA_8B, **sizes})
    step.layer.compile(fullgraph=True)  # type: ignore[attr-defined]
    with scheduled(count):
        step()
    return count


ROWS: dict[str, dict[str, Any]] = {
    "as mixtune 0.1: eager, recomputed, float32 copies": {
        "activations": "recompute",
        "compiled": False,
        "has_casts": True,
    },
    "eager, recomputed": {"activations": "recompute", "compiled": False},
    "eager, selective": {"activations": "selective", "compiled": False},
    "compiled, recomputed": {"activations": "recompute"},
    "compiled, selective": {"activations": "selective"},
    "compiled, kept": {"activations": "keep"},
}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    lines = [
        "| method | how | elementwise kernels | KB a token | of the first | products and attention | casts |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for method in ("lora", "sft"):
        first = 0.0
        for name, row in ROWS.items():
            if method == "sft" and row.get("has_casts"):
                continue
            count = count_layer(method, tokens=options.tokens, **row)
            kilobytes = count.num_bytes / options.tokens / 1e3
            first = first or kilobytes
            casts = "" if row.get("compiled", True) else str(count.casts)
            line = f"| {method} | {name} | {count.kernels} | {kilobytes:,.0f} | {first / kilobytes:.1f}x less | {count.products} | {casts} |"
            print(line, flush=True)
            lines.append(line)
    if options.results:
        words = f"One layer of Llama 3 8B's widths, {options.tokens} tokens in bfloat16, forward and backward; torch {torch.__version__}. Traced, not run; no GPU."
        options.results.write_text(f"# Kernels and bytes of one layer\n\n{words}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
