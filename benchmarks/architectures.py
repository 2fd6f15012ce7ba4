"""Every model type of the installed transformers that writes text: does it train, exactly, and load where its base loads?

    python benchmarks/architectures.py [TYPE ...] [--write]

makes a tiny model with random weights of each type and, by LoRA and by full tuning, in float32 and bfloat16, asks how
records lie in a forward pass; looks for leaks by the gradient (a loss of one record must not depend on another's
embeddings), which the training's own probe does not use; holds losses against a plain forward over each record alone,
before and after a few steps of training; saves; loads on the untouched base. Without types, or with `--write`, it
writes the table that preflight reads and `docs/models.md` shows, `components/mixtune/artifacts/architectures.json`,
after every type. One process, some twenty minutes of one core for all types.
"""

import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import PeftModel
from safetensors import safe_open
from tiny_configs import tiny_config
from torch.distributed.tensor import DTensor
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)

from mixtune.artifacts.model import FILE, Architecture, read_architectures
from mixtune.artifacts.shards import TokenRecord
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.errors import MixtuneError
from mixtune.interpolation import auto_class, load_pretrained
from mixtune.settings.from_dict import from_dict
from mixtune.settings.train import METHODS, TrainSettings
from mixtune.train.batches import Layout, pack, plan_layout
from mixtune.train.distributed import join_process_group
from mixtune.train.modeling.probe import probe
from mixtune.train.modeling.sharding import gathered_root
from mixtune.train.modeling.trainable import Trainable, load_trainable, make_optimizer

LENGTHS = (70, 41, 66, 9, 25)
STEPS = 4
POSITIONS = 2048
"""Of every tiny configuration; an embedding with as many rows is one of learned positions."""
EXACT = 1e-6
"""Largest part of a loss in float32 by which it may differ from a plain forward's; beyond it, that forward's own
rounding, measured by float64."""
LARGEST = 50_000_000
"""Parameters of a tiny model at most: what is larger has a size that this file does not know how to shrink."""


def all_types() -> list[str]:
    return sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES})


