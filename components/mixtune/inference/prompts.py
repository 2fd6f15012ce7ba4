"""Text to tokens: plain prompts as lm-eval encodes them, conversations by the model's own chat template."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from mixtune.chat.template import ChatTemplate, TemplateRefusal
from mixtune.chat.template_files import AddedToken
from mixtune.errors import ConfigError, ModelError
from mixtune.inference.engine import Tokenizer
from mixtune.inference.thoughts import skip_empty_thought
from mixtune.records import Message, Record, prompt_and_answer, template_messages, template_tools

Tokens = tuple[int, ...]
SWITCHES = ("enable_thinking", "thinking")
"""Variables by which chat templates are told whether to ask for a thought."""


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A record by the chat template: what the model reads, and what it should say."""

    prompt: str
    """With the empty thought that a template puts before an answer that has none."""
    answer: str
    """From the first character of the answer to the end of its turn."""


def encode(tokenizer: Tokenizer, text: str) -> Tokens:
    """Return the tokens of a rendered text, in which special tokens are already written out."""
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> tuple[Tokens, Tokens]:
    """Return the tokens of a context and its continuation, split as lm-eval does: encoded whole, then cut."""
    bos = tokenizer.bos_token
    special = {"add_special_tokens": False} if bos and context.startswith(bos) else {}
    whole = tokenizer(context + continuation, **special)["input_ids"]
    count = len(tokenizer(context, **special)["input_ids"])
    return tuple(whole[:count]), tuple(whole[count:])


def render(
    tokenizer: Tokenizer,
    messages: list[Message],
    tools: list[dict[str, Any]] | None = None,
    *,
    prompt: bool = True,
    thinks: bool | None = None,
) -> str:
    """Return a conversation as text, up to the place where the assistant speaks if it is a prompt.

    Args:
        tokenizer: The model's, with its chat template.
        messages: The conversation.
        tools: What may be called.
        prompt: Whether it ends where the assistant speaks.
        thinks: Whether the template's switch for thoughts is on or off; None: as the tokenizer is switched, if it is.

    Raises:
        ModelError: The model has no chat template, or it refuses the conversation.
    """
    thinks = getattr(tokenizer, "thinks", None) if thinks is None else thinks
    template = ChatTemplate.of(tokenizer) if thinks is None else _switched(cast(Hashable, tokenizer), thinks)
    try:
        return template.render(template_messages(messages), template_tools(tools), prompt=prompt).text
    except TemplateRefusal as error:
        raise ModelError(f"{tokenizer.name_or_path}: its chat template refuses a record ({error})") from error


def has_thinking_switch(tokenizer: Tokenizer) -> bool:
    """Return whether the chat template asks for an answer in another way with thoughts than without."""
    question = [Message(role="user", content="?")]
    return render(tokenizer, question, thinks=True) != render(tokenizer, question, thinks=False)


class SwitchedTokenizer:
    """A tokenizer whose chat template is asked with thoughts on, or off."""

    def __init__(self, tokenizer: Tokenizer, thinks: bool) -> None:
        """Switch thoughts.

        Raises:
            ConfigError: The chat template has no switch.
        """
        if not has_thinking_switch(tokenizer):
            raise ConfigError(
                f"thinking is {'on' if thinks else 'off'}, but the chat template of {tokenizer.name_or_path} has no "
                f"switch for thoughts ({', '.join(SWITCHES)}); leave thinking at template"
            )
        self.tokenizer, self.thinks = tokenizer, thinks

    def __getattr__(self, name: str) -> Any:
        if name == "tokenizer":  # not there yet while it is unpickled
            raise AttributeError(name)
        return getattr(self.tokenizer, name)

    def __call__(self, text: str, **options: bool) -> Mapping[str, list[int]]:
        """Return the `input_ids` of a text."""
        return self.tokenizer(text, **options)


@lru_cache(maxsize=8)
def _switched(tokenizer: Any, thinks: bool) -> ChatTemplate:
    """Return a tokenizer's chat template with its switch for thoughts on or off."""
    plain = ChatTemplate.of(tokenizer)
    added = [
        AddedToken(token.content, number, token.special) for number, token in tokenizer.added_tokens_decoder.items()
    ]
    variables: dict[str, Any] = dict.fromkeys(SWITCHES, thinks)
    return ChatTemplate(plain.templates, {**plain.special_tokens, **variables}, added)


def render_question(tokenizer: Tokenizer, text: str) -> str:
    """Return a user's single message as a prompt; see `render`."""
    return render(tokenizer, [Message(role="user", content=text)])


def render_record(tokenizer: Tokenizer, record: Record, answer: str | None = None) -> Rendered:
    """Return a record's prompt and last answer, or another text in that answer's place."""
    messages, last = prompt_and_answer(record)
    if answer is not None:
        last = Message(role="assistant", content=answer)
    tools = record.get("tools")
    prompt = render(tokenizer, messages, tools)
    whole = render(tokenizer, [*messages, last], tools, prompt=False)
    start = len(prompt)
    if not whole.startswith(prompt):
        # templates that treat the last turn differently (thinking models) still end in the answer's text
        start = whole.rfind(last["content"])
    if start < 0:
        raise ModelError(f"{tokenizer.name_or_path}: its chat template does not show the assistant's answer as it is")
    start += skip_empty_thought(whole[start:])
    return Rendered(prompt=whole[:start], answer=whole[start:].rstrip("\n"))
