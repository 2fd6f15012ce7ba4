"""Runs of agents: in ATIF, the interchange format of Harbor, steps with calls and what came back; SWE-agent's files."""

from collections import Counter
from collections.abc import Iterator

from mixtune.sanitize.reading.exports.kinds import begins
from mixtune.sanitize.reading.exports.steps import AFTER
from mixtune.sanitize.reading.exports.trees import until_answer
from mixtune.sanitize.reading.fields import TABLES, account
from mixtune.sanitize.reading.values import Json, JsonObject, Unread, is_blank, json_text, parse_if_json

_STEP, _RESULT = (frozenset(TABLES["exports"][name].split()) for name in ("atif_step", "atif_result"))
_TURN = frozenset(TABLES["exports"]["swe_agent_turn"].split())
_ROLES = {"system": "system", "user": "user", "agent": "assistant"}


def trajectory_talk(row: JsonObject) -> JsonObject | None:
    """Return a run as messages until its last answer, with the tools that its agent has; None: the row is no run.

    Raises:
        Refused: The agent says nothing in it.
    """
    unread: Unread = Counter()
    agent: JsonObject = {}
    if str(row.get("schema_version")).startswith("ATIF") and begins(row.get("steps"), "source"):
        agent, read = row.get("agent") or {}, ("steps", "agent")
        messages = [message for step in row["steps"] for message in _messages(step, unread)]
    elif history := _history_of_swe(row):
        read = ("history", "trajectory")
        messages = [_turn(turn, unread) for turn in history]
        unread.update(["trajectory.action"])
    else:
        return None
    talk = until_answer(messages, lambda message: message["role"] == "assistant")
    about = {name: value for name, value in row.items() if name not in read}
    of_agent = {"tools" if name == "tool_definitions" else f"agent.{name}": value for name, value in agent.items()}
    unread.update([AFTER] if len(talk) < len(messages) else [])
    return {**about, **of_agent, **dict.fromkeys(unread, True), "messages": talk}


def _history_of_swe(row: JsonObject) -> list[JsonObject]:
    """Return the messages of a run of SWE-agent, whose steps repeat all that the model was shown; of another, none."""
    if "trajectory" not in row or "history" not in row:
        return []
    steps, history = (parse_if_json(row[name]) for name in ("trajectory", "history"))
    return list(history) if begins(steps, "action") and begins(history, "role") else []


def _turn(turn: JsonObject, unread: Unread) -> JsonObject:
    """Return a message of SWE-agent's, whose thought and action stand in its content; an example is not learned."""
    account(turn, _TURN, unread, "history.", refuses=False)
    fields = {name: turn[name] for name in ("role", "content", "tool_calls") if turn.get(name)}
    answers = turn["role"] == "tool" and turn.get("tool_call_ids")
    answered = {"tool_call_id": turn["tool_call_ids"][0]} if answers else {}
    return {"content": "", **fields, **answered, **({"train": False} if turn.get("is_demo") else {})}


def _messages(step: JsonObject, unread: Unread) -> Iterator[JsonObject]:
    """Yield the messages of a step; what is context of a former run, or is no model's, is not learned."""
    account(step, _STEP, unread, "steps.", refuses=False)
    role = _ROLES.get(step["source"], step["source"])
    calls = [
        {"id": call.get("tool_call_id"), "name": call.get("function_name"), "arguments": call.get("arguments")}
        for call in step.get("tool_calls") or ()
    ]
    message: JsonObject = {"role": role, "content": step.get("message") or ""}
    if role == "assistant":
        is_learned = step.get("is_copied_context") is not True and step.get("llm_call_count") != 0
        message |= {"reasoning": step.get("reasoning_content"), "tool_calls": calls}
        message |= {} if is_learned else {"train": False}
    if calls or not is_blank(message["content"]):
        yield message
    for result in (step.get("observation") or {}).get("results") or ():
        account(result, _RESULT, unread, "results.", refuses=False)
        content: Json = result.get("content")
        if is_blank(content) and not calls:
            continue
        text = content if isinstance(content, (str, list)) else "" if content is None else json_text(content)
        about = {"role": "tool", "tool_call_id": result.get("source_call_id")} if calls else {"role": "user"}
        yield {**about, "content": text}
