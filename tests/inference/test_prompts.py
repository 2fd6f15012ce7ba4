"""A model is asked with the tokens that it learned an answer behind, by the settings that it was trained with."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from mixtune.artifacts.pools import read_pools
from mixtune.chat.tokenizer import ChatTokenizer
from mixtune.evaluate.run import EvaluationPools, ask_as_set
from mixtune.inference.prompts import AskingTokenizer, encode, render_prompt, render_question, render_record
from mixtune.settings.chat import ChatSettings
from mixtune.settings.inference import EvaluateSettings
from mixtune.settings.mix import TokenSettings

from ..chat.families import KINDS, learn, make_record, read_templates, save_family
from ..evaluation import make_record as record_of
from ..evaluation import write_pools

FAMILIES = ("deepseekv3", "gemma", "glm4moe", "gptoss", "llama3", "qwen3", "qwen3_6")
EMPTY = "<think>\n\n</think>\n\n"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root, templates = tmp_path_factory.mktemp("families"), read_templates()
    return {name: save_family(root / name, name, templates[name][0]) for name in FAMILIES}


@pytest.mark.parametrize("thinking", ["record", "on", "off"])
def test_the_tokens_of_a_question_and_its_answer_are_those_that_are_learned(
    thinking: str, folders: dict[str, Path]
) -> None:
    compared = 0
    chat = ChatSettings(thinking=thinking, on_lost={"system": "drop_field", "reasoning": "drop_field"})
    for name, folder in folders.items():
        learning = ChatTokenizer(folder, TokenSettings(**vars(chat)))
        asking = AskingTokenizer(AutoTokenizer.from_pretrained(folder), None, chat)
        for kind in KINDS:
            (item, *_), record = learn(learning, kind), make_record(kind)
            if item.problem:
                continue
            rendered = render_record(asking, record)
            assert rendered.prompt == render_prompt(asking, record)
            ids = [*encode(asking, rendered.prompt), *encode(asking, rendered.answer)]
            assert item.input_ids[: len(ids)].tolist() == ids, (name, kind)
            assert not item.loss_mask[len(ids) :].any(), (name, kind)
            assert item.loss_mask[len(ids) - 1], (name, kind)
            compared += 1
    assert compared > 60


def test_benchmarks_are_asked_with_thoughts_where_records_have_them_or_as_is_set(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(folders["qwen3"])
    plain, thoughtful = record_of(1, "Where?", "Here."), record_of(2, "Where?", "<think>\nHm.\n</think>\n\nThere.")

    def asked(held_out: list[Any], **options: Any) -> tuple[bool, bool]:
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        general = read_pools(str(write_pools(place / "general", {"g": {"holdout": held_out}})))
        customer = read_pools(str(write_pools(place / "customer", {"c": {"test": [thoughtful]}})))
        asking = ask_as_set(EvaluateSettings(**options), EvaluationPools(customer, general), tokenizer)
        return render_question(asking, "Why?").endswith(EMPTY), render_prompt(asking, plain).endswith(EMPTY)

    assert asked([plain, plain, thoughtful]) == (True, True)
    assert asked([thoughtful]) == asked([]) == (False, True)
    assert asked([plain], chat=ChatSettings(thinking="on")) == (False, False)
    assert asked([thoughtful], chat=ChatSettings(thinking="off")) == (True, True)
    assert asked([plain], thinking="on") == (False, False)
    assert asked([thoughtful], thinking="template") == (False, True)
