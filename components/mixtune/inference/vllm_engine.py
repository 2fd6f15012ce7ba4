"""Scoring and generating with vLLM on GPUs: one request per multiple-choice question.

vLLM does not read its prefix cache for requests that ask for log-probabilities of the prompt. So one-token choices are
read from the first generated position, where the cache is read and the shots of a subject are computed once; only
longer continuations, and choices outside the most probable tokens, cost a request of their own.
"""

import importlib.util
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mixtune.artifacts.model import AdapterConfig
from mixtune.errors import ModelError
from mixtune.inference.engine import Completion, Request, Sampling, Scores, check_finite

if TYPE_CHECKING:
    from vllm import LLM, RequestOutput, SamplingParams
    from vllm.lora.request import LoRARequest

TOP_LOGPROBS = 20
"""Most probable tokens whose log-probabilities come with a generated one: vLLM's own default maximum."""
MIN_CHANGE = 1e-4
"""Nats by which an adapter must change some log-probability of the probe at least."""


class VllmEngine:
    """An engine over a vLLM model."""

    def __init__(
        self,
        llm: "LLM",
        make_params: Callable[..., "SamplingParams"],
        *,
        max_length: int,
        stop_ids: frozenset[int],
        adapter: "LoRARequest | None" = None,
    ) -> None:
        """Wrap a loaded model; `make_params` is `vllm.SamplingParams`, `max_length` in tokens."""
        self.llm, self.make_params, self.adapter = llm, make_params, adapter
        self.max_length, self.stop_ids = max_length, stop_ids
        self._first = make_params(temperature=0, max_tokens=1, logprobs=TOP_LOGPROBS)

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """Return log-probabilities of continuations; see `Engine`."""
        started = time.perf_counter()
        logprobs: dict[tuple[int, int], float] = {}  # by request and continuation
        short = [index for index, request in enumerate(requests) if all(len(ids) == 1 for ids in request.continuations)]
        contexts = [requests[index].context[-(self.max_length - 1) :] for index in short]
        for index, output in zip(short, self._run(contexts, self._first), strict=True):
            likely = output.outputs[0].logprobs[0]
            for choice, (token,) in enumerate(requests[index].continuations):
                if token in likely:
                    logprobs[index, choice] = float(likely[token].logprob)
        self._score_whole(requests, logprobs)
        check_finite(logprobs.values())
        share = (time.perf_counter() - started) / max(1, len(requests))
        scores = []
        for index, request in enumerate(requests):
            length = len(request.context) + max(map(len, request.continuations))
            room = self.max_length if index in short else self.max_length - 1  # of a whole prompt, see _score_whole
            values = tuple(logprobs[index, choice] for choice in range(len(request.continuations)))
            scores.append(Scores(logprobs=values, truncated=length > room, latency_seconds=share))
        return scores

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, sampling: Sampling | None = None
    ) -> list[Completion]:
        """Return a continuation per prompt; see `Engine`."""
        room = max(1, self.max_length - max_new_tokens)
        stop_ids = self.stop_ids | (sampling.stop_ids if sampling else frozenset())
        common = {"max_tokens": max_new_tokens, "stop_token_ids": sorted(stop_ids), "detokenize": False}
        params: SamplingParams | list[SamplingParams] = self.make_params(temperature=0, **common)
        if sampling:
            common |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
            params = [self.make_params(seed=seed, **common) for seed in sampling.seeds()]
        started = time.perf_counter()
        outputs = self._run([tuple(prompt[-room:]) for prompt in prompts], params)
        seconds = time.perf_counter() - started
        completions = []
        for prompt, output in zip(prompts, outputs, strict=True):
            ids, metrics = list(output.outputs[0].token_ids), output.metrics
            while ids and ids[-1] in stop_ids:
                ids.pop()
            latency = getattr(metrics, "last_token_ts", 0.0) - getattr(metrics, "scheduled_ts", 0.0)
            truncated = output.outputs[0].finish_reason == "length" or len(prompt) > room
            completions.append(
                Completion(
                    token_ids=tuple(map(int, ids)),
                    truncated=truncated,
                    latency_seconds=latency if latency > 0 else seconds,
                )
            )
        return completions

    def check_adapter(self, probe: Sequence[int]) -> None:
        """Make sure that the adapter changes what the model says.

        Raises:
            ModelError: With it and without it, the most probable next tokens are the same and equally probable.
        """
        plain, tuned = (
            {token: float(entry.logprob) for token, entry in output.outputs[0].logprobs[0].items()}
            for adapter in (False, True)
            for output in self._run([tuple(probe)], self._first, adapter=adapter)
        )
        if all(token in plain and abs(plain[token] - value) < MIN_CHANGE for token, value in tuned.items()):
            raise ModelError(
                "the adapter changes no log-probability under vLLM; it was not trained, or is not for this base model"
            )

    def _score_whole(self, requests: Sequence[Request], logprobs: dict[tuple[int, int], float]) -> None:
        """Add the missing entries, from the log-probabilities of whole prompts."""
        missing = [
            (index, choice)
            for index, request in enumerate(requests)
            for choice in range(len(request.continuations))
            if (index, choice) not in logprobs
        ]
        # one token less than the length: vLLM generates one
        prompts = [
            (requests[index].context + requests[index].continuations[choice])[-(self.max_length - 1) :]
            for index, choice in missing
        ]
        params = self.make_params(temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        for (index, choice), ids, output in zip(missing, prompts, self._run(prompts, params), strict=True):
            count = min(len(requests[index].continuations[choice]), len(ids) - 1)
            rows = output.prompt_logprobs[-count:]
            values = (row[token].logprob for row, token in zip(rows, ids[-count:], strict=True))
            logprobs[index, choice] = float(sum(values))

    def _run(
        self, prompts: Sequence[tuple[int, ...]], params: object, *, adapter: bool = True
    ) -> list["RequestOutput"]:
        if not prompts:
            return []
        inputs = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        lora = self.adapter if adapter else None
        return list(self.llm.generate(inputs, params, lora_request=lora, use_tqdm=False))


def load_vllm(
    weights: Path, adapter: Path | None, *, dtype: str, gpus: int, max_length: int, stop_ids: frozenset[int]
) -> VllmEngine:
    """Load a model into vLLM, with an adapter of PEFT or without; several GPUs share it (tensor parallel).

    Raises:
        ModelError: vLLM is not installed.
    """
    try:
        from vllm import LLM, SamplingParams
        from vllm.lora.request import LoRARequest
    except ImportError as error:  # it is not here, or a library that it needs is not
        raise ModelError(f"engine vllm: {error}; use an image that has vLLM, or engine transformers") from error

    room = AdapterConfig.read(str(adapter)).room if adapter else 0
    llm = LLM(
        model=str(weights),
        dtype=dtype,
        tensor_parallel_size=gpus,
        max_model_len=max_length,
        enable_prefix_caching=True,
        max_logprobs=TOP_LOGPROBS,
        trust_remote_code=False,
        load_format="safetensors",
        seed=0,
        **({"max_lora_rank": room, "enable_lora": True} if room else {}),
    )
    lora = LoRARequest("candidate", 1, str(adapter)) if adapter else None
    return VllmEngine(llm, SamplingParams, max_length=max_length, stop_ids=stop_ids, adapter=lora)


def takes_plain(reason: str) -> str:
    """Return what is said of an adapter that vLLM does not take, with the ways out."""
    way = "train with lora_options.merge, and the merged weights are asked, or take engine transformers"
    return f"engine vllm takes plain LoRA, and {reason}; {way}"


def check_installed() -> None:
    """Raise a ModelError where vLLM is not installed."""
    if not importlib.util.find_spec("vllm"):
        raise ModelError("engine vllm: it is not installed here; use an image that has vLLM, or engine transformers")
