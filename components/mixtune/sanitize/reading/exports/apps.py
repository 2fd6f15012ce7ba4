"""Exports of chat apps: ChatGPT, Claude, DeepSeek, Open WebUI, LibreChat, LM Studio, Grok, AI Studio; lists of texts.

An app shows one path through its messages, and that is the conversation. What an answer owes to the app's tools, files
or searches is not in the export: such an answer, and one that was cut off or disliked, is context alone.
"""

import html
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from mixtune.errors import DataError
from mixtune.sanitize.reading.exports.kinds import (
    begins,
    has_nodes,
    is_claude,
    is_deepseek,
    is_more,
    is_open_webui,
)
from mixtune.sanitize.reading.exports.lists import (
    alternating_steps,
    grok_steps,
    is_alternating,
    is_grok,
    is_studio,
    studio_steps,
)
from mixtune.sanitize.reading.exports.steps import AFTER, DISLIKED, TOOLS, Step, check_files, flaw_of
from mixtune.sanitize.reading.exports.trees import OTHERS, best_replies, is_tree, path_to, until_answer
from mixtune.sanitize.reading.fields import CONVERSATIONS, TABLES, account
from mixtune.sanitize.reading.values import Json, JsonObject, Unread, is_blank, parse_if_json
from mixtune.sanitize.rules.record_texts import Refused

_HIDDEN = "messages that were hidden"
_LATE = "system texts behind the first question"
_UNANSWERED = "thoughts without an answer"
_READ = {app: frozenset(names.split()) for app, names in TABLES["exports"].items()}
"""Fields of an app's messages, or of a chat, that are read."""
_CELLS = TABLES["export_cells"]
"""Columns of a table that hold JSON, if they have this in them."""
_CONTEXTS = ("user_profile", "user_instructions", "model_set_context")
_CITED = re.compile("[\ue200-\ue206]|【[^】]*†[^】]*】")
"""What ChatGPT's answers have where they cite a search or a file."""
_FENCED = re.compile(r":::thinking\s(.*?):::\s*", re.DOTALL)
_DETAILS = re.compile(r'<details type="(\w+)"[^>]*>\s*(?:<summary>.*?</summary>)?(.*?)</details>\s*', re.DOTALL)
_SYSTEM_FIELD = "llm.prediction.systemPrompt"


def opened_export(row: JsonObject) -> JsonObject:
    """Return a row of an export as a row with `messages`, what is passed over named beside them; others as they are.

    Raises:
        DataError: Its messages do not follow one another.
        Refused: Nothing in it is to be learned, or it has images or files, which are not read.
    """
    cells = [name for name, mark in _CELLS.items() if isinstance(row.get(name), str) and mark in row[name]]
    plain = row
    row = {**row, **{name: parse_if_json(row[name]) for name in cells}} if cells else row
    if is_tree(row.get("prompt")) and not is_more(row, frozenset(("prompt",))):
        return best_replies(row)
    export = next((export for export in _EXPORTS if export.fits(row) and not is_more(row, export.read)), None)
    if export is None:
        return plain
    unread: Unread = Counter()
    messages = _conversation(list(export.steps(row, unread)), unread)
    about = {name: value for name, value in row.items() if name not in export.read}
    return {**about, **dict.fromkeys(unread, True), "messages": messages}


def _conversation(steps: list[Step], unread: Unread) -> list[JsonObject]:
    """Return messages until the last answer that is learned; the steps of one side that follow one another are one."""
    first = next((place for place, step in enumerate(steps) if step.role == "user"), len(steps))
    unread.update(step.flaw for step in steps if step.flaw)
    unread.update(_LATE for step in steps[first:] if step.role == "system" and step.text.strip())
    turns = [list[Step]()]
    for step in [*steps[:first], *(step for step in steps[first:] if step.role != "system")]:
        if turns[-1] and turns[-1][-1].role != step.role:
            turns.append([])
        turns[-1].append(step)
    messages = [message for turn in turns if (message := _message(turn, unread))]
    learned = until_answer(messages, lambda message: message["role"] == "assistant" and "train" not in message)
    unread.update([AFTER] if len(learned) < len(messages) else [])
    return learned


