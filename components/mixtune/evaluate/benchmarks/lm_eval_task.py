"""Any lm-eval task by its name, run by lm-eval itself on the loaded model or the engine."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Number

import pyarrow as pa

from mixtune import storage
from mixtune.artifacts.samples import Sample, prompt_hash
from mixtune.errors import ConfigError
from mixtune.evaluate.benchmarks.form import BenchmarkForm, Labels, correct, measure_column
from mixtune.inference.engine import Engine, Tokenizer
from mixtune.inference.parallel import Part
from mixtune.settings.foreign import JsonObject


@dataclass(frozen=True, kw_only=True)
class LmEvalOptions:
    """Options of an lm-eval task."""

    task: str
    """Name of one task, not of a group."""
    uri: str = ""
    """Local folder with the task's YAML, for tasks that lm-eval does not ship; its data must be local as well."""
    metric: str = ""
    """Which of the task's metrics the verdict is about; empty: its first."""
    num_fewshot: int = -1
    """Solved items before each question; -1: the task's own number."""
    batch_size: int = 8


class LmEval(BenchmarkForm[LmEvalOptions]):
    """A task of lm-eval, which runs it whole, as one part."""

    name, options, metric, default_limit = "lm_eval", LmEvalOptions, "score", 0.02

    def plan(self, axis: str, options: LmEvalOptions, tokenizer: Tokenizer, limit: int) -> list[Part]:
        """Return the task as one part; a limit takes its first items."""
        score = partial(run_task, axis, tokenizer, limit)
        return [Part(axis=axis, name="00000", items=(options,), score_items=score)]

    def summarize(self, table: pa.Table, labels: Labels) -> dict[str, float]:
        """Return means over items: of the chosen metric as `score`, and of all others by name."""
        names = sorted(dict(table["measures"][0].as_py()))
        means = {name: float(measure_column(table, name).mean()) for name in names}
        return {"score": float(correct(table).mean()), **means}


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
    from lm_eval.tasks import TaskManager

    from mixtune.evaluate.lm_eval_engine import lm_eval_model

    folder = storage.check_fingerprint(options.uri) if options.uri else None
    manager = TaskManager(include_path=folder, include_defaults=folder is None)
    if options.task not in manager.all_subtasks:
        raise ConfigError(f"lm-eval has no task {options.task!r}; give the name of a task, and its folder as uri")
    try:
        result = lm_eval.simple_evaluate(
            model=lm_eval_model(engine, tokenizer, options.batch_size),
            tasks=[options.task],
            num_fewshot=options.num_fewshot if options.num_fewshot >= 0 else None,
            limit=limit or None,
            task_manager=manager,
            bootstrap_iters=0,
            log_samples=True,
        )
    except (OSError, ConnectionError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise ConfigError(f"lm-eval task {options.task}: its data cannot be had{offline}: {error}") from error
    return [_sample(axis, options, row) for row in result["samples"][options.task]]


def _sample(axis: str, options: LmEvalOptions, row: JsonObject) -> Sample:
    measures = {name: float(row[name]) for name in row["metrics"] if isinstance(row[name], Number | bool)}
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
