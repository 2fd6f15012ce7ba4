"""Sizes of a base model: those of the class that trains, for every type; figures that were published."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import hf_api
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)

from mixtune import interpolation
from mixtune.artifacts.sizes.stored_weights import Tensor, count_stored, read_tensors
from mixtune.errors import ModelError
from mixtune.interpolation import auto_class
from mixtune.preflight.memory import Training, estimate_memory
from mixtune.preflight.shape import Shape
from mixtune.training_math import Attention

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from tiny_configs import tiny_config

QWEN3_30B = {
    "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
    "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
    "vocab_size": 151936, "tie_word_embeddings": False,
}  # fmt: skip
GEMMA_4_26B = {
    "num_hidden_layers": 30, "hidden_size": 2816, "intermediate_size": 2112, "moe_intermediate_size": 704,
    "enable_moe_block": True, "num_experts": 128, "top_k_experts": 8, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 256, "global_head_dim": 512, "num_global_key_value_heads": 2,
    "attention_k_eq_v": True, "vocab_size": 262144, "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0,
}  # fmt: skip
LFM2_1B = {
    "hidden_size": 2048, "num_hidden_layers": 16, "block_ff_dim": 12288, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 65536, "full_attn_idxs": [2, 5, 8, 10, 12, 14],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "options", "billions", "active"),
    [
        ("mixtral", {}, 46.7, 12.9),
        ("qwen3_moe", QWEN3_30B, 30.5, 3.3),
        ("gemma4_text", GEMMA_4_26B, 25.2, 3.8),
        ("llama4_text", {"num_local_experts": 128, "interleave_moe_layer_step": 2}, 401, 17.2),
        ("deepseek_v3", {}, 671, 37.4),
        ("deepseek_v4", {}, 284, 13.7),
        ("jamba", {}, 51.6, 12.1),
        ("qwen3_next", {}, 79.7, 3.8),
        ("lfm2", LFM2_1B, 1.17, 1.17),
        ("zamba", {}, 7.2, 11.2),  # its shared layers are gone through several times
        ("gpt_oss", {"num_hidden_layers": 24, "num_local_experts": 32}, 20.9, 4.2),  # 3.6 without its embedding
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_published_model_has_the_parameters_that_were_published(
    kind: str, options: dict[str, Any], billions: float, active: float, tmp_path: Path
) -> None:
    CONFIG_MAPPING[kind](**options).save_pretrained(tmp_path)
    shape = Shape.read(str(tmp_path))
    embedding = 0 if shape.tied else shape.vocabulary * shape.hidden
    assert shape.parameters / 1e9 == pytest.approx(billions, rel=0.005)
    assert (shape.active + embedding) / 1e9 == pytest.approx(active, rel=0.015)
    assert shape.line() == f"{shape.parameters / 1e9:.2f} billion parameters, as transformers builds it"
    model = interpolation.build_without_weights(tmp_path)
    tensors = [Tensor(name=name, dtype="BF16", shape=tuple(value.shape)) for name, value in model.named_parameters()]
    stored = count_stored(tensors, interpolation.read_config(str(tmp_path)))
    assert stored and stored.parameters == pytest.approx(shape.parameters, rel=0.005)
    if kind != "zamba":  # what is gone through several times is stored once
        assert stored.active == pytest.approx(shape.active, rel=0.02)  # routers are matrices in files


BUILT = ("blt", "pi0", "pix2struct", "pp_formulanet", "qwen2_5_omni", "udop")
"""Types with another form than a decoder under a head: what is said of them is of their configuration."""


@pytest.mark.slow  # all of them together
@pytest.mark.parametrize("kind", sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES}))
def test_every_type_has_the_parameters_of_the_model_that_is_trained(kind: str, tmp_path: Path) -> None:
    names = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind), MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES.get(kind)]
    try:
        config = tiny_config(kind)
        config.architectures = [next(name if isinstance(name, str) else name[0] for name in reversed(names) if name)]
        model = auto_class(config).from_config(config)
    except Exception as error:
        pytest.skip(f"no tiny model of it: {error}")
    config.save_pretrained(tmp_path)
    try:
        shape = Shape.read(str(tmp_path))
    except ModelError as error:
        assert kind in BUILT and "config.json gives no" in str(error)
        return
    assert bool(shape.counted) == (kind not in (*BUILT, "llama"))
    assert shape.parameters == pytest.approx(
        model.num_parameters(), rel=1e-9 if shape.counted or kind == "llama" else 1
    )
    assert shape.active > 0 and estimate_memory(shape, Training(method="sft", micro_tokens=64)).total > 0


def test_attention_of_layers_that_differ_in_size_is_the_sum_over_layers(tmp_path: Path) -> None:
    CONFIG_MAPPING["gemma4_text"](**GEMMA_4_26B).save_pretrained(tmp_path)
    attention = Shape.read(str(tmp_path)).attention
    assert attention == Attention(whole=5 * 16 * 512, windowed=25 * 16 * 256, window=512)


def test_towers_are_held_and_not_trained(tmp_path: Path) -> None:
    config = CONFIG_MAPPING["gemma3"]()
    config.architectures = ["Gemma3ForConditionalGeneration"]
    config.save_pretrained(tmp_path)
    shape = Shape.read(str(tmp_path))
    memory = estimate_memory(shape, Training(method="sft", micro_tokens=64))
    assert shape.parameters - shape.text > 9e7
    assert memory.moments == 8 * shape.text


def test_without_pytorch_the_files_of_weights_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config("lfm2")
    auto_class(config).from_config(config).save_pretrained(tmp_path)
    built = Shape.read(str(tmp_path))
    monkeypatch.setitem(sys.modules, "mixtune.inference.text_parts", None)
    stored = Shape.read(str(tmp_path))
    assert stored.parameters == built.parameters
    assert "as its files have" in stored.line()
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"not all of its layers are attention.* install PyTorch"):
        Shape.read(str(tmp_path))
    CONFIG_MAPPING["gemma4_text"](**GEMMA_4_26B).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="it has per_layer_config"):
        Shape.read(str(tmp_path))
    CONFIG_MAPPING["qwen3"]().save_pretrained(tmp_path)
    assert "by the sizes in its configuration" in Shape.read(str(tmp_path)).line()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("qwen3_moe", QWEN3_30B),
        ("gpt_oss", {"num_hidden_layers": 24, "num_local_experts": 32}),
        ("deepseek_v3", {}),
        ("mimo_v2_flash", {}),
        ("llama4_text", {"num_local_experts": 128, "interleave_moe_layer_step": 2}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_without_pytorch_and_files_the_configuration_tells_windows_latent_attention_and_experts(
    kind: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CONFIG_MAPPING[kind](**options).save_pretrained(tmp_path)
    built = Shape.read(str(tmp_path))
    monkeypatch.setitem(sys.modules, "mixtune.inference.text_parts", None)
    shape = Shape.read(str(tmp_path))
    assert shape.counted is None
    assert shape.attention == built.attention
    assert shape.parameters == pytest.approx(built.parameters, rel=0.03)
    assert shape.active == pytest.approx(built.active, rel=0.03)


@pytest.mark.parametrize(
    ("form", "stored"),
    [
        ({}, [("weight", "BF16", (64, 96))]),
        ({"quant_method": "fp8"}, [("weight", "F8_E4M3", (64, 96)), ("weight_scale_inv", "F32", (1, 1))]),
        ({"quant_method": "modelopt"}, [("weight", "U8", (64, 48)), ("weight_scale", "F8_E4M3", (64, 6))]),
        ({"quant_method": "awq", "bits": 4}, [("qweight", "I32", (96, 8)), ("qzeros", "I32", (1, 8))]),
        ({"quant_method": "gptq", "bits": 8}, [("qweight", "I32", (24, 64)), ("g_idx", "I32", (96,))]),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 4}}}},
            [("weight_packed", "I32", (64, 12)), ("weight_shape", "I64", (2,)), ("weight_scale", "BF16", (64, 3))],
        ),
        ({"quant_method": "bitsandbytes"}, [("weight", "U8", (3072, 1)), ("weight.absmax", "F32", (96,))]),
    ],
    ids=lambda value: value.get("quant_method", "plain") if isinstance(value, dict) else "",
)
def test_packed_weights_are_counted_as_what_is_packed(
    form: dict[str, Any], stored: list[tuple[str, str, tuple[int, ...]]]
) -> None:
    tensors = [Tensor(name="model.embed_tokens.weight", dtype="BF16", shape=(128, 96))]
    tensors += [
        Tensor(name=f"model.layers.0.mlp.up_proj.{key}", dtype=dtype, shape=shape) for key, dtype, shape in stored
    ]
    tensors += [
        Tensor(name=f"model.layers.1.mlp.up_proj.{key}", dtype=dtype, shape=shape) for key, dtype, shape in stored
    ]
    config = {"num_hidden_layers": 1, "hidden_size": 96, "quantization_config": form}
    sizes = count_stored(tensors, config)  # the second layer predicts further tokens
    assert sizes and (sizes.parameters, sizes.active) == (128 * 96 + 64 * 96, 128 * 96 + 64 * 96)


def test_a_layer_of_a_kind_that_nobody_knows_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config("qwen3")
    auto_class(config).from_config(config).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    changed = {**values, "model_type": "own", "layer_types": ["wavelets"] * values["num_hidden_layers"]}
    (tmp_path / "config.json").write_text(json.dumps(changed))
    assert "what its layers attend to is not known" in Shape.read(str(tmp_path)).line()


def test_without_pytorch_the_hub_is_asked_for_the_headers_of_weights(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("lfm2")
    model = auto_class(config).from_config(config)
    model.save_pretrained(tmp_path)
    hub.repos["org/lfm2"] = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(hf_api.api, "endpoint", hub.url)
    fingerprinted = f"org/lfm2@v1#{'0' * 32}"
    stored = count_stored(read_tensors(fingerprinted, tmp_path / "nothing here"), config.to_dict())
    assert stored and stored.parameters == model.num_parameters()
    assert not read_tensors("org/other@v1", tmp_path / "nothing here")


def test_a_configuration_as_transformers_saves_it_is_read(tmp_path: Path) -> None:
    CONFIG_MAPPING["nemotron_h"]().save_pretrained(tmp_path)  # it has an infinity, for which JSON has no word
    assert interpolation.read_config(str(tmp_path))["num_hidden_layers"] == 4
