"""Configurations of every model type that writes text, shrunk so that a model with random weights takes milliseconds.

Sizes are set by their usual names; what a type needs beside is in `OWN`. Every kind of layer of the original stays in.
"""

from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

NAMES = {
    32: "hidden_size d_model n_embd emb_dim embedding_size embedding_dim input_embedding_size output_embedding_size "
    "lru_width attention_hidden_size word_embed_proj_dim d_inner dim_model_base mamba_d_ssm embed_dim out_hidden_size "
    "text_hidden_size projector_hidden_size projection_hidden_dim moe_hidden_size pronunciation_embed_dim shape_embed_dim vision_output_dim projector_input_dim projector_output_dim multimodal_hidden_size",
    48: "intermediate_size ffn_dim dff dim_ff ffn_hidden_size decoder_ffn_dim encoder_ffn_dim n_inner feed_forward_size "
    "intermediate_size_mlp dense_intermediate_size",
    16: "moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size o_lora_rank "
    "shared_intermediate_size expert_ffn_hidden_size moe_shared_expert_intermediate_size router_hidden_size "
    "mamba_d_state state_size ssm_state_size hidden_size_per_layer_input kv_lora_rank q_lora_rank swa_head_dim "
    "qk_head_dim linear_head_dim linear_key_head_dim linear_value_head_dim mamba_d_head mamba_head_dim "
    "mamba_headdim index_head_dim index_n_heads image_size num_mel_bins",
    8: "head_dim qk_nope_head_dim qk_rope_head_dim v_head_dim dim_head kv_channels attention_head_dim "
    "mamba_chunk_size chunk_size rotary_dim d_head hc_lowrank laurel_rank adapter_rank gated_norm_rank d_rel "
    "time_step_rank mamba_dt_rank index_topk sliding_window sliding_window_size attention_chunk_size "
    "local_attention attention_window_size window_size unpadded_vocab_size_x patch_size_x",
    4: "num_attention_heads n_head n_heads num_heads attention_heads decoder_attention_heads "
    "encoder_attention_heads swa_num_attention_heads num_decoder_attention_heads num_encoder_attention_heads "
    "linear_num_value_heads linear_num_heads mamba_num_heads mamba_n_heads n_mamba_heads num_experts "
    "num_local_experts n_routed_experts moe_num_experts patch_size",
    2: "num_key_value_heads num_kv_heads num_experts_per_tok num_experts_per_token moe_topk moe_k depth "
    "swa_num_key_value_heads linear_num_key_heads num_hidden_layers n_layer n_layers num_layers decoder_layers "
    "encoder_layers num_encoder_layers num_decoder_layers num_blocks top_k_experts num_query_groups spatial_merge_size",
    1: "n_group topk_group n_groups mamba_n_groups mamba_ngroups num_expert_group first_k_dense_replace "
    "num_dense_layers moe_layer_start_index n_shared_experts num_shared_experts moe_num_shared_experts temporal_patch_size_x",
    128: "vocab_size vocab_size_per_layer_input decoder_vocab_size unpadded_vocab_size num_position_embeddings",
    2048: "max_position_embeddings n_positions n_ctx max_seq_len context_length max_target_positions "
    "max_source_positions seq_length",
}
SIZES = {name: size for size, names in NAMES.items() for name in names.split()}
LATENT = {"num_key_value_heads": 4, "qk_head_dim": 16, "head_dim": 8}
"""Of attention over a latent (MLA), which has as many key heads as query heads."""
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
OWN: dict[str, dict[str, Any]] = {
    # A default configuration of these has one kind of layer; their checkpoints have both.
    "bamba": {"attn_layer_indices": [1]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
    "chameleon": {"vocabulary_map": {"<image>": 3}},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2},
        "rope_parameters": ROPE,
    },
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "deepseek_v4": {
        "head_dim": 32,
        "partial_rotary_factor": 0.25,
        "o_groups": 2,
        "num_key_value_heads": 1,
        "index_head_dim": 32,
        "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8},
    },
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 16},
    "emu3": {"vocabulary_map": {"<image>": 3}},
    "falcon_h1": {"mamba_d_ssm": 64},
    "fun_asr_nano": {},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "intermediate_size": [48] * 4,
        "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2},
    "hunyuan_v1_dense": {"rope_parameters": ROPE, "head_dim": 8},
    "hunyuan_v1_moe": {"rope_parameters": ROPE, "head_dim": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1, "hidden_size": 32},
    "ministral": {"head_dim": 8},
    "glm5_next_text": {"qk_rope_head_dim": 0, "qk_head_dim": 8, "index_topk": 16, "index_kpool": 4},
    "granite4_vision": {
        "deepstack_layer_map": [[0, 0], [1, 1]],
        "spatial_target_layers": [1],
        "vision_feature_layer": -1,
    },
    "granite4_vision_text": {"hidden_size": 64},
    "hunyuan_vl_text": {"head_dim": 8, "rope_parameters": {**ROPE, "mrope_section": [1, 1, 1, 1]}},
    "mistral4": {"head_dim": 16},
    "molmo2_adapter": {"vision_feature_layer": [1, 0], "hidden_size": 32, "text_hidden_size": 32},
    "muse_spark_audio": {"patch_sizes": [16, 6], "hidden_sizes": [32, 32], "depths": [1, 1], "num_hidden_layers": 2},
    "radio": {"video_temporal_patch_size": 2},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 4,
        "ngram_vocab_size_base": 100,
        "split_ngram_parts": 2,
        "ple_embed_dim": 32,
    },
    "reformer": {
        "is_decoder": True,
        "axial_pos_embds_dim": [16, 16],
        "axial_pos_shape": [32, 64],
        "attention_head_size": 8,
    },
    "step3p5": {"sliding_window": 8},
    "xmod": {"is_decoder": True, "default_language": "en_XX"},
    "zamba": {
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "num_hidden_layers": 6,
        "layer_types": ["linear_attention", "linear_attention", "hybrid"] * 2,
    },
    "zamba2": {
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "num_hidden_layers": 6,
        **dict.fromkeys(("layer_types", "layers_block_type"), ["linear_attention", "linear_attention", "hybrid"] * 2),
    },
    "zaya": {"num_experts_per_tok": 1},
    **{
        name: {"rope_parameters": {**ROPE, "mrope_section": [2, 1, 1]}}
        for name in ("qwen2_vl_text", "qwen2_5_vl_text", "qwen2_5_omni_text", "paddleocr_vl_text")
    },
    **{
        name: {"rope_parameters": {**ROPE, "mrope_section": [2, 1, 1], "partial_rotary_factor": 1.0}}
        for name in ("glm4v_text", "glm_ocr_text", "glm46v_text", "glm4v_moe_text", "glmga_text")
    },
}


