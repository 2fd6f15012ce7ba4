"""Any lm-eval task by its name, run by lm-eval itself on the loaded model or the engine."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from numbers import Number
from pathlib import Path
from typing import Any

import pyarrow as pa

from mixtune import storage
from mixtune.artifacts.samples import Sample, prompt_hash
from mixtune.errors import ConfigError, ModelError
from mixtune.evaluate.benchmarks.form import BenchmarkForm, Labels, correct, mean_measures
from mixtune.inference.engine import Engine, Tokenizer
from mixtune.inference.parallel import Part
from mixtune.settings.foreign import JsonObject
from mixtune.settings.from_dict import suggest


@dataclass(frozen=True, kw_only=True)
class LmEvalOptions:
    """Options of an lm-eval task."""

    task: str
    """Name of one task, not of a group."""
    uri: str = ""
    """Local folder with the task's YAML, for tasks that lm-eval does not ship; its data must be local as well."""
    metric: str = ""
    """Which of the task's metrics the verdict is about, such as `exact_match`, or `exact_match,flexible-extract` by
    another filter than its first; empty: its first."""
    num_fewshot: int = -1
    """Solved items before each question; -1: the task's own number."""
    batch_size: int = 8

    def __post_init__(self) -> None:
        if self.num_fewshot < -1 or self.batch_size < 1:
            raise ConfigError("num_fewshot is -1 (the task's own) or more, batch_size 1 or more")


class LmEval(BenchmarkForm[LmEvalOptions]):
    """A task of lm-eval, which runs it whole, as one part."""

    name, options, metric, default_limit = "lm_eval", LmEvalOptions, "score", 0.02
    has_items = False

    def plan(self, axis: str, options: LmEvalOptions, tokenizer: Tokenizer, limit: int) -> list[Part]:
        """Return the task as one part, a ConfigError where there is none; a limit takes its first items."""
        tasks = _load_tasks(options.uri, options.task)
        if options.task not in tasks.all_subtasks:
            raise ConfigError(f"lm-eval has no task {options.task!r}; give the name of a task, and its folder as uri")
        if options.metric:
            _check_metric(options, tasks.task_index[options.task].cfg or {})
        score = partial(run_task, axis, tokenizer, limit)
        return [Part(axis=axis, name="00000", items=(options,), score_items=score)]

    def summarize(self, table: pa.Table, labels: Labels) -> dict[str, float]:
        """Return means over items: of the chosen metric as `score`, and of all others by name."""
        return {"score": float(correct(table).mean()), **mean_measures(table)}


FORM = LmEval()


def run_task(
    axis: str, tokenizer: Tokenizer, limit: int, tasks: Sequence[LmEvalOptions], engine: Engine
) -> list[Sample]:
    """Run a task, the one of `tasks`.

    Raises:
        ConfigError: No such task, or its data cannot be had.
    """
    (options,) = tasks
    import lm_eval

    from mixtune.evaluate.lm_eval_engine import lm_eval_model

    try:
        result = lm_eval.simple_evaluate(
            model=lm_eval_model(engine, tokenizer, options.batch_size),
            tasks=[options.task],
            num_fewshot=options.num_fewshot if options.num_fewshot >= 0 else None,
            limit=limit or None,
            task_manager=_load_tasks(options.uri, options.task),
            bootstrap_iters=0,
            log_samples=True,
        )
    except (OSError, ConnectionError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise ConfigError(f"lm-eval task {options.task}: its data cannot be had{offline}: {error}") from error
    rows_by_item: dict[str, list[JsonObject]] = {}  # one for each filter of the answers
    for row in result["samples"][options.task]:
        rows_by_item.setdefault(str(row["doc_id"]), []).append(row)
    samples = [_sample(axis, options, rows) for rows in rows_by_item.values()]
    metric = options.metric or next(iter(samples[0].measures))
    bare = metric.partition(",")[0]
    _check_direction(options.task, bare, result["higher_is_better"][options.task].get(bare))
    return samples


def _check_metric(options: LmEvalOptions, config: JsonObject) -> None:
    """Hold a metric's name against a task's configuration, where that alone says what is measured: no code does.

    Raises:
        ConfigError: The task has none of that name, or less of it is better.
    """
    from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY, METRIC_REGISTRY

    kind = config.get("output_type", "generate_until")
    listed = config.get("metric_list") or [{"metric": name} for name in DEFAULT_METRIC_REGISTRY.get(kind, ())]
    metrics = {str(item.get("metric")): item.get("higher_is_better") for item in listed}
    name, _, filter_name = options.metric.partition(",")
    filters = [str(item.get("name")) for item in config.get("filter_list") or [{"name": "none"}]]
    if "class" in config or config.get("process_results") or not set(metrics) <= set(METRIC_REGISTRY):
        return
    if name not in metrics or (filter_name and filter_name not in filters[1:]):
        further = [f"{metric},{other}" for other in filters[1:] for metric in metrics]
        names = suggest(options.metric, [*metrics, *further])
        raise ConfigError(f"lm-eval task {options.task}: no metric {options.metric!r}; {names}")
    _check_direction(options.task, name, metrics[name])


def _check_direction(task: str, metric: str, higher_is_better: bool | None) -> None:
    if higher_is_better is False:
        raise ConfigError(
            f"lm-eval task {task}: less of {metric!r} is better, and more counts as better here; set metric"
        )


@lru_cache(maxsize=4)
def _load_tasks(uri: str, task: str) -> Any:
    """Return lm-eval's tasks in the folder of its own one, or those of a folder; a ModelError where it is not here.

    To index the 14,000 files of all its tasks takes many seconds.
    """
    try:
        from lm_eval import tasks
    except ImportError as error:
        raise ModelError(
            "lm-eval is not installed here, so its tasks are not looked at; evaluate's image has it"
        ) from error

    named = re.compile(rb"""^["']?task["']?: *["']?%s["']?\s*$""" % re.escape(task.encode()), re.MULTILINE)
    files = () if uri else Path(tasks.__file__).parent.rglob("*.yaml")
    own = next((str(file.parent) for file in files if named.search(file.read_bytes())), None)
    folder = storage.check_fingerprint(uri) if uri else own
    return tasks.TaskManager(include_path=folder, include_defaults=folder is None)


def _sample(axis: str, options: LmEvalOptions, rows: Sequence[JsonObject]) -> Sample:
    """Return an item's sample from its rows, one for each filter of answers; metrics of the first have bare names."""
    row, measures = rows[0], dict[str, float]()
    for other in rows:
        numbers = {name: float(other[name]) for name in other["metrics"] if isinstance(other[name], Number | bool)}
        measures |= numbers if other is row else {f"{name},{other['filter']}": n for name, n in numbers.items()}
    metric = options.metric or next(iter(measures), "")
    if metric not in measures:
        names = ", ".join(measures) or "none"
        raise ConfigError(f"lm-eval task {options.task}: no number {metric!r} per item; there are {names}")
    first = row["filtered_resps"][0]
    response = first if isinstance(first, str) else ""
    return Sample(
        axis=axis,
        subject=options.task,
        item_id=str(row["doc_id"]),
        prompt_hash=prompt_hash(str(row["prompt_hash"]) + str(row["doc_hash"])),
        prediction=response,
        gold=str(row["target"]),
        correct=measures[metric],
        response=response,
        measures=measures,
    )
