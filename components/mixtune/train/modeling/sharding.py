"""Weights, gradients and moments sharded over the processes (FSDP2): within a node, with a copy on every node.

Where a node's GPUs together do not hold the model, it is sharded over all nodes.

The same code runs on GPUs with NCCL and on CPUs with gloo. Trained weights are float32 wherever they lie; they are cast
to the dtype of the arithmetic when a layer is gathered. Source: Zhao et al. 2023, in torch's `fully_shard`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from mixtune.train.distributed import ProcessGroup
from mixtune.training_math import STATE_BYTES, node_holds


def shard(module: torch.nn.Module, group: ProcessGroup, dtype: torch.dtype, *, trains_all: bool) -> None:
    """Shard a model over the processes, layer by layer, and bring the shards to their devices.

    Gradients are summed over processes, not averaged: the loss is already that of the whole global batch. On CPUs they
    are summed in float64, for the reason of `grad_accumulation.py`. Between passes every parameter stays sharded, the
    root module's included; code that gathers it must reshard before returning.

    The module is on the CPU, in any dtype: layer by layer it is made float32 and sharded, so that only shards are ever
    float32, and no device holds it whole. Each node holds a copy. `dtype` is that of the arithmetic. `trains_all`: all
    weights are trained that tokens pass through; else an adapter, which stays whole.
    """
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float64 if group.on_cpu else torch.float32)
    size = sum(value.numel() for value in module.parameters())
    mesh = _device_mesh(group, size, STATE_BYTES if trains_all else dtype.itemsize)
    layers = [layer for layer in module.modules() if isinstance(layer, GradientCheckpointingLayer)]
    adapter = {value for value in module.parameters() if value.requires_grad and not trains_all}
    for value in adapter:  # small: every process holds it whole, and GradientAccumulator reduces its gradients
        value.data = value.data.to(group.device)
    for part in (*layers, module):
        if trains_all:
            to_float32(part)
        fully_shard(part, mesh=mesh, mp_policy=policy, ignored_params=adapter, reshard_after_forward=True)
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)


@contextmanager
def gathered_root(module: torch.nn.Module) -> Iterator[None]:
    """While the block runs, what no layer holds (embeddings, head) is whole: parts of a model can run by themselves."""
    if isinstance(module, FSDPModule):
        module.unshard()
    yield
    if isinstance(module, FSDPModule):
        module.reshard()


def to_float32(module: torch.nn.Module) -> None:
    """Make trained parameters float32 that are not sharded yet."""
    for value in module.parameters():
        if value.requires_grad and not isinstance(value, DTensor):
            value.data = value.data.float()


def _device_mesh(group: ProcessGroup, num_parameters: int, bytes_each: int) -> DeviceMesh:
    nodes = group.size // group.local_size
    if nodes == 1 or not node_holds(num_parameters, bytes_each, group.local_size, group.memory_bytes):
        if nodes > 1 and group.is_main:
            print(f"one node does not hold the model: it is sharded over all {group.size} processes", flush=True)
        return init_device_mesh(group.device.type, (group.size,))
    return init_device_mesh(group.device.type, (nodes, group.local_size), mesh_dim_names=("node", "shard"))
