"""GSM8K: grade-school mathematics, answered in words that end in a number.

Prompts, stop text, the two readings of an answer and the comparison of numbers are those of lm-eval's `gsm8k`; only
the solved items before a question are the first of the `train` split, the same for all.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa

from mixtune import benchmark_files
from mixtune.artifacts.samples import Sample
from mixtune.benchmark_files import Row
from mixtune.errors import ConfigError, DataError
from mixtune.evaluate.answers import generate, is_prompt_cut, latency_scores, without_next_turn
from mixtune.evaluate.benchmarks.form import BenchmarkForm, Labels, correct, measure_column
from mixtune.inference.engine import Engine, Tokenizer
from mixtune.inference.parallel import Part, make_parts

QUESTIONS_PER_PART = 128
STOP = "Question:"
"""Where a model continues with a question of its own, its answer has ended."""
_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = (",", r"\$", "(?s).*#### ", r"\.$")
_ALONE = re.compile(r"-?[0-9][0-9,]*(\.[0-9]+)?")
INVALID = "[invalid]"


@dataclass(frozen=True, kw_only=True)
class Gsm8kOptions:
    """Options of a benchmark of GSM8K's form: rows with a `question` and an `answer` that ends in `#### number`."""

    uri: str
    columns: dict[str, str] = field(default_factory=dict)
    """The file's columns by the usual names, `question` and `answer`, where it has others."""
    num_fewshot: int = 5
    """Solved items of the `train` split before each question; 0: none."""
    max_new_tokens: int = 256
    """Tokens of an answer at most; lm-eval's default."""

    def __post_init__(self) -> None:
        if self.num_fewshot < 0 or self.max_new_tokens < 1:
            raise ConfigError("num_fewshot is 0 or more, max_new_tokens 1 or more")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One item."""

    item_id: str
    question: str
    answer: str


class Gsm8k(BenchmarkForm[Gsm8kOptions]):
    """Problems whose answers are numbers."""

    name, options, metric, default_limit = "gsm8k", Gsm8kOptions, "strict_match", 0.02
    other_metrics = ("flexible_match",)
    means = (("strict_match", correct), ("flexible_match", partial(measure_column, name="flexible_match")))

    def plan(self, axis: str, options: Gsm8kOptions, tokenizer: Tokenizer, limit: int) -> list[Part]:
        """Return the problems of the `test` split, or its first."""
        splits = benchmark_files.read_splits(options.uri, columns=options.columns)
        items = benchmark_files.choose_split(splits, options.uri)
        problems = read_problems(items, options.uri)
        train = splits.get("train", [])
        solved = read_problems(train, options.uri) if train is not items else []
        if len(solved) < options.num_fewshot:
            count = f"{len(solved)} items in the train split, num_fewshot is {options.num_fewshot}"
            raise DataError(f"{options.uri}: {count}; give a folder with a train file, or set num_fewshot")
        score = partial(score_problems, axis, tokenizer, solved[: options.num_fewshot], options.max_new_tokens)
        return make_parts(axis, problems[: limit or None], QUESTIONS_PER_PART, score, new_tokens=options.max_new_tokens)

    def summarize(self, table: pa.Table, labels: Labels) -> dict[str, float]:
        """Return the share of right answers by either reading, and how long they took."""
        return {**super().summarize(table, labels), **latency_scores(table)}


FORM = Gsm8k()


def score_problems(
    axis: str,
    tokenizer: Tokenizer,
    shots: Sequence[Problem],
    max_new_tokens: int,
    problems: Sequence[Problem],
    engine: Engine,
) -> list[Sample]:
    """Answer problems and read the numbers; correct where the strict reading is."""
    texts = [prompt(problem, shots) for problem in problems]
    samples = []
    answers = generate(engine, tokenizer, texts, max_new_tokens, plain=True)
    for problem, text, answer in zip(problems, texts, answers, strict=True):
        written = answer["response"]
        response = without_next_turn(written.partition(STOP)[0], lambda text: re.search(r"\d", text) is not None)
        answer["response"] = response
        if answer["truncated"] and response != written:  # not by its length, but perhaps the prompt was
            answer["truncated"] = is_prompt_cut(engine, tokenizer, text, max_new_tokens)
        digits = re.sub(r"\d", lambda digit: str(int(digit[0])), response)  # of any script
        plain = digits.replace("\N{MINUS SIGN}", "-")
        gold, strict, flexible = map(normalise, (problem.answer, read_strict(plain), read_flexible(plain)))
        samples.append(
            Sample(
                axis=axis,
                subject="all",
                item_id=problem.item_id,
                text=problem.question,
                **answer,
                prediction=flexible,
                gold=gold,
                correct=float(strict == gold),
                measures={"flexible_match": float(flexible == gold)},
            )
        )
    return samples


def read_problems(rows: list[Row], uri: str) -> list[Problem]:
    """Return the items of a split; the number may stand alone, as `answer_number` (MGSM) or `answer` (SVAMP).

    Raises:
        DataError: A row without a question, or without a number for its answer.
    """
    problems = []
    for number, row in enumerate(rows, 1):
        question = benchmark_files.text_of_problem(row, f"{uri} row {number}")
        answer = benchmark_files.only_answer(row.get("answer"), f"{uri} row {number}")
        if not _ALONE.fullmatch(normalise(answer)) or "#### " not in answer:
            alone = next((str(row[name]) for name in ("answer_number",) if row.get(name) is not None), answer)
            if not _ALONE.fullmatch(alone):
                raise DataError(
                    f"{uri} row {number}: answer ends in '#### ' and a number, or is one; got {alone[-40:]!r}; others "
                    "are for the form math or short_answers"
                )
            steps = "" if _ALONE.fullmatch(answer) else f"{answer}\n"
            answer = f"{steps}#### {alone.removesuffix('.0')}".lstrip()
        problems.append(Problem(item_id=str(number - 1), question=question, answer=answer))
    return problems


def prompt(problem: Problem, shots: Sequence[Problem]) -> str:
    """Return the solved items and the question, up to `Answer:`."""
    solved = "".join(f"Question: {shot.question}\nAnswer: {shot.answer}\n\n" for shot in shots)
    return f"{solved}Question: {problem.question}\nAnswer:"


def read_strict(response: str) -> str:
    """Return the number after the first `####`; `[invalid]` where there is none."""
    match = _STRICT.search(response)
    return match[1].strip() if match else INVALID


def read_flexible(response: str) -> str:
    """Return the last number of a response; `[invalid]` where there is none."""
    matches = _FLEXIBLE.findall(response)
    return next(text for text in matches[-1] if text).strip() if matches else INVALID


def normalise(number: str) -> str:
    """Return a number, or an answer that ends in one, without thousands separators, currency and final full stop."""
    for pattern in _IGNORED:
        number = re.sub(pattern, "", number)
    return number.lower()
