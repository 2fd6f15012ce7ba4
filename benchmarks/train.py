"""The training loop beside a bare torch loop and TRL's `SFTTrainer`: the same records, the same model, one thread.

    python benchmarks/train.py FILE.jsonl ... --method lora

Every FILE holds `question` and `answer` on each line. The model is a Llama with random weights; speed does not depend
on what it learned. Each engine runs in a process of its own, one after the other, as often as `--repeats` says; TRL
may live in another environment (`--trl-python`). Tokens per second are of CPU time, from the end of the first step on.

    python benchmarks/train.py FILE.jsonl ... --method lora --against REVISION

runs the loop of this tree and of another revision in turn, each on shards that its own code wrote of the same records.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from side_by_side import TREE, worktree

from mixtune.artifacts.typed_json import write_artifact

ENGINES = ("bare", "mixtune", "trl")
BATCH, LENGTH = 32, 1024
HIDDEN = 256
RANK, ALPHA, RATE = 16, 32, 1e-4


def prepare(files: list[str], steps: int, folder: Path) -> None:
    """Tokenized records as shards, and a model of 5 M parameters."""
    import numpy as np
    import pyarrow as pa
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from mixtune import models, storage
    from mixtune.artifacts import shards
    from mixtune.demo.demo_data import BASE_MODEL

    tokenizer = AutoTokenizer.from_pretrained(str(BASE_MODEL))
    tokenizer.save_pretrained(str(folder / "base"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=HIDDEN,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(str(folder / "base"))
    rows = [json.loads(line) for file in files for line in Path(file).read_text(encoding="utf-8").splitlines()]
    kept = []
    for row in np.random.default_rng(0).permutation(len(rows)):
        prompt, answer = (
            tokenizer(rows[row][key], add_special_tokens=False).input_ids for key in ("question", "answer")
        )
        if len(prompt) + len(answer) <= LENGTH:
            kept.append((prompt + answer, [0] * len(prompt) + [1] * len(answer)))
        if len(kept) == steps * BATCH:
            break
    opened = storage.open_write(str(folder / "data/s.arrow"))
    with opened as stream, pa.ipc.new_file(stream, shards.SCHEMA) as writer:
        for first in range(0, len(kept), BATCH):
            ids, masks = zip(*kept[first : first + BATCH], strict=True)
            names = [number.to_bytes(16, "big") for number in range(first, first + BATCH)]
            columns = [[0] * BATCH, names, list(ids), list(masks), [1.0] * BATCH]
            writer.write_batch(pa.record_batch(columns, schema=shards.SCHEMA))
    manifest = shards.ShardsManifest(
        data_uri=str(folder / "data"),
        files=(stream.entry("s.arrow"),),
        num_steps=steps,
        global_batch_size=BATCH,
        pools=("all",),
        shards=(shards.ShardFile(file="s.arrow", first_step=0, num_steps=steps),),
        tokenizer_digest=models.tokenizer_digest(folder / "base"),
    )
    write_artifact(str(folder / "shards"), manifest)


class Marks:
    """CPU seconds and tokens, at the end of every step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.tokens: list[int] = []

    def step(self, tokens: int) -> None:
        """A step ended that took in so many tokens."""
        self.seconds.append(time.process_time())
        self.tokens.append(tokens)

    def figures(self) -> dict[str, float]:
        """CPU seconds to the first step, tokens a CPU second after it, peak memory in MB."""
        spent = self.seconds[-1] - self.seconds[0]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"start": self.seconds[0], "speed": sum(self.tokens[1:]) / spent, "peak": peak}


def bare(folder: Path, method: str, marks: Marks) -> None:
    """The same micro batches, and nothing but forward, backward and AdamW."""
    import torch
    from torch.nn.functional import cross_entropy
    from transformers import LlamaForCausalLM

    from mixtune.artifacts.shards import open_shards
    from mixtune.train.batches import pack, plan_micro_batches

    shards = open_shards(str(folder / "shards"), folder)
    model = LlamaForCausalLM.from_pretrained(str(folder / "base"), dtype=torch.float32).train()
    if method == "lora":
        from peft import LoraConfig, get_peft_model

        get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, foreach=True)
    for step in range(shards.num_steps):
        records = shards.step(step)
        total = sum(record.num_loss_tokens for record in records)
        for micro in plan_micro_batches([len(record.input_ids) for record in records], LENGTH, 1, 12 * HIDDEN):
            packed = pack([records[index] for index in micro])
            hidden = model.model(
                input_ids=packed.input_ids[None], position_ids=packed.position_ids[None], use_cache=False
            ).last_hidden_state[0]
            logits = model.lm_head(hidden[packed.targets - 1])
            (cross_entropy(logits, packed.input_ids[packed.targets], reduction="sum") / total).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        marks.step(sum(len(record.input_ids) for record in records))


def mixtune(folder: Path, method: str, marks: Marks) -> None:
    """The whole training task, from its manifest to the model's."""
    from mixtune.settings.train import MemorySettings, TrainSettings
    from mixtune.train.run import run_training
    from mixtune.train.task import TrainInputs, TrainOutputs, TrainTask

    out = str(folder / f"out-{os.getpid()}")
    options = {"lora_rank": RANK, "lora_alpha": ALPHA} if method == "lora" else {}
    memory = MemorySettings(max_tokens_per_gpu=LENGTH)
    task = TrainTask(
        settings=TrainSettings(method=method, learning_rate=RATE, memory=memory, **options),
        inputs=TrainInputs(shards_path=str(folder / "shards"), base_model=str(folder / "base")),
        outputs=TrainOutputs(model_path=f"{out}/m", model_uri=f"{out}/m"),
    )
    run_training(task, lambda trainer, metrics: marks.step(metrics.num_tokens))


