"""The mix receipt for people: lines, a Markdown table, and a page with plots as inline SVG; no script, no network."""

from html import escape

from mixtune.artifacts.shards import MixReceipt, PoolReceipt
from mixtune.report.charts import INK, POOL_COLORS, Curve, Drawing, curves
from mixtune.report.pages import markdown_table, page, table
from mixtune.settings.mix import UNITS


def receipt_lines(receipt: MixReceipt) -> list[str]:
    """Return the realized mix as plain lines."""
    lines = [
        f"{receipt.num_steps} steps of {receipt.global_batch_size} records: "
        f"{receipt.num_tokens:,} tokens, {receipt.num_loss_tokens:,} of them to learn"
    ]
    for pool in receipt.pools:
        fewest, most = pool.per_batch
        lines.append(
            f"{pool.name}: planned {pool.planned_share:.2%}, got {pool.share_of_records:.2%} of records "
            f"({fewest} to {most} in every global batch), {pool.share_of_tokens:.2%} of tokens, "
            f"{pool.share_of_loss_tokens:.2%} of loss tokens; {pool.unique_records:,} of "
            f"{pool.pool_records:,} records, {pool.epochs:.2f} epochs, {pool.num_dropped:,} dropped"
        )
    return lines + [f"note: {note}" for note in receipt.notes]


def receipt_markdown(receipt: MixReceipt) -> str:
    """Return the receipt as a Markdown table."""
    rows = [pool_row(pool) for pool in receipt.pools]
    notes = "".join(f"\n**Note.** {note}\n" for note in receipt.notes)
    cells = markdown_table(list(rows[0]), [list(row.values()) for row in rows])
    return f"# Mix receipt\n\n{receipt_lines(receipt)[0]}.\n\n{cells}\n{notes}"


def pool_row(pool: PoolReceipt) -> dict[str, str]:
    """Return a pool's row of the table, by column."""
    return {
        "pool": pool.name,
        "planned": f"{pool.planned_share:.2%}",
        "records": f"{pool.share_of_records:.2%}",
        "tokens": f"{pool.share_of_tokens:.2%}",
        "loss tokens": f"{pool.share_of_loss_tokens:.2%}",
        "per batch": f"{pool.per_batch[0]} to {pool.per_batch[1]}",
        "worst deviation": f"{pool.worst_deviation:.2f}",
        "in pool": f"{pool.pool_records:,}",
        "drawn": f"{pool.num_records:,}",
        "epochs": f"{pool.epochs:.2f}",
        "repeats": f"{pool.repeats:,}",
        "truncated": f"{pool.num_truncated:,}",
        "dropped": "; ".join(f"{count:,} {reason}" for reason, count in pool.dropped.items()) or "0",
    }


def receipt_html(receipt: MixReceipt) -> str:
    """Return the receipt as a page that stands alone."""
    rows = [pool_row(pool) for pool in receipt.pools]
    unit = receipt.unit.replace("_", " ")
    pools = table([*rows[0]], [[*row.values()] for row in rows])
    notes = "".join(f'<p class="summary warn">{escape(note)}</p>' for note in receipt.notes)
    plots = "".join(
        f"<h2>Share of {escape(name.replace('_', ' '))} over the run</h2>{_shares_plot(receipt, name)}"
        for name in UNITS
    )
    return page(
        "Mix receipt",
        f"<h1>Mix receipt</h1><p>{escape(receipt_lines(receipt)[0])}. Shares are planned in "
        f"{escape(unit)}. At no point of a stage is a pool ahead of its share, or behind it, by more than "
        f"{receipt.bound:.3g} {escape(unit)}.</p>{notes}"
        f"{pools}<h2>Planned and realized</h2>{_bars(receipt)}{plots}",
    )


def _bars(receipt: MixReceipt) -> str:
    """Draw per pool the planned share as a line and the realized ones as bars."""
    drawing, row, left, width = Drawing(), 64, 190, 560
    for index, pool in enumerate(receipt.pools):
        top = index * row + 8
        drawing.text(left - 10, top + 26, pool.name, "end")
        planned = left + pool.planned_share * width
        for number, unit in enumerate(UNITS):
            share, y = getattr(pool, f"share_of_{unit}"), top + number * 16
            end = left + share * width
            label = planned if end < planned < end + 100 else end
            drawing.parts.append(
                f'<rect x="{left}" y="{y}" width="{share * width:.1f}" height="12" fill="{POOL_COLORS[number]}"/>'
            )
            drawing.text(label + 6, y + 11, f"{share:.2%} {unit.replace('_', ' ')}", "start")
        drawing.line((planned, top - 4), (planned, top + 50), INK)
    return drawing.render(row * len(receipt.pools) + 10, "Planned and realized shares")


def _shares_plot(receipt: MixReceipt, unit: str) -> str:
    """Draw a line per pool over windows of steps."""
    lines = []
    for index, pool in enumerate(receipt.pools):
        points = []
        for window in receipt.windows:
            share = getattr(window, unit)[index]
            points += [(window.first_step + 1, share), (window.first_step + window.num_steps, share)]
        lines.append(Curve(name=pool.name, points=points))
    title = f"share of {unit.replace('_', ' ')}"
    return curves(lines, title, span=(0, 1), form=".0%") if receipt.windows else ""
