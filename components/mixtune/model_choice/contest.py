"""Two base models on the same items, paired: what the customer's test set and the general axes say, and the price.

The models have tokenizers and templates of their own, so their prompts differ where the items do not. Pairs are made by
items alone. An answer's NLL is summed over all of it: its nats can be compared, nats a token cannot.
"""

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from mixtune import models, storage
from mixtune.artifacts.comparison import CUSTOMER_AXIS, Measure
from mixtune.artifacts.model_choice import AxisContest, ModelChoice, PricedModel
from mixtune.artifacts.samples import Samples
from mixtune.compare.measures import measure_axis
from mixtune.errors import DataError, MixtuneError
from mixtune.evaluate.registry import FORMS
from mixtune.prices import Prices
from mixtune.serve.served_model import read_whole_model
from mixtune.serve.sizing import plan_serving
from mixtune.settings.serving import ServeSettings

ALIKE = ("engine", "dtype", "device", "limit", "customer", "general", "benchmarks")
"""What of both evaluations has to be the same."""
COMPARABLE = "nll_of_answers"
"""Metric of an axis whose score counts tokens: the score itself cannot be compared, its total can."""


def hold_contest(samples: tuple[Samples, Samples], priced: tuple[PricedModel, PricedModel]) -> ModelChoice:
    """Compare the first model's samples with the other's on every axis, and choose.

    Raises:
        DataError: The evaluations differ in more than the model, or have no customer's item in common.
    """
    first, other = samples
    for key in ALIKE:
        if getattr(first.identity, key) != getattr(other.identity, key):
            raise DataError(f"the models were evaluated with another {key}; evaluate both alike")
    names = [axis for axis in first.axes if axis in other.axes]
    if CUSTOMER_AXIS not in names:
        raise DataError("no records of the customer's were evaluated, and the choice is made on them: give test_uri")
    names.sort(key=lambda name: (name != CUSTOMER_AXIS, name))
    axes = tuple(_compare_axis(axis, samples, priced) for axis in names)
    chosen, reason = choose(axes[0], priced)
    return ModelChoice(first=priced[0], other=priced[1], axes=axes, chosen=chosen, reason=reason)


def choose(customer: AxisContest, priced: tuple[PricedModel, PricedModel]) -> tuple[str, str]:
    """Return the model to take and why: the surely better one on the customer's records, else the cheaper one."""
    if customer.better:
        return customer.better, "it is surely better on the customer's records"
    costs = [model.usd_per_hour for model in priced]
    if costs[0] is None or costs[1] is None or costs[0] == costs[1]:
        return priced[0].name, "neither is surely better on the customer's records, nor cheaper; more items would tell"
    cheaper = priced[0] if costs[0] < costs[1] else priced[1]
    return cheaper.name, "neither is surely better on the customer's records, and it is cheaper to serve"


def price_model(name: str, samples: Samples, settings: ServeSettings, prices: Prices) -> PricedModel:
    """Return what it takes to serve a model; where that cannot be said, why."""
    plain = storage.plain_uri(name)
    try:
        folder = str(models.fetch_model(name, weights=True)) if models.is_hub_name(plain) else plain
        plan = plan_serving(read_whole_model(plain, folder), settings, prices)
    except MixtuneError as error:
        return PricedModel(name=name, serving=str(error), usd_per_hour=None, evaluation_seconds=samples.seconds)
    return PricedModel(
        name=name, serving=plan.line(), usd_per_hour=plan.usd_per_hour, evaluation_seconds=samples.seconds
    )


def pair_items(first: pa.Table, other: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the rows of the items that both have, in the same order."""
    common = pc.unique(first["item_id"].filter(pc.is_in(first["item_id"], other["item_id"].combine_chunks())))
    tables = [table.filter(pc.is_in(table["item_id"], common)).sort_by("item_id") for table in (first, other)]
    if len(tables[0]) != len(tables[1]):
        raise DataError("an item is there twice; items need ids of their own")
    return tables[0], tables[1]


def _compare_axis(axis: str, samples: tuple[Samples, Samples], priced: tuple[PricedModel, PricedModel]) -> AxisContest:
    summary = samples[0].axes[axis]
    tables = pair_items(samples[0].table(axis), samples[1].table(axis))
    if not len(tables[0]):
        raise DataError(f"{axis}: the models have no item in common; evaluate both on the same files")
    form = FORMS[summary.form]
    measure = measure_axis(form, summary.labels, tables, summary.metric)[0]
    if form.relative:
        measure = _per_answer(measure, tables)
    better = priced[1].name if measure.benefit.lower > 0 else priced[0].name if measure.benefit.upper < 0 else ""
    return AxisContest(axis=axis, num_items=len(tables[0]), better=better, measure=measure)


def _per_answer(measure: Measure, tables: tuple[pa.Table, pa.Table]) -> Measure:
    scores = [float(pc.mean(table["nll"]).as_py()) for table in tables]
    return replace(measure, metric=COMPARABLE, base=scores[0], candidate=scores[1])
