"""A run on this machine: what it shows, how it ends, what it leaves and how it is taken up again."""

import io
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from kfp import components

import mixtune
from mixtune import storage
from mixtune.commands.arguments import find_pipeline
from mixtune.commands.local import supervisor
from mixtune.commands.local.run import drop_retries
from mixtune.commands.local.task_log import TaskLog
from mixtune.commands.local.task_processes import INPUT, TaskRunner
from mixtune.commands.local.use_model import check_new, place_model
from mixtune.commands.local.work_dir import FINISHED, INTERRUPTED, RunRecord, WorkDir, source_digest
from mixtune.commands.runs import describe_runs
from mixtune.errors import ConfigError

from ..limits import limited

DUMP = """[KFP Executor 2026-11-24 02:23:43,373 INFO]: Got executor_input:
{
    "inputs": {
        "artifacts": {}
    }
}
"""
TRACEBACK = """Traceback (most recent call last):
  File "x.py", line 1, in <module>
    run()
mixtune.errors.DataError: train.csv line 3: two things:
- no column 'text'
- no column 'label'
"""


class Screen:
    """A log of tasks, and what a person sees of it."""

    def __init__(self) -> None:
        self.text = io.StringIO()
        self.log = TaskLog(self.text, io.StringIO())
        self.runner = TaskRunner(self.log, {}, "alone")

    @property
    def lines(self) -> list[str]:
        return self.text.getvalue().splitlines()

    def show(self, label: str, text: str, exit_code: int) -> None:
        task = self.log.begin(label)
        for line in text.splitlines():
            self.log.line(task, line + "\n")
        self.log.end(task, exit_code)


@pytest.fixture
def screen() -> Screen:
    return Screen()


def test_a_task_shows_its_name_and_its_own_lines_and_no_dumps(screen: Screen) -> None:
    screen.show("evaluate-candidate", f"{DUMP}    \nmmlu: 57 of 57 subjects\nwebhook: none\n", 0)
    assert screen.lines[:2] == ["evaluate-candidate ...", "    mmlu: 57 of 57 subjects"]
    assert screen.lines[2].startswith("evaluate-candidate: done in ")
    assert len(screen.lines) == 3


def test_tasks_that_run_at_once_put_their_names_before_their_lines_and_count_their_own_time(screen: Screen) -> None:
    tasks = [screen.log.begin(f"train {percent} %") for percent in (75, 50)]
    for step in (1, 2):
        for task in tasks:
            screen.log.line(task, f"step {step}/9 loss 1.0 grad_norm 1.0 lr 1.0e-05 tokens/s 10\n")
    assert screen.lines[2].startswith("    train 75 %: step 1/9 loss")
    assert screen.lines[4].startswith("    train 75 %: step 2/9 loss") and screen.lines[4].endswith(" s left")
    screen.log.end(tasks[0], 0)
    screen.log.line(tasks[1], "the last one speaks for itself\n")
    assert screen.lines[-1] == "    the last one speaks for itself"
    assert tasks[1].place == "step 2 of 9"


@pytest.mark.parametrize(
    ("printed", "exit_code", "cause"),
    [
        (TRACEBACK, 1, "train.csv line 3: two things:\n- no column 'text'\n- no column 'label'"),
        (
            "".join(
                f"[rank0]: {line}\n" for line in TRACEBACK.replace("mixtune.errors.DataError", "KeyError").split("\n")
            ),
            1,
            "KeyError: train.csv line 3: two things:",
        ),
        (
            "Traceback (most recent call last):\nsafetensors_rust.SafetensorError: header too small\n",
            1,
            "header too small",
        ),
        ("loading\n", 137, "killed, most likely for memory: this machine, or its container, has "),
        (
            TRACEBACK.replace("mixtune.errors.DataError", "concurrent.futures.process.BrokenProcessPool"),
            1,
            "killed, most",
        ),
        ("loading\n", 7, "it ended with exit code 7, without a word"),
    ],
)
def test_a_task_that_fails_says_why_in_its_own_words(screen: Screen, printed: str, exit_code: int, cause: str) -> None:
    screen.show("sanitize", printed, exit_code)
    screen.show("clean-up", TRACEBACK.replace("two things", "another"), 1)
    assert cause in screen.log.error and "Traceback" not in screen.log.error
    assert screen.log.failed == "sanitize"
    assert "sanitize: FAILED" in screen.lines


COUNTS = """
import json, pathlib, sys
part = pathlib.Path(json.loads(sys.argv[2])["outputs"]["outputFile"]).with_name("parts")
part.write_text((part.read_text() if part.exists() else "") + ".")
"""


