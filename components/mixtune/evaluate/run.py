"""One model, evaluated on all axes, item by item.

An axis is planned as parts (fixed sets of items); parts are scored and written one by one, and those that an
interrupted evaluation already wrote are kept.
"""

import re
import tempfile
import time
from dataclasses import MISSING, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, get_origin

import pyarrow as pa
import torch
import transformers

from mixtune import models, storage
from mixtune.artifacts.pools import Pools, read_pools
from mixtune.artifacts.samples import TOKENIZER_FILE, read_parts
from mixtune.chat.template_files import read_templates, templates_digest
from mixtune.errors import ConfigError, ModelError
from mixtune.evaluate import report
from mixtune.evaluate.axis import Axis
from mixtune.evaluate.benchmarks import customer, nll
from mixtune.evaluate.benchmarks.customer import CustomerOptions
from mixtune.evaluate.benchmarks.nll import NllOptions
from mixtune.evaluate.benchmarks.registry import BENCHMARK_FORMS, FORMS
from mixtune.inference import loading, parallel
from mixtune.inference.engine import Tokenizer
from mixtune.inference.loading import ModelSource

_NAME = re.compile(r"^[A-Za-z][\w-]*$")


@dataclass(frozen=True, kw_only=True)
class EvaluationInputs:
    """What `evaluate` reads."""

    base_model: str
    customer_path: str
    """Manifest of the customer's pools."""
    general_path: str
    """Manifest of the general pools."""
    model_uri: str = ""
    """Empty: the base model itself; else an adapter's folder or a whole model's."""
    strength: float = 1.0
    """How far that model goes from the base, above 0 to 1, as trained."""
    dtype: str = "auto"
    engine: str = "transformers"
    gpus_per_model: int = 1
    benchmarks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Per axis its options; `form` says which benchmark's form it has, else its name does."""
    limit: int = 0
    """Items of an axis at most, taken evenly from its strata; 0: all."""
    customer_options: dict[str, Any] = field(default_factory=dict)
    """Fields of `CustomerOptions`."""
    storage: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ConfigError(f"limit is 0 (all items) or more, got {self.limit}")
        for name, options in self.benchmarks.items():
            if not isinstance(options, dict):
                raise ConfigError(f"benchmarks: {name!r} is {options!r}; give its options, such as {{'uri': ...}}")
            if name in (customer.AXIS, nll.AXIS) or not _NAME.match(name):
                raise ConfigError(
                    f"benchmarks: {name!r} cannot name a benchmark; use letters, digits, - and _, "
                    f"but not {customer.AXIS} or {nll.AXIS}"
                )

    @property
    def model(self) -> ModelSource:
        """The model to load."""
        return ModelSource(
            base_model=self.base_model,
            model_uri=self.model_uri,
            dtype=self.dtype,
            engine=self.engine,
            gpus_per_model=int(self.gpus_per_model),
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationOutputs:
    """Where `evaluate` writes."""

    samples_uri: str
    """URI of the samples artifact; its rows go beside it."""
    samples_path: str
    report_path: str
    summary_path: str


@dataclass(frozen=True, kw_only=True)
class Data:
    """The inputs, opened."""

    customer: Pools
    general: Pools


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """What the component's metrics show."""

    scores: dict[str, float]
    """`<axis>_<metric>` and number of items."""
    labels: list[str]
    """Classes of the confusion matrix; empty without classification, or with more than 100."""
    confusion: list[list[int]]


def run_evaluation(inputs: EvaluationInputs, outputs: EvaluationOutputs) -> EvaluationResult:
    """Evaluate a model on all axes and write its samples and its report."""
    storage.use(inputs.storage)
    if inputs.model_uri.startswith(f"{models.FAILED}: "):
        return _pass_on(inputs.model_uri.removeprefix(f"{models.FAILED}: "), inputs, outputs)
    with tempfile.TemporaryDirectory() as scratch:
        fetched = loading.at_strength(loading.fetch(inputs.model), inputs.strength, Path(scratch))
        return _evaluate(inputs, outputs, fetched)


def _evaluate(inputs: EvaluationInputs, outputs: EvaluationOutputs, fetched: loading.Fetched) -> EvaluationResult:
    started = time.perf_counter()
    tokenizer = loading.load_tokenizer(fetched)
    data = Data(customer=read_pools(inputs.customer_path), general=read_pools(inputs.general_path))
    axes = plan_axes(inputs, data, tokenizer)
    identity = describe(inputs, data, fetched)
    folder = storage.data_uri(outputs.samples_uri, "samples")
    done = parallel.resume_or_reset(folder, identity)
    missing = [part for axis in axes for part in axis.parts if part.path not in done]
    load = partial(loading.load_engine, inputs.model, fetched)
    devices = parallel.find_devices(inputs.model.resolved().device, inputs.model.gpus_per_model)
    parallel.score_parts(missing, folder, load, devices)
    tables = {axis.name: read_parts(storage.join(folder, part.path) for part in axis.parts) for axis in axes}
    summaries = {axis.name: axis.summary(tables[axis.name]) for axis in axes}
    manifest = {
        "kind": "samples",
        "axes": summaries,
        "identity": identity,
        "model_uri": inputs.model_uri,
        "limit": int(inputs.limit),
        "seconds": round(time.perf_counter() - started, 3),
    }
    _keep_tokenizer(fetched.base, folder)
    paths = {TOKENIZER_FILE, *(part.path for axis in axes for part in axis.parts)}
    files = [entry for entry in storage.list_files(folder) if entry.path in paths]
    storage.write_manifest(outputs.samples_path, manifest, folder, files)
    labels, matrix = _confusion(axes, tables)
    per_class = [row for axis in axes for row in axis.form.scores_per_class(tables[axis.name], axis.labels)]
    places = {"html": outputs.report_path, "markdown": outputs.summary_path}
    report.write_evaluation(manifest, labels, matrix, per_class, **places)
    return EvaluationResult(scores=flat_scores(summaries), labels=labels, confusion=matrix)


def _pass_on(reason: str, inputs: EvaluationInputs, outputs: EvaluationOutputs) -> EvaluationResult:
    """No model came of the training: samples that say why."""
    manifest = {"kind": "samples", "axes": {}, "identity": {}, "limit": int(inputs.limit), "failed": reason}
    folder = storage.data_uri(outputs.samples_uri, "samples")
    storage.write_manifest(outputs.samples_path, manifest, folder, [])
    report.write_evaluation(manifest, [], [], [], html=outputs.report_path, markdown=outputs.summary_path)
    print(f"evaluate: no model to evaluate: {reason}", flush=True)
    return EvaluationResult(scores={}, labels=[], confusion=[])


def plan_axes(inputs: EvaluationInputs, data: Data, tokenizer: Tokenizer) -> list[Axis]:
    """All axes that the inputs hold, in a fixed order."""
    limit = int(inputs.limit)
    options = parse_options("customer_options", inputs.customer_options, CustomerOptions)
    axes = [benchmark_axis(name, given, tokenizer, limit) for name, given in sorted(inputs.benchmarks.items())]
    if parts := nll.FORM.plan(nll.AXIS, NllOptions(pools=data.general), tokenizer, limit):
        axes.append(Axis(name=nll.AXIS, form=nll.FORM, parts=parts))
    if axis := customer.plan_axis(data.customer, options, tokenizer, limit):
        axes.append(axis)
    if not axes:
        raise ConfigError("nothing to evaluate on: no benchmark, no holdout and no test records; give one of them")
    return axes


def describe(inputs: EvaluationInputs, data: Data, fetched: loading.Fetched) -> dict[str, Any]:
    """Everything that the rows depend on."""
    source = inputs.model.resolved()
    digests = {
        name: {**options, "uri": _digest(str(options.get("uri", "")))}
        for name, options in sorted(inputs.benchmarks.items())
    }
    return {
        "base_model": loading.digest(source.base_model, fetched.base),
        "model": loading.digest(source.model_uri, fetched.tuned) if fetched.tuned else "",
        "strength": inputs.strength,
        "model_kind": "base" if not fetched.tuned else "adapter" if fetched.adapter else "weights",
        "tokenizer": models.tokenizer_digest(fetched.base),
        "chat_template": templates_digest(read_templates(fetched.base)),
        "engine": source.engine,
        "dtype": source.dtype,
        "device": source.device.split(":")[0],
        "benchmarks": digests,
        "customer": data.customer.digest,
        "general": data.general.digest,
        "limit": int(inputs.limit),
        "customer_options": inputs.customer_options,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def flat_scores(summaries: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Scores under names that KFP's page can show."""
    flat = {}
    for name, summary in summaries.items():
        flat[f"{name}_{summary['metric']}"] = summary["score"]
        flat[f"{name}_items"] = float(summary["num_items"])
    return flat


def benchmark_axis(name: str, options: dict[str, Any], tokenizer: Tokenizer, limit: int) -> Axis:
    """The axis of a benchmark, by its form."""
    named = str(options.get("form", name))
    if named not in BENCHMARK_FORMS:
        raise ConfigError(
            f"benchmarks: {name!r} has no known form; set its form to one of {', '.join(BENCHMARK_FORMS)}"
        )
    form = FORMS[named]
    given = {key: value for key, value in options.items() if key != "form"}
    parsed = parse_options(f"benchmark {name!r}", given, form.options)
    return Axis(name=name, form=form, parts=form.plan(name, parsed, tokenizer, limit))


def parse_options(name: str, options: dict[str, Any], kind: Any) -> Any:
    """Options as their dataclass; whole numbers in a dictionary come as floats.

    Raises:
        ConfigError: An unknown option, one of a wrong type, or a needed one is missing.
    """
    known = kind.__dataclass_fields__
    if unknown := sorted(set(options) - set(known)):
        raise ConfigError(f"{name}: unknown option {unknown[0]!r}; there are {', '.join(known)}")
    needed = [key for key, one in known.items() if one.default is MISSING and one.default_factory is MISSING]
    if missing := [key for key in needed if key not in options]:
        raise ConfigError(f"{name}: no {missing[0]}; it is needed")
    whole = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in options.items()}
    for key, value in whole.items():
        wanted = get_origin(known[key].type) or known[key].type
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ConfigError(f"{name}: {key} is {wanted.__name__}, got {value!r}")
    return kind(**whole)


def _confusion(axes: list[Axis], tables: dict[str, pa.Table]) -> tuple[list[str], list[list[int]]]:
    for axis in axes:
        if counts := axis.form.confusion(tables[axis.name], axis.labels):
            return list(axis.labels), counts
    return [], []


def _keep_tokenizer(base: Path, folder: str) -> None:
    """Put the tokenizer beside the rows, so that training shards can be turned back into text."""
    source = base / "tokenizer.json"
    if not source.is_file():
        raise ModelError(f"{base}: it has no tokenizer.json; save a fast tokenizer with the model")
    with storage.open_write(storage.join(folder, TOKENIZER_FILE)) as stream:
        stream.write(source.read_bytes())


def _digest(uri: str) -> str:
    if not uri:
        return ""
    return storage.split_fingerprint(uri)[1] or storage.split_fingerprint(storage.fingerprint(uri))[1]
