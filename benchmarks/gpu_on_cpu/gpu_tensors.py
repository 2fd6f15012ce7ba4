"""Tensors that lie on a GPU as far as PyTorch can tell, and hold their values on the CPU."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from gpu_process import GPU_NUMBER
from torch.nn.attention import varlen
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("cuda", GPU_NUMBER)
CPU = torch.device("cpu")
aten = torch.ops.aten
_own_data: Any = torch._C.TensorBase.data  # type: ignore[attr-defined]


class GpuTensor(torch.Tensor):
    """A tensor on this process's GPU; its values are those of `held`, a tensor of the same form on the CPU."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls: type["GpuTensor"], held: torch.Tensor, requires_grad: bool = False) -> "GpuTensor":
        made: GpuTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=GPU,
            requires_grad=requires_grad,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return compute(func, args, kwargs or {})

    def tolist(self) -> Any:
        """Return the values, fetched from the GPU."""
        return self.cpu().tolist()

    def numpy(self, **_: Any) -> Any:
        """Refuse, as CUDA does."""
        raise TypeError("can't convert cuda device type tensor to numpy. Use Tensor.cpu() first.")

    def untyped_storage(self) -> torch.UntypedStorage:
        """Return where the values lie."""
        return self.held.untyped_storage()

    def storage(self) -> Any:
        """Return where the values lie."""
        return self.held.storage()

    def data_ptr(self) -> int:
        """Return where the values lie."""
        return self.held.data_ptr()

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"GpuTensor({self.held!r})"


