"""Several mixes side by side: what each gained and what it forgot, and which one to take."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mixtune import prices, storage, tracking
from mixtune.choose.points import Point, read_points
from mixtune.choose.report_page import write_points
from mixtune.errors import TrainingError
from mixtune.models import FAILED
from mixtune.results import FAIL, INCONCLUSIVE, PASS


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which model to take."""

    percent: float | None
    """Its mix; None where no point passed."""
    strength: float | None
    """1: as it was trained; less: turned down to there; None where no point passed."""
    model_uri: str
    """As it was trained; empty where no point passed."""
    taken: str
    """What a report calls it; empty where no point passed."""
    command: str
    """What makes that model, where it is turned down; else empty."""
    reason: str

    @property
    def verdict(self) -> str:
        """`pass` where there is a model to take, else `fail`."""
        return FAIL if self.percent is None else PASS

    @property
    def numbers(self) -> tuple[float, float]:
        """Percent and strength as a component returns them, which knows no None: -1 stands for it."""
        return (-1.0 if self.percent is None else self.percent, -1.0 if self.strength is None else self.strength)


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where the grid's report goes."""

    grid_path: str
    """JSON for machines."""
    report_path: str
    summary_path: str


def choose(points: list[Point], turned: list[Point]) -> Choice:
    """The point with the largest customer gain among those that passed as they were trained.

    Where none did: among those that passed turned down, with a certain gain; near the base everything passes.

    Args:
        points: The mixes as they were trained.
        turned: The same at lower strengths; may be none.

    Raises:
        TrainingError: Not one point has a model.
    """
    if all(point.verdict == FAILED for point in points):
        reasons = "; ".join(f"{point.name}: {point.reason}" for point in points)
        raise TrainingError(f"no mix could be trained ({reasons})")
    passed = [point for point in points if point.verdict == PASS]
    mild = [point for point in turned if point.verdict == PASS and point.gained]
    open_ = [point.name for point in points if point.verdict == INCONCLUSIVE]
    named = f" Inconclusive, more items would tell: {', '.join(open_)}." if open_ else ""
    if not passed and not mild:
        lowest = min(point.percent for point in points)
        reason = f"No mix passed; try less than {lowest:g} % customer records.{named}"
        return Choice(percent=None, strength=None, model_uri="", taken="", command="", reason=reason)
    best = max(passed or mild, key=lambda point: (point.gain, point.strength, -point.percent))
    told = _as_trained(best, points, mild) if passed else _turned_down(best)
    return Choice(
        percent=best.percent,
        strength=best.strength,
        model_uri=best.model_uri,
        taken=best.name,
        command="" if passed else _command(best),
        reason=f"{told}{named}",
    )


def _as_trained(best: Point, points: list[Point], mild: list[Point]) -> str:
    forgot = [point.name for point in points if point.verdict == FAIL]
    also = f" {', '.join(forgot)} forgot more than is allowed." if forgot else ""
    more = [f"{point.name} ({point.gain:+.3f})" for point in mild if point.gain > best.gain]
    hint = f" Turned down, more is gained and passes too: {', '.join(more)}; see `mixtune dial`." if more else ""
    reason = f"Take {best.name}: the largest gain on the customer's records ({best.gain:+.3f}) of those that passed."
    return f"{reason}{also}{hint}"


def _turned_down(best: Point) -> str:
    return (
        f"No mix passed as it was trained. Take {best.percent:g} % turned down to {best.strength:g}: "
        f"{best.gain:+.3f} on the customer's records, and nothing is forgotten beyond what is allowed. "
        "`mixtune dial` makes that model, without training."
    )


def _command(best: Point) -> str:
    model = storage.split_fingerprint(best.model_uri)[0]
    return f"mixtune dial {model} --base-model BASE --strength {best.strength:g} --out FOLDER"


def report_grid(paths: list[str], outputs: Outputs, options: dict[str, Any]) -> Choice:
    """Read every point's comparison, choose, and write the report.

    Args:
        paths: The comparisons of `compare`, JSON.
        outputs: Where to.
        options: The `tracking` parameter.

    Raises:
        TrainingError: Not one point has a model.
        DataError: A comparison without its mix.
    """
    price = prices.usd_per_hour(tracking.Tracking.from_options(options).hyperpod)
    read = [point for path in paths for point in read_points(path, price)]
    points, turned = (
        sorted((point for point in read if (point.strength == 1) == whole), key=lambda point: -point.percent)
        for whole in (True, False)
    )
    choice = choose(points, turned)
    print(f"choose-mix: {choice.reason}", *filter(None, [choice.command]), sep="\n", flush=True)
    found = {"kind": "grid", "verdict": choice.verdict, **asdict(choice), "points": [p.as_json() for p in points]}
    storage.write_json(outputs.grid_path, {**found, "turned_down": [point.as_json() for point in turned]})
    places = {"html": outputs.report_path, "markdown": outputs.summary_path}
    write_points("Which mix?", points, turned, choice.verdict, choice.reason, choice.command, **places)
    _track(points, choice, outputs, options)
    return choice


def _track(points: list[Point], choice: Choice, outputs: Outputs, options: dict[str, Any]) -> None:
    with tracking.task_run(tracking.Tracking.from_options(options), "choose-mix") as run:
        for point in points:
            for name, axis in point.axes.items():
                run.log_metrics({f"{name}/candidate": axis["candidate"]}, round(point.percent))
        tags = {"recommended_mix": "none" if choice.percent is None else f"{choice.percent / 100:g}"}
        if choice.strength:
            tags["recommended_strength"] = f"{choice.strength:g}"
        run.set_tags(tags)
        run.log_artifact(Path(outputs.report_path))
        if run.run_id:
            run.parent.set_tags({**tags, "verdict": choice.verdict})
