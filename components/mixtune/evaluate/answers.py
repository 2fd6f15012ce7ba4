"""What engines answer, and the records that they answer, as columns of samples."""

import re
from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
import pyarrow as pa

from mixtune.artifacts.samples import prompt_hash
from mixtune.chat.template import without_renaming
from mixtune.inference.engine import Engine, Scores, Tokenizer
from mixtune.inference.prompts import encode, encode_pairs, render_prompt
from mixtune.inference.thoughts import Answer, split_thought
from mixtune.records import Record

_NEXT_TURN = re.compile(r"\n[\s*#]*(?:(?:Question|Problem|Q|User|Human)\b[ \d]*\**:|(?:user|assistant)\n)")
"""A line with which a model that does not stop goes on to another question."""


class AnswerColumns(TypedDict):
    """How a prompt was answered."""

    prompt_hash: str
    response: str
    num_tokens: int
    latency_seconds: float
    truncated: bool
    thought: str
    unfinished: bool


class ChoiceColumns(TypedDict):
    """Which of several continuations is the most probable."""

    prompt_hash: str
    prediction: str
    gold: str
    correct: float
    choice_logprobs: tuple[float, ...]
    nll: float
    num_tokens: int
    latency_seconds: float
    truncated: bool


class RecordColumns(TypedDict):
    """Which record it is."""

    item_id: str
    cluster: str
    text: str


def generate(
    engine: Engine,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    max_new_tokens: int,
    *,
    plain: bool = False,
    keep_control_tokens: bool = False,
) -> list[AnswerColumns]:
    """Return the answers to prompts, thoughts apart, of at most so many tokens, their thoughts included.

    `plain` prompts get the tokenizer's special tokens; others are rendered, and have the chat template's written out.
    Answers keep control tokens, such as those of calls, where these are kept.
    """
    encoded = [
        encode_pairs(tokenizer, prompt, [""])[0][0] if plain else encode(tokenizer, prompt) for prompt in prompts
    ]
    columns = []
    for prompt, completion in zip(
        map(without_renaming, prompts), engine.generate(encoded, max_new_tokens), strict=True
    ):
        answer = read_answer(tokenizer, completion.token_ids, "" if plain else prompt, keep=keep_control_tokens)
        columns.append(
            AnswerColumns(
                prompt_hash=prompt_hash(prompt),
                response=answer.text,
                num_tokens=len(completion.token_ids),
                latency_seconds=completion.latency_seconds,
                truncated=completion.truncated,
                thought=answer.thought,
                unfinished=answer.unfinished,
            )
        )
    return columns


def without_next_turn(text: str, is_answered: Callable[[str], bool]) -> str:
    """Return an answer up to a line that opens another question, once it has answered; before that, one is restated."""
    places = (match.start() for match in _NEXT_TURN.finditer(text))
    return next((text[:place] for place in places if is_answered(text[:place])), text)


def is_prompt_cut(engine: Engine, tokenizer: Tokenizer, prompt: str, max_new_tokens: int) -> bool:
    """Return whether a plain prompt is longer than what a model takes before an answer of so many tokens."""
    return len(encode_pairs(tokenizer, prompt, [""])[0][0]) > engine.max_length - max_new_tokens


def read_answer(tokenizer: Tokenizer, token_ids: Sequence[int], prompt: str, *, keep: bool) -> Answer:
    """Return what tokens say, thoughts apart; `keep` the control tokens in the answer."""
    written = tokenizer.decode(token_ids, skip_special_tokens=False)
    answer = split_thought(written, prompt)
    if keep:
        return answer
    if answer.text == written:  # no thought
        return answer._replace(text=tokenizer.decode(token_ids, skip_special_tokens=True))
    control = [token for token in tokenizer.all_special_tokens if token]
    text = re.sub("|".join(map(re.escape, control)), "", answer.text) if control else answer.text
    return answer._replace(text=text.strip())


def answer_records(
    engine: Engine, tokenizer: Tokenizer, records: Sequence[Record], max_new_tokens: int
) -> list[AnswerColumns]:
    """Return the model's own answers to records."""
    return generate(engine, tokenizer, [render_prompt(tokenizer, record) for record in records], max_new_tokens)


def choose(
    prompt: str, scores: Scores, names: Sequence[str], gold: int, also_right: Sequence[int] = ()
) -> ChoiceColumns:
    """Return the choice of a model that scored a continuation for each name; `gold` is the right one's index.

    `nll` is the negative log of the share among all of the gold continuation and those that are also right, in nats.
    """
    best, right = int(np.argmax(scores.logprobs)), [gold, *also_right]
    return ChoiceColumns(
        prompt_hash=prompt_hash(prompt),
        prediction=names[best],
        gold=names[gold],
        correct=float(best in right),
        choice_logprobs=scores.logprobs,
        nll=float(np.logaddexp.reduce(scores.logprobs) - np.logaddexp.reduce([scores.logprobs[i] for i in right])),
        num_tokens=1,
        latency_seconds=scores.latency_seconds,
        truncated=scores.truncated,
    )


def record_columns(record: Record, item_id: str = "") -> RecordColumns:
    """Return the columns of a record, without its answer; the item's id is the record's, or another."""
    text = "\n".join(message["content"] for message in record["messages"] if message["role"] == "user")
    return RecordColumns(item_id=item_id or record["id"], cluster=record.get("group", ""), text=text)


def latency_scores(table: pa.Table) -> dict[str, float]:
    """Return latency of generated answers at the batch size that was used, and the tokens of an answer per second."""
    latency, tokens = table["latency_seconds"].to_numpy(), table["num_tokens"].to_numpy()
    return {
        "latency_p50_seconds": float(np.quantile(latency, 0.5)),
        "latency_p95_seconds": float(np.quantile(latency, 0.95)),
        "tokens_per_second": float(tokens.sum() / latency.sum()) if latency.sum() > 0 else 0.0,
        "truncated_ratio": float(np.mean(table["truncated"].to_pylist())),
        "unfinished_ratio": float(np.mean(table["unfinished"].to_pylist())),
    }
