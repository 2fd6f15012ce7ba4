"""A decoder's sizes, counted on the model that transformers builds, or by its configuration."""

from dataclasses import dataclass, replace
from pathlib import Path

from mixtune import models
from mixtune.artifacts.sizes.attention_layers import Mixing, read_mixing
from mixtune.artifacts.sizes.stored_weights import count_stored, read_tensors
from mixtune.errors import ModelError
from mixtune.interpolation import SIZES, build_without_weights, read_config
from mixtune.settings.foreign import JsonObject
from mixtune.training_math import ACTIVE_EXPERTS, EXPERT_COUNTS, Attention, ModelSizes

PLAIN_MLP = (
    "apertus", "arcee", "biogpt", "bloom", "codegen", "falcon", "fuyu", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox",
    "gpt_neox_japanese", "gptj", "jais2", "mpt", "nanochat", "nemotron", "openai-gpt", "opt", "persimmon", "phi",
    "starcoder2", "xglm",
)  # fmt: skip
"""Model types whose MLP has two matrices; the others' is gated and has three."""

_MLP_WIDTHS = ("intermediate_size_mlp", "dense_intermediate_size", "intermediate_size", "n_inner", "ffn_dim")


@dataclass(frozen=True, kw_only=True)
class Experts:
    """The mixture of experts that replaces some layers' MLP."""

    layers: int
    count: int
    inner: int
    shared: int
    """Width of the experts that every token goes through, together."""
    active_inner: int
    """Width of all that a token goes through."""


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
    experts: Experts | None = None
    per_layer: int = 0
    """Values of the embedding that each layer has of its own (Gemma 3n, Gemma 4)."""
    counted: ModelSizes | None = None
    """By the modules of the model, or by its files; None: formulas over the sizes stand in for it."""
    source: str = "by the sizes in its configuration"
    """Where the sizes come from."""
    mixing: Mixing | None = None
    """How its layers attend, by the configuration; None: of a kind that is not known, all as if to the whole record."""

    @classmethod
    def read(cls, base_model: str) -> "Shape":
        """Read a base model; a ModelError where neither its configuration nor its files give its sizes.

        Values are counted on the model that transformers builds; without PyTorch, or where it builds none, by the
        headers of its files. A Llama's formulas are exact, and load nothing.
        """
        folder = models.fetch_model(base_model, weights=False)
        config = read_config(str(folder))
        if config.get("model_type") == "llama":
            return cls.from_config(config)
        try:
            from mixtune.inference.text_parts import count_model

            counted = count_model(build_without_weights(folder))
        except Exception:  # whatever a class says of its configuration, other checks say
            return cls._read_files(base_model, folder, config)
        return replace(cls.from_config(config, counted), source="as transformers builds it")

    @classmethod
    def _read_files(cls, base_model: str, folder: Path, config: JsonObject) -> "Shape":
        """Count by the headers of files; without them by formula, where that holds."""
        stored = count_stored(read_tensors(base_model, folder), config)
        if not stored:
            shape = cls.from_config(config)
            if reason := _unlike_formula(shape, config.get("text_config") or config):
                way = "give it with its weights' files, or install PyTorch"
                raise ModelError(f"{folder.name}: {reason}, so its size does not follow from config.json; {way}")
            towers = any(config.get(name) for name in ("vision_config", "audio_config"))
            return replace(shape, source=f"{shape.source}, its towers not counted") if towers else shape
        sizes = ModelSizes(
            parameters=stored.parameters, text=stored.text, active=stored.active, attention=Attention(whole=0)
        )
        shape = cls.from_config(config, sizes)
        sizes = replace(sizes, attention=replace(shape, counted=None).attention)
        return replace(shape, counted=sizes, tied=stored.tied, source="as its files have")

    @classmethod
    def from_config(cls, config: JsonObject, counted: ModelSizes | None = None) -> "Shape":
        """Read a model's `config.json`; a ModelError where a size is missing: of a counted one, heads may be."""
        config = {**config, **(config.get("text_config") or {})}  # whether embeddings are tied may be said of the whole
        config["num_hidden_layers"] = config.get("num_hidden_layers") or len(config.get("layers_block_type") or [])
        layers, hidden, heads, vocabulary = (_first(config, (name,)) for name in SIZES)
        missing = [name for name in SIZES if not config.get(name) and not (counted and name == "num_attention_heads")]
        if missing:
            raise ModelError(f"config.json gives no {missing[0]}; the memory is measured in the validation run")
        width = config.get("head_dim") or hidden // max(1, heads)
        one_key = config.get("multi_query") and not config.get("new_decoder_architecture")  # Falcon's is of groups
        return cls(
            layers=layers,
            hidden=hidden,
            inner=_first(config, _MLP_WIDTHS) or 4 * hidden,
            query=heads * width,
            key_value=width if one_key else (_first(config, ("num_key_value_heads", "num_kv_heads")) or heads) * width,
            vocabulary=vocabulary,
            tied=bool(config.get("tie_word_embeddings", True)),
            mlp_matrices=2 if config.get("model_type") in PLAIN_MLP else 3,
            experts=_experts(config, layers),
            per_layer=_first(config, ("vocab_size_per_layer_input",))
            * _first(config, ("hidden_size_per_layer_input",)),
            counted=counted,
            mixing=_find_mixing(config),
        )

    @property
    def active(self) -> int:
        """Values in the matrices that a token goes through, the head's among them."""
        formula = self._linear(self.experts.active_inner if self.experts else 0) + self.vocabulary * self.hidden
        return self.counted.active if self.counted else formula

    def _linear(self, width: int) -> int:
        """Return the values in matrices, with experts of so much width together."""
        mixed = self.experts.layers if self.experts else 0
        mlp = self.mlp_matrices * ((self.layers - mixed) * self.inner + mixed * width)
        plain = 2 * self.layers * (self.query + self.key_value) * self.hidden
        attention = sum(layer.matrices for layer in self.mixing.layers) if self.mixing else plain
        return self.hidden * mlp + attention

    @property
    def attention(self) -> Attention:
        """The width of attention; of layers of unknown kinds, as if they attended to the whole record."""
        by_kind = self.mixing.attention if self.mixing else Attention(whole=self.layers * self.query)
        return self.counted.attention if self.counted else by_kind

    @property
    def embeddings(self) -> int:
        """Parameters of the embeddings, in and out."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + self.layers * self.per_layer

    @property
    def parameters(self) -> int:
        """All parameters; by formula norms are counted, biases and towers not."""
        if self.counted:
            return self.counted.parameters
        width = self.experts.count * self.experts.inner + self.experts.shared if self.experts else 0
        return self.embeddings + self._linear(width) + (2 * self.layers + 1) * self.hidden

    @property
    def text(self) -> int:
        """Parameters of the decoder of text and its head, which full fine-tuning trains."""
        return self.counted.text if self.counted else self.parameters

    def line(self) -> str:
        """In words, with where they come from."""
        unknown = "" if self.mixing else "; what its layers attend to is not known, taken as all tokens before each"
        return f"{self.parameters / 1e9:.2f} billion parameters, {self.source}{unknown}"

    def adapter(self, rank: int) -> int:
        """Parameters of a LoRA adapter on all linear layers."""
        attention = 2 * (self.hidden + self.query) + 2 * (self.hidden + self.key_value)
        dense = self.mlp_matrices * (self.hidden + self.inner)
        if not self.experts:
            return self.layers * rank * (attention + dense)
        mixed, shared = self.experts.layers, 3 * (self.hidden + self.experts.shared) if self.experts.shared else 0
        fused = self.experts.count * (2 * self.hidden + 3 * self.experts.inner)  # gate and up have one A
        return rank * (self.layers * attention + (self.layers - mixed) * dense + mixed * (fused + shared))


def _find_mixing(config: JsonObject) -> Mixing | None:
    """Return how layers attend; None: the configuration has them of a kind that is not known."""
    try:
        return read_mixing(config)
    except ModelError:
        return None


def _unlike_formula(shape: Shape, config: JsonObject) -> str:
    """Return what a model has that no formula here counts; empty: nothing."""
    if shape.mixing is None or shape.mixing.num_states:
        return "not all of its layers are attention" if shape.mixing else "it has layers of a kind that is not known"
    unknown = ("o_lora_rank", "moe_latent_size", "block_configs", "per_layer_config", "attention_other_setting")
    return next((f"it has {name}" for name in unknown if config.get(name)), "")


def _experts(config: JsonObject, layers: int) -> Experts | None:
    """Return a model's mixture of experts; None: it has none."""
    count = _first(config, EXPERT_COUNTS)
    if count < 2:
        return None
    inner = _first(config, ("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size"))
    num_shared = _first(config, ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"))
    shared = _first(config, ("shared_expert_intermediate_size", "shared_intermediate_size")) or num_shared * inner
    if config.get("enable_moe_block") or config.get("model_type") == "llama4_text":  # beside its experts, a dense part
        shared = _first(config, ("intermediate_size",))
    kinds = config.get("mlp_layer_types") or []
    mixed_layers = config.get("moe_layer_freq")
    dense = kinds.count("dense") or _first(config, ("first_k_dense_replace", "num_dense_layers"))
    dense = mixed_layers.count(0) if isinstance(mixed_layers, list) else dense
    period = _first(config, ("expert_layer_period", "interleave_moe_layer_step", "decoder_sparse_step")) or 1
    mixed, active = max(0, layers - dense) // period, (_first(config, ACTIVE_EXPERTS) or 1) * inner + shared
    return Experts(layers=mixed, count=count, inner=inner, shared=shared, active_inner=active)


def _first(config: JsonObject, names: tuple[str, ...]) -> int:
    """Return the first of some sizes that there is, of one for each layer their mean; 0: there is none."""
    size = next((config[name] for name in names if config.get(name)), 0)
    return int(sum(size) / len(size) if isinstance(size, list) else size)
