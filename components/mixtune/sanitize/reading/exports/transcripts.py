"""Conversations that are one text: as a chat template renders them, or with a name before whatever each side says."""

import re

from mixtune.errors import DataError
from mixtune.sanitize.reading.values import Json, JsonObject

_CHATML = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>\s*", re.DOTALL)
_LLAMA = re.compile(
    r"\s*(?:<s>\s*)?\[INST\](?:\s*<<SYS>>(.*?)<</SYS>>)?((?:(?!\[/?INST\]).)*)\[/INST\]((?:(?!\[/?INST\]|</?s>).)*)(?:</s>|\Z)\s*",
    re.DOTALL,
)
"""A turn as Llama 2's template renders it."""
_ROLES = ("system", "user", "assistant")
_SPOKEN = re.compile(r"(?:\A|\n\n|### )(Human|Assistant):")
_ASKED = re.compile(r"(?m)^[ \t]*(Human|User|Assistant):")
"""A speaker's name in a question that is the conversation so far, its end the name of who is to go on."""
_GLAIVE = re.compile(r"(?:\A|\n\n)\s*(USER|ASSISTANT|FUNCTION RESPONSE):")
_GLAIVE_ROLES = {"USER": "user", "ASSISTANT": "assistant", "FUNCTION RESPONSE": "tool"}
_GLAIVE_END, _GLAIVE_CALL = "<|endoftext|>", "<functioncall>"
_OBJECT = re.compile(r"^\{", re.MULTILINE)


def spoken(text: str) -> list[Json]:
    """Return the messages of a conversation that is one text; none where it is not surely one."""
    if text.startswith("<|im_start|>") and not _CHATML.sub("", text):
        return [{"role": role, "content": content} for role, content in _CHATML.findall(text)]
    if "[/INST]" in text and not _LLAMA.sub("", text):
        texts = [content.strip() for turn in _LLAMA.findall(text) for content in turn]
        rendered = [{"role": _ROLES[place % 3], "content": content} for place, content in enumerate(texts)]
        return [message for message in rendered if message["role"] != "system" or message["content"]]
    if turns := _alpaca_turns(text):
        return turns
    turns = _named_turns(_SPOKEN, text.lstrip())
    return turns if len(turns) % 2 == 0 else []


def _alpaca_turns(text: str) -> list[Json]:
    """Return the messages of a question and its answer as Stanford's Alpaca renders them; none of any other text."""
    system, _, rest = text.removeprefix("<s>").partition("### Instruction:")
    question, is_answered, answer = rest.partition("### Response:")
    instruction, _, about = question.partition("### Input:")
    answer = answer.rstrip().removesuffix("</s>")
    has_more = any(mark in part for part, mark in ((system, "###"), (instruction, "### "), (about, "### ")))
    if has_more or not is_answered or any(mark in answer for mark in ("### Instruction", "### Response", "</s>")):
        return []
    question = "\n\n".join(filter(None, (instruction.strip(), about.strip())))
    speeches = zip(_ROLES, (system.strip(), question, answer.strip()), strict=True)
    return [{"role": role, "content": content} for role, content in speeches if content]


def asked_so_far(text: str) -> list[Json]:
    """Return the messages of a question that ends with `Assistant:`, as HH-RLHF's; none where it is not surely that."""
    turns = _named_turns(_ASKED, text.lstrip()) if text.rstrip().endswith("Assistant:") else []
    return turns[:-1] if turns and not turns[-1]["content"] else []


def _named_turns(names: re.Pattern[str], text: str) -> list[Json]:
    """Return the messages of a text in which user and assistant are named by turns; none of any other."""
    start, *pieces = names.split(text)
    speakers = ["assistant" if name == "Assistant" else "user" for name in pieces[::2]]
    if start or speakers != (["user", "assistant"] * len(speakers))[: len(speakers)]:
        return []
    turns = zip(speakers, pieces[1::2], strict=True)
    return [{"role": speaker, "content": speech.strip()} for speaker, speech in turns]


def is_glaive(row: JsonObject) -> bool:
    """Return whether a row is a transcript of Glaive's with its system text, which names the speaker, too."""
    system, chat = row.get("system"), row.get("chat")
    return isinstance(chat, str) and isinstance(system, str) and system.lstrip().startswith("SYSTEM:")


def glaive_talk(row: JsonObject) -> JsonObject:
    """Return a row of Glaive's as messages with their calls, and the tools that its system text lists.

    Raises:
        DataError: Its text does not begin with a speaker.
    """
    start, *pieces = _GLAIVE.split(row["chat"].strip())
    if start or not pieces:
        raise DataError("chat is a transcript that names no speaker at its begin; write it as `messages`")
    system, *listed = _OBJECT.split(row["system"].strip().removeprefix("SYSTEM:").strip(), maxsplit=1)
    turns = zip(pieces[::2], pieces[1::2], strict=True)
    messages = [_glaive_turn(_GLAIVE_ROLES[name], text.replace(_GLAIVE_END, "").strip()) for name, text in turns]
    about = {name: value for name, value in row.items() if name != "chat"}
    tools = "".join("{" + text for text in listed)
    return {**about, "system": system.rstrip(" -\n"), "tools": tools, "messages": messages}


def _glaive_turn(role: str, text: str) -> JsonObject:
    speech, mark, call = text.partition(_GLAIVE_CALL)
    if role != "assistant" or not mark:
        return {"role": role, "content": text}
    return {"role": role, "content": speech.strip(), "function_call": call.strip()}
