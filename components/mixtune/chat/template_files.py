"""What a model folder says of its chat templates and special tokens, read as transformers reads it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mixtune import storage
from mixtune.errors import DataError
from mixtune.settings.foreign import JsonObject

DEFAULT = "default"
"""Name of the template that renders conversations where no other is fit."""


class AddedToken(NamedTuple):
    """A token that stands beside a tokenizer's vocabulary."""

    text: str
    token_id: int
    special: bool


def read_templates(folder: Path) -> dict[str, str]:
    """Return a model folder's chat templates by name, as transformers finds them; empty where there are none."""
    files = {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if (folder / "chat_template.jinja").is_file():
        files[DEFAULT] = folder / "chat_template.jinja"
    if files:
        return {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    templates = _read_json(folder / "tokenizer_config.json").get("chat_template") or {}
    if isinstance(templates, list):
        return {item["name"]: item["template"] for item in templates}
    return templates if isinstance(templates, dict) else {DEFAULT: templates}


def read_template_file(uri: str) -> str:
    """Return the chat template in a file; empty where none is named.

    Raises:
        DataError: There is no such file, it is empty, or it is not UTF-8.
    """
    if not uri:
        return ""
    try:
        template = storage.read_bytes(storage.check_fingerprint(uri)).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"chat_template_uri: {uri} is not UTF-8 ({error.reason})") from error
    if not template.strip():
        raise DataError(f"chat_template_uri: {uri} is empty; leave it out for the model's own template")
    return template


def templates_digest(templates: Mapping[str, str]) -> str:
    """Return which chat templates these are, 16 hex digits; empty for none."""
    texts = [templates[name].strip() for name in sorted(templates, key=lambda name: (name != DEFAULT, name))]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16] if texts else ""


def _read_json(path: Path) -> JsonObject:
    return storage.read_json(str(path)) if path.is_file() else {}


def read_tokens(folder: Path) -> tuple[dict[str, str], list[AddedToken]]:
    """Return the special tokens that a model folder names, and all added tokens, as transformers reads them."""
    config = _read_json(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:
        config |= _read_json(folder / "special_tokens_map.json")
    entries = {key: value for key, value in config.items() if key.endswith("_token")}
    if isinstance(extra := config.get("extra_special_tokens"), dict):
        entries |= extra
    named = {key: _content(value) for key, value in entries.items() if isinstance(value, str | dict)}
    decoder: JsonObject = config.get("added_tokens_decoder") or {}
    special = {*named.values(), *(token["content"] for token in decoder.values() if token.get("special"))}
    added = _read_json(folder / "tokenizer.json").get("added_tokens") or []
    return named, [
        AddedToken(token["content"], token["id"], bool(token.get("special")) or token["content"] in special)
        for token in added
    ]


def _content(token: object) -> str:
    return str(token["content"] if isinstance(token, dict) else token)
