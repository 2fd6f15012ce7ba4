"""Whether the records that a run holds back are enough to tell: the customer's test records, the general hold-out."""

from typing import NamedTuple

from mixtune.artifacts.comparison import CUSTOMER_AXIS
from mixtune.evaluate.benchmarks import nll
from mixtune.evaluate.power import NLL_MOVED, OWN_CHANGED, warn_of_few
from mixtune.preflight.findings import Findings
from mixtune.preflight.run_settings import RunSettings
from mixtune.settings.from_dict import from_dict
from mixtune.settings.inference import EvaluateSettings
from mixtune.settings.sanitize import read_sanitize_settings

NOT_COUNTED = "not counted before they are read (JSONL, CSV and TSV are)"


class HeldBack(NamedTuple):
    """About how many records a run will hold back; 0 where they cannot be counted."""

    customer: int
    general: int


def count_held_back(run: RunSettings) -> HeldBack:
    """Return how many records of the customer will be tested, and how many general ones held out."""
    splits = {"splits": run.sanitize_options.get("splits", {})}
    general, own = (read_sanitize_settings(task, splits).splits for task in ({}, {"splits": {"holdout_records": 0}}))
    own_tests, own_train = (run.num_records[CUSTOMER_AXIS, split] for split in ("test", "train"))
    pools = [run.num_records[name, "train"] for name in run.general_pools]
    return HeldBack(
        customer=own_tests or own.num_records(own_train, has_test=False)["test"],
        general=sum(general.num_records(size, has_test=False)["holdout"] for size in pools) if all(pools) else 0,
    )


def check_items(run: RunSettings) -> Findings:
    """Compare the held-out records with the limits; warn of nothing where records cannot be counted."""
    limit_of = from_dict(EvaluateSettings, run.evaluate_options, "evaluate_options").limit_of
    test, holdout = count_held_back(run)
    own_tests, own_train = (run.num_records[CUSTOMER_AXIS, split] for split in ("test", "train"))
    pools = [run.num_records[name, "train"] for name in run.general_pools]
    tests = f"about {test:,} test records" if own_tests or own_train else f"test records {NOT_COUNTED}"
    held = f"{holdout:,} general records held out" if all(pools) else f"general records held out {NOT_COUNTED}"
    yield "pass", f"{tests}, {held}"
    raised = "raise evaluate_options.limit to"
    way = "give more in test_uri," if own_tests else "give a test_uri, or a larger sanitize_options.splits.test_ratio,"
    limit, count = run.limits.get(CUSTOMER_AXIS, 0.0), min(test, limit_of(CUSTOMER_AXIS) or test)
    yield from warn_of_few(CUSTOMER_AXIS, count, limit, way if count == test else raised, OWN_CHANGED)
    way = "raise sanitize_options.splits.holdout_records (at most a tenth of each pool), to hold out"
    limit, count = run.limits.get(nll.AXIS, nll.FORM.default_limit), min(holdout, limit_of(nll.AXIS) or holdout)
    yield from warn_of_few(nll.AXIS, count, limit, way if count == holdout else raised, NLL_MOVED)
