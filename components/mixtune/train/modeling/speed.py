"""The same arithmetic with fewer passes over memory: adapters without copies in float32, and compiled layers."""

from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer
from torch._dynamo.utils import counters
from transformers.modeling_layers import GradientCheckpointingLayer

from mixtune.artifacts.shards import TokenRecord
from mixtune.train.modeling.attention import try_training
from mixtune.train.modeling.loss import PackedLoss

RECOMPILES = 32
"""Graphs of one layer's code: one for each kind of layer, with gradients and without."""


def skip_casts(model: torch.nn.Module) -> None:
    """Hand an adapter its input as it is: autocast rounds it to the dtype of the arithmetic anyway.

    PEFT makes a copy in float32 of every input first, of which autocast makes one in bfloat16 again: the same bits.
    """
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.cast_input_dtype_enabled = False


def compile_layers(loss: PackedLoss, records: list[TokenRecord], backend: str = "inductor") -> str:
    """Compile a model's layers, one graph for all lengths and all that are alike, and try it; return why not."""
    layers: list[Any] = [part for part in loss.decoder.modules() if isinstance(part, GradientCheckpointingLayer)]
    if not layers:
        return "transformers does not mark its layers"
    torch._dynamo.config.recompile_limit = max(RECOMPILES, torch._dynamo.config.recompile_limit)
    torch._dynamo.config.suppress_errors = False  # the trial has to see them
    counters.clear()
    for layer in layers:
        layer.compile(dynamic=True, backend=backend)
    reason = try_training(loss, records)
    if not reason and (breaks := counters["graph_break"]):
        reason = f"a layer is not one graph: {next(iter(breaks)).strip().splitlines()[0][:200]}"
    if reason:
        undo_compile(loss)
    else:
        torch._dynamo.config.suppress_errors = True  # a length that does not compile later runs as it is written
    return reason


def undo_compile(loss: PackedLoss) -> None:
    """Let a model's layers run as they are written."""
    for part in loss.modules():
        part._compiled_call_impl = None
    torch._dynamo.config.suppress_errors = False
    torch._dynamo.reset()
