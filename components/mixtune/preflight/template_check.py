"""Find what a run learns of each kind of conversation, by the same code as `mix_shard`, without torch."""

from mixtune import models
from mixtune.chat.refused_share import way_out
from mixtune.chat.template_files import DEFAULT, read_template_file, read_templates
from mixtune.preflight.findings import Findings
from mixtune.preflight.run_settings import RunSettings, valid
from mixtune.records import Message, Origin, Record, ToolCall

_TOOL = {"name": "look", "description": "Looks up.", "parameters": {"type": "object", "properties": {}}}
_USER, _ANSWER = Message(role="user", content="What is it?"), Message(role="assistant", content="It is four.")
_CALL = Message(role="assistant", content="", tool_calls=[ToolCall(id="call00000", name="look", arguments={})])
KINDS: dict[str, list[Message]] = {
    "plain answers": [_USER, _ANSWER],
    "several turns": [_USER, _ANSWER, _USER, _ANSWER],
    "system prompts": [Message(role="system", content="Be brief."), _USER, _ANSWER],
    "thoughts": [_USER, Message(role="assistant", content="It is four.", reasoning="Two and two.")],
    "calls": [_USER, _CALL],
    "results of calls": [_USER, _CALL, Message(role="tool", content="Sun.", tool_call_id="call00000"), _ANSWER],
}


def check_template(run: RunSettings) -> Findings:
    """Check that answers are learned, with a thought or without, and say which other conversations are, or why not."""
    mix, folder = valid(run.mix), models.fetch_model(run.base_model, weights=False)
    uri = mix.tokens.chat_template_uri if mix else ""
    if mix is None or not (uri or DEFAULT in read_templates(folder)) or not (folder / "tokenizer.json").is_file():
        return  # other checks say why
    from mixtune.chat.tokenizer import ChatTokenizer

    tokenizer = ChatTokenizer(folder, mix.tokens, read_template_file(uri), fast=False)
    if text := tokenizer.unlike_file(folder / "tokenizer.json"):
        yield "warn", f"transformers' tokenizer is not that of tokenizer.json: {text!r} has other ids; save it anew"
    origin, problems = Origin(file="preflight", line=1), {}
    for kind, turns in KINDS.items():
        record = Record(id="0" * 32, messages=turns, origin=origin, tools=[_TOOL] if _CALL in turns else [])
        problems[kind] = next(tokenizer.tokenize([record])).problem
    if reason := problems["plain answers"]:
        text = f"plain answers are learned: {reason}; {way_out(reason)}"
        yield ("fail", f"not even {text}") if problems["thoughts"] else ("warn", f"no {text}")
    yield "pass", f"learned, token by token: {', '.join(kind for kind, reason in problems.items() if not reason)}"
    for kind, reason in problems.items():
        if reason:
            yield "pass", f"{kind} are refused: {reason}"
