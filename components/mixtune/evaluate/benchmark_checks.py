"""The engine, and every benchmark planned, before anything runs: a run that cannot be measured is not trained."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import cast

from transformers import AutoTokenizer

from mixtune import models, storage
from mixtune.artifacts.model import AdapterConfig, BaseModel
from mixtune.chat.template_files import read_template_file
from mixtune.errors import MixtuneError, ModelError
from mixtune.evaluate.named_benchmarks import Benchmark, parse_benchmarks
from mixtune.evaluate.power import warn_of_few
from mixtune.inference.engine import Tokenizer
from mixtune.inference.parallel import Part
from mixtune.inference.prompts import check_thinking_switch
from mixtune.inference.vllm_engine import check_installed, takes_plain
from mixtune.settings.from_dict import Options, from_dict
from mixtune.settings.inference import AS_TEMPLATE, AS_TRAINED, ENDPOINT, VLLM, EvaluateSettings
from mixtune.settings.train import TrainSettings


def check_engine(
    base_model: str, options: Options, training: TrainSettings | None, elsewhere: bool = False
) -> Iterator[tuple[str, str]]:
    """Check whether models can be evaluated by the options of `evaluate`, the trained one too.

    `elsewhere`: it runs in another image.
    """
    settings = from_dict(EvaluateSettings, options, "evaluate_options")
    if settings.engine == ENDPOINT:
        yield "fail", "engine endpoint asks one served model, whichever is evaluated; it is for the component evaluate"
    if settings.engine == VLLM:
        try:
            check_installed()
        except ModelError as error:
            own = elsewhere or os.environ.get("KUBERNETES_SERVICE_HOST")
            yield ("warn", f"{error}; evaluate's own image was not looked at") if own else ("fail", str(error))
        yield from _check_adapter(base_model, training)
    if settings.thinking not in (AS_TRAINED, AS_TEMPLATE):
        check_thinking_switch(_load_tokenizer(base_model, settings), settings.thinking)
    yield "pass", f"engine {settings.engine}, thinking as {settings.thinking}"


def _check_adapter(base_model: str, training: TrainSettings | None) -> Iterator[tuple[str, str]]:
    """Check that vLLM takes the trained adapter, or that its merged weights will be there."""
    if not training or training.method != "lora":
        return
    reason, merged = AdapterConfig.planned(training).refused_by_vllm(), training.lora_options.merge
    if reason and not merged:
        yield "fail", takes_plain(reason)
    elif reason:
        yield "pass", f"vLLM takes plain LoRA, and {reason}: the merged weights are asked"
    row = BaseModel.read(models.fetch_model(base_model, weights=False)).architecture
    all_linear = training.lora_options.target_modules == "all-linear"
    if not reason and (training.lora_options.target_parameters or (all_linear and row and row.reach.get("experts"))):
        yield (
            "warn",
            "the adapter works on experts, which vLLM serves of some models alone, and evaluate sees it after the "
            "training: try both on max_steps=5 first, or take engine transformers",
        )


def _load_tokenizer(base_model: str, settings: EvaluateSettings) -> Tokenizer:
    folder = models.fetch_model(base_model, weights=False)
    tokenizer = cast(Tokenizer, AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
    if settings.chat.chat_template_uri:
        tokenizer.chat_template = read_template_file(settings.chat.chat_template_uri)
    return tokenizer


@dataclass(frozen=True, kw_only=True)
class BenchmarkPlans:
    """Every benchmark, planned once as `evaluate` will with its `options`, for all checks that look at the plans."""

    benchmarks: Mapping[str, Options]
    base_model: str
    options: Options

    @cached_property
    def settings(self) -> EvaluateSettings:
        """The settings of `evaluate`."""
        return from_dict(EvaluateSettings, self.options, "evaluate_options")

    @cached_property
    def parsed(self) -> dict[str, Benchmark]:
        """The benchmarks by axis."""
        return parse_benchmarks(self.benchmarks)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The base model's."""
        return _load_tokenizer(self.base_model, self.settings)

    @cached_property
    def max_length(self) -> int:
        """Tokens that the model takes in; 0: not known."""
        return BaseModel.read(models.fetch_model(self.base_model, weights=False)).max_length

    @cached_property
    def outcomes(self) -> dict[str, list[Part] | MixtuneError]:
        """The parts of each benchmark, or why it cannot be planned."""
        outcomes: dict[str, list[Part] | MixtuneError] = {}
        for name, (form, options) in self.parsed.items():
            try:
                outcomes[name] = form.plan(name, options, self.tokenizer, self.settings.limit_of(name))
            except MixtuneError as error:
                outcomes[name] = error
        return outcomes

    @property
    def parts(self) -> dict[str, list[Part]]:
        """The parts of the benchmarks that can be planned."""
        return {name: parts for name, parts in self.outcomes.items() if not isinstance(parts, MixtuneError)}


def check_benchmarks(
    plans: BenchmarkPlans, limits: Mapping[str, float] = MappingProxyType({})
) -> Iterator[tuple[str, str]]:
    """Look at every benchmark's plan: rows, solved items, template; yield outcomes and texts.

    `limits` are the losses allowed over the defaults: too few items to tell are warned of.

    A form whose library is in the evaluate image alone is not looked at.
    """
    for name, parts in (plans.outcomes if plans.benchmarks else {}).items():
        if isinstance(parts, MixtuneError):
            is_elsewhere = isinstance(parts.__cause__, ImportError)
            reason = storage.without_digests(str(parts))
            yield ("skip", f"{name}: {reason}") if is_elsewhere else ("fail", f"benchmarks.{name}: {reason}")
            continue
        num_items, answer = sum(len(part.items) for part in parts), max(part.new_tokens for part in parts)
        yield "pass", f"{name}: {num_items:,} items" + (f", answers of at most {answer:,} tokens" if answer else "")
        limit = plans.settings.limit_of(name)
        way = "raise evaluate_options.limit to" if num_items == limit else "give more items,"
        yield from warn_of_few(name, num_items, limits.get(name, plans.parsed[name].form.default_limit), way)
        if 0 < plans.max_length <= answer:
            way = "the model takes in all, which leaves none for questions; set it lower"
            yield "fail", f"benchmarks.{name}: max_new_tokens is {answer} of the {plans.max_length} tokens that {way}"
