"""What a training cost: machine hours from what it wrote itself, US dollars where its machines have a known price."""

from collections.abc import Iterable

from mixtune.artifacts.grid import TrainingCost
from mixtune.artifacts.model import find_manifest

NO_PRICE = "No price is known: tracking.hyperpod names no known instances, such as 4x-p5.48xlarge."


def training_cost(model_uri: str, usd_per_hour: float | None) -> TrainingCost | None:
    """Return what a training on machines of that price cost; None where it left no manifest."""
    manifest = find_manifest(model_uri)
    if manifest is None or manifest.figures is None:
        return None
    figures = manifest.figures
    return TrainingCost(
        seconds=figures.seconds,
        processes=figures.num_processes,
        gpus=figures.num_gpus,
        usd=None if usd_per_hour is None else round(usd_per_hour * figures.seconds / 3600, 2),
    )


def format_cost(cost: TrainingCost | None) -> list[str]:
    """Return the time and the cost of a training as two cells of a table; empty where they are not known."""
    if cost is None:
        return ["", ""]
    time = f"{cost.seconds / 3600:,.1f} h" if cost.seconds >= 3600 else f"{cost.seconds / 60:.1f} min"
    return [time, _format_price(cost.usd, cost.hours, "GPU" if cost.gpus else "CPU")]


def describe_total(costs: Iterable[TrainingCost | None]) -> str:
    """Return what several trainings cost together, in a sentence; empty where nothing is known of any."""
    trainings = [cost for cost in costs if cost]
    if not trainings:
        return ""
    prices = [cost.usd for cost in trainings if cost.usd is not None]
    usd = sum(prices) if len(prices) == len(trainings) else None
    price = _format_price(usd, sum(cost.hours for cost in trainings), "GPU" if trainings[0].gpus else "CPU")
    unknown = f" {NO_PRICE}" if usd is None and trainings[0].gpus else ""
    return f"The trainings cost {price}; validation runs and evaluations are not counted.{unknown}"


def _format_price(usd: float | None, hours: float, unit: str) -> str:
    if usd is not None:
        return f"${usd:,.2f}"
    return f"{hours:,.1f} {unit}-hours" if hours >= 10 else f"{hours:.2g} {unit}-hours"
