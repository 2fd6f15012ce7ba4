"""Compile every pipeline and component to the YAML files of the package: `make compile`."""

import importlib
import sys
from pathlib import Path

import yaml
from kfp import compiler
from kfp.dsl.base_component import BaseComponent

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from pipelines.rules import broken_rules  # noqa: E402
from pipelines.workflow_size import workflow_size  # noqa: E402

PACKAGE = ROOT / "components" / "mixtune"
EXECUTE = (
    "module=$(python3 -m mixtune.step {component})\n"
    '_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main --component_module_path "$module" "$@"\n'
)
"""What a step runs: KFP's executor, with the component's function out of the image."""
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
    rooms = {path.stem: path.parent.name for path in components()}
    for path, component in {**components(), **pipelines()}.items():
        target = folder / path.relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        compiler.Compiler().compile(component, str(target))
        paths.append(target)
        if path.parent.name == "compiled":
            _slim(target, rooms)
            if broken := broken_rules(target):
                raise SystemExit(
                    f"{path.stem} breaks rules of Kubeflow's back end (pipelines/rules.py):\n" + "\n".join(broken)
                )
            print(f"{path.stem}: {workflow_size(target)}")
    return paths


def _slim(path: Path, rooms: dict[str, str]) -> None:
    """Take descriptions and sources of the components out of a compiled pipeline.

    Argo repeats a task's component some ten times in the run's object; above 1 MiB the run's page stands still. The
    components' own YAML keeps both, and the parameters of the pipeline keep their descriptions.

    Args:
        path: The file, which is written anew.
        rooms: Folder of each component, by its name.
    """
    text = path.read_text()
    header = text[: text.index("components:")]
    spec, *platform = yaml.safe_load_all(text)
    for component in spec["components"].values():
        for definitions in (component.get("inputDefinitions", {}), component.get("outputDefinitions", {})):
            for item in [*definitions.get("parameters", {}).values(), *definitions.get("artifacts", {}).values()]:
                item.pop("description", None)
    for executor in spec["deploymentSpec"]["executors"].values():
        container = executor["container"]
        name = container["args"][container["args"].index("--function_to_execute") + 1]
        container["command"] = ["sh", "-ec", EXECUTE.format(component=f"{rooms[name]}.{name}"), "sh"]
    path.write_text(header + yaml.dump_all([spec, *platform], sort_keys=True))


if __name__ == "__main__":
    for path in compile_all():
        print(path.relative_to(ROOT))
