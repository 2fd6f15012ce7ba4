"""The README's commands and examples work as they stand there, without a network."""

import contextlib
import io
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixtune.artifacts.pools import Pool, PoolsManifest, Split, write_records
from mixtune.artifacts.typed_json import write_artifact
from mixtune.cli import main
from mixtune.demo.demo_data import write_world

pytestmark = pytest.mark.usefixtures("no_network", "one_server")
ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
COMMANDS = [
    line
    for language, block in BLOCKS
    if language in ("", "sh")
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("mixtune ")
]
HOST = "https://kubeflow.example.com"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README's examples have lying about: small files under the names that it uses."""
    folder = tmp_path_factory.mktemp("readme")
    world = write_world(folder / "source")
    pools = [pool["uri"] for pool in world.general_pools]
    cut(world.customer_uri, folder / "tickets.csv", 121)
    cut(pools[0], folder / "chat.jsonl", 100)
    cut(pools[1], folder / "math.jsonl", 100)
    (folder / "mmlu").mkdir()
    for name in ("test.jsonl", "dev.jsonl"):
        cut(f"{world.benchmarks['mmlu']['uri']}/{name}", folder / "mmlu" / name, 20)
    cut(world.benchmarks["ifeval"]["uri"], folder / "ifeval.jsonl", 3)
    text = (folder / "tickets.csv").read_text()
    (folder / "tickets.csv").write_text(text.replace("message", "text", 1))
    shutil.copytree(world.base_model, folder / "models" / "my-model")
    config = folder / "models" / "my-model" / "config.json"  # of a length that answers to IFEval fit into, as real ones
    config.write_text(config.read_text().replace('"max_position_embeddings": 512', '"max_position_embeddings": 2048'))
    (arguments,) = [block for language, block in BLOCKS if language == "json" and "customer_uri" in block]
    (folder / "finetune.json").write_text(arguments)
    given = json.loads(arguments)
    general = [{**pool, "uri": f"s3://b/{pool['uri']}"} for pool in given["general_pools"]]
    places = {"customer_uri": "s3://b/t.csv", "general_pools": general, "benchmarks": {}, "base_model": "s3://b/m"}
    (folder / "cluster.json").write_text(json.dumps({**given, **places}))
    digests = {f"mixtune-python-{part}": "sha256:" + "0" * 64 for part in ("data", "train", "evaluate")}
    (folder / "images.json").write_text(json.dumps(digests))
    make_pools(folder / "sanitized")
    categories = {pool["category"]: pool["weight"] for pool in given["general_pools"]}
    mix = {"customer_data_percent": 75, "nova_data_percentages": categories}
    (folder / "nova-mix.yaml").write_text(json.dumps(mix))
    (folder / "components").symlink_to(ROOT / "components")
    return folder


def cut(source: str, target: Path, lines: int) -> None:
    with open(source) as stream:
        target.write_text("".join(itertools.islice(stream, lines)))


def make_pools(folder: Path) -> None:
    messages = [{"role": "user", "content": "Where is Ulm?"}, {"role": "assistant", "content": "On the Danube."}]
    entry = write_records(
        str(folder / "data" / "train.jsonl.zst"),
        [{"id": "1", "messages": messages, "origin": {"file": "a", "line": 1}}],
    )
    pool = Pool(name="customer", splits={"train": Split(num_records=1, files=("train.jsonl.zst",))})
    write_artifact(str(folder / "pools"), PoolsManifest(pools=(pool,), data_uri=str(folder / "data"), files=(entry,)))


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) >= 5


@pytest.fixture(scope="module")
def printed() -> dict[str, str]:
    """What commands of the README printed, by command: each runs once."""
    return {}


@pytest.fixture
def run(folder: Path, kubeflow: Any, printed: dict[str, str]) -> Callable[[str], str]:
    """What a command of the README prints."""

    def shown(command: str) -> str:
        if command not in printed:
            here = command.replace(HOST, kubeflow.url).replace("max_steps=60", "max_steps=12")
            words = shlex.split(here.replace(" POOLS ", " sanitized/pools "))
            printed[command] = (run_here if words[1] in ("run", "preflight") else run_apart)(words, folder)
            if command.startswith("mixtune demo --write-only"):  # less of it says as much
                for file in (*(folder / words[-1]).rglob("*.jsonl"), *(folder / words[-1]).rglob("*.csv")):
                    cut(str(file), file, 40 if "benchmarks" in file.parts else 150)
        return printed[command]

    return shown


def run_apart(words: list[str], folder: Path) -> str:
    """Run a command in a process of its own."""
    done = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode in (0, 3, 4), done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def run_here(words: list[str], folder: Path) -> str:
    """Run a command that needs libraries for seconds in this process, which has them; its steps are forks of one server."""
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as output:
        code = main(words[1:])
    assert code in (0, 3, 4), output.getvalue()[-3000:]
    return output.getvalue()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command.split()[:3]))
def test_a_command_of_the_readme_runs_without_a_network(command: str, run: Callable[[str], str], kubeflow: Any) -> None:
    text = run(command)
    if command.startswith("mixtune run "):
        assert "verdict: " in text
    if command.startswith("mixtune submit"):
        assert f"run: {kubeflow.url}/#/runs/details/run-1" in text


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_with_one_thing_changed_runs_only_what_depends_on_it(run: Callable[[str], str]) -> None:
    world, first, second = (run(command) for command in COMMANDS[:3])
    assert "the demo's files are in" in world
    ran, cached = steps(first)
    assert not cached
    assert {"sanitize-general", "sanitize-customer", "evaluate-base", "mix-shard", "compare"} <= ran
    ran_again, cached = steps(second)
    assert cached == {"sanitize-general", "sanitize-customer", "evaluate-base"}
    assert ran_again == ran - cached


def steps(text: str) -> tuple[set[str], set[str]]:
    """Tasks that ran, and tasks that came from the cache."""
    ran = set(re.findall(r"^([\w-]+): done in", text, re.M))
    return ran, set(re.findall(r"^([\w-]+): from the cache$", text, re.M))


def test_the_pipeline_of_ones_own_in_the_readme_runs(folder: Path) -> None:
    (code,) = [block for language, block in BLOCKS if language == "python"]
    run = (
        "from kfp import local\n"
        "local.init(local.SubprocessRunner(use_venv=False), pipeline_root='own')\n"
        "clean_twice(tickets_uri='chat.jsonl', archive_uri='math.jsonl')\n"
    )
    (folder / "own.py").write_text(code + "\n\n" + run)
    done = subprocess.run([sys.executable, "own.py"], cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
