"""Several mixes side by side: what each gained and what it forgot, and which one to take."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mixtune import prices, storage, tracking
from mixtune.artifacts.comparison import FAIL, FAILED, INCONCLUSIVE, PASS, Comparison
from mixtune.artifacts.grid import Candidate, GridReport, Recommendation
from mixtune.artifacts.typed_json import read_artifact, write_artifact
from mixtune.choose.costs import training_cost
from mixtune.choose.points import Point, dial_points
from mixtune.choose.report_page import write_report
from mixtune.errors import TrainingError
from mixtune.report.outputs import Outputs


def report_grid(paths: list[str], outputs: Outputs, options: Mapping[str, object]) -> GridReport:
    """Read every mix's comparison, choose, and write the report; `options` are the `tracking` parameter.

    Raises:
        TrainingError: Not one mix has a model.
        DataError: A comparison without its mix.
    """
    where = tracking.Tracking.from_options(options)
    price = prices.usd_per_hour(where.hyperpod)
    candidates = sorted((_read_candidate(path, price) for path in paths), key=lambda item: -item.mix.percent)
    report = choose(candidates)
    command = report.recommended.command if report.recommended else ""
    print(f"choose-mix: {report.reason}", *filter(None, [command]), sep="\n", flush=True)
    write_report("Which mix?", report, html=outputs.html_path, markdown=outputs.markdown_path)
    write_artifact(outputs.json_path, report)
    _track(report, outputs, where)
    return report


def choose(candidates: Sequence[Candidate]) -> GridReport:
    """Recommend the mix with the largest gain for the customer among those that passed as they were trained.

    Where none did: among those that passed at a lower strength, with a certain gain; near the base everything passes.

    Raises:
        TrainingError: Not one candidate has a model.
    """
    points, at_strengths = [Point(candidate=item) for item in candidates], dial_points(candidates)
    if all(point.verdict == FAILED for point in points):
        reasons = "; ".join(f"{point.name}: {point.reason}" for point in points)
        raise TrainingError(f"no mix could be trained ({reasons})")
    passed = [point for point in points if point.verdict == PASS]
    mild = [point for point in at_strengths if point.verdict == PASS and point.has_certain_gain]
    undecided = [point.name for point in points if point.verdict == INCONCLUSIVE]
    note = f" Inconclusive, more items would tell: {', '.join(undecided)}." if undecided else ""
    if not passed and not mild:
        lowest = min(item.mix.percent for item in candidates)
        reason = f"No mix passed; try less than {lowest:g} % customer records.{note}"
        verdict = INCONCLUSIVE if undecided else FAIL
        return GridReport(verdict=verdict, reason=reason, recommended=None, candidates=tuple(candidates))
    best = _take(passed or mild)
    model_uri = best.candidate.comparison.model_uri
    folder = storage.plain_uri(model_uri)
    dial = f"mixtune dial {folder} --base-model BASE --strength {best.strength:g} --out FOLDER"
    recommended = Recommendation(
        name=best.name,
        percent=best.candidate.mix.percent,
        strength=best.strength,
        model_uri=model_uri,
        command="" if passed else dial,
    )
    reason = _praise_trained(best, points, mild, passed) if passed else _praise_interpolated(best)
    return GridReport(verdict=PASS, reason=reason + note, recommended=recommended, candidates=tuple(candidates))


def _take(points: Sequence[Point]) -> Point:
    """Return the point with the largest gain; of those whose gains are tied with it, the one that forgot least."""
    first = max(points, key=lambda point: (point.gain, point.strength, -point.candidate.mix.percent))
    tied = [point for point in points if point.is_tied(first)] or [first]
    return min(tied, key=lambda point: (point.forgetting, -point.gain, -point.strength))


def _read_candidate(path: str, usd_per_hour: float | None) -> Candidate:
    comparison = read_artifact(Comparison, path)
    cost = training_cost(comparison.model_uri, usd_per_hour)
    candidate = Candidate(name=path, comparison=comparison, cost=cost)
    return replace(candidate, name=f"{candidate.mix.percent:g} %")


def _praise_trained(best: Point, points: list[Point], mild: list[Point], passed: list[Point]) -> str:
    forgot = [point.name for point in points if point.verdict == FAIL]
    also = f" {', '.join(forgot)} forgot more than is allowed." if forgot else ""
    more = [f"{point.name} ({point.gain:+.3f})" for point in mild if point.gain > best.gain]
    hint = f" Turned down, more is gained and passes too: {', '.join(more)}; see `mixtune dial`." if more else ""
    reason = f"Take {best.name}: the largest gain on the customer's records ({best.gain_text}) of those that passed."
    tied = [f"{point.name} ({point.gain:+.3f})" for point in passed if point is not best and point.is_tied(best)]
    if tied:
        reason = (
            f"Take {best.name}: its gain on the customer's records ({best.gain_text}) is tied with that of "
            f"{', '.join(tied)}, whose bounds overlap, and it forgot least."
        )
    return f"{reason}{also}{hint}"


def _praise_interpolated(best: Point) -> str:
    return (
        f"No mix passed as it was trained. Take {best.candidate.name} turned down to {best.strength:g}: "
        f"{best.gain_text} on the customer's records, and nothing is forgotten beyond what is allowed. "
        "`mixtune dial` makes that model, without training."
    )


def _track(report: GridReport, outputs: Outputs, where: tracking.Tracking) -> None:
    with tracking.task_run(where, "choose-mix") as run:
        for candidate in report.candidates:
            scores = {f"{axis.axis}/candidate": axis.measure.candidate for axis in candidate.comparison.axes}
            run.log_metrics(scores, round(candidate.mix.percent))
        best = report.recommended
        tags = {"recommended_mix": f"{best.percent / 100:g}" if best else "none"}
        if best:
            tags["recommended_strength"] = f"{best.strength:g}"
        run.set_tags(tags)
        run.log_page(outputs.html_path)
        run.parent.set_tags({**tags, "verdict": report.verdict})
