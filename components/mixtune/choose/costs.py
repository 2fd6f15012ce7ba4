"""What a training cost: machine hours from what it wrote itself, US dollars where its machines have a known price."""

from typing import Any

from mixtune import storage

MANIFEST = "model"
"""Name of a training's output; the model's files lie beside its manifest in `data/model`."""
NO_PRICE = "No price is known: tracking.hyperpod names no known instances, such as 4x-p5.48xlarge."


def training_cost(model_uri: str, usd_per_hour: float | None) -> dict[str, Any]:
    """What a model's training cost.

    Args:
        model_uri: The model, as its training returned it.
        usd_per_hour: Of all the machines that it ran on; None: not known.

    Returns:
        `seconds` (of its steps, since it last began), `processes`, `gpus`, `hours` (seconds times GPUs, on CPUs times
        processes, in hours) and `usd` (None without a price); empty where the training left no manifest.
    """
    folder, _, name = storage.split_fingerprint(model_uri)[0].rpartition("/data/")
    manifest = storage.join(folder, MANIFEST)
    figures = storage.read_json(manifest).get("figures") if name == MANIFEST and storage.file_exists(manifest) else {}
    if not figures:
        return {}
    seconds, processes = float(figures["seconds"]), int(figures["num_processes"])
    gpus = int(figures.get("num_gpus", 0))
    usd = None if usd_per_hour is None else round(usd_per_hour * seconds / 3600, 2)
    hours = seconds * (gpus or processes) / 3600
    return {"seconds": seconds, "processes": processes, "gpus": gpus, "hours": hours, "usd": usd}


def said(cost: dict[str, Any]) -> list[str]:
    """The time and the cost of a training as two cells of a table; empty where they are not known."""
    if not cost:
        return ["", ""]
    seconds, unit = cost["seconds"], "GPU" if cost["gpus"] else "CPU"
    time = f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
    hours = f"{cost['hours']:,.1f}" if cost["hours"] >= 10 else f"{cost['hours']:.2g}"
    return [time, f"{hours} {unit}-hours" if cost["usd"] is None else f"${cost['usd']:,.2f}"]


def total(costs: list[dict[str, Any]]) -> str:
    """What several trainings cost together, in a sentence; empty where nothing is known of one of them."""
    known = [cost for cost in costs if cost]
    if not known:
        return ""
    summed = {key: sum(cost[key] for cost in known) for key in ("seconds", "hours")}
    usd = None if any(cost["usd"] is None for cost in known) else sum(cost["usd"] for cost in known)
    _, price = said({**known[0], **summed, "usd": usd})
    unknown = f" {NO_PRICE}" if usd is None else ""
    return f"The trainings cost {price}; validation runs and evaluations are not counted.{unknown}"
