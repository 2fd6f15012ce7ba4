"""What makes a step faster changes neither losses nor gradients; what it saves is counted on fake tensors."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mixtune.artifacts.shards import TokenRecord
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.errors import ConfigError
from mixtune.train.batches import pack
from mixtune.train.modeling import activations
from mixtune.train.modeling.activations import PRODUCTS
from mixtune.train.modeling.speed import compile_layers, undo_compile
from mixtune.train.modeling.trainable import Trainable, load_trainable
from mixtune.train.run import run_training

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import compiled
from layer_traffic import count_layer

from .conftest import settings, task_in
from .test_loss import Draw
from .test_packing import base_of, make

RESULTS = Path(compiled.__file__).parent / "results"


def gradients(model: Trainable, records: list[TokenRecord]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    losses = model.loss(pack(records))
    losses.sum().backward()
    out = {name: value.grad.clone() for name, value in model.parameters().items() if value.grad is not None}
    for value in model.parameters().values():
        value.grad = None
    return losses.detach(), out


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "method"), [("llama", "lora"), ("gemma2", "sft"), ("qwen3_moe", "sft")])
def test_compiled_layers_give_the_same_losses_and_gradients(kind: str, method: str, tmp_path: Path) -> None:
    difference = compiled.compare_type(kind, method, tmp_path)
    assert difference.reason == ""
    assert 0 < difference.graphs <= 2, "for all layers and both micro batches"
    assert max(difference.losses, difference.gradients) < 1e-5


def test_more_than_ten_architectures_were_compiled_both_ways_within_rounding() -> None:
    rows = [line.strip("| ").split(" | ") for line in compiled.table(RESULTS / "compiled.md").values()]
    measured = {(row[0], row[1]): row for row in rows if "as written" not in row[3]}
    both = {kind for kind, _ in measured if {(kind, "lora"), (kind, "sft")} <= set(measured)}
    assert len(both) > 10
    assert all(float(figure) < 1e-5 for row in measured.values() for figure in row[4:6])


def test_a_model_that_does_not_compile_trains_as_it_is_written(tmp_path: Path, draw_records: Draw) -> None:
    model = load_trainable(make("llama", {}, tmp_path), settings(method="sft"))
    (layer, *_) = model.causal.model.layers
    own = layer.mlp.forward

    def host_read(hidden: torch.Tensor) -> torch.Tensor:
        return own(hidden) if hidden.sum().item() > 0 else own(hidden).clone()

    layer.mlp.forward = host_read
    losses, _ = gradients(model, draw_records(3, 1))
    assert "not one graph" in compile_layers(model.loss, draw_records(3, 1), "eager")
    assert all(part._compiled_call_impl is None for part in model.loss.modules())
    assert torch.equal(gradients(model, draw_records(3, 1))[0], losses)


def test_layers_compile_with_dropout_one_graph_for_all_of_them(draw_records: Draw) -> None:
    model = load_trainable(BASE_MODEL, settings(lora_options={"lora_dropout": 0.3}))
    records = draw_records(4, 1)
    assert model.dropout

    def step() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        assert model.dropout
        model.dropout.begin_step(2)
        model.dropout.begin_micro_batch(range(4), [len(record.input_ids) for record in records])
        return gradients(model, records)

    losses, grads = step()
    assert compile_layers(model.loss, records, "aot_eager") == ""
    compiled_losses, after = step()
    assert torch.allclose(losses, compiled_losses, atol=1e-5)
    assert all(torch.allclose(value, after[name], atol=1e-5, rtol=1e-4) for name, value in grads.items())
    undo_compile(model.loss)


class Products(TorchDispatchMode):
    """Names of the operations that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name().split(".")[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", ["lora", "sft"])
def test_products_and_attention_are_kept_and_the_rest_computed_again_to_the_same_bits(
    method: str, tmp_path: Path, draw_records: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "LEAST_INNER", 16)
    folder, records, results = make("llama", {}, tmp_path), draw_records(4, 1), {}
    for name in ("keep", "recompute", "selective"):
        model = load_trainable(folder, settings(method=method, memory={"activations": name}))
        with Products() as products:
            results[name] = (*gradients(model, records), products.names)
    losses, grads, _ = results["keep"]
    for name in ("recompute", "selective"):
        assert torch.equal(results[name][0], losses)
        assert all(torch.equal(value, results[name][1][key]) for key, value in grads.items())
    attention = [sum("_scaled_dot_product" in item for item in results[name][2]) for name in results]
    again = [sum(item in PRODUCTS for item in results[name][2]) for name in results]
    assert attention[2] == attention[0] < attention[1], "attention is not computed twice"
    assert again[0] <= again[2] < again[1]


def test_products_are_not_kept_alone_where_a_model_changes_them_in_place(
    shards_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "LEAST_INNER", 16)
    base = base_of("gpt_oss", {"num_local_experts": 4, "num_experts_per_tok": 2}, tmp_path / "base")
    task = task_in(tmp_path / "out", shards_path, method="sft", memory={"activations": "selective"})
    with pytest.raises(ConfigError, match=r"GptOssForCausalLM cannot keep products alone \(.*mutated.*take recompute"):
        run_training(replace(task, inputs=replace(task.inputs, base_model=base)))


SMALL = {"hidden_size": 512, "intermediate_size": 1792, "num_attention_heads": 4, "num_key_value_heads": 1}


def test_an_adapter_makes_no_copies_in_float32() -> None:
    before, after = (
        count_layer("lora", "recompute", compiled=False, has_casts=has_casts, **SMALL) for has_casts in (True, False)
    )
    assert before.casts - after.casts >= 2 * 7, "in and out of float32, of the input of seven adapters"
    assert after.num_bytes < 0.85 * before.num_bytes


def test_a_compiled_layer_takes_a_third_of_the_elementwise_traffic_or_less() -> None:
    first = count_layer("lora", "recompute", compiled=False, has_casts=True, **SMALL)
    now = count_layer("lora", "selective", **SMALL)
    assert now.num_bytes < first.num_bytes / 3
    assert now.kernels < first.kernels / 3
    assert now.products < first.products


def test_without_copies_in_float32_every_bit_is_the_same(draw_records: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings(memory={"dtype": "bfloat16"})
    records = draw_records(4, 1)
    losses, grads = gradients(load_trainable(BASE_MODEL, given), records)
    monkeypatch.setattr("mixtune.train.modeling.trainable.skip_casts", lambda model: None)
    expected, slow = gradients(load_trainable(BASE_MODEL, given), records)
    assert torch.equal(losses, expected)
    assert all(torch.equal(value, slow[name]) for name, value in grads.items())
