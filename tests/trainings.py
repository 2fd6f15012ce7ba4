"""What trainings leave, made without one."""

from dataclasses import replace
from typing import Any

from mixtune.artifacts.model import ModelManifest, TrainingFigures
from mixtune.artifacts.typed_json import write_artifact

FIGURES = TrainingFigures(
    num_steps=40,
    kept_step=40,
    first_loss=2.5,
    final_loss=1.5,
    mean_tokens_per_second=40_000.0,
    tokens_per_second_per_gpu=5_000.0,
    num_processes=8,
    num_gpus=8,
    seconds=600.0,
    peak_memory_bytes=4e10,
)


def write_model_manifest(path: str, **figures: Any) -> None:
    """Write the manifest of a training with some figures of its own."""
    write_artifact(path, ModelManifest(figures=replace(FIGURES, **figures)))
