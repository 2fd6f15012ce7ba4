"""IFEval and whatever has its form: prompts with instructions that a program can verify."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mixtune.artifacts.samples import Part, Sample, chunks
from mixtune.errors import ConfigError, DataError
from mixtune.evaluate import benchmark_files
from mixtune.evaluate.answers import generate
from mixtune.evaluate.benchmarks.form import (
    BenchmarkForm,
    Contrast,
    Labels,
    ResampledContrast,
    mean_scores,
    measure_column,
)
from mixtune.evaluate.benchmarks.ifeval_checkers import check_instructions, follow
from mixtune.inference.prompts import render_question

PROMPTS_PER_PART = 128


@dataclass(frozen=True, kw_only=True)
class IfevalOptions:
    """Options of an IFEval-form benchmark."""

    uri: str
    max_new_tokens: int = 1280
    """Tokens of an answer at most; lm-eval's default."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"benchmark {self.uri}: max_new_tokens is 1 or more, got {self.max_new_tokens}")


def read_prompts(uri: str) -> list[dict[str, Any]]:
    """The prompts of a benchmark, with `key`, `prompt`, `instruction_id_list` and `kwargs` in each."""
    rows = [row for split in benchmark_files.read_splits(uri).values() for row in split]
    read = []
    for number, row in enumerate(rows, 1):
        names = _listed(benchmark_files.need(row, "instruction_id_list", uri, number), uri, number)
        kwargs = _listed(row.get("kwargs") or [{}] * len(names), uri, number)
        if not all(isinstance(one, dict) for one in kwargs):
            raise DataError(f"{uri} row {number}: kwargs is a list of objects, got {kwargs!r}")
        if len(kwargs) != len(names) or not names:
            raise DataError(f"{uri} row {number}: {len(names)} instructions, {len(kwargs)} kwargs; one each is needed")
        prompt = str(benchmark_files.need(row, "prompt", uri, number))
        key = str(row.get("key", number))
        given = [{name: value for name, value in one.items() if value is not None} for one in kwargs]
        read.append({"key": key, "prompt": prompt, "instruction_id_list": names, "kwargs": given})
    return read


@dataclass(frozen=True)
class Scorer:
    """Answers the prompts of one part and checks the answers."""

    axis: str
    options: IfevalOptions
    rows: tuple[dict[str, Any], ...]
    tokenizer: Any

    def __call__(self, engine: Any) -> list[Sample]:
        """The samples of the part."""
        texts = [render_question(self.tokenizer, row["prompt"]) for row in self.rows]
        answers = generate(engine, self.tokenizer, texts, self.options.max_new_tokens)
        return [check(self.axis, row, answer) for row, answer in zip(self.rows, answers, strict=True)]


def check(axis: str, row: dict[str, Any], answer: dict[str, Any]) -> Sample:
    """One prompt's sample: correct when all its instructions are followed strictly, wrong where a checker fails."""
    problem = ""
    try:
        strict, loose = follow(row, answer["response"])
    except Exception as error:  # whatever lm-eval's checkers make of a model's text is that item's trouble
        strict = loose = [False] * len(row["instruction_id_list"])
        problem = f"{type(error).__name__}: {error}"
    return Sample(
        axis=axis,
        subject=row["instruction_id_list"][0].split(":")[0],
        item_id=row["key"],
        text=row["prompt"],
        **answer,
        correct=float(all(strict)),
        error=problem,
        measures={
            "prompt_loose": float(all(loose)),
            "instructions": float(len(strict)),
            "instructions_strict": float(sum(strict)),
            "instructions_loose": float(sum(loose)),
        },
    )


class Ifeval(BenchmarkForm[IfevalOptions]):
    """Prompts with instructions that a program verifies."""

    name, options, metric, default_limit = "ifeval", IfevalOptions, "prompt_strict", 0.05

    def plan(self, axis: str, options: IfevalOptions, tokenizer: Any, limit: int) -> list[Part]:
        """Return the prompts, taken evenly by first instruction."""
        rows = read_prompts(options.uri)
        rows = benchmark_files.take(rows, [row["instruction_id_list"][0] for row in rows], limit)
        check_instructions(rows)
        return [
            Part(
                axis=axis,
                name=f"{number:05}",
                num_items=len(part),
                score=Scorer(axis, options, tuple(part), tokenizer),
            )
            for number, part in enumerate(chunks(rows, PROMPTS_PER_PART))
        ]

    def summarize(self, table: pa.Table, labels: Labels) -> dict[str, float]:
        """Return the four scores of IFEval: prompt and instruction level, strict and loose."""
        total = measure_column(table, "instructions").sum()
        return {
            "prompt_strict": float(np.mean(table["correct"].to_pylist())),
            "prompt_loose": float(measure_column(table, "prompt_loose").mean()),
            "instruction_strict": float(measure_column(table, "instructions_strict").sum() / total),
            "instruction_loose": float(measure_column(table, "instructions_loose").sum() / total),
            "truncated_ratio": float(np.mean(table["truncated"].to_pylist())),
        }

    def contrasts(self, base: pa.Table, candidate: pa.Table, labels: Labels) -> list[Contrast | ResampledContrast]:
        """Return both levels; on that of instructions, those of one prompt are one item."""
        per_prompt = measure_column(base, "instructions").mean()
        columns = {"prompt_loose": ("prompt_loose", 1.0)}
        columns |= {f"instruction_{kind}": (f"instructions_{kind}", per_prompt) for kind in ("strict", "loose")}
        loose = [
            Contrast(
                metric=metric,
                base=mean_scores(measure_column(base, column) / scale),
                candidate=mean_scores(measure_column(candidate, column) / scale),
            )
            for metric, (column, scale) in columns.items()
        ]
        return [*super().contrasts(base, candidate, labels), *loose]


FORM = Ifeval()


def _listed(value: Any, uri: str, number: int) -> list[Any]:
    """A list, given as such or as JSON."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise DataError(f"{uri} row {number}: {value!r} is not a JSON list ({error})") from error
    if not isinstance(found, list):
        raise DataError(f"{uri} row {number}: a list is needed, got {value!r}")
    return found
