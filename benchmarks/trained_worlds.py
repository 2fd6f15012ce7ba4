"""Worlds for trained searches: the demo's and three harder ones, all on the demo's base model.

`shop` is the demo's. In `desk` the customer's messages have a long tail of labels, and facts and the following of formats
may be forgotten. In `notes` the customer turns orders into two fields, by full fine-tuning, and two kinds of instructions
may be forgotten: formats and wordings. In `dispatch` orders are given to a team with an urgency, by full fine-tuning, and
facts and wordings may be forgotten; no prior of the laws was chosen with it in sight.
"""

import json
import random
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mixtune.demo import demo_data, facts, instructions, messages, small_talk
from mixtune.demo.grammar import expand
from mixtune.settings.from_dict import Options

Draw = Callable[[random.Random], tuple[str, str]]
"""Draws a prompt with its answer."""
NUM_RECORDS, NUM_TEST, NUM_ITEMS, NUM_POOL = 1000, 400, 400, 2000
FORMATS = ("startend:quotation", "detectable_format:number_bullet_lists", "detectable_format:title",
           "detectable_format:number_highlighted_sections")  # fmt: skip
"""First identifiers of the instructions that ask for a format; the others ask for words."""


@dataclass(frozen=True, kw_only=True)
class World:
    """A customer's task, what a model may forget over it, and how it is trained."""

    name: str
    method: str
    learning_rate: float
    sources: list[Options]
    """The customer's, as `sanitize` takes them."""
    pools: list[Options]
    """General pools, as a pipeline takes them."""
    benchmarks: dict[str, Options]
    base_model: str
    customer_epochs: float = 0.4

    @property
    def limits(self) -> dict[str, float]:
        """Allowed loss by benchmark."""
        return {axis: float(str(options["max_drop"])) for axis, options in self.benchmarks.items()}


