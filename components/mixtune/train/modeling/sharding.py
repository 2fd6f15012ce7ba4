"""Weights, gradients and moments in slices over the processes (FSDP2): within a node, with a copy on every node.

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

from mixtune.train.distributed import World


def shard(module: torch.nn.Module, world: World, dtype: torch.dtype) -> None:
    """Slice a model over the processes, layer by layer, and bring the slices to their devices.

    Gradients are summed over processes, not averaged: the loss is already that of the whole global batch. On CPUs they
    are summed in float64, for the same reason as in `sums.py`. Outside of a pass all is in slices, also what no layer
    holds: whoever looks at the model in between leaves nothing gathered that a step or a checkpoint would miss.

    Args:
        module: On the CPU, in any dtype; layer by layer it is made float32 and sliced, so that only slices are ever
            float32, and no device holds it whole.
        world: Its nodes hold a copy each.
        dtype: Of the arithmetic.
    """
    on_cpu = world.device.type == "cpu"
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float64 if on_cpu else torch.float32)
    mesh = _mesh(world)
    layers = [layer for layer in module.modules() if isinstance(layer, GradientCheckpointingLayer)]
    adapted = not all(value.requires_grad for value in module.parameters())
    adapters = {value for value in module.parameters() if adapted and value.requires_grad}
    for value in adapters:  # small: every process holds them whole, and their gradients are added up in `sums.py`
        value.data = value.data.to(world.device)
    for part in (*layers, module):
        if not adapted:
            to_float(part)
        fully_shard(part, mesh=mesh, mp_policy=policy, ignored_params=adapters, reshard_after_forward=True)
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)


@contextmanager
def gathered_root(module: torch.nn.Module) -> Iterator[None]:
    """A block in which what no layer holds (embeddings, head) is whole: parts of a model run by themselves."""
    if isinstance(module, FSDPModule):
        module.unshard()
    yield
    if isinstance(module, FSDPModule):
        module.reshard()


def to_float(module: torch.nn.Module) -> None:
    """Make parameters float32 that are not in slices yet."""
    for value in module.parameters():
        if not isinstance(value, DTensor):
            value.data = value.data.float()


def _mesh(world: World) -> DeviceMesh:
    nodes = world.size // world.local_size
    if nodes == 1:
        return init_device_mesh(world.device.type, (world.size,))
    return init_device_mesh(world.device.type, (nodes, world.local_size), mesh_dim_names=("node", "slice"))
