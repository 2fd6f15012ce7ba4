"""Every benchmark that a user names, planned before anything runs: a run that cannot be measured is not trained."""

from collections.abc import Iterator, Mapping
from typing import cast

from transformers import AutoTokenizer

from mixtune import models, storage
from mixtune.chat.template_files import read_template_file
from mixtune.errors import MixtuneError
from mixtune.evaluate.named_benchmarks import parse_benchmarks
from mixtune.inference.engine import Tokenizer
from mixtune.settings.from_dict import Options, from_dict
from mixtune.settings.inference import EvaluateSettings


def check_benchmarks(benchmarks: Mapping[str, Options], base_model: str, options: Options) -> Iterator[tuple[str, str]]:
    """Plan every benchmark as `evaluate` will with its `options`: rows, solved items, template; yield outcomes, texts.

    A form whose library is in the evaluate image alone is not looked at.
    """
    if not benchmarks:
        return
    settings = from_dict(EvaluateSettings, options, "evaluate_options")
    folder = models.fetch_model(base_model, weights=False)
    tokenizer = cast(Tokenizer, AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
    if settings.chat.chat_template_uri:
        tokenizer.chat_template = read_template_file(settings.chat.chat_template_uri)
    for name, benchmark in parse_benchmarks(benchmarks).items():
        try:
            parts = benchmark.form.plan(name, benchmark.options, tokenizer, settings.limit_of(name))
            yield "pass", f"{name}: {sum(len(part.items) for part in parts)} items"
        except MixtuneError as error:
            is_elsewhere = isinstance(error.__cause__, ImportError)
            reason = storage.without_digests(str(error))
            yield ("skip", f"{name}: {reason}") if is_elsewhere else ("fail", f"benchmarks.{name}: {reason}")
