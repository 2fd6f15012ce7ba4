"""Several mixes side by side: what each gained and what it forgot, and which one to take."""

from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from mixtune import charts, pages, storage, tracking
from mixtune.errors import DataError, TrainingError
from mixtune.models import FAILED
from mixtune.results import CUSTOMER_AXIS, FAIL, INCONCLUSIVE, PASS

HEADER = ["candidate", "verdict", "steps", "tokens", "customer", "gain", "worst general loss"]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One mix, trained and compared."""

    percent: float
    """Customer share of every global batch, 0 to 100."""
    verdict: str
    """pass, fail or inconclusive; failed where its training ended without a model."""
    reason: str
    """Why it failed; empty for a trained point."""
    num_steps: int
    num_tokens: int
    """Tokens trained on: what the point costs, in proportion."""
    axes: dict[str, dict[str, Any]]
    """What `compare` found on each axis."""
    label: str = ""
    """What a report calls it; empty: its percent."""

    @property
    def gain(self) -> float:
        """Difference on the customer's axis; more is better."""
        return _better(self.axes[CUSTOMER_AXIS]) if self.axes else 0.0

    @property
    def name(self) -> str:
        """`75 %`, or its label."""
        return self.label or f"{self.percent:g} %"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which mix to take."""

    percent: float | None
    """None where no point passed."""
    reason: str

    @property
    def verdict(self) -> str:
        """`pass` where there is a mix to take, else `fail`."""
        return FAIL if self.percent is None else PASS

    @property
    def number(self) -> float:
        """The percent as a component returns it, which knows no None: -1 stands for it."""
        return -1.0 if self.percent is None else self.percent


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where the grid's report goes."""

    grid_path: str
    """JSON for machines."""
    report_path: str
    summary_path: str


def read_point(path: str) -> Point:
    """A point from the JSON that `compare` wrote.

    Raises:
        DataError: It was compared without the shards that say what its mix was.
    """
    found = storage.read_json(path)
    if "mix_ratio" not in found["mix"]:
        raise DataError(f"{path}: compared without shards, its mix is not known; give `compare` the shards")
    return Point(
        percent=round(100 * float(found["mix"]["mix_ratio"]), 6),
        verdict=found["verdict"],
        reason=found["reason"],
        num_steps=int(found["mix"]["num_steps"]),
        num_tokens=int(found["mix"]["receipt"]["num_tokens"]),
        axes={axis["axis"]: axis for axis in found["axes"]},
    )


def choose(points: list[Point]) -> Choice:
    """The point with the largest customer gain among those that passed.

    Raises:
        TrainingError: Not one point has a model.
    """
    if all(point.verdict == FAILED for point in points):
        reasons = "; ".join(f"{point.name}: {point.reason}" for point in points)
        raise TrainingError(f"no mix could be trained ({reasons})")
    passed = [point for point in points if point.verdict == PASS]
    open_ = [point.name for point in points if point.verdict == INCONCLUSIVE]
    named = f" Inconclusive, more items would tell: {', '.join(open_)}." if open_ else ""
    if not passed:
        lowest = min(point.percent for point in points)
        return Choice(percent=None, reason=f"No mix passed; try less than {lowest:g} % customer records.{named}")
    best = max(passed, key=lambda point: (point.gain, -point.percent))
    forgot = [point.name for point in points if point.verdict == FAIL]
    also = f" {', '.join(forgot)} forgot more than is allowed." if forgot else ""
    reason = f"Take {best.name}: the largest gain on the customer's records ({best.gain:+.3f}) of those that passed."
    return Choice(percent=best.percent, reason=f"{reason}{also}{named}")


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
    points = sorted((read_point(path) for path in paths), key=lambda point: -point.percent)
    choice = choose(points)
    print(f"choose-mix: {choice.reason}", flush=True)
    found = {"kind": "grid", "verdict": choice.verdict, **asdict(choice), "points": [asdict(p) for p in points]}
    storage.write_json(outputs.grid_path, found)
    write_points("Which mix?", points, choice.verdict, choice.reason, outputs)
    _track(points, choice, outputs, options)
    return choice


