"""Architectures that let packed records see one another are found without a tolerance, and train one record at a time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.lfm2 import modeling_lfm2

from mixtune.artifacts.model import read_model
from mixtune.artifacts.shards import TokenRecord
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.errors import DataError, ModelError
from mixtune.inference.text_parts import find_experts
from mixtune.interpolation import load_pretrained
from mixtune.settings.train import AdapterSettings
from mixtune.train.batches import Layout, check_ids, pack
from mixtune.train.modeling.loss import PackedLoss
from mixtune.train.modeling.probe import probe
from mixtune.train.modeling.trainable import load_trainable
from mixtune.train.run import run_training

from .conftest import BATCH, drawn, settings, task_in
from .test_loss import SHAPE, Draw

SMALL_SSM = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
LEAKING: dict[str, dict[str, Any]] = {
    "lfm2": {"layer_types": ["conv", "full_attention"], "initializer_range": 0.3},
    "bamba": {"attn_layer_indices": [1], **SMALL_SSM},
    "qwen3_5_text": {
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    },
    "bloom": {"n_layer": 2, "n_head": 4},
    "opt": {"ffn_dim": 48, "max_position_embeddings": 512, "word_embed_proj_dim": 32},
}
APART: dict[str, dict[str, Any]] = {
    "llama": {},
    "gemma2": {"sliding_window": 8, "query_pre_attn_scalar": 8},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
}


LONG_ROPE: dict[str, dict[str, Any]] = {
    "phi3": {
        "original_max_position_embeddings": 20,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 4,
            "long_factor": [4.0] * 4,
        },
    },
    "llama": {
        "max_position_embeddings": 25,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    },
}


def make(kind: str, options: dict[str, Any], folder: Path) -> Path:
    torch.manual_seed(3)
    config = AutoConfig.for_model(kind, **{**SHAPE, **options})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def load(folder: Path, dtype: str) -> PackedLoss:
    kind = getattr(torch, dtype)
    return PackedLoss(AutoModelForCausalLM.from_pretrained(str(folder), dtype=kind).train(), kind)


def losses_alone(loss: PackedLoss, records: list[TokenRecord]) -> torch.Tensor:
    """By transformers' own logits, each record by itself."""
    parts = []
    for record in records:
        ids = torch.from_numpy(record.input_ids.astype(np.int64))
        logits = loss.causal(input_ids=ids[None], use_cache=False).logits[0].float()
        places = np.flatnonzero(record.loss_mask[1:])
        parts.append(torch.nn.functional.cross_entropy(logits[places], ids[places + 1], reduction="none"))
    return torch.cat(parts)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", LEAKING)