def tiny_config(kind: str) -> PreTrainedConfig:
    """Return a small configuration of a model type, with its towers where it has some.

    Raises:
        Exception: Whatever transformers says of these sizes.
    """
    return _shrunk(CONFIG_MAPPING[kind])


def _shrunk(cls: type[PreTrainedConfig]) -> PreTrainedConfig:
    own = OWN.get(cls.model_type, {})
    default = cls()
    towers = {
        name: _shrunk(type(getattr(default, name)))
        for name in cls.sub_configs
        if getattr(default, name, None) is not None and name not in own
    }
    options = {**_small(default), **towers, **own}
    try:
        return cls(**options)
    except (AttributeError, TypeError):  # kinds of layers that follow from other sizes
        return cls(**{name: value for name, value in options.items() if name != "layer_types"})


def _small(default: PreTrainedConfig) -> dict[str, Any]:
    """Return the sizes to set, by name."""
    values = {name: value for name, value in default.to_dict().items() if type(value) is int}
    options: dict[str, Any] = {name: SIZES[name] for name in values if name in SIZES}
    if "kv_lora_rank" in values:
        options |= {name: size for name, size in LATENT.items() if name in values}
    kinds = list(dict.fromkeys(getattr(default, "layer_types", None) or []))
    if kinds:
        options["layer_types"] = kinds if len(kinds) > 1 else kinds * 2
        options["num_hidden_layers"] = len(options["layer_types"])
    if "vocab_size" in values:
        options |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    rope = getattr(default, "rope_parameters", None) or {}
    if "mrope_section" in rope:
        options["rope_parameters"] = {**rope, "mrope_section": [2, 1, 1]}
    return options
