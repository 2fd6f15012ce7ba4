"""The demo's world: a customer's files, general pools, two benchmarks and the base model, in one folder.

Everything is generated from a seed; the package ships the base model (`benchmarks/demo_model.py` made it).
"""

import csv
import json
import random
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixtune.demo import facts, instructions, messages, small_talk

BASE_MODEL = Path(__file__).parent / "base_model"
NUM_CUSTOMER_RECORDS = 1000
NUM_TEST_RECORDS = 400
NUM_IFEVAL_PROMPTS = 480
POOLS = {"factuality": 30.0, "instruction-following": 65.0, "chat": 2.5, "math": 2.5}
"""Category and weight, in percent of the general share."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What the demo tunes with, by method."""

    learning_rate: float
    """Peak learning rate."""
    customer_epochs: float
    """Passes over the customer's records, the same for every mix."""
    global_batch_size: int = 32
    """Records per optimizer step."""


TUNING = {
    "lora": Tuning(learning_rate=2e-4, customer_epochs=6.0),
    "sft": Tuning(learning_rate=5e-4, customer_epochs=4.0),
}
PERCENTS = (100.0, 75.0, 50.0)
"""The mixes that the demo tries."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Where the demo's files lie."""

    folder: Path
    seed: int

    @property
    def customer_uri(self) -> str:
        """The customer's training file: CSV `ticket,channel,message,category`."""
        return str(self.folder / "customer" / "train.csv")

    @property
    def test_uri(self) -> str:
        """The customer's held-out file."""
        return str(self.folder / "customer" / "test.csv")

    @property
    def base_model(self) -> str:
        """A copy of the shipped base model: a package's own path may hold `python3`, which KFP's runner rewrites."""
        return str(self.folder / "base_model")

    @property
    def customer_columns(self) -> dict[str, str]:
        """How the customer's columns become records."""
        return {"prompt": "{message}", "completion": "category", "label": "category", "id": "ticket"}

    @property
    def general_pools(self) -> list[dict[str, Any]]:
        """The general pools as the pipeline takes them."""
        return [
            {"category": name, "uri": str(self.folder / "general" / f"{name}.jsonl"), "weight": weight}
            for name, weight in POOLS.items()
        ]

    @property
    def benchmarks(self) -> dict[str, dict[str, Any]]:
        """The benchmarks as the pipeline takes them."""
        folder = self.folder / "benchmarks"
        return {
            "mmlu": {"uri": str(folder / "mmlu"), "num_fewshot": 0, "scoring": "text", "max_drop": 0.05},
            "ifeval": {"uri": str(folder / "ifeval.jsonl"), "max_new_tokens": 48, "max_drop": 0.05},
        }

    def arguments(self, method: str, customer_data_percent: float) -> dict[str, object]:
        """The finetune pipeline's arguments."""
        tuning = TUNING[method]
        return {
            "customer_uri": self.customer_uri,
            "customer_columns": self.customer_columns,
            "test_uri": self.test_uri,
            "general_pools": self.general_pools,
            "benchmarks": self.benchmarks,
            "base_model": self.base_model,
            "customer_data_percent": customer_data_percent,
            "customer_epochs": tuning.customer_epochs,
            "method": method,
            "learning_rate": tuning.learning_rate,
            "seed": self.seed,
            "mix_options": {"global_batch_size": tuning.global_batch_size, "max_length": 512},
        }

    def grid_arguments(self, method: str, epochs: float = 0.0) -> dict[str, object]:
        """The mix_grid pipeline's arguments for `lora` or `sft`.

        `epochs` are passes over the customer's records; 0: as many as the method needs. With fewer the dial is turned
        but once.
        """
        arguments = {**self.arguments(method, 100.0), "customer_data_percents": list(PERCENTS)}
        del arguments["customer_data_percent"]
        dial = [0.5] if epochs else [0.25, 0.5, 0.75]
        return {**arguments, "dial": dial, "customer_epochs": epochs or arguments["customer_epochs"]}