def trl(folder: Path, method: str, marks: Marks) -> None:
    """TRL from its tokenized form: packed by best fit to the same length, as many packs to a step."""
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from mixtune.artifacts.shards import open_shards

    disable_progress_bars()
    shards = open_shards(str(folder / "shards"), folder)
    records = [record for step in range(shards.num_steps) for record in shards.step(step)]
    rows = [record.input_ids.tolist() for record in records]
    data = Dataset.from_dict({"input_ids": rows, "completion_mask": [record.loss_mask.tolist() for record in records]})
    packs = max(1, sum(map(len, rows)) // (LENGTH * shards.num_steps))

    class Watch(TrainerCallback):
        seen = 0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            marks.step(int(state.num_input_tokens_seen) - self.seen)
            self.seen = int(state.num_input_tokens_seen)

    config = SFTConfig(
        output_dir=str(folder / f"trl-{os.getpid()}"),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=packs,
        max_steps=shards.num_steps,
        learning_rate=RATE,
        max_length=LENGTH,
        packing=True,
        completion_only_loss=True,
        bf16=False,
        activation_checkpointing=False,
        include_num_input_tokens_seen="all",
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        model_init_kwargs={"dtype": "float32"},
    )
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    SFTTrainer(
        model=str(folder / "base"),
        args=config,
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(str(folder / "base")),
        peft_config=lora if method == "lora" else None,
        callbacks=[Watch()],
    ).train()


def environment(tree: Path = TREE) -> dict[str, str]:
    """Of an engine's process, which takes mixtune from this tree of the repository."""
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **quiet, "PYTHONPATH": str(tree / "components")}


def run_engine(engine: str, folder: Path, method: str, python: str, tree: Path = TREE) -> dict[str, float]:
    """One engine in its own process."""
    command = [python, str(tree / "benchmarks/train.py"), "--engine", engine, "--method", method, str(folder)]
    done = subprocess.run(command, env=environment(tree), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{engine}: {done.stderr[-3000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{method} {engine}: {figures}", file=sys.stderr, flush=True)
    return figures


def compare_revisions(options: argparse.Namespace, scratch: Path) -> str:
    """This tree's loop and another revision's in turn; medians, and the ratio of each pair."""
    with worktree(options.against) as older:
        trees = {"before": older, "after": TREE}
        for name, tree in trees.items():
            (scratch / name).mkdir()
            call = "import sys; sys.path.insert(0, sys.argv[1]); import pathlib, train; "
            call += "train.prepare(sys.argv[4:], int(sys.argv[2]), pathlib.Path(sys.argv[3]))"
            arguments = [str(tree / "benchmarks"), str(options.steps), str(scratch / name), *options.files]
            subprocess.run([sys.executable, "-c", call, *arguments], env=environment(tree), check=True)
        speeds: dict[str, list[float]] = {name: [] for name in trees}
        for number in range(options.repeats):
            for name in sorted(trees, reverse=bool(number % 2)):  # who goes first changes
                found = run_engine("mixtune", scratch / name, options.method, sys.executable, trees[name])
                speeds[name].append(found["speed"])
    ratios = [after / before for before, after in zip(speeds["before"], speeds["after"], strict=True)]
    before, after, ratio = (statistics.median(values) for values in (speeds["before"], speeds["after"], ratios))
    span = f"{min(ratios):.3f} to {max(ratios):.3f}"
    head = "| method | tokens per CPU second before | after | ratio, median | of pairs |\n|---|---|---|---|---|"
    return f"{head}\n| {options.method} | {before:.0f} | {after:.0f} | {ratio:.3f} | {span} |"


def table(method: str, runs: dict[str, list[dict[str, float]]]) -> str:
    """Medians, and each as a ratio to the bare loop's."""
    lines = [
        f"| {method} | tokens per CPU second | of the bare loop | CPU seconds to the first step | peak memory, MB |",
        "|---|---|---|---|---|",
    ]
    middle = {
        engine: {key: statistics.median(run[key] for run in found) for key in ("speed", "start", "peak")}
        for engine, found in runs.items()
    }
    for engine, found in middle.items():
        share = statistics.median(
            run["speed"] / other["speed"] for run, other in zip(runs[engine], runs["bare"], strict=True)
        )
        lines.append(
            f"| {engine} | {found['speed']:.0f} | {share:.3f} | {found['start']:.1f} "
            f"({found['start'] / middle['bare']['start']:.2f}) | {found['peak']:.0f} "
            f"({found['peak'] / middle['bare']['peak']:.2f}) |"
        )
    if "trl" in middle:
        ratio = statistics.median(a["speed"] / b["speed"] for a, b in zip(runs["mixtune"], runs["trl"], strict=True))
        lines.append(f"\nmixtune over TRL: {ratio:.2f}")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--method", default="lora", choices=("lora", "sft"))
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--trl-python", default=sys.executable)
    parser.add_argument("--against", default="", help="a revision of this repository")
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        marks = Marks()
        {"bare": bare, "mixtune": mixtune, "trl": trl}[options.engine](Path(options.files[0]), options.method, marks)
        print(json.dumps(marks.figures()))
        return
    with tempfile.TemporaryDirectory() as scratch:
        if options.against:
            print(compare_revisions(options, Path(scratch)))
            return
        prepare(options.files, options.steps, Path(scratch))
        runs: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
        for _ in range(options.repeats):
            for engine in ENGINES:
                python = options.trl_python if engine == "trl" else sys.executable
                runs[engine].append(run_engine(engine, Path(scratch), options.method, python))
    print(table(options.method, runs))


if __name__ == "__main__":
    main()