def write_points(title: str, points: list[Point], verdict: str, reason: str, outputs: Outputs) -> None:
    """Write the report of several candidates: the page with its plots, and the table as Markdown."""
    pages.write_text(outputs.report_path, pages.page(title, _body(title, points, verdict, reason)))
    lines = [f"# {title}", "", reason, "", pages.markdown_table(HEADER, [_row(point) for point in points]), ""]
    pages.write_text(outputs.summary_path, "\n".join([*lines, *(f"- {text}" for text in _advice(points))]) + "\n")


def _track(points: list[Point], choice: Choice, outputs: Outputs, options: dict[str, Any]) -> None:
    with tracking.task_run(tracking.Tracking.from_options(options), "choose-mix") as run:
        for point in points:
            for name, axis in point.axes.items():
                run.log_metrics({f"{name}/candidate": axis["candidate"]}, round(point.percent))
        tags = {"recommended_mix": "none" if choice.percent is None else f"{choice.percent / 100:g}"}
        run.set_tags(tags)
        run.log_artifact(Path(outputs.report_path))
        if run.run_id:
            run.parent.set_tags({**tags, "verdict": choice.verdict})


def _body(title: str, points: list[Point], verdict: str, reason: str) -> str:
    rows = [[escape(cell) for cell in _row(point)] for point in points]
    trained = [point for point in points if point.axes]
    plots = []
    for name in trained[0].axes:
        if name != CUSTOMER_AXIS:
            marks = [_mark(point, name) for point in trained]
            axes = {axis: trained[0].axes[axis] for axis in (name, CUSTOMER_AXIS)}
            base = (float(axes[name]["base"]), float(axes[CUSTOMER_AXIS]["base"]))
            right, up = (_title(axis, found) for axis, found in axes.items())
            plots.append(f"<h2>{escape(name)}</h2>{charts.frontier(marks, base, (right, up))}")
    note = "<p class='note'>Whiskers are 95 % bounds of the difference from the base model, paired by item.</p>"
    advice = "".join(f"<li>{escape(text)}</li>" for text in _advice(points))
    return (
        f"<h1>{escape(title)}</h1><p class='summary {verdict}'>{escape(reason)}</p>"
        f"{pages.table(HEADER, rows)}<ul>{advice}</ul>{''.join(plots)}{note}"
    )


def _title(name: str, axis: dict[str, Any]) -> str:
    return f"{name} ({axis['metric']}{'' if axis['higher_is_better'] else ', less is better'})"


def _mark(point: Point, name: str) -> charts.Mark:
    general, customer = point.axes[name], point.axes[CUSTOMER_AXIS]
    return charts.Mark(
        name=point.name,
        x=float(general["candidate"]),
        y=float(customer["candidate"]),
        x_span=_span(general),
        y_span=_span(customer),
        verdict=point.verdict,
    )


def _span(axis: dict[str, Any]) -> tuple[float, float]:
    """The candidate's score at both bounds of its difference."""
    scale = float(axis["base"]) if axis["relative"] else 1.0
    return float(axis["base"]) + scale * float(axis["lower"]), float(axis["base"]) + scale * float(axis["upper"])


def _better(axis: dict[str, Any]) -> float:
    """The difference turned so that more is better."""
    return float(axis["difference"]) * (1 if axis["higher_is_better"] else -1)


def _row(point: Point) -> list[str]:
    seen = [point.name, point.verdict, f"{point.num_steps:,}", f"{point.num_tokens:,}"]
    if not point.axes:
        return [*seen, "", "", ""]
    general = [axis for name, axis in point.axes.items() if name != CUSTOMER_AXIS]
    worst = min(general, key=lambda axis: _better(axis) / (axis["limit"] or 1.0))
    scale = f"{worst['difference']:+.2%}" if worst["relative"] else f"{worst['difference']:+.3f}"
    customer = point.axes[CUSTOMER_AXIS]["candidate"]
    return [*seen, f"{customer:.3f}", f"{point.gain:+.3f}", f"{worst['axis']} {scale}"]


def _advice(points: list[Point]) -> list[str]:
    """What to do about the points that did not pass; of a failed training, its reason."""
    told = []
    for point in points:
        failed = [
            axis["advice"] for name, axis in point.axes.items() if name != CUSTOMER_AXIS and axis["verdict"] == FAIL
        ]
        told += [f"{point.name}: {text}" for text in [point.reason, *failed] if text]
    return told