def _message(turn: list[Step], unread: Unread) -> JsonObject:
    """Return the message of a turn; an empty object where it says nothing."""
    text = "\n\n".join(step.text for step in turn if step.text.strip())
    thought = "\n".join(step.thought for step in turn if step.thought.strip())
    if not text:
        unread.update([_UNANSWERED] if thought else [])
        return {}
    message: JsonObject = {"role": turn[0].role, "content": text}
    if thought:
        message["reasoning"] = thought
    return {**message, "train": False} if any(step.flaw for step in turn) else message


def _chatgpt(row: JsonObject, unread: Unread) -> Iterator[Step]:
    nodes: dict[str, JsonObject] = row["mapping"]
    path = path_to(nodes, row["current_node"], "parent")
    shown = {node["message"]["id"] for node in path if node.get("message")}
    others = [node["message"] for node in nodes.values() if node.get("message") and node["message"]["id"] not in shown]
    unread.update([OTHERS] if any(_chatgpt_role(message) != "system" for message in others) else [])
    for node in path:
        if message := node.get("message"):
            account(message, _READ["chatgpt"], unread, "messages.", refuses=False)
            yield from _chatgpt_steps(message, _chatgpt_role(message), unread)


def _chatgpt_role(message: JsonObject) -> str:
    return str(message["author"]["role"])


def _chatgpt_steps(message: JsonObject, role: str, unread: Unread) -> Iterator[Step]:
    content, about = message["content"], message.get("metadata") or {}
    kind = content["content_type"]
    if kind in ("user_editable_context", "model_editable_context"):  # the model was shown it, hidden as it is
        yield from (Step(role="system", text=content[name]) for name in _CONTEXTS if content.get(name))
    elif role == "tool" or (role == "assistant" and message.get("recipient") not in (None, "all")):
        yield Step(role="assistant", flaw=TOOLS)
    elif about.get("is_visually_hidden_from_conversation") or message.get("weight") == 0:
        unread.update([] if is_blank(content.get("parts", content.get("text"))) else [_HIDDEN])
    elif kind == "thoughts":
        thoughts = [thought.get("content") or thought.get("summary") or "" for thought in content["thoughts"]]
        yield Step(role=role, thought="\n".join(thoughts))
    elif kind == "reasoning_recap":
        unread["messages.reasoning_recap"] += 1
    elif kind not in ("text", "multimodal_text"):
        raise Refused(f"content of a kind that is not read ({kind})")
    else:
        text = "\n".join(filter(None, map(_chatgpt_text, content["parts"])))
        check_files(about.get("attachments"))
        ended = ((about.get("finish_details") or {}).get("type"), message.get("status"))
        flaw = TOOLS if _CITED.search(text) else flaw_of(*ended)
        yield Step(role=role, text=text, flaw=flaw if role == "assistant" else "")


def _chatgpt_text(part: Json) -> str:
    """Return the text of a part: written, or spoken and written down."""
    if isinstance(part, str):
        return part
    if part.get("content_type") == "audio_transcription":
        return str(part["text"])
    if "audio" in str(part.get("content_type")):  # the sound of what is written down beside it
        return ""
    raise Refused("images, audio or video, which are not read")


def _claude(row: JsonObject, unread: Unread) -> Iterator[Step]:
    messages: list[JsonObject] = row["chat_messages"]
    path = messages
    if any(message.get("parent_message_uuid") for message in messages):
        nodes = {message["uuid"]: message for message in messages}
        newest = max(reversed(messages), key=lambda message: str(message.get("created_at") or ""))
        leaf = row.get("current_leaf_message_uuid") or newest["uuid"]
        path = path_to(nodes, leaf, "parent_message_uuid")
    unread.update([OTHERS] if len(path) < len(messages) else [])
    for message in path:
        account(message, _READ["claude"], unread, "messages.", refuses=False)
        check_files(message.get("files"), message.get("files_v2"))
        role = "user" if message["sender"] == "human" else "assistant"
        for part in message.get("content") or [{"type": "text", "text": message.get("text") or ""}]:
            yield from _claude_steps(part, role, unread)
        for attachment in message.get("attachments") or ():
            check_files(not attachment.get("extracted_content"))
            yield Step(role=role, text=attachment["extracted_content"])
        if role == "assistant":
            yield Step(role=role, flaw=flaw_of(message.get("stop_reason"), message.get("truncated")))


