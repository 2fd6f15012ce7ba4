"""Calls are right exactly where the Berkeley leaderboard's own checker says so, on its own questions and answers."""

import copy
import json
import random
import sys
from collections import defaultdict
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mixtune.evaluate.asked import AskedOptions
from mixtune.evaluate.benchmarks import tool_calls
from mixtune.evaluate.scoring.call_matching import are_expected
from mixtune.evaluate.scoring.written_calls import WrittenCall

BFCL = find_spec("bfcl_eval")
KINDS = ["simple_python", "multiple", "parallel", "parallel_multiple", "live_simple", "live_parallel_multiple"]


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """The leaderboard's checker of Python calls, without its table of models, which imports every vendor's client."""
    if not BFCL:
        pytest.skip("pip install --no-deps bfcl-eval")
    models = ModuleType("bfcl_eval.constants.model_config")
    plain = SimpleNamespace(underscore_to_dot=False)
    models.__dict__["MODEL_CONFIG_MAPPING"] = defaultdict(lambda: plain)
    monkeypatch.setitem(sys.modules, models.__name__, models)
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker

    def is_valid(tools: list[Any], calls: list[WrittenCall], truth: list[Any], kind: str) -> bool:
        written = [{call.name: call.arguments} for call in calls]
        category = kind.removesuffix("_python")
        return bool(ast_checker(tools, written, truth, Language.PYTHON, category, "m")["valid"])

    return is_valid


def any_right(values: Any, pick: random.Random) -> Any:
    value = pick.choice(values or [""]) if isinstance(values, list) else values
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [any_right([item], pick) for item in value]
    if isinstance(value, dict):
        entries = {key: any_right(options, pick) for key, options in value.items()}
        return {key: entry for key, entry in entries.items() if entry != ""}
    return copy.deepcopy(value)


def right_calls(truth: list[Any], pick: random.Random) -> list[WrittenCall]:
    calls = []
    for call in truth:
        ((name, arguments),) = call.items()
        values = {key: any_right(options, pick) for key, options in arguments.items()}
        calls.append(WrittenCall(name=name, arguments={key: value for key, value in values.items() if value != ""}))
    return calls


CHANGES: list[Callable[[Any], Any]] = [
    lambda value: value.upper() + "." if isinstance(value, str) else str(value),
    lambda value: float(value) if type(value) is int else int(value) if isinstance(value, float) else [value],
    lambda value: bool(value) if isinstance(value, int) else None,
    lambda value: value[::-1] if isinstance(value, str | list) else value,
    lambda value: tuple(value) if isinstance(value, list) else f" {value}",
    lambda value: [float(item) if type(item) is int else str(item) for item in value] if isinstance(value, list) else 0,
    lambda value: type(value)(),
]


def changed(calls: list[WrittenCall], pick: random.Random) -> list[WrittenCall]:
    """Return calls with one thing changed, which may or may not matter."""
    calls = copy.deepcopy(calls)
    arguments = pick.choice(calls).arguments
    key = pick.choice([*arguments, ""])
    if key:
        arguments[key] = pick.choice(CHANGES)(arguments[key])
        return calls
    edits: list[Callable[[], Any]] = [
        lambda: calls.pop(), lambda: pick.shuffle(calls), lambda: calls.append(calls[0]),
        lambda: arguments.update(extra=1), lambda: arguments.popitem() if arguments else None,
    ]  # fmt: skip
    pick.choice(edits)()
    return calls


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_is_right_where_the_leaderboards_checker_says_so(
    kind: str, check: Callable[..., bool], tmp_path: Path
) -> None:
    assert BFCL and BFCL.submodule_search_locations
    data = Path(BFCL.submodule_search_locations[0]) / "data"
    rows = [json.loads(line) for line in (data / f"BFCL_v4_{kind}.json").read_text().splitlines()]
    truths = json.loads(f"[{','.join((data / 'possible_answer' / f'BFCL_v4_{kind}.json').read_text().splitlines())}]")
    (tmp_path / "all.json").write_text("\n".join(map(json.dumps, [*rows, *truths])))
    items = tool_calls.FORM.read_items(AskedOptions(uri=str(tmp_path)), None)  # type: ignore[arg-type]
    assert len(items) == len(rows)
    pick, verdicts = random.Random(0), []
    for row, item, truth in zip(rows, items, truths, strict=True):
        assert isinstance(item, tool_calls.CallItem)
        right = right_calls(truth["ground_truth"], pick)
        for calls in (right, changed(right, pick)):
            theirs = check(copy.deepcopy(row["function"]), calls, truth["ground_truth"], kind)
            verdicts.append(theirs)
            assert are_expected(calls, item.expected, item.declared) == theirs, (row["id"], calls)
    assert len(set(verdicts)) == 2
