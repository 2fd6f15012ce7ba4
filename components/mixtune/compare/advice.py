"""Advise on an axis that did not pass: what to do, and how small a change its items can show."""

from mixtune.artifacts.comparison import EQUIVALENCE, FAIL, NON_INFERIORITY, PASS, SUPERIORITY, AxisVerdict
from mixtune.evaluate.power import enough_items


def advise(axis: AxisVerdict) -> str:
    """Return what to do about an axis; empty where it passed, and could have failed by answers that were not cut."""
    if axis.verdict == PASS:
        parts = list(filter(None, [_warn_of_nothing_to_lose(axis)]))
    else:
        parts = [_advise_superior(axis) if axis.question == SUPERIORITY else _advise_general(axis)]
    items = axis.items
    cut = max(items.base_truncated, items.candidate_truncated)
    if cut and (axis.verdict != PASS or (10 * cut >= items.total and axis.max_new_tokens)):
        budget = f"at max_new_tokens {axis.max_new_tokens}" if axis.max_new_tokens else "to the model's length"
        parts.append(
            f"Of the answers {items.base_truncated} of the base's and {items.candidate_truncated} of the candidate's "
            f"were cut {budget}" + (": raise it." if 10 * cut >= items.total and axis.max_new_tokens else ".")
        )
    unfinished = max(items.base_unfinished, items.candidate_unfinished)
    if unfinished and (axis.verdict != PASS or 10 * unfinished >= items.total):
        parts.append(
            f"{items.base_unfinished} thoughts of the base and {items.candidate_unfinished} of the candidate never "
            "ended, and count as wrong."
        )
    return " ".join(parts)


def _warn_of_nothing_to_lose(axis: AxisVerdict) -> str:
    """Return that the base has too little on an axis for a loss to show; empty where it has more."""
    measure = axis.measure
    is_share = measure.higher_is_better and not measure.relative
    if axis.question != NON_INFERIORITY or not is_share or measure.base > axis.limit:
        return ""
    return (
        f"{axis.axis}: the base itself scores {measure.base:.3g}, so no more than the {axis.limit:.3g} that is allowed "
        "can be lost: this axis shows nothing; take items that the base can answer, or ask otherwise (num_fewshot)."
    )


def _advise_superior(axis: AxisVerdict) -> str:
    measure, total = axis.measure, axis.items.total
    if axis.min_gain:
        scored = f"{_signed(axis, measure.benefit.difference)} on {total} records"
        return (
            f"{axis.title} on the customer's records: {scored}, a gain of {axis.min_gain:g} is asked for: raise "
            "the customer share, train longer, or test on more records."
        )
    if axis.verdict == FAIL:
        amount = _amount(axis, abs(measure.change.difference))
        return f"{axis.title} on the customer's records fell by {amount}: raise the customer share or train longer."
    gain = measure.benefit.difference
    begin = (
        f"No gain of {axis.title} on the customer's records is proved: {_signed(axis, gain)} on {total} records, "
        f"which show a gain of {_amount(axis, axis.detectable)} in 80 % of such runs."
    )
    if gain > 0:
        more = enough_items(total, axis.detectable, gain)
        return f"{begin} If the gain is as measured, about {more:,} records prove it; else train longer."
    return f"{begin} Train longer, or raise the customer share."


def _advise_general(axis: AxisVerdict) -> str:
    measure, benefit = axis.measure, axis.measure.benefit
    loss, limit, total = -benefit.difference, _amount(axis, axis.limit), axis.items.total
    if axis.verdict == FAIL and axis.question == EQUIVALENCE:
        amount = _amount(axis, abs(measure.change.difference))
        return f"{axis.axis} differs by {amount}: this is not what was proved; look at its form and its engine."
    if axis.verdict == FAIL:
        verb = "fell" if measure.higher_is_better else "rose"
        amount = _amount(axis, abs(measure.change.difference))
        return f"{axis.axis} {verb} by {amount}: raise the general share before touching the learning rate."
    power = f"an unchanged model passes in {100 * axis.power:.0f} % of such runs"
    begin = (
        f"{axis.axis}: the loss lies between {_amount(axis, -benefit.upper)} and {_amount(axis, -benefit.lower)}, and "
        f"{limit} is allowed: {total:,} items cannot tell ({power})."
    )
    if axis.detectable > axis.limit:
        if axis.limit == 0:
            return f"{begin} No number of items shows that nothing at all was lost: allow a loss above 0."
        return (
            f"{begin} They are too few: evaluate on about {enough_items(total, axis.detectable, axis.limit):,}, or "
            f"allow {_amount(axis, axis.detectable)}."
        )
    # There are items enough for a model that lost nothing: this one lost about what is allowed.
    if loss < axis.limit:
        enough = enough_items(total, axis.detectable, axis.limit - loss)
        more = f"if it is as measured ({_amount(axis, loss)}), about {enough:,} items tell"
    else:
        more = f"as measured ({_amount(axis, loss)}), it is more than that"
    return (
        f"{begin} The items are enough, the loss is close to the allowed one: {more}; raise the general share, or "
        f"allow {_amount(axis, -benefit.lower)}."
    )


def _amount(axis: AxisVerdict, value: float) -> str:
    """Return a difference with three significant digits, in percent where it is relative."""
    value = value if abs(value) > 1e-12 else 0.0
    return f"{100 * value:.3g} %" if axis.measure.relative else f"{value:.3g}"


def _signed(axis: AxisVerdict, value: float) -> str:
    return ("+" if value > 0 else "") + _amount(axis, value)
