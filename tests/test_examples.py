"""The examples compile and run."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mixtune import storage
from mixtune.commands.local.run import run_pipeline
from mixtune.commands.local.work_dir import WorkDir
from mixtune.demo.demo_data import World, write_world
from mixtune.errors import MixtuneError

from .serve.conftest import LLAMA_8B, write_proof

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("one_server")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.mark.slow
def test_a_pipeline_of_ones_own_reuses_three_components(world: World, tmp_path: Path) -> None:
    shutil.copyfile(ROOT / "examples" / "support_desk.py", tmp_path / "support_desk.py")
    subprocess.run([sys.executable, "support_desk.py"], cwd=tmp_path, check=True, env={**os.environ})
    tickets = [
        {"question": f"Where is parcel {n}?", "answer": f"In depot {n % 7}.", "status": "open" if n % 3 else "solved"}
        for n in range(90)
    ]
    (tmp_path / "tickets.jsonl").write_text("".join(json.dumps(ticket) + "\n" for ticket in tickets))
    with open(world.general_pools[0]["uri"]) as stream:
        (tmp_path / "general.jsonl").write_text("".join(itertools.islice(stream, 60)))
    arguments = {
        "tickets_uri": str(tmp_path / "tickets.jsonl"),
        "general_uri": str(tmp_path / "general.jsonl"),
        "base_model": str(world.base_model),
        "max_steps": 2,
    }
    work = WorkDir(tmp_path / "work")
    outcome = run_pipeline(tmp_path / "support_desk.yaml", arguments, work)
    adapter = Path(str(outcome.outputs["Output"]).split("#")[0])
    assert (adapter / "adapter_model.safetensors").is_file()
    (kept,) = work.run_dir(outcome.run_id).glob("*/keep-solved/kept")
    assert json.loads(kept.read_text()) == {"kept": 30, "left_out": 60}


@pytest.mark.slow
def test_a_pipeline_of_ones_own_registers_and_serves_what_passed_and_nothing_else(tmp_path: Path) -> None:
    shutil.copyfile(ROOT / "examples" / "release.py", tmp_path / "release.py")
    subprocess.run([sys.executable, "release.py"], cwd=tmp_path, check=True, env={**os.environ})
    for name, config in (("base", LLAMA_8B), ("adapter", {"peft_type": "LORA", "r": 16})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(bytes(9))
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    (tmp_path / "adapter" / "config.json").rename(tmp_path / "adapter" / "adapter_config.json")
    adapter = storage.fingerprint(str(tmp_path / "adapter"))
    arguments = {
        "comparison_uri": write_proof(tmp_path / "proof", adapter),
        "model_uri": adapter,
        "base_model": str(tmp_path / "base"),
        "model_name": "desk",
        "serve_options": {"base_uri": "s3://b/base", "tuned_uri": "s3://b/desk"},
    }
    work = WorkDir(tmp_path / "work")
    outcome = run_pipeline(tmp_path / "release.yaml", arguments, work)
    assert str(outcome.outputs["Output"]).startswith("https://desk-kserve-workload-svc.mixtune.svc")
    (objects,) = work.run_dir(outcome.run_id).glob("*/serve/objects")
    assert "kind: LLMInferenceService" in objects.read_text()
    failed = {**arguments, "comparison_uri": write_proof(tmp_path / "proof", adapter, "fail")}
    with pytest.raises(MixtuneError, match="only a model that passed is registered"):
        run_pipeline(tmp_path / "release.yaml", failed, work)


@pytest.mark.slow
def test_the_training_loop_in_one_flat_file_learns_and_its_cut_makes_no_difference() -> None:
    script = ROOT / "examples" / "train_loop.py"
    assert len(script.read_text().splitlines()) <= 150
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env={**os.environ}, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (difference,) = re.findall(r"differ by (\S+) of their norm", done.stdout)
    assert float(difference) < 1e-4
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", done.stdout)]
    assert len(losses) == 20 and losses[-1] < 0.2 * losses[0]
    assert min(int(count) for count in re.findall(r"micro batches (\d+)", done.stdout)) > 1