def test_what_a_task_left_is_gone_on_from_by_the_same_inputs_alone(screen: Screen, tmp_path: Path) -> None:
    folder = tmp_path / "python3 in its name" / "train"
    for seed, parts in ((1, "."), (1, ".."), (2, "."), (2, "..")):
        given = {"inputs": {"seed": seed}, "outputs": {"outputFile": str(folder / "executor_output.json")}}
        words = ["sh", "-c", f'exec python3 -c {shlex.quote(COUNTS)} "$0" "$@"', INPUT, json.dumps(given)]
        assert screen.runner.run_command("train", words, {}) == 0
        assert (folder / "parts").read_text() == parts


def test_half_of_a_file_that_a_killed_start_left_goes_before_the_next(screen: Screen, tmp_path: Path) -> None:
    folder = tmp_path / "sanitize"
    given = {"inputs": {}, "outputs": {"outputFile": str(folder / "executor_output.json")}}
    words = [sys.executable, "-c", COUNTS, INPUT, json.dumps(given)]
    assert screen.runner.run_command("sanitize", words, {}) == 0
    for name in (".pools.k3jx9a", "data/pools/.train-00000.jsonl.zst.4711", "data/checkpoints/.writing-x/weights"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("half")
    assert screen.runner.run_command("sanitize", words, {}) == 0
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert left == {".inputs", "parts"} and (folder / "parts").read_text() == ".."


def test_what_a_task_keeps_for_a_while_goes_with_it(screen: Screen, tmp_path: Path) -> None:
    code = "import tempfile, pathlib, os; print(tempfile.mkdtemp(), flush=True); os.kill(os.getpid(), 9)"
    assert screen.runner.run_command("train", [sys.executable, "-c", code], {}) == 137
    temporary = Path(screen.lines[1].strip())
    assert temporary.parent.name.startswith("mixtune-task-") and not temporary.parent.exists()


def test_a_run_goes_on_when_nobody_reads_what_it_shows_any_more() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    log = io.StringIO()
    with open(writing, "w") as screen:
        shown = TaskLog(screen, log)
        task = shown.begin("sanitize")
        shown.line(task, "chat: 60 rows\n")
        shown.end(task, 0)
        print("verdict: pass", file=screen, flush=True)
    assert shown.finished == ["sanitize"] and "sanitize | chat: 60 rows" in log.getvalue()


SAVES = """
import os, pathlib, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
def save(*_): pathlib.Path(sys.argv[1]).write_text("saved"); sys.exit(1)
signal.signal(signal.SIGTERM, save)
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""
ASKER = f"""
import subprocess, sys
script = [sys.executable, "-I", "-S", {supervisor.__file__!r}, sys.executable, "-c", {SAVES!r}, sys.argv[1]]
process = subprocess.Popen(script, stdin=subprocess.PIPE, start_new_session=True)
process.wait()
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "State:\tZ" not in status.read_text()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_task_and_all_that_it_started_end_with_the_run_even_by_kill_9_and_may_save_first(
    number: int, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    (temporary := tmp_path / "temporary").mkdir()
    asker = subprocess.Popen(
        [sys.executable, "-c", ASKER, str(mark)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, supervisor.TEMPORARY: str(temporary)},
    )
    assert asker.stdout
    pids = [int(word) for word in asker.stdout.readline().split()]
    assert all(map(alive, pids))
    asker.send_signal(number)
    asker.wait()
    deadline = time.monotonic() + 20
    while (any(map(alive, pids)) or temporary.exists()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not temporary.exists()
    assert not any(map(alive, pids))
    assert mark.read_text() == "saved"


def test_retries_for_lost_pods_are_not_waited_for_on_a_laptop() -> None:
    component = components.load_component_from_file(str(find_pipeline("finetune")))
    graph = component.component_spec.implementation.graph
    dags = [graph.root.dag, *(item.dag for item in graph.components.values())]
    assert any(task.HasField("retry_policy") for dag in dags for task in dag.tasks.values())
    drop_retries(component)
    assert not any(task.HasField("retry_policy") for dag in dags for task in dag.tasks.values())


def begin(work: WorkDir, run_id: str, **values: object) -> None:
    fields = {"pipeline": "finetune", "code": source_digest(), "began": time.time(), "seconds": 75.0, **values}
    work.begin(run_id, RunRecord(**fields), {"base_model": "b", "customer_uri": "c", "general_pools": []})  # type: ignore[arg-type]


def test_a_run_whose_process_is_gone_was_interrupted_and_is_taken_up_by_the_same_command(tmp_path: Path) -> None:
    work = WorkDir(tmp_path)
    arguments = {"base_model": "b", "customer_uri": "c", "general_pools": []}
    assert work.find_interrupted("finetune", arguments) == ""
    begin(work, "finetune-1")
    with work.at_work("finetune-1"):
        assert work.record("finetune-1").status == "running"  # type: ignore[union-attr]
        with pytest.raises(ConfigError, match="is at work in another process"), work.at_work("finetune-1"):
            pass
    assert work.record("finetune-1").status == INTERRUPTED  # type: ignore[union-attr]
    assert work.find_interrupted("finetune", arguments) == "finetune-1"
    assert work.find_interrupted("mix_grid", arguments) == ""
    assert work.find_interrupted("finetune", {**arguments, "base_model": "another"}) == ""
    begin(work, "finetune-1", code="older code")
    assert work.find_interrupted("finetune", arguments) == ""
    begin(work, "finetune-1", status=FINISHED)
    assert work.find_interrupted("finetune", arguments) == ""


def test_a_run_waits_for_tasks_that_its_killed_process_left_saving(tmp_path: Path) -> None:
    work = WorkDir(tmp_path)
    begin(work, "finetune-1")
    with work.tasks_at_work("finetune-1") as lock:
        saving = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock])
    begun = threading.Event()

    def go_on() -> None:
        with work.tasks_at_work("finetune-1"):
            begun.set()

    thread = threading.Thread(target=go_on)
    thread.start()
    assert not begun.wait(0.3)
    saving.communicate(b"\n")
    assert begun.wait(20)
    thread.join()


def test_a_full_disk_leaves_what_a_run_was_started_with(tmp_path: Path) -> None:
    work = WorkDir(tmp_path)
    begin(work, "finetune-1")
    with limited(resource.RLIMIT_FSIZE, 10), pytest.raises(OSError, match=r"File too large.*arguments\.json"):
        begin(work, "finetune-1")
    assert work.arguments("finetune-1")["base_model"] == "b" and work.record("finetune-1")


def test_a_full_disk_leaves_where_the_pools_of_a_run_lie(tmp_path: Path) -> None:
    work = WorkDir(tmp_path)
    begin(work, "finetune-1")
    work.keep_pools("finetune-1", {"sanitize-customer": "/a"})
    with limited(resource.RLIMIT_FSIZE, 10), pytest.raises(OSError, match=r"File too large.*pools\.json"):
        work.keep_pools("finetune-1", {"sanitize-customer": "/another"})
    assert work.pools("finetune-1") == {"sanitize-customer": "/a"}


def test_a_model_that_does_not_fit_is_not_there_and_its_place_can_be_taken_again(tmp_path: Path) -> None:
    (source := tmp_path / "model").mkdir()
    contents = {"config.json": b"{}", "model.safetensors": bytes(50_000)}
    for name, data in contents.items():
        (source / name).write_bytes(data)
    place = tmp_path / "out"
    with limited(resource.RLIMIT_FSIZE, 10_000), pytest.raises(OSError, match="File too large"):
        place_model(source, str(place))
    assert not place.exists()
    check_new(str(place))
    place_model(source, str(place))
    assert {file.name: file.read_bytes() for file in place.iterdir()} == contents
    assert {path.name for path in tmp_path.iterdir()} == {"model", "out"}


def test_what_came_to_a_place_in_s3_while_a_model_was_made_stays_there(tmp_path: Path, bucket: str) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    with storage.open_write(f"{bucket}/model/card.md") as stream:
        stream.write(b"another's")
    place_model(tmp_path, f"{bucket}/model")
    assert [entry.path for entry in storage.list_files(f"{bucket}/model")] == ["card.md", "config.json"]


def test_runs_are_listed_with_status_time_and_what_the_pipeline_takes_by_itself(tmp_path: Path) -> None:
    work = WorkDir(tmp_path)
    begin(work, "finetune-1", status=INTERRUPTED, place="train, step 62 of 400")
    begin(work, "finetune-2", status="failed")
    text = describe_runs(work, 20, everything=False)
    assert "interrupted in train, step 62 of 400  1 min 15 s  50 %  lora" in text
    assert "1 that failed are left out; --all lists them" in text and "finetune-2" not in text
    assert "finetune-2" in describe_runs(work, 20, everything=True)
    with pytest.raises(ConfigError, match="there is no such folder"):
        describe_runs(WorkDir(tmp_path / "nosuch"), 20, everything=False)


def test_the_cache_belongs_to_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(mixtune.__file__).parent
    copy = tmp_path / "mixtune"
    shutil.copytree(here, copy, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    monkeypatch.setattr(mixtune, "__file__", str(copy / "__init__.py"))
    before = WorkDir(tmp_path).cache_dir
    assert before.name == source_digest()
    (copy / "sanitize" / "markers.py").write_text("# other rules\n")
    assert WorkDir(tmp_path).cache_dir != before
