"""The validation run: a few steps before the expensive part, then the largest micro batch that the training can meet.

Its figures lie under `figures` in the model's manifest, beside those of any training, for `mixtune plan --measured`:

- `first_batch_loss`, `first_batch_loss_after`: mean loss of the first global batch before the steps and after, nats
- `tokens_per_second_per_gpu`: of the steps; the first is left out, kernels are made in it
- `largest_micro_batch_tokens`: no micro batch of the training has more
- `peak_memory_bytes`: of a process, with that micro batch and the optimizer's state
- `memory_limit_bytes`: what the process's GPU has; on a CPU, what the machine or the pod has
- `bytes_per_token`: by which the peak grows with a micro batch
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mixtune.artifacts.shards import TokenRecord
from mixtune.errors import TrainingError
from mixtune.train.batches import pack
from mixtune.train.loop import Trainer, batch_loss
from mixtune.train.metrics import StepFigures, peak_memory
from mixtune.training_math import largest_micro_batch

RISE = 1.02
"""Factor by which the first batch's loss may be higher after the steps: rounding in bfloat16, and dropout."""
CGROUP = Path("/sys/fs/cgroup/memory.max")


def validate(trainer: Trainer, seen: list[StepFigures]) -> dict[str, float]:
    """Make sure that the training learns and fits; the figures come back.

    Args:
        trainer: After its steps.
        seen: They.

    Raises:
        TrainingError: The loss of the first batch did not fall, or the largest micro batch does not fit.
    """
    before, after = seen[0].loss, batch_loss(trainer, 0)
    if not after <= before * RISE:
        raise TrainingError(
            f"validation run: the loss of the first batch went from {before:.3f} to {after:.3f} in {len(seen)} steps "
            "over these very records; lower learning_rate"
        )
    return {"first_batch_loss": before, "first_batch_loss_after": after, **measure_memory(trainer)}


def measure_memory(trainer: Trainer) -> dict[str, float]:
    """Try the largest micro batch, after a quarter and a half of it have shown that it should fit.

    Raises:
        TrainingError: It does not fit.
    """
    device, limit = trainer.world.device, memory_limit(trainer.world.device)
    longest, tokens = longest_micro_batch(trainer)
    sizes = [max(2, tokens // 4), max(2, tokens // 2), tokens]
    peaks: list[float] = []
    slope = 0.0
    for size in sizes:
        if len(peaks) == 2:
            slope = max(0.0, (peaks[1] - peaks[0]) / max(1, sizes[1] - sizes[0]))
        needed = peaks[-1] + slope * (size - sizes[len(peaks) - 1]) if peaks else 0.0
        try:
            fits = needed <= limit
            if fits:
                _try(trainer, min(size, longest), size)
        except (RuntimeError, MemoryError) as error:
            if not _is_memory(error):
                raise
            fits = False
        if not fits:
            raise TrainingError(_does_not_fit(trainer, size, longest, needed, limit))
        peaks.append(peak_memory(device))
    return {
        "largest_micro_batch_tokens": tokens,
        "peak_memory_bytes": peaks[-1],
        "memory_limit_bytes": limit,
        "bytes_per_token": slope,
    }


def longest_micro_batch(trainer: Trainer) -> tuple[int, int]:
    """Tokens of the longest record, and a bound on those of any micro batch."""
    manifest, first = trainer.shards.manifest, trainer.shards.step(0)
    longest = int(manifest.get("max_record_tokens") or max(len(record.input_ids) for record in first))
    return longest, largest_micro_batch(longest, len(first), trainer.config.memory.max_tokens_per_gpu)


def memory_limit(device: torch.device) -> float:
    """Bytes that a process may fill."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    whole = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    text = CGROUP.read_text().strip() if CGROUP.is_file() else ""
    return min(whole, float(text)) if text.isdigit() else whole


def _try(trainer: Trainer, longest: int, tokens: int) -> None:
    """Forward and backward of records of the longest length, so many tokens together; nothing is learned from it."""
    device = trainer.world.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    pattern = trainer.shards.step(0)[0]
    lengths = [longest] * (tokens // longest) + ([tokens % longest] if tokens % longest > 1 else [])
    records = [_stretched(pattern, length) for length in lengths]
    packed = pack(records).to(device)
    if trainer.model.dropout:
        trainer.model.dropout.begin_micro_batch(range(len(records)), lengths)
    trainer.model.loss(packed).sum().backward()
    trainer.optimizer.zero_grad(set_to_none=True)


def _stretched(record: TokenRecord, length: int) -> TokenRecord:
    ids = np.resize(record.input_ids, length)
    return replace(record, input_ids=ids, loss_mask=np.ones(length, np.uint8))


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error)


def _does_not_fit(trainer: Trainer, size: int, longest: int, needed: float, limit: float) -> str:
    ways = ["more or larger GPUs", "max_length (records)" if longest == size else "max_tokens_per_gpu"]
    if trainer.config.method == "sft":
        ways.append("method lora")
    about = f"about {needed / 1e9:.1f} GB" if needed > limit else "more than that"
    return (
        f"validation run: a micro batch of {size:,} tokens does not fit into {limit / 1e9:.1f} GB, it takes {about}; "
        f"the way out is {' or '.join(ways)}"
    )
