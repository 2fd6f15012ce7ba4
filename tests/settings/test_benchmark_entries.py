"""Entries of benchmarks: limits are shares, and what is wrong is refused by name, never a traceback."""

import pytest

from mixtune.errors import ConfigError
from mixtune.settings.benchmark_entries import read_benchmark_entries


@pytest.mark.parametrize("form", ["gsm8k", ["gsm8k"], None])
def test_a_limit_over_one_is_no_share_whatever_the_form(form: object) -> None:
    with pytest.raises(ConfigError, match=r"'x': max_drop is a share, so that 0\.02 is 2 %; got 2"):
        read_benchmark_entries({"x": {"form": form, "max_drop": 2}})


def test_a_limit_over_one_stays_where_scores_go_beyond_one() -> None:
    entries = read_benchmark_entries({"general_nll": {"max_drop": 2}, "x": {"form": "lm_eval", "max_drop": 2}})
    assert [entry.max_drop for entry in entries.values()] == [2, 2]


@pytest.mark.parametrize("columns", [None, [], {}, {"question": None}, {"answer": "a"}])
def test_no_column_asks_where_none_is_named(columns: object) -> None:
    assert read_benchmark_entries({"x": {"columns": columns}})["x"].question == ""
