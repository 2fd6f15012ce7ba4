from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from mixtune.artifacts.comparison import AxisVerdict, Comparison, Estimate, ItemCounts, Measure
from mixtune.artifacts.grid import GridReport
from mixtune.artifacts.mix_search import MixSearch, SearchedAxis, TrainingScore
from mixtune.artifacts.samples import AxisSummary, Samples
from mixtune.artifacts.shards import MixReceipt, PoolReceipt
from mixtune.artifacts.typed_json import read_artifact, write_artifact
from mixtune.choose.mix_choice import Outputs
from mixtune.errors import ConfigError, DataError, TrainingError
from mixtune.find_mix.forecast import forecast_mix
from mixtune.find_mix.run import conclude, plan_proxies, proceed, recommend
from mixtune.find_mix.sampler import sample
from mixtune.find_mix.search import continue_search, next_action, spent, start_search
from mixtune.find_mix.search_page import write_search
from mixtune.settings.find_mix import FindSettings, read_find_settings
from tests.comparisons import make_comparison, make_mix

EPOCHS, ITEMS, ERROR = 2.0, 4000, 0.004
SETTINGS = FindSettings()


def make_axis(name: str, change: float, *, passes: bool = True) -> AxisVerdict:
    reach = 1.645 * ERROR
    estimate = Estimate(difference=change, standard_error=ERROR, lower=change - reach, upper=change + reach)
    customer = name == "customer"
    return AxisVerdict(
        axis=name,
        form="classification" if customer else "mmlu",
        question="superiority" if customer else "non-inferiority",
        limit=0.0 if customer else 0.02,
        verdict="pass" if passes else "fail",
        advice="",
        detectable=0.01,
        items=ItemCounts(total=ITEMS),
        measures=(Measure(metric="accuracy", base=0.5, candidate=0.5 + change, change=estimate),),
    )


def loss(percent: float, length: float, rate: float) -> float:
    """A benchmark that customer records alone bring down by 0.2."""
    return -0.2 * length**0.7 * float(np.exp(-rate * (1 - percent / 100)))


def compare(percent: float, length: float, rate: float) -> Comparison:
    """The comparison of a training of so many epochs, as a share of the full one's."""
    change = loss(percent, length, rate)
    passes = change - 1.645 * ERROR > -0.02
    receipt = MixReceipt(pools=(PoolReceipt(name="customer", epochs=length * EPOCHS),))
    axes = make_axis("mmlu", change, passes=passes), make_axis("customer", 0.3 * (1 - float(np.exp(-length / 0.3))))
    return make_comparison("pass" if passes else "fail", *axes, mix=make_mix(percent, receipt=receipt))


def proxies(rate: float) -> list[Comparison]:
    planned = plan_proxies(SETTINGS, EPOCHS, 7, {})
    return [compare(proxy["percent"], proxy["epochs"] / EPOCHS, rate) for proxy in planned]


def samples(names: Sequence[str] = ("mmlu", "customer")) -> Samples:
    summary = AxisSummary(form="", metric="accuracy", scores={"accuracy": 0.5}, num_items=ITEMS)
    return Samples(axes={name: summary for name in names})


@pytest.fixture(scope="module")
def begun() -> MixSearch:
    return start_search(proxies(rate=12), samples(), SETTINGS, EPOCHS, seed=1)


def test_proxies_differ_in_share_length_and_seed() -> None:
    planned = plan_proxies(SETTINGS, EPOCHS, 7, {"base_model": "m"})
    lengths = [(proxy["percent"], round(proxy["epochs"], 9)) for proxy in planned]
    assert lengths == [(100.0, 0.2), (100.0, 0.5), (92.0, 0.5), (75.0, 0.5)]
    assert [proxy["seed"] for proxy in planned] == [7, 8, 9, 10]
    assert {proxy["base_model"] for proxy in planned} == {"m"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proxy_share": 1}, "proxy_share is above 0 and below 1; got 1"),
        ({"customer_data_percents": [100]}, "two customer shares at least"),
        ({"customer_data_percents": [100, 100]}, "none twice"),
        ({"max_cost": 1.9}, r"max_cost is 1.96 or more: the short trainings cost 0.96, then comes a full one; got 1.9"),
        ({"confidence": 1}, "confidence is 0.5 to 0.99; got 1"),
        ({"proxy_item": 3}, "unknown key 'proxy_item'.*proxy_items"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_find_settings(options)


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ({}, {"limit": 200}),
        ({"limit": 50, "engine": "vllm"}, {"limit": 50, "engine": "vllm"}),
        ({"axis_limits": {"mmlu": 3000, "ifeval": 0, "gsm8k": 9}},
         {"limit": 200, "axis_limits": {"mmlu": 200, "ifeval": 200, "gsm8k": 9}}),
    ],
)  # fmt: skip
def test_proxies_are_asked_few_items_and_none_that_the_base_model_is_not(
    options: dict[str, object], limits: dict[str, object]
) -> None:
    assert SETTINGS.limit_items(options) == limits
    assert FindSettings(proxy_items=0).limit_items(options) == {"limit": 0, **options}


