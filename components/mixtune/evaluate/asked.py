"""Forms whose items are asked by the chat template and whose answers a rule judges: what they have in common."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa

from mixtune import benchmark_files
from mixtune.artifacts.samples import Sample
from mixtune.benchmark_files import CONVERSATIONS, QUESTIONS, Row
from mixtune.errors import ConfigError, DataError
from mixtune.evaluate.answers import AnswerColumns, generate, latency_scores
from mixtune.evaluate.benchmarks.form import BenchmarkForm, Labels, correct, mean_measures
from mixtune.evaluate.scoring.written_calls import Value
from mixtune.inference.engine import Engine, Tokenizer
from mixtune.inference.parallel import Part, make_parts
from mixtune.inference.prompts import render
from mixtune.records import ROLES, Message, ToolCall

ITEMS_PER_PART = 128


@dataclass(frozen=True, kw_only=True)
class AskedOptions:
    """Options of a benchmark whose items are asked."""

    uri: str
    columns: dict[str, str] = field(default_factory=dict)
    """The file's columns by the usual names, where it has others."""
    max_new_tokens: int = 512
    """Tokens of an answer at most, its thought included."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is 1 or more, got {self.max_new_tokens}")


@dataclass(frozen=True, kw_only=True)
class AskedItem:
    """One item."""

    item_id: str
    subject: str
    messages: list[Message]
    gold: str = ""
    """What is right, as text."""
    tools: list[Row] = field(default_factory=list)
    thinks: bool | None = None
    """Whether the template's switch for thoughts is on or off; None: as it is."""


@dataclass(frozen=True, kw_only=True)
class Judgment:
    """The result of a rule on an answer."""

    correct: bool
    prediction: str
    measures: dict[str, float] = field(default_factory=dict)
    error: str = ""
    """Why the rule could not be applied; empty: it could."""


Options = TypeVar("Options", bound=AskedOptions)


class AskedForm(BenchmarkForm[Options], Generic[Options]):
    """Items that are asked. A subclass reads them and judges their answers."""

    keeps_control_tokens: bool = False
    """Answers are judged with the control tokens that the model wrote."""

    def read_items(self, options: Options, tokenizer: Tokenizer) -> list[AskedItem]:
        """Return all items."""
        raise NotImplementedError

    def judge(self, item: AskedItem, answer: AnswerColumns) -> Judgment:
        """Return whether an answer, its thought apart, is right."""
        raise NotImplementedError

    def plan(self, axis: str, options: Options, tokenizer: Tokenizer, limit: int) -> list[Part]:
        """Return the items, taken evenly from their subjects; a DataError where there is none, or one twice."""
        items = self.read_items(options, tokenizer)
        ids = [item.item_id for item in items]
        if not items:
            raise DataError(f"{options.uri}: no item in it")
        if len(set(ids)) < len(ids):
            twice = next(name for place, name in enumerate(ids) if name in ids[:place])
            raise DataError(f"{options.uri}: item {twice!r} is there twice; every item needs an id of its own")
        items = benchmark_files.stratified_subset(items, lambda item: item.subject, limit)
        score = partial(self.ask, axis, tokenizer, options.max_new_tokens)
        return make_parts(axis, items, ITEMS_PER_PART, score, new_tokens=options.max_new_tokens)

    def ask(
        self, axis: str, tokenizer: Tokenizer, max_new_tokens: int, items: Sequence[AskedItem], engine: Engine
    ) -> list[Sample]:
        """Answer items and judge the answers."""
        prompts = [render(tokenizer, item.messages, item.tools or None, thinks=item.thinks) for item in items]
        answers = generate(engine, tokenizer, prompts, max_new_tokens, keep_control_tokens=self.keeps_control_tokens)
        samples = []
        for item, answer in zip(items, answers, strict=True):
            judgment = self.judge(item, answer)
            samples.append(
                Sample(
                    axis=axis,
                    subject=item.subject,
                    item_id=item.item_id,
                    text="\n".join(message["content"] for message in item.messages if message["role"] == "user"),
                    **answer,
                    prediction=judgment.prediction,
                    gold=item.gold,
                    correct=float(judgment.correct),
                    error=judgment.error,
                    measures=judgment.measures,
                )
            )
        return samples

    def summarize(self, table: pa.Table, labels: Labels) -> dict[str, float]:
        """Return the share of right answers, over all and by subject, the means of the measures, and how it came."""
        right, subjects = correct(table), np.array(table["subject"].to_pylist())
        scores = {self.metric: float(right.mean())}
        for name in np.unique(subjects):
            scores[f"{self.metric}/{name}"] = float(right[subjects == name].mean())
        return {**scores, **mean_measures(table), **latency_scores(table)}


