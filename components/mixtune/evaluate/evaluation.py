"""One model, evaluated on all axes, item by item.

An axis is planned as parts (fixed sets of items); parts are scored and written one by one, and those that an
interrupted evaluation already wrote are kept.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import transformers

from mixtune import models, storage
from mixtune.errors import ConfigError
from mixtune.evaluate import benchmarks, classification, generation, ifeval, loading, mmlu, nll, report, spreading
from mixtune.evaluate.loading import ModelSource
from mixtune.evaluate.samples import Part, read_parts
from mixtune.pools import Pools, read_pools
from mixtune.records import Record

CUSTOMER_AXIS = "customer"
FORMS: dict[str, Any] = {"mmlu": mmlu.MmluOptions, "ifeval": ifeval.IfevalOptions}
_NAME = re.compile(r"^[A-Za-z][\w-]*$")
PROGRESS = "_progress.json"
"""Says which evaluation the parts beside it belong to; hidden from listings by its name."""


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
    dtype: str = "auto"
    benchmarks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Per axis its options; `form` says which benchmark's form it has, else its name does."""
    limit: int = 0
    """Items of an axis at most, taken evenly from its strata; 0: all."""
    max_new_tokens: int = 256
    """Tokens of a generated answer to a customer's record at most."""
    storage: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ConfigError(f"limit is 0 (all items) or more, got {self.limit}")
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is 1 or more, got {self.max_new_tokens}")
        for name in self.benchmarks:
            if name in (CUSTOMER_AXIS, nll.AXIS) or not _NAME.match(name):
                raise ConfigError(
                    f"benchmarks: {name!r} cannot name a benchmark; use letters, digits, - and _, "
                    f"but not {CUSTOMER_AXIS} or {nll.AXIS}"
                )

    @property
    def model(self) -> ModelSource:
        """The model to load."""
        return ModelSource(base_model=self.base_model, model_uri=self.model_uri, dtype=self.dtype)


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
class Axis:
    """One scored dimension: its parts, and how their rows become scores."""

    name: str
    metric: str
    """The score that the verdict is about."""
    parts: list[Part]
    summarize: Callable[[pa.Table], dict[str, float]]
    labels: tuple[str, ...] = ()
    form: str = ""


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
    started = time.perf_counter()
    storage.use(inputs.storage)
    fetched = loading.fetch(inputs.model)
    tokenizer = loading.load_tokenizer(fetched)
    data = Data(customer=read_pools(inputs.customer_path), general=read_pools(inputs.general_path))
    axes = plan_axes(inputs, data, tokenizer)
    identity = describe(inputs, data, fetched)
    folder = storage.data_uri(outputs.samples_uri, "samples")
    done = begin(folder, identity)
    missing = [part for axis in axes for part in axis.parts if part.path not in done]
    load = partial(loading.load_engine, inputs.model, fetched)
    devices = spreading.find_devices(inputs.model.resolved().device)
    spreading.score_parts(missing, folder, load, devices)
    tables = {axis.name: read_parts(storage.join(folder, part.path) for part in axis.parts) for axis in axes}
    summaries = {axis.name: summarize_axis(axis, tables[axis.name]) for axis in axes}
    manifest = {
        "kind": "samples",
        "axes": summaries,
        "identity": identity,
        "limit": int(inputs.limit),
        "seconds": round(time.perf_counter() - started, 3),
    }
    paths = {part.path for axis in axes for part in axis.parts}
    files = [entry for entry in storage.list_files(folder) if entry.path in paths]
    storage.write_manifest(outputs.samples_path, manifest, folder, files)
    labels, matrix = _confusion(axes, tables)
    report.write_evaluation(manifest, labels, matrix, html=outputs.report_path, markdown=outputs.summary_path)
    return EvaluationResult(scores=flat_scores(summaries), labels=labels, confusion=matrix)


def plan_axes(inputs: EvaluationInputs, data: Data, tokenizer: Any) -> list[Axis]:
    """All axes that the inputs hold, in a fixed order."""
    limit = int(inputs.limit)
    axes = [_benchmark_axis(name, options, tokenizer, limit) for name, options in sorted(inputs.benchmarks.items())]
    if parts := nll.plan_parts(data.general, tokenizer, limit):
        axes.append(Axis(name=nll.AXIS, metric="nll_per_token", parts=parts, summarize=nll.summarize, form="nll"))
    if customer := _customer_axis(inputs, data.customer, tokenizer):
        axes.append(customer)
    if not axes:
        raise ConfigError("nothing to evaluate on: no benchmark, no holdout and no test records; give one of them")
    return axes