def test_a_share_is_chosen_that_passes_and_hardly_more_general_data_than_that_needs(begun: MixSearch) -> None:
    forecast = begun.rounds[0].forecast
    assert loss(forecast.percent, 1, 12) - 1.645 * ERROR > -0.02
    assert 40 <= forecast.percent <= 80, "at 78 % the loss and its error are all that is allowed"
    mmlu = forecast.recommended.axes[0].benefit
    assert mmlu.lower < loss(forecast.percent, 1, 12) < mmlu.upper


def test_where_no_forgetting_shows_hardly_any_general_records_are_chosen() -> None:
    quiet = [replace(item, axes=(make_axis("mmlu", 0.001), *item.axes[1:])) for item in proxies(rate=12)]
    assert start_search(quiet, samples(), SETTINGS, EPOCHS, seed=1).rounds[0].forecast.percent >= 99


def test_a_full_training_that_did_not_pass_is_followed_by_one_with_more_general_data(begun: MixSearch) -> None:
    begun = replace(begun, max_cost=13.0)
    first = begun.rounds[0].forecast.percent
    search = continue_search(begun, compare(first, 1, 5), seed=1)
    assert next_action(search) == "again"
    assert search.rounds[1].forecast.percent < first
    search = continue_search(search, compare(search.rounds[1].forecast.percent, 1, 1), seed=1)
    assert next_action(search) == "stop", "there is no third full training"
    assert [candidate.mix.percent for candidate in search.tried] == [item.forecast.percent for item in search.rounds]


def test_no_search_costs_more_than_is_allowed_and_the_page_says_so(tmp_path: Path) -> None:
    search = start_search(proxies(12), samples(), replace(SETTINGS, max_cost=3), EPOCHS, seed=1)
    first = search.rounds[0].forecast.percent
    search = continue_search(search, compare(first, 1, 6), seed=1)
    assert spent(search) == pytest.approx(SETTINGS.proxy_cost + 100 / first)
    assert (next_action(search), spent(search) <= 3) == ("stop", True)
    assert "it would exceed find_options.max_cost=3." in search.stopped
    share = float(search.stopped.split("customer_data_percent=")[1].split(",")[0])
    assert share < first and f"the steps of {100 / share:.1f} trainings" in search.stopped
    assert search.likelier_percent == recommend(search).likelier_percent == share
    dear = start_search(proxies(1), samples(), replace(SETTINGS, max_cost=2.5), EPOCHS, seed=1)
    assert dear.rounds[0].forecast.percent >= 100 / (2.5 - SETTINGS.proxy_cost)
    report = recommend(search)
    write_search(search, report, html=str(tmp_path / "page"), markdown=str(tmp_path / "summary"))
    for name in ("page", "summary"):
        text = (tmp_path / name).read_text()
        assert f"the steps of {spent(search):.1f} full ones" in text and "allows 3" in text and search.stopped in text


def test_where_no_share_mends_the_loss_no_second_training_is_paid_for(begun: MixSearch) -> None:
    search = continue_search(begun, compare(begun.rounds[0].forecast.percent, 1, 0), seed=1)
    assert next_action(search) == "stop"
    assert "none that may be paid for is likelier to pass" in search.stopped
    assert "More general records make no pass likely: trained once more" in search.stopped


@pytest.mark.parametrize(("verdict", "limit"), [("inconclusive", 240), ("inconclusive", 0), ("fail", 240)])
def test_what_more_items_may_decide_is_asked_again_before_anything_is_trained(
    begun: MixSearch, verdict: str, limit: int
) -> None:
    begun = replace(begun, max_cost=3.0)
    measured = compare(begun.rounds[0].forecast.percent, 1, 12)
    axis = replace(measured.axes[0], verdict=verdict, advice="mmlu: 240 items cannot tell.")
    measured = replace(measured, verdict=verdict, limit=limit, model_uri="s3://b/m", axes=(axis, measured.axes[1]))
    stopped = continue_search(begun, measured, seed=1).stopped
    more = "run evaluate_only with model_uri=s3://b/m and an evaluate_options.limit above 240"
    assert (more in stopped) == (verdict == "inconclusive" and limit > 0)
    assert (axis.advice in stopped) == (verdict == "inconclusive")


