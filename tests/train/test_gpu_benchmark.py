"""The acceptance script for a GPU runs, line by line, on a CPU at tiny sizes."""

import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import gpu  # noqa: E402
from benchmarks.gpu_checks.bench import CHECKS, Bench, run_check  # noqa: E402

SLOW = (8, 11, 12, 16)
QUICK = [number for number in sorted(CHECKS) if number not in SLOW]


def test_there_are_28_checks_in_three_parts() -> None:
    assert sorted(CHECKS) == list(range(1, 29))
    assert {part for part, _, _ in CHECKS.values()} == set(gpu.PARTS)


@pytest.mark.parametrize("number", [*QUICK, *(pytest.param(number, marks=pytest.mark.slow) for number in SLOW)])
def test_a_check_runs_on_a_cpu(number: int, tmp_path: Path) -> None:
    outcome = run_check(number, Bench(device=torch.device("cpu"), tiny=True, scratch=tmp_path))
    assert outcome.status in ("pass", "recorded"), outcome.trouble or outcome.expectations


def test_results_are_a_table_and_json_and_a_failed_check_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(bench: Bench) -> None:
        bench.expect("gap, below 1", 2.0, False)
        raise RuntimeError("no kernel image is available")

    monkeypatch.setitem(CHECKS, 3, ("numerics", "no leak", wrong))
    status = gpu.main(["--tiny", "--part", "numerics", "--only", "1", "3", "5", "--out", str(tmp_path)])
    assert status == 1
    checks = json.loads((tmp_path / "gpu-numerics.json").read_text())["checks"]
    assert [item["status"] for item in checks] == ["recorded", "FAIL", "pass"]
    assert (
        "| 3 | no leak | FAIL | gap, below 1 2 (!); RuntimeError: no kernel image"
        in (tmp_path / "gpu-numerics.md").read_text()
    )
    assert "3 checks, 1 failed" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    assert "no GPU here" in capsys.readouterr().err
