"""Documentation says what the code says."""

import argparse
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "docs"), str(ROOT / "tests")]

import write  # noqa: E402
from test_layers import MAY_IMPORT, SHARED  # noqa: E402

from mixtune import __version__  # noqa: E402
from mixtune.cli import _parser  # noqa: E402
from mixtune.commands.arguments import check_arguments, find_pipeline, read_arguments  # noqa: E402

TEXTS = write.texts()
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
PACKAGE = ROOT / "components" / "mixtune"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_written_from_the_code_is_up_to_date(path: Path) -> None:
    assert path.read_text() == TEXTS[path], "run `make docs`"


def test_the_map_shows_every_room_and_what_it_may_import() -> None:
    rows = write.room_rows()
    assert set(rows) >= {*MAY_IMPORT}, "ARCHITECTURE.md's table lacks a room"
    listed = {room: {*filter(None, rows[room]["may import"].split(", "))} for room in MAY_IMPORT}
    shown = {room: names - {"shared"} | (SHARED if "shared" in names else set()) for room, names in listed.items()}
    assert shown == MAY_IMPORT, "ARCHITECTURE.md's table says another import rule than tests/test_layers.py"


def test_every_output_of_every_component_is_described() -> None:
    rooms = [text for path, text in TEXTS.items() if (path.parent / "component.py").exists()]
    outputs = [
        row
        for text in rooms
        for part in re.findall(r"^\| output .*?^$", text, re.M | re.S)
        for row in part.splitlines()[2:]
    ]
    assert len(outputs) > 30
    assert [row for row in outputs if row.split("|")[3].strip() == ""] == []


def test_the_readme_lists_every_component_and_every_pipeline() -> None:
    text = (ROOT / "README.md").read_text()
    names = [path.stem for path in PACKAGE.glob("*/*.yaml")]
    assert len(names) > 20
    assert [name for name in names if f"`{name}`" not in text] == []


def test_the_readme_names_every_command() -> None:
    (subparsers,) = [item for item in _parser()._actions if isinstance(item, argparse._SubParsersAction)]
    text = (ROOT / "README.md").read_text()
    assert len(subparsers.choices) > 10
    assert [name for name in subparsers.choices if f"mixtune {name}" not in text] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_between_documents_leads_somewhere(path: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", path.read_text()):
        other = (path.parent / target).resolve() if target else path
        assert other.exists(), f"{target} is not there"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", other.read_text(), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, anchor


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_and_every_test_that_a_document_names_is_there(path: Path) -> None:
    text = path.read_text()
    named = re.findall(r"`((?:tests|components|pipelines|docs|kustomize|policies|images|examples)/[\w./-]+)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []
    tests = set(re.findall(r"`(test(?:_[a-z0-9]+){4,})`", text))
    defined = {
        name for file in (ROOT / "tests").rglob("*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    assert tests - defined == set()


SHOWN = [
    (path, re.split(r"\s#", line)[0])
    for path in DOCUMENTS
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(), re.M | re.S)
    if language in ("", "sh")
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("mixtune ")
]
"""Every command of ours in a document."""


def compile_example(name: str, folder: Path) -> str:
    """Where the YAML is that a script of `examples/` writes beside itself."""
    script = shutil.copy((ROOT / name).with_suffix(".py"), folder)
    runpy.run_path(script, run_name="__main__")
    return str(folder / Path(name).name)


@pytest.mark.parametrize(("path", "line"), SHOWN, ids=lambda value: " ".join(str(value).split()[:3])[-40:])
def test_a_command_in_a_document_has_options_and_parameters_that_there_are(
    tmp_path: Path, path: Path, line: str
) -> None:
    words = [word for word in shlex.split(line) if word != "..."]
    for place, word in enumerate(words):
        if word.startswith("examples/"):
            words[place] = compile_example(word, tmp_path)
    options, late = _parser().parse_known_args(words[1:])
    assert [word for word in late if word.startswith("-") or "=" not in word] == []
    if "pipeline" in options:
        given = [word.split("=")[0] + "=@nosuch" if "=@" in word else word for word in [*options.arguments, *late]]
        pipeline = find_pipeline(options.pipeline)
        known = read_arguments(pipeline, [word for word in given if "@nosuch" not in word], complete=False)
        check_arguments(pipeline, known, complete=False)


def test_errors_of_a_component_without_inputs_are_a_table() -> None:
    sections = write.sections("Delete jobs.\n\nRaises:\n    ClusterError: The API is away,\n        or refuses.\n")
    assert sections[""] == "Delete jobs."
    assert write.entries(sections["Raises"]) == {"ClusterError": "The API is away, or refuses."}


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


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_an_old_python_is_refused_before_pip_sees_it(tmp_path: Path) -> None:
    old = tmp_path / "old-python"
    old.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} -c "import sys; sys.version_info = (3, 9, 18)\n$1"\n')
    old.chmod(0o755)
    command = ["make", "demo", f"VENV={tmp_path}/venv", f"PYTHON={old}"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode and "mixtune needs Python 3.11 or later; " in run.stderr
    assert "give another: make demo PYTHON=python3.11" in run.stderr and not (tmp_path / "venv").exists()
