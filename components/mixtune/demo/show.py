"""What `mixtune demo` shows: the base model and every mix that was tried, side by side."""

from typing import Any

AXES = {
    "mmlu": "knowledge (accuracy)",
    "ifeval": "instructions (strict)",
    "general_nll": "general NLL",
    "customer": "customer F1",
}


def table(grid: dict[str, Any]) -> str:
    """A table of scores and verdicts: the base model, then every mix.

    Args:
        grid: What `choose_mix` wrote.

    Returns:
        Lines of text; a difference stands with its one-sided 95 % bounds.
    """
    axes = sorted(next(point["axes"] for point in grid["points"] if point["axes"]).values(), key=_place)
    none = [""] * len(axes)
    rows = [["", *(AXES.get(axis["axis"], axis["axis"]) for axis in axes), "verdict"]]
    rows.append(["base model", *(f"{axis['base']:.3f}" for axis in axes), ""])
    for point in grid["points"]:
        name = "customer only" if point["percent"] == 100 else f"{point['percent']:g} % customer"
        if not point["axes"]:
            rows.append([name, *none, f"{point['verdict']}: {point['reason']}"])
            continue
        axes = sorted(point["axes"].values(), key=_place)
        rows.append([name, *(f"{axis['candidate']:.3f}" for axis in axes), point["verdict"]])
        rows.append(["  difference", *(_difference(axis) for axis in axes), ""])
        rows.append(["  verdict", *(axis["verdict"] for axis in axes), ""])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _place(axis: dict[str, Any]) -> int:
    return list(AXES).index(axis["axis"]) if axis["axis"] in AXES else len(AXES)


def _difference(axis: dict[str, Any]) -> str:
    form = "{:+.1%}" if axis["relative"] else "{:+.3f}"
    parts = [form.format(axis[key]) for key in ("difference", "lower", "upper")]
    return f"{parts[0]} [{parts[1]}, {parts[2]}]"
