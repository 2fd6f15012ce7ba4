"""What sanitize did, for people: one HTML page and a Markdown summary. Nothing of a record's content is in them."""

from html import escape
from pathlib import Path
from typing import Any

_STYLE = "body{font:15px sans-serif;margin:2em;max-width:60em}table{border-collapse:collapse;margin:1em 0}"
_STYLE += "td,th{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:left}td:nth-child(n+2){text-align:right}"


def write_report(manifest: dict[str, Any], html_path: str, markdown_path: str) -> None:
    """Write both."""
    parts = [
        f"<!doctype html><meta charset=utf-8><title>sanitize</title><style>{_STYLE}</style><h1>What sanitize did</h1>"
    ]
    lines = ["# What sanitize did", ""]
    for name, counts in manifest["counts"].items():
        sizes = {f"{split} records": size for split, size in _sizes(manifest, name).items()}
        rows = {"rows read": counts["read"], "records kept": counts["kept"], **sizes}
        parts.append(f"<h2>Pool {escape(name)}</h2>" + _table("", rows))
        lines += [f"## {name}", "", *(f"- {key}: {value:,}" for key, value in rows.items())]
        for title, key in (("Dropped, by reason", "dropped"), ("Changed, by rule", "changed")):
            parts.append(_table(title, counts[key]))
            lines += [f"- {key}: {', '.join(f'{rule} {n:,}' for rule, n in counts[key].items()) or 'none'}"]
        parts.append(
            _table("Control tokens of the base model (made harmless when tokenizing)", counts["control_tokens"])
        )
        for split, labels in manifest["labels"][name].items():
            parts.append(_table(f"Labels, {split}", labels))
        parts.append(_table("Length", manifest["lengths"][name]))
        lines.append("")
    parts.append(
        "<p>File, line and rule of every dropped record, and of changed ones, are in <code>quarantine.jsonl</code>.</p>"
    )
    for path, text in ((html_path, "\n".join(parts)), (markdown_path, "\n".join(lines))):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text + "\n", encoding="utf-8")


def _sizes(manifest: dict[str, Any], name: str) -> dict[str, int]:
    (pool,) = [pool for pool in manifest["pools"] if pool["name"] == name]
    return {split: part["num_records"] for split, part in pool["splits"].items()}


def _table(title: str, rows: dict[str, int]) -> str:
    if not rows:
        return ""
    body = "".join(f"<tr><td>{escape(str(key))}<td>{value:,}" for key, value in rows.items())
    return (f"<h3>{escape(title)}</h3>" if title else "") + f"<table>{body}</table>"
