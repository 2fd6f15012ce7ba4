"""Chat templates: a conversation as the text that a model reads, and which tokens only the template may write.

A *control token* is an added token of the tokenizer that is flagged special, or that stands, and is not blank, in the
literal text of a chat template (transformers' own definition for `sanitize_control_tokens`). Text of a record that
spells one (`<|im_end|>` in a message) is set aside before rendering and put back afterwards, so that whoever encodes
the result can tell it from what the template wrote. Needs jinja2 alone, neither torch nor transformers.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from jinja2 import TemplateError, UndefinedError
from jinja2.runtime import new_context

from mixtune.chat.sandbox import GenerationMarks, Spans, literal_text, make_environment
from mixtune.chat.template_files import DEFAULT, AddedToken, read_templates, read_tokens, templates_digest
from mixtune.errors import DataError, ModelError
from mixtune.records import Message, template_messages, template_tools

WITH_TOOLS = "tool_use"
"""Name of the template that renders conversations with tools, where there is one."""

_QUESTION, _ANSWER = "mixtune question", "mixtune answer"
# Noncharacters: never in text that came through `sanitize`, and dropped from a record that has them.
_ASIDE_START, _ASIDE_END, _CONTROL_START, _CONTROL_END = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3"
_NONCHARACTERS = re.compile(f"[{_ASIDE_START}-{_CONTROL_END}]")
_ASIDE = re.compile(f"{_ASIDE_START}(\\d+){_ASIDE_END}")
_RENDER_ERRORS = (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class TemplateRefusal(DataError):
    """A record that a chat template does not render; the reason holds nothing of the record's texts."""


class Rendered(NamedTuple):
    """A conversation as text."""

    text: str
    marks: Spans
    """Character spans of the template's `{% generation %}` blocks."""


class TurnMarkers(NamedTuple):
    """What a template writes around the assistant's turns."""

    has_marks: bool = False
    """It marks what the assistant generates."""
    header: str = ""
    """What it writes before every answer, if that begins with a control token; else empty."""
    end_of_turn: str = ""
    """The control token that it writes after an answer; empty if there is none."""


