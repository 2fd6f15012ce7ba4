"""Adapters: put into a model by a checked subset of PEFT's options, saved so that they load on the untouched base."""

import re
import tempfile
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, OSFConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora.layer import ParamWrapper
from peft.utils.other import get_pattern_key
from safetensors.torch import save_file
from transformers import PreTrainedModel

from mixtune.errors import ConfigError, ModelError
from mixtune.inference.text_parts import find_head
from mixtune.interpolation import build_without_weights
from mixtune.settings.train import TrainSettings
from mixtune.train.modeling.dropout import Dropout, RecordDropout
from mixtune.train.modeling.targets import find_targets, is_named

PEFT_OPTIONS = (
    "target_modules", "target_parameters", "exclude_modules", "use_rslora", "use_dora", "init_lora_weights",
    "rank_pattern", "alpha_pattern",
)  # fmt: skip
"""Settings that PEFT's LoraConfig takes under the same names; dropout is `RecordDropout`'s."""


@dataclass(frozen=True)
class Adapter:
    """An adapter in training."""

    peft: PeftModel
    dropout: Dropout | None
    """What decides which values are dropped; None: none are."""
    initial: dict[str, torch.Tensor]
    """The adapter as it began, where it began by changing the base weights (PiSSA, OLoRA); else empty."""

    def save(self, folder: Path) -> None:
        """Write it in PEFT's format.

        One that began by changing the base is written as its difference to that beginning, at twice the rank, so that
        it too loads on the untouched base (PiSSA, Meng et al. 2024).
        """
        with tempfile.TemporaryDirectory() as scratch:
            initial = Path(scratch) / "initial"
            initial.mkdir()
            if self.initial:
                save_file(self.initial, initial / "adapter_model.safetensors", {"format": "pt"})
            self.peft.save_pretrained(
                str(folder),
                save_embedding_layers=False,  # they are the base's; PEFT would ask the hub whether they grew
                path_initial_model_for_weight_conversion=str(initial) if self.initial else None,
            )
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card


def add_adapter(causal: PreTrainedModel, settings: TrainSettings, base_name: str) -> Adapter:
    """Put an adapter into a model, by default into every matrix of its text decoder; see `find_targets`.

    Weights change where the initialisation says so; what the model computes does not. `seed` must be set in torch. The
    adapter's configuration has the base's name.

    Raises:
        ConfigError: An option names nothing that is there, or the rank is too high.
    """
    options = settings.lora_options
    make_config = _osf_config if options.use_osf else _lora_config
    names = [name for values in (causal.named_modules(), causal.named_parameters()) for name, _ in values]
    try:
        model = get_peft_model(causal, make_config(causal, settings))
        _check_names(model, settings, names)
    except re.error as error:
        raise ConfigError(f"lora_options: {error.pattern!r} is no regular expression ({error})") from error
    except ValueError as error:
        raise ConfigError(f"lora_options: {error}") from error
    initial = get_peft_model_state_dict(model) if options.changes_base else {}
    return _finish(model, settings, base_name, {name: value.cpu().clone() for name, value in initial.items()})


def _check_names(model: PeftModel, settings: TrainSettings, names: list[str]) -> None:
    """Check that each of the options fits some of the model's names: PEFT leaves out what fits none without a word.

    Raises:
        ConfigError: One fits none.
    """
    options, reached = settings.lora_options, [*model.targeted_module_names, *model.targeted_parameter_names]
    for option in ("target_modules", "target_parameters", "exclude_modules", "rank_pattern", "alpha_pattern"):
        values = getattr(options, option) or ()
        for value in [values] if isinstance(values, str) else values:
            if "pattern" in option:
                fits = any(get_pattern_key([value], name) == value for name in reached)
            else:
                fits = any(is_named(name, value if isinstance(values, str) else [value]) for name in names)
            if not fits and value != "all-linear":
                has = ", ".join(sorted({name.rpartition(".")[2] for name in reached}))
                raise ConfigError(f"{option}: nothing is named {value!r}; the adapter works on {has}")


def check_adapter(folder: Path, settings: TrainSettings) -> None:
    """Make the adapter on the model of a folder without its weights; errors as of `add_adapter`."""
    causal, options = build_without_weights(folder), settings.lora_options
    if options.changes_base:  # by a decomposition of weights
        options = replace(options, init_lora_weights=True)
    add_adapter(causal, replace(settings, lora_options=options), folder.name)


def load_adapter(causal: PreTrainedModel, folder: Path, settings: TrainSettings, base_name: str) -> Adapter:
    """Put a trained adapter, in PEFT's format, into its base model, to be trained further; how it is made is its own.

    Raises:
        ModelError: It does not fit this base model.
    """
    try:
        model = PeftModel.from_pretrained(causal, str(folder), is_trainable=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"{folder}: the adapter does not fit this base model ({error})") from error
    return _finish(model, settings, base_name, {})


def _finish(model: PeftModel, settings: TrainSettings, base_name: str, initial: dict[str, torch.Tensor]) -> Adapter:
    for config in model.peft_config.values():
        config.base_model_name_or_path = base_name  # not this machine's path
        for name in ("target_modules", "target_parameters", "exclude_modules"):
            if isinstance(names := getattr(config, name, None), set):
                setattr(config, name, sorted(names))  # a set's order is another in every process
    share = settings.lora_options.lora_dropout
    return Adapter(model, _add_dropout(model, share, settings.seed) if share else None, initial)


def _lora_config(causal: PreTrainedModel, settings: TrainSettings) -> LoraConfig:
    adapter = settings.lora_options
    # PEFT writes into the patterns that it is given, and a default instance of settings is shared.
    options: dict[str, Any] = {name: deepcopy(getattr(adapter, name)) for name in PEFT_OPTIONS}
    if adapter.target_modules == "all-linear":
        targets = find_targets(causal, adapter.exclude_modules)
        if not targets.modules and not targets.parameters:
            raise ConfigError(f"{type(causal).__name__}: PEFT would find no adapter of it again; take method=sft")
        options |= {"target_modules": targets.modules, "exclude_modules": None}
        if not adapter.use_dora and adapter.init_lora_weights in (True, "gaussian"):
            options |= {"target_parameters": targets.parameters or None}
    return LoraConfig(r=settings.lora_rank, lora_alpha=settings.lora_alpha, task_type="CAUSAL_LM", **options)


def _osf_config(causal: PreTrainedModel, settings: TrainSettings) -> OSFConfig:
    """Return the configuration of orthogonal subspace tuning (Nayak et al. 2025).

    All but `lora_rank` of a matrix's directions stay as they are.
    """
    widths = {
        name.rsplit(".", 1)[-1]: min(module.weight.shape)
        for name, module in causal.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not find_head(causal)
    }
    rank, narrowest = settings.lora_rank, min(widths, key=lambda name: widths[name])
    if rank >= widths[narrowest]:
        raise ConfigError(f"lora_rank is {rank}; {narrowest} has {widths[narrowest]} directions, fewer must move")
    frozen: dict[str, int | float] = {re.escape(name) + "$": width - rank for name, width in widths.items()}
    return OSFConfig(task_type="CAUSAL_LM", rank_pattern=frozen, target_modules=settings.lora_options.target_modules)


def _add_dropout(model: PeftModel, share: float, seed: int) -> Dropout:
    dropout = Dropout(share, seed)
    layers: list[Any] = list(model.modules())
    for module in layers:
        if hasattr(module, "lora_dropout") and not isinstance(module, ParamWrapper):
            for name in module.lora_dropout:
                module.lora_dropout[name] = RecordDropout(dropout)
    return dropout
