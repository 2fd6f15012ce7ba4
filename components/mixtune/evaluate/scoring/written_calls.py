"""Calls of tools as models write them, in the forms of the families that publish weights.

| form | families |
|---|---|
| `<tool_call>{"name": ..., "arguments": ...}</tool_call>` | Qwen 2.5 and 3, Hermes, SmolLM3, Granite 4 |
| `<tool_call>name` and `<arg_key>`, `<arg_value>` | GLM |
| `<function=name><parameter=key>` | Qwen3-Coder, Nemotron, Seed-OSS |
| `<invoke name="..."><parameter name="...">` | MiniMax, DeepSeek V3.2 |
| `[TOOL_CALLS][{...}]` and `[TOOL_CALLS]name[ARGS]{...}` | Mistral |
| `<｜tool▁sep｜>` with JSON, fenced or not; `<|tool_call_argument_begin|>` | DeepSeek; Kimi K2 |
| `to=functions.name ... <|message|>{...}` | gpt-oss |
| `[name(key=value)]`, also behind `<|python_tag|>` or `<|tool_call_start|>` | Llama, LFM2, Gemma, BFCL's prompt |
| a JSON object or list of `name` with `parameters` or `arguments` | Llama 3, Granite, Phi-4, Command R |
"""

import ast
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

Value = object


@dataclass(frozen=True, kw_only=True)
class WrittenCall:
    """One call."""

    name: str
    arguments: dict[str, Value] = field(default_factory=dict)


_HARMONY = re.compile(
    r"to=(?:functions\.)?([\w.\-]+).*?<\|message\|>(.*?)(?=<\|(?:call|end|start|channel)\|>|\Z)", re.DOTALL
)
_DEEPSEEK = re.compile(
    r"(?:function)?<｜tool▁sep｜>([\w.\-]+)\s*(?:```json)?\s*(\{.*?\})\s*(?:```)?\s*(?=<｜tool▁call▁end｜>|\Z)"
    r"|<｜tool▁call▁begin｜>([\w.\-]+)<｜tool▁sep｜>(\{.*?\})(?=<｜tool▁call▁end｜>|\Z)",
    re.DOTALL,
)
_KIMI = re.compile(
    r"(?:functions\.)?([\w.\-]+?)(?::\d+)?\s*<\|tool_call_argument_begin\|>\s*(\{.*?\})\s*(?=<\|tool_call_end\|>|\Z)",
    re.DOTALL,
)
_MISTRAL_ARGS = re.compile(
    r"\[TOOL_CALLS\]\s*([\w.\-]+)\s*(?:\[CALL_ID\]\w+)?\[ARGS\]\s*(\{.*?\})\s*(?=\[TOOL_CALLS\]|</s>|\Z)", re.DOTALL
)
_PAIRED = (_HARMONY, _DEEPSEEK, _KIMI, _MISTRAL_ARGS)
_XML = re.compile(r"<(?:function=|invoke name=\")([\w.\-]+)\"?>(.*?)(?:</(?:function|invoke)>|\Z)", re.DOTALL)
_XML_ARGUMENT = re.compile(
    r"<parameter(?:=|\s+name=\")([\w.\-]+)\"?[^>]*>\n?(.*?)\n?(?:</parameter>|(?=<parameter)|\Z)", re.DOTALL
)
_GLM = re.compile(r"<tool_call>\s*([\w.\-]+)\s*(<arg_key>.*?)(?:</tool_call>|\Z)", re.DOTALL)
_GLM_ARGUMENT = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
_MARKS = re.compile(
    r"<\|python_tag\|>|</?\|?tool_calls?(?:_start|_end)?\|?>|\[/?TOOL_CALLS\]|</?functioncall>|<\|(?:START|END)_ACTION\|>"
    r"|<\|(?:im_end|eot_id|eom_id|end|return)\|>|</?tools?>|```(?:json|python|tool_code|tool_call)?"
)
_NAMES, _ARGUMENTS = ("name", "tool_name", "function"), ("arguments", "parameters", "args", "input")


def read_calls(text: str) -> list[WrittenCall]:
    """Return the calls of an answer in their order; none where it has none that can be read."""
    for pattern in _PAIRED:
        if calls := [call for match in pattern.finditer(text) for call in _from_pair(match)]:
            return calls
    if calls := [_from_tags(match[1], _XML_ARGUMENT.findall(match[2])) for match in _XML.finditer(text)]:
        return calls
    if calls := [_from_tags(match[1], _GLM_ARGUMENT.findall(match[2])) for match in _GLM.finditer(text)]:
        return calls
    if calls := [call for value in _json_values(text) for call in _from_json(value)]:
        return calls
    return _from_python(_MARKS.sub(" ", text))


def _from_pair(match: re.Match[str]) -> Iterator[WrittenCall]:
    name, text = [group for group in match.groups() if group is not None][:2]
    try:
        arguments = json.loads(text)
    except ValueError:
        return
    if isinstance(arguments, dict):
        yield WrittenCall(name=name, arguments=arguments)


def _from_tags(name: str, arguments: Iterable[tuple[str, str]]) -> WrittenCall:
    return WrittenCall(name=name, arguments={key.strip(): _plain_value(text.strip()) for key, text in arguments})


def _plain_value(text: str) -> Value:
    """Return a value that is written without quotes: JSON or Python where it is that, else the text itself."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value: Value = parse(text)
            return value
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text


def _json_values(text: str) -> Iterator[Value]:
    """Yield the JSON objects and lists of a text, outermost ones."""
    decoder, place = json.JSONDecoder(), 0
    while match := re.compile(r"[\[{]").search(text, place):
        try:
            value, place = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            place = match.start() + 1
        else:
            yield value


def _from_json(value: Value) -> Iterator[WrittenCall]:
    if isinstance(value, list):
        for item in value:
            yield from _from_json(item)
        return
    if not isinstance(value, dict):
        return
    function = value.get("function")
    if isinstance(function, dict):  # OpenAI's form
        value = function
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), "")
    arguments: Value = next((value[key] for key in _ARGUMENTS if key in value), None if len(value) > 1 else {})
    if isinstance(arguments, str):
        arguments = _plain_value(arguments)
    if name and isinstance(arguments, dict):
        yield WrittenCall(name=name, arguments=arguments)


def _from_python(text: str) -> list[WrittenCall]:
    """Return the calls of an expression such as `[f(x=1), g(y="a")]`, or of one call a line."""
    for candidate in (text.strip(), f"[{','.join(line for line in text.strip().splitlines() if line.strip())}]"):
        try:
            tree = ast.parse(candidate, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        nodes = tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]
        if nodes and all(isinstance(node, ast.Call) for node in nodes):
            return [_from_call(node) for node in nodes if isinstance(node, ast.Call)]
    return []


def _from_call(node: ast.Call) -> WrittenCall:
    arguments: dict[str, Value] = {f"#{place}": _node_value(value) for place, value in enumerate(node.args)}
    arguments |= {item.arg: _node_value(item.value) for item in node.keywords if item.arg}
    return WrittenCall(name=ast.unparse(node.func), arguments=arguments)


def _node_value(node: ast.expr) -> Value:
    try:
        value: Value = ast.literal_eval(node)
        return value
    except (ValueError, TypeError):
        return ast.unparse(node)
