"""How large a run's workflow becomes: the model against real runs, and the pipelines against Argo's limit."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mixtune.commands.arguments import find_pipeline

sys.path.insert(0, str(Path(__file__).parents[2]))
from pipelines.workflow_size import LIMIT_BYTES, largest_grid, workflow_size

SMALLER_YET = pytest.mark.xfail(reason="B8: descriptions, docstrings and parameters are still repeated in every node")


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


@SMALLER_YET
def test_finetunes_page_lives_to_its_end() -> None:
    size = workflow_size(find_pipeline("finetune"))
    assert size.plain_nodes < 700_000
    assert size.stays_live


@SMALLER_YET
def test_a_grid_of_twenty_points_and_a_ladder_of_three_rungs_are_taken_by_argo() -> None:
    assert workflow_size(find_pipeline("mix_grid"), points=20).compressed < LIMIT_BYTES
    assert largest_grid(find_pipeline("mix_grid")) >= 20
    assert workflow_size(find_pipeline("lora_then_sft")).compressed < LIMIT_BYTES


def test_the_largest_grid_is_the_last_one_that_argo_takes() -> None:
    path = find_pipeline("mix_grid")
    points = largest_grid(path)
    assert workflow_size(path, points).compressed < LIMIT_BYTES * 1.01
    assert workflow_size(path, points + 2).compressed > LIMIT_BYTES * 0.99
