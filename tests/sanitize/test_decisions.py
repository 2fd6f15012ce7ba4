"""The policy of near-duplicates, pair by pair, and which records have to stay together."""

import random

import numpy as np
import pytest

from mixtune.sanitize.dedup.decisions import Relation, first_linked, relate
from mixtune.sanitize.dedup.protected import Origin

C, X, G, N = Relation.COPY, Relation.CONFLICT, Relation.SAME_GROUP, Relation.NOTHING
# By origins of first and second: same answer and template, same answer alone, same template alone, neither.
TABLE = {
    (Origin.BENCHMARK, Origin.TRAIN): (C, C, C, C),
    (Origin.HELD_OUT, Origin.TRAIN): (C, C, C, C),
    (Origin.OTHER_TRAIN, Origin.TRAIN): (C, N, N, N),
    (Origin.TEST, Origin.TRAIN): (C, C, X, G),
    (Origin.TRAIN, Origin.TRAIN): (C, G, X, G),
    (Origin.TEST, Origin.TEST): (G, G, X, G),
    **{(first, Origin.TEST): (N, N, N, N) for first in (Origin.BENCHMARK, Origin.HELD_OUT, Origin.OTHER_TRAIN)},
    **{(Origin.HELD_OUT, second): (N, N, N, N) for second in (Origin.BENCHMARK, Origin.HELD_OUT, Origin.OTHER_TRAIN)},
}


@pytest.mark.parametrize(("first", "second"), TABLE)
def test_a_pair_means_what_the_table_says(first: Origin, second: Origin) -> None:
    cases = [(True, True), (True, False), (False, True), (False, False)]
    assert TABLE[first, second] == tuple(
        relate(first, second, same_answer=answer, same_template=template) for answer, template in cases
    )


def test_linked_records_have_one_first_whatever_the_order_of_links() -> None:
    draw = random.Random(1)
    for _ in range(50):
        total = draw.randint(1, 60)
        links = [(draw.randrange(total), draw.randrange(total)) for _ in range(draw.randint(0, total))]
        groups = [{number} for number in range(total)]
        for one, other in links:
            joined = groups[one] | groups[other]
            for member in joined:
                groups[member] = joined
        firsts = first_linked(total, np.array(links, np.int64).reshape(-1, 2))
        assert firsts.tolist() == [min(group) for group in groups]
