"""How large a run's workflow becomes: the model against real runs, and the pipelines against Argo's limit."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mixtune.commands.arguments import find_pipeline
from mixtune.errors import ConfigError
from mixtune.settings.mix import LARGEST_GRID, check_grid

from .workflow_size import LIMIT_BYTES, largest_grid, workflow_size


@pytest.mark.parametrize(
    ("name", "nodes", "plain", "compressed", "whole"),
    [("prepare_data", 30, 480_000, None, None), ("finetune", 103, 1_410_000, 260_000, 440_000)],
)
def test_the_model_agrees_with_what_a_real_back_end_held(
    pipeline_before: Callable[[str], Path], name: str, nodes: int, plain: int, compressed: int | None, whole: int | None
) -> None:
    size = workflow_size(pipeline_before(name))
    assert size.num_nodes == pytest.approx(nodes, rel=0.02)
    assert size.plain_nodes == pytest.approx(plain, rel=0.03)
    if compressed and whole:
        assert size.compressed_nodes == pytest.approx(compressed, rel=0.05)
        assert size.compressed == pytest.approx(whole, rel=0.05)
    assert size.stays_live is (name == "prepare_data"), "the page of finetune's run stood still, the other's did not"


def test_finetunes_page_lives_to_its_end() -> None:
    assert workflow_size(find_pipeline("finetune")).stays_live


def test_a_ladder_of_three_rungs_and_the_largest_grid_that_preflight_lets_through_are_taken_by_argo() -> None:
    assert workflow_size(find_pipeline("lora_then_sft")).compressed < LIMIT_BYTES
    assert largest_grid(find_pipeline("mix_grid")) >= LARGEST_GRID
    check_grid(LARGEST_GRID)
    with pytest.raises(ConfigError, match=f"{LARGEST_GRID + 1} mixes; a run holds {LARGEST_GRID} at most"):
        check_grid(LARGEST_GRID + 1)


def test_finetunes_nodes_have_under_700_kb() -> None:
    assert workflow_size(find_pipeline("finetune")).plain_nodes < 700_000


def test_a_grid_of_twenty_points_is_taken_with_images_by_their_digests_in_a_registry(tmp_path: Path) -> None:
    text = find_pipeline("mix_grid").read_text()
    for part in ("data", "train", "evaluate"):
        digest = hashlib.sha256(part.encode()).hexdigest()
        name = f"111122223333.dkr.ecr.us-east-1.amazonaws.com/mixtune-python-{part}@sha256:{digest}"
        text = re.sub(rf"image: mixtune-python-{part}:\S+", f"image: {name}", text)
    pinned = tmp_path / "mix_grid.yaml"
    pinned.write_text(text)
    assert workflow_size(pinned, 20).compressed < LIMIT_BYTES


def test_the_largest_grid_is_the_last_one_that_argo_takes() -> None:
    path = find_pipeline("mix_grid")
    points = largest_grid(path)
    assert workflow_size(path, points).compressed < LIMIT_BYTES * 1.01
    assert workflow_size(path, points + 2).compressed > LIMIT_BYTES * 0.99
