"""A judge: which of two answers is better, asked in both orders, and calibrated against human labels.

A judge whose verdict changes with the order has not decided: a tie. Its answer must be one JSON object; anything else
is missing, never a loss. Agreement with people is Cohen's kappa with the large-sample interval of Fleiss, Cohen and
Everitt (1969), which scikit-learn's `cohen_kappa_score` does not give.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixtune import benchmark_files
from mixtune.artifacts.judgments import Calibration
from mixtune.errors import DataError
from mixtune.evaluate.power import Z95

CHOICES = ("first", "second", "tie")

PROMPT = Path(__file__).with_name("prompt.txt").read_text(encoding="utf-8")

Ask = Callable[[Sequence[str]], list[str]]
"""Answers prompts, in their order; an empty text where no answer came."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two answers to one request."""

    item_id: str
    request: str
    first: str
    second: str
    reference: str = ""


def parse_verdict(text: str) -> int | None:
    """Return 1, 2 or 0 (neither); None for anything but one JSON object that says so."""
    try:
        answer = json.loads(text)
    except ValueError:
        return None
    if not isinstance(answer, dict) or set(answer) != {"better"}:
        return None
    better = answer["better"]
    return better if type(better) is int and 0 <= better <= 2 else None


def judge_pairs(pairs: Sequence[Pair], ask: Ask) -> list[str | None]:
    """Return per pair `first`, `second`, `tie`, or None where one of the two orders has no verdict."""
    prompts = [_make_prompt(pair, pair.first, pair.second) for pair in pairs]
    prompts += [_make_prompt(pair, pair.second, pair.first) for pair in pairs]
    verdicts = [parse_verdict(text.strip()) for text in ask(prompts)]
    return list(map(_settle, verdicts[: len(pairs)], verdicts[len(pairs) :]))


def calibrate(verdicts: Sequence[str | None], labels: Sequence[str]) -> Calibration:
    """Return the agreement of a judge's verdicts with human labels on the same pairs."""
    both = [(verdict, label) for verdict, label in zip(verdicts, labels, strict=True) if verdict is not None]
    counts = np.zeros((3, 3))
    for verdict, label in both:
        counts[CHOICES.index(verdict), CHOICES.index(label)] += 1
    kappa, error = cohen_kappa(counts)
    total = max(1.0, counts.sum())
    return Calibration(
        labels=len(both),
        missing=len(labels) - len(both),
        kappa=kappa,
        lower=kappa - Z95 * error,
        upper=kappa + Z95 * error,
        agreement=float(np.trace(counts) / total),
        base_rate=float(counts.sum(0).max() / total),
    )


def cohen_kappa(counts: np.ndarray) -> tuple[float, float]:
    """Return kappa and its standard error; 0 where chance explains all or nothing is there.

    `counts`, (choices, choices), are pairs by the judge's verdict (row) and the human label (column).
    """
    total = counts.sum()
    if not total:
        return 0.0, 0.0
    shares = counts / total
    rows, columns = shares.sum(1), shares.sum(0)
    agreed, chance = float(np.trace(shares)), float(rows @ columns)
    if chance >= 1:
        return 0.0, 0.0
    kappa = (agreed - chance) / (1 - chance)
    weight = rows[None, :] + columns[:, None]  # for cell (i, j): row share of j plus column share of i
    diagonal = np.diag(shares) * (1 - np.diag(weight) * (1 - kappa)) ** 2
    off = shares * weight**2
    spread = diagonal.sum() + (1 - kappa) ** 2 * (off.sum() - np.trace(off)) - (kappa - chance * (1 - kappa)) ** 2
    return float(kappa), float(np.sqrt(max(0.0, spread) / total) / (1 - chance))


def read_labels(uri: str) -> tuple[list[Pair], list[str]]:
    """Read pairs that people have labelled; a row has `request`, `first`, `second`, `better`, possibly `reference`.

    Raises:
        DataError: A column is missing, or `better` is not `first`, `second` or `tie`.
    """
    rows = [row for split in benchmark_files.read_splits(uri, repeats=True).values() for row in split]
    pairs, labels = [], []
    for number, row in enumerate(rows, 1):
        values = {name: str(benchmark_files.need(row, name, uri, number)) for name in ("request", "first", "second")}
        label = str(benchmark_files.need(row, "better", uri, number))
        if label not in CHOICES:
            raise DataError(f"{uri} row {number}: better is {', '.join(CHOICES)}; got {label!r}")
        pairs.append(Pair(item_id=str(number), reference=str(row.get("reference") or ""), **values))
        labels.append(label)
    return pairs, labels


def _make_prompt(pair: Pair, first: str, second: str) -> str:
    reference = f"\nA good answer, for comparison:\n{pair.reference}\n" if pair.reference else ""
    return PROMPT.format(request=pair.request, reference=reference, first=first, second=second)


def _settle(plain: int | None, swapped: int | None) -> str | None:
    if plain is None or swapped is None:
        return None
    if (plain, swapped) == (1, 2):
        return "first"
    return "second" if (plain, swapped) == (2, 1) else "tie"
