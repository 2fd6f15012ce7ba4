"""Text to tokens: plain prompts as lm-eval encodes them, conversations as `mix_shard` renders and encodes them."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import tokenizers

from mixtune.chat.encoding import rename_control_tokens
from mixtune.chat.template import ChatTemplate, Conversation, TemplateRefusal, without_renaming
from mixtune.chat.thinking import SWITCHES
from mixtune.chat.turns import TurnProblem, find_last_turn, find_prompt, thinks
from mixtune.errors import ConfigError, ModelError
from mixtune.inference.engine import Tokenizer
from mixtune.records import Message, Record, TemplateValue, prompt_and_answer
from mixtune.settings.chat import ChatSettings

Tokens = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A record by the chat template: what the model reads, and what it should say."""

    prompt: str
    """With the empty thought that a template puts before an answer that has none."""
    answer: str
    """From the first character of the answer to the end of its turn."""


def encode(tokenizer: Tokenizer, text: str) -> Tokens:
    """Return the tokens of a rendered text, in which special tokens are already written out."""
    if without_renaming(text) != text:
        return tuple(_renamed(cast(Hashable, plain_tokenizer(tokenizer))).encode(text, add_special_tokens=False).ids)
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def encode_pairs(tokenizer: Tokenizer, context: str, continuations: Sequence[str]) -> list[tuple[Tokens, Tokens]]:
    """Return the tokens of a context and each continuation, split as lm-eval does: encoded whole, then cut."""
    bos = tokenizer.bos_token
    special = {"add_special_tokens": False} if bos and context.startswith(bos) else {}
    count = len(tokenizer(context, **special)["input_ids"])
    wholes = [tokenizer(context + continuation, **special)["input_ids"] for continuation in continuations]
    return [(tuple(whole[:count]), tuple(whole[count:])) for whole in wholes]


def render(
    tokenizer: Tokenizer,
    messages: list[Message],
    tools: list[TemplateValue] | None = None,
    *,
    thinks: bool | None = None,
) -> str:
    """Return a conversation as text, up to the place where the assistant speaks.

    `thinks`: whether a thought is asked for; None: as the tokenizer is switched, or else as the template has it.

    Raises:
        ModelError: The model has no chat template, or it refuses the conversation.
    """
    thinks = getattr(tokenizer, "thinks", None) if thinks is None else thinks
    template, conversation = _read(tokenizer, messages, tools)
    try:
        text = find_prompt(template, conversation, _settings(tokenizer), thinks=thinks)
    except TemplateRefusal as error:
        raise ModelError(f"{tokenizer.name_or_path}: its chat template refuses a record ({error})") from error
    return template.put_back(text, conversation.aside)


def has_thinking_switch(tokenizer: Tokenizer) -> bool:
    """Return whether the chat template has a switch, and asks in another way with thoughts than without."""
    question = [Message(role="user", content="?")]
    has_switch = bool(ChatTemplate.of(tokenizer).habits().thoughts.switches)
    return has_switch and render(tokenizer, question, thinks=True) != render(tokenizer, question, thinks=False)


def check_thinking_switch(tokenizer: Tokenizer, thinking: str) -> None:
    """Check that the chat template has a switch for thoughts; a ConfigError says that it has none."""
    if not has_thinking_switch(tokenizer):
        raise ConfigError(
            f"thinking is {thinking}, but the chat template of {tokenizer.name_or_path} has no switch for thoughts "
            f"({', '.join(dict.fromkeys(item.name for item in SWITCHES))}); leave thinking at trained or template"
        )


class AskingTokenizer:
    """A tokenizer whose chat template is asked by settings, with thoughts on, off, or as the template has it (None)."""

    def __init__(self, tokenizer: Tokenizer, thinks: bool | None, chat: ChatSettings | None = None) -> None:
        self.tokenizer, self.thinks, self.chat = tokenizer, thinks, chat or ChatSettings()

    def __getattr__(self, name: str) -> Any:
        if name == "tokenizer":  # not there yet while it is unpickled
            raise AttributeError(name)
        return getattr(self.tokenizer, name)

    def __call__(self, text: str, **options: bool) -> Mapping[str, list[int]]:
        """Return the `input_ids` of a text."""
        return self.tokenizer(text, **options)


def plain_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """Return the tokenizer itself, without what it is told to ask by."""
    return tokenizer.tokenizer if isinstance(tokenizer, AskingTokenizer) else tokenizer


def render_question(tokenizer: Tokenizer, text: str) -> str:
    """Return a user's single message as a prompt; see `render`."""
    return render(tokenizer, [Message(role="user", content=text)])


def render_prompt(tokenizer: Tokenizer, record: Record) -> str:
    """Return the prompt of a record's last answer, with a thought where that is learned with one."""
    messages, last = prompt_and_answer(record)
    is_thinking = thinks(_read(tokenizer, [last], None)[1].messages[0], _settings(tokenizer))
    return render(tokenizer, messages, record.get("tools"), thinks=is_thinking)


def render_record(tokenizer: Tokenizer, record: Record, answer: str | None = None) -> Rendered:
    """Return a record's prompt and last answer, or another text in that answer's place, as they are learned."""
    messages, last = prompt_and_answer(record)
    if answer is not None:
        last = Message(role="assistant", content=answer)
    template, conversation = _read(tokenizer, [*messages, last], record.get("tools"))
    try:
        texts = find_last_turn(template, conversation, _settings(tokenizer))
    except (TemplateRefusal, TurnProblem) as error:
        raise ModelError(
            f"{tokenizer.name_or_path}: its chat template shows no answer of a record ({error})"
        ) from error
    prompt, spoken = (template.put_back(text, conversation.aside) for text in texts)
    return Rendered(prompt=prompt, answer=spoken)


def _settings(tokenizer: Tokenizer) -> ChatSettings:
    return tokenizer.chat if isinstance(tokenizer, AskingTokenizer) else ChatSettings()


def _read(
    tokenizer: Tokenizer, messages: list[Message], tools: list[dict[str, Any]] | None
) -> tuple[ChatTemplate, Conversation]:
    """Return the template that renders a conversation, and the conversation as it takes it."""
    template = ChatTemplate.of(plain_tokenizer(tokenizer))
    return template, template.conversation(messages, tools)


@lru_cache(maxsize=4)
def _renamed(tokenizer: Any) -> tokenizers.Tokenizer:
    """Return the tokenizer whose control tokens have names that no text can spell."""
    return rename_control_tokens(tokenizer.backend_tokenizer, ChatTemplate.of(tokenizer).control_tokens)
