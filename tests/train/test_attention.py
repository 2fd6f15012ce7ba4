"""Whichever attention a GPU offers, a model trains with one that takes it; kernels are stood in for by their limits."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import _registry
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, PreTrainedModel, modeling_utils
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_flash_attention_utils import FLASH_ATTENTION_COMPATIBILITY_MATRIX

from mixtune.errors import ModelError
from mixtune.train.batches import pack
from mixtune.train.distributed import join_process_group
from mixtune.train.modeling import attention, kernels
from mixtune.train.modeling.attention import FLASH, load_with_attention, settle_attention
from mixtune.train.modeling.kernels import VARLEN
from mixtune.train.modeling.loss import PackedLoss
from mixtune.train.modeling.sharding import shard

from .test_loss import SHAPE, Draw

NAMES = (FLASH, VARLEN, "sdpa", "eager")
WIDE = {"head_dim": 320, "num_attention_heads": 2, "num_key_value_heads": 1}
SINKS = {"num_local_experts": 2, "num_experts_per_tok": 1, "layer_types": ["sliding_attention", "full_attention"]}
NARROW_VALUES = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1,
    "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "num_key_value_heads": 4,
}  # fmt: skip


def by_segments(q: Any, k: Any, v: Any, starts: Any, *_: Any, scale: Any, window_size: Any) -> Any:
    """torch's varlen attention with its kernel's limits, by plain arithmetic; 2.11's knows no enable_gqa."""
    if q.shape[-1] > 256 or q.shape[-1] != v.shape[-1]:
        raise RuntimeError("FlashAttention only supports head dimension at most 256, the same of query, key and value")
    out = []
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        parts = [part[begin:end].transpose(0, 1) for part in (q, k, v)]
        groups = len(parts[0]) // len(parts[1])
        keys, values = (part.repeat_interleave(groups, 0) for part in parts[1:])
        scores = parts[0] @ keys.transpose(1, 2) * (scale or q.shape[-1] ** -0.5)
        row, column = torch.arange(end - begin)[:, None], torch.arange(end - begin)[None]
        outside = (column > row) | ((row - column > window_size[0]) if window_size[0] >= 0 else False)
        out.append((scores.masked_fill(outside, -torch.inf).softmax(-1) @ values).transpose(0, 1))
    return torch.cat(out)


@pytest.fixture(autouse=True)
def kernels_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """flash-attn 2 is installed, and takes what transformers lets it have; all kernels enforce their limits."""
    monkeypatch.setattr(kernels, "varlen_attn", by_segments)
    monkeypatch.setattr(kernels, "_TELLS_GROUPS", False)

    def flash(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        return kernels.varlen_attention(module, query, key, value, None, **{**options, "softcap": None})

    own = PreTrainedModel._flash_attn_can_dispatch

    def can_dispatch(self: Any, *arguments: Any, **options: Any) -> bool:
        with monkeypatch.context() as patch:
            patch.setattr(PreTrainedModel, "_flash_attn_import_error", lambda *_, **__: None)
            return bool(own(self, 2, is_init_check=True))

    monkeypatch.setattr(PreTrainedModel, "_flash_attn_can_dispatch", can_dispatch)
    monkeypatch.setitem(FLASH_ATTENTION_COMPATIBILITY_MATRIX[2], "general_availability_check", lambda: True)
    monkeypatch.setattr(modeling_utils, "lazy_import_flash_attention", lambda *_, **__: None)
    before = AttentionInterface._global_mapping[FLASH]
    AttentionInterface.register(FLASH, flash)
    assert FLASH in ALL_MASK_ATTENTION_FUNCTIONS.valid_keys()
    yield
    AttentionInterface.register(FLASH, before)


def settled(
    kind: str, options: dict[str, Any], folder: Path, draw: Draw, names: tuple[str, ...] = NAMES
) -> tuple[PackedLoss, str]:
    torch.manual_seed(3)
    shape = {name: value for name, value in {**SHAPE, **options}.items() if value is not None}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape)).save_pretrained(folder)
    loss = PackedLoss(load_with_attention(folder, torch.float32, names).train(), torch.float32)
    lines = settle_attention(loss, draw(3, 1), names)
    assert all(value.grad is None for value in loss.parameters())
    assert loss.training
    return loss, "\n".join(lines)


