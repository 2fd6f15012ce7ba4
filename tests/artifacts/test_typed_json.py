"""Artifacts as JSON files: what is written comes back, and anything else is refused with its place."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mixtune.artifacts.typed_json import read_artifact, write_artifact
from mixtune.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Score:
    value: float
    items: int = 0


@dataclass(frozen=True, kw_only=True)
class Scores:
    KIND: ClassVar[str] = "scores"
    VERSION: ClassVar[int] = 2

    name: str
    best: Score | None = None
    scores: tuple[Score, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


def test_what_is_written_comes_back_with_its_types(tmp_path: Path) -> None:
    scores = Scores(name="é", best=Score(value=1.0), scores=(Score(value=0.5, items=3),), options={"a": [1, None]})
    write_artifact(str(tmp_path / "scores"), scores)
    assert read_artifact(Scores, str(tmp_path / "scores")) == scores
    assert json.loads((tmp_path / "scores").read_text())["version"] == 2


def test_a_number_that_is_none_comes_back(tmp_path: Path) -> None:
    write_artifact(str(tmp_path / "scores"), Scores(name="x", best=Score(value=math.nan)))
    best = read_artifact(Scores, str(tmp_path / "scores")).best
    assert best and math.isnan(best.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "pools", "version": 2, "name": "x"}, "a scores file is needed, this is one of 'pools'"),
        ([1], "a scores file is needed, this is none that a step wrote"),
        ({"kind": "scores", "version": 1, "name": "x"}, "version 1 of the scores format, this mixtune reads version 2"),
        ({"kind": "scores", "version": 2}, "'name' is missing; this is no scores file"),
        (
            {"kind": "scores", "version": 2, "name": "x", "scores": [{"value": "1"}]},
            "scores, entry 1: value is a number",
        ),
    ],
)
def test_another_file_is_refused_with_what_is_wrong(content: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "scores").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_artifact(Scores, str(tmp_path / "scores"))


def test_a_file_of_a_later_release_with_further_keys_is_read(tmp_path: Path) -> None:
    (tmp_path / "scores").write_text(json.dumps({"kind": "scores", "version": 2, "name": "x", "later": 1}))
    assert read_artifact(Scores, str(tmp_path / "scores")) == Scores(name="x")
