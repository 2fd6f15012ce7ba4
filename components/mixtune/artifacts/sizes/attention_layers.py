"""Which layers of a decoder attend, and to what: by its configuration alone, in the names that published ones have.

What a token leaves in a server's cache follows from it, and the arithmetic of attention.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mixtune.errors import ModelError
from mixtune.settings.foreign import JsonObject
from mixtune.training_math import Attention

PERIODS = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "gemma3n": 5, "gemma3n_text": 5, "cohere2": 4, "llama4_text": 4}
"""Of types whose configurations need not say it: each so many layers one attends to the whole record."""
RECENT, STATES, WHOLE, NEITHER = "recent", "state", "whole", "neither"
_KINDS = {
    RECENT: re.compile("sliding|chunked|local|^L$"),
    STATES: re.compile("linear|mamba|recurrent|conv|^kda$|^M$"),
    WHOLE: re.compile("attention|hybrid|sparse|global|^[*GA]$"),
    NEITHER: re.compile("moe|mlp|^[-E]$"),
}
"""How configurations call kinds of layers; the first that fits."""
_HAS_STATES = re.compile("mamba|ssm_|linear_attn|linear_num|conv_L|state_size|lru_width|block_configs|rwkv|wkv")


@dataclass(frozen=True, kw_only=True)
class AttentionLayer:
    """One layer's attention."""

    width: int
    """Of all query heads, as of keys and of values on average."""
    cached: int
    """Numbers that are kept for a key and its value; 0: the layer reads those of another."""
    matrices: int
    """Values in what makes queries, keys and values, and the output."""
    stride: int = 1
    """Tokens that share a key; 0: none is kept beyond the window."""
    window: int = 0
    """Last tokens that each have a key; 0: all are alike."""

    def cache(self, length: int) -> int:
        """Return the numbers that are kept for so many tokens."""
        far = length // self.stride if self.stride else 0
        return self.cached * (far + min(self.window, length))


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How a decoder's layers hand on what earlier tokens said."""

    layers: tuple[AttentionLayer, ...]
    num_states: int = 0
    """Layers that keep a state of a sequence, however long it is."""
    state: int = 0
    """Numbers in the state of one of them; 0: not known."""

    def cache(self, length: int) -> int:
        """Return the numbers that are kept for a sequence of so many tokens, states counted apart."""
        return sum(layer.cache(length) for layer in self.layers)

    @property
    def attention(self) -> Attention:
        """The width of attention, summed over layers."""
        return Attention(
            whole=sum(layer.width // layer.stride for layer in self.layers if layer.stride),
            windowed=sum(layer.width for layer in self.layers if layer.window),
            window=max([layer.window for layer in self.layers], default=0),
        )


def read_mixing(config: JsonObject) -> Mixing:
    """Read the configuration of a decoder of text.

    Raises:
        ModelError: It has layers of a kind that is not known here, or no sizes.
    """
    names = _name_kinds(config)
    kinds = [next((kind for kind, pattern in _KINDS.items() if pattern.search(name)), "") for name in names]
    if "" in kinds:
        raise ModelError(f"config.json has layers of the kind {names[kinds.index('')]!r}, of which nothing is known")
    own = len(kinds) - (config.get("num_kv_shared_layers") or 0)  # later layers read what these have kept
    layers = [
        _read_layer(_sizes_of(config, number, len(kinds)), kind == RECENT, names[number], keeps=number < own)
        for number, kind in enumerate(kinds)
        if kind in (WHOLE, RECENT)
    ]
    num_states = sum(kind == STATES or "hybrid" in name for kind, name in zip(kinds, names, strict=True))
    return Mixing(layers=tuple(layers), num_states=num_states, state=_state_size(config) if num_states else 0)


def _sizes_of(config: JsonObject, number: int, count: int) -> JsonObject:
    """Return what a configuration says of one of its layers, where layers differ."""
    own = {name: values[number] for name, values in config.items() if isinstance(values, list) and len(values) >= count}
    heads = own.get("num_attention_heads_per_layer")
    differing = (config.get("per_layer_config") or {}).get(f"{number:02d}") or {}
    return {**config, **own, **({"num_attention_heads": heads} if heads else {}), **differing}


def _name_kinds(config: JsonObject) -> list[str]:
    """Return the kind of each layer, as its configuration or others call it."""
    count = config.get("num_hidden_layers") or len(config.get("layers_block_type") or [])
    for name in ("layer_types", "layers_block_type", "hybrid_override_pattern"):
        if config.get(name):
            return list(config[name])
    if pattern := config.get("hybrid_layer_pattern"):
        return [("full_attention", "sliding_attention")[number] for number in pattern]
    if kinds := config.get("attn_type_list"):
        return [("linear_attention", "full_attention")[number] for number in kinds]
    if (whole := _whole_layers(config, count)) is not None:
        return ["full_attention" if number in whole else "linear_attention" for number in range(count)]
    if marks := [name for name in config if _HAS_STATES.search(name)]:
        raise ModelError(f"config.json has {marks[0]}, and does not say which layers it is for")
    window = "chunked_attention" if config.get("attention_chunk_size") else "sliding_attention"
    is_used = config.get("use_sliding_window") is not False
    if not _window(config) or not is_used:
        return ["full_attention"] * count
    period = config.get("sliding_window_pattern") or PERIODS.get(str(config.get("model_type")), 0)
    if isinstance(period, str):
        return [period[number % len(period)] for number in range(count)]
    return ["full_attention" if period and (number + 1) % period == 0 else window for number in range(count)]


def _whole_layers(config: JsonObject, count: int) -> Sequence[int] | None:
    """Return the numbers of the layers that attend, where the others keep a state; None: it is not said so."""
    if interval := config.get("full_attention_interval"):
        return range(interval - 1, count, interval)
    if period := config.get("attn_layer_period"):
        return range(config.get("attn_layer_offset") or 0, count, period)
    if numbers := (config.get("linear_attn_config") or {}).get("full_attn_layers"):
        return [number - 1 for number in numbers]
    return config.get("full_attn_idxs") or config.get("attn_layer_indices")


def _window(config: JsonObject) -> int:
    """Return the tokens that a layer with a window reaches back to; 0: none has one."""
    names = ("sliding_window", "sliding_window_size", "attention_window_size", "attention_chunk_size")
    return int(next((config[name] for name in names if config.get(name)), 0))


def _read_layer(config: JsonObject, is_recent: bool, name: str, *, keeps: bool) -> AttentionLayer:
    """Return a layer of a kind of this name, by the sizes that are its own."""
    heads = _size(config, is_recent, ("num_attention_heads",))
    if not heads:
        raise ModelError("config.json gives no num_attention_heads, so that its attention is not known")
    groups = _size(config, is_recent, ("num_key_value_heads", "num_kv_heads")) or heads
    if config.get("multi_query") and not config.get("new_decoder_architecture"):  # Falcon's is of groups
        groups = 1
    key = _size(config, is_recent, ("head_dim",)) or (config.get("hidden_size") or 0) // heads
    value = _size(config, is_recent, ("v_head_dim",)) or key
    index, rank = (config.get("index_head_dim") or 0) // 2, config.get("kv_lora_rank")  # an index has a byte a number
    hidden, cached = config.get("hidden_size") or 0, groups * (key + value)
    matrices = hidden * (heads * key + cached + heads * value)
    if rank:
        rope = config.get("qk_rope_head_dim") or 0
        key, cached = (config.get("qk_nope_head_dim") or key) + rope, rank + rope + index
        matrices = hidden * (rank + rope + heads * value) + rank * heads * (key - rope + value)
        queries = heads * key + (config.get("index_n_heads") or 0) * 2 * index
        narrow = config.get("q_lora_rank")
        matrices += narrow * (hidden + queries) if narrow else hidden * queries
    stride = _stride(config, name)
    if stride is not None:
        cached = key + (index if stride else 0)  # a key is its value, too
    elif is_recent and _window(config):
        stride = 0
    return AttentionLayer(
        width=heads * (key + value) // 2,
        matrices=matrices,
        cached=cached if keeps else 0,
        stride=1 if stride is None else stride,
        window=0 if stride is None else _window(config),
    )


def _stride(config: JsonObject, name: str) -> int | None:
    """Return how many tokens share a key beyond the window, 0: none is kept; None: no layer is of this sort."""
    if "compress_ratios" in config:
        return int(config["compress_ratios"])
    rates = config.get("compress_rates")
    return int(rates.get(name, 0)) if rates else None


def _size(config: JsonObject, is_recent: bool, names: tuple[str, ...]) -> int:
    """Return a size, where it differs that of layers with a window, or of those without."""
    for name in names:
        own = f"swa_{name}" if is_recent else "global_head_dim" if name == "head_dim" else f"num_global_{name[4:]}"
        size = config.get(own) or config.get(name)
        if size:
            return int(size) if isinstance(size, int | float) else 0
    return 0


def _state_size(config: JsonObject) -> int:
    """Return the numbers of one layer's state; 0: not known."""
    sizes = [
        ("linear_num_value_heads", "linear_value_head_dim", "linear_key_head_dim"),
        ("mamba_num_heads", "mamba_head_dim", "ssm_state_size"),
        ("mamba_n_heads", "mamba_d_head", "mamba_d_state"),
    ]
    for names in sizes:
        first, second, third = (config.get(name) or 0 for name in names)
        if isinstance(second, int) and first * second * third:
            return int(first * second * third)
    return 0
