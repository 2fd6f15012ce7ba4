"""Part `numerics`: is the arithmetic right on this device?"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mixtune.artifacts.typed_json import write_artifact
from mixtune.errors import ModelError
from mixtune.train.batches import Layout, pack
from mixtune.train.distributed import join_process_group
from mixtune.train.modeling import kernels
from mixtune.train.modeling import loss as losses
from mixtune.train.modeling.attention import settle_attention
from mixtune.train.modeling.kernels import VARLEN, fuse, varlen_attention
from mixtune.train.modeling.loss import PackedLoss
from mixtune.train.modeling.probe import probe
from mixtune.train.task import TrainInputs, TrainJobFile, TrainOutputs, TrainTask
from mixtune.train.worker import run_job

from .bench import TINY, Bench, LeftOutError, attention_of, check, plain_varlen, settings

PART = "numerics"


@check(1, PART, "ceilings: matrix product and copy")
def ceilings(bench: Bench) -> None:
    """The device's own limits, beside which all else is read."""
    shapes = [(8192, 8192, 8192), (16384, 4096, 14336)] if not bench.tiny else [(64, 64, 64), (64, 32, 48)]
    for rows, inner, columns in shapes:
        left, right = (
            torch.randn(size, device=bench.device, dtype=torch.bfloat16) for size in ((rows, inner), (inner, columns))
        )
        rate = 2 * rows * inner * columns / bench.time(lambda left=left, right=right: left @ right) / 1e12
        bench.expect_on_gpu(f"TFLOP/s of {rows}x{inner}x{columns}, above 650", rate, rate > 650)
    values = torch.empty(bench.size(2**30, 2**16), device=bench.device, dtype=torch.uint8)
    rate = 2 * values.numel() / bench.time(lambda: values.clone()) / 1e12
    bench.expect_on_gpu("TB/s of a copy, above 2.7", rate, rate > 2.7)