def describe(inputs: EvaluationInputs, data: Data, fetched: loading.Fetched) -> dict[str, Any]:
    """Everything that the rows depend on."""
    source = inputs.model.resolved()
    digests = {
        name: {**options, "uri": _digest(str(options["uri"]))} for name, options in sorted(inputs.benchmarks.items())
    }
    return {
        "base_model": loading.digest(source.base_model, fetched.base),
        "model": loading.digest(source.model_uri, fetched.tuned) if fetched.tuned else "",
        "model_kind": "base" if not fetched.tuned else "adapter" if fetched.adapter else "weights",
        "tokenizer": models.tokenizer_digest(fetched.base),
        "engine": "transformers",
        "dtype": source.dtype,
        "device": source.device.split(":")[0],
        "benchmarks": digests,
        "customer": data.customer.digest,
        "general": data.general.digest,
        "limit": int(inputs.limit),
        "max_new_tokens": int(inputs.max_new_tokens),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def begin(folder: str, identity: dict[str, Any]) -> set[str]:
    """Parts that an interrupted run of the same evaluation left; another's are deleted."""
    text = json.dumps(identity, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    progress = storage.join(folder, PROGRESS)
    if storage.file_exists(progress) and storage.read_json(progress) == {"evaluation": digest}:
        found = {entry.path for entry in storage.list_files(folder)} if _has_parts(folder) else set()
        if found:
            print(f"evaluate: {len(found)} parts are there already, going on with the rest", flush=True)
        return found
    storage.delete(folder)
    storage.write_json(progress, {"evaluation": digest})
    return set()


def summarize_axis(axis: Axis, table: pa.Table) -> dict[str, Any]:
    """An axis in the manifest."""
    scores = axis.summarize(table)
    return {
        "form": axis.form,
        "metric": axis.metric,
        "score": scores[axis.metric],
        "scores": scores,
        "num_items": len(table),
        "labels": list(axis.labels),
    }


def flat_scores(summaries: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Scores under names that KFP's page can show."""
    flat = {}
    for name, summary in summaries.items():
        flat[f"{name}_{summary['metric']}"] = summary["score"]
        flat[f"{name}_items"] = float(summary["num_items"])
    return flat


def _benchmark_axis(name: str, options: dict[str, Any], tokenizer: Any, limit: int) -> Axis:
    form = str(options.get("form", name))
    if form not in FORMS:
        raise ConfigError(f"benchmarks: {name!r} has no known form; set its form to one of {', '.join(FORMS)}")
    parsed = _parse(name, options, FORMS[form])
    if form == "mmlu":
        parts = mmlu.plan_parts(name, parsed, tokenizer, limit)
        return Axis(name=name, metric="accuracy", parts=parts, summarize=mmlu.summarize, form=form)
    parts = ifeval.plan_parts(name, parsed, tokenizer, limit)
    return Axis(name=name, metric="prompt_strict", parts=parts, summarize=ifeval.summarize, form=form)


def _parse(name: str, options: dict[str, Any], form: Any) -> Any:
    """Options as their dataclass; numbers in a dictionary come as floats."""
    known = form.__dataclass_fields__
    given = {key: value for key, value in options.items() if key != "form"}
    if unknown := sorted(set(given) - set(known)):
        raise ConfigError(f"benchmark {name!r}: unknown option {unknown[0]!r}; there are {', '.join(known)}")
    if "uri" not in given:
        raise ConfigError(f"benchmark {name!r}: no uri; give the file or folder that holds it")
    whole = {
        key: int(value) if isinstance(value, float) and value.is_integer() else value for key, value in given.items()
    }
    return form(**whole)


def _customer_axis(inputs: EvaluationInputs, customer: Pools, tokenizer: Any) -> Axis | None:
    test = _records(customer, "test", int(inputs.limit))
    if not test:
        return None
    everything = [
        r for pool in customer.pools for split in ("train", "test") for r in customer.records(pool.name, split)
    ]
    labels = classification.find_labels(everything) if all("label" in record for record in test) else None
    if labels:
        chosen = labels
        return Axis(
            name=CUSTOMER_AXIS,
            metric="f1_macro",
            parts=classification.plan_parts(CUSTOMER_AXIS, test, chosen, tokenizer),
            summarize=lambda table: classification.summarize(table, chosen.labels),
            labels=chosen.labels,
            form="classification",
        )
    parts = generation.plan_parts(CUSTOMER_AXIS, test, tokenizer, int(inputs.max_new_tokens))
    return Axis(name=CUSTOMER_AXIS, metric="token_f1", parts=parts, summarize=generation.summarize, form="generation")


def _records(pools: Pools, split: str, limit: int) -> list[Record]:
    found: dict[str, Record] = {}
    for pool in pools.pools:
        for record in pools.records(pool.name, split):
            found.setdefault(record["id"], record)
    records = list(found.values())
    return benchmarks.take(records, [record.get("label", "") for record in records], limit)


def _confusion(axes: list[Axis], tables: dict[str, pa.Table]) -> tuple[list[str], list[list[int]]]:
    for axis in axes:
        if axis.form == "classification" and len(axis.labels) <= 100:
            return list(axis.labels), classification.confusion(tables[axis.name], axis.labels)
    return [], []


def _digest(uri: str) -> str:
    return storage.split_fingerprint(uri)[1] or storage.split_fingerprint(storage.fingerprint(uri))[1]


def _has_parts(folder: str) -> bool:
    if storage.is_s3(folder):
        return storage.exists(folder)
    return any(path.suffix == ".parquet" for path in Path(folder).rglob("*.parquet"))
