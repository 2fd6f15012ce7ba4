"""Reports as text: one self-contained HTML page without script or network, tables in HTML and in Markdown."""

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from mixtune import storage

STYLE = Path(__file__).with_name("style.css").read_text(encoding="utf-8")


class Html(str):
    """A cell that is HTML already."""


class Verdict(str):
    """A cell that holds a verdict: a coloured badge in HTML."""


Cell = str | int
"""Text is escaped; whole numbers get separators of thousands."""


def page(title: str, body: str) -> str:
    """Return a whole HTML page."""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title>"
        f"<style>\n{STYLE}</style></head><body>{body}</body></html>\n"
    )


def with_section(text: str, title: str, body: str) -> str:
    """Return a page with a further section at its end."""
    content, end = text.rsplit("</body>", 1)
    return f"{content}<h2>{escape(title)}</h2>{body}</body>{end}"


def with_way_back(text: str, title: str) -> str:
    """Return a page with a link to the index beside it at its top."""
    begin, content = text.split("<body>", 1)
    return f'{begin}<body><p class="note"><a href="index.html">← {escape(title)}</a></p>{content}'


def table(header: Sequence[str], rows: Iterable[Sequence[Cell]], texts: int = 1) -> str:
    """Return an HTML table, whose first `texts` columns hold text, the others numbers; the header may be empty."""

    def line(cells: Sequence[Cell], tag: str) -> str:
        begins = [f'<{tag} class="text">' if place < texts else f"<{tag}>" for place in range(len(cells))]
        return f"<tr>{''.join(f'{begin}{_cell(cell)}</{tag}>' for begin, cell in zip(begins, cells, strict=True))}</tr>"

    head = f"<table><thead>{line(header, 'th')}</thead>" if header else '<table class="words">'
    return f'<div class="scroll">{head}<tbody>{"".join(line(row, "td") for row in rows)}</tbody></table></div>'


def key_value_table(values: Mapping[str, object]) -> str:
    """Return names and values as a table of two columns; values that hold several have a line each."""
    return table([], [[name.replace("_", " "), _lines(value)] for name, value in values.items()], texts=2)


def shortened(text: str, length: int) -> str:
    """Return a text of at most so many characters; where something is cut, at a space, it ends in an ellipsis."""
    return textwrap.shorten(" ".join(text.split()), length, placeholder=" …") if len(text) > length else text


def note(text: str) -> str:
    """Return a paragraph in small print."""
    return f'<p class="note">{escape(text)}</p>'


def bullets(lines: Iterable[str]) -> str:
    """Return a list."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def folded(title: str, content: str) -> str:
    """Return HTML that is shown when its title is clicked."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table for a terminal, columns aligned; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def write_text(path: str, text: str) -> None:
    """Write a report's text."""
    with storage.open_write(path) as stream:
        stream.write(text.encode("utf-8", "replace"))


def _plain(cell: Cell) -> str:
    return cell if isinstance(cell, str) else f"{cell:,}"


def _cell(cell: Cell) -> str:
    if isinstance(cell, Html):
        return cell
    if isinstance(cell, Verdict) and cell:
        return f'<span class="verdict {cell}">{cell}</span>'
    return escape(_plain(cell))


def _lines(value: object) -> str:
    if isinstance(value, Mapping):
        return Html(
            "<br>".join(f"{escape(str(name))}: {escape(_words(item))}" for name, item in value.items()) or "none"
        )
    return _words(value) or "none"


def _words(value: object) -> str:
    """Return a text, or a list or object as JSON, as an argument is written."""
    holds_several = isinstance(value, Mapping | list | tuple)
    return json.dumps(value, ensure_ascii=False, default=str) if holds_several else str(value)
