"""The page of a comparison: what was kept and lost, axis by axis, subject by subject, item by item."""

from collections.abc import Sequence
from html import escape

from mixtune.artifacts.comparison import (
    NON_INFERIORITY,
    SUPERIORITY,
    AxisVerdict,
    Comparison,
    DialVerdict,
    LostItem,
    TrainedMix,
)
from mixtune.report import charts, confusion_table
from mixtune.report.pages import table, words


def comparison_body(comparison: Comparison, sentence: str, header: list[str], rows: list[list[str]]) -> str:
    """The whole report of a comparison.

    Args:
        comparison: What was found.
        sentence: The summary.
        header: Of the axes' table.
        rows: A row per axis, as text; the verdict is the last cell.
    """
    cells = [[*map(escape, row[:-1]), f'<span class="verdict {row[-1]}">{row[-1]}</span>'] for row in rows]
    advice = "".join(f"<li>{escape(axis.advice)}</li>" for axis in comparison.axes if axis.advice)
    parts = [
        f"<h1>Base model against candidate</h1>"
        f'<p class="summary {comparison.verdict}"><b>{comparison.verdict.capitalize()}.</b> {escape(sentence)}</p>',
        f"<h2>What to do</h2><ul>{advice}</ul>" if advice else "",
        "<h2>Scores</h2>",
        table(header, cells),
        '<p class="note">The bounds are one-sided, 95 % each. A general axis passes when even the worse bound is in '
        "the allowed loss, and fails when even the better one is beyond it; between the two, the items cannot tell. "
        "<i>Detectable</i> is the smallest allowed loss under which an unchanged model would pass in 80 % of runs with "
        "this many items.</p>",
        _forest(comparison.axes),
        *(_axis(axis) for axis in comparison.axes),
        _dial(comparison.dial),
        _contamination(comparison),
        _identity(comparison),
    ]
    return "".join(parts)


def _dial(dial: Sequence[DialVerdict]) -> str:
    """The candidate at lower strengths, as far as it was turned down."""
    if not dial:
        return ""
    names = list(dict.fromkeys(axis.axis for one in dial for axis in one.axes))
    rows = []
    for one in dial:
        scores = {axis.axis: f"{axis.measure.candidate:.4f} ({axis.verdict})" for axis in one.axes}
        verdict = f'<span class="verdict {one.verdict}">{one.verdict}</span>'
        said = f"{one.strength:g}{f': {escape(one.reason)}' if one.reason else ''}"
        rows.append([said, *(scores.get(name, "") for name in names), verdict])
    note = "The candidate drawn back towards its base, without training: 0 is the base, 1 the candidate."
    head = ["strength", *map(escape, names), "verdict"]
    return f'<h2>Turned down</h2><p class="note">{note}</p>{table(head, rows)}'


def _forest(axes: Sequence[AxisVerdict]) -> str:
    """The general axes, each in units of its own allowed loss."""
    bars = []
    for axis in axes:
        if axis.question == NON_INFERIORITY and axis.limit > 0:
            benefit, change = axis.measure.benefit, axis.measure.change.difference
            label = f"{100 * change:+.1f} %" if axis.measure.relative else f"{change:+.3f}"
            bars.append(
                charts.Bar(
                    name=axis.axis,
                    value=benefit.difference / axis.limit,
                    lower=benefit.lower / axis.limit,
                    upper=benefit.upper / axis.limit,
                    label=label,
                    verdict=axis.verdict,
                )
            )
    if not bars:
        return ""
    return (
        "<h2>What was kept</h2>"
        '<p class="note">Change of every general axis with its bounds, in units of its allowed loss; right is better, '
        "the shaded part is more than is allowed.</p>" + charts.forest(bars)
    )


def _axis(axis: AxisVerdict) -> str:
    parts = [f"<h2>{escape(axis.axis)}</h2>", _measures(axis)]
    items, details = axis.items, axis.details
    if items.base_errors or items.candidate_errors:
        parts.append(
            f'<p class="note">Items that could not be scored, and count as wrong: {items.base_errors} of the base, '
            f"{items.candidate_errors} of the candidate.</p>"
        )
    if len(details.subgroups) > 1:
        parts.append("<h3>By slice, worst first</h3>" + _slices(axis))
    if details.confusion:
        parts.append("<h3>Given label by true label, candidate</h3>")
        parts.append(confusion_table.confusion(details.confusion.labels, details.confusion.candidate))
    if details.lost_items:
        parts.append(f"<h3>Lost items ({items.lost} lost, {items.gained} gained)</h3>")
        parts += [_lost_item(item) for item in details.lost_items]
    return "".join(parts)


