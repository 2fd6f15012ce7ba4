"""The report of a whole run, of whichever kind its last task wrote: a comparison, a grid or a ladder."""

from typing import TypeAlias

from mixtune import storage
from mixtune.artifacts.comparison import CUSTOMER_AXIS, PASS, SUPERIORITY, Comparison
from mixtune.artifacts.grid import Candidate, GridReport, Recommendation
from mixtune.artifacts.ladder import LadderReport
from mixtune.artifacts.typed_json import from_json, name_kind
from mixtune.errors import ConfigError, DataError

RunReport: TypeAlias = Comparison | GridReport | LadderReport
KINDS: dict[str, type[Comparison] | type[GridReport] | type[LadderReport]] = {
    report.KIND: report for report in (Comparison, GridReport, LadderReport)
}
REPORT_TASKS = {
    "choose-rung": LadderReport.KIND,
    "choose-mix": GridReport.KIND,
    "conclude-mix": GridReport.KIND,
    "compare": Comparison.KIND,
}
"""Tasks that judge a whole run, and their reports' kind and file name; where several ran, the first decides."""


def read_run_report(uri: str) -> RunReport:
    """Read a run's report, of any kind; a DataError where the file is none."""
    content = storage.read_json(uri)
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind not in KINDS:
        raise DataError(f"{uri}: a comparison, a grid or a ladder is needed, this is {name_kind(kind)}")
    return from_json(KINDS[kind], content, uri)


def read_verdict(uri: str) -> str:
    """Read the verdict alone, of a report of any version; empty where the file has none.

    Raises:
        DataError: There is no such file, or it is not JSON.
    """
    content = storage.read_json(uri)
    return str(content.get("verdict", "")) if isinstance(content, dict) else ""


def list_candidates(report: RunReport) -> tuple[Candidate, ...]:
    """Return the run's candidates; the only one of a comparison is called `candidate`."""
    if isinstance(report, Comparison):
        return (Candidate(name="candidate", comparison=report),)
    return report.candidates if isinstance(report, GridReport) else report.rungs


def find_recommendation(report: RunReport) -> Recommendation | None:
    """Return the model to take; None where none passed, or where a lone candidate was compared."""
    return None if isinstance(report, Comparison) else report.recommended


def report_outputs(report: RunReport) -> dict[str, str | float]:
    """Return what a run comes to: its verdict, and URI, mix and strength of the model."""
    if isinstance(report, Comparison):
        return {"verdict": report.verdict, "model_uri": report.model_uri}
    best = report.recommended
    if best is None:
        return {"verdict": report.verdict, "model_uri": ""}
    return {"verdict": report.verdict, "model_uri": best.model_uri, "percent": best.percent, "strength": best.strength}


def is_gain_proved(report: RunReport) -> bool:
    """Return whether the model that a run comes to gained on the customer's records; True where none were measured."""
    best = find_recommendation(report)
    comparisons = [item.comparison for item in list_candidates(report)]
    chosen = [item for item in comparisons if best is None or item.model_uri == best.model_uri]
    axes = [axis for item in chosen for axis in item.axes if (axis.axis, axis.question) == (CUSTOMER_AXIS, SUPERIORITY)]
    return not axes or any(axis.verdict == PASS for axis in axes)


def read_proof(uri: str, model_uri: str, purpose: str, *, force: bool = False) -> Comparison:
    """Return the comparison of a model, once it is sure that its files are the compared ones and that it passed.

    Args:
        uri: A comparison, or a grid or ladder with the model among its candidates.
        model_uri: The model, with its digest.
        purpose: What becomes of a model that passed, for the error.
        force: Let one through that did not pass.

    Raises:
        ConfigError: The verdict is not `pass` and nothing is forced.
        DataError: No comparison is of this model, or the model's files changed since.
    """
    digest = storage.split_fingerprint(model_uri)[1]
    comparisons = [candidate.comparison for candidate in list_candidates(read_run_report(uri))]
    models = {item.identity["candidate"].model: item for item in comparisons}
    if not digest or digest not in models:
        way = "compare this one first" if digest else f"name it with its digest, {model_uri}#{next(iter(models), '')}"
        raise DataError(f"{model_uri}: the comparison is of model {', '.join(models)}; {way}")
    comparison = models[digest]
    if comparison.verdict != PASS and not force:
        failed = [axis.axis for axis in comparison.axes if axis.verdict != PASS]
        raise ConfigError(
            f"{model_uri}: the verdict is {comparison.verdict} ({', '.join(failed)}), only a model that passed "
            f"{purpose}; force (--force) does it all the same, and says so"
        )
    storage.check_fingerprint(model_uri)
    return comparison
