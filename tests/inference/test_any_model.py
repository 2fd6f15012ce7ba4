"""Scores and answers of models that pad or remember in their own way are those of the plain model."""

import sys
from pathlib import Path

import pytest
import torch

from mixtune.inference.engine import Request
from mixtune.inference.transformers_engine import TransformersEngine
from mixtune.interpolation import auto_class

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from tiny_configs import tiny_config

PADS_NOT = "padding moves its answers"
CACHES_NOT = "its cache is of no use"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("llama", []),
        ("mamba2", []),
        ("falcon_mamba", []),
        ("marian", [PADS_NOT]),
        ("deepseek_v4", [PADS_NOT]),
        ("openai-gpt", [CACHES_NOT]),
        ("recurrent_gemma", [CACHES_NOT]),
        ("moshi", [CACHES_NOT]),
        ("rwkv", [PADS_NOT, CACHES_NOT]),
        ("xlstm", [PADS_NOT, CACHES_NOT]),
    ],
)
def test_a_model_is_asked_in_batches_as_alone(kind: str, said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config(kind)
    torch.manual_seed(5)
    model = auto_class(config).from_config(config).eval()
    for value in model.parameters():
        value.data.mul_(3 if value.ndim > 1 else 1)  # so that layers tell their inputs apart
    draw = torch.Generator().manual_seed(0)
    prompts = [torch.randint(5, 100, (size,), generator=draw).tolist() for size in (9, 5, 13, 9)]

    @torch.inference_mode()
    def logits(ids: list[int]) -> torch.Tensor:
        values: torch.Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        return values

    def answer(prompt: list[int]) -> tuple[int, ...]:
        ids = list(prompt)
        for _ in range(5):
            ids.append(int(logits(ids)[-1].argmax()))
        return tuple(ids[len(prompt) :])

    engine = TransformersEngine(model, max_length=64, stop_ids=frozenset(), batch_tokens=4096)
    assert [tuple(item.token_ids) for item in engine.generate(prompts, 5)] == [answer(prompt) for prompt in prompts]
    requests = [
        Request(context=tuple(prompt[:-2]), continuations=(tuple(prompt[-2:]), (7, 8, 9))) for prompt in prompts
    ]
    for request, scores in zip(requests, engine.score(requests), strict=True):
        for tokens, logprob in zip(request.continuations, scores.logprobs, strict=True):
            rows = logits([*request.context, *tokens]).log_softmax(-1)[len(request.context) - 1 : -1]
            assert logprob == pytest.approx(
                sum(float(row[token]) for row, token in zip(rows, tokens, strict=True)), abs=1e-3
            )
    shown = capsys.readouterr().out
    assert [text for text in (PADS_NOT, CACHES_NOT) if text in shown] == said