def write_world(name: str, seed: int, folder: Path) -> World:
    """Write the files of a world; the same seed gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    return {"shop": _shop, "desk": _desk, "notes": _notes, "dispatch": _dispatch}[name](seed, folder)


def _shop(seed: int, folder: Path) -> World:
    world = demo_data.write_world(folder, seed)
    files = {"train": world.customer_uri, "test": world.test_uri}
    columns = world.customer_columns
    return World(
        name="shop",
        method="lora",
        learning_rate=2e-4,
        sources=[{"name": "customer", "uri": uri, "columns": columns, "split": split} for split, uri in files.items()],
        pools=world.general_pools,
        benchmarks=world.benchmarks,
        base_model=world.base_model,
    )


def _desk(seed: int, folder: Path) -> World:
    categories = list(messages.CATEGORIES)
    random.Random(f"labels {seed}").shuffle(categories)
    weights = [1 / (rank + 1) for rank in range(len(categories))]

    def draw_message(draw: random.Random) -> tuple[str, str]:
        category = draw.choices(categories, weights)[0]
        return messages.draw_message(category, draw), category.label

    pools = {"factuality": (50.0, _fact), "formats": (40.0, _draw_format), "chat": (10.0, small_talk.draw_small_talk)}
    return World(
        name="desk",
        method="lora",
        learning_rate=1e-4,
        sources=_write_customer(folder, seed, draw_message, {"label": "answer"}),
        pools=_write_pools(folder, seed, pools),
        benchmarks={"facts": _write_facts(folder, seed), "formats": _write_instructions(folder, seed, formats=True)},
        base_model=_copy_base(folder),
    )


def _notes(seed: int, folder: Path) -> World:
    talk = (10.0, small_talk.draw_small_talk)
    pools = {"formats": (45.0, _draw_format), "wordings": (45.0, _draw_wording), "chat": talk}
    return World(
        name="notes",
        method="sft",
        learning_rate=1.5e-3,
        sources=_write_customer(folder, seed, _order, {}),
        pools=_write_pools(folder, seed, pools),
        benchmarks={
            name: _write_instructions(folder, seed, formats=name == "formats") for name in ("formats", "wordings")
        },
        base_model=_copy_base(folder),
    )


def _dispatch(seed: int, folder: Path) -> World:
    talk = (20.0, small_talk.draw_small_talk)
    pools = {"factuality": (50.0, _fact), "wordings": (30.0, _draw_wording), "chat": talk}
    return World(
        name="dispatch",
        method="sft",
        learning_rate=8e-4,
        sources=_write_customer(folder, seed, _task_of_a_team, {}),
        pools=_write_pools(folder, seed, pools),
        benchmarks={"facts": _write_facts(folder, seed), "wordings": _write_instructions(folder, seed, formats=False)},
        base_model=_copy_base(folder),
    )


def _copy_base(folder: Path) -> str:
    shutil.copytree(demo_data.BASE_MODEL, folder / "base_model", dirs_exist_ok=True)
    return str(folder / "base_model")


_ITEMS = ("kettle", "toaster", "laptop", "speaker", "monitor", "lamp", "printer", "charger", "watch", "heater", "fan")
_CITIES = ("Rome", "Paris", "Oslo", "Vienna", "Madrid", "Berlin", "Lisbon", "Athens", "Dublin", "Warsaw")
_ORDER = (
    "(please send|we need|I want) {count} of the {item} (to|in) {city}( by Friday|. thanks|, please|)",
    "(today|by Monday|again) we (want|need) {count} times the {item} in {city}(. this is urgent|. regards|)",
    "(my store|my office|the team) in {city} is (waiting for|out of) {item}, {count} pieces( today| by Friday|)",
)


def _order(draw: random.Random) -> tuple[str, str]:
    item, city = draw.choice(_ITEMS), draw.choice(_CITIES)
    text = expand(draw.choice(_ORDER), draw, item=item, city=city, count=str(draw.randint(2, 60)))
    return draw.choice((text, text[0].upper() + text[1:], text + "!", text + ".")), f"{item} {city}"


_TEAMS = {"kettle": "kitchen", "toaster": "kitchen", "lamp": "home", "heater": "home", "fan": "home", "watch": "home"}
_URGENCIES = {"right now": "urgent", "at once": "urgent", "this week": "soon", "by Friday": "soon", "some day": "later"}
_TASK = (
    "(repair|replace|check) the {item} in {city} {when}(, please|. thanks|)",
    "the {item} of {count} in {city} is broken. (we need it|fix it) {when}(. regards|)",
    "{when} somebody (should|must) look at our {item} in {city}( again|)",
)


def _task_of_a_team(draw: random.Random) -> tuple[str, str]:
    item, when = draw.choice(_ITEMS), draw.choice(list(_URGENCIES))
    words = {"item": item, "when": when, "city": draw.choice(_CITIES), "count": f"room {draw.randint(1, 99)}"}
    text = expand(draw.choice(_TASK), draw, **words)
    return draw.choice((text, text[0].upper() + text[1:])), f"{_TEAMS.get(item, 'office')} {_URGENCIES[when]}"


def _fact(draw: random.Random) -> tuple[str, str]:
    question, answer = facts.open_question(draw)
    return (f"{question}\nAnswer:" if draw.random() < 0.5 else question), answer


def _draw_format(draw: random.Random) -> tuple[str, str]:
    return _instruction(draw, formats=True)


def _draw_wording(draw: random.Random) -> tuple[str, str]:
    return _instruction(draw, formats=False)


def _instruction(draw: random.Random, *, formats: bool) -> tuple[str, str]:
    while True:
        item = instructions.training_instruction(draw)
        if (item.instruction_ids[0] in FORMATS) == formats:
            return item.prompt, item.answer


def _write_facts(folder: Path, seed: int) -> Options:
    items = facts.held_out_choices(random.Random(f"facts {seed}"))
    _write(folder / "facts" / "test.jsonl", (vars(item) for item in items))
    return {"form": "mmlu", "uri": str(folder / "facts"), "num_fewshot": 0, "scoring": "text", "max_drop": 0.05}


def _write_instructions(folder: Path, seed: int, *, formats: bool) -> Options:
    items = instructions.held_out_instructions(2 * NUM_ITEMS, random.Random(f"instructions {seed}"))
    rows = [
        {"key": key, "prompt": item.prompt, "instruction_id_list": item.instruction_ids, "kwargs": item.kwargs}
        for key, item in enumerate(items)
        if (item.instruction_ids[0] in FORMATS) == formats
    ]
    path = folder / f"{'formats' if formats else 'wordings'}.jsonl"
    _write(path, rows)
    return {"form": "ifeval", "uri": str(path), "max_new_tokens": 32, "max_drop": 0.05}


def _different(draw: random.Random, count: int, maker: Draw) -> dict[str, str]:
    """Draw so many different prompts with their answers."""
    answers: dict[str, str] = {}
    while len(answers) < count:
        answers.setdefault(*maker(draw))
    return answers


def _write(path: Path, rows: Iterable[Options]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_customer(folder: Path, seed: int, maker: Draw, columns: dict[str, str]) -> list[Options]:
    answers = list(_different(random.Random(f"customer {seed}"), NUM_RECORDS + NUM_TEST, maker).items())
    columns = {"prompt": "{question}", "completion": "answer", **columns}
    sources = []
    for split, pairs in {"train": answers[:-NUM_TEST], "test": answers[-NUM_TEST:]}.items():
        path = folder / f"customer-{split}.jsonl"
        _write(path, ({"question": key, "answer": value} for key, value in pairs))
        sources.append({"name": "customer", "uri": str(path), "columns": columns, "split": split})
    return sources


def _write_pools(folder: Path, seed: int, makers: dict[str, tuple[float, Draw]]) -> list[Options]:
    pools = []
    for name, (weight, maker) in makers.items():
        path = folder / "general" / f"{name}.jsonl"
        answers = _different(random.Random(f"{name} {seed}"), NUM_POOL, maker)
        _write(path, ({"prompt": key, "completion": value} for key, value in answers.items()))
        pools.append({"category": name, "uri": str(path), "weight": weight})
    return pools
