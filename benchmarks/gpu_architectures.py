"""Every model type that trains, on a GPU's rules: which attention takes it, how its records lie, does it learn?

    python benchmarks/gpu_on_cpu/run.py benchmarks/gpu_architectures.py [TYPE ...] [--write]

The training's own choice is made as on a GPU: by LoRA and by full tuning, in bfloat16 under CUDA's
autocast, with attention over packed records. A few steps follow, then answers and log-probabilities of the evaluation's
engine, which are held against the CPU's in float32. `--write` puts attention and layout into
`components/mixtune/artifacts/architectures.json`. Some twenty minutes of one core for all types.
"""

import contextlib
import io
import json
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import architectures
import torch
import transformers
from tiny_configs import tiny_config

from mixtune.artifacts.model import FILE, Architecture, read_architectures
from mixtune.errors import MixtuneError
from mixtune.inference.engine import Request
from mixtune.inference.transformers_engine import TransformersEngine
from mixtune.interpolation import auto_class
from mixtune.settings.from_dict import from_dict
from mixtune.settings.train import METHODS, TrainSettings
from mixtune.train.batches import Layout, pack, plan_layout
from mixtune.train.distributed import join_process_group
from mixtune.train.modeling.trainable import Trainable, load_trainable, make_optimizer
from mixtune.train.run import _choose_layout

MICRO_TOKENS = 160
ON_GPU = "on a GPU: "
"""Begins a reason that was found here."""
NATS = 1e-3
"""Largest difference of a log-probability from the CPU's, in float32."""


def check_training(base: Path, method: str) -> Trainable:
    """Train two steps as a job on a GPU does, and return the model.

    Raises:
        MixtuneError: It does not train.
        ValueError: The loss does not fall.
    """
    memory = {"max_tokens_per_gpu": MICRO_TOKENS, "compiled": "no"}
    adapter = {"lora_rank": 4, "lora_options": {"lora_plus_ratio": 4.0}} if method == "lora" else {}
    settings = from_dict(
        TrainSettings, {"method": method, "learning_rate": 1e-3, "memory": memory, **adapter}, "settings"
    )
    batch, device = architectures.records(), torch.device("cuda")
    with join_process_group() as group:
        model = load_trainable(base, settings, group)
        manifest = SimpleNamespace(max_record_tokens=max(architectures.LENGTHS))
        shards = SimpleNamespace(num_steps=1, step=lambda _: batch, manifest=manifest)
        session: Any = SimpleNamespace(task=SimpleNamespace(settings=settings), group=group, shards=shards)
        _choose_layout(session, model)
        most = 1 if model.loss.layout is Layout.SINGLE else MICRO_TOKENS
        micro = plan_layout(model.loss.layout, architectures.LENGTHS, most)
        optimizer, totals = make_optimizer(model, settings), []
        for parameters in optimizer.param_groups:
            parameters["lr"] = parameters["peak_lr"]
        for _ in range(architectures.STEPS):
            totals.append(0.0)
            for indices in micro:
                packed = pack([batch[index] for index in indices]).to(device)
                loss = model.loss(packed).sum() / sum(architectures.LENGTHS)
                loss.backward()
                totals[-1] += float(loss.detach())
            optimizer.step()
            optimizer.zero_grad()
        model.check_finite()
    if not min(totals[1:]) < totals[0]:
        raise ValueError(f"the loss went from {totals[0]:.4f} to {totals[-1]:.4f}")
    return model


def ask(kind: str, device: str) -> tuple[list[tuple[int, ...]], list[float]]:
    """Return answers and log-probabilities of a tiny model in float32."""
    config = tiny_config(kind)
    torch.manual_seed(5)
    model = auto_class(config).from_config(config, dtype=torch.float32).eval()
    for value in model.parameters():
        value.data.mul_(3 if value.ndim > 1 else 1)  # so that layers tell their inputs apart
    draw = torch.Generator().manual_seed(0)
    prompts = [torch.randint(5, 100, (size,), generator=draw).tolist() for size in (9, 5, 13, 9)]
    engine = TransformersEngine(model.to(device), max_length=64, stop_ids=frozenset(), batch_tokens=4096)
    requests = [
        Request(context=tuple(prompt[:-2]), continuations=(tuple(prompt[-2:]), (7, 8, 9))) for prompt in prompts
    ]
    answers = [tuple(answer.token_ids) for answer in engine.generate(prompts, 5)]
    return answers, [value for scores in engine.score(requests) for value in scores.logprobs]


def check_evaluation(kind: str) -> str:
    """Return in what the engine differs on a GPU; empty: in nothing, or it does not answer on a CPU either."""
    try:
        expected, of_cpu = ask(kind, "cpu")
    except Exception:
        return ""
    answers, of_gpu = ask(kind, "cuda")
    gap = max(abs(a - b) for a, b in zip(of_cpu, of_gpu, strict=True))
    return "" if answers == expected and gap < NATS else f"other answers than on a CPU, by {gap:.2g} nats"


def check_type(kind: str, row: Architecture) -> tuple[Architecture, str]:
    """Return the row with what a GPU adds to it, and what went wrong besides."""
    row = replace(
        row,
        gpu_layout="",
        gpu_attention="",
        partly={name: why for name, why in row.partly.items() if not why.startswith(ON_GPU)},
    )
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        architectures.make_base(kind, base)
        for method in METHODS:
            if method in row.partly:
                continue
            try:
                model = check_training(base, method)
            except (MixtuneError, ValueError, RuntimeError) as error:
                row.partly[method] = f"{ON_GPU}{architectures._short(error)}"
                continue
            attention = str(model.causal.config._attn_implementation)
            row = replace(row, gpu_layout=str(model.loss.layout), gpu_attention=attention)
    return row, check_evaluation(kind)


def main(arguments: list[str]) -> int:
    """The command."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if not torch.cuda.is_available():
        print("no GPU here; run it by benchmarks/gpu_on_cpu/run.py", file=sys.stderr)
        return 2
    rows, faults = read_architectures(), 0
    kinds = [name for name in arguments if not name.startswith("-")]
    for kind in kinds or [name for name, row in rows.items() if row.layout]:
        began, shown = time.process_time(), io.StringIO()
        with contextlib.redirect_stdout(shown):
            row, fault = check_type(kind, rows[kind])
        faults += bool(fault)
        seconds = f"{time.process_time() - began:.1f} s"
        print(f"{kind}: {row.gpu_layout} {row.gpu_attention} {row.partly or ''} {fault} ({seconds})", flush=True)
        rows = {**rows, kind: row}
        if "--write" in arguments:
            table = json.loads(FILE.read_text())
            FILE.write_text(json.dumps({**table, "types": {n: asdict(r) for n, r in rows.items()}}, indent=1) + "\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