def _measures(axis: AxisVerdict) -> str:
    rows, gains = [], axis.question == SUPERIORITY
    for one in axis.measures:
        scale, unit = (100.0, " %") if one.relative else (1.0, "")
        ends = [f"{scale * value:+.4f}{unit}" for value in (one.change.difference, one.change.lower, one.change.upper)]
        cells = [escape(one.metric), f"{one.base:.4f}", f"{one.candidate:.4f}", ends[0], f"{ends[1]} to {ends[2]}"]
        rows.append([*cells, *(["proved" if one.significant else "not proved"] if gains else [])])
    return table(["score", "base", "candidate", "difference", "95 % bounds", *(["gain"] if gains else [])], rows)


def _slices(axis: AxisVerdict) -> str:
    ends = [value for one in axis.details.subgroups for value in (one.base, one.candidate)]
    margin = 0.05 * (max(ends) - min(ends)) or 0.05
    low, high = min(ends) - margin, max(ends) + margin
    if axis.measure.higher_is_better:  # a share
        low, high = max(0.0, low), min(1.0, high)
    lines = [
        charts.Dumbbell(
            name=f"{one.name.replace('_', ' ')} ({one.num_items})",
            base=one.base,
            candidate=one.candidate,
            better=(one.candidate > one.base) is axis.measure.higher_is_better and one.candidate != one.base,
            flagged=one.flagged,
        )
        for one in axis.details.subgroups
    ]
    note = (
        '<p class="note">Hollow: base; full: candidate. A star marks a slice that differs after control of false '
        "discoveries (Benjamini and Hochberg, 0.05); exploratory, it decides nothing.</p>"
    )
    drawing = charts.dumbbells(lines, low, high)
    if len(lines) > 30:
        drawing = f"<details><summary>All {len(lines)} slices</summary>{drawing}</details>"
        drawing = charts.dumbbells([*lines[:8], *lines[-4:]], low, high) + drawing
        note += '<p class="note">The eight worst and the four best:</p>'
    return note + drawing


def _lost_item(item: LostItem) -> str:
    texts = {"asked": item.text, "right": item.gold, "base said": item.base, "candidate said": item.candidate}
    title = escape(f"{item.subject.replace('_', ' ')}: {item.text[:90]}")
    rows = {name: text for name, text in texts.items() if text}
    return f"<details><summary>{title}</summary>{words(rows)}</details>"


def _contamination(comparison: Comparison) -> str:
    if not comparison.contamination:
        return ""
    rows = [
        [
            escape(one.axis),
            str(one.num_items),
            str(one.searched),
            str(one.exact),
            str(one.short_exact),
            str(one.partial),
            f"{100 * one.mean_coverage:.2f} %",
        ]
        for one in comparison.contamination
    ]
    header = ["axis", "items", "looked for", "found whole", "short ones found", "half or more", "mean coverage"]
    note = (
        "Evaluated items in the training data, by runs of thirteen words; items of fewer than eight are not looked for."
    )
    return f'<h2>Overlap with the training data</h2>{table(header, rows)}<p class="note">{note}</p>'


def _identity(comparison: Comparison) -> str:
    base, candidate = comparison.identity["base"], comparison.identity["candidate"]
    rows: dict[str, str | float] = {
        "base model": base["base_model"],
        "candidate": f"{candidate['model'] or 'the base model itself'} ({candidate['model_kind']})",
        **{
            name: candidate[name]
            for name in ("tokenizer", "chat_template", "engine", "dtype", "device")
            if name in candidate
        },
        "items per axis": comparison.limit or "all",
        **{f"{name} version": value for name, value in candidate.get("versions", {}).items()},
    }
    parts = ["<h2>What was run</h2>", words(rows)]
    mix = comparison.mix
    if mix:
        rows = {
            "digest": mix.digest,
            "seed": mix.seed,
            "mix ratio": mix.mix_ratio,
            "num steps": mix.num_steps,
            "global batch size": mix.global_batch_size,
            **{f"licence of {pool}": terms.licence for pool, terms in mix.terms.items()},
        }
        parts += ["<h3>Mix receipt</h3>", words(rows), _receipt(mix)]
    return "".join(parts)


def _receipt(mix: TrainedMix) -> str:
    shares = ("planned_share", "share_of_records", "share_of_tokens", "share_of_loss_tokens")
    counts = ("num_records", "unique_records", "repeats")
    rows = [
        [
            escape(str(pool["name"])),
            *(f"{100 * pool[key]:.2f} %" if key in pool else "" for key in shares),
            *(f"{pool[key]:,}" if key in pool else "" for key in counts),
        ]
        for pool in mix.receipt.get("pools", [])
    ]
    header = ["pool", "planned", "of records", "of tokens", "of loss tokens", "drawn", "unique", "repeats"]
    return table(header, rows) if rows else ""
