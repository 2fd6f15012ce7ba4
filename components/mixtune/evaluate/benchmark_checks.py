"""The engine, and every benchmark planned, before anything runs: a run that cannot be measured is not trained."""

import os
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import cast

from transformers import AutoTokenizer

from mixtune import models, storage
from mixtune.artifacts.model import AdapterConfig, BaseModel
from mixtune.chat.template_files import read_template_file
from mixtune.errors import MixtuneError, ModelError
from mixtune.evaluate.named_benchmarks import parse_benchmarks
from mixtune.evaluate.power import warn_of_few
from mixtune.inference.engine import Tokenizer
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


def check_benchmarks(
    benchmarks: Mapping[str, Options],
    base_model: str,
    options: Options,
    limits: Mapping[str, float] = MappingProxyType({}),
) -> Iterator[tuple[str, str]]:
    """Plan every benchmark as `evaluate` will with its `options`: rows, solved items, template; yield outcomes, texts.

    `limits` are the losses allowed over the defaults: too few items to tell are warned of.

    A form whose library is in the evaluate image alone is not looked at.
    """
    if not benchmarks:
        return
    settings = from_dict(EvaluateSettings, options, "evaluate_options")
    tokenizer = _load_tokenizer(base_model, settings)
    length = BaseModel.read(models.fetch_model(base_model, weights=False)).max_length
    for name, benchmark in parse_benchmarks(benchmarks).items():
        try:
            parts = benchmark.form.plan(name, benchmark.options, tokenizer, settings.limit_of(name))
            num_items, answer = sum(len(part.items) for part in parts), max(part.new_tokens for part in parts)
            yield "pass", f"{name}: {num_items:,} items" + (f", answers of at most {answer:,} tokens" if answer else "")
            way = "raise evaluate_options.limit to" if num_items == settings.limit_of(name) else "give more items,"
            yield from warn_of_few(name, num_items, limits.get(name, benchmark.form.default_limit), way)
            if 0 < length <= answer:
                way = "the model takes in all, which leaves none for questions; set it lower"
                yield "fail", f"benchmarks.{name}: max_new_tokens is {answer} of the {length} tokens that {way}"
        except MixtuneError as error:
            is_elsewhere = isinstance(error.__cause__, ImportError)
            reason = storage.without_digests(str(error))
            yield ("skip", f"{name}: {reason}") if is_elsewhere else ("fail", f"benchmarks.{name}: {reason}")
