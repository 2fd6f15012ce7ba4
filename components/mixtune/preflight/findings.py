"""Report what checks found: log lines, a page, and one error that names every failure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from html import escape
from typing import TypeAlias

from mixtune.errors import ConfigError, MixtuneError
from mixtune.report.pages import Verdict, page, table, write_text

Findings: TypeAlias = Iterator[tuple[str, str]]
"""Outcomes (`skip`, `pass`, `warn` or `fail`) with their texts; of a check, the worst count."""
Row: TypeAlias = tuple[str, str, bool]
"""Of the reproducibility checklist: what is recorded, its value, and whether it is there."""
OUTCOMES = ("skip", "pass", "warn", "fail")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check with its outcome."""

    name: str
    outcome: str
    """`pass`, `warn`, `fail`, or `skip` where there is nothing to look at."""
    text: str
    """What was found; for a warning or failure, the way out."""

    def line(self) -> str:
        """For a log."""
        return f"{self.outcome:<4}  {self.name}: {self.text}"


def look(name: str, check: Callable[..., Findings], *arguments: object) -> Check:
    """Run one check and keep the worst that it found, all of that. An error of ours is a failure with its text."""
    try:
        outcomes = list(check(*arguments)) or [("skip", "nothing to look at")]
    except MixtuneError as error:
        outcomes = [("fail", str(error))]
    worst = max((outcome for outcome, _ in outcomes), key=OUTCOMES.index)
    return Check(name=name, outcome=worst, text="; ".join(text for outcome, text in outcomes if outcome == worst))


def conclude(checks: list[Check], title: str, listed: list[Row], path: str) -> str:
    """Print the checks and write their page with the reproducibility checklist; `pass`, or `warn` where one warns.

    Raises:
        ConfigError: At least one failed; all of those are named.
    """
    print(f"{title}: {_counts(checks)}", flush=True)
    first = {check.text: check.name for check in reversed(checks)}
    for check in checks:
        again = check.outcome == "fail" and first[check.text] != check.name
        print((replace(check, text=f"as {first[check.text]}") if again else check).line(), flush=True)
    write_text(path, _page(checks, title, listed))
    failed = [check for check in checks if check.outcome == "fail"]
    if failed:
        names = {text: ", ".join(check.name for check in failed if check.text == text) for text in first}
        reasons = "\n".join(f"- {names[text]}: {text}" for text in dict.fromkeys(check.text for check in failed))
        raise ConfigError(f"{len(failed)} of {len(checks)} checks failed:\n{reasons}")
    return "warn" if any(check.outcome == "warn" for check in checks) else "pass"


def _counts(checks: list[Check]) -> str:
    """Return how many checks have each outcome, the worst first."""
    counts = {outcome: sum(check.outcome == outcome for check in checks) for outcome in reversed(OUTCOMES)}
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)


def _page(checks: list[Check], title: str, listed: list[Row]) -> str:
    worst = max((check.outcome for check in checks), key=OUTCOMES.index, default="pass")
    ordered = sorted(checks, key=lambda check: -OUTCOMES.index(check.outcome))
    rows = [[Verdict(item.outcome), item.name, item.text] for item in ordered]
    marks = [["\N{BALLOT BOX WITH CHECK}" if there else "\N{BALLOT BOX}", name, value] for name, value, there in listed]
    results, recorded = (table([], cells, texts=3) for cells in (rows, marks))
    headline = f'<p class="summary {worst}">{escape(_counts(checks))}</p>'
    return page(title, f"<h1>{escape(title)}</h1>{headline}{results}<h2>Reproducibility</h2>{recorded}")
