"""Steps that are forked from a process with their libraries loaded."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import mixtune
from mixtune.commands.local import task_processes
from mixtune.commands.local.warm_steps import LIBRARIES, StepServer, as_step

STOP = {"action": "stop", "customer_data_percent": 50.0, "train_options": {}, "ladder_uri": "s3://bucket/ladder"}


def words(component: str, folder: Path, **values: Any) -> list[str]:
    """Arguments of a step whose outputs go to a folder."""
    outputs = {name: {"outputFile": str(folder / name)} for name in STOP}
    launched = {
        "inputs": {"parameterValues": values},
        "outputs": {"parameters": outputs, "outputFile": str(folder / "metadata.json")},
    }
    return ["kfp.dsl.executor_main", component, json.dumps(launched)]


@pytest.fixture(scope="module")
def server() -> Iterator[StepServer]:
    server = StepServer()
    yield server
    server.close()


def run(server: StepServer, component: str, folder: Path, **values: Any) -> tuple[int, str]:
    """Exit code of a step, and what it printed."""
    step = server.start(words(component, folder, **values), os.environ)
    with step.stdin, step.stdout:
        text = step.stdout.read()
    return step.wait(), text


def test_what_is_loaded_ahead_is_there_for_components_that_are_there() -> None:
    modules = {library for libraries in LIBRARIES.values() for library in libraries}
    assert all(map(importlib.util.find_spec, modules))
    places = [Path(mixtune.__file__).parent / f"{component.replace('.', '/')}.yaml" for component in LIBRARIES]
    assert all(place.is_file() for place in places)


def test_a_component_in_a_pipeline_of_ones_own_is_a_step_of_ours_as_long_as_its_source_is() -> None:
    shells = sorted(Path(mixtune.__file__).parent.glob("*/component.py"))
    files = [file for shell in shells for file in shell.parent.glob("*.yaml")]
    assert len(files) > 20
    for file in files:
        spec = next(yaml.load_all(file.read_text(), yaml.CSafeLoader))
        (executor,) = (item["container"] for item in spec["deploymentSpec"]["executors"].values())
        parts: list[str] = [*executor["command"], *executor["args"]]
        (shell, option, script, source), rest = parts[:4], parts[4:]
        ours = ["python3", "-m", "mixtune.step", "kfp.dsl.executor_main", f"{file.parent.name}.{file.stem}", "{{$}}"]
        assert as_step([shell, option, script, source, *rest]) == ours
        for changed in ([script, f"{source}\n    x = 1"], [f"pip install x; {script}", source], ["exit 1", source]):
            assert as_step([shell, option, *changed, *rest]) == [shell, option, *changed, *rest]
    assert as_step(["python3", "-c", "print()"]) == ["python3", "-c", "print()"]


def test_sanitize_has_no_tokenizer_loaded_where_no_base_model_is_named() -> None:
    code = "import sys; from mixtune.commands.local.warm_steps import load_libraries as load"
    for base_model in ("", "b"):
        values = json.dumps({"inputs": {"parameterValues": {"base_model": base_model}}})
        code += f"; load('sanitize.sanitize', {values!r}); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\nTrue\n"


def test_a_step_prints_writes_its_outputs_and_ends_with_its_code(server: StepServer, tmp_path: Path) -> None:
    code, text = run(server, "choose.go_on", tmp_path, **STOP)
    assert code == 0 and "Wrote executor output file to" in text
    assert json.loads((tmp_path / "metadata.json").read_text())["parameterValues"] == STOP
    code, text = run(server, "choose.go_on", tmp_path)
    assert code == 1 and "TypeError: go_on() missing 4 required positional arguments" in text


def test_steps_run_side_by_side(server: StepServer, tmp_path: Path) -> None:
    steps = {
        name: server.start(words("choose.go_on", tmp_path / name, **{**STOP, "action": name}), os.environ)
        for name in ("lora", "sft")
    }
    for name, step in steps.items():
        with step.stdin, step.stdout:
            assert step.stdout.read()
        assert step.wait() == 0
        assert json.loads((tmp_path / name / "metadata.json").read_text())["parameterValues"]["action"] == name


def test_a_step_ends_when_its_pipe_is_closed(server: StepServer, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metadata.json")  # nobody reads it: the step waits for ever
    step = server.start(words("choose.go_on", tmp_path, **STOP), os.environ)
    with step.stdout:
        while "Got executor_input" not in step.stdout.readline():
            pass
        step.stdin.close()
        step.stdout.read()
    assert step.wait() == 128 + signal.SIGTERM


def test_a_step_whose_pipe_is_closed_before_it_runs_does_not_run(server: StepServer, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metadata.json")  # nobody reads it: a step that runs waits for ever
    step = server.start(words("choose.go_on", tmp_path, **STOP), os.environ)
    step.stdin.close()
    with step.stdout:
        assert step.stdout.read() == ""
    assert step.wait() == 128 + signal.SIGTERM


ASKER = """
import json, os, sys, time
from mixtune.commands.local.warm_steps import StepServer
step = StepServer().start(json.loads(sys.argv[1]), os.environ)
while "Got executor_input" not in step.stdout.readline():
    pass
os.kill(os.getpid(), 9)
"""


def test_a_run_that_is_killed_leaves_no_traceback_of_the_step_behind(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metadata.json")  # nobody reads it: the step waits for ever
    command = [sys.executable, "-c", ASKER, json.dumps(words("choose.go_on", tmp_path, **STOP))]
    asker = subprocess.run(command, capture_output=True, text=True, timeout=60)  # until its last descendant is gone
    assert (asker.returncode, asker.stderr) == (-signal.SIGKILL, "")


def test_a_server_that_is_gone_is_an_error(tmp_path: Path) -> None:
    server = StepServer()
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    with pytest.raises(OSError, match=r"pipe|reset"):
        server.start(words("choose.go_on", tmp_path, **STOP), os.environ)
    server.close()


def test_a_steps_input_stays_as_it_is_whatever_it_says(tmp_path: Path) -> None:
    *step, given = words("choose.go_on", tmp_path / "task", **{**STOP, "ladder_uri": "python3 ladder"})
    command = ["python3", "-m", "mixtune.step", *step, given]
    assert task_processes._with_this_python(command) == [sys.executable, "-m", "mixtune.step", *step, given]
    task_processes._prepare_folder(command)
    (tmp_path / "task" / "part").touch()
    task_processes._prepare_folder(command)
    assert (tmp_path / "task" / "part").exists(), "the same inputs: it is gone on from"
    content = json.loads(given)
    turned = {name: dict(reversed(item.items())) for name, item in reversed(content.items())}
    turned["inputs"]["parameterValues"] = dict(reversed(content["inputs"]["parameterValues"].items()))
    other = json.dumps(turned)
    assert other != given
    task_processes._prepare_folder([*command[:-1], other])
    assert (tmp_path / "task" / "part").exists(), "their order says nothing"
    task_processes._prepare_folder([*command[:-1], given.replace("stop", "sft")])
    assert not (tmp_path / "task" / "part").exists()
