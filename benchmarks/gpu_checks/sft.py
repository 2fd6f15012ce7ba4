"""Part `sft`: all weights, checkpoints, inference, and whatever else a run meets."""

import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from mixtune.demo.demo_data import BASE_MODEL
from mixtune.inference.engine import Request
from mixtune.inference.transformers_engine import TransformersEngine
from mixtune.preflight.memory import estimate_memory, training_on_gpus
from mixtune.preflight.shape import Shape
from mixtune.train.batches import pack
from mixtune.train.checkpoints import Checkpoints
from mixtune.train.distributed import join_process_group
from mixtune.train.modeling.trainable import load_trainable

from .bench import Bench, attention_of, check, settings
from .lora import speed
from .numerics import trains

PART = "sft"
LAYERS = 8
BFLOAT16 = {"dtype": "bfloat16"}


def _eight_layers(bench: Bench) -> Any:
    return bench.config(num_hidden_layers=LAYERS)


def _sft(bench: Bench, lengths: list[int], steps: int, **memory: Any) -> tuple[float, float, float]:
    """Return tokens a second, share of the peak and bytes at the peak of eight layers with all weights trained."""
    from unittest.mock import patch

    with join_process_group() as group, patch.object(Bench, "config", lambda self, **_: EIGHT[0]):
        del group
        return speed(bench, lengths, steps, method="sft", memory={**BFLOAT16, **memory})


EIGHT: list[Any] = [None]


@check(21, PART, "8 layers of 8B's widths, all weights, FSDP2 of one process")
def full(bench: Bench) -> None:
    """As by default, then with kept activations where they fit."""
    EIGHT[0] = _eight_layers(bench)
    tokens = [bench.size(4096, 12)] * 4
    rate, share, peak = _sft(bench, tokens, 6)
    bench.record("tokens/s", rate)
    bench.expect_on_gpu("of the peak, above 0.35", share, share > 0.35)
    shape = Shape.from_config(EIGHT[0].to_dict())
    expected = estimate_memory(shape, training_on_gpus(settings(method="sft"), sum(tokens))).total
    bench.expect_on_gpu(
        "estimate over measured, 0.85 to 1.15", expected / max(peak, 1.0), 0.85 < expected / max(peak, 1.0) < 1.15
    )
    _, best, _ = _sft(bench, tokens[:2], 6, activations="keep")
    bench.expect_on_gpu("kept: of the peak, above 0.45", best, best > 0.45)


@check(22, PART, "gradients of all weights in bfloat16 beside float32")
def gradients(bench: Bench) -> None:
    """By parameter, two layers."""
    config = bench.config(num_hidden_layers=2)
    packed, grads = pack(bench.records([bench.size(512, 12)] * 2, 500)).to(bench.device), []
    with attention_of(bench), join_process_group():
        for dtype in ("float32", "bfloat16"):
            torch.manual_seed(0)
            model = bench.model(config, method="sft", memory={"dtype": dtype, "compiled": "no"})
            model.loss(packed).mean().backward()
            full_grads = {}
            for name, value in model.parameters().items():
                grad: Any = value.grad
                full_grads[name] = (grad.full_tensor() if hasattr(grad, "full_tensor") else grad).double().flatten()
            grads.append(full_grads)
            del model
            bench.free()
    cosines = {name: float(torch.cosine_similarity(value, grads[1][name], dim=0)) for name, value in grads[0].items()}
    worst = min(cosines, key=lambda name: cosines[name])
    bench.expect(f"smallest cosine ({worst}), above 0.99", cosines[worst], cosines[worst] > 0.99)


@check(23, PART, "a checkpoint while training goes on")
def checkpointing(bench: Bench) -> None:
    """To local disk: what it holds up, and whether it comes back bit by bit."""
    config, options = _eight_layers(bench), {"method": "sft", "memory": BFLOAT16}
    with attention_of(bench), join_process_group() as group:
        trainer = bench.trainer(
            bench.model(config, group, **options), [bench.records([bench.size(4096, 12)] * 2, 500)], **options
        )
        quiet = bench.steps(trainer, 3)
        checkpoints = Checkpoints(str(bench.scratch / "checkpoints"), {}, trainer)
        flags = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
        begin = time.perf_counter()
        checkpoints.after_step(3, trainer, flags)
        blocked = time.perf_counter() - begin
        busy = bench.steps(trainer, 3)
        checkpoints.finish()
        bench.record("seconds until it is written", time.perf_counter() - begin)
        ratio = sum(busy[-1].seconds.values()) / sum(quiet[-1].seconds.values())
        bench.expect_on_gpu("a step's time meanwhile over another's, below 1.05", ratio, ratio < 1.05)
        bench.expect_on_gpu("seconds that block, below 10", blocked, blocked < 10)
        steps_done = checkpoints.load(trainer)
        bench.expect("steps done of the restored, 3", steps_done, steps_done == 3)
        first, again = (bench.steps(trainer, 1)[0].loss, checkpoints.load(trainer) and bench.steps(trainer, 1)[0].loss)
        bench.expect("a step from it twice: gap in loss, below 1e-3", abs(first - again), abs(first - again) < 1e-3)


