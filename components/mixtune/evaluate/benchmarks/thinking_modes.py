"""Thinking modes: whether a model thinks where its template asks for a thought, and answers at once where not."""

from dataclasses import dataclass

from mixtune import benchmark_files
from mixtune.errors import ConfigError
from mixtune.evaluate.answers import AnswerColumns
from mixtune.evaluate.asked import AskedForm, AskedItem, AskedOptions, Judgment, item_id, read_messages
from mixtune.inference.engine import Tokenizer
from mixtune.inference.prompts import has_thinking_switch

ON, OFF = MODES = ("on", "off")


@dataclass(frozen=True, kw_only=True)
class ThinkingOptions(AskedOptions):
    """Options of a benchmark of thinking modes: rows with a `prompt`, a `question` or `messages`."""

    max_new_tokens: int = 2048
    """Tokens of an answer at most, its thought included: one that does not end counts as wrong."""
    modes: tuple[str, ...] = MODES
    """In which modes every prompt is asked; of a template without a switch one of them, which it always has."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.modes or not set(self.modes) <= set(MODES):
            raise ConfigError(f"modes are of {', '.join(MODES)}, got {', '.join(self.modes) or 'none'}")


class ThinkingModes(AskedForm[ThinkingOptions]):
    """Every prompt in every mode; right where a thought ended and an answer followed, or none was there."""

    name, options, metric, default_limit = "thinking", ThinkingOptions, "as_asked", 0.03

    def read_items(self, options: ThinkingOptions, tokenizer: Tokenizer) -> list[AskedItem]:
        """Return every prompt in every mode.

        Raises:
            ConfigError: Both modes are asked for, and the chat template has no switch.
        """
        switch = has_thinking_switch(tokenizer)
        if len(set(options.modes)) > 1 and not switch:
            raise ConfigError(
                f"{tokenizer.name_or_path}: its chat template has no switch for thoughts (enable_thinking ...); "
                "set modes to the one that it has, on or off"
            )
        rows = benchmark_files.read_items(options.uri, options.columns)
        return [
            AskedItem(
                item_id=f"{item_id(row, number)}/{mode}",
                subject=mode,
                messages=read_messages(row, f"{options.uri} row {number}"),
                gold=mode,
                thinks=(mode == ON) if switch else None,
            )
            for mode in options.modes
            for number, row in enumerate(rows, 1)
        ]

    def judge(self, item: AskedItem, answer: AnswerColumns) -> Judgment:
        """Return whether the answer came in the mode that was asked for."""
        prediction = ON if answer["thought"].strip() else OFF
        is_whole = bool(answer["response"].strip()) and not answer["unfinished"]
        return Judgment(correct=prediction == item.gold and is_whole, prediction=prediction)


FORM = ThinkingModes()
