"""The vLLM engine on answers in vLLM's form, recorded from a real tiny model."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from mixtune.artifacts.model import AdapterConfig
from mixtune.errors import ConfigError, ModelError
from mixtune.inference import loading, parallel
from mixtune.inference.engine import Request
from mixtune.inference.loading import ModelSource
from mixtune.inference.vllm_engine import VllmEngine, load_vllm

CONTEXTS = [tuple(range(10, 40)), (*range(10, 40), 50, 51), (7, 8, 9)]
LETTERS = ((70,), (71,), (72,))


@dataclass
class Sampling:
    temperature: float
    max_tokens: int
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    stop_token_ids: list[int] | None = None
    detokenize: bool = True


class RecordedLlm:
    """Answers as vLLM does, with a real model's log-probabilities."""

    def __init__(self, base: Path, adapter_effect: float = 1.0) -> None:
        self.model = LlamaForCausalLM.from_pretrained(base).eval()
        self.asked: list[tuple[int, int | None]] = []
        self.adapter_effect = adapter_effect

    @torch.inference_mode()
    def generate(self, prompts: list[dict[str, Any]], wanted: Sampling, lora_request: Any, use_tqdm: bool) -> list[Any]:
        self.asked.append((len(prompts), wanted.prompt_logprobs))
        return [self._answer(prompt["prompt_token_ids"], wanted, lora_request) for prompt in prompts]

    def _answer(self, ids: list[int], wanted: Sampling, lora: Any) -> Any:
        logits = self.model(torch.tensor([ids])).logits[0] * (self.adapter_effect if lora else 1.0)
        logprobs = logits.log_softmax(-1)
        top = logprobs[-1].topk(wanted.logprobs or 1)
        likely = {
            int(token): SimpleNamespace(logprob=float(value))
            for token, value in zip(top.indices, top.values, strict=True)
        }
        rows = [None] + [{ids[i]: SimpleNamespace(logprob=float(logprobs[i - 1, ids[i]]))} for i in range(1, len(ids))]
        made: list[int] = []
        while len(made) < wanted.max_tokens and not set(made) & set(wanted.stop_token_ids or []):
            made.append(int(self.model(torch.tensor([ids + made])).logits[0, -1].argmax()))
        reason = "stop" if set(made) & set(wanted.stop_token_ids or []) else "length"
        output = SimpleNamespace(token_ids=made, logprobs=[likely], finish_reason=reason)
        return SimpleNamespace(outputs=[output], prompt_logprobs=rows, metrics=None)


@pytest.fixture(scope="module")
def engines(world: Any) -> tuple[VllmEngine, Any, RecordedLlm]:
    source = ModelSource(base_model=str(world.base))
    plain: Any = loading.load_engine(source, loading.fetch(source))
    llm = RecordedLlm(world.base)
    engine = VllmEngine(llm, Sampling, max_length=plain.max_length, stop_ids=plain.stop_ids)
    return engine, plain, llm


def test_choices_have_the_log_probabilities_of_the_transformers_engine(engines: Any) -> None:
    engine, plain, _ = engines
    requests = [Request(context=context, continuations=LETTERS) for context in CONTEXTS]
    requests.append(Request(context=CONTEXTS[0], continuations=((5, 6, 7), (8, 9))))
    for ours, theirs in zip(engine.score(requests), plain.score(requests), strict=True):
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
        assert ours.truncated == theirs.truncated


def test_a_question_whose_letters_are_likely_costs_one_request(engines: Any) -> None:
    engine, _, llm = engines
    with torch.inference_mode():
        best = llm.model(torch.tensor([CONTEXTS[0]])).logits[0, -1].topk(4).indices.tolist()
    llm.asked.clear()
    engine.score([Request(context=CONTEXTS[0], continuations=tuple((token,) for token in best))])
    assert llm.asked == [(1, None)]


def test_a_letter_outside_the_most_probable_tokens_is_scored_by_a_whole_prompt(engines: Any) -> None:
    engine, plain, llm = engines
    with torch.inference_mode():
        order = llm.model(torch.tensor([CONTEXTS[0]])).logits[0, -1].argsort(descending=True).tolist()
    request = Request(context=CONTEXTS[0], continuations=((order[0],), (order[-1],)))
    llm.asked.clear()
    found = engine.score([request])[0]
    assert llm.asked == [(1, None), (1, 0)]
    assert found.logprobs == pytest.approx(plain.score([request])[0].logprobs, abs=1e-4)


