"""What `mixtune demo` shows: the same pipeline on customer records only and on a mix, side by side."""

from typing import Any

AXES = {
    "mmlu": "knowledge (accuracy)",
    "ifeval": "instructions (strict)",
    "general_nll": "general NLL",
    "customer": "customer F1",
}


def table(runs: dict[str, dict[str, Any]]) -> str:
    """A table of scores and verdicts: the base model, then every run.

    Args:
        runs: What `compare` wrote, by the name of the run.

    Returns:
        Lines of text; a difference stands with its one-sided 95 % bounds.
    """
    runs = {name: {**run, "axes": sorted(run["axes"], key=_place)} for name, run in runs.items()}
    first = next(iter(runs.values()))
    rows = [["", *(AXES.get(axis["axis"], axis["axis"]) for axis in first["axes"]), "verdict"]]
    rows.append(["base model", *(f"{axis['base']:.3f}" for axis in first["axes"]), ""])
    for name, comparison in runs.items():
        rows.append([name, *(f"{axis['candidate']:.3f}" for axis in comparison["axes"]), comparison["verdict"]])
        rows.append(["  difference", *(_difference(axis) for axis in comparison["axes"]), ""])
        rows.append(["  verdict", *(axis["verdict"] for axis in comparison["axes"]), ""])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _place(axis: dict[str, Any]) -> int:
    return list(AXES).index(axis["axis"]) if axis["axis"] in AXES else len(AXES)


def _difference(axis: dict[str, Any]) -> str:
    form = "{:+.1%}" if axis["relative"] else "{:+.3f}"
    parts = [form.format(axis[key]) for key in ("difference", "lower", "upper")]
    return f"{parts[0]} [{parts[1]}, {parts[2]}]"