def test_a_leak_is_found_in_both_dtypes_and_records_in_rows_are_exact(
    kind: str, dtype: str, tmp_path: Path, draw_records: Draw
) -> None:
    loss = load(make(kind, LEAKING[kind], tmp_path), dtype)
    assert "packed records" in probe(loss, draw_records(3, 1))
    assert loss.layout is Layout.ROWS
    loss.eval()
    if dtype == "float32":
        records = draw_records(4, 2)
        wanted = losses_alone(loss, records)
        assert torch.allclose(loss(pack(records)), wanted, atol=2e-6)
        loss.layout = Layout.SINGLE
        assert torch.allclose(torch.cat([loss(pack([record])) for record in records]), wanted, atol=2e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", APART)
def test_records_that_do_not_see_one_another_are_packed(
    kind: str, dtype: str, tmp_path: Path, draw_records: Draw
) -> None:
    loss = load(make(kind, APART[kind], tmp_path), dtype)
    assert probe(loss, draw_records(3, 1)) == ""
    assert loss.layout is Layout.PACKED
    assert loss.training


@pytest.mark.parametrize("kind", LONG_ROPE)
def test_a_record_beyond_the_first_positions_turns_no_other_records_otherwise(
    kind: str, shards_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixtune.train.modeling.probe.PROBED_TOKENS", 8)  # fewer than a record has, as of real ones
    task, losses = task_in(tmp_path, shards_path), list[float]()
    base = base_of(kind, LONG_ROPE[kind], tmp_path / "base")
    task = replace(task, inputs=replace(task.inputs, base_model=base))
    run_training(task, lambda _, step: losses.append(step.loss))
    records, loss = drawn(BATCH, 0), load(tmp_path / "base", "float32")
    assert len({len(record.input_ids) > loss.longest_shared for record in records}) == 2
    own = [losses_alone(loss, [record]).sum().item() * record.weight for record in records]
    total = sum(record.num_loss_tokens * record.weight for record in records)
    assert losses[0] == pytest.approx(sum(own) / total, abs=1e-5)


def test_rounding_of_large_logits_in_bfloat16_is_no_fault_and_another_scale_is(
    tmp_path: Path, draw_records: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = load(make("cohere", {"logit_scale": 0.25}, tmp_path), "bfloat16")
    with torch.no_grad():
        loss.causal.get_output_embeddings().weight.mul_(80)
    own = loss.causal.forward

    def other_kernels(**inputs: Any) -> Any:
        """As where a product of another shape adds in another order: the last of eight bits differs, of any token."""
        out = own(**inputs)
        noise = torch.randn(out.logits.shape, generator=torch.Generator().manual_seed(out.logits.shape[1]))
        out.logits = out.logits * (1 + noise / 256)
        return out

    monkeypatch.setattr(loss.causal, "forward", other_kernels)
    records = draw_records(6, 1)
    with torch.no_grad():
        packed = pack(records)
        gaps = (loss(packed) - losses_alone(loss, records)).abs()
    assert gaps.max() > 0.25, "a token alone would have been enough to refuse it"
    assert probe(loss, records) == ""
    loss._scales.clear()
    with pytest.raises(ModelError, match="other losses than by the model's own logits"):
        probe(loss, records)


def test_records_are_packed_where_the_models_kernels_are_told_their_borders(
    tmp_path: Path, draw_records: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, records = load(make("lfm2", LEAKING["lfm2"], tmp_path), "float32"), draw_records(5, 2)
    own = modeling_lfm2.causal_conv1d_fn.__wrapped__

    def by_record(hidden: torch.Tensor, *arguments: Any, seq_idx: torch.Tensor | None = None, **options: Any) -> Any:
        """As causal-conv1d on a GPU: nothing goes over from a record to the next."""
        if seq_idx is None:
            return own(hidden, *arguments)
        parts = hidden.split(torch.bincount(seq_idx[0]).tolist(), dim=-1)
        return torch.cat([own(part, *arguments) for part in parts], -1)

    monkeypatch.setattr(modeling_lfm2, "causal_conv1d_fn", by_record)
    assert "packed records see one another" in probe(loss, records)
    assert loss.layout is Layout.BORDERS and loss.layout.is_packed
    assert torch.allclose(loss.eval()(pack(records)), losses_alone(loss, records), atol=2e-6)


def base_of(kind: str, options: dict[str, Any], folder: Path) -> str:
    make(kind, options, folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((BASE_MODEL / name).read_bytes())
    return str(folder)


def test_a_training_says_that_it_does_not_pack_and_its_manifest_too(
    shards_path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = task_in(tmp_path / "out", shards_path, method="sft", learning_rate=1e-3)
    base = base_of("lfm2", LEAKING["lfm2"], tmp_path / "base")
    run_training(replace(task, inputs=replace(task.inputs, base_model=base)))
    said = capsys.readouterr().out
    assert "each record is a row of its own" in said
    assert "trained are 100% of the weights: MLP, attention" in said
    manifest = read_model(task.outputs.model_path)
    assert manifest.figures and manifest.reach
    assert not manifest.figures.packed
    assert manifest.reach.share == 1
    assert manifest.figures.final_loss < manifest.figures.first_loss


REACH: dict[str, tuple[dict[str, Any], str]] = {
    "mixtral": ({"num_local_experts": 4, "num_experts_per_tok": 2}, "gate"),
    "falcon_h1": ({**SMALL_SSM, "mamba_d_ssm": 64}, "out_proj"),
}


@pytest.mark.parametrize("kind", REACH)
def test_an_adapter_on_all_linear_layers_leaves_routers_and_mambas_output_alone(
    kind: str, tmp_path: Path, draw_records: Draw
) -> None:
    options, left_alone = REACH[kind]
    given = settings(lora_rank=4)
    model = load_trainable(make(kind, options, tmp_path), given)
    assert given.lora_options == AdapterSettings(), "PEFT's own patterns stay its own"
    model.loss(pack(draw_records(3, 1))).sum().backward()
    assert all(value.grad is not None for value in model.parameters().values())
    adapted = {name.split(".lora_A")[0].rpartition(".")[2] for name in model.parameters() if "lora_A" in name}
    assert {"q_proj", "o_proj"} <= adapted
    assert left_alone not in adapted
    assert model.adapter
    assert model.reach.by_kind["attention"] == 1
    if kind == "mixtral":
        assert model.reach.by_kind["experts"] == 1, "fused experts are adapted, too"
        assert model.reach.by_kind["routers"] == 0


def test_a_token_beyond_the_embedding_is_named_with_its_record(draw_records: Draw) -> None:
    record = draw_records(1, 0)[0]
    check_ids([record], 512)
    with pytest.raises(DataError, match=rf"record {record.record_id}: token {record.input_ids.max()} has no row"):
        check_ids([record], int(record.input_ids.max()))


def test_a_model_that_sees_later_tokens_is_refused(tmp_path: Path, draw_records: Draw) -> None:
    loss = load(make("bert", {"attn_implementation": "eager"}, tmp_path), "float32")
    with pytest.raises(ModelError, match="no causal language model"):
        probe(loss, draw_records(3, 1))


def test_other_bits_by_the_number_of_an_experts_tokens_are_no_look_ahead(
    tmp_path: Path, draw_records: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = load(make("qwen3_moe", APART["qwen3_moe"], tmp_path), "float32")
    (experts, *_) = find_experts(loss.causal)
    own = experts.forward

    def other_kernels(hidden: torch.Tensor, index: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """As where a product of more tokens adds in another order."""
        return own(hidden, index, weights) * (1 + 1e-6 * (index == 0).sum())

    monkeypatch.setattr(experts, "forward", other_kernels)
    assert probe(loss, draw_records(6, 1)) == ""


def test_weights_that_lack_a_part_are_refused(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SHAPE))
    model.model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"its weights lack 1 that LlamaForCausalLM needs, such as lm_head\.weight"):
        load_pretrained(tmp_path)
