"""One model, evaluated on all axes, item by item.

An axis is planned as parts (fixed sets of items); parts are scored and written one by one, and those that an
interrupted evaluation already wrote are kept.
"""

import gc
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mixtune import storage
from mixtune.artifacts.comparison import CUSTOMER_AXIS
from mixtune.artifacts.model import FailedTraining, parse_model
from mixtune.artifacts.pools import PoolsManifest, read_pools
from mixtune.artifacts.samples import TOKENIZER_FILE, BenchmarkIdentity, Dial, DialPoint, Identity, Samples, read_parts
from mixtune.artifacts.typed_json import write_artifact
from mixtune.chat.thinking import lift_thoughts
from mixtune.errors import ConfigError, ModelError
from mixtune.evaluate import customer, report
from mixtune.evaluate.benchmarks import nll
from mixtune.evaluate.benchmarks.form import Axis
from mixtune.evaluate.benchmarks.nll import NllOptions
from mixtune.evaluate.named_benchmarks import Benchmark
from mixtune.evaluate.registry import FORMS
from mixtune.evaluate.report import Evaluation
from mixtune.inference import loading, parallel
from mixtune.inference.engine import Tokenizer
from mixtune.inference.loading import Fetched, ModelSource
from mixtune.inference.prompts import AskingTokenizer, check_thinking_switch
from mixtune.interpolation import check_strengths
from mixtune.report.outputs import Outputs
from mixtune.settings.from_dict import suggest
from mixtune.settings.inference import AS_TEMPLATE, AS_TRAINED, ENDPOINT, THOUGHTS_BOTH, THOUGHTS_ON, EvaluateSettings

_THINKS = {True: "on", False: "off", None: "as the template has it"}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The model and what it is evaluated on."""

    base_model: str
    customer_path: str
    """Manifest of the customer's pools."""
    general_path: str
    """Manifest of the general pools."""
    model_uri: str = ""
    """Empty: the base model itself; else an adapter's folder or a whole model's."""
    strength: float = 1.0
    """How far that model goes from the base, above 0 to 1, as trained."""
    benchmarks: dict[str, Benchmark] = field(default_factory=dict)
    """By axis."""


class EvaluationPools(NamedTuple):
    """The pools whose held-out records are evaluated."""

    customer: PoolsManifest
    general: PoolsManifest


def run(settings: EvaluateSettings, inputs: Inputs, outputs: Outputs) -> Evaluation:
    """Evaluate a model on all axes and write its samples and its report."""
    model = parse_model(inputs.model_uri)
    if isinstance(model, FailedTraining):
        samples = Samples(limit=settings.largest_limit, failed=model.reason, data_uri=outputs.data_uri)
        evaluation = Evaluation(samples=samples)
        print(f"evaluate: no model to evaluate: {model.reason}", flush=True)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            source = ModelSource.of(settings, inputs.base_model, inputs.model_uri).resolved()
            fetched = loading.at_strength(loading.fetch(source), inputs.strength, Path(scratch))
            evaluation = _evaluate(settings, inputs, outputs, source, fetched)
    report.write(evaluation, html=outputs.html_path, markdown=outputs.markdown_path)
    write_artifact(outputs.json_path, evaluation.samples)
    return evaluation


