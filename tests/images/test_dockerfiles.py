"""What the Dockerfiles say, checked without building them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "images").glob("*/Dockerfile"))


def test_there_is_one_for_each_image_that_components_name() -> None:
    assert [path.parent.name for path in FILES] == ["data", "evaluate", "train"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    answer = subprocess.run(
        [str(Path(sys.executable).with_name("hadolint")), str(path)], capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_an_image_is_pinned_not_root_without_entry_point_and_without_secrets(path: Path) -> None:
    text = path.read_text()
    base = re.search(r"^ARG BASE_IMAGE=(\S+)$", text, re.M)
    assert base and ":" in base[1] and not base[1].endswith(":latest")
    assert re.findall(r"^FROM (\S+)", text, re.M) == ["${BASE_IMAGE}", "${BASE_IMAGE}"]
    assert text.rstrip().endswith("USER 10001:10001\n# Kubeflow gives the whole command.\nENTRYPOINT []")
    for command in re.findall(r"pip install (.*)", text):
        assert "--constraint constraints.txt" in command or command == "--no-deps --force-reinstall ."
    assert f'".[{path.parent.name}]"' in text
    assert "--no-deps kfp" in text
    assert not re.search(r"^(ARG|ENV).*(TOKEN|PASSWORD|SECRET|KEY)", text, re.M)
    assert not re.search(r"index-url|trusted-host", text)


def test_the_training_image_has_the_kernels_that_fused_kernels_asks_for() -> None:
    assert re.search(r"pip install .*--no-deps .*\bliger-kernel\b", (ROOT / "images/train/Dockerfile").read_text())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_what_an_image_copies_is_there_and_reaches_the_build(path: Path) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (?!--from)(.*)", path.read_text(), re.M)]
    for source in {name for names in copied for name in names}:
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in allowed, f"{source} is not let through by .dockerignore"
