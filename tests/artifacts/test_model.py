"""What a training leaves: a model, or the reason why there is none."""

from pathlib import Path

import pytest

from mixtune.artifacts.model import FailedTraining, TrainedModel, find_manifest, parse_model, read_model
from mixtune.errors import DataError

from ..trainings import FIGURES, write_model_manifest


@pytest.mark.parametrize(
    "outcome",
    [
        TrainedModel("s3://b/data/model#d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1"),
        TrainedModel(""),
        FailedTraining("step 3: the loss: nan"),
    ],
    ids=str,
)
def test_an_outcome_comes_back_from_its_text(outcome: TrainedModel | FailedTraining) -> None:
    assert parse_model(str(outcome)) == outcome


def test_a_folder_whose_name_begins_alike_is_no_failure() -> None:
    assert parse_model("failed/model#d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1") == TrainedModel(
        "failed/model#d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1"
    )


def test_a_manifest_is_found_by_its_models_uri(tmp_path: Path) -> None:
    write_model_manifest(str(tmp_path / "model"), seconds=90.0)
    manifest = find_manifest(f"{tmp_path}/data/model#d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1")
    assert manifest and manifest.figures and manifest.figures.seconds == 90.0
    assert find_manifest(f"{tmp_path}/elsewhere/model#d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1") is None
    assert FIGURES.metrics()["num_gpus"] == 8 and "bytes_per_token" not in FIGURES.metrics()


def test_a_step_that_did_not_finish_left_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no manifest; the step that makes this model has not finished"):
        read_model(str(tmp_path / "model"))
