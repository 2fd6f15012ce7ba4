"""A served model as an engine: the completions of an OpenAI-compatible server, asked with token ids.

vLLM, and what runs on it (KServe's runtime, SageMaker's containers), takes prompts as token ids and echoes their
log-probabilities; so a served model is asked the very tokens that a model in memory is.
"""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from mixtune.errors import ModelError
from mixtune.http_post import read_authorization, send_json
from mixtune.inference.engine import Completion, Request, Sampling, Scores, Tokenizer, check_finite
from mixtune.inference.heartbeat import beat
from mixtune.settings.foreign import JsonObject
from mixtune.settings.inference import EndpointSettings

TRIES = 5
TIMEOUT_SECONDS = 600
Item = TypeVar("Item")
Answer = TypeVar("Answer")


class EndpointEngine:
    """An engine over HTTP."""

    def __init__(self, settings: EndpointSettings, tokenizer: Tokenizer, *, max_length: int) -> None:
        """Name a server; the base model's tokenizer is for servers that answer in text alone.

        Raises:
            ConfigError: There is no key where one should be.
        """
        self.settings, self.tokenizer, self.max_length = settings, tokenizer, max_length
        self._headers = read_authorization(settings.key_path, "endpoint")

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """Return log-probabilities of continuations; see `Engine`."""
        pairs = [(request, choice) for request in requests for choice in range(len(request.continuations))]
        values = iter(self._ask_each(self._score_one, pairs))
        scores = []
        for request in requests:
            logprobs, seconds = zip(*(next(values) for _ in request.continuations), strict=True)
            check_finite(logprobs)
            longest = len(request.context) + max(map(len, request.continuations))
            scores.append(Scores(logprobs=logprobs, truncated=longest >= self.max_length, latency_seconds=sum(seconds)))
        return scores

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, sampling: Sampling | None = None
    ) -> list[Completion]:
        """Return a continuation per prompt; see `Engine`."""
        room = max(1, self.max_length - max_new_tokens)
        common: JsonObject = {"max_tokens": max_new_tokens, "temperature": 0}
        seeds: Sequence[int | None] = [None] * len(prompts)
        if sampling:
            common |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
            common["stop_token_ids"] = sorted(sampling.stop_ids)
            seeds = sampling.seeds()

        def answer(pair: tuple[Sequence[int], int | None]) -> Completion:
            prompt, seed = pair
            started = time.perf_counter()
            content = {**common, "skip_special_tokens": False, "return_token_ids": True}
            choice = self._complete(prompt[-room:], {**content, **({} if seed is None else {"seed": seed})})
            ids = choice.get("token_ids") or self.tokenizer(choice["text"], add_special_tokens=False)["input_ids"]
            ended = choice.get("finish_reason") != "length"
            if ended and ids and ids[-1] == self.tokenizer.eos_token_id:
                ids = ids[:-1]
            return Completion(
                token_ids=tuple(ids),
                truncated=not ended or len(prompt) > room,
                latency_seconds=time.perf_counter() - started,
            )

        return self._ask_each(answer, list(zip(prompts, seeds, strict=True)))

    def _score_one(self, pair: tuple[Request, int]) -> tuple[float, float]:
        """Return the log-probability of one continuation, and the seconds that it took."""
        request, choice = pair
        started, tokens = time.perf_counter(), request.continuations[choice]
        whole = (request.context + tokens)[-(self.max_length - 1) :]
        answer = self._complete(whole, {"max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1})
        echoed = (answer.get("logprobs") or {}).get("token_logprobs") or []
        count = min(len(tokens), len(whole) - 1)
        values = echoed[len(whole) - count : len(whole)]
        if len(values) != count or any(value is None for value in values):
            way = "serve with vLLM, or leave out general_nll, multiple choice and ranked labels"
            raise ModelError(f"{self.settings.url}: the server does not echo a prompt's log-probabilities; {way}")
        return float(sum(values)), time.perf_counter() - started

    def _complete(self, prompt: Sequence[int], content: JsonObject) -> JsonObject:
        """Return the first choice of a completion.

        Raises:
            ModelError: The server refuses, or does not answer. The key is never in the message.
        """
        url = f"{self.settings.url.rstrip('/')}/completions"
        content = {"model": self.settings.model, "prompt": list(prompt), **content}
        reply = send_json(url, content, self._headers, tries=TRIES, timeout_seconds=TIMEOUT_SECONDS)
        if not reply.is_ok:
            problem = reply.problem or f"HTTP {reply.status}"
            raise ModelError(f"{url}: {problem} after {TRIES} tries; check URL, model {self.settings.model!r} and key")
        try:
            choice: JsonObject = json.loads(reply.body)["choices"][0]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ModelError(f"{url}: its answer is no completion ({error}); check the URL") from error
        return choice

    def _ask_each(self, ask: Callable[[Item], Answer], items: Sequence[Item]) -> list[Answer]:
        return ask_each(ask, items, self.settings.concurrency, f"{self.settings.url}: requests of this part answered")


def ask_each(ask: Callable[[Item], Answer], items: Sequence[Item], at_once: int, progress: str) -> list[Answer]:
    """Return the answers to items in their order, several asked at once; now and then print how many there are."""
    answers: list[Answer] = []
    with ThreadPoolExecutor(at_once) as pool:
        for answer in pool.map(ask, items):
            answers.append(answer)
            beat(f"{progress}: {len(answers)} of {len(items)}")
    return answers
