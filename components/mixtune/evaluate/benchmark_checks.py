"""Every benchmark that a user names, planned before anything runs: a run that cannot be measured is not trained."""

from collections.abc import Iterator, Mapping

from mixtune import models, storage
from mixtune.errors import MixtuneError
from mixtune.evaluate.named_benchmarks import load_asking_tokenizer, parse_benchmarks
from mixtune.settings.from_dict import Options, from_dict
from mixtune.settings.inference import EvaluateSettings


def check_benchmarks(
    benchmarks: Mapping[str, Options], base_model: str, options: Options, chat_template_uri: str
) -> Iterator[tuple[str, str]]:
    """Plan every benchmark as `evaluate` will: its rows, its solved items, its options; yield outcomes with texts.

    Sets of the hub are not looked at, nor is a form whose library is in the evaluate image alone.
    """
    named = {name: entry for name, entry in benchmarks.items() if not str(entry.get("uri", "")).startswith("hf://")}
    if not named:
        return
    settings = from_dict(EvaluateSettings, options, "evaluate_options")
    tokenizer = load_asking_tokenizer(models.fetch_model(base_model, weights=False), chat_template_uri)
    for name, benchmark in parse_benchmarks(named).items():
        try:
            parts = benchmark.form.plan(name, benchmark.options, tokenizer, settings.limit_of(name))
            yield "pass", f"{name}: {sum(len(part.items) for part in parts)} items"
        except MixtuneError as error:
            is_elsewhere = isinstance(error.__cause__, ImportError)
            reason = storage.without_digests(str(error))
            yield ("skip", f"{name}: {reason}") if is_elsewhere else ("fail", f"benchmarks.{name}: {reason}")