def records(seed: int = 0) -> list[TokenRecord]:
    draw = np.random.default_rng(seed)
    return [
        TokenRecord(
            pool=0,
            record_id="0" * 32,
            input_ids=draw.integers(5, 120, length).astype(np.int32),
            loss_mask=(np.arange(length) >= length // 3).astype(np.uint8),
            weight=1.0,
        )
        for length in LENGTHS
    ]


def make_base(kind: str, folder: Path) -> None:
    """Write a tiny model of a type, as its checkpoints are: whole, with its towers."""
    config = tiny_config(kind)
    for mapping in (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES):
        if names := mapping.get(kind):
            config.architectures = [names if isinstance(names, str) else names[0]]
    auto = auto_class(config)
    with torch.device("meta"):
        size = sum(value.numel() for value in auto.from_config(config).parameters())
    if size > LARGEST:
        raise ValueError(f"a tiny model of it has {size:,} parameters")
    torch.manual_seed(5)
    model = auto.from_config(config)
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim > 1:  # so that layers tell their inputs apart, and experts are chosen unevenly
                value.mul_(3)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((BASE_MODEL / name).read_bytes())


def check_type(kind: str) -> Architecture:
    """Try a type; what fails says so in `refused`."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch:
        base = Path(scratch) / "base"
        try:
            make_base(kind, base)
        except Exception as error:
            return Architecture(refused=f"not tried: {_short(error)}")
        seen: dict[str, Any] = {"reach": {}, "layout": Layout.PACKED, "gap": 0.0, "rounding": 0.0, "positions": False}
        partly: dict[str, str] = {}
        for method in METHODS:
            try:
                for dtype in ("float32", "bfloat16"):
                    out = Path(scratch) / f"{method}-{dtype}"
                    out.mkdir()
                    check_training(base, out, method, dtype, seen)
            except Exception as error:
                if "-v" in sys.argv:
                    raise
                name = "" if isinstance(error, MixtuneError) else f"{type(error).__name__}: "
                partly[method] = f"{name}{_short(error)}"
        if len(partly) == len(METHODS):
            return Architecture(refused=partly["lora"])
        return Architecture(**{**seen, "layout": str(seen["layout"])}, partly=partly)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def check_training(base: Path, out: Path, method: str, dtype: str, seen: dict[str, Any]) -> None:
    recomputes = (
        dtype == "bfloat16"
        and auto_class(AutoConfig.from_pretrained(base))
        ._model_mapping[type(AutoConfig.from_pretrained(base))]
        .supports_gradient_checkpointing
    )
    memory = {"dtype": dtype, "activations": "recompute" if recomputes else "keep", "max_tokens_per_gpu": 160}
    adapter = {"lora_rank": 4, "lora_options": {"lora_plus_ratio": 4.0}} if method == "lora" else {}
    options = {"method": method, "learning_rate": 1e-3, "memory": memory, **adapter}
    settings = from_dict(TrainSettings, options, "settings")
    model = load_trainable(base, settings)
    untouched = {
        name: value.detach().clone() for name, value in model.causal.named_parameters() if not value.requires_grad
    }
    batch = records()
    probe(model.loss, batch[:3])
    rows = [module.num_embeddings for module in model.loss.decoder.modules() if isinstance(module, torch.nn.Embedding)]
    seen["positions"] = any(POSITIONS <= count <= POSITIONS + 2 for count in rows)
    order = list(Layout)
    seen["layout"] = max(seen["layout"], model.loss.layout, key=order.index)
    if method == "lora":
        seen["reach"] = {name: round(share, 2) for name, share in model.reach.by_kind.items()}
    micro = plan_layout(model.loss.layout, LENGTHS, 160 if model.loss.layout is not Layout.SINGLE else 1)
    if not model.is_sharded:
        check_gradient_leak(model, [batch[index] for index in max(micro, key=len)])
    check_losses(model, batch, micro, seen)
    train(model, settings, batch, micro)
    check_losses(model, batch, micro, seen)  # an adapter adds something by now
    for name, value in model.causal.named_parameters():
        if name in untouched and not torch.equal(value, untouched[name]):
            raise ValueError(f"{name} is frozen and changed")
    model.save(out)
    check_saved(model, base, out, dtype)


def check_gradient_leak(model: Trainable, group: list[TokenRecord]) -> None:
    """No loss of a record may depend on another record's embeddings, those of its first tokens included."""
    if len(group) < 2:
        return
    group = [replace(record, loss_mask=np.ones_like(record.loss_mask)) for record in group]
    outputs = []

    def begin_here(_module: torch.nn.Module, _inputs: object, out: torch.Tensor) -> torch.Tensor:
        outputs.append(out.detach().requires_grad_())
        return outputs[-1].clone()

    handle = model.causal.get_input_embeddings().register_forward_hook(begin_here)
    packed = pack(group)
    losses = model.loss(packed)
    handle.remove()
    embedded = outputs[0]
    rows = np.repeat(np.arange(len(group)), [len(record.input_ids) for record in group])
    places = packed.places if model.loss.layout is Layout.ROWS else torch.arange(len(rows))
    for number in range(len(group)):
        (gradient,) = torch.autograd.grad(
            losses[packed.records == number].sum(), embedded, retain_graph=True, allow_unused=False
        )
        by_token = gradient.flatten(0, 1)[places].abs().amax(-1)
        others = torch.from_numpy(rows != number)
        if by_token[others].any() or not by_token[~others].any():
            raise ValueError(
                f"the loss of a record depends on another's embeddings, by {float(by_token[others].max()):.2g}"
            )


def check_losses(model: Trainable, batch: list[TokenRecord], micro: list[list[int]], seen: dict[str, Any]) -> None:
    """In float32, losses must be a plain forward's, or as near as that one is to itself in float64."""
    gap = compare_with_plain_forward(model, batch, micro)
    if model.loss.dtype != torch.float32:
        return
    seen["gap"] = max(seen["gap"], gap)
    if gap > EXACT:
        rounding = measure_rounding(model, batch)
        seen["rounding"] = max(seen["rounding"], rounding)
        if gap > rounding:
            raise ValueError(
                f"losses differ from a plain forward by {gap:.1g} of themselves, rounding by {rounding:.1g}"
            )


def compare_with_plain_forward(model: Trainable, batch: list[TokenRecord], micro: list[list[int]]) -> float:
    """Return the largest difference of a token's loss, in parts of the loss, or in nats where that is below one."""
    worst = 0.0
    model.loss.eval()
    with torch.no_grad():
        for indices in micro:
            group = [batch[index] for index in indices]
            packed = pack(group)
            losses = model.loss(packed)
            for number, record in enumerate(group):
                with model.loss.precision(losses.device), gathered_root(model.loss):
                    alone = losses_alone(model.causal, record)
                worst = max(worst, _largest_part(losses[packed.records == number], alone))
    model.loss.train()
    return worst


def measure_rounding(model: Trainable, batch: list[TokenRecord]) -> float:
    """Return by how much the losses of a plain forward are others in float64, in the same parts."""
    double = deepcopy(model.causal).double().eval()
    with torch.no_grad():
        return max(
            _largest_part(losses_alone(model.causal.eval(), record), losses_alone(double, record)) for record in batch
        )


def losses_alone(causal: torch.nn.Module, record: TokenRecord) -> torch.Tensor:
    """Return the losses of a record's tokens by the model's own logits, over this record alone."""
    ids = torch.from_numpy(record.input_ids.astype(np.int64))
    places = np.flatnonzero(record.loss_mask[1:])
    logits = causal(input_ids=ids[None], use_cache=False).logits[0, places]
    if logits.dtype != torch.float64:
        logits = logits.float()
    return torch.nn.functional.cross_entropy(logits, ids[places + 1], reduction="none")


def _largest_part(losses: torch.Tensor, others: torch.Tensor) -> float:
    return float(((losses - others).abs() / others.clamp(min=1)).max())


def train(model: Trainable, settings: TrainSettings, batch: list[TokenRecord], micro: list[list[int]]) -> None:
    optimizer, totals = make_optimizer(model, settings), []
    touched: set[str] = set()
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"]
    for _ in range(STEPS):
        total = 0.0
        for indices in micro:
            loss = model.loss(pack([batch[index] for index in indices])).sum() / sum(LENGTHS)
            loss.backward()
            total += float(loss.detach())
        touched |= {name for name, value in model.parameters().items() if value.grad is not None}
        optimizer.step()
        optimizer.zero_grad()
        totals.append(total)
    model.check_finite()
    if not min(totals[1:]) < totals[0]:
        raise ValueError(f"the loss went from {totals[0]:.4f} to {totals[-1]:.4f}")
    idle = [name for name in model.parameters() if name not in touched and "lora_" in name]
    if idle:
        raise ValueError(
            f"{len(idle)} of {len(model.parameters())} adapter matrices get no gradient, such as {idle[0]}"
        )


def check_saved(model: Trainable, base: Path, out: Path, dtype: str) -> None:
    ids = torch.from_numpy(records(1)[0].input_ids.astype(np.int64))[None]
    stored = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    if model.adapter:
        loaded = PeftModel.from_pretrained(load_pretrained(base, dtype=stored), str(out))
    else:
        loaded = load_pretrained(out, dtype=torch.float32)
        before, after = keys(base), keys(out)
        if before != after:
            raise ValueError(f"saved weights have other names: {sorted(before ^ after)[:2]}")
        config = [json.loads((folder / "config.json").read_text()) for folder in (base, out)]
        if (
            config[0]["architectures"] != config[1]["architectures"]
            or config[0]["model_type"] != config[1]["model_type"]
        ):
            raise ValueError("the saved model is of another class than the base")
    with torch.no_grad(), model.loss.precision(ids.device), gathered_root(model.loss):
        plain = load_pretrained(base, dtype=stored).eval()(input_ids=ids, use_cache=False).logits.float()
        trained = model.causal.eval()(input_ids=ids, use_cache=False).logits.float()
        again = loaded.eval()(input_ids=ids, use_cache=False).logits.float()
    moved, differs = float((trained - plain).abs().max()), float((trained - again).abs().max())
    if moved == 0 or (dtype == "float32" and differs > 1e-4):
        raise ValueError(f"loaded again, logits differ by {differs:.2g}; training moved them by {moved:.2g}")
    theirs = dict(loaded.named_parameters())
    for name, value in model.parameters().items():
        full = value.full_tensor() if isinstance(value, DTensor) else value
        if not torch.equal(theirs[name].float(), (full if model.adapter else full.to(model.loss.dtype)).float()):
            raise ValueError(f"loaded again, {name} has other values")


def keys(folder: Path) -> set[str]:
    names: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as handle:
            names |= set(handle.keys())
    return names


def main(kinds: list[str], *, write: bool) -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    table = {}
    rows = read_architectures() if FILE.exists() else {}
    for kind in kinds or all_types():
        began = time.process_time()
        table[kind] = row = check_type(kind)
        reach = ", ".join(f"{name} {share:.0%}" for name, share in row.reach.items())
        print(
            f"{kind}: {row.layout or 'REFUSED ' + row.refused} {reach} {row.gap:.0e} {row.partly or ''} ({time.process_time() - began:.1f} s)",
            flush=True,
        )
        if write:
            before = rows.get(kind, row)
            row = replace(row, gpu_layout=before.gpu_layout, gpu_attention=before.gpu_attention)  # gpu_architectures.py
            rows = {**rows, kind: row}
            types = {name: asdict(rows[name]) for name in sorted(all_types()) if name in rows}
            FILE.write_text(json.dumps({"transformers": transformers.__version__, "types": types}, indent=1) + "\n")
    print(Counter(row.layout or row.refused.split(":")[0] for row in table.values()))


if __name__ == "__main__":
    with join_process_group():
        kinds = [name for name in sys.argv[1:] if not name.startswith("-")]
        main(kinds, write=not kinds or "--write" in sys.argv)
