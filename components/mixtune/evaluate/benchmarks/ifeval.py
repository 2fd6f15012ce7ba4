"""IFEval and benchmarks of its form: prompts with instructions that a program can verify."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mixtune import benchmark_files
from mixtune.errors import DataError
from mixtune.evaluate.answers import AnswerColumns, latency_scores
from mixtune.evaluate.asked import AskedForm, AskedItem, AskedOptions, Judgment, read_json
from mixtune.evaluate.benchmarks.form import Contrasts, Labels, correct, measure_column, measure_contrast
from mixtune.evaluate.scoring.ifeval_checkers import Prompt, check_instructions, follow
from mixtune.inference.engine import Tokenizer
from mixtune.records import Message


@dataclass(frozen=True, kw_only=True)
class IfevalOptions(AskedOptions):
    """Options of an IFEval-form benchmark."""

    max_new_tokens: int = 1280
    """Tokens of an answer at most; lm-eval's default."""


@dataclass(frozen=True, kw_only=True)
class PromptItem(AskedItem):
    """One item."""

    prompt: Prompt


class Ifeval(AskedForm[IfevalOptions]):
    """Prompts with instructions that a program verifies; its subjects are the kinds of their first instructions."""

    name, options, metric, default_limit = "ifeval", IfevalOptions, "prompt_strict", 0.05
    other_metrics = ("prompt_loose", "instruction_strict", "instruction_loose")

    def read_items(self, options: IfevalOptions, tokenizer: Tokenizer) -> list[AskedItem]:
        """Return the prompts, whose instructions can all be checked."""
        prompts = read_prompts(options.uri, options.columns)
        check_instructions(prompts)
        return [
            PromptItem(
                item_id=prompt.key,
                subject=prompt.instruction_id_list[0].split(":")[0],
                messages=[Message(role="user", content=prompt.prompt)],
                prompt=prompt,
            )
            for prompt in prompts
        ]

    def judge(self, item: AskedItem, answer: AnswerColumns) -> Judgment:
        """Return whether all instructions are followed strictly; wrong where a checker fails."""
        assert isinstance(item, PromptItem)
        problem = ""
        try:
            strict, loose = follow(item.prompt, answer["response"])
        except Exception as error:  # whatever lm-eval's checkers make of a model's text is that item's trouble
            strict = loose = [False] * len(item.prompt.instruction_id_list)
            problem = f"{type(error).__name__}: {error}"
        measures = {
            "prompt_loose": float(all(loose)),
            "instructions": float(len(strict)),
            "instructions_strict": float(sum(strict)),
            "instructions_loose": float(sum(loose)),
        }
        return Judgment(correct=all(strict), prediction="", measures=measures, error=problem)

    def summarize(self, table: pa.Table, labels: Labels) -> dict[str, float]:
        """Return the four scores of IFEval: prompt and instruction level, strict and loose."""
        total = measure_column(table, "instructions").sum()
        return {
            "prompt_strict": float(correct(table).mean()),
            "prompt_loose": float(measure_column(table, "prompt_loose").mean()),
            "instruction_strict": float(measure_column(table, "instructions_strict").sum() / total),
            "instruction_loose": float(measure_column(table, "instructions_loose").sum() / total),
            **{name: latency_scores(table)[name] for name in ("truncated_ratio", "unfinished_ratio")},
        }

    def contrasts(self, base: pa.Table, candidate: pa.Table, labels: Labels) -> Contrasts:
        """Return both levels; on that of instructions, those of one prompt are one item."""
        per_prompt = measure_column(base, "instructions").mean()
        instructions = [
            measure_contrast(f"instruction_{kind}", base, candidate, column=f"instructions_{kind}", scale=per_prompt)
            for kind in ("strict", "loose")
        ]
        loose = measure_contrast("prompt_loose", base, candidate)
        return [*super().contrasts(base, candidate, labels), loose, *instructions]


FORM = Ifeval()


def read_prompts(uri: str, columns: Mapping[str, str]) -> list[Prompt]:
    """Return the prompts of a benchmark."""
    prompts: list[Prompt] = []
    for number, row in enumerate(benchmark_files.read_items(uri, columns), 1):
        place = f"{uri} row {number}"
        names = _list(benchmark_files.need(row, "instruction_id_list", uri, number), place)
        kwargs = _list(row.get("kwargs") or [{}] * len(names), place)
        if not all(isinstance(arguments, dict) for arguments in kwargs):
            raise DataError(f"{place}: kwargs is a list of objects, got {kwargs!r}")
        if len(kwargs) != len(names) or not names:
            raise DataError(f"{place}: {len(names)} instructions, {len(kwargs)} kwargs; one each is needed")
        prompts.append(
            Prompt(
                key=str(row.get("key", number)),
                prompt=str(benchmark_files.need(row, "prompt", uri, number)),
                instruction_id_list=names,
                kwargs=list(map(_plain, kwargs)),
            )
        )
    return prompts


def _plain(arguments: Mapping[str, object]) -> dict[str, object]:
    """Return an instruction's arguments without empty cells; counts that a table made fractions are whole again."""
    filled = {name: value for name, value in arguments.items() if value is not None and value == value}
    whole = {name: int(value) for name, value in filled.items() if isinstance(value, float) and value.is_integer()}
    return filled | whole


def _list(value: Any, place: str) -> list[Any]:
    """Return a list that is given as such or as JSON."""
    items = read_json(value, place)
    if not isinstance(items, list):
        raise DataError(f"{place}: a list is needed, got {value!r}")
    return items