def test_generated_answers_are_those_of_the_transformers_engine(engines: Any) -> None:
    engine, plain, _ = engines
    ours, theirs = engine.generate(CONTEXTS, 6), plain.generate(CONTEXTS, 6)
    assert [one.token_ids for one in ours] == [one.token_ids for one in theirs]
    assert [one.truncated for one in ours] == [one.truncated for one in theirs]


@pytest.mark.parametrize(("spare", "truncated"), [(0, True), (1, False)])
def test_a_prompt_that_loses_one_token_to_the_generated_one_counts_as_cut(
    engines: Any, spare: int, truncated: bool
) -> None:
    engine, _, _ = engines
    request = Request(context=(5,) * (engine.max_length - 2 - spare), continuations=((6, 7),))
    assert engine.score([request])[0].truncated is truncated


def test_an_adapter_that_vllm_leaves_out_is_refused(world: Any) -> None:
    stop: frozenset[int] = frozenset()
    ignored = VllmEngine(RecordedLlm(world.base), Sampling, max_length=64, stop_ids=stop, adapter="lora")
    with pytest.raises(ModelError, match="changes no log-probability"):
        ignored.check_adapter([1, 2, 3])
    used = VllmEngine(RecordedLlm(world.base, 1.5), Sampling, max_length=64, stop_ids=stop, adapter="lora")
    used.check_adapter([1, 2, 3])


def write_adapter(folder: Path, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8, **config}))
    return folder


def test_vllm_makes_room_for_the_adapters_rank(tmp_path: Path) -> None:
    for rank, room in ((4, 8), (16, 16), (32, 32), (40, 64), (513, 0)):
        assert AdapterConfig.read(str(write_adapter(tmp_path, r=rank))).room == room


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"rank_pattern": {"q_proj": 1024}}, "its rank is 1024, the largest is 512"),
        ({"use_dora": True}, "it is a DoRA adapter"),
        ({"modules_to_save": ["lm_head"]}, r"it holds whole modules \(lm_head\)"),
        ({"peft_type": "OSF"}, "its peft_type is OSF"),
    ],
)
def test_of_an_adapter_that_vllm_does_not_take_the_merged_weights_are_asked(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], reason: str
) -> None:
    asked: list[tuple[Path, Path | None]] = []

    def load(weights: Path, adapter: Path | None, **_: Any) -> None:
        asked.append((weights, adapter))

    monkeypatch.setattr(loading, "load_vllm", load)
    folder = write_adapter(tmp_path / "adapter", **config)
    source = ModelSource(base_model=str(world.base), model_uri=str(folder), engine="vllm")
    with pytest.raises(ModelError, match=f"{reason}; train with lora_options.merge.*or take engine transformers"):
        loading.load_engine(source, loading.fetch(source))
    shutil.copytree(world.base, folder / "merged")
    loading.load_engine(source, loading.fetch(source))
    assert asked == [(folder / "merged", None)]


def test_gpus_are_shared_out_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert parallel.find_devices("cuda", 4) == ["0,1,2,3", "4,5,6,7"]
    assert len(parallel.find_devices("cuda")) == 8
    with pytest.raises(ConfigError, match="there are 8 GPUs"):
        parallel.find_devices("cuda", 16)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert parallel._visible("2,3") == "6,7"


def test_an_engine_that_is_not_there_is_refused(world: Any) -> None:
    with pytest.raises(ConfigError, match="there are transformers, vllm"):
        ModelSource(base_model=str(world.base), engine="sglang")
    source = ModelSource(base_model=str(world.base), engine="vllm")
    with pytest.raises(ModelError, match="use an image that has vLLM"):
        loading.load_engine(source, loading.fetch(source))


def test_an_engine_whose_own_libraries_are_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vllm.py").write_text("import libcudart_of_vllm\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ModelError, match="engine vllm: No module named 'libcudart_of_vllm'; use an image that has vLLM"
    ):
        load_vllm(tmp_path, None, dtype="auto", gpus=1, max_length=8, stop_ids=frozenset())
