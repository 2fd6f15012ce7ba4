"""Text to tokens: plain prompts as lm-eval encodes them, conversations by the model's own chat template."""

from dataclasses import dataclass
from typing import Any

from mixtune.chat.template import ChatTemplate, TemplateRefusal
from mixtune.errors import ModelError
from mixtune.records import Message, Record, prompt_and_answer, template_messages, template_tools


def encode_pair(tokenizer: Any, context: str, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Tokens of a context and of what follows it, split as lm-eval splits them: encoded whole, then cut."""
    bos = tokenizer.bos_token
    special = {"add_special_tokens": False} if bos and context.startswith(bos) else {}
    whole = tokenizer(context + continuation, **special)["input_ids"]
    count = len(tokenizer(context, **special)["input_ids"])
    return tuple(whole[:count]), tuple(whole[count:])


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A record by the chat template: what the model reads, and what it should say."""

    prompt: str
    answer: str
    """From the first character of the answer to the end of its turn."""


def render_prompt(tokenizer: Any, messages: list[Message], tools: list[dict[str, Any]] | None = None) -> str:
    """A conversation up to the place where the assistant speaks.

    Raises:
        ModelError: The model has no chat template, or it refuses the conversation.
    """
    return _render(tokenizer, messages, tools, prompt=True)


def render_question(tokenizer: Any, text: str) -> str:
    """A user's single message, up to the place where the assistant speaks.

    Raises:
        ModelError: The model has no chat template.
    """
    return render_prompt(tokenizer, [Message(role="user", content=text)])


def render_record(tokenizer: Any, record: Record, answer: str | None = None) -> Rendered:
    """A record's prompt and last answer; `answer` puts another text in its place."""
    messages, last = prompt_and_answer(record)
    if answer is not None:
        last = Message(role="assistant", content=answer)
    tools = record.get("tools")
    prompt = render_prompt(tokenizer, messages, tools)
    whole = _render(tokenizer, [*messages, last], tools, prompt=False)
    start = len(prompt)
    if not whole.startswith(prompt):
        # templates that treat the last turn differently (thinking models) still end in the answer's text
        start = whole.rfind(last["content"])
        if start < 0:
            raise ModelError(
                f"{tokenizer.name_or_path}: its chat template does not show the assistant's answer as it is"
            )
    return Rendered(prompt=prompt, answer=whole[start:].rstrip("\n"))


def turns_text(record: Record) -> str:
    """What the user says in a record."""
    return "\n".join(message["content"] for message in record["messages"] if message["role"] == "user")


def encode(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Tokens of a rendered text, in which special tokens are already written out."""
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _render(tokenizer: Any, messages: list[Message], tools: list[dict[str, Any]] | None, *, prompt: bool) -> str:
    template = ChatTemplate.of(tokenizer)
    try:
        return template.render(template_messages(messages), template_tools(tools), prompt=prompt).text
    except TemplateRefusal as error:
        raise ModelError(f"{tokenizer.name_or_path}: its chat template refuses a record ({error})") from error
