"""Checkpoints with a vision tower, tuned on text: base, adapter, merged and whole model load, and answer as they should."""

import sys
from pathlib import Path

import pytest
import torch

from mixtune.commands.local.use_model import TunedModel, merge_model
from mixtune.inference import loading
from mixtune.inference.engine import Request
from mixtune.inference.loading import Fetched, ModelSource
from mixtune.inference.transformers_engine import TransformersEngine
from mixtune.models import PROCESSOR_FILES
from mixtune.train.batches import Layout

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import architectures

CONTEXTS = [tuple(range(5, 5 + length)) for length in (20, 33)]
REQUESTS = [Request(context=context, continuations=((7, 8, 9), (11,))) for context in CONTEXTS]
KINDS = ("mistral3", pytest.param("qwen3_5", marks=pytest.mark.slow), pytest.param("gemma3", marks=pytest.mark.slow),
         pytest.param("qwen3_vl", marks=pytest.mark.slow), pytest.param("llama4", marks=pytest.mark.slow))  # fmt: skip


def plain_scores(model: torch.nn.Module) -> list[list[float]]:
    """Return log-probabilities by a plain forward pass each, without cache, packing or padding."""
    scores = []
    for request in REQUESTS:
        scores.append([])
        for tokens in request.continuations:
            ids = torch.tensor([request.context + tokens])
            with torch.inference_mode():
                logprobs = model(input_ids=ids).logits[0].float().log_softmax(-1)
            start = len(request.context) - 1
            scores[-1].append(sum(float(logprobs[start + place, token]) for place, token in enumerate(tokens)))
    return scores


@pytest.mark.parametrize("kind", KINDS)
def test_a_composite_checkpoint_is_evaluated_and_merged_in_its_own_form(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "PROBE", "!!!")  # the tiny vocabulary ends before other tokens
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    adapter.mkdir()
    architectures.make_base(kind, base)
    for name in PROCESSOR_FILES:
        (base / name).write_text("{}")
    seen = {"reach": {}, "layout": Layout.PACKED, "gap": 0.0, "rounding": 0.0, "positions": False}
    architectures.check_training(base, adapter, "lora", "float32", seen)
    (adapter,) = (file.parent for file in adapter.rglob("adapter_config.json"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    merged = merge_model(TunedModel(model_uri=str(adapter), base_model=str(base)), scratch)
    assert (merged / "config.json").read_text().count("ForConditionalGeneration") == 1
    assert all((merged / name).is_file() for name in PROCESSOR_FILES)
    scores, answers = {}, {}
    for name, tuned in (("base", None), ("adapter", adapter), ("weights", merged)):
        fetched = Fetched(base, tuned)
        source = ModelSource(base_model=str(base), model_uri=str(tuned or ""), device="cpu", dtype="float32")
        engine = loading.load_engine(source, fetched)
        assert fetched.kind == name and isinstance(engine, TransformersEngine)
        assert engine._packs == (kind != "qwen3_5")  # whose states cannot be shared
        scores[name] = torch.tensor([item.logprobs for item in engine.score(REQUESTS)])
        answers[name] = engine.generate(CONTEXTS, 4)
        assert torch.allclose(scores[name], torch.tensor(plain_scores(engine.model)), atol=1e-4)
    assert not torch.allclose(scores["base"], scores["adapter"], atol=1e-2)
    assert torch.allclose(scores["adapter"], scores["weights"], atol=0.05)  # merged weights are bfloat16
    assert all(len(item.token_ids) <= 4 for items in answers.values() for item in items)
