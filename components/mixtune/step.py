"""Print the path of a module that holds one component's function alone: `python -m mixtune.step train.train`.

KFP's executor loads a component from such a module. A component's own YAML carries its source; a compiled pipeline
names the component only, whose source is in the image: Argo would repeat it some ten times in the run's object.
"""

import ast
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


if __name__ == "__main__":
    print(write_module(sys.argv[1], Path(tempfile.mkdtemp())))
