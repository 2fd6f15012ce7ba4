"""GPUs, memory and price follow from the model's shape."""

import dataclasses
from typing import Any

import pytest

from mixtune.errors import ConfigError
from mixtune.prices import read_prices
from mixtune.serve.model_config import parse_config
from mixtune.serve.served_model import ServedModel
from mixtune.serve.sizing import ServingPlan, plan_serving
from mixtune.settings.serving import ServeSettings

from .conftest import LLAMA_8B

LLAMA_70B = {**LLAMA_8B, "num_hidden_layers": 80, "hidden_size": 8192, "num_attention_heads": 64}
DEEPSEEK_V3 = {
    "architectures": ["DeepseekV3ForCausalLM"], "num_hidden_layers": 61, "hidden_size": 7168,
    "num_attention_heads": 128, "num_key_value_heads": 128, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
    "max_position_embeddings": 163840, "torch_dtype": "bfloat16", "quantization_config": {"quant_method": "fp8"},
}  # fmt: skip


def plan(config: dict[str, Any], weights: float, **settings: Any) -> ServingPlan:
    model = ServedModel(
        name="desk",
        base_uri="s3://b/m",
        config=parse_config(config, "config.json"),
        weight_bytes=round(weights),
        download_bytes=round(weights),
    )
    return plan_serving(model, ServeSettings(**settings), read_prices())


def test_an_8b_model_takes_one_gpu_and_a_70b_model_several() -> None:
    small = plan(LLAMA_8B, 16.1e9)
    assert (small.gpus, small.instance.name) == (1, "g6e.xlarge")
    assert small.cache_bytes == 8 * 8192 * 32 * 2 * 8 * 128 * 2
    assert (small.memory_gib, small.storage_gib) == (25, 24)
    large = plan(LLAMA_70B, 141e9)
    assert large.gpus >= 4
    assert large.weight_bytes / large.gpus < 0.9e9 * large.instance.gpu_memory_gb
    assert plan(LLAMA_70B, 141e9, instance="p5.48xlarge").gpus == 4
    assert plan(LLAMA_70B, 141e9, instance="p5en.48xlarge").gpus == 2


def test_longer_requests_take_more_and_never_exceed_what_the_model_was_made_for() -> None:
    short, long = (plan(LLAMA_8B, 16.1e9, max_length=length) for length in (2048, 131072))
    assert long.cache_bytes == 64 * short.cache_bytes
    assert long.gpus * long.instance.gpu_memory_gb > short.gpus * short.instance.gpu_memory_gb
    assert plan({**LLAMA_8B, "max_position_embeddings": 4096}, 16.1e9).max_length == 4096


def test_weights_in_float32_are_served_in_half_of_it_and_packed_ones_as_they_are() -> None:
    assert plan({**LLAMA_8B, "dtype": "float32"}, 32e9).weight_bytes == 16e9
    packed = {**LLAMA_8B, "dtype": "float32", "quantization_config": {"quant_method": "awq"}}
    assert plan(packed, 5e9).weight_bytes == 5e9


def test_latent_attention_keeps_one_vector_for_all_heads() -> None:
    assert parse_config(DEEPSEEK_V3, "config.json").cache_values(100) == 100 * 61 * (512 + 64)
    assert plan(DEEPSEEK_V3, 689e9).instance.name in ("p5en.48xlarge", "p6-b200.48xlarge")


def test_layers_with_a_window_or_a_state_keep_no_more_for_longer_requests() -> None:
    windows = {**LLAMA_8B, "layer_types": ["sliding_attention", "full_attention"] * 16, "sliding_window": 128}
    each = 8 * 2 * 8 * 128 * 2  # bytes of 8 requests' keys and values in a layer, for a token
    assert plan(windows, 16.1e9).cache_bytes == 16 * each * (8192 + 128)
    states = {"linear_num_value_heads": 32, "linear_value_head_dim": 128, "linear_key_head_dim": 128}
    qwen = {**LLAMA_8B, **states, "full_attention_interval": 4}
    float32 = 8 * 24 * 32 * 128 * 128 * 4
    assert plan({**LLAMA_8B, "text_config": qwen}, 16.1e9).cache_bytes == 8 * each * 8192 + float32


def test_what_is_not_known_of_a_cache_is_said() -> None:
    other = {**LLAMA_8B, "layer_types": ["wavelets"] * 32}
    assert plan(other, 16.1e9).cache_bytes == plan(LLAMA_8B, 16.1e9).cache_bytes
    assert "of a kind that is not known" in plan(other, 16.1e9).line()
    convolutions = {**LLAMA_8B, "layer_types": ["conv", "full_attention"] * 16}
    assert "the states of 16 layers are not counted" in plan(convolutions, 16.1e9).line()
    assert plan(LLAMA_8B, 16.1e9).line().endswith("a replica")


def test_heads_are_split_evenly_or_not_at_all() -> None:
    odd = {**LLAMA_8B, "num_attention_heads": 14, "num_key_value_heads": 2, "hidden_size": 896, "head_dim": 64}
    assert plan(odd, 100e9, instance="p5.48xlarge").gpus == 2
    with pytest.raises(ConfigError, match="fit on no machine of p5"):
        plan(odd, 150e9, instance="p5.48xlarge")


def test_what_fits_nowhere_is_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"2000 GB .*fit on no machine.*smaller max_length"):
        plan(LLAMA_8B, 2e12, num_sequences=1, max_length=1)


def test_a_replica_costs_its_share_of_the_machine() -> None:
    whole = plan(LLAMA_70B, 141e9, instance="p5.48xlarge")
    assert whole.usd_per_hour == pytest.approx(55.04 / 2)
    assert "$27.52 an hour" in dataclasses.replace(whole).line()


def test_a_model_of_several_modes_is_sized_by_its_language_model() -> None:
    config = {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "text_config": LLAMA_8B, "dtype": "bfloat16"}
    assert plan(config, 16.1e9).cache_bytes == plan(LLAMA_8B, 16.1e9).cache_bytes


def test_heads_of_keys_are_split_evenly_too() -> None:
    phi_4 = {"num_hidden_layers": 40, "hidden_size": 5120, "num_attention_heads": 40, "num_key_value_heads": 10}
    assert plan(phi_4, 60e9, instance="g6e.12xlarge", num_sequences=4).gpus == 2
    with pytest.raises(ConfigError, match="fit on no machine"):
        plan(phi_4, 90e9, instance="g6e.12xlarge", num_sequences=4)
