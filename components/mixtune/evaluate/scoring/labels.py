"""The labels of a customer's pool: how answers say them, and which of them a generated text says."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from mixtune.errors import DataError
from mixtune.evaluate.scoring.label_names import NameTable, spell_exactly
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
        counts = Counter(spell_exactly(label) for label in self.labels)
        if alike := [label for label in self.labels if counts[spell_exactly(label)] > 1]:
            raise DataError(
                f"labels {alike[0]!r} and {alike[1]!r} are written alike but for spaces or the encoding of accents; "
                "give them one spelling"
            )

    @cached_property
    def names(self) -> NameTable:
        """What says a label: its own name, its answer, its aliases; of two that are alike, the first of these."""
        own = {spell_exactly(label): label for label in self.labels}
        answers = {spell_exactly(text): label for label, text in zip(self.labels, self.answers, strict=False)}
        return NameTable({spell_exactly(name): label for name, label in self.aliases.items()} | answers | own)

    def parse(self, text: str) -> list[str]:
        """Return the labels that a text names, sorted; none if it names none, or several where a record has one."""
        if self.separator:
            return sorted({label for piece in text.split(self.separator) if (label := self.names.look_up(piece))})
        for candidate in (text, text.strip().split("\n", 1)[0]):
            if label := self.names.look_up(candidate):
                return [label]
        labels = self.names.find(text)
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
    single = not separator and all(len({text.strip() for text in texts}) == 1 for texts in answers.values())
    texts = tuple(answers[label].most_common(1)[0][0] for label in labels) if single else ()
    return LabelSet(labels=labels, answers=texts, separator=separator, aliases=dict(aliases))


def split_label(text: str, separator: str) -> list[str]:
    """Return the labels in a record's label field."""
    return [piece.strip() for piece in text.split(separator)] if separator else [text]
