"""Models loaded in their own form, and the dial: a tuned one interpolated towards its base, without training.

Source: WiSE-FT, Wortsman et al. 2022.
"""

import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mixtune import models, storage
from mixtune.errors import ConfigError, ModelError
from mixtune.settings.foreign import JsonObject

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")
"""Names that every configuration answers to, also where it saves another name, or what they follow from."""
LLAMA = (*SIZES, "intermediate_size", "num_key_value_heads", "max_position_embeddings", "tie_word_embeddings")
"""All that is read of a Llama's configuration: where it states them, its class and PyTorch need not be loaded."""
FACTORS = ("lora_A", "lora_embedding_A")
_CUT_BLOCKS = "fp8 of cut blocks"
"""What transformers is told to load fp8 by."""
SCALED_FACTORS = ("lora_B", "lora_embedding_B")
"""An adapter's two factors; the size of the second one is the adapter's strength."""


def check_strengths(strengths: Sequence[object]) -> list[float]:
    """Return strengths in their order, each once.

    Raises:
        ConfigError: One is no number between 0 (the base) and 1 (as trained).
    """
    values = []
    for strength in strengths:
        if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 < strength < 1:
            raise ConfigError(f"dial: a strength lies between 0 (the base) and 1 (as trained), got {strength!r}")
        values.append(float(strength))
    return sorted(set(values))


def interpolate_model(tuned: Path, base: Path, strength: float, out: Path) -> Path:
    """Write a tuned model at a strength between 0 and 1 into a folder of its own, and return that folder.

    At 0 it would be the base, at 1 as trained. A model merged from the adapter is left out.

    Raises:
        ConfigError: A strength out of range.
        ModelError: An adapter that cannot be scaled.
    """
    check_strengths([strength])
    shutil.copytree(tuned, out, ignore=shutil.ignore_patterns(models.MERGED))
    if models.is_adapter(out):
        interpolate_adapter(out, strength)
    else:
        interpolate_weights(out, base, strength)
    return out


def interpolate_weights(folder: Path, base: Path, alpha: float) -> None:
    """Replace a saved model by `base + alpha * (tuned - base)`, alpha above 0 to 1; its files are written anew."""
    import torch

    tuned = load_pretrained(folder, dtype="auto")
    base_model = load_pretrained(base, dtype=torch.float32)
    base_values = dict(base_model.named_parameters())
    with torch.no_grad():
        for name, value in tuned.named_parameters():
            value.copy_(base_values[name].lerp(value.float(), alpha))
    tuned.save_pretrained(str(folder))


def interpolate_adapter(folder: Path, alpha: float) -> None:
    """Multiply the B matrices of a saved LoRA adapter by `alpha`, and so all that it adds to the base.

    Raises:
        ModelError: It holds more than LoRA's two factors (DoRA, whole modules), which this does not scale.
    """
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise ModelError(f"{folder}: no adapter_model.safetensors in it; save the adapter with safetensors")
    values = load_file(file)
    if extra := [name for name in values if not any(factor in name for factor in (*FACTORS, *SCALED_FACTORS))]:
        raise ModelError(f"{folder}: only LoRA's two factors can be scaled; the adapter has {extra[0]} too")
    for name, value in values.items():
        if any(factor in name for factor in SCALED_FACTORS):
            values[name] = value * alpha
    save_file(values, file, {"format": "pt"})


def read_config(folder: str) -> JsonObject:
    """Return a folder's `config.json`, with its type's values for what it leaves out, where transformers is installed.

    Configurations are often saved without what is their class's default, such as heads of attention. The sizes of a
    model of several modes are under `text_config`, whatever its type calls that.
    """
    config: JsonObject = storage.read_json(storage.join(folder, "config.json"))
    if not models.find_stored_form(config) and storage.file_exists(storage.join(folder, models.MODELOPT_FILE)):
        config["quantization_config"] = {"quant_method": "modelopt"}
    try:
        if config["model_type"] == "llama" and all(config.get(name) is not None for name in LLAMA):
            return config
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        kind = CONFIG_MAPPING[config["model_type"]]
        whole = kind.from_dict(getattr(kind, "_decode_special_floats", dict)(config))  # as it saves an infinity
        text = whole.get_text_config()
        filled, inner = {**config_values(whole), **config}, {} if text is whole else config_values(text)
    except Exception:  # whatever a type's class says of it, other checks say
        return config
    if inner:
        filled["text_config"] = {**inner, **(config.get("text_config") or {})}
    return filled


def config_values(config: "PreTrainedConfig") -> JsonObject:
    """Return what a configuration says, with sizes under their usual names."""
    unsaid = ("architectures", "dtype", "transformers_version")
    named = (*SIZES, "max_position_embeddings", "head_dim", "num_key_value_heads", "layer_types")
    sizes = {name: getattr(layer_configs(config)[0], name, None) for name in named}
    values = {**sizes, **config.to_dict()}
    return {name: value for name, value in values.items() if value is not None and name not in unsaid}


def layer_configs(text: "PreTrainedConfig") -> list["PreTrainedConfig"]:
    """Return the configurations of a decoder's layers: a size that differs by layer cannot be read of the whole."""
    if getattr(text, "is_heterogeneous", False):
        return list(text.per_layer_config)
    return [text] * (getattr(text, "num_hidden_layers", None) or 1)


