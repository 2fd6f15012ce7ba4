"""What layers attend to and keep, by configurations as they are published, without their classes' values."""

from typing import Any

import pytest

from mixtune.artifacts.sizes.attention_layers import read_mixing
from mixtune.errors import ModelError
from mixtune.training_math import Attention

PLAIN = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
WIDTH, CACHED = 4 * 16, 2 * 2 * 16
"""Of one such layer."""
LATENT = {
    "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4, "kv_lora_rank": 32, "q_lora_rank": 24,
    "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "whole", "windowed"),
    [
        ({"num_hidden_layers": 4}, 4, 0),
        ({"num_hidden_layers": 4, "sliding_window": 8}, 0, 4),  # Mistral 7B
        ({"num_hidden_layers": 4, "sliding_window": 8, "use_sliding_window": False}, 4, 0),  # Qwen 2.5
        ({"num_hidden_layers": 4, "sliding_window": 8, "model_type": "gemma2"}, 2, 2),
        ({"num_hidden_layers": 12, "sliding_window": 8, "model_type": "gemma3_text"}, 2, 10),
        ({"num_hidden_layers": 8, "sliding_window": 8, "sliding_window_pattern": "LLLG"}, 2, 6),  # EXAONE 4
        ({"num_hidden_layers": 8, "attention_chunk_size": 8, "model_type": "llama4_text"}, 2, 6),
        ({"layer_types": ["full_attention", "sliding_attention"] * 2, "sliding_window": 8}, 2, 2),  # gpt-oss
        ({"hybrid_layer_pattern": [0, 1, 1, 1], "sliding_window_size": 8}, 1, 3),  # MiMo V2
        ({"num_hidden_layers": 8, "full_attention_interval": 4, "linear_num_value_heads": 4}, 2, 0),  # Qwen3-Next
        ({"hybrid_override_pattern": "MEM*E-M*"}, 2, 0),  # Nemotron 3
        ({"layers_block_type": ["mamba", "moe", "attention", "mlp"], "mamba_num_heads": 4}, 1, 0),
        ({"num_hidden_layers": 16, "full_attn_idxs": [2, 5, 8, 10, 12, 14], "conv_L_cache": 3}, 6, 0),  # LFM2
        ({"num_hidden_layers": 8, "attn_layer_period": 8, "attn_layer_offset": 4, "mamba_d_state": 16}, 1, 0),  # Jamba
        ({"num_hidden_layers": 8, "linear_attn_config": {"full_attn_layers": [4, 8]}}, 2, 0),  # Kimi Linear
        ({"attn_type_list": [0, 0, 0, 1], "num_hidden_layers": 4}, 1, 0),  # MiniMax 01
        ({"layer_types": ["hybrid", "hybrid"]}, 2, 0),  # Falcon-H1
        ({"layer_types": ["full_attention", "minimax_m3_sparse", "deepseek_sparse_attention"]}, 3, 0),
    ],
)
def test_layers_are_told_apart_however_a_configuration_says_it(
    config: dict[str, Any], whole: int, windowed: int
) -> None:
    mixing = read_mixing({**PLAIN, **config})
    assert mixing.attention == Attention(whole=whole * WIDTH, windowed=windowed * WIDTH, window=8 if windowed else 0)
    assert mixing.cache(5) == 5 * (whole + windowed) * CACHED
    assert mixing.cache(100) == (100 * whole + 8 * windowed) * CACHED


def test_latent_attention_keeps_one_vector_and_is_as_wide_as_its_heads() -> None:
    mixing = read_mixing({**LATENT, "num_hidden_layers": 3})
    assert mixing.attention == Attention(whole=3 * 4 * (24 + 16) // 2)
    assert mixing.cache(10) == 10 * 3 * (32 + 8)
    assert mixing.layers[0].matrices == 64 * 24 + 24 * 4 * 24 + 64 * 40 + 32 * 4 * 32 + 4 * 16 * 64
    indexed = read_mixing({**LATENT, "num_hidden_layers": 3, "index_head_dim": 16, "index_n_heads": 2})
    assert indexed.cache(10) == 10 * 3 * (32 + 8 + 8)  # DeepSeek V3.2's index has a byte a number


def test_sizes_that_differ_between_layers_are_each_layer_s_own() -> None:
    kinds = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
    gemma = read_mixing({**PLAIN, **kinds, "global_head_dim": 32, "num_global_key_value_heads": 1})
    assert gemma.attention == Attention(whole=4 * 32, windowed=WIDTH, window=8)
    assert gemma.cache(100) == 8 * CACHED + 100 * 2 * 32
    saved = read_mixing({**PLAIN, **kinds, "per_layer_config": {"01": {"head_dim": 32, "num_key_value_heads": 1}}})
    assert saved.cache(100) == gemma.cache(100)
    swa = {"v_head_dim": 8, "swa_num_key_value_heads": 4, "swa_head_dim": 16, "swa_v_head_dim": 8}
    assert read_mixing({**PLAIN, **kinds, **swa}).cache(100) == 8 * 4 * 24 + 100 * 2 * 24  # MiMo V2
    shared = read_mixing({**PLAIN, **kinds, "num_kv_shared_layers": 1})
    assert shared.cache(100) == 8 * CACHED  # Gemma 3n: the last layers read what others keep


def test_compressed_keys_are_shared_by_tokens_beyond_the_window() -> None:
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 32, "sliding_window": 8}
    published = read_mixing({**sizes, "num_hidden_layers": 2, "compress_ratios": [0, 4], "index_head_dim": 16})
    assert published.cache(100) == 8 * 32 + (8 + 25) * (32 + 8)
    rates = {"layer_types": ["sliding_attention", "compressed_sparse_attention"], "index_head_dim": 16}
    saved = read_mixing({**sizes, **rates, "compress_rates": {"compressed_sparse_attention": 4}})
    assert saved == published


def test_states_have_the_size_that_a_configuration_gives_them() -> None:
    sizes = {"linear_num_value_heads": 4, "linear_value_head_dim": 8, "linear_key_head_dim": 8}
    mixing = read_mixing({**PLAIN, **sizes, "num_hidden_layers": 8, "full_attention_interval": 4})
    assert (mixing.num_states, mixing.state) == (6, 4 * 8 * 8)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"layer_types": ["full_attention", "wavelets"]}, "wavelets"),
        ({"num_hidden_layers": 2, "mamba_n_heads": 4}, "mamba_n_heads"),
        ({"num_hidden_layers": 2, "block_configs": [{}, {}]}, "block_configs"),
        ({"num_hidden_layers": 2, "num_attention_heads": 0}, "num_attention_heads"),
    ],
)
def test_layers_of_unknown_kinds_are_refused_by_name(config: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelError, match=named):
        read_mixing({**PLAIN, **config})
