"""The report of a comparison, in words, tables and plots: HTML for a browser, Markdown for the pipeline's page."""

import os
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from mixtune import storage
from mixtune.artifacts.comparison import (
    EQUIVALENCE,
    FAIL,
    INCONCLUSIVE,
    NON_INFERIORITY,
    PASS,
    SUPERIORITY,
    AxisVerdict,
    Comparison,
    DialVerdict,
    LostItem,
    Overlap,
)
from mixtune.artifacts.model import find_manifest
from mixtune.artifacts.run_report import is_gain_proved
from mixtune.report import charts, confusion_table
from mixtune.report.next_steps import known_arguments, next_steps, steps_html
from mixtune.report.pages import (
    Cell,
    Verdict,
    bullets,
    folded,
    key_value_table,
    markdown_table,
    note,
    page,
    shortened,
    table,
    write_text,
)
from mixtune.report.score_cells import allowed_cell, score_cells

HEADER = ["axis", "base", "candidate", "difference", "95 % bounds", "allowed loss", "detectable", "items", "verdict"]
IDENTITY = ("tokenizer", "chat_template", "engine", "dtype", "device")
RECEIPT_SHARES = ("planned_share", "share_of_records", "share_of_tokens", "share_of_loss_tokens")
RECEIPT_COUNTS = ("num_records", "unique_records", "repeats")
MAX_DUMBBELLS, WORST, BEST = 30, 8, 4
"""Subgroups above which a plot is folded up, and those that are shown all the same."""
_BOUNDS = (
    "The bounds are one-sided, 95 % each. A general axis passes when even the worse bound is in the allowed loss, and "
    "fails when even the better one is beyond it; between the two, the items cannot tell. "
)
_DETECTABLE = (
    "<i>Detectable</i> is the smallest allowed loss under which an unchanged model would pass in 80 % of runs with "
    "this many items."
)
_FOREST = (
    "Change of every general axis with its bounds, in units of its allowed loss; right is better, the shaded part is "
    "more than is allowed."
)
_DUMBBELLS = (
    "Hollow: base; full: candidate. A star marks a slice that differs after control of false discoveries (Benjamini "
    "and Hochberg, 0.05); exploratory, it decides nothing."
)
_DIAL = "The candidate drawn back towards its base, without training: 0 is the base, 1 the candidate."
_GAIN = "The first score decides, by its own bounds; a gain of the others is proved among all of them (Holm, 0.05)."
_RESTORED = "What restoring gave back and what it cost, beside the same training turned down."
_OVERLAP = (
    "Evaluated items in the training data, by runs of thirteen words; items of fewer than eight are not looked for."
)


def write_comparison(comparison: Comparison, *, html: str, markdown: str) -> None:
    """Write the report of a comparison."""
    rows, sentence = [_axis_row(axis) for axis in comparison.axes], summarize(comparison)
    advice = [axis.advice for axis in comparison.axes if axis.advice]
    run_id, arguments = os.environ.get("MIXTUNE_RUN_ID", ""), known_arguments([comparison])
    body = [
        "<h1>Base model against candidate</h1>"
        f'<p class="summary {comparison.verdict}"><b>{comparison.verdict.capitalize()}.</b> {escape(sentence)}</p>',
        f"<h2>What to do</h2>{bullets(advice)}" if advice else "",
        _flagged_slices(comparison.axes),
        f'<h2>Scores</h2>{table(HEADER, rows)}<p class="note">{_BOUNDS}{_DETECTABLE}</p>',
        steps_html(next_steps(comparison.verdict, run_id, arguments, gained=is_gain_proved(comparison))),
        _forest(comparison.axes),
        *(part for axis in comparison.axes for part in _axis_parts(axis)),
        _dial(comparison.dial),
        _restored(comparison),
        _contamination(comparison.contamination),
        *_identity_parts(comparison),
    ]
    write_text(html, page("Base against candidate", "".join(body)))
    lines = [f"# {comparison.verdict}", "", sentence, "", markdown_table(HEADER, rows), ""]
    lines += [f"- {line}" for line in advice]
    lines += [
        f"- turned down to {point.strength:g}: {point.verdict} {point.reason}".rstrip() for point in comparison.dial
    ]
    lines += [f"- before, at strength {point.strength:g}: {point.verdict}" for point in comparison.earlier]
    write_text(markdown, "\n".join(lines) + "\n")