def auto_class(config: "PreTrainedConfig") -> type["_BaseAutoModelClass"]:
    """Return the auto class that loads a checkpoint in its own form.

    A multimodal checkpoint is loaded whole, where its configuration names a multimodal class: text alone would lose
    its towers, and give its weights other names.

    Raises:
        ModelError: transformers has no model that writes text for this type.
    """
    import transformers
    from transformers.models.auto import modeling_auto

    kind, saved_as = config.model_type, (config.architectures or [""])[0]
    names = [
        (transformers.AutoModelForCausalLM, _names(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, kind)),
        (transformers.AutoModelForMultimodalLM, _names(modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES, kind)),
    ]
    for auto, classes in sorted(names, key=lambda item: saved_as not in item[1]):
        if classes:
            return auto
    raise ModelError(f"{kind}: transformers {transformers.__version__} has no causal language model of this type")


def find_type(class_name: str) -> str:
    """Return the model type whose models of text are of a class of transformers; empty: none is, or it is not here."""
    try:
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES
    except ImportError:
        return ""
    return next((kind for kind in CLASSES if class_name in _names(CLASSES, kind)), "")


def build_without_weights(folder: Path) -> "PreTrainedModel":
    """Return the model of a folder's configuration, in the form in which it was saved, on tensors without values."""
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    with torch.device("meta"):
        model: PreTrainedModel = auto_class(config).from_config(config)
    return model


def load_pretrained(folder: Path, **options: object) -> "PreTrainedModel":
    """Load a model that writes text, in the form in which it was saved; weights of fewer bits as numbers to train.

    `options` are those of transformers' `from_pretrained`.

    Raises:
        ModelError: No such class, or the weights lack what the model needs: that would be random.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    auto = auto_class(config)
    text = config.get_text_config(decoder=True)
    stored = getattr(config, "quantization_config", None) or getattr(text, "quantization_config", None) or {}
    is_widened = stored.get("quant_method") in models.WIDENED
    if is_widened:
        if getattr(text, "quantization_config", None):
            del text.quantization_config  # else it would be saved with the widened weights
        config.quantization_config = _widened(stored)
    model: PreTrainedModel
    model, info = auto.from_pretrained(
        str(folder), config=config, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **options
    )
    if is_widened:
        # Else they would be saved under the names of the form that they had.
        model._weight_conversions = None  # type: ignore[assignment]
        if str(options.get("dtype")) == "torch.float32":
            model = model.float()  # they are bfloat16 whatever is asked for
    if not stored and (scales := sorted(filter(models.SCALE.search, info["unexpected_keys"]))):
        raise ModelError(
            f"{folder}: its weights are of fewer bits, by {scales[0]}, and its config.json has no quantization_config: "
            "without their scales they would be wrong; take the same model in bfloat16"
        )
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{folder}: its weights lack {len(missing)} that {type(model).__name__} needs, such as {missing[0]}; they "
            "would be random: take the whole model, or mend the architecture that config.json names"
        )
    return model


def _widened(stored: JsonObject) -> JsonObject:
    """Return the form that transformers loads as numbers to train; on a GPU it would stay as it is."""
    if stored["quant_method"] != "fp8":
        return {**stored, "dequantize": True}
    _register_cut_blocks()
    return {**stored, "dequantize": True, "quant_method": _CUT_BLOCKS}


@cache
def _register_cut_blocks() -> None:
    """Teach transformers matrices of which no whole number of blocks is a side: it cuts them into as many even ones."""
    import torch
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize
    from transformers.quantizers.auto import register_quantization_config, register_quantizer
    from transformers.quantizers.quantizer_finegrained_fp8 import FineGrainedFP8HfQuantizer
    from transformers.utils.quantization_config import FineGrainedFP8Config

    class WholeBlocks(Fp8Dequantize):
        def _dequantize_one(
            self, quantized: "torch.Tensor", scales: "torch.Tensor", output_dtype: "torch.dtype | None" = None
        ) -> "torch.Tensor":
            block = self.hf_quantizer.quantization_config.weight_block_size
            if not block or scales.ndim < 2 or quantized.dtype != torch.float8_e4m3fn:
                return super()._dequantize_one(quantized, scales, output_dtype)
            rows, columns = quantized.shape[-2:]
            missing = [
                count * size - side for count, size, side in zip(scales.shape[-2:], block, (rows, columns), strict=True)
            ]
            # (..., whole blocks of rows, of columns), zeros behind the matrix
            if not any(missing) or not all(0 <= gap < size for gap, size in zip(missing, block, strict=True)):
                return super()._dequantize_one(quantized, scales, output_dtype)
            padded = torch.nn.functional.pad(quantized.float(), (0, missing[1], 0, missing[0]))
            wide = super()._dequantize_one(padded, scales, output_dtype)
            return wide[..., :rows, :columns].contiguous()

    @register_quantizer(_CUT_BLOCKS)
    class WholeBlocksQuantizer(FineGrainedFP8HfQuantizer):
        def get_load_operations(self) -> dict[str, type]:
            return {"dequantize": WholeBlocks}

    register_quantization_config(_CUT_BLOCKS)(FineGrainedFP8Config)


def _names(mapping: Mapping[str, str | tuple[str, ...]], model_type: str) -> tuple[str, ...]:
    """Return the classes of a type by one of transformers' mappings, which hold a name or several."""
    names = mapping.get(model_type, ())
    return (names,) if isinstance(names, str) else tuple(names)
