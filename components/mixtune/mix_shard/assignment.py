"""Which pool has the next slot: three rules, each an endless sequence of pools.

- `chairman`: by records. R. Tijdeman's chairman assignment (The chairman assignment problem, Discrete Mathematics 32,
  1980): among the pools that are far enough behind their target to be eligible, the one whose deadline comes first.
  With n pools, every pool's count is within 1 - 1/(2(n-1)) records of its target after *every* slot.
- `by_size`: by tokens. Worst-case fair weighted fair queueing (J. Bennett, H. Zhang, WF2Q, INFOCOM 1996): among the
  pools that are not ahead of their share, the one whose next record ends first. Every pool's tokens are within the
  longest record of their target after every slot.
- `whole_batches`: a coin decides whether a whole batch is the customer's or general, as some descriptions of data
  mixing have it. Only the expectation is right: a batch is never mixed. It is there for comparison.
"""

import heapq
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice
from math import ceil, gcd, lcm

from mixtune.mix_shard.permutation import key_words


def whole_weights(shares: Sequence[Fraction]) -> list[int]:
    """The smallest whole numbers in the proportion of the shares."""
    common = lcm(*(share.denominator for share in shares))
    whole = [int(share * common) for share in shares]
    divisor = gcd(*whole)
    return [weight // divisor for weight in whole]


def chairman(shares: Sequence[Fraction], behind: Sequence[Fraction] = ()) -> Iterator[int]:
    """Tijdeman's chairman assignment: the pool of each slot, endlessly. All comparisons are between integers.

    `behind` has the records by which each pool is behind its target as this begins; empty: none is.
    """
    weights = whole_weights(shares)
    active, lacks = [index for index, weight in enumerate(weights) if weight], _even_out(shares, behind)
    common = lcm(*(lacks[index].denominator for index in active))
    weights, total = [weight * common for weight in weights], sum(weights) * common
    owed = [int(lack * total) for lack in lacks]
    scale = max(1, 2 * (len(active) - 1))
    counts = [0] * len(weights)
    # A pool with x records that lacks l may have the next at the slots k with k * weight / total + l - x >= 1 / scale,
    # from `release` on; `deadline` is the last slot after which it can be without: ... <= 1 - 1 / scale.
    waiting = [(-((scale * owed[index] - total) // (scale * weights[index])), index) for index in active]
    eligible: list[tuple[int, int]] = []
    heapq.heapify(waiting)
    slot = 0
    while True:
        slot += 1
        while waiting and waiting[0][0] <= slot:
            index = heapq.heappop(waiting)[1]
            ahead = (scale * counts[index] + scale - 1) * total - scale * owed[index]
            deadline = ahead // (scale * weights[index])
            heapq.heappush(eligible, (deadline, index))
        index = heapq.heappop(eligible)[1]
        yield index
        counts[index] += 1
        release = -((scale * owed[index] - (scale * counts[index] + 1) * total) // (scale * weights[index]))
        heapq.heappush(waiting, (release, index))


def chairman_bound(num_pools: int) -> float:
    """Return how far, in records, `chairman` may be from any pool's target, by the pools that have a share."""
    return 1 - 1 / (2 * (num_pools - 1)) if num_pools > 1 else 0.0


def by_size(
    shares: Sequence[Fraction], sizes: Sequence[Iterator[int]], behind: Sequence[Fraction] = ()
) -> Iterator[int]:
    """Worst-case fair weighted fair queueing: the pool of each slot, endlessly, so that *sizes* are in proportion.

    `sizes` has those of each pool's records in the order in which they are drawn, each at least 1, and `behind` what
    each pool is behind its target as this begins; empty: none is.
    """
    weights = whole_weights(shares)
    active = [index for index, weight in enumerate(weights) if weight]
    whole, lacks = sum(weights), _even_out(shares, behind)
    common = lcm(*(weights[index] for index in active))
    per_unit = {index: common // weights[index] for index in active}
    total = 0
    # On the clock that runs `common` per unit of all pools' work over `whole`, a pool's next record starts when the
    # pool's work so far would be done at exactly its share, and ends when the record would be. Lacks are rounded up,
    # so that one has always started.
    waiting = [(-ceil(lacks[index]) * per_unit[index], index) for index in active]
    eligible: list[tuple[int, int, int]] = []
    heapq.heapify(waiting)
    while True:
        while waiting and waiting[0][0] * whole <= total * common:
            start, index = heapq.heappop(waiting)
            size = next(sizes[index])
            heapq.heappush(eligible, (start + size * per_unit[index], index, size))
        end, index, size = heapq.heappop(eligible)
        yield index
        total += size
        heapq.heappush(waiting, (end, index))


def _even_out(shares: Sequence[Fraction], behind: Sequence[Fraction]) -> list[Fraction]:
    """Return what each pool with a share lacks: in proportion of what the others lack or have too much, 0 in all."""
    lacks = list(behind) or [Fraction(0)] * len(shares)
    common = sum(lack for lack, share in zip(lacks, shares, strict=True) if share)
    return [lack - share * common for lack, share in zip(lacks, shares, strict=True)]


def whole_batches(shares: Sequence[Fraction], batch: int, seed: int, first_step: int = 0) -> Iterator[int]:
    """Whole batches by coin: the pool of each slot, endlessly; the general pools share their batches by `chairman`.

    The first share is the customer's. The coin is thrown for `first_step` first.
    """
    general = chairman([Fraction(0), *shares[1:]]) if any(shares[1:]) else iter(())
    step = first_step
    while True:
        coin = int(key_words(seed, "coin", step, count=1)[0])
        if coin < shares[0] * 2**64:
            yield from [0] * batch
        else:
            yield from islice(general, batch)
        step += 1
