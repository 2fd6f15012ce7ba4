"""Chat templates: a conversation as the text that a model reads, and which tokens only the template may write.

A *control token* is an added token of the tokenizer that is flagged special, or that stands, and is not blank, in the
literal text of a chat template (transformers' own definition for `sanitize_control_tokens`). Text of a record that
spells one (`<|im_end|>` in a message) is set aside before rendering and put back afterwards, so that whoever encodes
the result can tell it from what the template wrote. Needs jinja2 alone, neither torch nor transformers.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson
from jinja2 import TemplateError, UndefinedError
from jinja2.exceptions import SecurityError
from jinja2.runtime import new_context

from mixtune.chat.habits import (
    PROBE_TOOL,
    Habits,
    TemplateRefusal,
    Traits,
    as_parts,
    find_habits,
    shows_tool,
    thoughts_as_parts,
    write_arguments,
)
from mixtune.chat.sandbox import (
    GenerationMarks,
    Rendered,
    Spans,
    content_probes,
    literal_text,
    make_environment,
    read_names,
    text_constants,
)
from mixtune.chat.template_files import DEFAULT, AddedToken, read_templates, read_tokens, templates_digest
from mixtune.chat.thinking import Variables, find_switches, inline_thought, lift_thoughts
from mixtune.errors import ModelError
from mixtune.records import Message, TemplateValue, dump_json, template_messages, template_tools

WITH_TOOLS = "tool_use"
"""Name of the template that renders conversations with tools, where there is one."""

# Noncharacters: never in text that came through `sanitize`, and dropped from a record that has them.
_ASIDE_START, _ASIDE_END, _CONTROL_START, _CONTROL_END = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3"
_NONCHARACTERS = re.compile(f"[{_ASIDE_START}-{_CONTROL_END}]")
_ASIDE = re.compile(f"{_ASIDE_START}(\\d+){_ASIDE_END}")
NO_VARIABLES: Variables = MappingProxyType({})
_RENDER_ERRORS = (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Conversation(NamedTuple):
    """A record's messages and tools in the form of templates, text that spells a control token set aside."""

    messages: list[TemplateValue]
    tools: list[TemplateValue] | None
    aside: list[str]
    """The texts that were set aside, in the order of their numbers."""
    is_usual: bool = True
    """It holds no text that the template looks for in contents."""


