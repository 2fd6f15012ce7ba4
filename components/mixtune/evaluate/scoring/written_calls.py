"""Calls of tools as models write them, in the forms of the families that publish weights.

| form | families |
|---|---|
| `<tool_call>{"name": ..., "arguments": ...}</tool_call>` | Qwen 2.5 and 3, Hermes, SmolLM3, Granite 4 |
| `<arg_key>`, `<arg_value>` | GLM, LongCat |
| `<function=name><parameter=key>`; `<function=name>{...}` | Qwen3-Coder, Nemotron, Seed-OSS; Llama 3.1 |
| `<invoke name="..."><parameter name="...">` | MiniMax, DeepSeek V3.2, Step 3 |
| `[TOOL_CALLS][{...}]` and `[TOOL_CALLS]name[ARGS]{...}` | Mistral |
| a name, a mark and JSON | DeepSeek, Kimi K2, gpt-oss, Hunyuan, Functionary, Solar, Qwen-Agent, ReAct |
| `[name(key=value)]`, also behind marks or within `print` | Llama, LFM2, Gemma, OLMo 3, BFCL's prompt |
| `call:name{key:value}` | Gemma 4, FunctionGemma |
| a JSON object or list of `name` with `parameters` or `arguments` | Llama 3, Granite, Phi-4, Command A |
| `{name: arguments}` | Apertus |
"""

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mixtune.benchmark_files import parse_cell

Value = object


@dataclass(frozen=True, kw_only=True)
class WrittenCall:
    """One call."""

    name: str
    arguments: dict[str, Value] = field(default_factory=dict)


_NAME = r"(?:functions\.)?([\w.\-]+?)"
_HEADS = tuple(
    re.compile(pattern.replace("NAME", _NAME) + r"\s*(?:```json\s*)?(?=\{)", re.DOTALL | re.MULTILINE)
    for pattern in tomllib.loads(Path(__file__).with_name("call_heads.toml").read_text(encoding="utf-8"))["heads"]
)
"""What stands before a call's arguments as JSON, by family."""
_XML = re.compile(r"<(?:function=|invoke name=\")([\w.\-]+)\"?>(.*?)(?:</(?:function|invoke)>|\Z)", re.DOTALL)
_XML_ARGUMENT = re.compile(
    r"<parameter(?:=|\s+name=\")([\w.\-]+)\"?([^>]*)>\n?(.*?)\n?(?:</parameter>|(?=<parameter)|\Z)", re.DOTALL
)
_XML_PREFIXES = re.compile(r"(?<=[</])(?:｜DSML｜|steptml:|longcat_)")
_GLM = re.compile(r"<tool_call>\s*([\w.\-]+)\s*(<arg_key>.*?)(?:</tool_call>|\Z)", re.DOTALL)
_GLM_ARGUMENT = re.compile(r"<arg_key>(.*?)</arg_key>()\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
_GEMMA = re.compile(r"call:([\w.\-]+)(\{.*?\})(?=<tool_call\|>|<end_function_call>|\Z)", re.DOTALL)
_GEMMA_STRING = re.compile(r"(?:<\|\"\|>|<escape>)(.*?)(?:<\|\"\|>|<escape>)", re.DOTALL)
_APERTUS = "<|tools_prefix|>"
_MARKS = re.compile(
    r"<\|python_(?:tag|start|end)\|>|</?\|?tool_calls?(?:_start|_end)?\|?>|\[/?TOOL_CALLS\]|</?function_?calls?>"
    r"|<<function>>|<\|(?:START|END)_ACTION\|>|<\|(?:im_end|eot_id|eom_id|end|return)\|>|</?tools?>"
    r"|```(?:json|python|tool_code|tool_call)?"
)
_NAMES, _ARGUMENTS = ("name", "tool_name", "function"), ("arguments", "parameters", "args", "input")


def read_calls(text: str) -> list[WrittenCall]:
    """Return the calls of an answer in their order; none where it has none that can be read."""
    text = _XML_PREFIXES.sub("", text)
    for head in _HEADS:
        if calls := [call for match in head.finditer(text) for call in _from_head(match)]:
            return calls
    if calls := [_from_tags(match[1], match[2], _XML_ARGUMENT) for match in _XML.finditer(text)]:
        return calls
    if calls := [_from_tags(match[1], match[2], _GLM_ARGUMENT) for match in _GLM.finditer(text)]:
        return calls
    if calls := [call for match in _GEMMA.finditer(text) for call in _from_gemma(match)]:
        return calls
    is_named = _APERTUS in text
    if calls := [call for value in _json_values(text) for call in _from_json(value, is_named=is_named)]:
        return calls
    return _from_python(_MARKS.sub(" ", text))


def _from_head(match: re.Match[str]) -> Iterator[WrittenCall]:
    """Yield the call whose name was found, if JSON follows."""
    try:
        arguments, _ = json.JSONDecoder().raw_decode(match.string, match.end())
    except (ValueError, RecursionError):
        return
    yield WrittenCall(name=match[1], arguments=arguments)


def _from_tags(name: str, body: str, argument: re.Pattern[str]) -> WrittenCall:
    if body.strip().startswith("{") and isinstance(arguments := _plain_value(body.strip()), dict):
        return WrittenCall(name=name, arguments=arguments)
    values = {
        key.strip(): text.strip() if 'string="true"' in attributes else _plain_value(text.strip())
        for key, attributes, text in argument.findall(body)
    }
    return WrittenCall(name=name, arguments=values)


def _from_gemma(match: re.Match[str]) -> Iterator[WrittenCall]:
    """Yield a call whose keys have no quotes, and whose texts have marks in their place."""
    pieces = _GEMMA_STRING.split(match[2])  # texts at the odd places
    pieces[::2] = [re.sub(r"([{,]\s*)([\w.\-]+)\s*:", r'\1"\2":', piece) for piece in pieces[::2]]
    pieces[1::2] = map(json.dumps, pieces[1::2])
    arguments = _plain_value("".join(pieces))
    if isinstance(arguments, dict):
        yield WrittenCall(name=match[1], arguments=arguments)


def _plain_value(text: str) -> Value:
    """Return a value that is written without quotes: JSON or Python where it is that, else the text itself."""
    value = parse_cell(text)
    return text if value is None and text not in ("null", "None") else value


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


def _from_json(value: Value, *, is_named: bool = False) -> Iterator[WrittenCall]:
    """Yield the calls of a JSON value; `is_named`: an object's one key may be a call's name."""
    if isinstance(value, list):
        for item in value:
            yield from _from_json(item, is_named=is_named)
        return
    if not isinstance(value, dict):
        return
    if isinstance(value.get("tool_calls"), list):
        yield from _from_json(value["tool_calls"])
        return
    if is_named and len(value) == 1:
        value = {"name": next(iter(value)), "arguments": next(iter(value.values()))}
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
        nodes = [_without_print(node) for node in nodes]
        if nodes and all(isinstance(node, ast.Dict) for node in nodes):  # JSON in Python's quotes
            return [call for node in nodes for call in _from_json(_node_value(node))]
        if nodes and all(isinstance(node, ast.Call) for node in nodes):
            return [_from_call(node) for node in nodes if isinstance(node, ast.Call)]
    return []


def _without_print(node: ast.expr) -> ast.expr:
    """Return the call that is printed, for `print(f(x=1))`; else the expression itself."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "print" and len(node.args) == 1:
        return node.args[0] if isinstance(node.args[0], ast.Call) else node
    return node


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
