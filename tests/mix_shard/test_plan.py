from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtune.mix_shard.permutation import Permutation
from mixtune.mix_shard.plan import Plan, PlanPool, assign, whole_weights

NOVA = [1, 10, 0.5, 10, 0.1, 1, 1, 2, 1, 13, 0.5, 10, 0.5, 0.5, 0.5, 45, 0.5, 0.5, 0.4, 0.5, 0.4, 1, 0.1]


def nova_shares(customer: Fraction) -> list[Fraction]:
    return [customer, *((1 - customer) * Fraction(str(percent)) / 100 for percent in NOVA)]


def make_plan(shares: list[Fraction], sizes: list[int], batch: int, steps: int, seed: int = 42) -> Plan:
    named = enumerate(zip(sizes, shares, strict=True))
    pools = tuple(PlanPool(name=f"pool{number}", size=size, share=share) for number, (size, share) in named)
    return Plan(pools=pools, global_batch_size=batch, num_steps=steps, seed=seed)


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


@settings(max_examples=60)
@given(plans())
def test_every_pool_is_within_the_bound_of_its_target_after_every_slot(plan: Plan) -> None:
    slots = assign(plan.weights, plan.num_slots)
    assert worst_deviation(slots, plan.weights) <= plan.bound


@pytest.mark.parametrize("customer", ["0.5", "0.75", "0.01"])
def test_nova_categories_stay_within_the_bound_and_the_rarest_appears_on_schedule(customer: str) -> None:
    shares = nova_shares(Fraction(customer))
    weights = whole_weights(shares)
    slots = assign(weights, 32 * 2000)
    assert worst_deviation(slots, weights) <= 1 - Fraction(1, 2 * 23)
    rarest = int((slots == 5).sum())
    assert abs(rarest - shares[5] * len(slots)) < 1


def test_a_share_that_divides_the_global_batch_is_met_in_every_batch_and_in_every_equal_part_of_it() -> None:
    plan = make_plan(nova_shares(Fraction(3, 4)), [100] * 24, 32, 50)
    customer = plan.slots(0, 50).pools.reshape(50, 8, 4) == 0
    assert plan.num_slices == 8
    assert (customer.sum(2) == 3).all()


@settings(max_examples=40)
@given(plans(), st.data())
def test_the_plan_at_a_step_is_the_same_wherever_one_starts(plan: Plan, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, plan.num_steps - 1))
    whole, part = plan.slots(0, plan.num_steps), plan.slots(step, 1)
    span = slice(step * plan.global_batch_size, (step + 1) * plan.global_batch_size)
    assert (whole.pools[span] == part.pools).all()
    assert (whole.records[span] == part.records).all()


@settings(max_examples=40)
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


@given(st.integers(1, 3000), st.integers(0, 5))
def test_a_permutation_holds_every_record_once(size: int, key: int) -> None:
    assert sorted(Permutation(size, key)(np.arange(size)).tolist()) == list(range(size))


def test_permutations_of_different_keys_differ_and_all_orders_come_up() -> None:
    orders = Counter(tuple(Permutation(4, key)(np.arange(4)).tolist()) for key in range(2400))
    assert len(orders) == 24
    assert 50 < min(orders.values()) <= max(orders.values()) < 160
