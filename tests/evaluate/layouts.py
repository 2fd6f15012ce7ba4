"""What becomes of published benchmarks, in the layouts of `published_layouts.yaml`, and what lm-eval makes of the same rows.

`python -m tests.evaluate.layouts` writes what docs/scoring.md shows of it.
"""

import csv
import io
import json
import re
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import yaml
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.utils import apply_template

from mixtune.artifacts.samples import Sample
from mixtune.benchmark_files import read_asked
from mixtune.errors import MixtuneError
from mixtune.evaluate.named_benchmarks import Benchmark, parse_benchmarks
from mixtune.inference.engine import Completion, Request, Scores

from ..evaluation import TEMPLATE, make_tokenizer, write_files

HERE = Path(__file__).parent
LAYOUTS = {layout["name"]: layout for layout in yaml.safe_load((HERE / "published_layouts.yaml").read_text())}
OUTCOMES = HERE / "published_layouts.json"
TASKS = Path(lm_eval.__file__).parent / "tasks"
_TOOLS = "{% if tools %}{{ tools | tojson }}\n{% endif %}"


class Noting:
    """An engine that notes what it is asked, gives every choice the same probability, and says what it was told to."""

    max_length = 1_000_000

    def __init__(self, tokenizer: Any, said: str = "") -> None:
        self.tokenizer, self.said = tokenizer, said
        self.asked: list[tuple[str, list[str]]] = []

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        for request in requests:
            texts = [self.tokenizer.decode(ids) for ids in (request.context, *request.continuations)]
            self.asked.append((texts[0], texts[1:]))
        return [
            Scores(logprobs=(-1.0,) * len(item.continuations), truncated=False, latency_seconds=0) for item in requests
        ]

    def generate(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, sampling: Any = None) -> list[Completion]:
        self.asked += [(self.tokenizer.decode(prompt, skip_special_tokens=False), []) for prompt in prompts]
        ids = tuple(self.tokenizer(self.said, add_special_tokens=False)["input_ids"])
        return [Completion(token_ids=ids, truncated=False, latency_seconds=0.1) for _ in prompts]


def make_asking_tokenizer(folder: Path) -> Any:
    tokenizer = make_tokenizer(folder)
    tokenizer.chat_template = _TOOLS + TEMPLATE
    return tokenizer


def ask(benchmark: Benchmark, tokenizer: Any, said: str = "") -> tuple[Noting, list[Sample]]:
    """What a benchmark's items ask, and their samples where the model says a text."""
    engine: Any = Noting(tokenizer, said)
    parts = benchmark.form.plan("axis", benchmark.options, tokenizer, 0)
    return engine, [sample for part in parts for sample in part.score_items(part.items, engine)]


def outcome(layout: dict[str, Any], tokenizer: Any, folder: Path) -> dict[str, Any]:
    """What becomes of a benchmark: what its last item asks, what is right, what is guarded; or why it is refused."""
    uri = write_files(folder, layout["files"])
    try:
        (benchmark,) = parse_benchmarks({"axis": {**layout["entry"], "uri": uri}}).values()
        engine, samples = ask(benchmark, tokenizer, layout.get("right", ""))
    except MixtuneError as error:
        return {"refused": re.sub(re.escape(uri) + "[/: ] ?", "", str(error))}
    prompt, continuations = engine.asked[-1]
    theirs = of_lm_eval(layout)["asked"] if "lm_eval" in layout else ""
    return {
        "asked": prompt,
        "choices": continuations,
        "right": samples[-1].gold,
        "metric": benchmark.form.metric,
        "limit": benchmark.form.default_limit,
        "guarded": list(read_asked(uri))[-1],
        "items": len(samples),
        "lm_eval": "" if not theirs else "the same prompt" if theirs == prompt else "its own prompt",
    }


def rows_of(layout: dict[str, Any]) -> list[dict[str, Any]]:
    """A layout's rows as a loader of the hub has them."""
    content = next(iter(layout["files"].values()))
    if not isinstance(content, str):
        return list(content)
    if content.startswith("{"):
        return list(json.loads(content)["examples"])
    if "\t" in content:  # MGSM
        questions = [line.split("\t") for line in content.splitlines()]
        return [{"question": text, "answer": None, "answer_number": int(number)} for text, number in questions]
    return list(csv.DictReader(io.StringIO(content.removeprefix("\ufeff"))))


def of_lm_eval(layout: dict[str, Any]) -> dict[str, Any]:
    """What lm-eval's task asks by its last row, and which answer is right by it."""
    config: dict[str, Any] = load_yaml(TASKS / layout["lm_eval"], resolve_func=True)
    if task := config.get("class"):  # SQuAD v2
        config = {name: partial(getattr(task, name), None) for name in ("doc_to_text", "doc_to_target")}
    docs = datasets.Dataset.from_list(rows_of(layout))
    doc = (config["process_docs"](docs) if "process_docs" in config else docs)[-1]

    def made(name: str) -> Any:
        value = config.get(name)
        if callable(value):
            return value(doc)
        if not isinstance(value, str):
            return value
        return doc[value] if value in doc else apply_template(value, doc)

    text, target, choices = made("doc_to_text"), made("doc_to_target"), made("doc_to_choice") or []
    choices = yaml.safe_load(choices) if isinstance(choices, str) else choices
    if isinstance(text, int):  # a context for each choice
        return {"asked": choices[-1], "choices": [f" {target}"], "right": text}
    if isinstance(target, str) and target not in choices and target.isdigit() and choices:
        target = int(target)
    target = yaml.safe_load(target)[0] if isinstance(target, str) and target.startswith("[") else target  # AGIEval
    target = doc["answers"][0] if layout["lm_eval"].startswith("drop") else target  # whose template joins keys
    right = choices.index(target) if isinstance(target, str) and target in choices else target
    return {"asked": config.get("description", "") + text, "choices": list(choices), "right": right}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = make_asking_tokenizer(Path(folder))
        made = {name: outcome(layout, tokenizer, Path(folder) / name) for name, layout in LAYOUTS.items()}
    OUTCOMES.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
