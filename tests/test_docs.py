"""Documentation says what the code says."""

import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import write  # noqa: E402

from mixtune import __version__  # noqa: E402

TEXTS = write.texts()


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_written_from_the_code_is_up_to_date(path: Path) -> None:
    assert path.read_text() == TEXTS[path], "run `make docs`"


def test_the_changelog_knows_the_version() -> None:
    assert f"\n## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_every_dependency_is_bounded_and_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    for item in listed:
        if item.startswith("mixtune["):
            continue
        assert "<" in item or "==" in item, f"{item} has no upper bound"
        name = item.split("[")[0].split(">")[0].split("=")[0].strip().lower().replace("_", "-")
        assert name in pinned, f"{name} is not in constraints.txt; run `make constraints`"