def _set_data(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Put other values into a tensor, on whichever side they lie: a plain tensor would forget what a GpuTensor holds."""
    if not isinstance(value, GpuTensor) and not isinstance(tensor, GpuTensor):
        _own_data.__set__(tensor, value)
        return
    value = value.detach()
    if isinstance(tensor, torch.nn.Parameter):
        value = torch.nn.Parameter(value, requires_grad=tensor.requires_grad)
    torch.utils.swap_tensors(tensor, value)


def _get_data(tensor: torch.Tensor) -> torch.Tensor:
    data: torch.Tensor = tensor.detach() if isinstance(tensor, GpuTensor) else _own_data.__get__(tensor)
    return data


torch.Tensor.data = property(_get_data, _set_data)  # type: ignore[assignment, misc]


class GpuMode(TorchDispatchMode):
    """While it is on, operations can make tensors on the GPU."""

    def __enter__(self) -> "GpuMode":
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") comes by here, too
        super().__enter__()
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute on the GPU or the CPU, whichever the tensors lie on."""
        if any(kind.__name__ in ("DTensor", "AsyncCollectiveTensor") for kind in types):
            return NotImplemented  # they come again with what they are made of
        if body := _DECOMPOSED.get(func):
            with self:
                return body(*args, **(kwargs or {}))
        return compute(func, args, kwargs or {})


GPU_MODE = GpuMode()


def compute(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute one operation by the CPU, on the side on which its tensors lie.

    Raises:
        RuntimeError: They lie on both, and CUDA would refuse it.
    """
    if _is_composite(func):
        with GPU_MODE:
            return func.decompose(*args, **kwargs)
    on_gpu = [item for item in _tensors((args, kwargs)) if isinstance(item, GpuTensor)]
    if on_gpu and func not in (aten._to_copy.default, aten.copy_.default) and func.namespace != "c10d":
        _check_sides(func, args, kwargs)
    goes_to_gpu = isinstance(args[0], GpuTensor) if func is aten.copy_.default else bool(on_gpu)
    if kwargs.get("device") is not None:
        goes_to_gpu = torch.device(kwargs["device"]).type == "cuda"
        kwargs = {**kwargs, "device": CPU if goes_to_gpu else kwargs["device"]}
    kwargs = {key: False if key in ("non_blocking", "pin_memory") else value for key, value in kwargs.items()}
    held_args, held_kwargs = _replaced((args, kwargs), lambda item: item.held if isinstance(item, GpuTensor) else item)
    result = _BY_PLAIN_ARITHMETIC.get(func, func)(*held_args, **held_kwargs)
    return _replaced(result, lambda item: _wrap(item, on_gpu)) if goes_to_gpu else result


@cache
def _is_composite(func: Any) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"))


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors among an operation's arguments; torch's own trees take twice the time of the arithmetic."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def _replaced(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return an operation's arguments or results with others in place of its tensors."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: _replaced(item, function) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_replaced(item, function) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


def _check_sides(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse what CUDA refuses: tensors of both sides, but for numbers and for indices into a tensor on the GPU."""
    if func.name().startswith(("aten::index", "aten::_index_put_impl_", "aten::_unsafe_index")):
        args = tuple(item for place, item in enumerate(args) if place != 1)
    others = [item for item in _tensors((args, kwargs)) if not isinstance(item, GpuTensor)]
    if astray := [tuple(item.shape) for item in others if item.dim()]:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {GPU} and cpu! ({func} "
            f"with {astray} on cpu)"
        )


def _wrap(item: torch.Tensor, on_gpu: Sequence[GpuTensor]) -> torch.Tensor:
    """Return a result as a tensor on the GPU: the argument that it is, or a new one."""
    for argument in on_gpu:
        if argument.held is item and (argument.shape, argument.stride()) == (item.shape, item.stride()):
            return argument
    # A view of a tensor from outside of inference mode is none from inside of it.
    with torch.inference_mode(torch.is_inference_mode_enabled() and all(part.is_inference() for part in on_gpu)):
        return GpuTensor(item)


def _check_flash(query: Any, key: Any, value: Any, starts: Any, is_causal: bool, right: int | None) -> None:
    """Refuse what FlashAttention 2 refuses, in its words."""
    if query.dtype not in (torch.bfloat16, torch.float16):
        raise RuntimeError(f"FlashAttention only support fp16 and bf16 data type, got {query.dtype}")
    width = query.shape[-1]
    if width > 256 or width % 8 or width != value.shape[-1]:
        raise RuntimeError(f"FlashAttention takes heads of at most 256, a multiple of 8, all alike; got {width}")
    if any(part.stride(-1) != 1 for part in (query, key, value)):
        raise RuntimeError("Input tensor must have contiguous last dimension")
    if starts.dtype != torch.int32 or not starts.is_contiguous():
        raise RuntimeError("cu_seqlens must be int32 and contiguous")
    if not is_causal and right != 0:
        raise RuntimeError("attention to later tokens is stood in for by nothing here")


def _records(parts: Sequence[torch.Tensor], starts: torch.Tensor, groups: int) -> Iterator[list[torch.Tensor]]:
    """Yield each record's parts, (heads, tokens, width) in float32; keys and values once for every query head."""
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        query, key, value, *rest = (part[begin:end].transpose(0, 1).float() for part in parts)
        yield [query, key.repeat_interleave(groups, 0), value.repeat_interleave(groups, 0), *rest]


def _weights(query: torch.Tensor, key: torch.Tensor, scale: float, left: int | None) -> torch.Tensor:
    row, column = torch.arange(query.shape[1])[:, None], torch.arange(query.shape[1])[None]
    is_hidden = (column > row) | (row - column > left if left is not None and left >= 0 else row < 0)
    return (query @ key.transpose(1, 2) * scale).masked_fill(is_hidden, -math.inf).softmax(-1)


def _flash_forward(
    query: Any, key: Any, value: Any, starts: Any, _k: Any, _mq: Any, _mk: Any, _p: Any, is_causal: bool, *_: Any,
    scale: float | None = None, window_size_left: int | None = None, window_size_right: int | None = None, **__: Any,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    _check_flash(query, key, value, starts, is_causal, window_size_right)
    scale, groups = scale or query.shape[-1] ** -0.5, query.shape[1] // key.shape[1]
    out = [_weights(q, k, scale, window_size_left) @ v for q, k, v in _records((query, key, value), starts, groups)]
    sums = torch.zeros(query.shape[1], query.shape[0])
    state = torch.zeros(2, dtype=torch.uint64)
    return torch.cat(out, 1).transpose(0, 1).to(query.dtype).contiguous(), sums, state, torch.zeros(()), torch.zeros(0)


def _flash_backward(
    grad: Any, query: Any, key: Any, value: Any, _out: Any, _sums: Any, starts: Any, _k: Any, _mq: Any, _mk: Any,
    _p: Any, is_causal: bool, *_: Any, scale: float | None = None, window_size_left: int | None = None,
    window_size_right: int | None = None, **__: Any,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    _check_flash(query, key, value, starts, is_causal, window_size_right)
    scale, groups = scale or query.shape[-1] ** -0.5, query.shape[1] // key.shape[1]
    grads: list[tuple[torch.Tensor, ...]] = []
    for q, k, v, of_out in _records((query, key, value, grad), starts, groups):
        weights = _weights(q, k, scale, window_size_left)
        of_weights = of_out @ v.transpose(1, 2)
        of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True)) * scale
        of_key, of_value = of_scores.transpose(1, 2) @ q, weights.transpose(1, 2) @ of_out
        # Key heads that several query heads share get the sum of their gradients.
        grads.append((of_scores @ k, *(part.unflatten(0, (-1, groups)).sum(1) for part in (of_key, of_value))))
    return tuple(torch.cat(parts, 1).transpose(0, 1).to(query.dtype).contiguous() for parts in zip(*grads, strict=True))


def _matmul_into(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return a.to(dtype) @ b.to(dtype)


def _histc(values: torch.Tensor, *options: Any, **more: Any) -> torch.Tensor:
    return torch.histc(values.float(), *options, **more).to(values.dtype)


_BY_PLAIN_ARITHMETIC: dict[Any, Callable[..., Any]] = {
    aten._flash_attention_forward.default: _flash_forward,
    aten._flash_attention_backward.default: _flash_backward,
    aten.histc.default: _histc,
    aten.mm.dtype: _matmul_into,
    aten.bmm.dtype: _matmul_into,
    aten.record_stream.default: lambda *_: None,
}
"""What CUDA has and the CPU has not."""
_DECOMPOSED: dict[Any, Callable[..., Any]] = {
    torch.ops.torch_attn._varlen_attn.default: varlen._varlen_attn._init_fn,  # type: ignore[attr-defined]
    torch.ops.torch_attn._varlen_attn_backward.default: varlen._varlen_attn_backward._init_fn,  # type: ignore[attr-defined]
}
"""torch's own operations of which the parts are computed."""
