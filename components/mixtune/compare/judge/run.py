"""The judge's step: which of both models' answers it prefers, item by item, and what that says of the candidate."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixtune import storage
from mixtune.artifacts.samples import Samples, prompt_hash, read_samples
from mixtune.compare import paired_stats
from mixtune.compare.comparison import check_same, join
from mixtune.compare.judge import pairwise
from mixtune.compare.judge.pairwise import Ask, Calibration, Pair
from mixtune.compare.measures import Measure
from mixtune.compare.verdicts import AxisVerdict
from mixtune.errors import ConfigError, DataError
from mixtune.report import pages
from mixtune.results import CUSTOMER_AXIS, FAIL, PASS

AXIS = "judge"
ADVISORY = "advisory"
NO_VERDICT = "no verdict"
DEFAULT_LIMIT = 0.05
"""Allowed loss where a general axis is judged: how far the base's wins may exceed the candidate's, as a share."""
MAX_MISSING = 0.1
"""Share of pairs without a verdict above which a judge is advisory."""


@dataclass(frozen=True, kw_only=True)
class JudgeInputs:
    """What `judge` reads."""

    base_path: str
    candidate_path: str
    model: str
    """A local model (folder, `s3://` prefix, `org/name@revision`), or with `url` the name there."""
    url: str = ""
    """Base URL of an OpenAI-compatible server; empty: a local model."""
    key_path: str = ""
    """File with the server's key, as a mounted secret has it; empty: none."""
    axis: str = CUSTOMER_AXIS
    """Whose generated answers are judged."""
    labels_uri: str = ""
    """Pairs with human labels; empty: the judge stays advisory."""
    limit: int = 0
    """Pairs at most, evenly over the items; 0: all."""
    storage: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("judge: model is missing; give a folder, an s3:// prefix, or with url the name there")
        if self.limit < 0:
            raise ConfigError(f"judge: limit is 0 (all) or more, got {self.limit}")
        if self.key_path and not self.url:
            raise ConfigError("judge: key_path is for a judge behind a url; a local model needs no key")


@dataclass(frozen=True, kw_only=True)
class JudgeOutputs:
    """Where `judge` writes."""

    judgments_path: str
    report_path: str


def run_judging(inputs: JudgeInputs, outputs: JudgeOutputs) -> dict[str, Any]:
    """Ask the judge about both models' answers and about the human-labelled pairs; what was written comes back.

    Raises:
        DataError: The axis has no generated answers, or both evaluations were not asked the same.
        ModelError: The judge cannot be reached or loaded.
    """
    from mixtune.compare.judge import judge_models  # `compare` reads judgments too, and needs no model

    storage.use(inputs.storage)
    base, candidate = read_samples(inputs.base_path), read_samples(inputs.candidate_path)
    pairs = answer_pairs(base, candidate, inputs.axis, int(inputs.limit))
    labelled, labels = pairwise.read_labels(inputs.labels_uri) if inputs.labels_uri else ([], [])
    ask: Ask = (
        judge_models.ask_url(inputs.url, inputs.model, inputs.key_path)
        if inputs.url
        else judge_models.ask_local(inputs.model)
    )
    print(f"judge: {len(pairs)} pairs and {len(labelled)} with human labels, each in both orders", flush=True)
    calibration = pairwise.calibrate(pairwise.judge_pairs(labelled, ask), labels)
    names = {"first": "base", "second": "candidate"}
    verdicts = [names.get(one, one) if one else None for one in pairwise.judge_pairs(pairs, ask)]
    judgments = {
        "kind": "judgments",
        "axis": inputs.axis,
        "judge": {"model": inputs.model, "url": inputs.url, "prompt": prompt_hash(pairwise.PROMPT)},
        "samples": [storage.manifest_digest(side.manifest) for side in (base, candidate)],
        "calibration": calibration.as_json(),
        "items": [
            {"item_id": pair.item_id, "preferred": verdict} for pair, verdict in zip(pairs, verdicts, strict=True)
        ],
    }
    write_report(judgments, outputs.report_path)
    storage.write_json(outputs.judgments_path, judgments)
    return judgments


def answer_pairs(base: Samples, candidate: Samples, axis: str, limit: int) -> list[Pair]:
    """Both models' answers on an axis, the base's first.

    Raises:
        DataError: The axis has no generated answers.
    """
    check_same(base, candidate)
    tables = join(base, candidate, axis)
    rows = [table.select(["item_id", "text", "gold", "response"]).to_pylist() for table in tables]
    if not any(row["response"] for side in rows for row in side):
        raise DataError(f"judge: axis {axis!r} has no generated answers; judge one that is generated, such as ifeval")
    keep = range(len(rows[0]))
    if limit and limit < len(rows[0]):
        keep = np.linspace(0, len(rows[0]) - 1, limit).astype(int)  # type: ignore[assignment]
    return [
        Pair(
            item_id=rows[0][place]["item_id"],
            request=rows[0][place]["text"],
            first=rows[0][place]["response"],
            second=rows[1][place]["response"],
            reference=rows[0][place]["gold"],
        )
        for place in keep
    ]


