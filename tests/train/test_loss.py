"""The loss and its gradients, packed, cut and chunked, against transformers' own forward over each record alone."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModelForCausalLM

from mixtune.artifacts.shards import TokenRecord
from mixtune.errors import ConfigError, ModelError
from mixtune.train.batches import Layout, pack
from mixtune.train.modeling import kernels
from mixtune.train.modeling import loss as losses
from mixtune.train.modeling.probe import probe
from mixtune.train.modeling.trainable import Trainable, load_trainable

from .conftest import settings

Draw = Callable[[int, int], list[TokenRecord]]
SHAPE = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.1,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"tie_word_embeddings": True},
    "gemma2": {"sliding_window": 8, "final_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": 8},
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 4.0, "residual_multiplier": 0.5, "embedding_multiplier": 3.0},
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    config = AutoConfig.for_model(request.param, **SHAPE, **ARCHITECTURES[request.param])
    place: Path = tmp_path_factory.mktemp(request.param)
    AutoModelForCausalLM.from_config(config).save_pretrained(place)
    return place


def load(folder: Path, method: str, **options: Any) -> Trainable:
    model = load_trainable(folder, settings(method=method, **options))
    torch.manual_seed(4)
    for name, value in model.parameters().items():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.05)
    return model


def gradients(model: Trainable, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    loss.backward()
    found = {name: value.grad for name, value in model.parameters().items()}
    model.saved.zero_grad()
    assert all(value is not None for value in found.values())
    return {name: value for name, value in found.items() if value is not None}


def alone(model: Trainable, records: list[TokenRecord]) -> torch.Tensor:
    """The weighted mean loss by transformers: each record by itself, with labels, through the model's own head."""
    total = torch.zeros(())
    for record in records:
        ids = torch.from_numpy(record.input_ids).long()[None]
        labels = ids.masked_fill(torch.from_numpy(record.loss_mask)[None] == 0, -100)
        total = total + model.causal(input_ids=ids, labels=labels).loss * record.num_loss_tokens * record.weight
    return total / sum(record.num_loss_tokens * record.weight for record in records)


@pytest.mark.parametrize("method", ["lora", "sft"])
def test_loss_and_gradients_are_those_of_a_plain_forward_over_each_record_alone(
    method: str, folder: Path, draw_records: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, records = load(folder, method), draw_records(6, 0)
    wanted = alone(model, records)
    wanted_gradients = gradients(model, wanted)
    total = sum(record.num_loss_tokens * record.weight for record in records)
    whole, single = [records], [[record] for record in records]
    for cut, size in ((whole, 2**25), (single, 2**25), (whole, 7 * SHAPE["vocab_size"])):
        monkeypatch.setattr(losses, "logits_at_once", lambda *, gpu, size=size: size)
        packs = [pack(micro) for micro in cut]
        got = sum(((model.loss(packed) * packed.weights).sum() for packed in packs), torch.zeros(())) / total
        found = gradients(model, got)
        assert float(got.detach()) == pytest.approx(float(wanted.detach()), abs=1e-5)
        assert max(float((found[name] - wanted_gradients[name]).abs().max()) for name in found) < 1e-5


def test_attention_that_knows_no_chunks_takes_no_record_longer_than_one(
    tmp_path: Path, draw_records: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "varlen_attn", attention_by_record)
    options = {"num_local_experts": 2, "intermediate_size_mlp": 48, "attention_chunk_size": 16}
    config = AutoConfig.for_model(
        "llama4_text", **SHAPE, **options, layer_types=["chunked_attention", "full_attention"]
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model, records = load(tmp_path, "sft"), sorted(draw_records(6, 2), key=lambda record: len(record.input_ids))
    wanted = model.loss(pack(records[:2]))
    model.causal.set_attn_implementation(kernels.VARLEN)
    assert torch.allclose(model.loss(pack(records[:2])), wanted, atol=1e-5)
    with pytest.raises(ModelError, match=f"a record has {len(records[-1].input_ids)} tokens, .* lower max_length"):
        model.loss(pack(records))


NOISY: dict[str, dict[str, Any]] = {
    "opt": {"ffn_dim": 48, "max_position_embeddings": 512, "word_embed_proj_dim": 32, "dropout": 0.5, "layerdrop": 0.5},
    "starcoder2": {"residual_dropout": 0.5, "embedding_dropout": 0.5, "attention_dropout": 0.5},
    "mixtral": {"num_local_experts": 4, "router_jitter_noise": 0.5, "attention_dropout": 0.5},
}


@pytest.mark.parametrize("kind", NOISY)
def test_a_models_own_dropout_and_noise_are_off(kind: str, tmp_path: Path, draw_records: Draw) -> None:
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SHAPE, **NOISY[kind])).save_pretrained(tmp_path)
    model, packed = load(tmp_path, "sft"), pack(draw_records(1, 2))
    assert model.loss.training
    assert torch.equal(model.loss(packed), model.loss.eval()(packed))


