"""The labels of a customer's pool: how answers say them, and which of them a generated text says."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from mixtune.errors import DataError
from mixtune.ngrams import words
from mixtune.records import Record, prompt_and_answer, where


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """All labels, in order."""

    labels: tuple[str, ...]
    answers: tuple[str, ...]
    """The one answer text of each label; empty where a label has several."""
    separator: str = ""
    """What joins the labels of a record that has several; empty: one label per record."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Further names of labels."""

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.aliases.values()) - set(self.labels)):
            raise DataError(
                f"alias of {unknown[0]!r}: no record has that label; labels are {', '.join(self.labels[:20])}"
            )

    @cached_property
    def names(self) -> dict[str, str]:
        """Label by normalised name: its own, its answer's, its aliases'."""
        labels = {normalise(alias): label for alias, label in self.aliases.items()}
        labels |= {normalise(answer): label for label, answer in zip(self.labels, self.answers, strict=False)}
        return labels | {normalise(label): label for label in self.labels}

    def parse(self, text: str) -> list[str]:
        """Return the labels that a text says, sorted; none if it says none, or several where a record has one."""
        if self.separator:
            pieces = [normalise(piece) for piece in text.split(self.separator)]
            return sorted({self.names[piece] for piece in pieces if piece in self.names})
        for candidate in (normalise(text), normalise(text.strip().split("\n", 1)[0])):
            if candidate in self.names:
                return [self.names[candidate]]
        sentence = f" {normalise(text)} "
        labels = {label for name, label in self.names.items() if name and f" {name} " in sentence}
        return sorted(labels) if len(labels) == 1 else []

    def join(self, labels: list[str]) -> str:
        """Return labels as a sample's column has them: the one label, or a JSON list where records have several."""
        return json.dumps(labels) if self.separator else (labels[0] if labels else "")

    def gold(self, record: Record) -> list[str]:
        """Return the true labels of a record, sorted."""
        return sorted(split_label(record["label"], self.separator))


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Records whose labels the model is to give."""

    records: Sequence[Record]
    labels: LabelSet
    max_new_tokens: int
    """Tokens of a generated answer at most; 0: the labels are ranked by log-probability."""


def find_labels(records: list[Record], separator: str, aliases: Mapping[str, str]) -> LabelSet:
    """Return the labels of a pool's records, and the answers that say them.

    Raises:
        DataError: Fewer than two labels, or an empty one.
    """
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        for label in split_label(record["label"], separator):
            if not label:
                raise DataError(f"{where(record)}: an empty label")
            answers[label][prompt_and_answer(record)[1]["content"]] += 1
    if len(answers) < 2:
        raise DataError(f"classification needs two labels, the records have {', '.join(answers) or 'none'}")
    labels = tuple(sorted(answers))
    single = not separator and all(len(texts) == 1 for texts in answers.values())
    texts = tuple(next(iter(answers[label])) for label in labels) if single else ()
    return LabelSet(labels=labels, answers=texts, separator=separator, aliases=dict(aliases))


def split_label(text: str, separator: str) -> list[str]:
    """Return the labels in a record's label field."""
    return [piece.strip() for piece in text.split(separator)] if separator else [text]


def normalise(text: str) -> str:
    """Return a name for comparing: lower case, words only, one space between them."""
    return " ".join(words(text))
