"""The report on two base models: which to take at what price, what each scored, and where one is surely better."""

import os
from html import escape

from mixtune import storage
from mixtune.artifacts.comparison import INCONCLUSIVE, PASS
from mixtune.artifacts.model_choice import AxisContest, ModelChoice, PricedModel
from mixtune.report import pages
from mixtune.report.next_steps import RUN, steps_html, tune_chosen
from mixtune.report.score_cells import score_cells

MODELS = ["model", "to serve", "$ an hour", "evaluation, s"]
_ANSWERS = (
    "nll_of_answers is the negative log-likelihood of a whole answer, in nats; less is better. Nats a token cannot be "
    "compared, since the models cut texts into tokens of their own."
)


def write_choice(choice: ModelChoice, html_path: str, markdown_path: str) -> None:
    """Write the report as a page and as Markdown."""
    first, other = (_label(choice, model) for model in (choice.first, choice.other))
    header = ["axis", "metric", "items", first, other, f"{other} minus {first}", "95 % bounds", "surely better"]
    scores = [_score_row(item, choice) for item in choice.axes]
    models = [_model_row(item) for item in (choice.first, choice.other)]
    title, sentence = headline(choice)
    steps = tune_chosen(os.environ.get("MIXTUNE_RUN_ID") or RUN, choice.chosen)
    look = INCONCLUSIVE if choice.is_tie else PASS
    body = (
        f'<h1>{escape(title)}</h1><p class="summary {look}">{escape(sentence)}</p>'
        f"{pages.table(header, scores, texts=2)}{pages.note(_ANSWERS)}"
        f"<h2>What each costs</h2>{pages.table(MODELS, models, texts=2)}{steps_html(steps)}"
    )
    pages.write_text(html_path, pages.page(title, body))
    tables = f"{pages.markdown_table(header, scores)}\n\n{pages.markdown_table(MODELS, models)}"
    pages.write_text(markdown_path, f"# {title}\n\n{sentence}\n\n{tables}\n")


def headline(choice: ModelChoice) -> tuple[str, str]:
    """Return the choice in a title, and the reason with scores and prices in a sentence."""
    chosen, refused = choice.first, choice.other
    measure, items = choice.axes[0].measure, choice.axes[0].num_items
    scores = [measure.base, measure.candidate]
    if choice.chosen == choice.other.name:
        chosen, refused, scores = refused, chosen, scores[::-1]
    name, beside = _label(choice, chosen), _label(choice, refused)
    evidence = f"{measure.metric} {scores[0]:.3f} against {scores[1]:.3f} on {items:,} items"
    prices = f"{name} costs {_price(chosen)} to serve, {beside} {_price(refused)}"
    title = f"{name} or {beside}: nothing tells them apart" if choice.is_tie else f"Take {name}, at {_price(chosen)}"
    return title, f"{choice.reason[:1].upper()}{choice.reason[1:]}: {evidence}. {prices}."


def _label(choice: ModelChoice, model: PricedModel) -> str:
    """Return a model's name without its place, where that names it; else with it."""
    names = [storage.plain_uri(item.name) for item in (choice.first, choice.other)]
    short = [name.rstrip("/").rpartition("/")[2].partition("@")[0] for name in names]
    return (short if short[0] != short[1] else names)[model.name != choice.first.name]


def _price(model: PricedModel) -> str:
    return "an unknown price" if model.usd_per_hour is None else f"${model.usd_per_hour:,.2f} an hour"


def _score_row(item: AxisContest, choice: ModelChoice) -> list[str]:
    models = {model.name: _label(choice, model) for model in (choice.first, choice.other)}
    scores, better = score_cells(item.measure, percent_digits=1), models.get(item.better, "neither")
    return [item.axis, item.measure.metric, f"{item.num_items:,}", *scores, better]


def _model_row(model: PricedModel) -> list[str]:
    cost = "not known" if model.usd_per_hour is None else f"{model.usd_per_hour:,.2f}"
    return [storage.plain_uri(model.name), model.serving, cost, f"{model.evaluation_seconds:.0f}"]