def read_judgments(path: str, base: Samples, candidate: Samples) -> dict[str, Any]:
    """Judgments on these very samples.

    Raises:
        DataError: They are about other samples, or no judgments.
    """
    found = dict(storage.read_json(path))
    if found.get("kind") != "judgments":
        raise DataError(f"{path}: not a judgments file; give the output of judge")
    if found["samples"] != [storage.manifest_digest(side.manifest) for side in (base, candidate)]:
        raise DataError(f"{path}: these judgments are about other samples; judge the base and candidate compared here")
    return found


def judged_axis(judgments: dict[str, Any], limit: float) -> AxisVerdict:
    """What the judge says of the candidate; `advisory`, and without weight, unless the judge is calibrated."""
    items = judgments["items"]
    seen = [item["preferred"] for item in items if item["preferred"]]
    calibration, missing = judgments["calibration"], len(items) - len(seen)
    base, candidate = (np.array([one == name for one in seen], float) for name in ("base", "candidate"))
    ids = [str(number) for number in range(len(seen))]
    found = (
        paired_stats.paired_mean(base, candidate, ["all"] * len(seen), ids) if seen else paired_stats.estimate(0.0, 1.0)
    )
    superior = judgments["axis"] == CUSTOMER_AXIS
    trusted = bool(calibration["calibrated"]) and missing <= MAX_MISSING * len(items)
    question = ("superiority" if superior else "non-inferiority") if trusted else ADVISORY
    verdict = paired_stats.superiority(found) if superior else paired_stats.non_inferiority(found, limit)
    shares = [float(won.mean()) if seen else 0.0 for won in (base, candidate)]
    measure = Measure(
        metric=f"preferred on {judgments['axis']}",
        base=shares[0],
        candidate=shares[1],
        difference=found.difference,
        standard_error=found.standard_error,
        lower=found.lower,
        upper=found.upper,
    )
    return AxisVerdict(
        axis=AXIS,
        form="judge",
        metric=measure.metric,
        question=question,
        higher_is_better=True,
        relative=False,
        base=measure.base,
        candidate=measure.candidate,
        difference=measure.difference,
        lower=measure.lower,
        upper=measure.upper,
        limit=0.0 if superior else limit,
        verdict=verdict if trusted else ADVISORY,
        num_items=len(seen),
        detectable=found.detectable,
        lost=0,
        gained=0,
        advice=_advice(calibration, verdict if trusted else ADVISORY, missing, len(items)),
        measures=[measure],
    )


def preferences(judgments: dict[str, Any]) -> dict[str, float]:
    """Share of the pairs on which each model is preferred, neither is, or the judge gave no verdict."""
    counts = Counter(item["preferred"] or NO_VERDICT for item in judgments["items"])
    return {name: counts[name] / len(judgments["items"]) for name in ("base", "candidate", "tie", NO_VERDICT)}


def write_report(judgments: dict[str, Any], path: str) -> None:
    """The judge's page: what it preferred, and how well it agrees with people."""
    counts = Counter(item["preferred"] or NO_VERDICT for item in judgments["items"])
    kept = {name: round(value, 4) for name, value in judgments["calibration"].items()}
    body = (
        f"<h1>Judge</h1>{pages.words(judgments['judge'])}<h2>Preferred on {judgments['axis']}</h2>"
        f"{pages.words(dict(counts))}<h2>Agreement with people</h2>{pages.words(kept)}"
    )
    pages.write_text(path, pages.page("Judge", body))


def _advice(calibration: dict[str, Any], verdict: str, missing: int, count: int) -> str:
    if verdict == ADVISORY and missing > MAX_MISSING * count:
        return f"judge: no verdict on {missing} of {count} pairs, so it decides nothing: use another judge."
    if verdict == ADVISORY:
        agreement = Calibration(**{name: value for name, value in calibration.items() if name != "calibrated"})
        return (
            f"judge: advisory, it decides nothing: {agreement.labels} human labels, kappa {agreement.kappa:.2f} "
            f"({agreement.lower:.2f} to {agreement.upper:.2f}); at least {pairwise.MIN_LABELS} labels and a lower "
            f"bound of {pairwise.MIN_KAPPA} are needed."
        )
    if verdict == FAIL:
        return "judge: the base model's answers are preferred; read the lost items before anything else."
    return "" if verdict == PASS else "judge: the pairs cannot tell which model is preferred: judge more of them."