def write_world(folder: Path | str, seed: int = 42) -> World:
    """Write the demo's world, in place of an earlier one in the folder; the same seed gives the same bytes."""
    world = World(folder=Path(folder).resolve(), seed=seed)
    for name in ("customer", "general", "benchmarks/mmlu"):
        (world.folder / name).mkdir(parents=True, exist_ok=True)
    _write_customer(world, random.Random(f"customer {seed}"))
    _write_pools(world, random.Random(f"general {seed}"))
    _write_mmlu(Path(world.benchmarks["mmlu"]["uri"]), random.Random(f"mmlu {seed}"))
    _write_ifeval(Path(world.benchmarks["ifeval"]["uri"]), random.Random(f"ifeval {seed}"))
    shutil.copytree(BASE_MODEL, world.base_model, dirs_exist_ok=True)
    return world


def _write_customer(world: World, draw: random.Random) -> None:
    train = _draw_customer(NUM_CUSTOMER_RECORDS, draw, held_out=False)
    test = _draw_customer(NUM_TEST_RECORDS, draw, held_out=True)
    for uri, items in ((world.customer_uri, train), (world.test_uri, test)):
        with open(uri, "w", encoding="utf-8", newline="") as stream:
            rows = csv.writer(stream, lineterminator="\n")
            rows.writerow(("ticket", "channel", "message", "category"))
            for message, label in items.items():
                channel = draw.choice(("email", "chat", "app", "phone"))
                rows.writerow((f"T-{draw.getrandbits(32):08x}", channel, message, label))


def _draw_customer(count: int, draw: random.Random, *, held_out: bool) -> dict[str, str]:
    """So many different messages with their labels, some categories more frequent than others."""
    weights = [draw.uniform(0.7, 1.3) for _ in messages.CATEGORIES]
    completions: dict[str, str] = {}
    while len(completions) < count:
        category = draw.choices(messages.CATEGORIES, weights)[0]
        completions.setdefault(messages.draw_message(category, draw, held_out=held_out), category.label)
    return completions


def _write_pools(world: World, draw: random.Random) -> None:
    makers: dict[str, tuple[int, Callable[[random.Random], tuple[str, str]]]] = {
        "factuality": (900, _draw_fact),
        "instruction-following": (2400, _draw_instruction),
        "chat": (500, small_talk.draw_small_talk),
        "math": (500, small_talk.draw_sum),
    }
    for pool in world.general_pools:
        count, maker = makers[pool["category"]]
        completions: dict[str, str] = {}
        while len(completions) < count:
            prompt, completion = maker(draw)
            completions.setdefault(prompt, completion)
        _write_lines(Path(pool["uri"]), ({"prompt": key, "completion": value} for key, value in completions.items()))


def _draw_fact(draw: random.Random) -> tuple[str, str]:
    question, answer = facts.open_question(draw)
    return (f"{question}\nAnswer:" if draw.random() < 0.5 else question), answer


def _draw_instruction(draw: random.Random) -> tuple[str, str]:
    item = instructions.training_instruction(draw)
    return item.prompt, item.answer


def _write_mmlu(folder: Path, draw: random.Random) -> None:
    test = facts.held_out_choices(draw)
    dev = [
        facts.draw_choice(subject, fact, subject.wordings[0], draw) for subject in facts.SUBJECTS for fact in range(5)
    ]
    for name, items in (("test", test), ("dev", dev)):
        rows = (
            {"question": item.question, "subject": item.subject, "choices": item.choices, "answer": item.answer}
            for item in items
        )
        _write_lines(folder / f"{name}.jsonl", rows)


def _write_ifeval(path: Path, draw: random.Random) -> None:
    items = instructions.held_out_instructions(NUM_IFEVAL_PROMPTS, draw)
    rows = (
        {"key": key, "prompt": item.prompt, "instruction_id_list": item.instruction_ids, "kwargs": item.kwargs}
        for key, item in enumerate(items)
    )
    _write_lines(path, rows)


def _write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    with open(path, "w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