def test_after_two_full_trainings_the_next_share_is_named_whatever_it_costs(begun: MixSearch) -> None:
    search = replace(begun, max_cost=8.0)
    for rate in (6, 3):
        search = continue_search(search, compare(search.rounds[-1].forecast.percent, 1, rate), seed=1)
    last = search.tried[-1].mix.percent
    assert "There is no third full training." in search.stopped
    assert float(search.stopped.split("customer_data_percent=")[1].split(",")[0]) < last


def test_the_same_trainings_give_the_same_search(begun: MixSearch) -> None:
    assert start_search(proxies(rate=12), samples(), SETTINGS, EPOCHS, seed=1) == begun


def test_the_report_says_which_share_to_take_and_whether_the_prediction_held(
    begun: MixSearch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    percent = begun.rounds[0].forecast.percent
    paths = {name: str(tmp_path / name) for name in ("search", "comparison", "after", "grid", "page", "summary")}
    write_artifact(paths["search"], begun)
    write_artifact(paths["comparison"], compare(percent, 1, 12))
    step = proceed(paths["comparison"], paths["search"], 1, paths["after"])
    assert step.action == "stop"
    outputs = Outputs(json_path=paths["grid"], html_path=paths["page"], markdown_path=paths["summary"])
    report = conclude(paths["after"], outputs, {})
    assert read_artifact(GridReport, paths["grid"]) == report
    assert report.recommended is not None
    assert (report.verdict, report.recommended.percent) == ("pass", percent)
    assert "The prediction held on every axis." in report.reason
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("find-mix")] == [
        f"find-mix: {report.candidates[0].name}: pass",
        f"find-mix: {report.reason}",
    ]
    page = Path(paths["page"]).read_text()
    assert page.count("<svg") == 2
    assert f"{percent:g} %" in page
    assert "The prediction held" in Path(paths["summary"]).read_text()


def test_mlflow_shows_the_page_of_a_search(begun: MixSearch, tmp_path: Path) -> None:
    paths = {name: str(tmp_path / name) for name in ("search", "comparison", "after", "grid", "page", "summary")}
    write_artifact(paths["search"], begun)
    write_artifact(paths["comparison"], compare(begun.rounds[0].forecast.percent, 1, 12))
    proceed(paths["comparison"], paths["search"], 1, paths["after"])
    outputs = Outputs(json_path=paths["grid"], html_path=paths["page"], markdown_path=paths["summary"])
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    conclude(paths["after"], outputs, {"uri": uri})
    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("mixtune").experiment_id])
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["report.html"]


def test_too_few_proxies_with_a_model_end_the_search_with_every_reason() -> None:
    failed = [replace(item, axes=(), verdict="failed", reason="nan at step 3") for item in proxies(rate=12)[:2]]
    with pytest.raises(TrainingError, match=r"2 of 4 short trainings have a model, a law needs 3 \(100 %: nan"):
        start_search([*failed, *proxies(rate=12)[2:]], samples(), SETTINGS, EPOCHS, seed=1)


def test_a_training_without_its_mix_is_refused() -> None:
    with pytest.raises(DataError, match="compared without shards"):
        start_search([replace(item, mix=None) for item in proxies(12)], samples(), SETTINGS, EPOCHS, seed=1)


def test_draws_follow_the_density_they_are_drawn_from() -> None:
    def log_density(points: np.ndarray) -> np.ndarray:
        return -0.5 * ((points[:, 0] - 3) ** 2 + (points[:, 1] / 100) ** 2)

    draws = sample(log_density, lambda rng, count: rng.normal(0, 1, (count, 2)), seed=3)
    assert draws.mean(0)[0] == pytest.approx(3, abs=0.15)
    assert draws.std(0) == pytest.approx([1, 100], rel=0.15)


def test_an_axis_that_gains_from_general_records_does_not_hide_where_it_passes() -> None:
    """The proxies of a LoRA on the demo's records: the held-out loss of the general pools grew tenfold, or fell."""
    axis = SearchedAxis(axis="general_nll", is_customer=False, limit=0.02, largest=0.0, num_items=390)
    measured = [(100.0, 0.12, -0.52), (100.0, 0.3, -1.16), (92.0, 0.3, 0.16), (75.0, 0.3, 0.51)]
    scores = [
        TrainingScore(
            axis="general_nll", percent=percent, length=length, benefit=benefit, standard_error=0.01, num_items=390
        )
        for percent, length, benefit in measured
    ]
    forecast = forecast_mix([axis], scores, confidence=0.8)
    assert forecast.is_certain
    assert 75 <= forecast.percent <= 97
    assert forecast.recommended.axes[0].benefit.median > 0


