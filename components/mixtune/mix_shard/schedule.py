"""The plan: for every slot of every global batch, which record of which pool. Pure arithmetic, no data is read.

Slots are given to pools by a rule of `assignment.py`, laid out ahead batch by batch; which record a pool gives at its
k-th draw is computed (`permutation.py`). So any step is found without the steps before.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import islice

import numpy as np

from mixtune.errors import ConfigError
from mixtune.mix_shard.permutation import Permutation, key_words, mix_bits

CHUNK_SLOTS = 2**16
"""Slots that are planned at once; bounds the plan's memory."""
MIN_SLICE = 8
"""Records of the equal slices of a batch where no slice holds the first pool's share exactly."""


@dataclass(frozen=True, kw_only=True)
class PlanPool:
    """A pool as the plan sees it."""

    name: str
    size: int
    """Number of records that can be drawn."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Steps with the same shares."""

    first_step: int
    shares: tuple[Fraction, ...]
    """Share of every pool, 0 to 1; they sum to 1."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How slots are laid out."""

    pools: tuple[PlanPool, ...]
    stages: tuple[Stage, ...]
    global_batch_size: int
    rule: Callable[[int, tuple[Fraction, ...], list[int]], Iterator[int]]
    """A stage's pools, endlessly, from its first step, its shares, and the records that every pool has given before."""
    num_steps: int = 0
    """Steps; 0: until the first pool has given `first_pool_draws` records."""
    first_pool_draws: int = 0
    caps: tuple[int, ...] = ()
    """Records after which a general pool's share goes to the other general pools; empty: no caps."""


def lay_out(layout: Layout) -> Iterator[tuple[Stage, np.ndarray]]:
    """Global batches in order: the stage, and the pool of each slot, uint16, (global batch size,).

    A stage begins anew where the shares change: where a stage is asked for, or a pool has reached its cap.

    Raises:
        ConfigError: Every general pool has reached its cap.
    """
    given, step, closed = np.zeros(len(layout.pools), np.int64), 0, set[int]()
    planned, size = list(layout.stages), layout.global_batch_size
    current: Stage | None = None
    asked = planned[0].shares
    while step < layout.num_steps if layout.num_steps else given[0] < layout.first_pool_draws:
        changed = current is None
        if planned and planned[0].first_step <= step:
            asked, changed = planned.pop(0).shares, True
        full = _full_pools(layout.caps, given, asked, size) - closed
        closed |= full
        if changed or full:
            current = Stage(first_step=step, shares=_without(asked, closed, layout, step))
            pools = layout.rule(step, current.shares, given.tolist())
        batch = np.fromiter(islice(pools, size), np.uint16, size)
        given += np.bincount(batch, minlength=len(given))
        assert current is not None
        yield current, batch
        step += 1


def _full_pools(caps: Sequence[int], given: np.ndarray, shares: Sequence[Fraction], size: int) -> set[int]:
    """General pools that the next batch could take past their cap."""
    return {index for index, cap in enumerate(caps) if index and given[index] + float(shares[index]) * size + 1 > cap}


def _without(shares: tuple[Fraction, ...], closed: set[int], layout: Layout, step: int) -> tuple[Fraction, ...]:
    left = sum((share for index, share in enumerate(shares) if index and index not in closed), Fraction(0))
    if not closed or shares[0] == 1:
        return shares
    if left == 0:
        names = ", ".join(repr(layout.pools[index].name) for index in sorted(closed))
        raise ConfigError(
            f"max_epochs_per_pool: at step {step} no general pool may give more ({names} have reached it); raise it, "
            "give more general records, or take fewer steps"
        )
    scale = (1 - shares[0]) / left
    return tuple(
        share if not index else Fraction(0) if index in closed else share * scale for index, share in enumerate(shares)
    )