@check(24, PART, "activations in the host's memory, one long record")
def offload(bench: Bench) -> None:
    """Beside recomputed ones."""
    EIGHT[0] = _eight_layers(bench)
    lengths = [bench.size(65536, 40)]
    results = {name: _sft(bench, lengths, 2, activations=name) for name in ("recompute", "offload")}
    bench.expect_on_gpu(
        "GB less, above 0",
        (results["recompute"][2] - results["offload"][2]) / 1e9,
        results["recompute"][2] > results["offload"][2],
    )
    ratio = results["recompute"][0] / results["offload"][0]
    bench.expect_on_gpu("time over recomputed, below 1.25", ratio, ratio < 1.25)


@check(25, PART, "decompositions at the beginning of PiSSA and OSF")
def decompositions(bench: Bench) -> None:
    """One layer of 8B's widths."""
    for options in ({"init_lora_weights": "pissa_niter_4", "lora_plus_ratio": 1.0}, {"use_osf": True}):
        begin = time.perf_counter()
        bench.model(bench.config(num_hidden_layers=1), lora_rank=4, lora_options=options, memory={"compiled": "no"})
        bench.synchronize()
        seconds = time.perf_counter() - begin
        bench.expect_on_gpu(f"{next(iter(options))}: seconds, below 140", seconds, seconds < 140)
        bench.free()


def _engine(model: Any) -> TransformersEngine:
    return TransformersEngine(model.eval(), max_length=4096, stop_ids=frozenset({2}), batch_tokens=65536)


@check(26, PART, "scoring and generating by transformers")
def inference(bench: Bench) -> None:
    """The engine of `evaluate`: the demo's model beside a CPU, then 8B's speed in bfloat16."""
    tokens = torch.randint(5, 500, (6, 40), generator=torch.Generator().manual_seed(0)).tolist()
    requests = [Request(context=tuple(row[:30]), continuations=(tuple(row[30:]),)) for row in tokens]
    scores = []
    for place in (torch.device("cpu"), bench.device):
        model = AutoModelForCausalLM.from_pretrained(BASE_MODEL, dtype=torch.float32).to(place)
        scores.append([item.logprobs[0] for item in _engine(model).score(requests)])
    gap = max(abs(one - other) for one, other in zip(*scores, strict=True))
    bench.expect("log-probabilities of ten tokens beside a CPU's, nats, below 0.05", gap, gap < 0.05)
    with bench.device:
        large = AutoModelForCausalLM.from_config(bench.config(), dtype=torch.bfloat16)
    engine, length = _engine(large), bench.size(1024, 12)
    requests = [
        Request(context=tuple(record.input_ids[:-4].tolist()), continuations=(tuple(record.input_ids[-4:].tolist()),))
        for record in bench.records([length] * bench.size(64, 2), 500)
    ]
    rate = len(requests) * length / bench.time(lambda: engine.score(requests))
    bench.expect_on_gpu("tokens/s scored, above 30,000", rate, rate > 30_000)


@check(27, PART, "loading a base model from disk")
def loading(bench: Bench) -> None:
    """To the device, ready to train."""
    folder = bench.scratch / "base"
    AutoModelForCausalLM.from_config(_eight_layers(bench), dtype=torch.bfloat16).save_pretrained(folder)
    size = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
    begin = time.perf_counter()
    load_trainable(folder, settings(memory={"compiled": "no"})).loss.to(bench.device)
    bench.synchronize()
    rate = size / (time.perf_counter() - begin) / 1e9
    bench.expect_on_gpu("GB/s, above 0.5", rate, rate > 0.5)


FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {}, "mistral": {"sliding_window": 8}, "qwen2": {}, "qwen3": {}, "olmo2": {}, "cohere": {}, "granite": {},
    "gemma2": {"sliding_window": 8, "query_pre_attn_scalar": 8}, "phi3": {"partial_rotary_factor": 1.0}, "bloom": {"n_layer": 2, "n_head": 4},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
}  # fmt: skip


@check(28, PART, "today's architectures with this device's kernels")
def architectures(bench: Bench) -> None:
    """Each trains, or is refused in words."""
    for kind in list(FAMILIES)[: len(FAMILIES) if not bench.tiny else 3]:
        ends_well, words = trains(bench, kind, FAMILIES[kind])
        bench.expect(f"{kind}: {words}", float(ends_well), ends_well)