def sweep(
    settings: EvaluateSettings, inputs: Inputs, strengths: Sequence[float], dial_path: str, data_uri: str
) -> None:
    """Evaluate a tuned model at every strength, above 0 and below 1, and write where the samples are.

    A strength that cannot be evaluated is noted with its reason: the model itself was evaluated already, and counts. Of
    the `failed: ...` of a training nothing is evaluated.

    Raises:
        ConfigError: A strength out of range.
    """
    chosen = check_strengths(list(strengths))
    if isinstance(parse_model(inputs.model_uri), FailedTraining):
        chosen = []
    points = []
    for strength in chosen:
        print(f"dial at {strength:g}:", flush=True)
        folder = storage.join(data_uri, f"{strength:g}")
        path = storage.join(folder, "samples")
        outputs = Outputs(
            json_path=path,
            data_uri=storage.data_uri(path, "samples"),
            html_path=storage.join(folder, "report"),
            markdown_path=storage.join(folder, "summary"),
        )
        try:
            run(settings, replace(inputs, strength=strength), outputs)
        except Exception as error:  # whatever it is, it may not cost the point that is evaluated already
            print(f"warning: not evaluated at {strength:g}: {error}", flush=True)
            points.append(DialPoint(strength=strength, reason=f"{type(error).__name__}: {error}"))
        else:
            points.append(DialPoint(strength=strength, samples=path))
        gc.collect()  # one model's memory is the next one's
    write_artifact(dial_path, Dial(points=tuple(points), data_uri=data_uri))


def _evaluate(
    settings: EvaluateSettings, inputs: Inputs, outputs: Outputs, source: ModelSource, fetched: Fetched
) -> Evaluation:
    started, folder = time.perf_counter(), outputs.data_uri
    tokenizer = loading.load_tokenizer(source, fetched)
    pools = EvaluationPools(customer=read_pools(inputs.customer_path), general=read_pools(inputs.general_path))
    asking = ask_as_set(settings, pools, tokenizer)
    axes = plan_axes(settings, inputs.benchmarks, pools, asking)
    model, kind = _identify_model(source, fetched)
    identity = Identity(
        **vars(loading.identify(source, fetched)),
        model=model,
        model_kind=kind,
        strength=inputs.strength,
        benchmarks={name: _identify(benchmark) for name, benchmark in sorted(inputs.benchmarks.items())},
        customer=pools.customer.digest,
        general=pools.general.digest,
        limit=settings.limit,
        axis_limits=settings.axis_limits,
        thinking=f"records: {asking.chat.thinking}; benchmarks: {_THINKS[asking.thinks]}",
        on_lost=dict(asking.chat.on_lost),
        customer_options=settings.customer_options,
    )
    if source.device == "cpu":
        axes = [replace(axis, parts=[piece for part in axis.parts for piece in part.cut()]) for axis in axes]
    written = parallel.resume_or_reset(folder, identity)
    if not written:
        storage.delete(outputs.json_path)  # it is no longer true
    missing = [part for axis in axes for part in axis.parts if part.path not in written]
    load = partial(loading.load_engine, source, fetched)
    parallel.score_parts(missing, folder, load, parallel.find_devices(source.device, source.gpus_per_model))
    tables = {axis.name: read_parts(storage.join(folder, part.path) for part in axis.parts) for axis in axes}
    _copy_tokenizer(fetched.base, folder)
    paths = {TOKENIZER_FILE, *(part.path for axis in axes for part in axis.parts)}
    samples = Samples(
        axes={axis.name: axis.summary(tables[axis.name]) for axis in axes},
        identity=identity,
        model_uri=inputs.model_uri,
        limit=settings.largest_limit,
        seconds=round(time.perf_counter() - started, 3),
        data_uri=folder,
        files=tuple(entry for entry in storage.list_files(folder) if entry.path in paths),
    )
    confusions = ((axis.labels, axis.form.confusion(tables[axis.name], axis.labels)) for axis in axes)
    labels, counts = next((table for table in confusions if table[1]), ((), []))
    per_class = [row for axis in axes for row in axis.form.scores_per_class(tables[axis.name], axis.labels)]
    return Evaluation(samples=samples, labels=labels, confusion=counts, per_class=per_class)


def ask_as_set(settings: EvaluateSettings, pools: EvaluationPools, tokenizer: Tokenizer) -> AskingTokenizer:
    """Return the tokenizer that asks with or without thoughts as settings say, a ConfigError where that cannot be."""
    thinking, chat = settings.thinking, settings.records_chat
    if thinking == AS_TRAINED:
        thinks = chat.thinking == "on" or (chat.thinking == "record" and _mostly_think(pools))
        return AskingTokenizer(tokenizer, thinks, chat)
    if thinking == AS_TEMPLATE:
        return AskingTokenizer(tokenizer, None, chat)
    check_thinking_switch(tokenizer, thinking)
    return AskingTokenizer(tokenizer, thinking == THOUGHTS_ON, chat)


