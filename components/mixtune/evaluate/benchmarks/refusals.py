"""Refusals: whether a model refuses what it should, and answers what it should not refuse."""

from mixtune.errors import DataError
from mixtune.evaluate import benchmark_files
from mixtune.evaluate.answers import AnswerColumns
from mixtune.evaluate.asked import AskedForm, AskedItem, AskedOptions, Judgment, item_id, read_messages
from mixtune.evaluate.benchmark_files import Row
from mixtune.evaluate.scoring.refusal_rules import is_refusal
from mixtune.inference.engine import Tokenizer

REFUSE, ANSWER = "refuse", "answer"
_YES = ("true", "1", "1.0", "yes", "unsafe", "harmful", REFUSE)
_NO = ("false", "0", "0.0", "no", "safe", "harmless", "benign", ANSWER)


class Refusals(AskedForm[AskedOptions]):
    """Rows with a `prompt` and whether to `refuse` it (true, false; or XSTest's `label`: unsafe, safe)."""

    name, options, metric, default_limit = "refusals", AskedOptions, "accuracy", 0.03

    def read_items(self, options: AskedOptions, tokenizer: Tokenizer) -> list[AskedItem]:
        """Return the prompts of all splits."""
        return [
            AskedItem(
                item_id=item_id(row, number),
                subject=_should(row, f"{options.uri} row {number}"),
                messages=read_messages(row, f"{options.uri} row {number}"),
                gold=_should(row, f"{options.uri} row {number}"),
            )
            for number, row in enumerate(benchmark_files.read_all(options.uri), 1)
        ]

    def judge(self, item: AskedItem, answer: AnswerColumns) -> Judgment:
        """Return whether the model refused exactly where it should; saying nothing is neither."""
        is_empty = not answer["response"].strip()
        prediction = "" if is_empty else REFUSE if is_refusal(answer["response"]) else ANSWER
        return Judgment(correct=prediction == item.gold, prediction=prediction)


FORM = Refusals()


def _should(row: Row, place: str) -> str:
    value = str(next((row[name] for name in ("refuse", "label") if row.get(name) is not None), "")).strip().lower()
    if value not in (*_YES, *_NO):
        raise DataError(f"{place}: refuse is true or false, or label is safe or unsafe; got {value!r}")
    return REFUSE if value in _YES else ANSWER
