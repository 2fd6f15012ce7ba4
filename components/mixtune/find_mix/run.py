"""The components' steps: proxies planned, a search begun, a full training taken in, and the report at the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mixtune import prices, tracking
from mixtune.artifacts.comparison import FAIL, INCONCLUSIVE, PASS, Comparison
from mixtune.artifacts.grid import GridReport, Recommendation
from mixtune.artifacts.mix_search import MixSearch
from mixtune.artifacts.samples import read_samples
from mixtune.artifacts.typed_json import read_artifact, write_artifact
from mixtune.choose.costs import training_cost
from mixtune.choose.points import Point
from mixtune.find_mix.search import STOP, continue_search, next_action, start_search
from mixtune.find_mix.search_page import held_prediction, write_search
from mixtune.report.outputs import Outputs
from mixtune.settings.find_mix import FindSettings
from mixtune.settings.from_dict import Options


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a search does next."""

    action: str
    """`again` or `stop`."""
    percent: float
    """Customer share of the next full training; of the last one where there is none."""


def plan_proxies(
    settings: FindSettings, customer_epochs: float, seed: int, shared: Mapping[str, object]
) -> list[dict[str, object]]:
    """Return the proxies: every share at one length, and the largest at a shorter one, each with a seed of its own.

    Seeds count on from the first proxy's, so that what a seed does shows among them. KFP's local runner lets no other
    task's parameter into a loop, so every proxy holds what is shared.
    """
    return [
        {"percent": percent, "epochs": customer_epochs * length, "seed": seed + number, **shared}
        for number, (percent, length) in enumerate(settings.proxies)
    ]


def begin(
    paths: Sequence[str], base_path: str, settings: FindSettings, customer_epochs: float, seed: int, search_path: str
) -> Step:
    """Fit the laws to the proxies' comparisons and write the search.

    Raises:
        TrainingError: Too few proxies have a model.
    """
    comparisons = [read_artifact(Comparison, path) for path in paths]
    search = start_search(comparisons, read_samples(base_path), settings, customer_epochs, seed)
    for failure in search.failures:
        print(f"find-mix: a proxy has no model: {failure}", flush=True)
    return _write(search, search_path)


def proceed(comparison_path: str, earlier_path: str, seed: int, search_path: str) -> Step:
    """Take a full training into the search before it, and write that with what comes next."""
    search = read_artifact(MixSearch, earlier_path)
    comparison = read_artifact(Comparison, comparison_path)
    search = continue_search(search, comparison, seed)
    goes_on = next_action(search) != STOP  # else the conclusion says how the prediction held, and why it ends
    held = held_prediction(search, len(search.tried) - 1) if goes_on else ""
    print("; ".join(filter(None, (f"find-mix: {search.tried[-1].name}: {comparison.verdict}", held))), flush=True)
    return _write(search, search_path)


def conclude(search_path: str, outputs: Outputs, options: Options) -> GridReport:
    """Recommend the share that passed, and write the report; `options` are the `tracking` parameter."""
    where = tracking.Tracking.from_options(options)
    price = prices.usd_per_hour(where.hyperpod)
    search = read_artifact(MixSearch, search_path)
    report = recommend(search)
    candidates = tuple(replace(item, cost=training_cost(item.comparison.model_uri, price)) for item in search.tried)
    report = replace(report, candidates=candidates)
    print(f"find-mix: {report.reason}", flush=True)
    write_search(search, report, html=outputs.html_path, markdown=outputs.markdown_path)
    write_artifact(outputs.json_path, report)
    with tracking.task_run(where, "find-mix") as run:
        run.log_page(outputs.html_path)
        mix = f"{report.recommended.percent / 100:g}" if report.recommended else "none"
        run.parent.set_tags({"verdict": report.verdict, "recommended_mix": mix})
    return report


def recommend(search: MixSearch) -> GridReport:
    """Return the report: the last full training where it passed, else none."""
    points = [Point(candidate=item) for item in search.tried]
    last, text = points[-1], held_prediction(search, len(points) - 1)
    text = f"{text} {search.stopped}".strip()
    percent, model = last.candidate.mix.percent, last.candidate.comparison.model_uri
    if last.verdict == PASS:
        recommended = Recommendation(name=last.name, percent=percent, strength=1.0, model_uri=model)
        reason = (
            f"Take {last.name} customer records: with {100 - percent:g} % general records all axes pass, and the "
            f"customer's score changes by {last.gain:+.3f}."
        )
        return GridReport(verdict=PASS, reason=f"{reason} {text}", recommended=recommended, candidates=search.tried)
    verdict = INCONCLUSIVE if last.verdict == INCONCLUSIVE else FAIL
    verdicts = ", ".join(f"{point.name}: {point.verdict}" for point in points)
    reason = f"No share of customer records that was tried passed ({verdicts}). {text}"
    report = GridReport(verdict=verdict, reason=reason, recommended=None, candidates=search.tried)
    return replace(report, likelier_percent=search.likelier_percent)


def _write(search: MixSearch, path: str) -> Step:
    write_artifact(path, search)
    action, last = next_action(search), search.rounds[-1]
    if action != STOP:
        print(f"find-mix: next {last.forecast.percent:g} % customer records. {last.forecast.reason}", flush=True)
    return Step(action=action, percent=last.forecast.percent)
