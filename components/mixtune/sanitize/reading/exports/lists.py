"""Chats that are lists: Grok's responses, AI Studio's chunks, and texts by turns, as UltraChat and LIMA have them."""

import re
from collections import Counter
from collections.abc import Iterator

from mixtune.sanitize.reading.exports.kinds import begins
from mixtune.sanitize.reading.exports.steps import TOOLS, Step, check_files, flaw_of
from mixtune.sanitize.reading.exports.trees import OTHERS, path_to
from mixtune.sanitize.reading.fields import TABLES, account
from mixtune.sanitize.reading.values import JsonObject, Unread, is_blank

_GROK, _GROK_TOOLS, _STUDIO = (
    frozenset(TABLES["exports"][name].split()) for name in ("grok", "grok_tools", "ai_studio")
)
_NAMED = re.compile(r"\s*[{\[]|(?i:human|user|assistant|customer|client|agent|bot|gpt|ai|system|support)\s*:")
"""How a text begins that is a message's JSON, or that names its speaker."""
_SENTENCE = re.compile(r"(?s).{60}|.*[.?!:)`\"…。？！]\s*\Z")
"""An answer, which a tag or a keyword is not."""


def is_grok(row: JsonObject) -> bool:
    """Return whether a row is a conversation with its responses, of both sides."""
    return "conversation" in row and begins(row.get("responses"), "response")


def grok_steps(row: JsonObject, unread: Unread) -> Iterator[Step]:
    """Yield what was said in a chat of Grok's, to the newest message."""
    responses: list[JsonObject] = [item["response"] for item in row["responses"]]
    nodes = {str(response.get("_id")): response for response in responses}
    path = responses
    if any(str(response.get("parent_response_id")) in nodes for response in responses):
        newest = max(reversed(nodes), key=lambda name: str(nodes[name].get("create_time") or ""))
        path = path_to(nodes, newest, "parent_response_id")
    unread.update([OTHERS] if len(path) < len(responses) else [])
    for response in path:
        account(response, _GROK | _GROK_TOOLS, unread, "messages.", refuses=False)
        check_files(response.get("file_attachments"))
        if str(response["sender"]).lower() == "human":
            yield Step(role="user", text=response["message"])
            continue
        is_by_tools = any(not is_blank(response.get(name)) for name in _GROK_TOOLS)
        flaw = TOOLS if is_by_tools else flaw_of(response.get("error"), response.get("partial"))
        thought = response.get("thinking_trace") or ""
        yield Step(role="assistant", text=response["message"], thought=thought, flaw=flaw)


def is_studio(row: JsonObject) -> bool:
    """Return whether a row is a prompt of AI Studio's with its chunks."""
    prompt = row.get("chunkedPrompt")
    return isinstance(prompt, dict) and begins(prompt.get("chunks"), "role")


def studio_steps(row: JsonObject, unread: Unread) -> Iterator[Step]:
    """Yield what was said in a chat of AI Studio's."""
    yield Step(role="system", text=(row.get("systemInstruction") or {}).get("text") or "")
    for chunk in row["chunkedPrompt"]["chunks"]:
        account(chunk, _STUDIO, unread, "chunks.", refuses=False)
        check_files(*(value for name, value in chunk.items() if name.startswith(("drive", "inline", "youtube"))))
        role = "assistant" if chunk["role"] == "model" else "user"
        text, reason = chunk.get("text") or "", str(chunk.get("finishReason") or "stop").lower()
        flaw = TOOLS if chunk.get("grounding") or "executableCode" in chunk else flaw_of(reason)
        if chunk.get("isThought"):
            yield Step(role=role, thought=text)
        else:
            yield Step(role=role, text=text, flaw=flaw if role == "assistant" else "")


def is_alternating(row: JsonObject, name: str) -> bool:
    """Return whether a row is texts by turns: those of a conversation, or under `data`, which may hold anything.

    Lists beside them may say who speaks; then these are no turns of two sides.
    """
    texts = row.get(name)
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        return False
    others: Unread = Counter()
    account(row, frozenset((name,)), others, refuses=False)
    if any(map(_NAMED.match, texts)) or any(isinstance(row[other], (list, dict)) for other in others):
        return False
    return name != "data" or (not others and any(map(_SENTENCE.match, texts[1::2])))


def alternating_steps(row: JsonObject, _: Unread, name: str) -> Iterator[Step]:
    """Yield texts as turns of a user and an assistant."""
    for place, text in enumerate(row[name]):
        yield Step(role=("user", "assistant")[place % 2], text=text)