def test_few_items_make_no_share_likely_that_fails() -> None:
    """Proxies of SmolLM2-135M, on 60 items of an axis: so few that an unchanged model hardly ever passes all of them."""
    measured = {
        "customer": [(0.318, 0.054), (0.6, 0.04), (0.554, 0.047), (0.577, 0.061)],
        "general_nll": [(-0.327, 0.037), (-0.589, 0.043), (0.027, 0.024), (0.332, 0.023)],
        "ifeval": [(-0.15, 0.057), (-0.15, 0.057), (0.1, 0.063), (0.317, 0.071)],
        "mmlu": [(0.0, 0.037), (0.05, 0.049), (-0.033, 0.04), (0.033, 0.045)],
    }
    limits = {"customer": (0.0, 0.889, 100), "general_nll": (0.02, 0.0, 100), "ifeval": (0.05, 0.15, 60)}
    limits["mmlu"] = (0.05, 0.783, 100)
    axes = tuple(
        SearchedAxis(axis=name, is_customer=name == "customer", limit=limit, largest=largest, num_items=num_items)
        for name, (limit, largest, num_items) in limits.items()
    )
    lengths = [(100.0, 0.1), (100.0, 0.25), (92.0, 0.25), (75.0, 0.25)]
    scores = tuple(
        TrainingScore(axis=name, percent=percent, length=length, benefit=benefit, standard_error=error, num_items=60)
        for name, values in measured.items()
        for (percent, length), (benefit, error) in zip(lengths, values, strict=True)
    )
    forecast = forecast_mix(axes, scores, confidence=0.8, seed=42)
    assert forecast.is_certain and forecast.recommended.pass_chance > 0.5
    assert 60 <= forecast.percent <= 95, "at 99 % nearly every training forgets"
    assert "mmlu has only 100 items: a model that lost nothing on it passes with a chance of" in forecast.reason


def test_where_items_tell_nothing_no_share_is_called_likely() -> None:
    axis = SearchedAxis(axis="mmlu", is_customer=False, limit=0.01, largest=0.8, num_items=20)
    measured = [(100.0, 0.1, -0.05), (100.0, 0.25, -0.1), (92.0, 0.25, -0.05), (75.0, 0.25, 0.0)]
    forecast = forecast_mix([axis], _scores("mmlu", measured), confidence=0.8)
    assert not forecast.is_certain
    assert "What was trained so far cannot tell." in forecast.reason and "only 20 items" in forecast.reason


@pytest.mark.parametrize(("percent", "learned_again"), [(75.0, -0.02), (50.0, -0.005)])
def test_what_a_longer_training_learns_again_lies_within_the_prediction(percent: float, learned_again: float) -> None:
    """Proxies of a LoRA on the demo's records: what customer records took at once, general ones gave back later."""
    axis = SearchedAxis(axis="ifeval", is_customer=False, limit=0.05, largest=1.0, num_items=240)
    measured = [(100.0, 0.1, -0.5), (100.0, 0.25, -0.79), (92.0, 0.25, -0.63), (75.0, 0.25, -0.26)]
    forecast = forecast_mix([axis], _scores("ifeval", measured), confidence=0.8)
    benefit = next(share for share in forecast.shares if share.percent == percent).axes[0].benefit
    assert benefit.lower < learned_again < benefit.upper


def test_a_task_that_is_hardly_learned_at_first_may_be_learned_later() -> None:
    axis = SearchedAxis(axis="customer", is_customer=True, limit=0.0, largest=0.9, num_items=240)
    measured = [(100.0, 0.1, 0.02), (100.0, 0.25, 0.05), (92.0, 0.25, 0.05), (75.0, 0.25, 0.05)]
    forecast = forecast_mix([axis], _scores("customer", measured), confidence=0.8)
    assert forecast.shares[0].axes[0].benefit.lower < 0.2 < forecast.shares[0].axes[0].benefit.upper


def _scores(axis: str, measured: Sequence[tuple[float, float, float]]) -> list[TrainingScore]:
    return [
        TrainingScore(axis=axis, percent=percent, length=length, benefit=benefit, standard_error=0.03, num_items=120)
        for percent, length, benefit in measured
    ]


@pytest.mark.parametrize(("limit", "is_customer"), [(0.0, False), (0.6, True)])
def test_a_limit_of_zero_and_a_gain_that_is_asked_for_count(begun: MixSearch, limit: float, is_customer: bool) -> None:
    axes = [replace(axis, limit=limit) if axis.is_customer == is_customer else axis for axis in begun.axes]
    forecast = forecast_mix(axes, begun.scores, confidence=0.8)
    name = "customer" if is_customer else "mmlu"
    chances = [item.pass_chance for share in forecast.shares for item in share.axes if item.axis == name]
    assert all(0 <= chance < 0.5 for chance in chances), "hardly any training loses nothing, or gains twice as much"