def summarize(comparison: Comparison) -> str:
    """Return the whole comparison in one or two sentences."""
    if comparison.reason:
        return f"There is no candidate: {comparison.reason}"
    general = [axis for axis in comparison.axes if axis.question == NON_INFERIORITY]
    failed = [axis for axis in comparison.axes if axis.verdict == FAIL]
    sentences = []
    if same := [axis for axis in comparison.axes if axis.question == EQUIVALENCE]:
        differing = [axis for axis in same if axis.verdict == FAIL]
        undecided = [axis for axis in same if axis.verdict == INCONCLUSIVE]
        if differing:
            return f"Not the same model: {_names(differing)} differ by more than is allowed."
        if undecided:
            return f"Not enough items to say whether they are the same: {_names(undecided)}."
        return f"The same within what is allowed, on {_names(same)}."
    if comparison.verdict == PASS:
        sentences.append(f"Nothing was forgotten beyond what is allowed on {_names(general)}.")
    if comparison.verdict == INCONCLUSIVE:
        undecided = [axis for axis in general if axis.verdict == INCONCLUSIVE]
        sentences.append(f"Not enough items to say: {_names(undecided)}.")
    if forgotten := [axis for axis in failed if axis.question == NON_INFERIORITY]:
        sentences.append(f"Forgotten: {_names(forgotten)}.")
    for axis in failed:
        if axis.question == SUPERIORITY:
            less = f"Less than the gain of {axis.min_gain:g} that is asked for" if axis.min_gain else "Worse"
            sentences.append(f"{less} on the customer's records, by {axis.title}.")
    for axis in comparison.axes:
        if axis.question == SUPERIORITY:
            gain = ", a proved gain" if axis.verdict == PASS else ""
            scores = f"{axis.measure.base:.3f} to {axis.measure.candidate:.3f}"
            sentences.append(f"On the customer's records {axis.title} went from {scores}{gain}.")
    return " ".join(sentences)


def _flagged_slices(axes: Sequence[AxisVerdict]) -> str:
    """Return in a line how many slices got worse beyond chance, whatever the verdict; empty where none did."""
    worse = [
        f"{group.name.replace('_', ' ')} ({axis.axis})"
        for axis in axes
        for group in axis.details.subgroups
        if group.flagged and (group.candidate < group.base) is axis.measure.higher_is_better
    ]
    total = sum(len(axis.details.subgroups) for axis in axes)
    text = f"{len(worse)} of {total} slices got worse beyond chance: {', '.join(worse[:6])}"
    return f'<p><span class="look">{escape(text)}{" ..." if len(worse) > 6 else ""}</span></p>' if worse else ""


def _names(axes: Iterable[AxisVerdict]) -> str:
    return ", ".join(axis.axis for axis in axes)


def _axis_row(axis: AxisVerdict) -> list[Cell]:
    detectable = f"{100 * axis.detectable:.2g} %" if axis.measure.relative else f"{axis.detectable:.2g}"
    cells = [axis.title, *score_cells(axis.measure), allowed_cell(axis), detectable]
    return [*cells, axis.items.total, Verdict(axis.verdict)]


def _dial(dial: Sequence[DialVerdict]) -> str:
    """Return the candidate at lower strengths, as far as there are any."""
    if not dial:
        return ""
    names = list(dict.fromkeys(axis.axis for point in dial for axis in point.axes))
    rows = []
    for point in dial:
        scores = _candidate_scores(point.axes)
        strength = f"{point.strength:g}{f': {point.reason}' if point.reason else ''}"
        rows.append([strength, *(scores.get(name, "") for name in names), Verdict(point.verdict)])
    return f"<h2>Turned down</h2>{note(_DIAL)}{table(['strength', *names, 'verdict'], rows)}"