def test_the_embedding_learns_a_token_that_the_configuration_calls_padding(tmp_path: Path, draw_records: Draw) -> None:
    (record,) = draw_records(1, 2)
    token = int(record.input_ids[0])
    config = AutoConfig.for_model("llama", **SHAPE | {"pad_token_id": token})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = load(tmp_path, "sft")
    gradient = gradients(model, model.loss(pack([record])).sum())["model.embed_tokens.weight"]
    assert float(gradient[token].abs().max()) > 0


def test_a_model_that_mixtune_knows_passes_the_probe_and_one_that_leaks_does_not(
    folder: Path, draw_records: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, records = load(folder, "lora"), draw_records(3, 1)
    probe(model.loss, records)
    assert model.loss.training
    decoder = model.causal.get_decoder()
    plain = decoder.forward
    monkeypatch.setattr(decoder, "forward", lambda **given: plain(**{**given, "use_cache": True}))
    assert "packed records" in probe(model.loss, records)
    assert model.loss.layout is Layout.ROWS


def test_a_model_whose_logits_are_scaled_in_an_unknown_way_is_refused(
    folder: Path, draw_records: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "SCALES", {})
    model, records = load(folder, "sft"), draw_records(3, 1)
    if folder.name[:-1] in ("gemma2", "cohere", "granite"):
        with pytest.raises(ModelError, match="in a way that mixtune does not know"):
            probe(model.loss, records)
    else:
        probe(model.loss, records)


@pytest.mark.parametrize("activations", ["recompute", "offload"])
def test_activations_made_again_or_offloaded_give_the_same_gradients(
    activations: str, folder: Path, draw_records: Draw
) -> None:
    packed, found = pack(draw_records(4, 2)), []
    for choice in ("keep", activations):
        model = load(folder, "lora", memory={"activations": choice})
        found.append(gradients(model, model.loss(packed).sum()))
        assert model.causal.is_gradient_checkpointing == (choice != "keep")
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_arithmetic_in_bfloat16_is_near_and_an_adapter_stays_float32(folder: Path, draw_records: Draw) -> None:
    packed = pack(draw_records(4, 2))
    exact, rounded = (load(folder, "lora", memory={"dtype": dtype}) for dtype in ("float32", "bfloat16"))
    gap = (exact.loss(packed) - rounded.loss(packed)).abs().max()
    assert 0 < gap < 0.2
    assert {value.dtype for value in rounded.parameters().values()} == {torch.float32}
    assert {value.dtype for value in rounded.causal.parameters() if not value.requires_grad} == {torch.bfloat16}


def attention_by_record(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts: torch.Tensor, _: Any, *__: Any, **options: Any
) -> torch.Tensor:
    """What torch's varlen attention computes, which has no code for CPUs."""
    out = []
    left = options["window_size"][0]
    for begin, end in pairwise(starts.tolist()):
        one, other, content = (part[begin:end].transpose(0, 1) for part in (query, key, value))
        gap = torch.arange(end - begin)[:, None] - torch.arange(end - begin)
        seen = (gap >= 0) & ((gap <= left) | (left < 0))
        out.append(
            scaled_dot_product_attention(
                one, other, content, seen, scale=options["scale"], enable_gqa=options["enable_gqa"]
            ).transpose(0, 1)
        )
    return torch.cat(out)


def test_attention_that_is_told_where_records_begin_gives_the_same_losses(
    folder: Path, draw_records: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "varlen_attn", attention_by_record)
    model, packed = load(folder, "sft"), pack(draw_records(4, 2))
    wanted = model.loss(packed)
    model.causal.set_attn_implementation(kernels.VARLEN)
    if folder.name.startswith("gemma2"):
        with pytest.raises(ModelError, match="no softcap"):
            model.loss(packed)
    else:
        assert torch.allclose(model.loss(packed), wanted, atol=1e-5)
        probe(model.loss, draw_records(3, 1))


def test_kernels_of_gpus_are_refused_on_a_cpu(folder: Path) -> None:
    with pytest.raises(ConfigError, match="fused_kernels are for GPUs"):
        load(folder, "sft", memory={"fused_kernels": True})


def test_an_architecture_for_which_there_are_no_fused_kernels_is_refused_not_trained_without_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "liger_kernel" / "transformers"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "monkey_patch.py").write_text("MODEL_TYPE_TO_APPLY_LIGER_FN = {}\n")
    monkeypatch.syspath_prepend(tmp_path)
    model = load(folder, "sft")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConfigError, match=r"liger-kernel has nothing for \w+; leave fused_kernels off"):
        kernels.fuse(model.causal)
