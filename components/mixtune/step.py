"""Run one component's function by KFP's executor: `python -m mixtune.step kfp.dsl.executor_main train.train INPUT`.

A component's own YAML carries its source; a compiled pipeline names the component only, whose source is in the image:
Argo would repeat it some ten times in the run's object. KFP's local runner wants a command that names the executor.
"""

import ast
import importlib
import os
import sys
import tempfile
from pathlib import Path

HEADER = "import kfp\nfrom kfp import dsl\nfrom kfp.dsl import *\nfrom typing import *\n\n"
"""What KFP itself puts before the source of a component."""


def write_module(component: str, folder: Path) -> Path:
    """Write a component's function, without its decorator, and return the module's path.

    Args:
        component: Room and function, such as `train.train`.
        folder: Where the module goes.

    Raises:
        KeyError: There is no such component.
    """
    room, name = component.split(".")
    source = (Path(__file__).parent / room / "component.py").read_text(encoding="utf-8")
    functions = {item.name: item for item in ast.parse(source).body if isinstance(item, ast.FunctionDef)}
    function = functions[name]
    lines = source.splitlines(keepends=True)[function.lineno - 1 : function.end_lineno]
    path = folder / "component.py"
    path.write_text(HEADER + "".join(lines), encoding="utf-8")
    return path


def run(executor: str, component: str, executor_input: str) -> None:
    """Run a component's function on what the launcher hands in.

    Args:
        executor: The module of KFP's executor.
        component: Room and function, such as `train.train`.
        executor_input: Inputs and places of outputs, as JSON.
    """
    os.environ["_KFP_RUNTIME"] = "true"
    with tempfile.TemporaryDirectory() as folder:
        module = write_module(component, Path(folder))
        sys.argv = [executor, "--component_module_path", str(module)]
        sys.argv += ["--function_to_execute", component.partition(".")[2], "--executor_input", executor_input]
        importlib.import_module(executor).executor_main()


if __name__ == "__main__":
    run(*sys.argv[1:])
