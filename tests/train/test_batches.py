"""Who takes which records of a global batch."""

from hypothesis import given
from hypothesis import strategies as st

from mixtune.train.batches import assign_to_ranks, plan_micro_batches, record_cost

LENGTHS = st.lists(st.integers(1, 3000), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 3000), st.integers(1, 8))
def test_every_record_is_in_one_micro_batch_that_keeps_to_the_limit(
    lengths: list[int], max_tokens: int, num_parts: int
) -> None:
    micros = plan_micro_batches(lengths, max_tokens, num_parts, 1000)
    assert sorted(index for micro in micros for index in micro) == list(range(len(lengths)))
    assert all(micros)
    assert all(sum(lengths[index] for index in micro) <= max_tokens or len(micro) == 1 for micro in micros)
    assert len(micros) >= min(num_parts, len(lengths))


@given(st.lists(st.integers(1, 3000), min_size=8, max_size=60), st.integers(1, 8))
def test_micro_batches_with_room_cost_at_most_a_third_more_than_in_the_best_cut(
    lengths: list[int], num_parts: int
) -> None:
    micros = plan_micro_batches(lengths, sum(lengths), num_parts, 1000)
    costs = [record_cost(length, 1000) for length in lengths]
    dearest = max(sum(costs[index] for index in micro) for micro in micros)
    pairs = sorted(costs, reverse=True)[
        num_parts - 1 : num_parts + 1
    ]  # some part holds two of the num_parts + 1 dearest
    assert dearest <= 4 / 3 * max(max(costs), sum(costs) / num_parts, sum(pairs) if len(pairs) > 1 else 0)


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=64), st.integers(1, 32))
def test_micro_batches_are_spread_so_that_no_process_takes_more_than_its_places(
    costs: list[float], num_ranks: int
) -> None:
    ranks = assign_to_ranks(costs, num_ranks)
    assert sorted(index for own in ranks for index in own) == list(range(len(costs)))
    assert len(ranks) == num_ranks
    assert max(len(own) for own in ranks) == -(-len(costs) // num_ranks)


@given(LENGTHS, st.integers(100, 3000))
def test_the_cut_is_the_same_for_as_many_processes_as_it_has_micro_batches(lengths: list[int], max_tokens: int) -> None:
    one = plan_micro_batches(lengths, max_tokens, 1)
    for num_parts in (2, 4, 8):
        if num_parts * max_tokens <= sum(lengths) and num_parts <= len(lengths):
            assert plan_micro_batches(lengths, max_tokens, num_parts) == one
