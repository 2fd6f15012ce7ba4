"""Mixing rules side by side: how far pools are from their targets, within a batch and cumulated.

python benchmarks/mix_rules.py > benchmarks/results/mix_rules.md

Needs `datasets` and `mosaicml-streaming` beside mixtune.
"""

import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np

from mixtune.mix_shard.assignment import chairman, whole_batches

NOVA = [1, 10, 0.5, 10, 0.1, 1, 1, 2, 1, 13, 0.5, 10, 0.5, 0.5, 0.5, 45, 0.5, 0.5, 0.4, 0.5, 0.4, 1, 0.1]
"""Percent of each of Nova's 23 categories in one published mix."""
BATCH, STEPS = 32, 2000
SIZE = BATCH * STEPS
Shares = list[Fraction]


def main() -> None:
    print(f"## {STEPS} steps of {BATCH} records\n")
    print("| mix | rule | worst in one batch | worst cumulated | rarest pool: records (planned) | CPU seconds |")
    print("|---|---|---|---|---|---|")
    for name, shares in mixes().items():
        for rule, assign in RULES.items():
            began = time.process_time()
            try:
                slots = assign(shares)
            except ValueError as error:
                print(f"| {name} | {rule} | refused: {str(error).split(' because')[0]} | | | |")
                continue
            step, total, rare = worst(slots, shares)
            planned, seconds = float(min(shares)) * SIZE, time.process_time() - began
            print(f"| {name} | {rule} | {step:.2f} | {total:.2f} | {rare} ({planned:.0f}) | {seconds:.2f} |")


def mixes() -> dict[str, Shares]:
    """Shares of the customer's pool and of the general ones."""
    whole = sum(Fraction(str(weight)) for weight in NOVA)
    nova = [Fraction(str(weight)) / whole for weight in NOVA]
    found = {f"{part}/{100 - part}": [Fraction(part, 100), Fraction(100 - part, 100)] for part in (50, 75, 90)}
    for part in (50, 75):
        share = Fraction(part, 100)
        found[f"{part}/{100 - part} over Nova's 23 categories"] = [share, *((1 - share) * weight for weight in nova)]
    return found


def worst(slots: np.ndarray, shares: Shares) -> tuple[float, float, int]:
    """Largest distance of a pool from its target within one batch, and cumulated after any; the rarest's records."""
    count = len(shares)
    cells = np.bincount(np.repeat(np.arange(STEPS), BATCH) * count + slots, minlength=STEPS * count)
    counts, target = cells.reshape(STEPS, count), np.array([float(share) for share in shares]) * BATCH
    cumulated = counts.cumsum(0) - np.arange(1, STEPS + 1)[:, None] * target
    rarest = int(np.argmin(target))
    return float(np.abs(counts - target).max()), float(np.abs(cumulated).max()), int(counts[:, rarest].sum())


def by_mixtune(shares: Shares) -> np.ndarray:
    return np.fromiter(islice(chairman(shares), SIZE), np.int64, SIZE)


def by_coin(shares: Shares) -> np.ndarray:
    return np.fromiter(islice(whole_batches(shares, BATCH, 1), SIZE), np.int64, SIZE)


def by_draws(shares: Shares) -> np.ndarray:
    return np.random.default_rng(1).choice(len(shares), SIZE, p=[float(share) for share in shares])


def by_interleaving(shares: Shares) -> np.ndarray:
    """`interleave_datasets`, each data set long enough."""
    from datasets import Dataset, interleave_datasets

    pools = [Dataset.from_dict({"pool": np.full(SIZE, number)}) for number in range(len(shares))]
    mixed = interleave_datasets(pools, [float(share) for share in shares], 1, stopping_strategy="first_exhausted")
    return np.array(mixed.with_format("numpy")[:SIZE]["pool"])


def by_stratifying(shares: Shares) -> np.ndarray:
    """MosaicML's `stratified` batches, each stream long enough, as its loader would hand them out."""
    from streaming import MDSWriter, Stream, StreamingDataset
    from streaming.base.batching.stratified import generate_work_stratified_batching
    from streaming.base.util import clean_stale_shared_memory
    from streaming.base.world import World

    clean_stale_shared_memory()
    with tempfile.TemporaryDirectory() as folder:
        streams = []
        for number, share in enumerate(shares):
            with MDSWriter(out=f"{folder}/{number}", columns={"pool": "int"}) as writer:
                for _ in range(int(SIZE * share) + BATCH):
                    writer.write({"pool": number})
            streams.append(Stream(local=f"{folder}/{number}", proportion=float(share)))
        dataset = StreamingDataset(
            streams=streams, batch_size=BATCH, batching_method="stratified", num_canonical_nodes=1, epoch_size=2 * SIZE
        )
        work = generate_work_stratified_batching(dataset, World.detect(), 0, 0)
        order = work.transpose(3, 2, 0, 1, 4).reshape(-1)[:SIZE]
        firsts = np.cumsum([0, *dataset.samples_per_stream])
        return np.searchsorted(firsts, order, "right") - 1


RULES: dict[str, Callable[[Shares], np.ndarray]] = {
    "mixtune": by_mixtune,
    "`interleave_datasets` (datasets)": by_interleaving,
    "`stratified` (mosaicml-streaming)": by_stratifying,
    "independent draws": by_draws,
    "whole batches by coin (`granularity=batch`)": by_coin,
}

if __name__ == "__main__":
    print(f"# Mixing rules\n\nCommand: `python benchmarks/{Path(__file__).name}`.\n")
    main()
