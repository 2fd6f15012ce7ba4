"""A job's settings as arguments of `finetune`, with a line for every one, whatever became of it."""

import re
from dataclasses import dataclass

from mixtune.errors import ConfigError
from mixtune.tuning_import.services import Json, Rule, TuningJob, same_word

UNKNOWN = Rule(note="not known here: nothing is made of it")
CLOSED = Rule(note="a rate of weights that cannot be had; ours has its own default")
PLUS_RATIO = "train_options.lora_options.lora_plus_ratio"
CHOSEN = ("auto", "max", "none", "-1", "adapter_size_unspecified")
"""Words for a value that the service chose."""
_WITH_UNIT = re.compile(r"(\d+)\s*([a-z]*)")


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """A line of the table."""

    setting: str
    value: str = ""
    becomes: str = ""
    """Such as `customer_epochs=3`; empty: nothing."""
    note: str = ""


def map_settings(job: TuningJob) -> tuple[Json, list[Mapped]]:
    """Return arguments of `finetune`, and a line for every setting and for what goes with it.

    Raises:
        ConfigError: A setting that is no number where one is needed.
    """
    arguments: Json = {}
    lines = []
    for setting, value in job.settings.items():
        rule = job.rules.get(same_word(setting.rpartition(".")[2]), UNKNOWN)
        rule = CLOSED if rule.open_weights and not job.is_open else rule
        target, amount = _read_amount(job, setting, value, rule)
        note = rule.note
        if target and amount is not None:
            set_argument(arguments, target, amount)
        elif target:
            note = "the service chose it; ours is the default"
        becomes = f"{target}={amount:.12g}" if target and amount is not None else ""
        lines.append(Mapped(setting=setting, value=str(value), becomes=becomes, note=note))
    for argument, extra, note in _what_goes_with_it(arguments, job):
        set_argument(arguments, argument, extra)
        lines.append(Mapped(setting="(goes with it)", becomes=f"{argument}={extra}", note=note))
    return arguments, lines


def set_argument(arguments: Json, target: str, value: object) -> None:
    """Set an argument, or one entry of an object, however deep: `train_options.lora_options.lora_plus_ratio`."""
    name, _, rest = target.partition(".")
    if not rest:
        arguments[name] = value
        return
    inner = arguments.setdefault(name, {})
    assert isinstance(inner, dict)
    set_argument(inner, rest, value)


def _read_amount(job: TuningJob, setting: str, value: object, rule: Rule) -> tuple[str, float | None]:
    """Return the argument and the number that a setting is; no number: the service chose it."""
    text, target = str(value).strip(), rule.becomes
    if rule.units:
        match = _WITH_UNIT.fullmatch(text)
        unit = (match[2] or next(iter(rule.units))) if match else ""
        if not match or unit not in rule.units:
            raise ConfigError(f"{job.name}: {setting} is {text!r}; it is a number with one of {', '.join(rule.units)}")
        return rule.units[unit], int(match[1])
    if not target or text.lower() in CHOSEN:
        return target, None
    try:
        amount = float(rule.values.get(text, text))
    except ValueError as error:
        raise ConfigError(f"{job.name}: {setting} is {text!r}, and a number is needed; mend the export") from error
    if rule.whole and not amount.is_integer():
        raise ConfigError(f"{job.name}: {setting} is {text!r}, and a whole number is needed; mend the export")
    if rule.zero and not amount:
        return target, None
    return target, int(amount) if rule.whole else amount


def _what_goes_with_it(arguments: Json, job: TuningJob) -> list[tuple[str, object, str]]:
    """Return what a rank, a rate or a method that was taken over asks for besides."""
    options = arguments.get("train_options")
    extra: list[tuple[str, object, str]] = []
    if isinstance(options, dict) and "lora_rank" in options and "lora_alpha" not in options:
        extra.append(("train_options.lora_alpha", 2 * options["lora_rank"], "the service does not say it"))
    if "learning_rate" in arguments and job.method == "lora":
        extra.append((PLUS_RATIO, 1.0, "the service's rate was for both matrices of the adapter"))
    if job.method != "lora":
        extra.append(("method", job.method, "the service tuned all weights; try method=lora first: it forgets less"))
    return extra
