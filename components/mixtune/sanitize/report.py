"""What sanitize did, for people: one HTML page and a Markdown summary.

Of the records' content only short examples of changes are in the page, with personal data hidden.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

_STYLE = "body{font:15px sans-serif;margin:2em;max-width:60em}table{border-collapse:collapse;margin:1em 0}"
_STYLE += "td,th{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:left}td:nth-child(n+2){text-align:right}"
_STYLE += "td.t{text-align:left!important;white-space:pre-wrap;overflow-wrap:anywhere;vertical-align:top}"


_COUNTED = (
    ("Dropped, by reason", "dropped"),
    ("Changed, by rule", "changed"),
    ("Personal data found, by kind", "personal_data"),
    ("Records by consent", "consent"),
    ("Control tokens of the base model (made harmless when tokenizing)", "control_tokens"),
)


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
        for title, key in _COUNTED:
            parts.append(_table(title, counts[key]))
            lines += [f"- {key}: {', '.join(f'{rule} {n:,}' for rule, n in counts[key].items()) or 'none'}"]
        for split, labels in manifest["labels"][name].items():
            parts.append(_table(f"Labels, {split}", labels))
        parts.append(_table("Length", manifest["lengths"][name]))
        parts += _details(manifest["details"][name])
        lines.append("")
    parts.append(_card(manifest))
    parts.append(
        "<p>File, line and rule of every dropped record, and of changed ones, are in <code>quarantine.jsonl</code>.</p>"
    )
    for path, text in ((html_path, "\n".join(parts)), (markdown_path, "\n".join(lines))):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text + "\n", encoding="utf-8")


def _details(details: dict[str, Any]) -> list[str]:
    """The pool's further tables: the proof, languages, near-duplicates, conflicts, examples."""
    facts = {
        "records proved by rendering and tokenizing": details["proved"],
        "control tokens in them, all the template's": details["control_ids"],
        "tokens": details["tokens"],
        "questions that hold the words of their label": details["label_words_in_question"],
        "nearly equal questions with different answers": details["conflicts"]["count"],
    }
    clusters = [(item["kept"], ", ".join(f"{copy['at']} ({copy['similarity']:.2f})" for copy in item["dropped"]))
                for item in details["near_duplicates"]]  # fmt: skip
    conflicts = [(item["first"], item["second"]) for item in details["conflicts"]["first"]]
    examples = [(rule, *example) for rule, found in details["examples"].items() for example in found]
    return [
        _table("Proof and contents", facts),
        _table("Languages, guessed in a sample", details["languages"]),
        _rows("Near-duplicates: kept, and dropped with their similarity", clusters),
        _rows("Nearly equal questions with different answers", conflicts),
        _rows("Examples of changes: rule, place, before, after", examples),
    ]


def _card(manifest: dict[str, Any]) -> str:
    """The data card: what went in and by which rules."""
    inputs = [(item["name"], item.get("split") or "train", item["uri"]) for item in manifest["inputs"]]
    rules = [(key, str(value)) for key, value in {**manifest["rules"], "seed": manifest["seed"]}.items()]
    return "<h2>Data card</h2>" + _rows("Inputs, with digests", inputs) + _rows("Rules", rules)


def _rows(title: str, rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    body = "".join("<tr>" + "".join(f"<td class=t>{escape(cell)}" for cell in row) for row in rows)
    return f"<h3>{escape(title)}</h3><table>{body}</table>"


def _sizes(manifest: dict[str, Any], name: str) -> dict[str, int]:
    (pool,) = [pool for pool in manifest["pools"] if pool["name"] == name]
    return {split: part["num_records"] for split, part in pool["splits"].items()}


def _table(title: str, rows: dict[str, int]) -> str:
    if not rows:
        return ""
    body = "".join(f"<tr><td>{escape(str(key))}<td>{value:,}" for key, value in rows.items())
    return (f"<h3>{escape(title)}</h3>" if title else "") + f"<table>{body}</table>"
