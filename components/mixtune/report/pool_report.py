"""The report on sanitized pools: one page of HTML, and the same in Markdown; both from a manifest alone.

Of the records' content only short examples of changes are shown, with personal data hidden.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from mixtune.artifacts.pools import PoolsContent
from mixtune.report.pages import Html, folded, markdown_table, page, table, write_text
from mixtune.settings.sanitize import PHONE_ELSEWHERE, advise_region

FOLDED = 12
"""Rows above which a table is folded up in HTML, and cut in Markdown."""
_COUNTED = (
    ("Dropped, by reason", "dropped"),
    ("Unreadable, by reason", "unusable"),
    ("Fields that are not read and whatever else stood out, by rows", "unread_fields"),
    ("Records changed, by rule", "changed"),
    ("Personal data found, by kind", "personal_data"),
    ("Records by consent", "consent"),
    ("Control tokens of the base model in texts, made harmless when tokenizing", "control_tokens"),
)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A titled table; numbers are given as numbers."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    bars: bool = False
    """Whether a bar after each row shows its first number."""
    marked: bool = False
    """Whether its rows are to be looked at."""


def write_report(pools: PoolsContent, html_path: str, markdown_path: str) -> None:
    """Write the report as HTML and as Markdown."""
    for path, text in zip((html_path, markdown_path), make_pages(pools), strict=True):
        write_text(path, text)


def make_pages(pools: PoolsContent) -> tuple[str, str]:
    """Return the report as HTML that stands alone, and as Markdown."""
    overview = _overview(pools)
    read = sum(counts.read for counts in pools.counts.values())
    num_kept = sum(counts.kept for counts in pools.counts.values())
    lead = (
        f"{read:,} rows were read, {num_kept:,} records are kept, {read - num_kept:,} are dropped. File, line and rule "
        "of every dropped record, and of changed ones, are in quarantine.jsonl; nothing of their content is."
    )
    html = ["<h1>What sanitize did</h1>", f"<p>{lead}</p>", _html(overview)]
    lines = ["# What sanitize did", "", lead, "", *_markdown(overview)]
    for name, counts in pools.counts.items():
        schemas = ", ".join(counts.schemas)
        html.append(f"<h2>Pool {escape(name)}</h2><p>Schema: {escape(schemas)}.</p>")
        lines += [f"## {name}", "", f"Schema: {schemas}.", ""]
        for item in _pool_tables(pools, name):
            html.append(_html(item))
            lines += _markdown(item)
        html.append(_html_examples(pools.details[name].examples))
    html.append("<h2>Data card</h2>")
    lines += ["## Data card", ""]
    for item in _card(pools):
        html.append(_html(item))
        lines += _markdown(item)
    return page("sanitize", "\n".join(html)), "\n".join(lines) + "\n"


def _overview(pools: PoolsContent) -> Table:
    splits = sorted({split for pool in pools.pools for split in pool.splits})
    rows = []
    for pool in pools.pools:
        counts, sizes = pools.counts[pool.name], (pool.num_records(split) for split in splits)
        rows.append((pool.name, counts.read, sum(counts.dropped.values()), counts.kept, *sizes))
    return Table(title="Records", head=("pool", "read", "dropped", "kept", *splits), rows=rows)


def _pool_tables(pools: PoolsContent, name: str) -> list[Table]:
    counts, details = asdict(pools.counts[name]), pools.details[name]
    tables = [Table(title=title, head=("", "number"), rows=_counted(counts[key]), bars=True) for title, key in _COUNTED]
    facts = {
        "records proved by rendering and tokenizing": details.proved,
        **{f"records without their {part}, as allowed": count for part, count in details.lost.items()},
        "duplicates of a record that was itself refused: both are gone": details.copies_of_refused,
        "control tokens, every one written by the chat template": details.control_ids, "tokens": details.tokens,
    }  # fmt: skip
    marked = {
        "labels that differ from another in case alone: are they the same?": sum(
            len(alike) - 1 for alike in labels_alike(pools.labels[name].get("read", {}))
        ),
        "questions that hold the words of their label: is the answer given away?": details.label_words_in_question,
        "nearly equal questions with different answers: which one is right?": details.num_conflicts,
        advise_region(counts["personal_data"], pools.rules.text.phone_region): counts["personal_data"].get(
            PHONE_ELSEWHERE, 0
        ),
    }
    lengths = sorted(pools.lengths[name].items(), key=lambda item: int(re.sub(r"\D", "", item[0])))
    clusters = [
        (cluster.kept, ", ".join(f"{copy.at} ({copy.similarity:.2f})" for copy in cluster.dropped))
        for cluster in details.near_duplicates
    ]
    return [
        *tables, Table(title="Proof and contents", head=("", "number"), rows=list(facts.items())),
        Table(title="Look here", head=("", "number"), rows=[item for item in marked.items() if item[1]], marked=True),
        _labels(pools.labels[name]),
        Table(title="Length of records kept", head=("", "records"), rows=lengths, bars=True),
        Table(title="Languages, guessed in a sample", head=("", "records"), rows=list(details.languages.items())),
        Table(title="Near-duplicates: the first", head=("kept", "dropped (similarity)"), rows=clusters),
        Table(title="Nearly equal, with different answers: the first", head=("one", "other"), rows=details.conflicts),
    ]  # fmt: skip


def _counted(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return counts, the largest first, without those that are 0."""
    return sorted(((name, count) for name, count in counts.items() if count), key=lambda item: -item[1])


