"""A model that thinks first scores as one that answers at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mixtune.artifacts.pools import read_pools
from mixtune.evaluate import customer
from mixtune.evaluate.benchmarks import generation, ifeval
from mixtune.inference import prompts
from mixtune.inference.engine import Completion, Sampling
from mixtune.settings.inference import CustomerOptions

from ..evaluation import TEMPLATE, make_record, make_tokenizer, write_jsonl, write_pools

QWEN = TEMPLATE.replace(
    "{{ message['content'] }}<|im_end|>",
    "{% if loop.last and message['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ message['content'] }}<|im_end|>",
)


class Scripted:
    """An engine that says given texts."""

    def __init__(self, tokenizer: Any, texts: Sequence[str]) -> None:
        self.tokenizer, self.texts = tokenizer, texts

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, sampling: Sampling | None = None
    ) -> list[Completion]:
        ids = [tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in self.texts]
        return [Completion(token_ids=item, truncated=False, latency_seconds=0.1) for item in ids]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = make_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    made.chat_template = QWEN
    return made


def test_answers_after_a_thought_score_as_the_answers_alone(tokenizer: Any) -> None:
    answers = ["In the depot.", '{"a": 1}']
    records = [make_record(n, "Where?", text) for n, text in enumerate(answers)]
    measured = []
    for thought in ("", "<think>\n\n</think>\n\n", "<think>Hm.\nParcels, parcels.</think>\n"):
        engine = Scripted(tokenizer, [thought + text for text in answers])
        samples = generation.score_records("customer", tokenizer, 256, "", records, engine)  # type: ignore[arg-type]
        assert [sample.correct for sample in samples] == [1, 1]
        measured.append([sample.measures for sample in samples])
        assert all(bool(sample.thought) == ("Hm" in thought) for sample in samples)
    assert measured[0] == measured[1] == measured[2]
    assert measured[0][1]["json_valid"] == measured[0][1]["json_equal"] == 1


def test_instructions_are_checked_in_the_answer_alone_and_no_answer_follows_none(
    tokenizer: Any, tmp_path: Path
) -> None:
    rows = [{"key": key, "prompt": "x", "instruction_id_list": ["punctuation:no_comma"]} for key in "12"]
    options = ifeval.IfevalOptions(uri=str(write_jsonl(tmp_path / "ifeval.jsonl", rows)))
    items = ifeval.FORM.read_items(options, tokenizer)
    engine = Scripted(tokenizer, ["<think>Well, no commas, then</think>\nIn the depot.", "<think>Well"])
    done, unfinished = ifeval.FORM.ask("ifeval", tokenizer, 256, items, engine)  # type: ignore[arg-type]
    assert (done.correct, done.response, done.unfinished) == (1, "In the depot.", False)
    assert (unfinished.correct, unfinished.response, unfinished.unfinished) == (0, "", True)


def test_the_empty_thought_of_a_template_is_not_scored_as_the_answer(tokenizer: Any) -> None:
    rendered = prompts.render_record(tokenizer, make_record(1, "Where?", "depot"))
    assert rendered.prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert rendered.answer == "depot<|im_end|>"


def test_records_without_a_label_are_left_out_and_counted(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ["billing", "delivery", None, "billing", ""]
    records = [make_record(n, f"q {n}", "a", **({} if x is None else {"label": x})) for n, x in enumerate(labels)]
    pools = read_pools(str(write_pools(tmp_path / "pools", {"c": {"train": records[:2], "test": records}})))
    axis = customer.plan_axis(pools, CustomerOptions(method="generation"), tokenizer, 0)
    assert axis is not None
    assert (axis.form.metric, axis.left_out, sum(part.num_items for part in axis.parts)) == ("f1_macro", 2, 3)
    assert "2 of 5 test records have no label and are left out" in capsys.readouterr().out
