"""The plan: for every slot of every global batch, which record of which pool. Pure arithmetic, no data is read.

A rule from `assignment.py` assigns every slot of every batch to a pool, batch by batch. `permutation.py` computes which
record a pool's k-th draw returns, so that any step is found on its own.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import count, islice

import numpy as np

from mixtune.errors import ConfigError
from mixtune.mix_shard.permutation import Permutation, key_words, mix_bits

CHUNK_SLOTS = 2**16
"""Slots that are planned at once; bounds the plan's memory."""
MIN_SUB_BATCH = 8
"""Records of a sub-batch where none holds the first pool's share exactly."""


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
    """What the plan of a run is made from."""

    pools: tuple[PlanPool, ...]
    stages: tuple[Stage, ...]
    global_batch_size: int
    rule: Callable[[Stage, list[int], list[Fraction]], Iterator[int]]
    """Yields a stage's pool of each slot, endlessly: by every pool's draws before it, and what it lacks then."""
    num_steps: int = 0
    """Steps; 0: until the first pool has given `first_pool_draws` records."""
    first_pool_draws: int = 0
    caps: tuple[int, ...] = ()
    """Draws after which a general pool's share goes to the other general pools; empty: no caps."""

    def is_over(self, step: int, draws: np.ndarray) -> bool:
        """Return whether the run ends before a step."""
        return step >= self.num_steps if self.num_steps else bool(draws[0] >= self.first_pool_draws)


class Schedule:
    """The shares of a run, step by step: those of the stage, without the general pools that have reached their cap."""

    def __init__(self, layout: Layout) -> None:
        self._layout, self._pending = layout, list(layout.stages)
        self._shares: tuple[Fraction, ...] = ()
        self._capped: set[int] = set()

    def begin_stage(self, step: int, draws: np.ndarray) -> Stage | None:
        """Return the stage that begins at a step, as planned or since a pool has reached its cap; None where none does.

        Steps come in their order; `draws`, int64 (pools,), are those of every pool before it.

        Raises:
            ConfigError: Every general pool has reached its cap.
        """
        is_planned = bool(self._pending) and self._pending[0].first_step <= step
        if is_planned:
            self._shares = self._pending.pop(0).shares
        newly_capped = self._find_full(draws) - self._capped
        if not is_planned and not newly_capped:
            return None
        self._capped |= newly_capped
        return Stage(first_step=step, shares=self._redistribute(step))

    def _find_full(self, draws: np.ndarray) -> set[int]:
        """Return the general pools that the next batch could take past their cap."""
        size = self._layout.global_batch_size
        ends = [int(num_draws) + float(share) * size + 1 for num_draws, share in zip(draws, self._shares, strict=True)]
        return {index for index, cap in enumerate(self._layout.caps) if index and ends[index] > cap}

    def _redistribute(self, step: int) -> tuple[Fraction, ...]:
        """Return the shares with those of capped pools given to the other general pools, in proportion."""
        customer, *general = self._shares
        open_share = sum((share for index, share in enumerate(general, 1) if index not in self._capped), Fraction(0))
        if not self._capped or customer == 1:
            return self._shares
        if open_share == 0:
            names = ", ".join(repr(self._layout.pools[index].name) for index in sorted(self._capped))
            raise ConfigError(
                f"max_epochs_per_pool: at step {step} no general pool may give more ({names} have reached it); raise "
                "it, give more general records, or take fewer steps"
            )
        scale = (1 - customer) / open_share
        shares = (Fraction(0) if index in self._capped else share * scale for index, share in enumerate(general, 1))
        return (customer, *shares)


