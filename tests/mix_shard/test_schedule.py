from collections import Counter
from fractions import Fraction
from itertools import islice, repeat
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtune.errors import ConfigError
from mixtune.mix_shard.assignment import by_size, chairman, whole_batches, whole_weights
from mixtune.mix_shard.permutation import Permutation
from mixtune.mix_shard.schedule import Layout, Plan, PlanPool, Stage, lay_out

NOVA = [1, 10, 0.5, 10, 0.1, 1, 1, 2, 1, 13, 0.5, 10, 0.5, 0.5, 0.5, 45, 0.5, 0.5, 0.4, 0.5, 0.4, 1, 0.1]


def nova_shares(customer: Fraction) -> list[Fraction]:
    return [customer, *((1 - customer) * Fraction(str(percent)) / 100 for percent in NOVA)]


def make_layout(stages: list[tuple[int, list[Fraction]]], sizes: list[int], batch: int, **more: Any) -> Layout:
    return Layout(
        pools=tuple(PlanPool(name=f"pool{number}", size=size) for number, size in enumerate(sizes)),
        stages=tuple(Stage(first_step=first, shares=tuple(shares)) for first, shares in stages),
        global_batch_size=batch,
        **{"rule": lambda stage, draws, lacks: chairman(stage.shares, lacks), **more},
    )


def laid_out(layout: Layout, seed: int = 42) -> Plan:
    found = list(lay_out(layout))
    return Plan(
        pools=layout.pools,
        stages=tuple({stage.first_step: stage for stage, _ in found}.values()),
        global_batch_size=layout.global_batch_size,
        seed=seed,
        assigned=np.concatenate([batch for _, batch in found]),
    )


def make_plan(shares: list[Fraction], sizes: list[int], batch: int, steps: int, seed: int = 42) -> Plan:
    return laid_out(make_layout([(0, shares)], sizes, batch, num_steps=steps), seed)


def assign(shares: list[Fraction], count: int) -> np.ndarray:
    return np.fromiter(islice(chairman(shares), count), np.int64, count)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    weights = draw(st.lists(st.integers(0, 2000), min_size=1, max_size=12).filter(any))
    sizes = draw(st.lists(st.integers(1, 300), min_size=len(weights), max_size=len(weights)))
    shares = [Fraction(weight, sum(weights)) for weight in weights]
    return make_plan(shares, sizes, draw(st.integers(1, 48)), draw(st.integers(1, 60)), draw(st.integers(0, 2**40)))


def worst_deviation(slots: np.ndarray, weights: list[int]) -> Fraction:
    counts = (slots[:, None] == np.arange(len(weights))).cumsum(0)
    scaled = counts * sum(weights) - np.arange(1, len(slots) + 1)[:, None] * np.array(weights)
    return Fraction(int(np.abs(scaled).max()), sum(weights))


@settings(max_examples=60, deadline=None)
@given(plans())
def test_every_pool_is_within_the_bound_of_its_target_after_every_slot(plan: Plan) -> None:
    weights = whole_weights(plan.stages[0].shares)
    active = sum(weight > 0 for weight in weights)
    bound = 1 - Fraction(1, 2 * (active - 1)) if active > 1 else 0
    assert worst_deviation(plan.assigned, weights) <= bound


@st.composite
def staged_plans(draw: st.DrawFn) -> Plan:
    """Plans with several stages, in which general pools may reach caps and give their shares to others."""
    count, batch, lengths = draw(st.integers(2, 7)), draw(st.integers(1, 40)), st.integers(1, 5)
    stages, first = [], 0
    for length in draw(st.lists(lengths, min_size=1, max_size=12)):
        weights = draw(st.lists(st.integers(1, 900), min_size=count, max_size=count))
        stages.append((first, [Fraction(weight, sum(weights)) for weight in weights]))
        first += length
    caps = draw(st.lists(st.integers(3 * batch, 20 * batch), min_size=count - 2, max_size=count - 2))
    layout = make_layout(stages, [50] * count, batch, num_steps=first, caps=(10**9, *caps, 10**9))
    return laid_out(layout, draw(st.integers(0, 2**40)))