class ChatTemplate:
    """The chat template of a model, or several by name, with the tokens that only it may write."""

    def __init__(
        self, templates: Mapping[str, str], special_tokens: Mapping[str, str], added_tokens: Iterable[AddedToken]
    ) -> None:
        """Compile templates, by name; one that is not valid Jinja is a ModelError."""
        self.templates = dict(templates)
        self.special_tokens = dict(special_tokens)
        environment = make_environment()
        self._generation: GenerationMarks = environment.extensions[GenerationMarks.identifier]  # type: ignore[assignment]
        try:
            self._compiled = {name: environment.from_string(text) for name, text in self.templates.items()}
            trees = {name: environment.parse(text) for name, text in self.templates.items()}
            literal = "\0".join(map(literal_text, trees.values()))
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
        noncharacters = (chr(code) for code in range(ord(_ASIDE_START), ord(_CONTROL_END) + 1))
        self._suspicious = _spellings((*noncharacters, *longest_first))
        self._restorable = re.compile(f"{_ASIDE.pattern}|{self.control_pattern.pattern}")
        self._switches = {
            name: find_switches(read_names(environment, self.templates[name]), text_constants(tree))
            for name, tree in trees.items()
        }
        self._probes = _spellings({text for tree in trees.values() for text in content_probes(tree)})
        # texts that one of these begins: first letters of all that is looked for
        self._first_letters = tuple({text[0] for text in (*self._suspicious, *self._probes)})
        self._habits: dict[str, Habits] = {}
        self._forms: dict[str, Callable[[Sequence[TemplateValue]], list[TemplateValue]]] = {}

    @classmethod
    def load(cls, folder: Path, text: str = "") -> "ChatTemplate":
        """Read a model folder; `text` is a template in place of its own.

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
        """Return the template of a loaded tokenizer of transformers; `text` is one in place of its own.

        Raises:
            ModelError: It has no chat template.
        """
        templates = text or tokenizer.chat_template or {}
        templates = templates if isinstance(templates, dict) else {DEFAULT: templates}
        if DEFAULT not in templates:
            raise _no_template(str(tokenizer.name_or_path))
        return _of_tokenizer(tokenizer, tuple(templates.items()))

    @property
    def eos(self) -> str:
        """The tokenizer's end-of-sequence token; empty where it has none."""
        return self.special_tokens.get("eos_token", "")

    @property
    def digest(self) -> str:
        """Which templates these are, 16 hex digits."""
        return templates_digest(self.templates)

    def render(
        self,
        messages: Sequence[TemplateValue],
        tools: Sequence[TemplateValue] | None = None,
        variables: Variables = NO_VARIABLES,
        *,
        prompt: bool = False,
    ) -> Rendered:
        """Render a conversation; a TemplateRefusal where the template raises an error."""
        name = self._choose(tools)
        template = self._compiled[name]
        if form := self._forms.get(name):
            messages = form(messages)
        values = {**self._variables, **variables, "messages": messages, "tools": tools, "documents": None}
        values["add_generation_prompt"] = prompt
        context = new_context(template.environment, None, template.blocks, values, shared=True)
        blocks, marks = self._generation.begin()
        try:
            for block in template.root_render_func(context):
                blocks.append(block)
        except _RENDER_ERRORS as error:
            raise TemplateRefusal(self._reason(error)) from error
        return Rendered("".join(blocks), marks)

    def prompt(
        self, messages: Sequence[TemplateValue], tools: Sequence[TemplateValue] | None, *, thinks: bool | None
    ) -> str:
        """Render a conversation up to an answer, with or without a thought, or as the template has it; see `render`."""
        thoughts = self.habits(tools).thoughts
        if thinks is None:
            return self.render(messages, tools, prompt=True).text
        text = self.render(messages, tools, thoughts.variables(thinks), prompt=True).text
        return text if thinks else text.removesuffix(thoughts.opened) + thoughts.shut

    def lists_tools(
        self, messages: Sequence[TemplateValue], tools: Sequence[TemplateValue] | None, *, thinks: bool
    ) -> bool:
        """Return whether a prompt lists the tools there are: calls in it may spell their names as well."""
        if not tools:
            return True
        try:
            return shows_tool(self.prompt(messages, [*tools, PROBE_TOOL], thinks=thinks))
        except TemplateRefusal:
            return True  # what it takes with the record's own tools is told by its texts

    def habits(self, tools: Sequence[TemplateValue] | None = None) -> Habits:
        """Return how the template that renders such conversations writes turns."""
        name = self._choose(tools)
        if name not in self._habits:
            render = partial(self.render, tools=[] if name == WITH_TOOLS else None)
            self._habits[name] = find_habits(
                render, Traits(self.control_pattern, self._switches[name], self.templates[name], self.eos)
            )
            if self._habits[name].part_contents or self._habits[name].part_thoughts:
                self._forms[name] = as_parts if self._habits[name].part_contents else thoughts_as_parts
        return self._habits[name]

    def conversation(self, messages: Sequence[Message], tools: Sequence[TemplateValue] | None = None) -> Conversation:
        """Return a record's messages and tools as templates take them, look-alike control text set aside."""
        habits = self.habits(tools)
        if habits.thoughts.tags:
            messages = lift_thoughts(messages, habits.thoughts.tags)
        for_template, aside = (template_messages(messages), template_tools(tools)), list[str]()
        if habits.text_arguments:
            write_arguments(for_template[0])
        is_suspicious, is_usual = self._look_through(*for_template)
        if is_suspicious:
            for_template = self._set_aside(for_template[0], aside), self._set_aside(for_template[1], aside)
        if habits.thoughts.is_inline:
            for message in for_template[0]:
                if reasoning := message.get("reasoning"):
                    message["content"] = inline_thought(reasoning, message["content"], habits.thoughts.inline_opening)
        return Conversation(*for_template, aside, is_usual)

    def _look_through(self, messages: list[TemplateValue], tools: list[TemplateValue] | None) -> tuple[bool, bool]:
        """Return whether messages hold control text, and whether neither that nor what the template looks for."""
        # `in` is many times as fast as a pattern of all that is looked for, and for one letter many times as fast again
        if tools or any(len(message) > 2 for message in messages):
            text = dump_json((messages, tools)).decode()
        else:
            text = "\0".join([message["content"] for message in messages])
            if not any(map(text.__contains__, self._first_letters)):
                return False, True
        is_suspicious = any(map(text.__contains__, self._suspicious))
        return is_suspicious, not is_suspicious and not any(map(text.__contains__, self._probes))

    def restore(self, rendered: str, spans: Spans, aside: Sequence[str]) -> tuple[str, Spans]:
        """Put set-aside text back, rename the control tokens that the template wrote (`renamed`), move the spans."""
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

    def put_back(self, text: str, aside: Sequence[str]) -> str:
        """Return a rendered text for its encoding; see `restore`."""
        return self.restore(text, [], aside)[0] if aside else text

    def _set_aside(self, value: object, aside: list[str]) -> Any:
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

    def _choose(self, tools: Sequence[TemplateValue] | None) -> str:
        """Return the name of the template that renders a conversation, as transformers chooses it."""
        return WITH_TOOLS if tools is not None and WITH_TOOLS in self.templates else DEFAULT

    def _reason(self, error: Exception) -> str:
        """Return what an error says if the template's author wrote it, or if it can only name attributes."""
        message = str(error)
        names_attributes = isinstance(error, UndefinedError | SecurityError)
        authored = names_attributes or any(message in text for text in self.templates.values())
        return message if message and authored else type(error).__name__


def renamed(control_text: str) -> str:
    """Return the name of a control token that no text of a record can spell."""
    return f"{_CONTROL_START}{control_text}{_CONTROL_END}"


def without_renaming(text: str) -> str:
    """Return a text with the control tokens' own names in place of those of `renamed`."""
    return text.replace(_CONTROL_START, "").replace(_CONTROL_END, "")


def _spellings(texts: Iterable[str]) -> tuple[str, ...]:
    """Return texts as they are, and as JSON writes them."""
    return tuple({spelling: None for text in texts for spelling in (text, orjson.dumps(text)[1:-1].decode())})


def _no_template(model: str) -> ModelError:
    return ModelError(
        f"{model}: its tokenizer has no chat template; save one as chat_template.jinja, or give chat_template_uri"
    )


@lru_cache(maxsize=8)
def _of_tokenizer(tokenizer: Any, templates: tuple[tuple[str, str], ...]) -> ChatTemplate:
    tokens = tokenizer.added_tokens_decoder.items()
    added = [AddedToken(token.content, number, token.special) for number, token in tokens]
    return ChatTemplate(dict(templates), tokenizer.special_tokens_map, added)
