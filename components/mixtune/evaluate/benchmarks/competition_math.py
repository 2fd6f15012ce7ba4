"""MATH and whatever has its form: problems whose solution ends in a boxed answer."""

from dataclasses import dataclass

from mixtune import benchmark_files
from mixtune.errors import DataError
from mixtune.evaluate.answers import AnswerColumns
from mixtune.evaluate.asked import AskedForm, AskedItem, AskedOptions, Judgment, item_id
from mixtune.evaluate.scoring.math_answers import is_same, read_answer, read_boxed
from mixtune.inference.engine import Tokenizer
from mixtune.records import Message

_ASK = "\n\nReason step by step, and put the final answer in \\boxed{}."


@dataclass(frozen=True, kw_only=True)
class MathOptions(AskedOptions):
    """Options of MATH and its like: rows with a `problem` or `question`; an `answer`, or a boxed one in `solution`."""

    max_new_tokens: int = 1024


class CompetitionMath(AskedForm[MathOptions]):
    """Problems of mathematics; subjects are `type` or `subject`, else `level`."""

    name, options, metric, default_limit = "math", MathOptions, "accuracy", 0.03

    def read_items(self, options: MathOptions, tokenizer: Tokenizer) -> list[AskedItem]:
        """Return the problems of the `test` split.

        Raises:
            DataError: No items, or a row without a problem or an answer.
        """
        items = []
        for number, row in enumerate(benchmark_files.read_items(options.uri), 1):
            place = f"{options.uri} row {number}"
            problem = benchmark_files.text_of_problem(row, place)
            answer = benchmark_files.only_answer(row.get("answer") or row.get("final_answer"), place)
            answer = answer or read_boxed(str(row.get("solution") or ""))
            if not answer:
                raise DataError(f"{place}: no answer, and no \\boxed{{...}} in a solution")
            subject = str(row.get("type") or row.get("subject") or row.get("level") or "all")
            message = Message(role="user", content=problem + _ASK)
            items.append(AskedItem(item_id=item_id(row, number), subject=subject, messages=[message], gold=answer))
        return items

    def judge(self, item: AskedItem, answer: AnswerColumns) -> Judgment:
        """Return whether the answer is the expected one in any spelling."""
        prediction = read_answer(answer["response"])
        return Judgment(correct=is_same(prediction, item.gold), prediction=prediction)


FORM = CompetitionMath()
