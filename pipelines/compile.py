"""Compile every pipeline and component to the YAML files that are committed: `make compile`."""

import importlib
import shutil
from pathlib import Path

from kfp import compiler, dsl

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "components" / "mixtune"


def components() -> dict[Path, dsl.base_component.BaseComponent]:
    """The shells, by the file that each is compiled to."""
    found = {}
    for module in sorted(PACKAGE.glob("*/component.py")):
        part = module.parent.name
        shells = vars(importlib.import_module(f"mixtune.{part}.component"))
        for name, value in shells.items():
            if isinstance(value, dsl.base_component.BaseComponent):
                found[module.with_name(f"{name}.yaml")] = value
    return found


def pipelines() -> dict[Path, dsl.base_component.BaseComponent]:
    """The pipelines, by the file that each is compiled to; a module's pipeline has its name."""
    found = {}
    for module in sorted((ROOT / "pipelines").glob("*.py")):
        if module.stem not in ("compile", "compiled", "rules", "steps", "workflow_size", "__init__"):
            found[module.with_suffix(".yaml")] = getattr(
                importlib.import_module(f"pipelines.{module.stem}"), module.stem
            )
    return found


def main() -> None:
    """Write all the files; the package carries copies of the pipelines."""
    for path, component in {**components(), **pipelines()}.items():
        compiler.Compiler().compile(component, str(path))
        print(path.relative_to(ROOT))
    for path in pipelines():
        shutil.copyfile(path, PACKAGE / "compiled" / path.name)


if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(ROOT))
    main()
