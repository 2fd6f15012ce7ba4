"""Jinja for chat templates, which come from anywhere: sandboxed, with what transformers offers them and no more."""

from collections.abc import Callable
from datetime import date
from typing import Any, NamedTuple

from jinja2 import Environment, TemplateError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from mixtune.records import json_text

TEMPLATE_DATE = date(2024, 7, 26)
"""What a template that writes today's date reads: the same record is the same text on any day."""
_LOOKS = ("startswith", "endswith", "split", "rsplit", "partition", "find", "replace")
"""Methods of a text by which a template looks for another one in it."""
Spans = list[tuple[int, int]]
"""Where pieces of a text begin and end, in characters."""


class Rendered(NamedTuple):
    """A conversation as text, and character spans of the template's `{% generation %}` blocks."""

    text: str
    marks: Spans


class GenerationMarks(Extension):
    """`{% generation %}` marks what the assistant generates: its place in the text is noted while rendering."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own form

    def begin(self) -> tuple[list[str], Spans]:
        """Return the blocks of the next text, to be appended to, and the spans of its marks."""
        self._blocks, self._marks = list[str](), Spans()
        return self._blocks, self._marks

    def parse(self, parser: Parser) -> nodes.Node:
        """Parse the block that the tag begins."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Callable[[], str]) -> str:
        text = caller()
        start = sum(map(len, self._blocks))
        self._marks.append((start, start + len(text)))
        return text


class _SafeDict:
    """`dict` for templates, which come from anywhere: without the attributes of the class."""

    def __call__(self, *values: Any, **named: object) -> dict[object, object]:
        return dict(*values, **named)


class _SafeNamespace(Namespace):
    """`namespace` for templates: no attribute with an underscore can be set."""

    def __setitem__(self, name: str, value: object) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a chat template sets {name!r} of a namespace")
        super().__setitem__(name, value)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, which takes a message's field without asking for an attribute of that name first."""

    def getattr(self, obj: object, attribute: str) -> Any:
        """Return what a template's `obj.attribute` is."""
        if type(obj) is dict and attribute in obj and attribute not in _DICT_ATTRIBUTES:
            return obj[attribute]
        return super().getattr(obj, attribute)


_DICT_ATTRIBUTES = frozenset(dir(dict))


def make_environment() -> ImmutableSandboxedEnvironment:
    """Return jinja2's sandbox with what chat templates may use, as transformers offers it."""

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(
        value: object,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json_text(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[GenerationMarks, loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": TEMPLATE_DATE.strftime,
        "dict": _SafeDict(),
        "namespace": _SafeNamespace,
    }
    return environment


def content_probes(tree: nodes.Template) -> set[str]:
    """Return the texts that a template looks for in texts: what it may do to a content depends on these."""
    looked_for = [
        item.expr for item in tree.find_all(nodes.Compare) if any(op.op in ("in", "notin") for op in item.ops)
    ]
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Getattr) and call.node.attr in _LOOKS:
            looked_for += call.args
    texts = {node.value for node in looked_for if isinstance(node, nodes.Const) and isinstance(node.value, str)}
    return {text for text in texts if len(text.strip()) > 2 and not text.isidentifier()}


def read_names(environment: Environment, text: str) -> set[str]:
    """Return the names of the variables that a template reads and does not set itself."""
    return meta.find_undeclared_variables(environment.parse(text))  # which folds constants of the tree


def text_constants(tree: nodes.Template) -> set[str]:
    """Return the texts in a template's expressions."""
    return {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}


def literal_text(tree: nodes.Template) -> str:
    """Return the texts and text constants of a template, joined so that no token lies across two of them."""
    return "\0".join({node.data for node in tree.find_all(nodes.TemplateData)} | text_constants(tree))
