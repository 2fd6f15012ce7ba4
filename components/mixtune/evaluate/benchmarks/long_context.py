"""Long context: a fact at a depth of many others, and a question about it."""

import re
from dataclasses import dataclass
from itertools import count

import pyarrow as pa

from mixtune import benchmark_files
from mixtune.errors import ConfigError, DataError
from mixtune.evaluate.answers import AnswerColumns
from mixtune.evaluate.asked import AskedForm, AskedItem, AskedOptions, Judgment, item_id
from mixtune.evaluate.scoring.label_names import joins, spell_without_punctuation
from mixtune.inference.engine import Tokenizer
from mixtune.inference.prompts import encode
from mixtune.records import Message

_HEAD = "Read these notes, then answer the question in a few words.\n\n"
_GROUPED = re.compile(r"(?<!\d)\d{1,3}(?:[,. ]\d{3})+(?!\d)")
"""A number whose thousands are parted."""


@dataclass(frozen=True, kw_only=True)
class LongContextOptions(AskedOptions):
    """Options of a long-context benchmark: rows with a `fact`, a `question` about it and its `answer`."""

    max_new_tokens: int = 64
    length: int = 4096
    """Tokens of the notes; the facts of the other rows fill them, over and over."""
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Where a fact stands, 0 (first) to 1 (last); every row is asked at every depth."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < 1 or not self.depths or not all(0 <= depth <= 1 for depth in self.depths):
            raise ConfigError("length is 1 or more, depths are 0 to 1")


class LongContext(AskedForm[LongContextOptions]):
    """A question whose answer stands once in long notes."""

    name, options, metric, default_limit = "long_context", LongContextOptions, "recall", 0.03

    def read_items(self, options: LongContextOptions, tokenizer: Tokenizer) -> list[AskedItem]:
        """Return every row at every depth.

        Raises:
            DataError: A row without a fact, question or answer, or fewer than two rows.
        """
        rows = benchmark_files.read_items(options.uri, options.columns)
        if len(rows) < 2:
            raise DataError(f"{options.uri}: long context needs two facts at least, each is hidden among the others")
        texts = [
            [
                benchmark_files.only_answer(
                    benchmark_files.need(row, name, options.uri, number), f"{options.uri} row {number}"
                )
                for name in ("fact", "question", "answer")
            ]
            for number, row in enumerate(rows, 1)
        ]
        sizes = [len(encode(tokenizer, f"{fact}\n")) for fact, _, _ in texts]
        items = []
        for place, (row, (fact, question, answer)) in enumerate(zip(rows, texts, strict=True)):
            others = _fill(place, sizes, options.length - sizes[place])
            for depth in options.depths:
                cut = round(depth * len(others))
                facts = [texts[other][0] for other in others]
                notes = [*facts[:cut], fact, *facts[cut:]]
                content = f"{_HEAD}{chr(10).join(notes)}\n\nQuestion: {question}"
                items.append(
                    AskedItem(
                        item_id=f"{item_id(row, place + 1)}/{depth:g}",
                        subject=f"depth {depth:g}",
                        messages=[Message(role="user", content=content)],
                        gold=answer,
                    )
                )
        return items

    def judge(self, item: AskedItem, answer: AnswerColumns) -> Judgment:
        """Return whether the answer has the expected words."""
        expected, response = (
            _GROUPED.sub(lambda number: re.sub(r"\D", "", number[0]), spell_without_punctuation(text))
            for text in (item.gold, answer["response"])
        )
        is_there = any(
            not joins(expected[0], response[: match.start()][-1:])
            and not joins(expected[-1], response[match.end() :][:1])
            for match in re.finditer(re.escape(expected) or "(?!)", response)
        )
        return Judgment(correct=is_there, prediction=answer["response"])

    def searched_texts(self, table: pa.Table) -> list[str]:
        """Return the questions alone: the notes are each other's."""
        return [str(text).rsplit("Question: ", 1)[-1] for text in table["text"].to_pylist()]


FORM = LongContext()


def _fill(place: int, sizes: list[int], room: int) -> list[int]:
    """Return the numbers of other facts, in turn, as many as fit into a number of tokens."""
    others: list[int] = []
    for step in count(1):
        other = (place + step) % len(sizes)
        if other == place:
            continue
        room -= sizes[other]
        if room < 0:
            break
        others.append(other)
    return others