@settings(max_examples=40, deadline=None)
@given(staged_plans())
def test_over_all_stages_every_pool_stays_within_two_records_of_its_target(plan: Plan) -> None:
    assert worst_over_stages(plan) < 2


def test_stages_of_one_step_leave_no_small_pool_out() -> None:
    shares = [
        [(half := Fraction(100 - step, 100)), (1 - half) * Fraction(9, 10), (1 - half) / 10] for step in range(50)
    ]
    plan = laid_out(make_layout(list(enumerate(shares)), [1000] * 3, 8, num_steps=50))
    assert plan.targets(50)[2] > 9
    assert worst_over_stages(plan) < 1


def worst_over_stages(plan: Plan) -> float:
    ends = range(1, plan.num_steps + 1)
    gaps = [plan.draws_before(step * plan.global_batch_size) - plan.targets(step) for step in ends]
    return float(np.abs(gaps).max())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8), st.integers(1, 7), st.integers(0, 2**40))
def test_every_rank_and_micro_batch_has_its_records_of_every_pool_where_that_divides(
    ranks: int, micros: int, ours: int, theirs: int, seed: int
) -> None:
    width = 2 * (ours + theirs)
    shares = [Fraction(2 * ours, width), Fraction(theirs, width), Fraction(theirs, width)]
    plan = make_plan(shares, [40, 30, 20], ranks * micros * width, 6, seed)
    parts = plan.slots(0, 6).pools.reshape(6 * ranks * micros, width)
    for pool, count in enumerate((2 * ours, theirs, theirs)):
        assert ((parts == pool).sum(1) == count).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 64), st.integers(1, 99), st.integers(1, 3000))
def test_a_category_of_a_thousandth_comes_as_often_as_it_should(batch: int, customer: int, steps: int) -> None:
    rest = 1 - Fraction(customer, 100)
    shares = [Fraction(customer, 100), rest / 1000, rest * Fraction(999, 1000)]
    slots = assign(shares, min(batch * steps, 40_000))
    for part in (len(slots), len(slots) // 2, len(slots) // 3):
        assert abs(int((slots[:part] == 1).sum()) - shares[1] * part) < 1


@pytest.mark.parametrize("customer", ["0.5", "0.75", "0.01"])
def test_nova_categories_stay_within_the_bound_and_the_rarest_appears_on_schedule(customer: str) -> None:
    shares = nova_shares(Fraction(customer))
    weights = whole_weights(shares)
    slots = assign(shares, 32 * 2000)
    assert worst_deviation(slots, weights) <= 1 - Fraction(1, 2 * 23)
    rarest = int((slots == 5).sum())
    assert abs(rarest - shares[5] * len(slots)) < 1


def test_a_share_that_divides_the_global_batch_is_met_in_every_batch_and_in_every_equal_part_of_it() -> None:
    plan = make_plan(nova_shares(Fraction(3, 4)), [100] * 24, 32, 50)
    customer = plan.slots(0, 50).pools.reshape(50, 8, 4) == 0
    assert plan.num_sub_batches == 8
    assert (customer.sum(2) == 3).all()


@settings(max_examples=40, deadline=None)
@given(plans(), st.data())
def test_the_plan_at_a_step_is_the_same_wherever_one_starts(plan: Plan, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, plan.num_steps - 1))
    whole, part = plan.slots(0, plan.num_steps), plan.slots(step, 1)
    span = slice(step * plan.global_batch_size, (step + 1) * plan.global_batch_size)
    assert (whole.pools[span] == part.pools).all()
    assert (whole.records[span] == part.records).all()


@settings(max_examples=40, deadline=None)
@given(plans())
def test_no_record_comes_twice_within_an_epoch_of_its_pool(plan: Plan) -> None:
    slots = plan.slots(0, plan.num_steps)
    for index, pool in enumerate(plan.pools):
        mine = slots.pools == index
        assert sorted(slots.draws[mine]) == list(range(mine.sum()))
        epochs = slots.draws[mine] // pool.size
        seen = Counter(zip(epochs.tolist(), slots.records[mine].tolist(), strict=True))
        assert not seen or max(seen.values()) == 1
        assert not mine.any() or 0 <= slots.records[mine].min() <= slots.records[mine].max() < pool.size


