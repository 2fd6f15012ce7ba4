"""MATH and benchmarks of its form: problems whose solution ends in a boxed answer."""

import re
from dataclasses import dataclass

from mixtune import benchmark_files
from mixtune.benchmark_files import SUBJECTS, Row
from mixtune.errors import DataError
from mixtune.evaluate.answers import AnswerColumns, without_next_turn
from mixtune.evaluate.asked import AskedForm, AskedItem, AskedOptions, Judgment, item_id
from mixtune.evaluate.scoring.math_answers import are_same, is_same, read_answer, read_boxed
from mixtune.inference.engine import Tokenizer
from mixtune.records import Message

_WORDS = re.compile(r"[^\d\\=+*/^$]*[^\W\d_]{4}[^\d\\=+*/^$]*")
"""An answer that is no mathematics."""
_ASK = "\n\nReason step by step, and put the final answer in \\boxed{}."


@dataclass(frozen=True, kw_only=True)
class MathOptions(AskedOptions):
    """Options of MATH and its like: rows with a `problem` or `question`; an `answer`, or a boxed one in `solution`.

    A `tolerance` or `error` says by how much a number may differ.
    """

    max_new_tokens: int = 1024


@dataclass(frozen=True, kw_only=True)
class MathItem(AskedItem):
    """One problem."""

    tolerance: float = 0.0
    """By how much a number may differ from the right one."""
    is_list: bool = False
    """Several answers are right together, in any order."""


class CompetitionMath(AskedForm[MathOptions]):
    """Problems of mathematics; subjects are `type` or `subject`, else `level`."""

    name, options, metric, default_limit = "math", MathOptions, "accuracy", 0.03

    def read_items(self, options: MathOptions, tokenizer: Tokenizer) -> list[AskedItem]:
        """Return the problems of the `test` split.

        Raises:
            DataError: No items, or a row without a problem or an answer.
        """
        items = []
        for number, row in enumerate(benchmark_files.read_items(options.uri, options.columns), 1):
            place = f"{options.uri} row {number}"
            problem = benchmark_files.text_of_problem(row, place)
            answers = (benchmark_files.only_answer(row.get(name), place) for name in ("answer", "final_answer"))
            answer = next(filter(None, answers), "") or read_boxed(str(row.get("solution") or ""))
            if not answer:
                raise DataError(
                    f"{place}: no answer, and no \\boxed{{...}} in a solution; texts are for short_answers, code "
                    "for lm_eval"
                )
            subject = str(next((row[name] for name in ("type", *SUBJECTS, "level") if row.get(name)), "all"))
            item = MathItem(
                item_id=item_id(row, number),
                subject=subject,
                messages=[Message(role="user", content=problem + _ASK)],
                gold=answer,
                tolerance=_tolerance(row, place),
                is_list=benchmark_files.is_marked(row, "is_multiple_answer"),
            )
            items.append(item)
        words = [item.gold for item in items if _WORDS.fullmatch(item.gold)]
        if 2 * len(words) > len(items):
            text = f"most answers are words, such as {words[0]!r}, whose spellings math cannot tell apart"
            raise DataError(f"{options.uri}: {text}; form short_answers can, or a judge")
        return list(items)

    def judge(self, item: AskedItem, answer: AnswerColumns) -> Judgment:
        """Return whether the answer is the expected one in any spelling; it ends where another question begins."""
        has_box = bool(read_boxed(answer["response"]))
        response = without_next_turn(
            answer["response"], lambda text: bool(read_boxed(text) if has_box else text.strip())
        )
        prediction = read_answer(response)
        assert isinstance(item, MathItem)
        correct = (are_same if item.is_list else is_same)(prediction, item.gold, item.tolerance)
        return Judgment(correct=correct, prediction=prediction, measures={"boxed": float(has_box)})


FORM = CompetitionMath()


def _tolerance(row: Row, place: str) -> float:
    """Return by how much a number may differ, as OlympiadBench's `error` or a `tolerance` says; a DataError if odd."""
    text = str(row.get("tolerance") or row.get("error") or 0).strip()
    try:
        tolerance = abs(float(text))
    except ValueError as error:
        raise DataError(f"{place}: its tolerance is a number, by which the answer may differ; got {text!r}") from error
    return tolerance if tolerance == tolerance else 0.0  # NaN: an empty cell