def lay_out(layout: Layout) -> Iterator[tuple[Stage, np.ndarray]]:
    """Yield global batches in order: the stage, and the pool of each slot, uint16, (global batch size,).

    Raises:
        ConfigError: Every general pool has reached its cap.
    """
    schedule, draws = Schedule(layout), np.zeros(len(layout.pools), np.int64)
    due = [Fraction(0)] * len(draws)
    current = Stage(first_step=0, shares=tuple(due))
    for step in count():
        if layout.is_over(step, draws):
            return
        if stage := schedule.begin_stage(step, draws):
            slots_since = (step - current.first_step) * layout.global_batch_size
            due = [each + share * slots_since for each, share in zip(due, current.shares, strict=True)]
            lacks = [each - num_draws for each, num_draws in zip(due, draws.tolist(), strict=True)]
            current, slots = stage, layout.rule(stage, draws.tolist(), lacks)
        batch = np.fromiter(islice(slots, layout.global_batch_size), np.uint16, layout.global_batch_size)
        draws += np.bincount(batch, minlength=len(draws))
        yield current, batch


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
    def _draws_by_chunk(self) -> np.ndarray:
        """Draws of every pool before every chunk: int64, (chunks + 1, pools)."""
        chunks = [
            np.bincount(self.assigned[first : first + CHUNK_SLOTS], minlength=len(self.pools))
            for first in range(0, self.num_slots, CHUNK_SLOTS)
        ]
        return np.concatenate([np.zeros((1, len(self.pools)), np.int64), np.array(chunks).cumsum(0)])

    @property
    def num_sub_batches(self) -> int:
        """Equal parts of a global batch, as many as there can be with the first pool's share exact in each.

        Records are shuffled within a part, so that every rank and micro batch made of whole parts has its share of
        every pool: exactly where the share of its records is a whole number, else within two records.
        """
        size = self.global_batch_size
        widths = [width for width in range(1, size + 1) if size % width == 0]
        customer = [stage.shares[0] for stage in self.stages if 0 < stage.shares[0] < 1]
        exact = [width for width in widths if customer and all((share * width).denominator == 1 for share in customer)]
        return size // (exact[0] if exact else next((width for width in widths if width >= MIN_SUB_BATCH), size))

    def slots(self, first_step: int, num_steps: int) -> Slots:
        """Return what is in the slots of these steps, in training order; needs nothing of the steps before."""
        first, num_slots = first_step * self.global_batch_size, num_steps * self.global_batch_size
        pools = np.asarray(self.assigned[first : first + num_slots])
        before, draws = self.draws_before(first), np.empty(num_slots, np.int64)
        for index in np.unique(pools):
            mine = np.flatnonzero(pools == index)
            draws[mine] = before[index] + np.arange(len(mine))
        order = self._shuffle(first, num_slots)
        pools, draws = pools[order], draws[order]
        return Slots(pools=pools, draws=draws, records=draw_records(self.pools, self.seed, pools, draws))

    def draws_before(self, slot: int) -> np.ndarray:
        """Return the draws of every pool before a slot: int64, (pools,)."""
        chunk = slot // CHUNK_SLOTS
        rest = np.bincount(self.assigned[chunk * CHUNK_SLOTS : slot], minlength=len(self.pools))
        return np.asarray(self._draws_by_chunk[chunk] + rest)

    def targets(self, step: int) -> np.ndarray:
        """Return the draws that each pool should have before a step: float64, (pools,)."""
        ends = [*(stage.first_step for stage in self.stages[1:]), self.num_steps]
        target = np.zeros(len(self.pools))
        for stage, end in zip(self.stages, ends, strict=True):
            steps = max(0, min(step, end) - stage.first_step)
            target += np.array([float(share) for share in stage.shares]) * steps * self.global_batch_size
        return target

    def _shuffle(self, first: int, num_slots: int) -> np.ndarray:
        """Return the order of slots, seeded, within every sub-batch: int64, (num_slots,), counted from `first`."""
        numbers = np.arange(first, first + num_slots, dtype=np.uint64)
        words = key_words(self.seed, "order")
        keys = mix_bits(mix_bits(numbers + words[0]) + words[1])
        width = self.global_batch_size // self.num_sub_batches
        within = np.argsort(keys.reshape(-1, width), axis=1, kind="stable")
        return (within + np.arange(0, num_slots, width)[:, None]).reshape(-1)


def draw_records(pools: Sequence[PlanPool], seed: int, chosen: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return the record of each draw of the chosen pools: int64; without replacement within a pool's epoch."""
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