def _restored(comparison: Comparison) -> str:
    """Return the model that a restored candidate was made of, beside it; empty for other candidates."""
    names = [axis.axis for axis in comparison.axes]
    rows = [["base model", *(f"{axis.measure.base:.4f}" for axis in comparison.axes), ""]]
    for point in comparison.earlier:
        scores = _candidate_scores(point.axes)
        title = "as it was trained" if point.strength == 1 else f"turned down to {point.strength:g}"
        rows.append([title, *(scores.get(name, point.reason) for name in names), Verdict(point.verdict)])
    rows.append(["restored", *_candidate_scores(comparison.axes).values(), Verdict(comparison.verdict)])
    header = ["model", *names, "verdict"]
    return f"<h2>Restored</h2>{note(_RESTORED)}{table(header, rows)}" if comparison.earlier else ""


def _candidate_scores(axes: Sequence[AxisVerdict]) -> dict[str, str]:
    return {axis.axis: f"{axis.measure.candidate:.4f} ({axis.verdict})" for axis in axes}


def _forest(axes: Sequence[AxisVerdict]) -> str:
    """Return the plot of the general axes, each in units of its own allowed loss."""
    bars = []
    for axis in axes:
        if axis.question == NON_INFERIORITY and axis.limit > 0:
            benefit, change = axis.measure.benefit, axis.measure.change.difference
            bar = charts.Bar(
                name=axis.axis,
                value=benefit.difference / axis.limit,
                lower=benefit.lower / axis.limit,
                upper=benefit.upper / axis.limit,
                label=f"{100 * change:+.1f} %" if axis.measure.relative else f"{change:+.3f}",
                verdict=axis.verdict,
            )
            bars.append(bar)
    return f"<h2>What was kept</h2>{note(_FOREST)}{charts.forest(bars)}" if bars else ""


def _axis_parts(axis: AxisVerdict) -> Iterator[str]:
    items, details = axis.items, axis.details
    yield f"<h2>{escape(axis.axis)}</h2>"
    header = ["score", "base", "candidate", "difference", "95 % bounds"]
    better = {True: "", False: " (less is better)"}
    rows = [[f"{m.metric}{better[m.higher_is_better]}", *score_cells(m, percent_digits=4)] for m in axis.measures]
    if axis.question == SUPERIORITY:
        header.append("gain")
        for row, measure in zip(rows, axis.measures, strict=True):
            proved = measure.benefit.lower > 0 if measure is axis.measure else measure.significant
            row.append("proved" if proved else "not proved")
    yield table(header, rows)
    yield note(_GAIN) if axis.question == SUPERIORITY and len(rows) > 1 else ""
    yield from map(note, _item_notes(axis))
    if len(details.subgroups) > 1:
        yield "<h3>By slice, worst first</h3>" + _subgroups(axis)
    if details.confusion:
        yield "<h3>Given label by true label, candidate</h3>"
        yield confusion_table.confusion(details.confusion.labels, details.confusion.candidate)
    if details.lost_items:
        yield f"<h3>Lost items ({items.lost} lost, {items.gained} gained)</h3>"
        yield from map(_lost_item, details.lost_items)


def _item_notes(axis: AxisVerdict) -> Iterator[str]:
    """Yield what of an axis's items a reader has to know beside their scores."""
    items = axis.items
    if axis.question == NON_INFERIORITY:
        yield f"The first score decides. An unchanged model passes in {100 * axis.power:.0f} % of such runs."
    if items.left_out:
        yield f"{items.left_out} items have no label and are left out."
    cut = f"Answers cut at {axis.max_new_tokens} tokens" if axis.max_new_tokens else "Prompts cut to the model's length"
    pairs = (
        ("Items that could not be scored, and count as wrong", items.base_errors, items.candidate_errors),
        (cut, items.base_truncated, items.candidate_truncated),
        ("Thoughts that never ended, and count as wrong", items.base_unfinished, items.candidate_unfinished),
    )
    for text, base, candidate in pairs:
        if base or candidate:
            yield f"{text}: {base} of the base, {candidate} of the candidate."


