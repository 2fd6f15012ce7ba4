"""A decoder's sizes, as its configuration gives them, and the arithmetic of a token."""

from dataclasses import dataclass

from mixtune.errors import ModelError
from mixtune.settings.foreign import JsonObject
from mixtune.training_math import ACTIVE_EXPERTS, Attention, operations_per_token, reachable_share

PLAIN_MLP = (
    "apertus", "arcee", "biogpt", "bloom", "codegen", "falcon", "fuyu", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox",
    "gpt_neox_japanese", "gptj", "jais2", "mpt", "nanochat", "nemotron", "openai-gpt", "opt", "persimmon", "phi",
    "starcoder2", "xglm",
)  # fmt: skip
"""Model types whose MLP has two matrices; the others' is gated and has three."""


@dataclass(frozen=True, kw_only=True)
class Experts:
    """The mixture of experts that stands in the place of some layers' MLP."""

    layers: int
    """Layers that have one."""
    count: int
    """Experts of a layer."""
    active: int
    """Experts that a token goes through."""
    inner: int
    """Width of an expert."""
    shared: int
    """Width of the experts that every token goes through, together."""

    @property
    def active_inner(self) -> int:
        """Width of all that a token goes through."""
        return self.active * self.inner + self.shared


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A decoder-only transformer's sizes."""

    layers: int
    hidden: int
    inner: int
    """Width of the MLP."""
    query: int
    """Width of all query heads together."""
    key_value: int
    """Width of all key heads together, which is that of all value heads."""
    vocabulary: int
    tied: bool
    """Whether input and output embeddings are one matrix."""
    mlp_matrices: int = 3
    latent: int = 0
    """Values in the matrices of one layer's attention over a latent (MLA); 0: it has none."""
    experts: Experts | None = None
    attending: int = 0
    """Layers with attention to the whole record; 0: all."""
    windowed: int = 0
    """Layers with attention to `window` tokens; those that are neither keep a state."""
    window: int = 0
    per_layer: int = 0
    """Values of the embedding that each layer has of its own (Gemma 3n, Gemma 4)."""

    @classmethod
    def from_config(cls, config: JsonObject) -> "Shape":
        """Read a model's `config.json`; a ModelError where a size is missing."""
        config = config.get("text_config") or config
        sizes = {name: _first(config, names) for name, names in _NAMES.items()}
        missing = [_NAMES[name][0] for name, value in sizes.items() if not value]
        if missing:
            raise ModelError(f"config.json gives no {missing[0]}; the memory is measured in the validation run")
        hidden, heads = sizes["hidden"], sizes["heads"]
        width = config.get("head_dim") or hidden // heads
        one_key = config.get("multi_query") and not config.get("new_decoder_architecture")  # Falcon's is of groups
        kinds = [str(kind) for kind in config.get("layer_types") or []]
        window = int(config.get("sliding_window") or 0) if config.get("use_sliding_window") is not False else 0
        return cls(
            layers=sizes["layers"],
            hidden=hidden,
            inner=_first(config, ("intermediate_size_mlp", "intermediate_size", "n_inner", "ffn_dim")) or 4 * hidden,
            query=heads * width,
            key_value=width if one_key else (_first(config, ("num_key_value_heads", "num_kv_heads")) or heads) * width,
            vocabulary=sizes["vocabulary"],
            tied=bool(config.get("tie_word_embeddings", True)),
            mlp_matrices=2 if config.get("model_type") in PLAIN_MLP else 3,
            latent=_latent(config, hidden, heads),
            experts=_experts(config, sizes["layers"]),
            attending=sum(kind in _WHOLE for kind in kinds),
            windowed=sum(kind == "sliding_attention" for kind in kinds) if window else 0,
            window=window,
            per_layer=_first(config, ("vocab_size_per_layer_input",))
            * _first(config, ("hidden_size_per_layer_input",)),
        )

    @property
    def linear(self) -> int:
        """Parameters in the layers' matrices."""
        return self._linear(self.experts.count * self.experts.inner + self.experts.shared if self.experts else 0)

    @property
    def active_linear(self) -> int:
        """Values in the layers' matrices that a token goes through."""
        return self._linear(self.experts.active_inner if self.experts else 0)

    def _linear(self, width: int) -> int:
        """Return the values in matrices, with experts of so much width together."""
        attention = self.latent or 2 * self.hidden * (self.query + self.key_value)
        mixed = self.experts.layers if self.experts else 0
        mlp = (self.layers - mixed) * self.inner + mixed * width
        return self.layers * attention + self.mlp_matrices * self.hidden * mlp

    @property
    def attention(self) -> Attention:
        """The width of attention."""
        whole = self.attending or (0 if self.windowed else self.layers)
        return Attention(whole=whole * self.query, windowed=self.windowed * self.query, window=self.window)

    @property
    def embeddings(self) -> int:
        """Parameters of the embeddings, in and out."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + self.layers * self.per_layer

    @property
    def parameters(self) -> int:
        """All parameters; norms counted, biases not."""
        return self.embeddings + self.linear + (2 * self.layers + 1) * self.hidden

    def adapter(self, rank: int) -> int:
        """Parameters of a LoRA adapter on all linear layers."""
        attention = 2 * (self.hidden + self.query) + 2 * (self.hidden + self.key_value)
        dense = self.mlp_matrices * (self.hidden + self.inner)
        if not self.experts:
            return self.layers * rank * (attention + dense)
        mixed, shared = self.experts.layers, 3 * (self.hidden + self.experts.shared) if self.experts.shared else 0
        fused = self.experts.count * (2 * self.hidden + 3 * self.experts.inner)  # gate and up have one A
        return rank * (self.layers * attention + (self.layers - mixed) * dense + mixed * (fused + shared))


def operations_of_token(shape: Shape, method: str, length: float) -> float:
    """Return the arithmetic of one trained token of a record of so many tokens."""
    matrices = shape.active_linear + shape.vocabulary * shape.hidden
    return operations_per_token(method, matrices, shape.attention, length)


def _latent(config: JsonObject, hidden: int, heads: int) -> int:
    """Return the values of one layer's attention over a latent; 0: it has none."""
    latent = config.get("kv_lora_rank") or 0
    nope, rope, value = (config.get(key) or 0 for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    if not latent or not value:
        return 0
    narrow, query = config.get("q_lora_rank") or 0, heads * (nope + rope)
    queries = narrow * (hidden + query) if narrow else hidden * query
    return int(queries + hidden * (latent + rope) + latent * heads * (nope + value) + heads * value * hidden)


def _experts(config: JsonObject, layers: int) -> Experts | None:
    """Return a model's mixture of experts; None: it has none."""
    count = _first(config, ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"))
    if count < 2:
        return None
    inner = _first(config, ("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size"))
    num_shared = _first(config, ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"))
    shared = _first(config, ("shared_expert_intermediate_size", "shared_intermediate_size")) or num_shared * inner
    if config.get("enable_moe_block") or config.get("model_type") == "llama4_text":  # beside its experts, a dense part
        shared = _first(config, ("intermediate_size",))
    kinds = config.get("mlp_layer_types") or []
    dense = kinds.count("dense") or _first(config, ("first_k_dense_replace", "num_dense_layers"))
    period = _first(config, ("expert_layer_period", "interleave_moe_layer_step", "decoder_sparse_step")) or 1
    return Experts(
        layers=max(0, layers - dense) // period,
        count=count,
        active=_first(config, ACTIVE_EXPERTS) or 1,
        inner=inner,
        shared=shared,
    )


_WHOLE = ("full_attention", "attention", "hybrid", "chunked_attention")
"""Kinds of layers, by the names of `layer_types`, whose attention spans the record."""


def reachable(shape: Shape, method: str, length: float) -> float:
    """Return the share of a GPU's peak, 0 to 1, that a training on records of so many tokens is assumed to reach."""
    return reachable_share(method, shape.active_linear + shape.vocabulary * shape.hidden, shape.attention, length)


_NAMES = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head"),
    "vocabulary": ("vocab_size",),
}


def _first(config: JsonObject, names: tuple[str, ...]) -> int:
    """Return the first of some sizes that there is, of one for each layer their mean; 0: there is none."""
    size = next((config[name] for name in names if config.get(name)), 0)
    return int(sum(size) / len(size) if isinstance(size, list) else size)
