import io
import logging
import shutil
from pathlib import Path

import pytest

import mixtune
from mixtune.commands.local_runner import TaskLog, WorkDir, cache_hits, source_digest
from mixtune.errors import ConfigError

GOOD = """02:23:43.322 - INFO - Executing task \x1b[96m'evaluate-2'\x1b[0m
02:23:43.322 - INFO - Streamed logs:

    [KFP Executor 2026-11-24 02:23:43,373 INFO]: Loading KFP component "evaluate" from /tmp/x.py (directory "/tmp")
    [KFP Executor 2026-11-24 02:23:43,373 INFO]: Got executor_input:
    {
        "inputs": {
            "artifacts": {}
        }
    }
    mmlu: 57 of 57 subjects
    [KFP Executor 2026-11-24 02:23:43,374 INFO]: Wrote executor output file to /tmp/executor_output.json.

02:23:43.383 - INFO - Task \x1b[96m'evaluate-2'\x1b[0m finished with status \x1b[92mSUCCESS\x1b[0m
02:23:43.383 - INFO - Task \x1b[96m'evaluate-2'\x1b[0m outputs:
    Output: 'pass'
    samples: Dataset( name='samples',
                      uri='/tmp/x',
                      metadata={} )
--------------------------------------------------------------------------------
"""
BAD = """02:23:43.322 - INFO - Executing task 'sanitize'
    Traceback (most recent call last):
      File "x.py", line 1, in <module>
        run()
    mixtune.errors.DataError: train.csv line 3: two things:
    - no column 'text'
    - no column 'label'

02:23:43.383 - ERROR - Task 'sanitize' finished with status FAILURE
"""


def shown(text: str) -> tuple[TaskLog, list[str]]:
    screen = io.StringIO()
    log = TaskLog(screen=screen, log=io.StringIO(), names={"evaluate-2": "evaluate-candidate"})
    for start in range(0, len(text), 7):
        log.write(text[start : start + 7])
    return log, screen.getvalue().splitlines()


def test_a_task_shows_its_name_and_its_own_lines_and_no_dumps() -> None:
    _, lines = shown(GOOD)
    assert lines[0] == "evaluate-candidate ..."
    assert lines[1] == "    mmlu: 57 of 57 subjects"
    assert lines[2].startswith("evaluate-candidate: done in ")
    assert len(lines) == 3


def test_a_failed_task_leaves_its_error_without_the_traceback() -> None:
    log, lines = shown(BAD)
    assert log.error == "train.csv line 3: two things:\n- no column 'text'\n- no column 'label'"
    assert log.failed == "sanitize"
    assert lines == ["sanitize ...", "sanitize: FAILED"]


def test_the_error_of_the_first_task_that_failed_stays_though_others_run_after_it() -> None:
    log, lines = shown(BAD + GOOD + BAD.replace("'sanitize'", "'clean-up'").replace("two things", "another"))
    assert (log.failed, log.error.splitlines()[0]) == ("sanitize", "train.csv line 3: two things:")
    assert lines[-1] == "clean-up: FAILED"


def test_an_error_of_no_kind_we_know_keeps_its_traceback() -> None:
    log, _ = shown(BAD.replace("mixtune.errors.DataError", "KeyError"))
    assert log.error.startswith("Traceback (most recent call last):")
    assert "KeyError: train.csv line 3" in log.error


def test_a_work_folder_that_the_runner_would_rewrite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rewrites 'python3'"):
        WorkDir(tmp_path / "python3.11")


def test_the_cache_belongs_to_the_code(tmp_path: Path) -> None:
    assert WorkDir(tmp_path).cache_dir.name == source_digest()


def test_a_cached_task_shows_one_line() -> None:
    screen = io.StringIO()
    log = TaskLog(screen=screen, log=io.StringIO(), names={"sanitize-2": "sanitize-customer"})
    with cache_hits(log):
        logging.getLogger().info("Task sanitize-2 cache hit (key=0123456789ab); skipping execution.")
        logging.getLogger().info("something else")
    logging.getLogger().info("Task sanitize-2 cache hit (key=0123456789ab); skipping execution.")
    assert screen.getvalue() == "sanitize-customer: from the cache\n"


def test_changed_code_has_another_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(mixtune.__file__).parent
    copy = tmp_path / "mixtune"
    shutil.copytree(here, copy, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    monkeypatch.setattr(mixtune, "__file__", str(copy / "__init__.py"))
    before = WorkDir(tmp_path).cache_dir
    (copy / "sanitize" / "markers.py").write_text("# other rules\n")
    assert WorkDir(tmp_path).cache_dir != before
