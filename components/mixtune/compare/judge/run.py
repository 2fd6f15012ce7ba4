"""The judge's step: which of both models' answers it prefers, item by item, and what that says of the candidate."""

from collections import Counter
from dataclasses import asdict, dataclass, field

import numpy as np

from mixtune import storage
from mixtune.artifacts.comparison import (
    ADVISORY,
    CUSTOMER_AXIS,
    FAIL,
    NON_INFERIORITY,
    PASS,
    SUPERIORITY,
    AxisVerdict,
    ItemCounts,
    Measure,
)
from mixtune.artifacts.judgments import MIN_KAPPA, MIN_LABELS, Calibration, Judge, Judgment, Judgments
from mixtune.artifacts.samples import Samples, prompt_hash, read_samples
from mixtune.artifacts.typed_json import read_artifact, write_artifact
from mixtune.compare import paired_stats
from mixtune.compare.judge import pairwise
from mixtune.compare.judge.pairwise import Ask, Pair
from mixtune.compare.paired_samples import check_same, join
from mixtune.errors import ConfigError, DataError
from mixtune.evaluate.power import detectable_loss
from mixtune.evaluate.registry import FORMS
from mixtune.report import pages
from mixtune.report.outputs import Outputs

AXIS = "judge"
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
    chat_template_uri: str = ""
    """File with a chat template in place of the local model's own."""
    storage: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("judge: model is missing; give a folder, an s3:// prefix, or with url the name there")
        if self.limit < 0:
            raise ConfigError(f"judge: limit is 0 (all) or more, got {self.limit}")
        if self.key_path and not self.url:
            raise ConfigError("judge: key_path is for a judge behind a url; a local model needs no key")
        if self.chat_template_uri and self.url:
            raise ConfigError("judge: chat_template_uri is for a local model; the server at url has its own template")


def run_judging(inputs: JudgeInputs, outputs: Outputs) -> Judgments:
    """Ask the judge about both models' answers and about the human-labelled pairs.

    Raises:
        DataError: The axis has no generated answers, or both evaluations were not asked the same.
        ModelError: The judge cannot be reached or loaded.
    """
    from mixtune.compare.judge import judge_models  # `compare` reads judgments too, and needs no model

    storage.configure_storage(inputs.storage)
    base, candidate = read_samples(inputs.base_path), read_samples(inputs.candidate_path)
    pairs = pair_answers(base, candidate, inputs.axis, int(inputs.limit))
    labelled, labels = pairwise.read_labels(inputs.labels_uri) if inputs.labels_uri else ([], [])
    ask: Ask = (
        judge_models.ask_url(inputs.url, inputs.model, inputs.key_path)
        if inputs.url
        else judge_models.ask_local(inputs.model, inputs.chat_template_uri)
    )
    print(f"judge: {len(pairs)} pairs and {len(labelled)} with human labels, each in both orders", flush=True)
    calibration = pairwise.calibrate(pairwise.judge_pairs(labelled, ask), labels)
    names = {"first": "base", "second": "candidate", "tie": "tie", None: None}
    judgments = Judgments(
        axis=inputs.axis,
        judge=Judge(model=inputs.model, url=inputs.url, prompt=prompt_hash(pairwise.PROMPT)),
        samples=_digest_samples(base, candidate),
        calibration=calibration,
        items=tuple(
            Judgment(item_id=pair.item_id, preferred=names[verdict])
            for pair, verdict in zip(pairs, pairwise.judge_pairs(pairs, ask), strict=True)
        ),
    )
    write_report(judgments, outputs.html_path)
    write_artifact(outputs.json_path, judgments)
    return judgments


def pair_answers(base: Samples, candidate: Samples, axis: str, limit: int) -> list[Pair]:
    """Return both models' answers on an axis, the base's first; a DataError where none was generated."""
    check_same(base, candidate)
    rows = [table.select(["item_id", "text", "gold", "response"]).to_pylist() for table in join(base, candidate, axis)]
    form = FORMS[base.axes[axis].form]
    if not any(row["response"] for side in rows for row in side):
        raise DataError(f"judge: axis {axis!r} has no generated answers; judge one that is generated, such as ifeval")
    places = np.arange(len(rows[0]))
    if limit and limit < len(places):
        places = np.linspace(0, len(places) - 1, limit).astype(int)
    return [
        Pair(
            item_id=rows[0][place]["item_id"],
            request=rows[0][place]["text"],
            first=rows[0][place]["response"],
            second=rows[1][place]["response"],
            reference=form.reference(rows[0][place]["gold"]),
        )
        for place in places
    ]