def _claude_steps(part: JsonObject, role: str, unread: Unread) -> Iterator[Step]:
    kind = part.get("type")
    account(part, _READ["claude_parts"], unread, "parts.", refuses=False)
    if kind == "text":
        is_cited = role == "assistant" and part.get("citations")
        yield Step(role=role, text=part["text"], flaw=TOOLS if is_cited else "")
    elif kind == "thinking":
        yield Step(role=role, thought=part["thinking"])
    elif kind in ("tool_use", "tool_result"):
        yield Step(role=role, flaw=TOOLS)
    elif kind in ("token_budget", "flag"):
        unread[f"parts.{kind}"] += 1
    else:
        raise Refused(f"content of a kind that is not read ({kind})")


def _deepseek(row: JsonObject, unread: Unread) -> Iterator[Step]:
    nodes: dict[str, JsonObject] = {name: node for name, node in row["mapping"].items() if node.get("message")}
    if not nodes:
        return
    newest = max(reversed(nodes), key=lambda name: str(nodes[name]["message"].get("inserted_at") or ""))
    path = path_to(nodes, newest, "parent")
    unread.update([OTHERS] if len(path) < len(nodes) else [])
    for node in path:
        message = node["message"]
        account(message, _READ["deepseek"], unread, "messages.", refuses=False)
        check_files(message.get("files"))
        if not message.get("fragments"):
            raise DataError("its messages do not say who speaks; write `messages`, each with role and content")
        for fragment in message["fragments"]:
            yield _fragment_step(fragment["type"], fragment.get("content") or "", unread)


def _fragment_step(kind: str, text: str, unread: Unread) -> Step:
    if kind == "TIP":
        unread["messages.TIP"] += 1
    elif kind not in ("REQUEST", "THINK", "RESPONSE"):
        return Step(role="assistant", flaw=TOOLS)
    if kind == "THINK":
        return Step(role="assistant", thought=text)
    return Step(role="user" if kind == "REQUEST" else "assistant", text="" if kind == "TIP" else text)


def _open_webui(row: JsonObject, unread: Unread) -> Iterator[Step]:
    chat = row["chat"]
    account(chat, _READ["open_webui_chat"], unread, "chat.", refuses=False)
    nodes: dict[str, JsonObject] = chat["history"]["messages"]
    path = path_to(nodes, chat["history"]["currentId"], "parentId")
    unread.update([OTHERS] if len(path) < len(nodes) else [])
    yield Step(role="system", text=chat.get("system") or (chat.get("params") or {}).get("system") or "")
    for message in path:
        account(message, _READ["open_webui"], unread, "messages.", refuses=False)
        check_files(message.get("files"))
        yield _open_webui_step(message)


def _open_webui_step(message: JsonObject) -> Step:
    details = _DETAILS.findall(message["content"])
    is_by_tools = bool(message.get("sources")) or any(kind != "reasoning" for kind, _ in details)
    is_disliked = (message.get("annotation") or {}).get("rating") == -1
    flaw = flaw_of(message.get("error"), message.get("done") is False)
    flaw = DISLIKED if is_disliked else TOOLS if is_by_tools else flaw
    return Step(
        role=message["role"],
        text=_DETAILS.sub("", message["content"]),
        thought="\n".join(_without_quotes(text) for kind, text in details if kind == "reasoning"),
        flaw=flaw if message["role"] == "assistant" else "",
    )


def _without_quotes(text: str) -> str:
    """Return a thought that is quoted in HTML, line by line."""
    return "\n".join(line.removeprefix(">").removeprefix(" ") for line in html.unescape(text).strip().split("\n"))


def _librechat(row: JsonObject, unread: Unread) -> Iterator[Step]:
    messages: list[JsonObject] = row.get("messagesTree") or row.get("messages") or []
    options = row.get("options") or {}
    account(options, frozenset(("promptPrefix",)), unread, "options.", refuses=False)
    yield Step(role="system", text=options.get("promptPrefix") or "")
    path, others = list[JsonObject](), 0
    if messages and not row.get("recursive"):
        nodes = {message["messageId"]: message for message in messages}
        path = path_to(nodes, messages[-1]["messageId"], "parentMessageId")
        others = len(nodes) - len(path)
    while messages and row.get("recursive"):
        path.append(messages[-1])
        others += len(messages) - 1
        messages = messages[-1].get("children") or []
    unread.update([OTHERS] if others else [])
    for message in path:
        account(message, _READ["librechat"], unread, "messages.", refuses=False)
        check_files(message.get("files"), message.get("attachments"))
        yield _librechat_step(message)


