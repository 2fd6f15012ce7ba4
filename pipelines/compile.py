"""Compile every pipeline and component to the YAML files of the package: `make compile`."""

import ast
import importlib
import sys
from pathlib import Path
from typing import Any

import yaml
from kfp import compiler
from kfp.dsl.base_component import BaseComponent

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from pipelines.rules import broken_rules  # noqa: E402

PACKAGE = ROOT / "components" / "mixtune"
PIPELINES = ("evaluate_only", "finetune", "lora_then_sft", "mix_grid", "prepare_data")


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
    for path, component in {**components(), **pipelines()}.items():
        target = folder / path.relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        compiler.Compiler().compile(component, str(target))
        paths.append(target)
        if path.parent.name == "compiled":
            _slim(target)
            if broken := broken_rules(target):
                raise SystemExit(
                    f"{path.stem} breaks rules of Kubeflow's back end (pipelines/rules.py):\n" + "\n".join(broken)
                )
    return paths


def _slim(path: Path) -> None:
    """Take the descriptions and docstrings of the components out of a compiled pipeline.

    Argo repeats a task's component some ten times in the run's object; above 1 MiB the run's page stands still. The
    components' own YAML keeps them, and so do the pipeline's parameters.
    """
    text = path.read_text()
    header = text[: text.index("components:")]
    spec, *platform = yaml.safe_load_all(text)
    for component in spec["components"].values():
        for definitions in (component.get("inputDefinitions", {}), component.get("outputDefinitions", {})):
            for item in [*definitions.get("parameters", {}).values(), *definitions.get("artifacts", {}).values()]:
                item.pop("description", None)
    for executor in spec["deploymentSpec"]["executors"].values():
        *shell, source = executor["container"]["command"]
        executor["container"]["command"] = [*shell, _without_docstring(source)]
    path.write_text(header + yaml.dump_all([spec, *platform], sort_keys=True))


def _without_docstring(source: str) -> str:
    lines = source.splitlines(keepends=True)
    (function,) = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    docstring: Any = function.body[0]
    return "".join(lines[: docstring.lineno - 1] + lines[docstring.end_lineno :]).replace("\n\n\n", "\n\n")


if __name__ == "__main__":
    for path in compile_all():
        print(path.relative_to(ROOT))