def _attend(bench: Bench, width: int, groups: int, window: int | None, lengths: list[int]) -> tuple[float, float]:
    """Return the largest relative error of the output and of its gradients, against float64."""
    torch.manual_seed(width + groups)
    heads, tokens = 8, sum(lengths)
    parts = [torch.randn(1, heads // count, tokens, width, device=bench.device) for count in (1, groups, groups)]
    starts = torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32, device=bench.device)
    options: dict[str, Any] = {"cu_seq_lens_q": starts, "max_length_q": max(lengths), "sliding_window": window}
    low = [part.to(torch.bfloat16).requires_grad_() for part in parts]
    high = [part.detach().double().requires_grad_() for part in low]
    out, _ = varlen_attention(torch.nn.Module(), low[0], low[1], low[2], None, **options)
    side = (window - 1 if window else -1, 0)
    exact = plain_varlen(*(part[0].transpose(0, 1) for part in high), starts, scale=None, window_size=side)[None]
    grad = torch.randn_like(exact)
    out.backward(grad.to(out.dtype))
    exact.backward(grad)
    errors = [float((a.grad.double() - b.grad).norm() / b.grad.norm()) for a, b in zip(low, high, strict=True)]
    return float((out.detach().double() - exact.detach()).norm() / exact.detach().norm()), max(errors)


@check(2, PART, "varlen attention against float64, forward and backward")
def attention_is_right(bench: Bench) -> None:
    """Widths, groups, windows and lengths of today's models."""
    lengths = [1, 7, bench.size(2048, 33), 128 if not bench.tiny else 12, bench.size(700, 5)]
    worst = [0.0, 0.0]
    with attention_of(bench):
        for width in (64, 96, 128, 256) if not bench.tiny else (16,):
            for groups in (1, 4, 8):
                for window in (None, 16, bench.size(1024, 4)):
                    errors = _attend(bench, width, groups, window, lengths)
                    worst = [max(pair) for pair in zip(worst, errors, strict=True)]
    bench.expect("output, below 0.01", worst[0], worst[0] < 0.01)
    bench.expect("gradients, below 0.02", worst[1], worst[1] < 0.02)


def _small(bench: Bench, **options: Any) -> Any:
    return AutoConfig.for_model(
        "llama",
        **{
            **TINY,
            **(
                {}
                if bench.tiny
                else {
                    "hidden_size": 512,
                    "intermediate_size": 1024,
                    "head_dim": 64,
                    "num_attention_heads": 8,
                    "num_hidden_layers": 12,
                    "vocab_size": 4096,
                }
            ),
            **options,
        },
    )


@check(3, PART, "no leak between packed records")
def no_leak(bench: Bench) -> None:
    """Change one record, and no bit of the others may move."""
    with attention_of(bench):
        model = bench.model(_small(bench), memory={"compiled": "no"})
        records = bench.records([bench.size(300, 9)] * 4, 500)
        changed = [replace(records[0], input_ids=records[0].input_ids[::-1].copy()), *records[1:]]
        with torch.no_grad():
            before, after = (model.loss(pack(item).to(bench.device)) for item in (records, changed))
        others = pack(records).records != 0
        gap = float((before - after)[others.to(bench.device)].abs().max())
    bench.expect("largest change of another's loss, 0", gap, gap == 0)


ODD: dict[str, tuple[str, dict[str, Any]]] = {
    "heads of 512": ("gemma2", {"head_dim": 512, "num_attention_heads": 2, "num_key_value_heads": 1, "query_pre_attn_scalar": 512}),
    "sinks": ("gpt_oss", {"num_local_experts": 2, "num_experts_per_tok": 1}),
    "soft cap": ("gemma2", {"query_pre_attn_scalar": 8}),
    "narrow values": ("deepseek_v3", {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "num_key_value_heads": 4}),
}  # fmt: skip


def trains(bench: Bench, kind: str, options: dict[str, Any]) -> tuple[bool, str]:
    """Return whether a tiny model of an architecture trains on this device or is refused in words, and with what."""
    config = AutoConfig.for_model(
        kind, **{**{name: value for name, value in TINY.items() if name != "head_dim" or kind != "falcon"}, **options}
    )
    folder = bench.scratch / f"{kind}-{len(options)}"
    try:
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        from mixtune.train.modeling.attention import attention_names
        from mixtune.train.modeling.trainable import load_trainable

        with attention_of(bench):
            model = load_trainable(folder, settings(lora_rank=4, memory={"compiled": "no"}))
            records = bench.records([12, 9, 20], 500)
            settle_attention(model.loss, records, attention_names(model.loss.dtype))
            probe(model.loss, records)
            for group in [records] if model.loss.layout is not Layout.SINGLE else [[record] for record in records]:
                value = model.loss(pack(group).to(bench.device)).sum()
                value.backward()
            return bool(torch.isfinite(value)), str(model.causal.config._attn_implementation)
    except ModelError as error:
        return True, f"refused: {error}"[:80]


@check(4, PART, "what no kernel takes trains by another, or is refused in words")
def odd_attention(bench: Bench) -> None:
    """Wide heads, sinks, soft caps, narrow values."""
    for name, (kind, options) in ODD.items():
        ends_well, words = trains(bench, kind, options)
        bench.expect(f"{name}: {words}", float(ends_well), ends_well)


@check(5, PART, "flash-attention 2 beside varlen")
def flash(bench: Bench) -> None:
    """Where the package is installed: the same losses."""
    from transformers.utils.import_utils import is_flash_attn_2_available

    if bench.is_gpu and not is_flash_attn_2_available():
        raise LeftOutError("flash-attn 2 is not installed here")
    model = bench.model(_small(bench), memory={"compiled": "no"})
    packed = pack(bench.records([100, 300, 7], 500)).to(bench.device)
    values = []
    for name in ("flash_attention_2", VARLEN) if bench.is_gpu else ("eager", "sdpa"):
        model.causal.set_attn_implementation(name)
        with torch.no_grad():
            values.append(model.loss(packed))
    gap = float((values[0] - values[1]).abs().max())
    bench.expect("largest gap, nats, below 0.05", gap, gap < 0.05)


@check(6, PART, "Liger's kernels beside eager")
def liger(bench: Bench) -> None:
    """Norms, rotary embeddings, MLP: no further from float32 than eager in bfloat16."""
    import importlib.util

    if bench.is_gpu and not importlib.util.find_spec("liger_kernel"):
        raise LeftOutError("liger-kernel is not installed here")
    packed = pack(bench.records([200, 300], 500)).to(bench.device)
    values, half = {}, {"dtype": "bfloat16"}
    for name, options in (("exact", {"dtype": "float32"}), ("eager", half), ("fused", half)):
        torch.manual_seed(0)
        model = bench.model(_small(bench), method="lora", memory={"compiled": "no", **options})
        if name == "fused" and bench.is_gpu:
            fuse(model.causal)
        with torch.no_grad():
            values[name] = model.loss(packed).double()
    eager, fused = (float((values[name] - values["exact"]).norm()) for name in ("eager", "fused"))
    bench.expect("error over eager's, at most 1.2", fused / eager, fused <= 1.2 * eager)


@check(7, PART, "chunked loss against full logits in float32")
def chunked(bench: Bench) -> None:
    """One, several and many chunks; the gradient of the head."""
    from unittest.mock import patch

    config = _small(bench)
    with attention_of(bench):
        model = bench.model(config, method="lora", memory={"compiled": "no"})
        head = model.causal.get_output_embeddings().weight.requires_grad_()
        packed = pack(bench.records([bench.size(500, 20)] * 3, 500)).to(bench.device)
        results = []
        for num_chunks in (1, 7, 63):
            size = max(1, len(packed.targets) // num_chunks) * config.vocab_size
            head.grad = None
            with patch.object(losses, "logits_at_once", lambda *, gpu, size=size: size):
                value = model.loss(packed)
                value.mean().backward()
            results.append((value.detach(), head.grad.double().clone()))
        for number, (value, grad) in zip((7, 63), results[1:], strict=True):
            gap, error = (
                float((value - results[0][0]).abs().max()),
                float((grad - results[0][1]).norm() / results[0][1].norm()),
            )
            bench.expect(f"{number} chunks: nats, below 0.02", gap, gap < 0.02)
            bench.expect(f"{number} chunks: gradient, below 0.015", error, error < 0.015)


@check(8, PART, "the same training in every mode")
def modes(bench: Bench) -> None:
    """Thirty steps from the same weights: float32 against a CPU, then what should change nothing."""
    config, length = _small(bench), bench.size(100, 12)
    batches = [bench.records([length, length // 2, length], 500) for _ in range(3)]
    final: dict[str, float] = {}
    runs: dict[str, tuple[str, dict[str, Any]]] = {
        "float32": ("lora", {"dtype": "float32"}),
        "lora": ("lora", {"activations": "recompute"}),
        "keep": ("lora", {"activations": "keep"}),
        "offload": ("lora", {"activations": "offload"}),
        "compiled": ("lora", {"activations": "recompute", "compiled": "yes"}),
        "sft": ("sft", {"activations": "recompute", "dtype": "bfloat16"}),
    }
    with attention_of(bench), join_process_group():
        for name, (method, memory) in runs.items():
            torch.manual_seed(0)
            options = {"method": method, "memory": {"compiled": "no", **memory}, "learning_rate": 1e-4}
            trainer = bench.trainer(bench.model(config, **options), batches, **options)
            final[name] = bench.steps(trainer, bench.size(30, 2))[-1].loss
            bench.free()
    for name, tolerance in (("keep", 1e-3), ("offload", 1e-3), ("compiled", 5e-3)):
        gap = abs(final[name] - final["lora"])
        bench.expect(f"{name} beside recompute, nats, below {tolerance:g}", gap, gap < tolerance)
    gap = abs(final["lora"] - final["float32"]) / final["float32"]
    bench.expect("bfloat16 beside float32, share, below 0.02", gap, gap < 0.02)
    bench.record("final loss of full SFT", final["sft"])


@check(9, PART, "the probe of packed records")
def probed(bench: Bench) -> None:
    """It passes a model that keeps records apart and finds one that does not."""
    with attention_of(bench):
        model = bench.model(_small(bench), memory={"compiled": "no"})
        reason = probe(model.loss, bench.records([40, 30, 50], 500))
    bench.expect(f"a Llama packs{': ' if reason else ''}{reason}", float(not reason), not reason)
    kind, options = "opt", {"ffn_dim": 48, "max_position_embeddings": 512, "word_embed_proj_dim": 32}
    leaking = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**TINY, **options})).to(bench.device)
    reason = probe(PackedLoss(leaking, torch.float32), bench.records([40, 30, 50], 500))
    bench.expect("an OPT does not", float(bool(reason)), bool(reason))


@check(10, PART, "the same micro batch twice")
def twice(bench: Bench) -> None:
    """How far the bits of gradients are the same."""
    with attention_of(bench):
        model = bench.model(_small(bench), memory={"compiled": "no"})
        packed, grads = pack(bench.records([bench.size(300, 9)] * 4, 500)).to(bench.device), []
        for _ in range(2):
            model.loss(packed).sum().backward()
            grads.append(torch.cat([value.grad.flatten().clone() for value in model.parameters().values()]))
            for value in model.parameters().values():
                value.grad = None
    gap = float((grads[0] - grads[1]).norm() / grads[0].norm())
    bench.expect("relative difference, below 0.001", gap, gap < 1e-3)


def _job(bench: Bench, name: str, gpus: int = 0, **options: Any) -> str:
    """Write a job over the demo's small model and return its file."""
    from mixtune.demo.demo_data import BASE_MODEL

    from .tiny_shards import write_shards

    folder = bench.scratch / name
    folder.mkdir(parents=True, exist_ok=True)
    place = str(folder / "model")
    task = TrainTask(
        settings=settings(**{"checkpoints": {"every_steps": 2}, "learning_rate": 1e-4, **options}),
        inputs=TrainInputs(
            shards_path=write_shards(bench.scratch / "shards", bench.size(30, 6)), base_model=str(BASE_MODEL)
        ),
        outputs=TrainOutputs(model_path=place, model_uri=place),
    )
    write_artifact(str(folder / "job.json"), TrainJobFile(task=task, gpus_per_node=gpus))
    return str(folder / "job.json")


def _start(job: str, **environment: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "mixtune.train.launcher.node", "--standalone", "--nproc-per-node=1", job]
    return subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _train_in_two_attempts(bench: Bench, job: str) -> None:
    process = _start(job)
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("step 1/"):
            process.send_signal(signal.SIGTERM)
    if process.wait(300):
        bench.expect("it says that it was told to end", 1.0, any("told to end (SIGTERM)" in line for line in lines))
        if bench.tiny:
            run_job(job)
            return
        process = _start(job)
        process.communicate(timeout=300)
    bench.expect("exit status, 0", process.returncode, process.returncode == 0)


@check(11, PART, "a job through torchrun, told to end and taken up")
def worker(bench: Bench) -> None:
    """The command of a job's object in two attempts, beside the same training whole, in this process."""
    weights = []
    for name, is_stopped in (("whole", False), ("cut", True)):
        job = _job(bench, name, lora_options={"merge": not bench.tiny})
        if is_stopped:
            _train_in_two_attempts(bench, job)
        else:
            run_job(job)
        from safetensors.torch import load_file

        weights.append(load_file(bench.scratch / name / "data/model/adapter_model.safetensors"))
    gap = max(float((value - weights[1][key]).abs().max()) for key, value in weights[0].items())
    bench.expect("largest difference of a weight, below 1e-5", gap, gap < 1e-5)


@check(12, PART, "a promised GPU that is not there")
def no_gpu(bench: Bench) -> None:
    """Refused at once, with the reason in the lines that a launcher reads."""
    begin = time.perf_counter()
    process = _start(_job(bench, "promised", gpus=1), CUDA_VISIBLE_DEVICES="")
    text, _ = process.communicate(timeout=120)
    bench.expect("exit status, not 0", process.returncode, process.returncode != 0)
    bench.expect("the reason is there", 1.0, "was asked for with 1 GPUs" in text)
    bench.expect("seconds, below 60", time.perf_counter() - begin, time.perf_counter() - begin < 60)


@check(13, PART, "collectives of one process")
def collectives(bench: Bench) -> None:
    """float64, bytes and text through the backend of this device."""
    with join_process_group() as group:
        import torch.distributed as dist

        for dtype in (torch.float64, torch.uint8, torch.bfloat16):
            value = torch.ones(3, dtype=dtype, device=bench.device)
            dist.all_reduce(value)
            bench.expect(f"sum in {dtype}, 3", float(value.sum()), float(value.sum()) == 3)
        group.barrier()
        bench.expect("text", 1.0, group.broadcast_text("text") == "text")
        bench.record("calls of varlen attention so far", kernels.num_varlen_calls())