def _librechat_step(message: JsonObject) -> Step:
    parts = message.get("content") or [{"type": "text", "text": message.get("text") or ""}]
    texts = [part["text"] for part in parts if part.get("type") == "text"]
    text = "\n".join(str(text["value"] if isinstance(text, dict) else text) for text in texts)
    if message["isCreatedByUser"]:
        return Step(role="user", text=text)
    thoughts = [part["think"] for part in parts if part.get("type") == "think"]
    is_by_tools = any(part.get("type") not in ("think", "text") for part in parts)
    is_disliked = (message.get("feedback") or {}).get("rating") == "thumbsDown"
    flaw = flaw_of(message.get("finish_reason"), message.get("error"), message.get("unfinished"))
    return Step(
        role="assistant",
        text=_FENCED.sub("", text),
        thought="\n".join([*thoughts, *(thought.strip() for thought in _FENCED.findall(text))]),
        flaw=DISLIKED if is_disliked else TOOLS if is_by_tools else flaw,
    )


def _lm_studio(row: JsonObject, unread: Unread) -> Iterator[Step]:
    fields = (row.get("perChatPredictionConfig") or {}).get("fields") or ()
    prompts = [field["value"] for field in fields if field.get("key") == _SYSTEM_FIELD]
    unread.update(["perChatPredictionConfig.fields"] if len(fields) > len(prompts) else [])
    yield Step(role="system", text=next(filter(None, prompts), row.get("systemPrompt") or ""))
    for message in row["messages"]:
        version = message["versions"][message.get("currentlySelected") or 0]
        unread.update([OTHERS] if len(message["versions"]) > 1 else [])
        account(version, _READ["lm_studio"], unread, "messages.", refuses=False)
        for step in version.get("steps") or [version]:
            account(step, _READ["lm_studio"], unread, "steps.", refuses=False)
            yield from _lm_studio_steps(step, version["role"])


def _lm_studio_steps(step: JsonObject, role: str) -> Iterator[Step]:
    is_thought = (step.get("style") or {}).get("type") == "thinking"
    ended = ((step.get("genInfo") or {}).get("stats") or {}).get("stopReason")
    for part in step.get("content") or ():
        text = part.get("text") or ""
        if part.get("type") == "text":
            flaw = flaw_of(ended) if role == "assistant" else ""
            yield Step(role=role, thought=text, flaw=flaw) if is_thought else Step(role=role, text=text, flaw=flaw)
        elif role == "assistant":
            yield Step(role=role, flaw=TOOLS)
        else:
            check_files(part)


@dataclass(frozen=True, kw_only=True)
class _Export:
    """A kind of export: how its rows are told, which of their fields are read, and how."""

    fits: Callable[[JsonObject], bool]
    read: frozenset[str]
    steps: Callable[[JsonObject, Unread], Iterable[Step]]


_EXPORTS = (
    _Export(
        fits=lambda row: "current_node" in row and has_nodes(row),
        read=frozenset(("mapping", "current_node")),
        steps=_chatgpt,
    ),
    _Export(fits=is_deepseek, read=frozenset(("mapping",)), steps=_deepseek),
    _Export(
        fits=is_claude,
        read=frozenset(("chat_messages", "current_leaf_message_uuid")),
        steps=_claude,
    ),
    _Export(
        fits=is_open_webui,
        read=frozenset(("chat",)),
        steps=_open_webui,
    ),
    _Export(
        fits=lambda row: any(begins(row.get(name), "isCreatedByUser") for name in ("messages", "messagesTree")),
        read=frozenset(("messages", "messagesTree", "recursive", "branches", "options")),
        steps=_librechat,
    ),
    _Export(
        fits=lambda row: begins(row.get("messages"), "versions") and not begins(row.get("messages"), "role"),
        read=frozenset(("messages", "systemPrompt", "perChatPredictionConfig")),
        steps=_lm_studio,
    ),
    _Export(fits=is_grok, read=frozenset(("conversation", "responses")), steps=grok_steps),
    _Export(fits=is_studio, read=frozenset(("systemInstruction", "chunkedPrompt")), steps=studio_steps),
    *(
        _Export(
            fits=partial(is_alternating, name=name),
            read=frozenset((name,)),
            steps=partial(alternating_steps, name=name),
        )
        for name in ("data", *CONVERSATIONS)
    ),
)
