"""Rows and files changed at random: no crash, no row lost, no field unread that is not named."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import fuzz_inputs


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_comes_is_read_or_named(seed: int) -> None:
    assert fuzz_inputs.fuzz(600, [], seed) == {}


def test_a_field_that_is_lost_without_a_word_is_found_out() -> None:
    row = {"prompt": "q", "completion": "a", "note": ["mark0mark"]}
    assert fuzz_inputs.above(row, "mark0mark") == ["note", ""]
    assert fuzz_inputs.check_row(row, {"mark0mark": "note"}) == ""
    assert fuzz_inputs.check_row({**row, "type": 1, "id": {"x": "mark1mark"}}, {"mark1mark": "id"}) == ""