def labels_alike(labels: Iterable[str]) -> list[list[str]]:
    """Return those labels that differ in case and spaces alone, together."""
    by_spelling: dict[str, list[str]] = {}
    for label in sorted(labels):
        by_spelling.setdefault(" ".join(label.casefold().split()), []).append(label)
    return [alike for alike in by_spelling.values() if len(alike) > 1]


def _labels(labels: dict[str, dict[str, int]]) -> Table:
    splits = ["read", *sorted(set(labels) - {"read"})]
    names = sorted({name for counts in labels.values() for name in counts})
    rows = [(name, *(labels.get(split, {}).get(name, 0) for split in splits)) for name in names]
    return Table(title="Labels before and after", head=("label", *splits), rows=rows, bars=True)


def _card(pools: PoolsContent) -> list[Table]:
    """Return the data card: inputs, licences and rules."""
    inputs = [(source.name, source.split, source.uri) for source in pools.inputs]
    groups = asdict(pools.rules)
    plain = {**groups.pop("dedup"), **groups.pop("splits"), **groups.pop("text"), **groups}
    rules = [(name, str(value)) for name, value in plain.items()]
    terms = [
        (source.name, terms.licence, terms.source, terms.revision, terms.attribution)
        for source in pools.inputs
        if (terms := source.provenance)
    ]
    return [
        Table(title="Inputs, with digests", head=("pool", "split", "where"), rows=inputs),
        Table(title="Licences", head=("pool", "licence", "source", "revision", "attribution"), rows=terms),
        Table(title="Rules", head=("rule", "value"), rows=rules),
    ]


def _html(item: Table) -> str:
    if not item.rows:
        return ""
    first = item.rows[0]
    texts = next((column for column, value in enumerate(first) if isinstance(value, int)), len(first))
    head, rows = list(item.head), [list(row) for row in item.rows]
    if item.bars:
        most = max(1, *(row[1] for row in item.rows))
        head.append("")
        for cells, row in zip(rows, item.rows, strict=True):
            cells.append(Html(f'<i class="bar" style="width:{120 * row[1] / most:.0f}px"></i>'))
    if item.marked:
        rows = [[Html(f'<span class="look">{escape(str(row[0]))}</span>'), *row[1:]] for row in rows]
    content = table(head, rows, texts)
    if len(item.rows) > FOLDED:
        return folded(f"{item.title} ({len(item.rows)} rows)", content)
    return f"<h3>{escape(item.title)}</h3>{content}"


def _html_examples(examples: Mapping[str, Sequence[tuple[str, str, str]]]) -> str:
    """Return examples of changes by rule, with what differs marked."""
    rows = [
        [rule, place, *_marked(before, after)] for rule, changes in examples.items() for place, before, after in changes
    ]
    head = ["rule", "place", "before", "after"]
    return f"<h3>Examples of changes, personal data hidden</h3>{table(head, rows, texts=4)}" if rows else ""


def _marked(before: str, after: str) -> tuple[Html, Html]:
    start = _shared(before, after)
    end = _shared(before[start:][::-1], after[start:][::-1])

    def mark(text: str) -> Html:
        middle = text[start : len(text) - end]
        shown = f"<mark>{escape(_visible(middle))}</mark>" if middle else ""
        return Html(escape(text[:start]) + shown + escape(text[len(text) - end :]))

    return mark(before), mark(after)


def _shared(first: str, second: str) -> int:
    """Return the number of letters with which both texts begin."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(first), len(second)))


def _visible(text: str) -> str:
    """Return a text in which characters that cannot be seen stand as their code."""
    return "".join(letter if letter.isprintable() or letter == "\n" else f"\\u{ord(letter):04x}" for letter in text)


def _markdown(item: Table) -> list[str]:
    if not item.rows:
        return []
    rows = [
        [value if isinstance(value, int) else str(value).replace("\n", " ") for value in row]
        for row in item.rows[:FOLDED]
    ]
    more = [f"\n{len(item.rows) - FOLDED:,} more in the HTML report."] if len(item.rows) > FOLDED else []
    return [f"### {item.title}", "", markdown_table(list(item.head), rows), *more, ""]
