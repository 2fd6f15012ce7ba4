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


def is_trajectory(row: JsonObject) -> bool:
    """Return whether a row is a run of an agent."""
    return (str(row.get("schema_version")).startswith("ATIF") and begins(row.get("steps"), "source")) or _is_of_swe(row)


def _is_of_swe(row: JsonObject) -> bool:
    """Return whether a row is a run of SWE-agent: each of its steps holds again all that the model was shown."""
    return begins(parse_if_json(row.get("trajectory")), "action") and begins(parse_if_json(row.get("history")), "role")


def trajectory_talk(row: JsonObject) -> JsonObject:
    """Return a run as messages until its last answer, with the tools that its agent has.

    Raises:
        Refused: The agent says nothing in it.
    """
    unread: Unread = Counter()
    agent: JsonObject = row.get("agent") or {}
    if is_of_swe := _is_of_swe(row):
        messages = [_turn(turn, unread) for turn in parse_if_json(row["history"])]
        unread.update(["trajectory.action"])
    else:
        messages = [message for step in row["steps"] for message in _messages(step, unread)]
    talk = until_answer(messages, lambda message: message["role"] == "assistant")
    read = ("history", "trajectory") if is_of_swe else ("steps", "agent")
    about = {name: value for name, value in row.items() if name not in read}
    of_agent = {f"agent.{name}": value for name, value in agent.items() if name != "tool_definitions"}
    unread.update([AFTER] if len(talk) < len(messages) else [])
    return {
        **about,
        **of_agent,
        **dict.fromkeys(unread, True),
        "tools": agent.get("tool_definitions"),
        "messages": talk,
    }


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
