"""The plan: for every slot of every global batch, which record of which pool. Pure arithmetic, no data is read.

Slots are given to pools by Tijdeman's chairman assignment (R. Tijdeman, The chairman assignment problem, Discrete
Mathematics 32, 1980): among the pools that are far enough behind their target to be eligible, the one whose deadline
comes first. With n pools, the count of every pool stays within 1 - 1/(2(n-1)) records of its target after *every*
slot, so a category of 0.1 % appears on schedule, and a share that divides the global batch is met in every batch.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import lcm

import numpy as np

from mixtune.mix_shard.permutation import Permutation, key_words, mix_bits

CHUNK_SLOTS = 2**18
"""Slots that are planned at once; bounds the plan's memory."""


def whole_weights(shares: Sequence[Fraction]) -> list[int]:
    """The smallest whole numbers in the proportion of the shares."""
    common = lcm(*(share.denominator for share in shares))
    whole = [int(share * common) for share in shares]
    divisor = int(np.gcd.reduce(np.array(whole, dtype=object)))
    return [weight // divisor for weight in whole]


def assign(weights: Sequence[int], num_slots: int) -> np.ndarray:
    """Tijdeman's chairman assignment: the pool of each of the first slots.

    All comparisons are between integers. The sequence repeats after `sum(weights)` slots.

    Args:
        weights: Whole numbers in the proportion of the shares; 0 for a pool that never gets a slot.
        num_slots: Number of slots.

    Returns:
        Indices into `weights`: uint16, (num_slots,).
    """
    total, active = sum(weights), [index for index, weight in enumerate(weights) if weight]
    if len(active) == 1:
        return np.full(num_slots, active[0], np.uint16)
    scale = 2 * (len(active) - 1)
    counts = [0] * len(weights)
    # A pool with x records may have the next at the slots k with k * weight / total - x >= 1 / scale, from `release`
    # on; `deadline` is the last slot after which it can be without: k * weight / total - x <= 1 - 1 / scale.
    waiting = [(-(-total // (scale * weights[index])), index) for index in active]
    eligible: list[tuple[int, int]] = []
    heapq.heapify(waiting)
    slots = np.empty(num_slots, np.uint16)
    for slot in range(1, num_slots + 1):
        while waiting and waiting[0][0] <= slot:
            index = heapq.heappop(waiting)[1]
            deadline = (scale * counts[index] + scale - 1) * total // (scale * weights[index])
            heapq.heappush(eligible, (deadline, index))
        index = heapq.heappop(eligible)[1]
        slots[slot - 1] = index
        counts[index] += 1
        release = -(-(scale * counts[index] + 1) * total // (scale * weights[index]))
        heapq.heappush(waiting, (release, index))
    return slots


@dataclass(frozen=True, kw_only=True)
class PlanPool:
    """A pool as the plan sees it."""

    name: str
    size: int
    """Number of records that can be drawn."""
    share: Fraction
    """Share of every global batch, 0 to 1; the shares of all pools sum to 1."""


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
    global_batch_size: int
    """Records of one step, over all GPUs."""
    num_steps: int
    seed: int

    @property
    def num_slots(self) -> int:
        """Number of records in the whole plan, repeats included."""
        return self.num_steps * self.global_batch_size

    @property
    def bound(self) -> Fraction:
        """How far the count of a pool may be from its target, at any slot."""
        active = sum(pool.share > 0 for pool in self.pools)
        return 1 - Fraction(1, 2 * (active - 1)) if active > 1 else Fraction(0)

    @cached_property
    def weights(self) -> list[int]:
        """The pools' shares as whole numbers."""
        return whole_weights([pool.share for pool in self.pools])

    @cached_property
    def _period(self) -> np.ndarray:
        return assign(self.weights, min(sum(self.weights), self.num_slots))

    @cached_property
    def _seen_in_period(self) -> np.ndarray:
        seen = np.empty(len(self._period), np.int64)
        for index in range(len(self.pools)):
            mine = np.flatnonzero(self._period == index)
            seen[mine] = np.arange(len(mine))
        return seen

    @property
    def num_slices(self) -> int:
        """Equal slices of a global batch that hold the first pool's share exactly, as many as there can be."""
        counts = range(self.global_batch_size, 0, -1)
        share = self.pools[0].share * self.global_batch_size
        return next(n for n in counts if self.global_batch_size % n == 0 and (n == 1 or (share / n).denominator == 1))

    def slots(self, first_step: int, num_steps: int) -> Slots:
        """What is in the slots of these steps, in training order; needs nothing of the steps before."""
        pools, draws = self._assigned(first_step * self.global_batch_size, num_steps * self.global_batch_size)
        order = self._order(first_step, num_steps)
        pools, draws = pools[order], draws[order]
        return Slots(pools=pools, draws=draws, records=self._records(pools, draws))

    def draws_by(self, num_slots: int) -> np.ndarray:
        """Records that each pool has given after so many slots: int64, (pools,)."""
        whole, rest = divmod(num_slots, len(self._period))
        count = len(self.pools)
        in_rest = np.bincount(self._period[:rest], minlength=count)
        return np.bincount(self._period, minlength=count) * whole + in_rest

    def _assigned(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        periods, places = np.divmod(np.arange(first, first + count), len(self._period))
        pools = self._period[places]
        per_period = np.bincount(self._period, minlength=len(self.pools))
        return pools, periods * per_period[pools] + self._seen_in_period[places]

    def _order(self, first_step: int, num_steps: int) -> np.ndarray:
        first, count = first_step * self.global_batch_size, num_steps * self.global_batch_size
        numbers = np.arange(first, first + count, dtype=np.uint64)
        keys = mix_bits(mix_bits(numbers + key_words(self.seed, "order")[0]) + key_words(self.seed, "order")[1])
        width = self.global_batch_size // self.num_slices
        within = np.argsort(keys.reshape(-1, width), axis=1, kind="stable")
        return (within + np.arange(0, count, width)[:, None]).reshape(-1)

    def _records(self, pools: np.ndarray, draws: np.ndarray) -> np.ndarray:
        records = np.empty(len(pools), np.int64)
        for index, pool in enumerate(self.pools):
            mine = np.flatnonzero(pools == index)
            if not mine.size:
                continue
            epochs, places = np.divmod(draws[mine], pool.size)
            for epoch in np.unique(epochs):
                chosen = epochs == epoch
                permutation = Permutation(pool.size, self.seed, pool.name, int(epoch))
                records[mine[chosen]] = permutation(places[chosen])
        return records
