"""The report of a search: what was predicted at every share, and what the full trainings measured."""

from html import escape

from mixtune.artifacts.comparison import CUSTOMER_AXIS, AxisVerdict
from mixtune.artifacts.grid import GridReport
from mixtune.artifacts.mix_search import AxisForecast, MixSearch, SearchRound
from mixtune.choose.costs import describe_total
from mixtune.find_mix.forecast import Z_VERDICT
from mixtune.find_mix.search import describe_cost
from mixtune.report import pages
from mixtune.report.band_chart import Band, BandPoint, Measured, draw_band
from mixtune.report.pages import Verdict

TITLE = "How little general data is enough?"
ROUND_HEADER = ["customer records", "axis", "allowed loss", "predicted", "90 % of predictions", "measured", "held",
                "verdict"]  # fmt: skip
SHARE_HEADER = ["customer records", "general records", "chance to pass"]
SCORE_HEADER = ["axis", "customer records", "length", "change", "standard error", "items"]
_NOTE = (
    "Bands hold 90 % of what a full training is predicted to measure; circles are trainings that were measured, filled "
    "ones at full length, with 95 % bounds. The dashed line is the allowed loss."
)


def write_search(search: MixSearch, report: GridReport, *, html: str, markdown: str) -> None:
    """Write the page and its summary of a search with at least one full training, to two paths."""
    forecast = search.rounds[-1].forecast
    rounds = [row for number in range(len(search.tried)) for row in _round_rows(search.rounds[number])]
    shares = [
        [f"{share.percent:g} %", f"{100 - share.percent:g} %", f"{share.pass_chance:.0%}"] for share in forecast.shares
    ]
    scores = [
        [score.axis, f"{score.percent:g} %", f"{score.length:.0%}", f"{score.benefit:+.4f}",
         f"{score.standard_error:.4f}", f"{score.num_items:,}"]
        for score in search.scores
    ]  # fmt: skip
    cost = describe_total(item.cost for item in report.candidates)
    notes = [*(item.forecast.reason for item in search.rounds), describe_cost(search)]
    notes += [f"Proxy {text}" for text in search.failures]
    body = [
        f"<h1>{TITLE}</h1><p class='summary {report.verdict}'>{escape(report.reason)}</p>",
        pages.bullets(notes),
        pages.table(ROUND_HEADER, rounds, texts=2),
        pages.note(cost) if cost else "",
        *(_chart(search, name) for name in [axis.axis for axis in search.axes]),
        pages.note(_NOTE),
        pages.folded("Chances by share", pages.table(SHARE_HEADER, shares)),
        pages.folded("What the laws were fitted to", pages.table(SCORE_HEADER, scores)),
    ]
    pages.write_text(html, pages.page(TITLE, "".join(body)))
    lines = [
        f"# {TITLE}",
        "",
        report.reason,
        "",
        pages.markdown_table(ROUND_HEADER, rounds),
        "",
        *(f"- {text}" for text in notes),
    ]
    pages.write_text(markdown, "\n".join(lines) + "\n")


def held_prediction(search: MixSearch, number: int) -> str:
    """Return whether a full training lies within the predicted 90 %, in a sentence."""
    pairs = _pairs(search.rounds[number])
    outside = [forecast.axis for forecast, axis in pairs if not _holds(forecast, axis)]
    if not pairs:
        return "There was no model to hold the prediction against."
    if not outside:
        return "The prediction held on every axis."
    return f"The prediction did not hold on {', '.join(outside)}."


def _pairs(item: SearchRound) -> list[tuple[AxisForecast, AxisVerdict]]:
    """Return the forecast of each axis with what was measured."""
    if item.candidate is None:
        return []
    measured = {axis.axis: axis for axis in item.candidate.comparison.axes}
    return [
        (forecast, measured[forecast.axis]) for forecast in item.forecast.recommended.axes if forecast.axis in measured
    ]


def _holds(forecast: AxisForecast, axis: AxisVerdict) -> bool:
    return forecast.benefit.lower <= axis.measure.benefit.difference <= forecast.benefit.upper


def _round_rows(item: SearchRound) -> list[list[str]]:
    return [
        [
            f"{item.forecast.percent:g} %",
            forecast.axis,
            f"a gain over {forecast.limit:g}" if forecast.axis == CUSTOMER_AXIS else f"{forecast.limit:g}",
            f"{forecast.benefit.median:+.4f}",
            f"{forecast.benefit.lower:+.4f} to {forecast.benefit.upper:+.4f}",
            f"{axis.measure.benefit.difference:+.4f}",
            "yes" if _holds(forecast, axis) else "no",
            Verdict(axis.verdict),
        ]
        for forecast, axis in _pairs(item)
    ]


def _chart(search: MixSearch, name: str) -> str:
    forecast = search.rounds[-1].forecast
    points = [
        BandPoint(x=100 - share.percent, middle=axis.benefit.median, lower=axis.benefit.lower, upper=axis.benefit.upper)
        for share in forecast.shares
        for axis in share.axes
        if axis.axis == name
    ]
    trained = [
        Measured(
            name=f"{score.percent:g} %" if score.is_full else f"{score.percent:g} %, {score.length:.0%} long",
            x=100 - score.percent,
            y=score.benefit,
            reach=Z_VERDICT * score.standard_error,
            is_full=score.is_full,
        )
        for score in search.scores
        if score.axis == name
    ]
    least = next(axis.least_benefit for axis in search.axes if axis.axis == name)
    band = Band(points=tuple(points), measured=tuple(trained), limit=least)
    titles = "general records, %", "change from the base model, more is better"
    return f"<h2>{escape(name)}</h2>{draw_band(band, titles)}"
