"""Scoring by tries of tokens, and a cache that grows in place, against a model that is asked plainly."""

import copy

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    DynamicCache,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GptOssConfig,
    GptOssForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from mixtune.inference import heartbeat
from mixtune.inference.engine import Request
from mixtune.inference.growing_cache import GrowingLayer, grow_in_place
from mixtune.inference.heartbeat import Forecast, beat, duration
from mixtune.inference.packed_scoring import probe
from mixtune.inference.parallel import Part
from mixtune.inference.token_trie import make_tries
from mixtune.inference.transformers_engine import TransformersEngine

SMALL = {"vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2, "initializer_range": 0.3}
LLAMA = LlamaConfig(**WIDE)


def engine(model: torch.nn.Module) -> TransformersEngine:
    return TransformersEngine(model.eval(), max_length=512, stop_ids=frozenset({0}), batch_tokens=4096)


def plain(model: torch.nn.Module, request: Request) -> list[float]:
    values = []
    for answer in request.continuations:
        with torch.inference_mode():
            logits = model(torch.tensor([[*request.context, *answer[:-1]]])).logits[0].float().log_softmax(-1)
        start = len(request.context) - 1
        values.append(sum(float(logits[start + place, token]) for place, token in enumerate(answer)))
    return values


@pytest.mark.parametrize(
    ("model", "packs"),
    [(LlamaForCausalLM(LLAMA), True),
     (MistralForCausalLM(MistralConfig(**WIDE, sliding_window=8)), True),
     (Gemma3ForCausalLM(Gemma3TextConfig(**WIDE, head_dim=8, sliding_window=8, layer_types=["sliding_attention", "full_attention"])), True),
     (Llama4ForCausalLM(Llama4TextConfig(**WIDE, head_dim=8, intermediate_size_mlp=64, num_local_experts=2, attention_chunk_size=12,
                                         layer_types=["chunked_attention", "full_attention"])), True),
     (GptOssForCausalLM(GptOssConfig(**WIDE, head_dim=8, num_local_experts=2, num_experts_per_tok=1, sliding_window=8)), True),
     (Qwen3NextForCausalLM(Qwen3NextConfig(**WIDE, head_dim=8, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=8,
                                           linear_num_value_heads=2, linear_num_key_heads=2, linear_key_head_dim=8,
                                           linear_value_head_dim=8, layer_types=["linear_attention", "full_attention"])), False),
     (BloomForCausalLM(BloomConfig(vocab_size=120, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3)), False),
     (OPTForCausalLM(OPTConfig(**SMALL, ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=600, init_std=0.3)), True)],
    ids=["llama", "window", "some windows", "chunks", "sinks", "states", "alibi", "learned positions"],
)  # fmt: skip
def test_a_model_is_asked_by_tries_only_where_that_changes_nothing(model: torch.nn.Module, packs: bool) -> None:
    asked = engine(model)
    requests = [*probe(120), Request(context=(5, 6, 7), continuations=((8,), (9,)))]
    for request, scores in zip(requests, asked.score(requests), strict=True):
        assert scores.logprobs == pytest.approx(plain(model, request), abs=1e-3)
    assert asked._packs is packs


LONG_ROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}