def _mostly_think(pools: EvaluationPools) -> bool:
    """Return whether most of the general records held out, or else of the customer's, answer after a thought."""
    for manifest, split in ((pools.general, "holdout"), (pools.customer, "test")):
        records = [record for pool in manifest.pools for record in manifest.records(pool.name, split)]
        thoughtful = [any(item.get("reasoning") for item in lift_thoughts(record["messages"])) for record in records]
        if records:
            return 2 * sum(thoughtful) > len(records)
    return False


def plan_axes(
    settings: EvaluateSettings, benchmarks: Mapping[str, Benchmark], pools: EvaluationPools, tokenizer: AskingTokenizer
) -> list[Axis]:
    """Return all axes that there are items for, in a fixed order; a ConfigError where there are none."""
    axes = [_plan_axis(name, benchmark, settings, tokenizer) for name, benchmark in sorted(benchmarks.items())]
    if settings.thinking == THOUGHTS_BOTH:
        thoughtful = AskingTokenizer(tokenizer.tokenizer, True, tokenizer.chat)
        axes += [
            _plan_axis(axis.name, benchmarks[axis.name], settings, thoughtful, suffix="_thinking")
            for axis in axes
            if axis.max_new_tokens
        ]
    if parts := nll.FORM.plan(nll.AXIS, NllOptions(pools=pools.general), tokenizer, settings.limit_of(nll.AXIS)):
        axes.append(Axis(nll.AXIS, nll.FORM, parts))
    if axis := customer.plan_axis(
        pools.customer, settings.customer_options, tokenizer, settings.limit_of(CUSTOMER_AXIS)
    ):
        axes.append(axis)
    if unknown := sorted(set(settings.axis_limits) - {axis.name for axis in axes}):
        raise ConfigError(f"axis_limits: no axis {unknown[0]!r}; {suggest(unknown[0], [axis.name for axis in axes])}")
    if not axes:
        raise ConfigError("nothing to evaluate on: no benchmark, no holdout and no test records; give one of them")
    return axes


def _plan_axis(
    name: str, benchmark: Benchmark, settings: EvaluateSettings, tokenizer: Tokenizer, *, suffix: str = ""
) -> Axis:
    """Return a benchmark's axis; `suffix` makes another one of the same items."""
    form, options = benchmark
    parts = form.plan(name + suffix, options, tokenizer, settings.limit_of(name))
    return Axis(name + suffix, form, parts, max_new_tokens=getattr(options, "max_new_tokens", 0))


def _identify_model(source: ModelSource, fetched: Fetched) -> tuple[str, str]:
    """Return which artefact is evaluated: `model` and `model_kind` of an identity."""
    if source.engine == ENDPOINT:
        served = f"{source.endpoint.model} at {source.endpoint.url}"
        behind = f" ({source.model_uri})" if source.model_uri else ""
        return served + behind, "served"
    digest = loading.digest(source.model_uri, fetched.tuned) if fetched.tuned else ""
    return digest, fetched.kind


def _identify(benchmark: Benchmark) -> BenchmarkIdentity:
    options = asdict(benchmark.options)
    if benchmark.form.metric != FORMS[benchmark.form.name].metric:
        options["metric"] = benchmark.form.metric
    uri = options.pop("uri")
    return BenchmarkIdentity(form=benchmark.form.name, data=loading.digest(uri) if uri else "", options=options)


def _copy_tokenizer(base: Path, folder: str) -> None:
    """Put the tokenizer beside the rows, so that training shards can be turned back into text."""
    source = base / "tokenizer.json"
    if not source.is_file():
        raise ModelError(f"{base}: it has no tokenizer.json; save a fast tokenizer with the model")
    storage.copy(str(source), storage.join(folder, TOKENIZER_FILE))