def _subgroups(axis: AxisVerdict) -> str:
    groups, higher_is_better = axis.details.subgroups, axis.measure.higher_is_better
    ends = [score for group in groups for score in (group.base, group.candidate)]
    margin = 0.05 * (max(ends) - min(ends)) or 0.05
    low, high = min(ends) - margin, max(ends) + margin
    low = max(0.0, low) if min(ends) >= 0 else low
    low, high = (low, min(1.0, high)) if higher_is_better else (high, low)  # a share; else better is right, too
    lines = [
        charts.Dumbbell(
            name=f"{group.name.replace('_', ' ')} ({group.num_items})",
            base=group.base,
            candidate=group.candidate,
            higher_is_better=higher_is_better,
            flagged=group.flagged,
        )
        for group in groups
    ]
    drawing = charts.dumbbells(lines, low, high)
    if len(lines) <= MAX_DUMBBELLS:
        return note(_DUMBBELLS) + drawing
    extremes = charts.dumbbells([*lines[:WORST], *lines[-BEST:]], low, high)
    lead = note(_DUMBBELLS) + note("The eight worst and the four best:")
    return lead + extremes + folded(f"All {len(lines)} slices", drawing)


def _lost_item(item: LostItem) -> str:
    texts = {"asked": item.text, "right": item.gold, "base said": item.base, "candidate said": item.candidate}
    content = key_value_table({name: text for name, text in texts.items() if text})
    return folded(f"{item.subject.replace('_', ' ')}: {shortened(item.text, 90)}", content)


def _contamination(overlaps: Sequence[Overlap]) -> str:
    if not overlaps:
        return ""
    header = ["axis", "items", "looked for", "found whole", "short ones found", "half or more", "mean coverage"]
    rows: list[list[Cell]] = [
        [
            item.axis,
            item.num_items,
            item.searched,
            item.exact,
            item.short_exact,
            item.partial,
            f"{100 * item.mean_coverage:.2f} %",
        ]
        for item in overlaps
    ]
    return f"<h2>Overlap with the training data</h2>{table(header, rows)}{note(_OVERLAP)}"


def _identity_parts(comparison: Comparison) -> Iterator[str]:
    base, candidate, mix = comparison.identity["base"], comparison.identity["candidate"], comparison.mix
    trained = find_manifest(comparison.model_uri)
    name = storage.plain_uri(trained.base_model) if trained else ""
    of_base = f", of {base.limit or 'all'} that the base was asked" if base.limit != candidate.limit else ""
    values: dict[str, object] = {
        "base model": f"{name} ({base.base_model})" if name else base.base_model,
        "candidate": f"{candidate.model or 'the base model itself'} ({candidate.model_kind})",
        **{name: getattr(candidate, name) for name in IDENTITY if getattr(candidate, name)},
        "items per axis": f"{comparison.limit or 'all'}{of_base}",
        **{f"{name} version": value for name, value in candidate.versions.items()},
    }
    yield f"<h2>What was run</h2>{key_value_table(values)}"
    if mix is None:
        return
    values = {
        "digest": mix.digest,
        "seed": mix.seed,
        "mix ratio": mix.mix_ratio,
        "num steps": mix.num_steps,
        "global batch size": mix.global_batch_size,
        **{f"licence of {pool}": terms.licence for pool, terms in mix.terms.items()},
    }
    yield f"<h3>Mix receipt</h3>{key_value_table(values)}"
    rows = [
        [
            pool.name,
            *(f"{100 * getattr(pool, key):.2f} %" for key in RECEIPT_SHARES),
            *(f"{getattr(pool, key):,}" for key in RECEIPT_COUNTS),
        ]
        for pool in mix.receipt.pools
    ]
    header = ["pool", "planned", "of records", "of tokens", "of loss tokens", "drawn", "unique", "repeats"]
    yield table(header, rows) if rows else ""
