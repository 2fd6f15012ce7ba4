"""The commands that use a run's model: `chat` talks to base and tuned model side by side, `merge` writes one model."""

import argparse
import shutil
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

from mixtune import models, storage
from mixtune.artifacts.model import find_manifest
from mixtune.artifacts.run_report import find_recommendation, list_candidates
from mixtune.commands.arguments import Commands, add_work_dir
from mixtune.commands.local.task_environment import set_task_environment
from mixtune.commands.local.work_dir import WorkDir
from mixtune.errors import ConfigError
from mixtune.settings.chat import ChatSettings

GAP = "  |  "


@dataclass(frozen=True, kw_only=True)
class TunedModel:
    """A tuned model and its base."""

    model_uri: str
    """Adapter or whole model."""
    base_model: str
    strength: float = 1.0
    """1: as it was trained; less: drawn towards the base, as a grid may recommend."""
    run_id: str = ""
    """Of the run here that compared it; empty: a folder was named."""


def add_commands(commands: Commands) -> None:
    """Add `chat` and `merge` to the command line."""
    chat = commands.add_parser("chat", help="talk to a run's model, beside its base")
    add_model(chat)
    chat.add_argument("--max-new-tokens", type=int, default=200, help="of an answer (default: %(default)s)")
    chat.set_defaults(command=_chat)
    merge = commands.add_parser("merge", help="write base and adapter of a run as one model")
    add_model(merge)
    merge.add_argument("--out", required=True, metavar="FOLDER", help="local or s3://")
    merge.set_defaults(command=_merge)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add what names a model: a run here, or a folder with its base."""
    parser.add_argument("model", metavar="RUN_ID", help="a run here, or an adapter's or model's folder, local or s3://")
    parser.add_argument("--base-model", default="", help="what it was tuned from, where a folder is named")
    add_work_dir(parser)


def find_model(options: argparse.Namespace) -> TunedModel:
    """Return the model that a run recommends or left, or the folder that the command line names.

    Raises:
        ConfigError: The run has no model, or a folder is named without its base.
    """
    work = WorkDir.at(options.work_dir)
    if "/" in options.model or not work.run_dir(options.model).is_dir():
        if not storage.exists(storage.plain_uri(options.model)):
            raise ConfigError(f"{options.model}: no run in {work.root} and no folder; `mixtune runs` lists the runs")
        if not options.base_model:
            raise ConfigError(f"{options.model}: name what it was tuned from: --base-model FOLDER")
        return TunedModel(model_uri=options.model, base_model=options.base_model)
    if not work.report(options.model, "json").is_file():
        raise ConfigError(f"run {options.model} compared no model; take one that came to a verdict")
    report, arguments = work.run_report(options.model), work.arguments(options.model)
    storage.configure_storage(arguments.get("storage") or {})
    base = options.base_model or str(arguments.get("base_model", ""))
    if best := find_recommendation(report):
        return TunedModel(model_uri=best.model_uri, base_model=base, strength=best.strength, run_id=options.model)
    uris = [item.comparison.model_uri for item in list_candidates(report) if item.comparison.model_uri]
    if len(uris) > 1:
        folders = "\n".join(storage.plain_uri(uri) for uri in uris)
        raise ConfigError(f"run {options.model} recommends none of its models; name one with --base-model:\n{folders}")
    if not uris:
        raise ConfigError(f"run {options.model} left no model; its report says why")
    return TunedModel(model_uri=uris[0], base_model=base, run_id=options.model)


def silence_libraries() -> None:
    """Silence bars and warnings of libraries beside what a command prints; called before torch is imported."""
    set_task_environment()
    warnings.simplefilter("ignore")


def _merge(options: argparse.Namespace) -> int:
    silence_libraries()
    check_new(options.out)
    model = find_model(options)
    with tempfile.TemporaryDirectory() as scratch:
        whole = merge_model(model, Path(scratch))
        place_model(whole, options.out)
    print(f"one model, with tokenizer and chat template: {options.out}")
    return 0


def check_new(out: str) -> None:
    """Raise a ConfigError where there is something already."""
    if storage.exists(out):
        raise ConfigError(f"--out {out}: there is something already; name a folder that is not there")


def place_model(folder: Path, out: str) -> None:
    """Copy a model to a folder that is not there, or to S3; a local one appears whole or not at all."""
    if storage.is_s3(out):
        storage.upload(folder, out)
        return
    target = Path(out).resolve()
    unfinished = target.with_name(f".{target.name}.unfinished")
    storage.delete(str(unfinished))
    storage.upload(folder, str(unfinished))
    unfinished.rename(target)


def merge_model(model: TunedModel, scratch: Path) -> Path:
    """Return a folder with the whole model: an adapter is merged into its base, at the strength recommended."""
    from mixtune.interpolation import interpolate_model
    from mixtune.train.postprocess import merge_adapter

    tuned, base = models.fetch_model(model.model_uri), models.fetch_model(model.base_model)
    folder = scratch / "model"
    if model.strength < 1:
        interpolate_model(tuned, base, model.strength, folder)
    elif models.is_adapter(tuned):
        shutil.copytree(tuned, folder, ignore=shutil.ignore_patterns(models.MERGED))
    else:
        return tuned
    if not models.is_adapter(folder):
        return folder
    merge_adapter(folder, base)
    return folder / models.MERGED


def _chat(options: argparse.Namespace) -> int:
    if options.max_new_tokens < 1:
        raise ConfigError(f"--max-new-tokens {options.max_new_tokens}: an answer has 1 token or more")
    silence_libraries()
    model = find_model(options)
    questions = _prompts(sys.stdin) if sys.stdin.isatty() else (line.strip() for line in sys.stdin)
    width = shutil.get_terminal_size((120, 24)).columns
    for question, answers in answer_both(model, questions, options.max_new_tokens):
        print(f"\n> {question}\n{side_by_side(('base', 'tuned'), answers, width)}", flush=True)
    return 0


def _prompts(stream: Iterable[str]) -> Iterator[str]:
    print("ask something; an empty line or Ctrl-D ends it", flush=True)
    for line in stream:
        if not line.strip():
            return
        yield line.strip()


def answer_both(
    model: TunedModel, questions: Iterable[str], max_new_tokens: int
) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield every question with the answers of base and tuned model, most likely tokens each."""
    from mixtune.inference import loading
    from mixtune.inference.prompts import AskingTokenizer, encode, render_question

    with tempfile.TemporaryDirectory() as scratch:
        manifest = find_manifest(model.model_uri)
        chat = manifest.chat if manifest else ChatSettings()
        thinks = None if chat.thinking == "record" else chat.thinking == "on"
        source = loading.ModelSource(base_model=model.base_model, chat_template_uri=chat.chat_template_uri).resolved()
        sources = [source, replace(source, model_uri=model.model_uri)]
        fetched = [loading.at_strength(loading.fetch(source), model.strength, Path(scratch)) for source in sources]
        with redirect_stdout(None):
            engines = [loading.load_engine(source, item) for source, item in zip(sources, fetched, strict=True)]
        tokenizer = AskingTokenizer(loading.load_tokenizer(sources[1], fetched[1]), thinks, chat)
        for question in filter(None, questions):
            prompt = encode(tokenizer, render_question(tokenizer, question))
            with redirect_stdout(None):
                ids = [engine.generate([prompt], max_new_tokens)[0].token_ids for engine in engines]
            base, tuned = (tokenizer.decode(list(answer), skip_special_tokens=True).strip() for answer in ids)
            yield question, (base, tuned)


def side_by_side(titles: tuple[str, str], texts: tuple[str, str], width: int) -> str:
    """Return two texts in columns of a terminal of so many characters."""
    column = max(20, (width - len(GAP)) // 2)
    sides = [
        [title, "-" * column, *(part for line in text.splitlines() for part in textwrap.wrap(line, column) or [""])]
        for title, text in zip(titles, texts, strict=True)
    ]
    return "\n".join(f"{first:<{column}}{GAP}{second}".rstrip() for first, second in zip_longest(*sides, fillvalue=""))
