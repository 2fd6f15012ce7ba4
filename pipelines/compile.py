"""Compile every pipeline and component to the YAML files of the package: `make compile`."""

import importlib
import sys
from pathlib import Path

from kfp import compiler
from kfp.dsl.base_component import BaseComponent

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from pipelines.rules import broken_rules  # noqa: E402
from pipelines.slim import slim  # noqa: E402

PACKAGE = ROOT / "components" / "mixtune"
PIPELINES = (
    "compare_models", "evaluate_only", "find_mix", "finetune", "lora_then_sft", "mix_grid", "prepare_data", "restore",
)  # fmt: skip


def components() -> dict[Path, BaseComponent]:
    """Return the shells by the file that each is compiled to."""
    shells = {}
    for module in sorted(PACKAGE.glob("*/component.py")):
        for name, value in vars(importlib.import_module(f"mixtune.{module.parent.name}.component")).items():
            if isinstance(value, BaseComponent):
                shells[module.with_name(f"{name}.yaml")] = value
    return shells


def pipelines() -> dict[Path, BaseComponent]:
    """Return the pipelines by the file that each is compiled to."""
    return {
        PACKAGE / "compiled" / f"{name}.yaml": getattr(importlib.import_module(f"pipelines.{name}"), name)
        for name in PIPELINES
    }


def compile_all(folder: Path = PACKAGE) -> list[Path]:
    """Write all files under a folder, and return their paths.

    Raises:
        SystemExit: A pipeline breaks a rule of Kubeflow's back end.
    """
    paths = []
    rooms = {path.stem: path.parent.name for path in components()}
    for path, component in {**components(), **pipelines()}.items():
        target = folder / path.relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        compiler.Compiler().compile(component, str(target))
        paths.append(target)
        if path.parent.name == "compiled":
            slim(target, rooms)
            if broken := broken_rules(target):
                raise SystemExit(
                    f"{path.stem} breaks rules of Kubeflow's back end (pipelines/rules.py):\n" + "\n".join(broken)
                )
    return paths


if __name__ == "__main__":
    for path in compile_all():
        print(path.relative_to(ROOT))