MODELS: dict[str, tuple[str, dict[str, Any], set[str], str]] = {
    "any": ("llama", {}, {FLASH}, ""),
    "wide heads": ("gemma2", {**WIDE, "query_pre_attn_scalar": 320}, {"sdpa", "eager"}, "head dimension at most 256"),
    "sinks": ("gpt_oss", SINKS, {"eager"}, "s_aux|flash|sinks"),
    "no flash": ("bloom", {"n_layer": 2, "n_head": 4}, {"sdpa", "eager"}, ""),
    "narrow values": ("deepseek_v3", NARROW_VALUES, {FLASH, VARLEN}, ""),
    "by name": ("falcon", {"head_dim": None, "alibi": False, "new_decoder_architecture": False}, {"sdpa"}, ""),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_trains_with_an_attention_that_takes_it(name: str, tmp_path: Path, draw_records: Draw) -> None:
    kind, options, expected, reason = MODELS[name]
    loss, lines = settled(kind, options, tmp_path, draw_records, NAMES[kind == "falcon" :])
    now = loss.causal.config._attn_implementation
    assert now in expected, lines
    assert re.search(reason, lines)
    records = draw_records(4, 2)
    values = loss(pack(records))
    values.sum().backward()
    own = PackedLoss(AutoModelForCausalLM.from_pretrained(str(tmp_path)).train(), torch.float32)
    if kind != "bloom":  # whose packed records see one another, which `probe` finds out
        assert torch.allclose(values, own(pack(records)), atol=2e-5)


def test_a_sharded_model_finds_its_attention_too(tmp_path: Path, draw_records: Draw) -> None:
    torch.manual_seed(3)
    options = {**SHAPE, **WIDE, "query_pre_attn_scalar": 320}
    AutoModelForCausalLM.from_config(AutoConfig.for_model("gemma2", **options)).save_pretrained(tmp_path)
    with join_process_group() as group:
        loss = PackedLoss(load_with_attention(tmp_path, torch.float32, NAMES).train(), torch.bfloat16)
        shard(loss, group, torch.bfloat16, trains_all=True)
        (first, *_) = settle_attention(loss, draw_records(3, 1), NAMES)
        assert "cannot train with flash_attention_2 (RuntimeError: FlashAttention only supports head" in first
        values = loss(pack(draw_records(3, 2)))
        values.sum().backward()
        assert torch.isfinite(values).all()
        assert all(value.grad is not None for value in loss.parameters())


def test_a_model_that_no_attention_takes_is_refused_with_every_reason(
    tmp_path: Path, draw_records: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(PackedLoss, "_compute", broken)
    with pytest.raises(ModelError, match=r"LlamaForCausalLM cannot train with eager .*no kernel image"):
        settled("llama", {}, tmp_path, draw_records)


def test_out_of_memory_is_not_taken_for_a_kernels_limit(
    tmp_path: Path, draw_records: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PackedLoss, "_compute", full)
    with pytest.raises(torch.OutOfMemoryError):
        settled("llama", {}, tmp_path, draw_records)


@pytest.mark.parametrize("distribution", ["flash-attn", "flash-attn-4"])
def test_only_version_2_of_flash_attn_is_taken_for_it(distribution: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    available: Callable[[], bool] = lambda: distribution == "flash-attn"  # noqa: E731
    monkeypatch.setattr(attention, "is_flash_attn_2_available", available)
    names = attention.attention_names(torch.bfloat16)
    assert names[0] == (FLASH if distribution == "flash-attn" else VARLEN)
    assert attention.attention_names(torch.float32) == ()


def test_flash_attention_3_runs_torchs_attention_where_it_is_installed_and_stands_aside_where_it_cannot(
    tmp_path: Path, draw_records: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert kernels.activate_flash() == ""
    active = []

    class Handle:
        def remove(self) -> None:
            active.clear()

    def register() -> Handle:
        active.append("FA3")
        return Handle()

    monkeypatch.setitem(_registry._FLASH_ATTENTION_IMPLS, "FA3", register)
    (tmp_path / "flash_attn_interface.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert kernels.activate_flash() == "FA3"
    assert attention.attention_names(torch.bfloat16)[0] == VARLEN
    monkeypatch.undo()

    def limited(q: Any, *arguments: Any, **options: Any) -> Any:
        if active:
            raise RuntimeError("FA3: dense query must be 4D")
        return by_segments(q, *arguments, **options)

    monkeypatch.setattr(kernels, "varlen_attn", limited)
    monkeypatch.setattr(kernels, "_TELLS_GROUPS", False)
    loss, lines = settled("llama", {}, tmp_path / "base", draw_records, (VARLEN, *attention.OWN))
    assert loss.causal.config._attn_implementation == VARLEN and not active
    assert lines == f"LlamaForCausalLM cannot train with {VARLEN} by FA3 (RuntimeError: FA3: dense query must be 4D)"
