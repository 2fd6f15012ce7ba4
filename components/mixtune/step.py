"""Run one component's function by KFP's executor: `python -m mixtune.step kfp.dsl.executor_main train.train INPUT`.

A component's own YAML carries its source; a compiled pipeline names the component only, whose source is in the image:
Argo would repeat it some ten times in the run's object. KFP's local runner wants a command that names the executor.
"""

import ast
import contextlib
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from mixtune import storage
from mixtune.errors import ConfigError, DataError, MixtuneError, StorageError, explain_system
from mixtune.processes import explain_memory

ENVIRONMENT = ("/etc/mixtune/env", "/etc/mixtune/secrets")
"""Where a pod mounts the namespace's ConfigMap `mixtune-env` and secret `mixtune-secrets`: a file for each key."""
HEADER = "import kfp\nfrom kfp import dsl\nfrom kfp.dsl import *\nfrom typing import *\n\n"
"""What KFP itself puts before the source of a component."""


def read_module(component: str) -> str:
    """Return a component's function (`train.train`), without its decorator, as KFP's compiler writes it.

    Raises:
        KeyError: There is no such component.
    """
    room, name = component.split(".")
    source = (Path(__file__).parent / room / "component.py").read_text(encoding="utf-8")
    functions = {item.name: item for item in ast.parse(source).body if isinstance(item, ast.FunctionDef)}
    function = functions[name]
    lines = source.splitlines(keepends=True)[function.lineno - 1 : function.end_lineno]
    return HEADER + "".join(lines)


def read_environment(folders: Sequence[str] = ENVIRONMENT) -> None:
    """Make environment variables of the files of mounted ConfigMaps and secrets; a folder may be missing."""
    for folder in map(Path, folders):
        for file in sorted(folder.iterdir()) if folder.is_dir() else ():
            if file.is_file() and not file.name.startswith("."):
                os.environ[file.name] = file.read_text(encoding="utf-8").strip()


@contextlib.contextmanager
def refuse_once(executor_input: str) -> Iterator[None]:
    """Let bad input fail a task at once when it is tried again: Argo repeats a task whatever its error.

    All attempts of a task have the same output places, so the first leaves its reason beside them.

    Raises:
        ConfigError: An earlier attempt was refused.
    """
    unreachable = (StorageError, OSError)
    launched = json.loads(executor_input)
    places = [item["artifacts"][0]["uri"] for item in launched.get("outputs", {}).get("artifacts", {}).values()]
    if not places or not storage.is_s3(places[0]):
        yield
        return
    note, earlier = storage.join(places[0].rpartition("/")[0], "refused.json"), ""
    with contextlib.suppress(*unreachable):
        storage.configure_storage(launched.get("inputs", {}).get("parameterValues", {}).get("storage", {}))
        earlier = storage.read_json(note) if storage.file_exists(note) else ""
    if earlier:
        raise ConfigError(f"{earlier} (said by the first attempt, whose input this one has)")
    try:
        yield
    except (ConfigError, DataError) as error:
        with contextlib.suppress(*unreachable):
            storage.write_json(note, str(error))
        raise


@contextlib.contextmanager
def explained(component: str = "") -> Iterator[None]:
    """Raise an error with the way out in place of what the system refuses: a full disk, a limit, a right, memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MixtuneError) or not (way := explain_memory(error)):
            raise
        raise MixtuneError(f"{component} ran out of memory ({str(error) or 'MemoryError'}); {way}") from error
    except OSError as error:
        if error.errno:  # else a library's own
            raise StorageError(explain_system(error)) from error
        raise


def run(executor: str, component: str, executor_input: str) -> None:
    """Run a component's function (`train.train`) on what the launcher hands in, by the module of KFP's executor."""
    read_environment()
    os.environ["_KFP_RUNTIME"] = "true"
    with explained(component), tempfile.TemporaryDirectory() as folder, refuse_once(executor_input):
        module = Path(folder) / "component.py"
        module.write_text(read_module(component), encoding="utf-8")
        sys.argv = [executor, "--component_module_path", str(module)]
        sys.argv += ["--function_to_execute", component.partition(".")[2], "--executor_input", executor_input]
        importlib.import_module(executor).executor_main()


if __name__ == "__main__":
    run(*sys.argv[1:])