def read_messages(row: Row, place: str) -> list[Message]:
    """Return what a row asks: a conversation, or a usual column's text behind its passage; a `system` prompt first.

    Raises:
        DataError: It asks nothing, several things one after another, or something that is no text.
    """
    value = next((row[name] for name in (*CONVERSATIONS, *QUESTIONS) if row.get(name)), None)
    if isinstance(value, list) and value and isinstance(value[0], list | str):  # BFCL, MT-Bench: a list of turns
        if len(value) > 1 or row.get("history"):
            raise DataError(
                f"{place}: {len(value)} turns that are asked one after another; items of one turn are asked"
            )
        value = value[0]
    if row.get("history"):
        raise DataError(f"{place}: what was said before is not read from 'history'; write it into 'messages'")
    if isinstance(value, str) and value.strip():
        value = [Message(role="user", content="\n\n".join([*benchmark_files.passages(row, place), value]))]
    if not isinstance(value, list) or not value or not all(isinstance(message, dict) for message in value):
        raise DataError(f"{place}: no messages, nor a text in {', '.join(QUESTIONS)}; there are {', '.join(row)}")
    messages = [_read_message(message, place) for message in value]
    if messages[-1]["role"] == "assistant":
        raise DataError(f"{place}: its last message is the assistant's, which is what is asked for; leave it out")
    system = row.get("system") or row.get("system_prompt")
    is_filled = bool(system) and system == system  # NaN: an empty cell
    return [_read_message({"role": "system", "content": system}, place), *messages] if is_filled else messages


def _read_message(turn: Row, place: str) -> Message:
    """Return one turn, as OpenAI or ShareGPT have it."""
    role = str(turn.get("role") or turn.get("from"))
    content = turn.get("content") or turn.get("value") or ""
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    role = {"human": "user", "gpt": "assistant"}.get(role, role)
    if role not in ROLES or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{place}: a message has a role ({', '.join(ROLES)}) and a text; got {str(turn)[:200]}")
    message = Message(role=role, content="".join(map(str, texts)))
    if calls := [call.get("function", call) for call in read_objects(turn.get("tool_calls") or [], place)]:
        arguments = [read_object(call.get("arguments"), place) for call in calls]
        names = [str(benchmark_files.need(call, "name", place, 1)) for call in calls]
        message["tool_calls"] = [ToolCall(name=name, arguments=v) for name, v in zip(names, arguments, strict=True)]
    return message


def read_objects(value: Value, place: str) -> list[Row]:
    """Return a list of objects, given as such, as JSON, or one alone; a DataError where it is something else."""
    value = read_json(value, place)
    value = [value] if isinstance(value, dict) else value
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DataError(f"{place}: a list of objects is needed, got {value!r}")
    return value


def read_object(value: Value, place: str) -> Row:
    """Return an object, given as such or as JSON; a DataError where it is something else."""
    value = read_json(value or {}, place)
    if not isinstance(value, dict):
        raise DataError(f"{place}: an object is needed, got {value!r}")
    return value


def read_json(value: Value, place: str) -> Value:
    """Return a value that may be written as JSON; a DataError where a text is none."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise DataError(f"{place}: {value!r} is not JSON ({error})") from error


def item_id(row: Row, number: int) -> str:
    """Return a row's own id, else its number."""
    return str(next((row[name] for name in ("id", "key", "item_id") if row.get(name) is not None), number))