def test_a_new_pool_does_not_reshuffle_the_others() -> None:
    before: dict[int, int] = {}
    after: dict[int, int] = {}
    for count, seen in ((2, before), (3, after)):
        slots = make_plan([Fraction(1, count)] * count, [50] * count, 12, 6).slots(0, 6)
        mine = slots.pools == 0
        seen.update(zip(slots.draws[mine].tolist(), slots.records[mine].tolist(), strict=True))
    assert len(after) == 24
    assert after.items() <= before.items()


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 5))
def test_a_permutation_holds_every_record_once(size: int, key: int) -> None:
    assert sorted(Permutation(size, key)(np.arange(size)).tolist()) == list(range(size))


def test_permutations_of_different_keys_differ_and_all_orders_come_up() -> None:
    orders = Counter(tuple(Permutation(4, key)(np.arange(4)).tolist()) for key in range(2400))
    assert len(orders) == 24
    assert 50 < min(orders.values()) <= max(orders.values()) < 160


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 500), min_size=2, max_size=9), st.integers(1, 60), st.randoms(use_true_random=False))
def test_by_tokens_every_pool_is_within_the_longest_record_of_its_target_after_every_slot(
    weights: list[int], longest: int, random: Any
) -> None:
    drawn: list[list[int]] = [[] for _ in weights]

    def sizes(index: int) -> Any:
        while True:
            drawn[index].append(random.randint(1, longest))
            yield drawn[index][-1]

    shares = [Fraction(weight, sum(weights)) for weight in weights]
    done, counts = [0] * len(weights), [0] * len(weights)
    for pool in islice(by_size(shares, [sizes(index) for index in range(len(weights))]), 400):
        done[pool] += drawn[pool][counts[pool]]
        counts[pool] += 1
        assert all(abs(d - share * sum(done)) <= longest for d, share in zip(done, shares, strict=True))


def test_every_stage_keeps_its_own_shares_and_the_draws_go_on() -> None:
    half, quarter = Fraction(1, 2), Fraction(1, 4)
    layout = make_layout([(0, [half, half]), (5, [quarter, 1 - quarter])], [1000, 1000], 8, num_steps=10)
    plan = laid_out(layout)
    per_step = (plan.assigned.reshape(10, 8) == 0).sum(1)
    assert per_step.tolist() == [4] * 5 + [2] * 5
    slots = plan.slots(0, 10)
    assert sorted(slots.draws[slots.pools == 0]) == list(range(30))
    assert plan.targets(10).tolist() == [30, 50]


def test_a_pool_at_its_cap_gives_its_share_to_the_other_general_pools() -> None:
    shares = [Fraction(1, 2), Fraction(1, 4), Fraction(1, 4)]
    plan = laid_out(make_layout([(0, shares)], [1000, 10, 1000], 8, num_steps=20, caps=(10**9, 20, 10**9)))
    counts = np.bincount(plan.assigned, minlength=3)
    assert counts[0] == 80
    assert counts[1] <= 20 < counts[1] + 3
    assert [float(share) for share in plan.stages[-1].shares] == [0.5, 0, 0.5]


def test_a_run_is_refused_where_every_general_pool_is_at_its_cap() -> None:
    layout = make_layout([(0, [Fraction(1, 2)] * 2)], [100, 5], 8, num_steps=20, caps=(10**9, 10))
    with pytest.raises(ConfigError, match="at step 2 no general pool may give more"):
        list(lay_out(layout))


def test_whole_batches_are_never_mixed_between_customer_and_general() -> None:
    slots = np.fromiter(islice(whole_batches([Fraction(3, 4), Fraction(1, 8), Fraction(1, 8)], 8, 1), 8000), np.int64)
    customer = (slots.reshape(1000, 8) == 0).sum(1)
    assert set(customer) == {0, 8}
    assert 690 < (customer == 8).sum() < 810


def test_a_pool_that_gives_nothing_needs_no_sizes() -> None:
    assert list(islice(by_size([Fraction(1), Fraction(0)], [repeat(3), iter(())]), 5)) == [0] * 5
