"""The proof: a record is rendered, masked and tokenized as `mix_shard` will do it, by the same code.

What comes out holds the control tokens that the chat template wrote and no other, and something to learn that is the
text to learn. A record for which this fails is refused here, before anything else is spent on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixtune.chat.encoding import Disagreement
from mixtune.chat.template_files import read_template_file
from mixtune.chat.tokenizer import ChatTokenizer, Tokenized
from mixtune.records import Record
from mixtune.settings.chat import ChatSettings
from mixtune.settings.mix import TokenSettings


@dataclass(frozen=True)
class Proof:
    """The outcome for one record."""

    problem: str = ""
    """Why the record is refused; empty: it is proved."""
    num_tokens: int = 0
    """Of all its examples."""
    num_control: int = 0
    """Control ids in them: those that the template put there."""
    lost: frozenset[str] = frozenset()
    """Parts of it that will not be learned, as the settings allow."""


class Prover:
    """The tokenizer and chat template of a model folder, for the proof."""

    def __init__(self, folder: str, chat: ChatSettings | None = None) -> None:
        """Load them; a folder without a fast tokenizer or a chat template is a ModelError."""
        chat = chat or ChatSettings()
        self._template = read_template_file(chat.chat_template_uri)
        self._settings, self._folder = TokenSettings(**vars(chat)), folder
        self.tokenizer = self._load(fast=True)

    def prove(self, records: Sequence[Record]) -> list[Proof]:
        """Render and tokenize records, and look at what came out."""
        try:
            examples = list(self.tokenizer.tokenize_batch(records))
        except Disagreement:
            self.tokenizer = self._load(fast=False)
            examples = list(self.tokenizer.tokenize_batch(records))
        of_record: list[list[Tokenized]] = []
        for example in examples:
            if example.number:
                of_record[-1].append(example)
            else:
                of_record.append([example])
        return list(map(_conclude, of_record))

    def _load(self, *, fast: bool) -> ChatTokenizer:
        return ChatTokenizer(Path(self._folder), self._settings, self._template, fast=fast)


def _conclude(examples: list[Tokenized]) -> Proof:
    """Return the outcome for a record; one of its examples that is refused is the record's."""
    if problem := next((example.problem for example in examples if example.problem), ""):
        return Proof(problem=problem)
    num_tokens = sum(len(example.input_ids) for example in examples)
    return Proof("", num_tokens, sum(example.num_control for example in examples), examples[0].lost)
