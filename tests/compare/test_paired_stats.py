"""The decision: its bounds against known figures, simulation and scikit-learn."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from scipy.stats import t as student_t
from sklearn import metrics as sk

from mixtune.artifacts.comparison import FAIL, INCONCLUSIVE, PASS, Estimate
from mixtune.compare import bootstrap, paired_stats
from mixtune.compare.paired_stats import largest_loss, non_inferiority, paired_mean, superiority
from mixtune.errors import DataError
from mixtune.evaluate.power import Z95, detectable_loss
from mixtune.evaluate.scoring import weighted_scores

MMLU = 14_042


def pair(count: int, right: float, lost: int, gained: int) -> tuple[np.ndarray, np.ndarray]:
    """Answers of a base with so many right, and of a candidate that lost and gained so many."""
    base = (np.arange(count) < round(right * count)).astype(float)
    candidate = base.copy()
    candidate[:lost] = 0
    candidate[count - gained :] = 1
    return base, candidate


def found(base: np.ndarray, candidate: np.ndarray, strata: int = 1) -> Estimate:
    count = len(base)
    names = [str(number % strata) for number in range(count)]
    return paired_mean(base, candidate, names, [str(number) for number in range(count)])


def test_a_point_lost_on_mmlu_passes_at_two_and_is_undecided_at_one() -> None:
    one = found(*pair(MMLU, 0.75, round(0.05 * MMLU), round(0.04 * MMLU)))
    assert one.difference == pytest.approx(-0.01, abs=1e-4)
    assert one.lower == pytest.approx(-0.0142, abs=1e-4)
    assert non_inferiority(one, 0.02) == PASS
    assert non_inferiority(one, 0.01) == INCONCLUSIVE


@pytest.mark.parametrize("margin", [0.005, 0.01, 0.02, 0.05, 0.2])
def test_a_collapse_of_mmlu_fails_every_margin(margin: float) -> None:
    assert non_inferiority(found(*pair(MMLU, 0.75, round(0.30 * MMLU), round(0.02 * MMLU))), margin) == FAIL


@pytest.mark.parametrize(
    ("lost", "gained", "error", "lower"), [(548, 519, 0.00265, -0.0067), (640, 555, 0.0028, -0.0115)]
)
def test_standard_errors_are_those_published_for_real_checkpoints(
    lost: int, gained: int, error: float, lower: float
) -> None:
    one = found(*pair(12_343, 0.4692, lost, gained))
    assert one.standard_error == pytest.approx(error, abs=1e-4)
    assert one.lower == pytest.approx(lower, abs=2e-4)


@pytest.mark.parametrize("count", [64, 100, 200, 541, 2000])
@pytest.mark.parametrize("margin", [0.02, 0.03, 0.05])
def test_false_passes_at_the_margin_are_at_most_six_in_a_hundred(count: int, margin: float) -> None:
    random = np.random.default_rng(7)
    for discordance in (margin, 1.5 * margin, 0.1, 0.3):
        lost, gained = (discordance + margin) / 2, (discordance - margin) / 2
        draws = random.multinomial(count, [lost, 1 - discordance, gained], 20_000)
        pairs, number = np.unique(draws[:, [0, 2]], axis=0, return_counts=True)
        is_pass = [largest_loss(int(one), int(other), count) <= margin for one, other in pairs]
        passed = number[is_pass].sum()
        assert passed / number.sum() <= 0.0615


@pytest.mark.parametrize("margin", [0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3])
def test_where_no_answer_is_gained_false_passes_are_at_most_six_in_a_hundred_whatever_the_number_of_items(
    margin: float,
) -> None:
    """The worst case of all, exactly: as many answers change as are lost."""
    lost = -1
    for count in range(5, 600):
        while largest_loss(lost + 1, 0, count) <= margin:
            lost += 1
        assert binom.cdf(lost, count, margin) <= 0.06, (count, lost)


def test_few_changed_answers_are_no_certainty() -> None:
    one = found(*pair(100, 1.0, 1, 0))
    assert (one.lower, non_inferiority(one, 0.03)) == (pytest.approx(-0.0456, abs=1e-4), INCONCLUSIVE)
    same = found(*pair(100, 1.0, 0, 0))
    assert Z95**2 / (100 + Z95**2) < -same.lower < 0.0292
    assert non_inferiority(same, 0.03) == PASS
    assert 0.03 < detectable_loss(same.standard_error) < 0.05


def test_power_is_that_of_the_formula() -> None:
    random = np.random.default_rng(7)
    draws = random.multinomial(541, [0.05, 0.9, 0.05], 2000)
    passed = np.mean([largest_loss(int(lost), int(gained), 541) <= 0.05 for lost, _, gained in draws])
    assert passed == pytest.approx(0.5 * (1 + math.erf((0.05 / math.sqrt(0.1 / 541) - Z95) / math.sqrt(2))), abs=0.03)


def test_the_plain_standard_error_is_the_stratified_one_of_a_single_stratum() -> None:
    random = np.random.default_rng(0)
    base, candidate = random.random(400), random.random(400)
    expected = (candidate - base).std(ddof=1) / 20 * student_t.ppf(0.95, 399) / Z95
    assert found(base, candidate).standard_error == pytest.approx(expected)


@pytest.mark.parametrize("num_clusters", [3, 5, 10])
def test_few_clusters_pass_at_the_margin_no_oftener_than_many(num_clusters: int) -> None:
    random, clusters = np.random.default_rng(2), [str(number) for number in range(num_clusters) for _ in range(10)]
    lost = np.repeat(random.normal(-0.05, 0.2, (1000, num_clusters)), 10, 1) + random.normal(
        0, 0.1, (1000, len(clusters))
    )
    half, strata = np.full(len(clusters), 0.5), ["a"] * len(clusters)
    verdicts = [non_inferiority(paired_mean(half, half + change, strata, clusters), 0.05) for change in lost]
    assert verdicts.count(PASS) < 70 > verdicts.count(FAIL)


def test_one_cluster_tells_nothing_of_others() -> None:
    assert paired_mean(np.ones(50), np.ones(50), ["a"] * 50, ["b"] * 50).standard_error == 1


def test_items_of_one_cluster_count_as_one() -> None:
    random = np.random.default_rng(1)
    base, candidate = np.repeat(random.random(50), 4), np.repeat(random.random(50), 4)
    clusters = [str(number // 4) for number in range(200)]
    together = paired_mean(base, candidate, ["a"] * 200, clusters)
    alone = paired_mean(base[::4], candidate[::4], ["a"] * 50, [str(number) for number in range(50)])
    assert together.standard_error == pytest.approx(alone.standard_error)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60), st.integers(1, 5))
def test_bounds_hold_the_difference_and_models_that_swap_places_swap_signs(
    answers: list[tuple[bool, bool]], strata: int
) -> None:
    base, candidate = (np.array(column, float) for column in zip(*answers, strict=True))
    one, other = found(base, candidate, strata), found(candidate, base, strata)
    assert one.lower <= one.difference <= one.upper
    assert one.difference == pytest.approx(-other.difference)
    assert one.standard_error == pytest.approx(other.standard_error)
    assert one.standard_error >= 1 / len(answers)


@given(st.floats(-0.5, 0.5), st.floats(0, 0.2), st.floats(0, 0.2), st.floats(0, 0.2))
def test_a_larger_allowance_never_turns_a_pass_into_less(
    difference: float, error: float, limit: float, more: float
) -> None:
    one = paired_stats.estimate(difference, error)
    order = [FAIL, INCONCLUSIVE, PASS]
    assert order.index(non_inferiority(one, limit + more)) >= order.index(non_inferiority(one, limit))


def test_a_relative_rise_of_nll_is_found_with_its_error() -> None:
    random = np.random.default_rng(2)
    base = random.gamma(5, 10, 500)
    candidate = base * 1.03 + random.normal(0, 1, 500)
    one = paired_stats.paired_ratio(base, candidate, ["a"] * 500, [str(number) for number in range(500)])
    assert one.difference == pytest.approx(0.03, abs=0.003)
    assert 0 < one.standard_error < 0.002
    same = paired_stats.paired_ratio(base, base, ["a"] * 500, [str(number) for number in range(500)])
    assert (same.difference, same.standard_error) == (0, 0)


@pytest.mark.parametrize(
    ("verdicts", "all_of_them"),
    [([PASS, PASS], PASS), ([PASS, INCONCLUSIVE], INCONCLUSIVE), ([INCONCLUSIVE, FAIL], FAIL), ([], INCONCLUSIVE)],
)
def test_all_must_pass(verdicts: list[str], all_of_them: str) -> None:
    assert paired_stats.overall(verdicts) == all_of_them


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1, max_size=50), st.integers(0, 99)
)
def test_weighted_f1_is_scikit_learns(pairs: list[tuple[str, str]], seed: int) -> None:
    gold, said = zip(*pairs, strict=True)
    weights = np.random.default_rng(seed).integers(0, 4, len(gold)).astype(float)
    weights[0] = 1
    score = weighted_scores.f1_score([[one] for one in gold], [[one] for one in said], list("abcd"))
    seen = sorted(
        {one for one, weight in [*zip(gold, weights, strict=True), *zip(said, weights, strict=True)] if weight}
    )
    expected = sk.f1_score(gold, said, labels=seen, average="macro", sample_weight=weights, zero_division=0)
    assert score(weights) == pytest.approx(expected)


def test_weighted_auc_is_scikit_learns() -> None:
    random = np.random.default_rng(3)
    names = ["a", "b", "c"]
    gold = [names[number] for number in random.integers(0, 3, 90)]
    shares = np.round(random.dirichlet(np.ones(3), 90), 1)  # with ties
    weights = random.integers(0, 3, 90).astype(float)
    expected = np.mean(
        [
            sk.roc_auc_score([one == name for one in gold], shares[:, place], sample_weight=weights)
            for place, name in enumerate(names)
        ]
    )
    assert weighted_scores.auc_score(gold, shares, names)(weights) == pytest.approx(expected)


def test_the_bootstrap_is_seeded_and_draws_both_models_alike() -> None:
    random = np.random.default_rng(4)
    gold = [[str(number)] for number in random.integers(0, 3, 120)]
    said = [one if random.random() < 0.8 else ["0"] for one in gold]
    score = weighted_scores.f1_score(gold, said, ["0", "1", "2"])
    clusters = [str(number) for number in range(120)]
    same = bootstrap.paired_bootstrap(score, score, clusters, 50)
    assert same.difference == 0 and 0 < same.upper == -same.lower < 0.02 and superiority(same, 0.05) == FAIL
    few = bootstrap.paired_bootstrap(lambda weights: 0.5, lambda weights: 0.5, clusters[:8], 50)
    assert superiority(few, 0.05) == INCONCLUSIVE, "eight records that did not change prove no missing gain"
    other = weighted_scores.f1_score(gold, gold, ["0", "1", "2"])
    assert bootstrap.paired_bootstrap(score, other, clusters, 50) == bootstrap.paired_bootstrap(
        score, other, clusters, 50
    )


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_items_that_all_changed_alike_prove_less_than_their_equal_spread_says(count: int) -> None:
    names = [str(number) for number in range(count)]
    change = bootstrap.paired_bootstrap(lambda weights: 0.0, lambda weights: 1.0, names, 200)
    assert (change.lower > 0) is (count > 2)  # as of right and wrong answers by Tango's bounds
    losses = paired_stats.paired_ratio(
        np.full(count, 2.0), np.full(count, 2.01) + 0.02 * np.arange(count), names, names
    )
    assert paired_stats.non_inferiority(replace(losses, lower=-losses.upper, upper=-losses.lower), 0.015) != PASS


def test_bounds_of_a_relative_change_hold_for_few_items() -> None:
    random = np.random.default_rng(1)
    for count in (3, 5, 10):
        names = [str(number) for number in range(count)]
        passes = 0
        for _ in range(4000):
            base = random.normal(2, 0.3, count).clip(1)
            change = paired_stats.paired_ratio(base, base * 1.02 + random.normal(0, 0.1, count), ["all"] * count, names)
            passes += change.upper <= 0.02
        assert passes / 4000 < 0.065, count


def test_a_base_total_of_0_and_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="the base's total over 2 items is 0"):
        paired_stats.paired_ratio(np.zeros(2), np.ones(2), ["a", "a"], ["1", "2"])
