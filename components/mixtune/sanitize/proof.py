"""The proof: a record, rendered by the base model's chat template and tokenized, holds the template's control ids only.

Text of the record that spells a control token is set aside before rendering. Whatever stands between the control
tokens that the template wrote is then encoded as ordinary text; if a control id comes out all the same, no tokenizer
setting can keep this text apart, and the record is refused. So is one that the template will not render.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from mixtune import storage
from mixtune.errors import ModelError
from mixtune.records import Record, template_messages, template_tools

_ASIDE = "\ufdd0{}\ufdd1"
_ASIDE_FORM = re.compile("\ufdd0(\\d+)\ufdd1")
_DATE = date(2024, 7, 26)


@dataclass(frozen=True)
class Proof:
    """What one record came to."""

    problem: str = ""
    """Why the record is refused; empty: it is proved."""
    num_tokens: int = 0
    num_control: int = 0
    """Control ids in it: those that the template put there."""


class _Generation(Extension):
    """`{% generation %}` marks what the assistant says; here it is transparent."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own form

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class Prover:
    """The tokenizer and chat template of a model folder, for the proof alone."""

    def __init__(self, folder: str) -> None:
        """Load them.

        Raises:
            ModelError: There is no `tokenizer.json`, or no chat template.
        """
        path = Path(folder)
        if not (path / "tokenizer.json").is_file():
            raise ModelError(f"{folder}: it has no tokenizer.json; save a fast tokenizer with the model")
        settings = storage.read_json(str(path / "tokenizer_config.json"))
        self._template = template = _template_of(path, settings)
        value = storage.read_json(str(path / "tokenizer.json"))
        self.control = {
            token["content"]: token["id"]
            for token in value.get("added_tokens") or []
            if token.get("special") or (token["content"].strip() and token["content"] in template)
        }
        for token in value.get("added_tokens") or []:
            token["special"] = token["content"] in self.control
        value["post_processor"] = value["truncation"] = value["padding"] = None
        self._tokenizer = Tokenizer.from_str(json.dumps(value))
        self._tokenizer.encode_special_tokens = True
        self._ids = set(self.control.values())
        self._control = re.compile("|".join(map(re.escape, sorted(self.control, key=len, reverse=True))) or "(?!)")
        self._render = _compile(template, settings)

    def prove(self, record: Record) -> Proof:
        """Render, tokenize, compare."""
        aside: list[str] = []

        def keep(match: re.Match[str]) -> str:
            aside.append(match[0])
            return _ASIDE.format(len(aside) - 1)

        messages = _map(template_messages(record["messages"]), lambda text: self._control.sub(keep, text))
        tools = _map(template_tools(record.get("tools")), lambda text: self._control.sub(keep, text))
        try:
            rendered = self._render(messages, tools)
        except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            said = str(error) if str(error) in self._template else type(error).__name__  # nothing of the record
            return Proof(problem=f"the chat template refuses it: {said}")
        written = len(self._control.findall(rendered))
        ordinary = [
            _ASIDE_FORM.sub(lambda match: aside[int(match[1])], piece)
            for piece in self._control.split(rendered)
            if piece
        ]
        encoded = self._tokenizer.encode_batch_fast(ordinary, add_special_tokens=False)
        if any(not self._ids.isdisjoint(item.ids) for item in encoded):
            return Proof(problem="cannot be told from a control token")
        return Proof(num_tokens=written + sum(len(item.ids) for item in encoded), num_control=written)


def _template_of(folder: Path, settings: dict[str, Any]) -> str:
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):
        template = {item["name"]: item["template"] for item in template}.get("default")
    if not isinstance(template, str):
        raise ModelError(f"{folder}: its tokenizer has no chat template; save one as chat_template.jinja")
    return template


def _compile(template: str, settings: dict[str, Any]) -> Callable[[Any, Any], str]:
    def refuse(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, indent: int | None = None, **_: Any) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals.update(raise_exception=refuse, strftime_now=_DATE.strftime)
    special = {
        key: value["content"] if isinstance(value, dict) else value
        for key, value in settings.items()
        if key.endswith("_token") and isinstance(value, str | dict)
    }
    compiled = environment.from_string(template)

    def render(messages: Any, tools: Any) -> str:
        return compiled.render(messages=messages, tools=tools, documents=None, add_generation_prompt=False, **special)

    return render


def _map(value: Any, apply: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return apply(value)
    if isinstance(value, list):
        return [_map(item, apply) for item in value]
    return {key: _map(item, apply) for key, item in value.items()} if isinstance(value, dict) else value
