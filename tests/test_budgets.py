"""The code stays within its budgets; `python benchmarks/house.py --where` says what uses them up."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import house  # noqa: E402

BUDGETS: dict[str, float] = {
    "lines of components and pipelines": 49_480,
    "modules in the fullest folder": 16,
    "lines of the longest file": 400,
    "dict[str, Any]": 30,
    "Any": 110,
    "untyped look-ups by string": 4,
    "of these into another component's file": 0,
    "black-listed names per 1,000": 1.0,
    "parameters outside shells and pipelines": 6,
    "parameters of shells and pipelines": 22,
    "functions over 60 lines": 0,
    "complexity": 12,
    "files edited to add a benchmark form": 0,
    "words a sentence, README, median": 15,
    "words a sentence, README, 90th percentile": 30,
    "words a sentence, guide, median": 15,
    "words a sentence, guide, 90th percentile": 30,
}
"""What no figure may exceed. A change that lowers a figure lowers its budget, too."""


@pytest.fixture(scope="module")
def figures() -> dict[str, float]:
    return house.figures(ROOT)


@pytest.mark.parametrize("name", BUDGETS)
def test_a_figure_is_within_its_budget(name: str, figures: dict[str, float]) -> None:
    assert figures[name] <= BUDGETS[name], f"{name}: {figures[name]:g}; see `python benchmarks/house.py --where`"


def test_a_look_up_is_found_wherever_the_value_came_from() -> None:
    code = """
def report(path: str, settings: dict[str, Any]) -> str:
    manifest = storage.read_manifest(path, "pools")
    for pool in manifest["pools"]:
        print(pool.get("name"))
    typed = Pool.read(path)
    return settings["title"] + typed.names["first"]
"""
    module = house.Module("components/mixtune/compare/page.py", 7, house.ast.parse(code))
    assert house.untyped_lookups([module]) == {"compare/page.py": ["pools", "name", "title"]}


def test_a_sentence_is_prose_alone() -> None:
    text = "# A heading of many words\n\nOne two three. Four `five six` seven!\n\n| a | b |\n\n- Eight nine\n- Ten\n"
    assert house.sentence_lengths(text) == [3, 3, 2]
