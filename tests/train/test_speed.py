"""What makes a step faster changes neither losses nor gradients; what it saves is counted on fake tensors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

from mixtune.artifacts.shards import TokenRecord
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.train.batches import pack
from mixtune.train.modeling.speed import compile_layers, undo_compile
from mixtune.train.modeling.trainable import Trainable, load_trainable

from .conftest import settings
from .test_loss import Draw
from .test_packing import make

FAMILIES: dict[str, dict[str, Any]] = {"llama": {}, "gemma2": {"sliding_window": 8, "query_pre_attn_scalar": 8}}


def gradients(model: Trainable, records: list[TokenRecord]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    losses = model.loss(pack(records))
    losses.sum().backward()
    out = {name: value.grad.clone() for name, value in model.parameters().items() if value.grad is not None}
    for value in model.parameters().values():
        value.grad = None
    return losses.detach(), out


@pytest.mark.parametrize(("kind", "method"), [("llama", "lora"), ("gemma2", "sft")])
def test_compiled_layers_give_the_same_losses_and_gradients(
    kind: str, method: str, tmp_path: Path, draw_records: Draw
) -> None:
    memory = {"activations": "recompute"}
    model = load_trainable(make(kind, FAMILIES[kind], tmp_path), settings(method=method, lora_rank=4, memory=memory))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, value in model.parameters().items():
            if "lora_B" in name:
                value.normal_(std=0.1)
    batches = [draw_records(3, 1), draw_records(5, 2)]
    eager = [gradients(model, records) for records in batches]
    assert compile_layers(model.loss, batches[0], "aot_eager") == ""
    for records, (losses, grads) in zip(batches, eager, strict=True):
        compiled_losses, compiled = gradients(model, records)
        assert torch.allclose(losses, compiled_losses, atol=1e-5)
        assert set(grads) == set(compiled)
        assert all(torch.allclose(value, compiled[name], atol=1e-5, rtol=1e-4) for name, value in grads.items())
    undo_compile(model.loss)
    assert torch.equal(gradients(model, batches[0])[0], eager[0][0])


def test_a_model_that_does_not_compile_trains_as_it_is_written(tmp_path: Path, draw_records: Draw) -> None:
    model = load_trainable(make("llama", {}, tmp_path), settings(method="sft"))
    (layer, *_) = model.causal.model.layers
    own = layer.mlp.forward

    def host_read(hidden: torch.Tensor) -> torch.Tensor:
        return own(hidden) if hidden.sum().item() > 0 else own(hidden).clone()

    layer.mlp.forward = host_read
    losses, _ = gradients(model, draw_records(3, 1))
    assert "not one graph" in compile_layers(model.loss, draw_records(3, 1), "aot_eager")
    assert all(part._compiled_call_impl is None for part in model.loss.modules())
    assert torch.equal(gradients(model, draw_records(3, 1))[0], losses)


def test_a_training_says_why_its_layers_are_not_compiled(
    train: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, memory={"compiled": "yes"}, lora_options={"lora_dropout": 0.1})
    assert "layers are not compiled (dropout draws by record)" in capsys.readouterr().out


class Traffic(TorchDispatchMode):
    """Bytes that operations read and write which do no matrix product, and their number."""

    PRODUCTS = ("mm", "bmm", "addmm", "_scaled_dot_product", "_efficient", "_flash")

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = self.num_casts = self.num_kernels = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        outputs = [value for value in tree_leaves(out) if isinstance(value, torch.Tensor)]
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        storages = {value.untyped_storage()._cdata for value in inputs}
        is_view = bool(outputs) and all(value.untyped_storage()._cdata in storages for value in outputs)
        if not is_view and not name.startswith(self.PRODUCTS):
            self.num_bytes += sum(value.numel() * value.element_size() for value in (*inputs, *outputs))
            self.num_casts += name == "_to_copy"
            self.num_kernels += 1
        return out


def lora_traffic(tmp_path: Path, *, casts: bool, monkeypatch: pytest.MonkeyPatch) -> Traffic:
    """Of one layer of 8B's widths, bfloat16 with an adapter, forward and backward over 64 tokens."""
    config = AutoConfig.for_model(
        "llama", hidden_size=512, intermediate_size=1792, num_attention_heads=4, num_key_value_heads=1,
        num_hidden_layers=1, vocab_size=64,
    )  # fmt: skip
    if casts:
        monkeypatch.setattr("mixtune.train.modeling.trainable.skip_casts", lambda model: None)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = load_trainable(tmp_path, settings(memory={"dtype": "bfloat16"}))
    (layer,) = model.causal.model.layers
    mode, traffic = FakeTensorMode(allow_non_fake_inputs=True), Traffic()
    with mode, traffic, model.loss.precision(torch.device("cpu")):
        hidden = torch.zeros(1, 2048, 512, dtype=torch.bfloat16).requires_grad_()
        tables = torch.zeros(1, 2048, 128, dtype=torch.bfloat16), torch.zeros(1, 2048, 128, dtype=torch.bfloat16)
        layer(hidden, position_embeddings=tables).sum().backward()
    return traffic


def test_an_adapter_makes_no_copies_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        before = lora_traffic(tmp_path, casts=True, monkeypatch=patch)
    after = lora_traffic(tmp_path, casts=False, monkeypatch=monkeypatch)
    assert before.num_casts - after.num_casts >= 2 * 7, "in and out of float32, of the input of seven adapters"
    assert after.num_bytes < 0.85 * before.num_bytes


def test_without_copies_in_float32_every_bit_is_the_same(draw_records: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings(memory={"dtype": "bfloat16"})
    records = draw_records(4, 1)
    losses, grads = gradients(load_trainable(BASE_MODEL, given), records)
    monkeypatch.setattr("mixtune.train.modeling.trainable.skip_casts", lambda model: None)
    expected, slow = gradients(load_trainable(BASE_MODEL, given), records)
    assert torch.equal(losses, expected)
    assert all(torch.equal(value, slow[name]) for name, value in grads.items())
