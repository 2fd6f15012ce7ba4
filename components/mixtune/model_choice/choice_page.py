"""The report on two base models: what each scored, where one is surely better, and what each costs to serve."""

from html import escape

from mixtune import storage
from mixtune.artifacts.model_choice import AxisContest, ModelChoice, PricedModel
from mixtune.report import pages

SCORES = ["axis", "metric", "items", "first", "other", "other minus first", "95 % bounds", "surely better"]
MODELS = ["model", "to serve", "$ an hour", "evaluation, s"]


def write_choice(choice: ModelChoice, html_path: str, markdown_path: str) -> None:
    """Write the report as a page and as Markdown."""
    scores = [_score_row(item, choice) for item in choice.axes]
    models = [_model_row(item) for item in (choice.first, choice.other)]
    title = f"Take {_short(choice.chosen)}"
    body = (
        f'<h1>{escape(title)}</h1><p class="summary pass">{escape(choice.reason)}</p>'
        f"{pages.table(SCORES, scores, texts=2)}<h2>What each costs</h2>{pages.table(MODELS, models, texts=2)}"
    )
    pages.write_text(html_path, pages.page(title, body))
    tables = f"{pages.markdown_table(SCORES, scores)}\n\n{pages.markdown_table(MODELS, models)}"
    pages.write_text(markdown_path, f"# {title}\n\n{choice.reason}.\n\n{tables}\n")


def _score_row(item: AxisContest, choice: ModelChoice) -> list[str]:
    measure, change = item.measure, item.measure.change
    percent = "+.1%" if measure.relative else "+.4f"
    bounds = f"{change.lower:{percent}} to {change.upper:{percent}}"
    better = {choice.first.name: "first", choice.other.name: "other"}.get(item.better, "neither")
    scores = [f"{measure.base:.4f}", f"{measure.candidate:.4f}", f"{change.difference:{percent}}"]
    return [item.axis, measure.metric, f"{item.num_items:,}", *scores, bounds, better]


def _model_row(model: PricedModel) -> list[str]:
    cost = "not known" if model.usd_per_hour is None else f"{model.usd_per_hour:,.2f}"
    return [_short(model.name), model.serving, cost, f"{model.evaluation_seconds:.0f}"]


def _short(name: str) -> str:
    return storage.split_fingerprint(name)[0]
