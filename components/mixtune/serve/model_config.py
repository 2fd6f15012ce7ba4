"""A model's `config.json`, as far as serving needs it: architecture, number format, and sizes of keys and values."""

from dataclasses import dataclass, field, replace

from mixtune import storage
from mixtune.artifacts.sizes.attention_layers import Mixing, read_mixing
from mixtune.errors import ModelError
from mixtune.interpolation import read_config as read_pretrained_config
from mixtune.settings.foreign import JsonObject, read_known

VALUE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How weights are packed."""

    quant_method: str = ""


@dataclass(frozen=True, kw_only=True)
class TextSizes:
    """Sizes of the language model, under the names that Hugging Face's configurations have for them."""

    num_hidden_layers: int = 0
    hidden_size: int = 0
    num_attention_heads: int = 0
    num_key_value_heads: int = 0
    num_kv_heads: int = 0
    multi_query: bool = False
    new_decoder_architecture: bool = False
    """Of Falcon: queries share keys in groups, whatever `multi_query` says."""
    head_dim: int = 0
    kv_lora_rank: int = 0
    """Of DeepSeek's latent attention: keys and values of a token are one vector of this size."""
    max_position_embeddings: int = 0
    """Longest sequence that the model was made for; 0: it does not say."""
    dtype: str = ""
    torch_dtype: str = ""

    @property
    def key_value_heads(self) -> int:
        """Heads of keys, which is that of values."""
        one_key = self.multi_query and not self.new_decoder_architecture
        return 1 if one_key else self.num_key_value_heads or self.num_kv_heads or self.num_attention_heads


@dataclass(frozen=True, kw_only=True)
class ModelConfig(TextSizes):
    """What `config.json` says; a model of several modes has its language model's sizes in `text_config`."""

    architectures: list[str] = field(default_factory=list)
    model_type: str = ""
    transformers_version: str = ""
    text_config: TextSizes | None = None
    quantization_config: Quantization | None = None
    mixing: Mixing | None = None
    """How its layers attend; None: they are of a kind that is not known."""

    @property
    def text(self) -> TextSizes:
        """Sizes of the language model."""
        return self.text_config or self

    def cache_values(self, length: int) -> int:
        """Return the numbers of two bytes that a sequence of so many tokens leaves in a server's cache.

        States are of float32. Of layers of unknown kinds, as if each kept keys and values of every token.
        """
        if self.mixing:
            return self.mixing.cache(length) + 2 * self.mixing.num_states * self.mixing.state
        width = self.text.head_dim or self.text.hidden_size // self.text.num_attention_heads
        return length * self.text.num_hidden_layers * 2 * self.text.key_value_heads * width

    @property
    def uncounted(self) -> str:
        """What of its cache is not known, in words; empty: nothing."""
        if not self.mixing:
            return (
                "its layers are of a kind that is not known, so each counts as keeping keys and values of every token"
            )
        states = self.mixing.num_states if not self.mixing.state else 0
        return f"the states of {states} layers are not counted, their size is not known" if states else ""

    @property
    def number_format(self) -> str:
        """Of the weights, such as `bfloat16`; empty: it does not say."""
        stated = self.dtype or self.torch_dtype or self.text.dtype or self.text.torch_dtype
        return stated.removeprefix("torch.")

    @property
    def architecture(self) -> str:
        """The first of its architectures; empty: it names none."""
        return self.architectures[0] if self.architectures else ""


def read_config(folder: str) -> ModelConfig:
    """Read the `config.json` of a model's folder; a ModelError where there is none, or it gives no sizes."""
    path = storage.join(folder, "config.json")
    if not storage.file_exists(path):
        raise ModelError(f"{folder}: no config.json in it; this is no Hugging Face model")
    config = parse_config(read_pretrained_config(folder), path)
    if not config.text.num_hidden_layers or not config.text.num_attention_heads:
        raise ModelError(f"{path}: it gives no num_hidden_layers or num_attention_heads, so nothing can be sized")
    return config


def parse_config(values: JsonObject, path: str) -> ModelConfig:
    """Return what a configuration says that was read from a path."""
    config = read_known(ModelConfig, values, path)
    try:
        mixing = read_mixing({**values, **(values.get("text_config") or {})})
    except ModelError:
        return config
    return replace(config, mixing=mixing)
