"""Architectures that let packed records see one another are found without a tolerance, and train one record at a time."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mixtune.artifacts.model import read_model
from mixtune.artifacts.shards import TokenRecord
from mixtune.settings.train import AdapterSettings
from mixtune.train.batches import pack
from mixtune.train.modeling.adapters import adapter_reach
from mixtune.train.modeling.loss import PackedLoss, probe
from mixtune.train.modeling.trainable import load_trainable
from mixtune.train.run import run_training

from .conftest import settings, task_in
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
def test_a_leak_is_found_in_both_dtypes_and_each_record_alone_is_exact(
    kind: str, dtype: str, tmp_path: Path, draw_records: Draw
) -> None:
    loss = load(make(kind, LEAKING[kind], tmp_path), dtype)
    assert "packed records" in probe(loss, draw_records(3, 1))
    assert not loss.packs
    loss.eval()
    if dtype == "float32":
        records = draw_records(4, 2)
        losses = torch.cat([loss(pack([record])) for record in records])
        assert torch.allclose(losses, losses_alone(loss, records), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", APART)
def test_records_that_do_not_see_one_another_are_packed(
    kind: str, dtype: str, tmp_path: Path, draw_records: Draw
) -> None:
    loss = load(make(kind, APART[kind], tmp_path), dtype)
    assert probe(loss, draw_records(3, 1)) == ""
    assert loss.packs
    assert loss.training


def test_a_training_says_that_it_does_not_pack_and_its_manifest_too(
    shards_path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mixtune import models
    from mixtune.train import run

    base = make("lfm2", LEAKING["lfm2"], tmp_path / "base")
    monkeypatch.setattr(run, "_check_tokenizer", lambda shards, folder: None)
    task = task_in(tmp_path / "out", shards_path, method="sft", learning_rate=1e-3)
    task = replace(task, inputs=replace(task.inputs, base_model=str(base)))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (base / name).write_bytes(
            (models.fetch_model(str(Path(run.__file__).parents[1] / "demo/base_model")) / name).read_bytes()
        )
    run_training(task)
    assert "every record is a forward pass of its own" in capsys.readouterr().out
    figures = read_model(task.outputs.model_path).figures
    assert figures and not figures.packed
    assert figures.final_loss < figures.first_loss
    assert json.loads(Path(task.outputs.model_path).read_text())["figures"]["packed"] is False


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
    reach = adapter_reach(model.adapter.peft)
    assert reach.startswith("the adapter works on ")
    if kind == "mixtral":
        assert any("experts" in name for name in model.parameters()), "fused experts are adapted, too"
