"""Commands of the documents run as they stand there: from a service's job to its price, from a model that passed to its
objects. Those of the README run in `test_readme.py`; what needs a cluster or an account does not run."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mixtune import storage
from mixtune.cli import main
from mixtune.commands.local.work_dir import RunRecord, WorkDir

from .serve.conftest import LLAMA_8B, Models, write_proof

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "components" / "mixtune" / "demo" / "base_model"
SAMPLES = ROOT / "tests" / "tuning_import" / "samples"
RUN_ID = "finetune-20260101-000000-abcd"


def commands(document: str, *beginnings: str) -> list[str]:
    """The lines of a document that begin so, in their order."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / document).read_text(), re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = [line for line in lines if line.startswith(beginnings)]
    assert found, f"{document} has no such command any more"
    return found


def run(line: str, **names: str) -> int:
    """Run a line with the names of the example replaced by what is there."""
    for name, value in names.items():
        line = line.replace(name, value)
    return main(shlex.split(line)[1:])


def test_the_guide_for_those_who_move_leads_from_a_job_to_its_price(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(SAMPLES / "openai_succeeded.json", "job.json")
    Path("downloads").mkdir()
    rows = [json.dumps({"messages": [{"role": "user", "content": f"Where is parcel {n}?"},
                                     {"role": "assistant", "content": "delivery"}]}) for n in range(60)]  # fmt: skip
    for name in ("downloads/file-Train01.jsonl", "downloads/file-Valid01.jsonl", "chat.jsonl"):
        Path(name).write_text("\n".join(rows) + "\n")
    shutil.copytree(DEMO, "models/my-model")
    Path("pools.json").write_text(json.dumps([{"category": "chat", "uri": "chat.jsonl", "weight": 100}]))
    lines = commands("moving.md", "mixtune import-tuning", "mixtune plan", "mixtune preflight")
    assert [run(line) for line in lines] == [0, 0, 0]
    text = capsys.readouterr().out
    assert "customer_uri=downloads/file-Train01.jsonl" in text and "total: " in text and "preflight: " in text


def test_the_page_on_serving_leads_from_a_model_that_passed_to_its_objects(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    models = Models(bucket)
    base, adapter = models.base(LLAMA_8B), models.adapter()
    write_proof(tmp_path / "comparison.json", adapter)
    (whole,) = commands("serve.md", 'mixtune serve "s3://')
    place = shlex.split(whole)[2]
    assert run(whole, **{place: adapter, "s3://bucket/models/base": base}) == 0
    assert "kind: LLMInferenceService" in Path("serve.yaml").read_text()
    for uri in (base, adapter):
        storage.fetch(storage.plain_uri(uri), tmp_path / Path(uri.split("#")[0]).name, storage.ALONE)
    work = WorkDir(tmp_path / "mixtune-work")
    work.begin(RUN_ID, RunRecord(pipeline="finetune", code=""), {"base_model": str(tmp_path / "base")})
    work.pages(RUN_ID).mkdir(parents=True)
    local = storage.fingerprint(str(tmp_path / "model"))
    report = json.loads(Path(write_proof(tmp_path / "proof", local)).read_text())
    work.report(RUN_ID, "json").write_text(json.dumps({**report, "model_uri": local}))
    for line in commands("serve.md", "mixtune register RUN_ID", "mixtune serve RUN_ID"):
        assert run(line, RUN_ID=RUN_ID) == 0, capsys.readouterr()
    assert "# desk" in Path("card.md").read_text()


def test_the_policies_of_the_page_on_clusters_are_rendered(tmp_path: Path) -> None:
    (line,) = commands("cluster.md", "python policies/render.py")
    words = [sys.executable, *shlex.split(line.replace("build/policies", str(tmp_path / "policies")))[1:]]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    listed = [Path(name) for name in done.stdout.split()]
    assert len(listed) > 10 and all(path.is_file() for path in listed)