def read_judgments(path: str, base: Samples, candidate: Samples) -> Judgments:
    """Read judgments on these very samples; a DataError where they are about others."""
    judgments = read_artifact(Judgments, path)
    if judgments.samples != _digest_samples(base, candidate):
        raise DataError(f"{path}: these judgments are about other samples; judge the base and candidate compared here")
    return judgments


def judge_axis(judgments: Judgments, limit: float) -> AxisVerdict:
    """Return the judge's verdict on the candidate; `advisory`, and without weight, unless the judge is calibrated."""
    decided = [item.preferred for item in judgments.items if item.preferred]
    missing = len(judgments.items) - len(decided)
    base, candidate = (np.array([name == side for name in decided], float) for side in ("base", "candidate"))
    change = paired_stats.estimate(0.0, 1.0)
    if decided:
        item_ids = [str(number) for number in range(len(decided))]
        change = paired_stats.paired_mean(base, candidate, ["all"] * len(decided), item_ids)
    question, verdict = NON_INFERIORITY, paired_stats.non_inferiority(change, limit)
    if judgments.axis == CUSTOMER_AXIS:
        question, verdict, limit = SUPERIORITY, paired_stats.superiority(change), 0.0
    if not judgments.calibration.is_sufficient or missing > MAX_MISSING * len(judgments.items):
        question = verdict = ADVISORY
    measure = Measure(
        metric=f"preferred on {judgments.axis}",
        base=float(base.mean()) if decided else 0.0,
        candidate=float(candidate.mean()) if decided else 0.0,
        change=change,
    )
    return AxisVerdict(
        axis=AXIS,
        form="judge",
        question=question,
        limit=limit,
        verdict=verdict,
        advice=_advise(judgments.calibration, verdict, missing, len(judgments.items)),
        detectable=detectable_loss(change.standard_error),
        items=ItemCounts(total=len(decided)),
        measures=(measure,),
    )


def share_preferences(judgments: Judgments) -> dict[str, float]:
    """Return the share of the pairs on which each model is preferred, neither is, or the judge gave no verdict."""
    counts = _count_preferences(judgments)
    return {name: counts[name] / len(judgments.items) for name in ("base", "candidate", "tie", NO_VERDICT)}


def calibration_metrics(calibration: Calibration) -> dict[str, float]:
    """Return the calibration as numbers; `calibrated` is 1 where the judge may pass or fail a candidate."""
    return {**asdict(calibration), "calibrated": int(calibration.is_sufficient)}


def write_report(judgments: Judgments, path: str) -> None:
    """Write the judge's page: its preferences, and how well it agrees with people."""
    agreement = {name: round(value, 4) for name, value in calibration_metrics(judgments.calibration).items()}
    tables = {
        "<h1>Judge</h1>": asdict(judgments.judge),
        f"<h2>Preferred on {judgments.axis}</h2>": _count_preferences(judgments),
        "<h2>Agreement with people</h2>": agreement,
    }
    body = "".join(title + pages.key_value_table(values) for title, values in tables.items())
    pages.write_text(path, pages.page("Judge", body))


def _count_preferences(judgments: Judgments) -> Counter[str]:
    return Counter(item.preferred or NO_VERDICT for item in judgments.items)


def _digest_samples(base: Samples, candidate: Samples) -> tuple[str, str]:
    return base.digest, candidate.digest


def _advise(calibration: Calibration, verdict: str, missing: int, count: int) -> str:
    if verdict == ADVISORY and missing > MAX_MISSING * count:
        return f"judge: no verdict on {missing} of {count} pairs, so it decides nothing: use another judge."
    if verdict == ADVISORY:
        return (
            f"judge: advisory, it decides nothing: {calibration.labels} human labels, kappa {calibration.kappa:.2f} "
            f"({calibration.lower:.2f} to {calibration.upper:.2f}); at least {MIN_LABELS} labels and a lower "
            f"bound of {MIN_KAPPA} are needed."
        )
    if verdict == FAIL:
        return "judge: the base model's answers are preferred; read the lost items before anything else."
    return "" if verdict == PASS else "judge: the pairs cannot tell which model is preferred: judge more of them."
