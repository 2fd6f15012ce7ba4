"""An engine as lm-eval's model, for engines that have no Hugging Face model in memory: vLLM and served ones."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from mixtune.errors import ConfigError
from mixtune.inference.engine import Engine, Request, Tokenizer
from mixtune.inference.prompts import plain_tokenizer

MAX_NEW_TOKENS = 256
"""Of an answer where a task does not say; lm-eval's default."""
_Pair = tuple[tuple[str, str], list[int], list[int]]
"""A context and its continuation as texts, then the tokens of each."""


class EngineModel(TemplateLM):
    """lm-eval's view of an engine; contexts and continuations are encoded by lm-eval itself."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        """Wrap an engine."""
        super().__init__()
        self.engine, self.tokenizer = engine, tokenizer

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.tokenizer.eos_token_id or 0

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
        """Return the tokens of a text; a text that begins with the special first token gets no second one."""
        bos = self.tokenizer.bos_token
        special = not (bos and string.startswith(bos)) if add_special_tokens is None else add_special_tokens
        return list(self.tokenizer(string, add_special_tokens=special)["input_ids"])

    def _loglikelihood_tokens(self, requests: list[_Pair], **_: object) -> list[tuple[float, bool]]:
        """Return log-probabilities in nats, and whether greedy decoding gives the continuation."""
        places: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, (_texts, context, _tokens) in enumerate(requests):
            places[tuple(context)].append(place)
        grouped = [
            Request(context=context, continuations=tuple(tuple(requests[place][2]) for place in group))
            for context, group in places.items()
        ]
        longest = max((len(tokens) for _texts, _context, tokens in requests), default=1)
        answers = self.engine.generate([request.context for request in grouped], longest)
        results: dict[int, tuple[float, bool]] = {}
        for group, request, scores, answer in zip(
            places.values(), grouped, self.engine.score(grouped), answers, strict=True
        ):
            for place, tokens, logprob in zip(group, request.continuations, scores.logprobs, strict=True):
                results[place] = (logprob, answer.token_ids[: len(tokens)] == tokens)
        return [results[place] for place in range(len(requests))]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-probabilities of whole texts, in windows of the model's length."""
        return [self._score_text(str(request.args[0])) for request in requests]

    def _score_text(self, text: str) -> float:
        tokens, first = self.tok_encode(text, add_special_tokens=False), self.prefix_token_id
        windows = get_rolling_token_windows(tokens, first, max_seq_len=self.engine.max_length - 1, context_len=1)
        pieces = [
            Request(context=tuple(context), continuations=(tuple(continuation),))
            for context, continuation in map(make_disjoint_window, windows)
        ]
        return sum(scores.logprobs[0] for scores in self.engine.score(pieces))

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return greedy answers up to a task's stop texts; a ConfigError where the task samples."""
        texts = {}
        by_length: dict[int, list[int]] = defaultdict(list)
        for place, request in enumerate(requests):
            by_length[int(request.args[1].get("max_gen_toks", MAX_NEW_TOKENS))].append(place)
            if request.args[1].get("do_sample") and request.args[1].get("temperature", 1) > 0:
                raise ConfigError(f"lm-eval task {request.task_name}: it samples its answers; such tasks are not run")
        for length, group in by_length.items():
            prompts = [self.tok_encode(str(requests[place].args[0])) for place in group]
            for place, answer in zip(group, self.engine.generate(prompts, length), strict=True):
                text = self.tokenizer.decode(answer.token_ids, skip_special_tokens=True)
                texts[place] = _cut(text, requests[place].args[1].get("until") or ())
        return [texts[place] for place in range(len(requests))]


def _cut(text: str, stops: str | Sequence[str]) -> str:
    """Return a text up to the first of its stop texts."""
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.split(stop, 1)[0] if stop else text
    return text


def lm_eval_model(engine: Engine, tokenizer: Tokenizer, batch_size: int) -> Any:
    """Return lm-eval's own engine over a model in memory, or else `EngineModel`."""
    plain = plain_tokenizer(tokenizer)
    model = getattr(engine, "model", None)
    if model is None:
        return EngineModel(engine, plain)
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=model, tokenizer=plain, batch_size=batch_size)