@pytest.mark.parametrize(
    "model",
    [Phi3ForCausalLM(Phi3Config(**WIDE, original_max_position_embeddings=60, rope_parameters=LONG_ROPE, pad_token_id=0)),
     LlamaForCausalLM(LlamaConfig(**WIDE, max_position_embeddings=60, rope_parameters=DYNAMIC))],
    ids=["longrope", "dynamic"],
)  # fmt: skip
def test_a_text_beyond_the_first_positions_turns_no_other_texts_otherwise(model: torch.nn.Module) -> None:
    draw = torch.Generator().manual_seed(1)
    prompts = [tuple(torch.randint(1, 120, (size,), generator=draw).tolist()) for size in (90, 70, 50, 57, 59, 58)]
    requests = [Request(context=prompt, continuations=((7, 8), (9, 10))) for prompt in prompts]
    plainly = [plain(copy.deepcopy(model).eval(), request) for request in requests]
    asked = engine(model)
    for values, scores in zip(plainly, asked.score(requests), strict=True):
        assert scores.logprobs == pytest.approx(values, abs=1e-3)
    answers = [item.token_ids for item in asked.generate(prompts, 6)]
    assert answers == [engine(copy.deepcopy(model)).generate([prompt], 6)[0].token_ids for prompt in prompts]
    if isinstance(model, Phi3ForCausalLM):  # also where an answer goes beyond them
        for prompt, answer in zip(prompts, answers, strict=True):
            texts = [torch.tensor([[*prompt, *answer[:place]]]) for place in range(len(answer))]
            assert answer == tuple(int(model(text, use_cache=False).logits[0, -1].argmax()) for text in texts)


def test_what_requests_begin_with_goes_through_the_model_once() -> None:
    head, labels = tuple(range(1, 41)), ((50, 51, 2), (50, 52, 2), (60, 2))
    requests = {number: Request(context=(*head, 70 + number), continuations=labels) for number in range(3)}
    (trie,) = make_tries(requests, 32, max_nodes=500, max_reads=500)
    # eight tokens of the head; of each question its own token, and 50, 51, 52, 60 of its labels
    assert len(trie.ids) == 8 + 3 * (1 + 4)
    assert trie.mask().sum(1).max() == 32 + 8 + 1 + 2
    assert len(list(make_tries(requests, 32, max_nodes=20, max_reads=500))) == 3


def test_a_cache_that_grows_in_place_holds_what_one_that_copies_holds() -> None:
    random = torch.Generator().manual_seed(0)
    whole, growing = DynamicCache(), None
    for step, count in enumerate([5, 1, 1, 90, 1]):
        keys, values = (torch.rand(4 if step < 3 else 2, 2, count, 8, generator=random) for _ in range(2))
        theirs = whole.update(keys, values, 0)
        if growing is None:
            growing = grow_in_place(DynamicCache([(keys, values)]))
            assert isinstance(growing.layers[0], GrowingLayer)
            continue
        ours = growing.update(keys, values, 0)
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
        if step == 2:
            for cache in (whole, growing):
                cache.batch_select_indices(torch.tensor([0, 3]))
    assert growing is not None and growing.get_seq_length() == 98


def test_parts_for_a_cpu_are_small() -> None:
    def sizes(count: int, tokens: int) -> list[int]:
        part = Part(axis="a", name="x", items=range(count), score_items=lambda items, engine: [], new_tokens=tokens)
        return [piece.num_items for piece in part.cut()]

    assert sizes(70, 0) == [32, 32, 6]
    assert sizes(40, 256) == [32, 8]
    assert sizes(9, 5000) == [8, 1]


def test_a_forecast_goes_by_the_speed_of_every_axis() -> None:
    forecast = Forecast({"mmlu": 100, "ifeval": 10})
    forecast.add("mmlu", 20, 2.0)
    assert forecast.seconds_left() is None
    forecast.add("ifeval", 1, 30.0)
    assert forecast.seconds_left() == pytest.approx(8 + 270)
    assert [duration(value) for value in (12.4, 300, 9000)] == ["12 s", "5 min", "2.5 h"]


def test_a_line_of_a_long_answer_says_how_far_all_is_until_all_is_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(heartbeat, "REPORT_SECONDS", 0.0)
    beat("ifeval: 8 of 480 items", whole="20 of 1230 items in all, about 7 min left")
    beat("answering: token 9")
    beat("all axes: 1230 of 1230", whole="")
    beat("the next model's first line")
    assert capsys.readouterr().out.splitlines() == [
        "ifeval: 8 of 480 items",
        "answering: token 9; 20 of 1230 items in all, about 7 min left",
        "all axes: 1230 of 1230",
        "the next model's first line",
    ]
