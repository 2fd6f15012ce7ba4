"""Any lm-eval task by its name, run by lm-eval itself on the loaded model."""

import os
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
import pyarrow as pa

from mixtune import storage
from mixtune.artifacts.samples import Part, Sample, prompt_hash
from mixtune.errors import ConfigError, ModelError
from mixtune.evaluate.benchmarks.form import BenchmarkForm, Labels, measure_column


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


@dataclass(frozen=True)
class Scorer:
    """Runs one task."""

    axis: str
    options: LmEvalOptions
    tokenizer: Any
    limit: int

    def __call__(self, engine: Any) -> list[Sample]:
        """The samples of the task.

        Raises:
            ModelError: The engine has no Hugging Face model to hand over.
            ConfigError: No such task, or its data cannot be had.
        """
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        if not hasattr(engine, "model"):
            raise ModelError(f"lm-eval task {self.options.task}: runs on the transformers engine only")
        folder = storage.check_fingerprint(self.options.uri) if self.options.uri else None
        manager = TaskManager(include_path=folder, include_defaults=folder is None)
        if self.options.task not in manager.all_subtasks:
            raise ConfigError(
                f"lm-eval has no task {self.options.task!r}; give the name of a task, and its folder as uri"
            )
        model = HFLM(pretrained=engine.model, tokenizer=self.tokenizer, batch_size=self.options.batch_size)
        try:
            result = lm_eval.simple_evaluate(
                model=model,
                tasks=[self.options.task],
                num_fewshot=self.options.num_fewshot if self.options.num_fewshot >= 0 else None,
                limit=self.limit or None,
                task_manager=manager,
                bootstrap_iters=0,
                log_samples=True,
            )
        except (OSError, ConnectionError) as error:
            offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
            raise ConfigError(f"lm-eval task {self.options.task}: its data cannot be had{offline}: {error}") from error
        return [self._sample(row) for row in result["samples"][self.options.task]]

    def _sample(self, row: dict[str, Any]) -> Sample:
        measures = {name: float(row[name]) for name in row["metrics"] if isinstance(row[name], Number | bool)}
        metric = self.options.metric or next(iter(measures), "")
        if metric not in measures:
            known = ", ".join(measures) or "none"
            raise ConfigError(f"lm-eval task {self.options.task}: no number {metric!r} per item; there are {known}")
        first = row["filtered_resps"][0]
        return Sample(
            axis=self.axis,
            subject=self.options.task,
            item_id=str(row["doc_id"]),
            prompt_hash=prompt_hash(str(row["prompt_hash"]) + str(row["doc_hash"])),
            prediction=first if isinstance(first, str) else "",
            gold=str(row["target"]),
            correct=measures[metric],
            response=first if isinstance(first, str) else "",
            measures=measures,
        )


class LmEval(BenchmarkForm[LmEvalOptions]):
    """A task of lm-eval, which runs it whole, as one part."""

    name, options, metric, default_limit = "lm_eval", LmEvalOptions, "score", 0.02

    def plan(self, axis: str, options: LmEvalOptions, tokenizer: Any, limit: int) -> list[Part]:
        """Return the task as one part; a limit takes its first items."""
        return [Part(axis=axis, name="00000", num_items=limit, score=Scorer(axis, options, tokenizer, limit))]

    def summarize(self, table: pa.Table, labels: Labels) -> dict[str, float]:
        """Return means over items: of the chosen metric as `score`, and of all others by name."""
        names = sorted(dict(table["measures"][0].as_py()))
        means = {name: float(measure_column(table, name).mean()) for name in names}
        return {"score": float(np.mean(table["correct"].to_pylist())), **means}


FORM = LmEval()