class Conversation(NamedTuple):
    """A record's messages and tools in the form of templates, text that spells a control token set aside."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    aside: list[str]
    """The texts that were set aside, in the order of their numbers."""


class ChatTemplate:
    """The chat template of a model, or several by name, with the tokens that only it may write."""

    def __init__(
        self, templates: Mapping[str, str], special_tokens: Mapping[str, str], added_tokens: Iterable[AddedToken]
    ) -> None:
        """Compile the templates.

        Args:
            templates: Jinja texts by name.
            special_tokens: Tokens that templates name, such as `bos_token`.
            added_tokens: The tokenizer's.

        Raises:
            ModelError: A template is not valid Jinja.
        """
        self.templates = dict(templates)
        self.special_tokens = dict(special_tokens)
        environment = make_environment()
        self._generation: GenerationMarks = environment.extensions[GenerationMarks.identifier]  # type: ignore[assignment]
        try:
            self._compiled = {name: environment.from_string(text) for name, text in self.templates.items()}
            literal = "\0".join(literal_text(environment.parse(text)) for text in self.templates.values())
        except TemplateError as error:
            raise ModelError(f"the chat template is not valid: {error}") from error
        self._variables = {**environment.globals, **self.special_tokens}
        added_tokens = list(added_tokens)
        self.special_ids = frozenset(token.token_id for token in added_tokens if token.special)
        """Ids of the control tokens that decoders leave out."""
        self.control_tokens = {
            token.text: token.token_id
            for token in added_tokens
            if token.special or (token.text.strip() and token.text in literal)
        }
        """Ids by text."""
        longest_first = sorted(self.control_tokens, key=len, reverse=True)
        self.control_pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        spelled = (re.escape(orjson.dumps(text)[1:-1]) for text in longest_first)
        self._suspicious = re.compile(b"|".join([b"\\xef\\xb7[\\x90-\\x93]", *spelled]))
        self._restorable = re.compile(f"{_ASIDE.pattern}|{self.control_pattern.pattern}")
        self._markers: dict[str, TurnMarkers] = {}

    @classmethod
    def load(cls, folder: Path, text: str = "") -> "ChatTemplate":
        """Read a model folder.

        Args:
            folder: With `tokenizer.json`.
            text: A template in place of the folder's; empty: the folder's.

        Raises:
            ModelError: There is no `tokenizer.json`, or no chat template.
        """
        if not (folder / "tokenizer.json").is_file():
            raise ModelError(f"{folder}: it has no tokenizer.json; save a fast tokenizer with the model")
        templates = {DEFAULT: text} if text else read_templates(folder)
        if DEFAULT not in templates:
            raise _no_template(str(folder))
        return cls(templates, *read_tokens(folder))

    @classmethod
    def of(cls, tokenizer: Any, text: str = "") -> "ChatTemplate":
        """Return the template of a tokenizer of transformers.

        Args:
            tokenizer: A loaded `PreTrainedTokenizerFast`.
            text: A template in place of its own; empty: its own.

        Raises:
            ModelError: It has no chat template.
        """
        templates = text or tokenizer.chat_template or {}
        templates = templates if isinstance(templates, dict) else {DEFAULT: templates}
        if DEFAULT not in templates:
            raise _no_template(str(tokenizer.name_or_path))
        return _of_tokenizer(tokenizer, tuple(templates.items()))

    @property
    def digest(self) -> str:
        """Which templates these are, 16 hex digits."""
        return templates_digest(self.templates)

    def render(self, messages: Sequence[Any], tools: Sequence[Any] | None = None, *, prompt: bool = False) -> Rendered:
        """Render a conversation.

        Args:
            messages: In the form of `records.template_messages`.
            tools: In the form of `records.template_tools`.
            prompt: Whether the text ends where the assistant is to speak.

        Raises:
            TemplateRefusal: The template raises an error.
        """
        template = self._compiled[self._choose(tools)]
        values = {"messages": messages, "tools": tools, "documents": None, "add_generation_prompt": prompt}
        context = new_context(template.environment, None, template.blocks, {**self._variables, **values}, shared=True)
        blocks, marks = self._generation.begin()
        try:
            for block in template.root_render_func(context):
                blocks.append(block)
        except _RENDER_ERRORS as error:
            raise TemplateRefusal(self._reason(error)) from error
        return Rendered("".join(blocks), marks)

    def markers(self, tools: Sequence[Any] | None = None) -> TurnMarkers:
        """Return what the template that renders such conversations writes around the assistant's turns."""
        name = self._choose(tools)
        if name not in self._markers:
            self._markers[name] = self._find_markers([] if name == WITH_TOOLS else None)
        return self._markers[name]

    def conversation(self, messages: list[Message], tools: list[dict[str, Any]] | None = None) -> Conversation:
        """Return a record's messages and tools as templates take them, look-alike control text set aside."""
        for_template, aside = (template_messages(messages), template_tools(tools)), list[str]()
        if self._suspicious.search(orjson.dumps(for_template)):
            for_template = self._set_aside(for_template[0], aside), self._set_aside(for_template[1], aside)
        return Conversation(*for_template, aside)

    def put_back(self, text: str, aside: Sequence[str]) -> str:
        """Return a rendered text with what was set aside in its place."""
        return _ASIDE.sub(lambda match: aside[int(match[1])], text)

    def restore(self, rendered: str, spans: Spans, aside: Sequence[str]) -> tuple[str, Spans]:
        """Put set-aside text back, and rename the control tokens that the template wrote (`renamed`).

        Returns:
            The text, and where the spans lie in it.
        """
        # Between two replacements text only moves: a place of the old text lies in the last piece that begins at or
        # before it, and its distance from there stays. old, new: (2 x replacements + 1,) where pieces begin.
        old, new, pieces, length = [0], [0], list[str](), 0
        for match in self._restorable.finditer(rendered):
            literal = aside[int(match[1])] if match[1] else renamed(match[0])
            pieces += [rendered[old[-1] : match.start()], literal]
            length += match.start() - old[-1]
            old += [match.start(), match.end()]
            new += [length, length + len(literal)]
            length += len(literal)
        pieces.append(rendered[old[-1] :])

        def moved(place: int) -> int:
            index = bisect_right(old, place) - 1
            return new[index] + place - old[index]

        return "".join(pieces), [(moved(start), moved(end)) for start, end in spans]

    def _set_aside(self, value: Any, aside: list[str]) -> Any:
        """Return a value without the text in it that spells control tokens; that text is appended to `aside`."""

        def replace(match: re.Match[str]) -> str:
            aside.append(match[0])
            return f"{_ASIDE_START}{len(aside) - 1}{_ASIDE_END}"

        if isinstance(value, str):
            return self.control_pattern.sub(replace, _NONCHARACTERS.sub("", value))
        if isinstance(value, list):
            return [self._set_aside(item, aside) for item in value]
        if isinstance(value, dict):
            return {self._set_aside(key, aside): self._set_aside(item, aside) for key, item in value.items()}
        return value

    def _choose(self, tools: Sequence[Any] | None) -> str:
        """Return the name of the template that renders a conversation, as transformers chooses it."""
        return WITH_TOOLS if tools is not None and WITH_TOOLS in self.templates else DEFAULT

    def _find_markers(self, tools: list[Any] | None) -> TurnMarkers:
        """Render a question and an answer, and look at what stands around the answer."""
        question = [{"role": "user", "content": _QUESTION}]
        answered = [*question, {"role": "assistant", "content": _ANSWER}]
        try:
            head, prompted = self.render(question, tools).text, self.render(question, tools, prompt=True).text
            whole, marks = self.render(answered, tools)
        except TemplateRefusal:
            return TurnMarkers()
        header = prompted[len(head) :] if prompted.startswith(head) else ""
        if not header or not self.control_pattern.match(header) or header not in whole:
            header = ""
        end = self.control_pattern.search(whole, whole.rfind(_ANSWER) + len(_ANSWER))
        return TurnMarkers(has_marks=bool(marks), header=header, end_of_turn=end[0] if end else "")

    def _reason(self, error: Exception) -> str:
        """Return what an error says if the template's author wrote it, or if it can only name attributes."""
        message = str(error)
        authored = isinstance(error, UndefinedError) or any(message in text for text in self.templates.values())
        return message if message and authored else type(error).__name__


def renamed(control_text: str) -> str:
    """Return the name of a control token that no text of a record can spell."""
    return f"{_CONTROL_START}{control_text}{_CONTROL_END}"


def without_renaming(text: str) -> str:
    """Return a text with the control tokens' own names in place of those of `renamed`."""
    return text.replace(_CONTROL_START, "").replace(_CONTROL_END, "")


def _no_template(model: str) -> ModelError:
    return ModelError(
        f"{model}: its tokenizer has no chat template; save one as chat_template.jinja, or give chat_template_uri"
    )


@lru_cache(maxsize=8)
def _of_tokenizer(tokenizer: Any, templates: tuple[tuple[str, str], ...]) -> ChatTemplate:
    tokens = tokenizer.added_tokens_decoder.items()
    added = [AddedToken(token.content, number, token.special) for number, token in tokens]
    return ChatTemplate(dict(templates), tokenizer.special_tokens_map, added)
