"""The checks of a run that need nothing but its parameters and the base model's small files."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from mixtune import models, storage
from mixtune.errors import ConfigError, MixtuneError
from mixtune.tracking import Tracking

SLOW_LORA = 5e-7
"""Peak learning rate under which not even LoRA+ lets an adapter learn in a usual number of steps."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is checked; the names and units are the pipeline's."""

    base_model: str
    weights: dict[str, float]
    customer_data_percent: float
    customer_epochs: float
    max_steps: int
    global_batch_size: int
    max_length: int
    method: str
    learning_rate: float
    tracking: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check and what came of it."""

    name: str
    outcome: str
    """`pass`, `warn` or `fail`."""
    text: str
    """What was found; for a warning or failure, the way out."""


def run_checks(settings: Settings, report_path: str) -> str:
    """Run all checks, print and write them; `pass`, or `warn` where one warns.

    Raises:
        ConfigError: At least one failed; all of those are named.
    """
    checks = [_run(name, check, settings) for name, check in CHECKS.items()]
    for check in checks:
        print(f"{check.outcome:<4}  {check.name}: {check.text}", flush=True)
    _write_report(checks, report_path)
    failed = [f"- {check.name}: {check.text}" for check in checks if check.outcome == "fail"]
    if failed:
        raise ConfigError(f"{len(failed)} of {len(checks)} checks failed:\n" + "\n".join(failed))
    return "warn" if any(check.outcome == "warn" for check in checks) else "pass"


def _run(name: str, check: Callable[[Settings], Iterator[tuple[str, str]]], settings: Settings) -> Check:
    """The worst thing that a check found."""
    try:
        found = list(check(settings))
    except MixtuneError as error:
        found = [("fail", str(error))]
    outcome, text = max(found, key=lambda item: ("pass", "warn", "fail").index(item[0]))
    return Check(name=name, outcome=outcome, text=text)


def _check_mix(settings: Settings) -> Iterator[tuple[str, str]]:
    percent, total = settings.customer_data_percent, sum(settings.weights.values())
    yield "pass", f"{percent:g} % customer, {100 - percent:g} % from {len(settings.weights)} general pools"
    if not 0 <= percent <= 100:
        yield "fail", f"customer_data_percent is a percentage, 0 to 100; got {percent:g}"
    if abs(total - 100) > 0.01:
        yield "fail", f"the weights of the general pools sum to {total:g}; they are percents, sum 100"
    if percent == 100:
        yield "warn", "100 % customer: nothing is mixed in, expect forgetting; 50 or 75 are good starts"


def _check_exposure(settings: Settings) -> Iterator[tuple[str, str]]:
    steps = f"{settings.max_steps} steps" if settings.max_steps else f"{settings.customer_epochs:g} customer epochs"
    yield "pass", f"{steps} of {settings.global_batch_size} records"
    if settings.global_batch_size < 1:
        yield "fail", f"global_batch_size is 1 or more; got {settings.global_batch_size}"
    if settings.max_steps < 0:
        yield "fail", f"max_steps is 0 or more; got {settings.max_steps}"
    if settings.max_steps == 0 and settings.customer_data_percent == 0:
        yield "fail", "at 0 % customer no epoch of theirs ends; give max_steps"
    if settings.max_steps == 0 and settings.customer_epochs <= 0:
        yield "fail", f"customer_epochs is above 0; got {settings.customer_epochs:g}"


def _check_method(settings: Settings) -> Iterator[tuple[str, str]]:
    yield "pass", f"{settings.method}, learning rate {settings.learning_rate:g}"
    if settings.method not in ("lora", "sft"):
        yield "fail", f"method is 'lora' or 'sft'; got {settings.method!r}"
    if settings.learning_rate <= 0:
        yield "fail", f"learning_rate is above 0; got {settings.learning_rate:g}"
    elif settings.method == "lora" and settings.learning_rate < SLOW_LORA:
        yield "warn", f"learning rate {settings.learning_rate:g} is too low for LoRA to learn; 1e-5 is a good start"


def _check_model(settings: Settings) -> Iterator[tuple[str, str]]:
    folder = models.fetch_model(settings.base_model, weights=False)
    config = storage.read_json(str(folder / "config.json"))
    longest = config.get("max_position_embeddings") or config.get("n_positions") or 0
    yield "pass", f"{config.get('model_type', 'unknown')}, takes {longest or 'an unknown number of'} tokens"
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        yield "fail", f"{folder.name}: no tokenizer.json in it; save the tokenizer beside the model"
    if longest and settings.max_length > longest:
        yield "warn", f"max_length {settings.max_length} is more than the {longest} tokens that the model was made for"
    if not _has_template(folder):
        yield "fail", f"{folder.name}: the tokenizer has no chat template; take the instruct version, or add one"
    if not list(folder.glob("*.safetensors")) and not models.is_hub_name(settings.base_model):
        yield "fail", f"{folder.name}: no safetensors weights in it; convert the model, pickles are not loaded"


def _check_tracking(settings: Settings) -> Iterator[tuple[str, str]]:
    uri = Tracking.from_options(settings.tracking).uri
    if not uri:
        yield "warn", "no MLflow tracking URI: nothing will be tracked; give tracking={'uri': ...}"
        return
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        yield "fail", f"MLflow at {uri} does not answer ({type(error).__name__}); check the address and the network"
        return
    yield "pass", f"MLflow at {uri} answers"


CHECKS: dict[str, Callable[[Settings], Iterator[tuple[str, str]]]] = {
    "mix": _check_mix,
    "exposure": _check_exposure,
    "method": _check_method,
    "base model": _check_model,
    "tracking": _check_tracking,
}


def _has_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    file = folder / "tokenizer_config.json"
    return file.is_file() and bool(storage.read_json(str(file)).get("chat_template"))


def _write_report(checks: list[Check], path: str) -> None:
    rows = "".join(f"<tr><td>{escape(item.outcome)}<td>{escape(item.name)}<td>{escape(item.text)}" for item in checks)
    text = f"<!doctype html><meta charset=utf-8><title>preflight</title><table>{rows}</table>\n"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