@dataclass(frozen=True)
class Slots:
    """Consecutive slots, and what is in them; arrays of one length."""

    pools: np.ndarray
    """uint16: index of the pool."""
    draws: np.ndarray
    """int64: how many records of that pool come before this one in the whole plan."""
    records: np.ndarray
    """int64: index of the record within the pool."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The whole training order."""

    pools: tuple[PlanPool, ...]
    stages: tuple[Stage, ...]
    """As they came about, redistributed shares included."""
    global_batch_size: int
    """Records of one step, over all GPUs."""
    seed: int
    assigned: np.ndarray
    """Pool of every slot: uint16, (steps x global batch size,)."""

    @property
    def num_slots(self) -> int:
        """Number of records in the whole plan, repeats included."""
        return len(self.assigned)

    @property
    def num_steps(self) -> int:
        """Number of steps."""
        return len(self.assigned) // self.global_batch_size

    @cached_property
    def _given(self) -> np.ndarray:
        """Records that every pool has given before every chunk: int64, (chunks + 1, pools)."""
        chunks = [
            np.bincount(self.assigned[first : first + CHUNK_SLOTS], minlength=len(self.pools))
            for first in range(0, self.num_slots, CHUNK_SLOTS)
        ]
        return np.concatenate([np.zeros((1, len(self.pools)), np.int64), np.array(chunks).cumsum(0)])

    @property
    def num_slices(self) -> int:
        """Equal slices of a global batch, as many as there can be with the first pool's share exact in each.

        Records are shuffled within a slice, so that every rank and micro batch made of whole slices has its share of
        every pool: exactly where the share of its records is a whole number, else within two records.
        """
        size = self.global_batch_size
        widths = [width for width in range(1, size + 1) if size % width == 0]
        firsts = [stage.shares[0] for stage in self.stages if 0 < stage.shares[0] < 1]
        fitting = [w for w in widths if firsts and all((share * w).denominator == 1 for share in firsts)]
        width = fitting[0] if fitting else next((w for w in widths if w >= MIN_SLICE), size)
        return size // width

    def slots(self, first_step: int, num_steps: int) -> Slots:
        """What is in the slots of these steps, in training order; needs nothing of the steps before."""
        pools, draws = self._drawn(first_step * self.global_batch_size, num_steps * self.global_batch_size)
        order = self._order(first_step, num_steps)
        pools, draws = pools[order], draws[order]
        return Slots(pools=pools, draws=draws, records=draw_records(self.pools, self.seed, pools, draws))

    def given(self, num_slots: int) -> np.ndarray:
        """Records that each pool has given after so many slots: int64, (pools,)."""
        chunk = num_slots // CHUNK_SLOTS
        rest = np.bincount(self.assigned[chunk * CHUNK_SLOTS : num_slots], minlength=len(self.pools))
        return np.asarray(self._given[chunk] + rest)

    def targets(self, step: int) -> np.ndarray:
        """Records that each pool should have given before a step: float64, (pools,)."""
        ends = [*(stage.first_step for stage in self.stages[1:]), self.num_steps]
        target = np.zeros(len(self.pools))
        for stage, end in zip(self.stages, ends, strict=True):
            steps = max(0, min(step, end) - stage.first_step)
            target += np.array([float(share) for share in stage.shares]) * steps * self.global_batch_size
        return target

    def _drawn(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        pools = np.asarray(self.assigned[first : first + count])
        before, draws = self.given(first), np.empty(count, np.int64)
        for index in np.unique(pools):
            mine = np.flatnonzero(pools == index)
            draws[mine] = before[index] + np.arange(len(mine))
        return pools, draws

    def _order(self, first_step: int, num_steps: int) -> np.ndarray:
        first, count = first_step * self.global_batch_size, num_steps * self.global_batch_size
        numbers = np.arange(first, first + count, dtype=np.uint64)
        keys = mix_bits(mix_bits(numbers + key_words(self.seed, "order")[0]) + key_words(self.seed, "order")[1])
        width = self.global_batch_size // self.num_slices
        within = np.argsort(keys.reshape(-1, width), axis=1, kind="stable")
        return (within + np.arange(0, count, width)[:, None]).reshape(-1)


def draw_records(pools: Sequence[PlanPool], seed: int, chosen: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """The record of each draw of the chosen pools: int64; without replacement in a pool's epoch, each in its order."""
    records = np.empty(len(chosen), np.int64)
    for index, pool in enumerate(pools):
        mine = np.flatnonzero(chosen == index)
        if not mine.size:
            continue
        epochs, places = np.divmod(draws[mine], pool.size)
        for epoch in np.unique(epochs):
            these = epochs == epoch
            records[mine[these]] = Permutation(pool.size, seed, pool.name, int(epoch))(places[these])
    return records
