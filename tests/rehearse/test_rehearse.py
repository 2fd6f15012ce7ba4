"""A general pool out of the demo's base model alone."""

import json
import multiprocessing
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kfp import dsl
from transformers import AutoTokenizer

from mixtune import storage
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.errors import ConfigError, DataError, ModelError
from mixtune.inference import loading
from mixtune.inference import transformers_engine as engines
from mixtune.inference.engine import Completion, Sampling
from mixtune.inference.loading import ModelSource
from mixtune.inference.vllm_engine import VllmEngine
from mixtune.rehearse import run as rehearse_run
from mixtune.rehearse.component import rehearse
from mixtune.rehearse.conversations import (
    LONGEST_LOOP,
    LOOPS,
    ConversationGenerator,
    RehearseSettings,
    find_turn,
    has_loop,
)
from mixtune.sanitize.component import sanitize

LIMITS = {"max_prompt_tokens": 96, "max_new_tokens": 64}


def artifact(kind: type, path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return kind(name=path.name, uri=str(path))


def run(folder: Path, **inputs: Any) -> tuple[bytes, dict[str, Any]]:
    """The records' bytes and the manifest."""
    pool, summary = artifact(dsl.Dataset, folder / "pool"), artifact(dsl.Markdown, folder / "summary")
    parameters = {
        name: inputs.pop(name) for name in inputs.keys() & {"base_model", "num_records", "prompts_uri", "out_uri"}
    }
    given = {"base_model": str(BASE_MODEL), "num_records": 150.0, "options": {**LIMITS, **inputs}, **parameters}
    uri = rehearse.python_func(pool=pool, summary=summary, **given)
    with storage.open_read(uri) as stream:
        return stream.read(), storage.read_json(pool.path)


def run_alone(folder: Path) -> None:
    torch.set_num_threads(1)  # torch makes its pool anew after a fork: before loading threads race for it
    run(folder)


def done(tokenizer: Any, text: str) -> Completion:
    return Completion(token_ids=tuple(tokenizer(text)["input_ids"]), truncated=False, latency_seconds=0.0)


def prompts_of(records: bytes) -> list[str]:
    return [json.loads(line)["messages"][0]["content"] for line in records.splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("whole")
    return *run(folder), folder


def test_the_model_asks_itself_and_what_it_says_is_a_pool_that_sanitize_takes_whole(
    whole: tuple[bytes, dict[str, Any], Path], tmp_path: Path
) -> None:
    records, manifest, folder = whole
    assert len(records.splitlines()) == manifest["num_records"] == 150
    assert manifest["num_drawn"] == 150 + sum(manifest["dropped"].values())
    assert "150 records out of" in (folder / "summary").read_text()
    pools = artifact(dsl.Dataset, tmp_path / "pools")
    pages = {"report": artifact(dsl.HTML, tmp_path / "r"), "summary": artifact(dsl.Markdown, tmp_path / "s")}
    source = {"name": "rehearsal", "uri": str(folder / "data" / "pool" / "records.jsonl")}
    sanitize.python_func(
        sources=[source],
        pools=pools,
        **pages,
        base_model=str(BASE_MODEL),
        splits={"test_ratio": 0.0},
        dedup={"near_duplicates": 0.0},
    )
    (pool,) = storage.read_json(pools.path)["pools"]
    assert pool["splits"]["train"]["num_records"] == 150


def test_most_of_what_the_demo_s_model_asks_can_be_used(whole: tuple[bytes, dict[str, Any], Path]) -> None:
    assert whole[1]["num_drawn"] < 1.3 * 150
    assert len(set(prompts_of(whole[0]))) == 150


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_one_keeps_nothing_of_them(
    whole: tuple[bytes, dict[str, Any], Path], tmp_path: Path
) -> None:
    assert run(tmp_path / "same") == (whole[0], {**whole[1], "data_uri": str(tmp_path / "same" / "data" / "pool")})
    other, _ = run(tmp_path / "same", seed=7, num_records=100)
    assert len(set(prompts_of(other)) & set(prompts_of(whole[0]))) < 20


@pytest.mark.slow
def test_a_conversation_does_not_depend_on_those_drawn_with_it(whole: tuple[bytes, dict[str, Any], Path]) -> None:
    source = ModelSource(base_model=str(BASE_MODEL))
    fetched = loading.fetch(source)
    tokenizer, engine = loading.load_tokenizer(source, fetched), loading.load_engine(source, fetched)
    assert isinstance(engine, engines.TransformersEngine)

    def drawn(numbers: range) -> list[tuple[str, str, str]]:
        found = ConversationGenerator(tokenizer, RehearseSettings(**LIMITS))([(n, "") for n in numbers], engine)
        return [(one.text, one.response, one.error) for one in found]

    together = drawn(range(96))
    assert together == [one for start in range(0, 96, 32) for one in drawn(range(start, start + 32))]
    engine.batch_tokens = 1000
    assert drawn(range(96)) == together


def test_asking_for_more_draws_only_what_is_missing(whole: tuple[bytes, dict[str, Any], Path], tmp_path: Path) -> None:
    folder = tmp_path / "more"
    shutil.copytree(whole[2], folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    more, manifest = run(folder, num_records=300)
    assert more.startswith(whole[0]) and len(more.splitlines()) == manifest["num_records"] == 300
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())


@pytest.mark.slow
def test_a_rehearsal_killed_after_its_first_part_keeps_it_and_ends_the_same(
    whole: tuple[bytes, dict[str, Any], Path], tmp_path: Path
) -> None:
    process = multiprocessing.get_context("fork").Process(target=run_alone, args=(tmp_path,))
    process.start()
    while not (parts := list(tmp_path.rglob("*.parquet"))) and process.is_alive():
        time.sleep(0.002)
    process.kill()
    process.join()
    before = {path: path.stat().st_mtime_ns for path in parts}
    assert before and not (tmp_path / "pool").exists()
    assert run(tmp_path)[0] == whole[0]
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())


@pytest.mark.slow
def test_a_folder_in_s3_takes_records_and_manifest(
    whole: tuple[bytes, dict[str, Any], Path], bucket: str, tmp_path: Path
) -> None:
    records, manifest = run(tmp_path, out_uri=f"{bucket}/rehearsed")
    assert records == whole[0]
    assert storage.read_json(f"{bucket}/rehearsed/manifest.json") == manifest


def test_what_cannot_be_used_is_dropped_and_counted_by_reason(tmp_path: Path) -> None:
    records, manifest = run(tmp_path, max_prompt_tokens=14, max_new_tokens=8, num_records=60)
    assert {"prompt: cut", "answer: cut"} <= set(manifest["dropped"])
    assert manifest["num_drawn"] == 60 + sum(manifest["dropped"].values())
    tokenizer = AutoTokenizer.from_pretrained(BASE_MODEL)
    assert all(len(tokenizer(prompt)["input_ids"]) <= 14 for prompt in prompts_of(records))


def test_a_model_that_asks_nothing_of_use_is_refused_with_the_way_out(world: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"0 of 5 records.*prompt: cut.*give prompts_uri"):
        run(tmp_path, base_model=str(world.base), num_records=5, max_prompt_tokens=8)


@pytest.mark.parametrize(
    "template",
    [
        "{% for message in messages %}{{ message['content'] }}<|im_end|>{% endfor %}",
        "{% for message in messages %}[INST] {{ message['content'] }} [/INST]{% endfor %}",
        "<|im_start|>always the same",
    ],
    ids=["nothing before", "no control token behind", "does not show it"],
)
def test_a_template_without_a_place_for_a_user_s_turn_is_refused(template: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE_MODEL)
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match=r"no place from which.*give prompts_uri"):
        find_turn(tokenizer)


def test_prompts_of_a_file_are_answered_by_the_model_as_a_given_template_asks_it(tmp_path: Path) -> None:
    asked = ["What is the capital of France?", "Say river two times.", "What is the capital of France?"]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in asked))
    records, manifest = run(tmp_path, prompts_uri=str(file), temperature=0.01)
    assert prompts_of(records) == asked[:2]
    assert json.loads(records.splitlines()[0])["messages"][1]["content"] == "Paris"
    assert manifest["dropped"] == {"prompt: duplicate": 1}
    template = tmp_path / "t.jinja"
    template.write_text("<|im_start|>user\n" + asked[0] + "<|im_end|>\n<|im_start|>assistant\n")
    records, other = run(
        tmp_path / "other",
        prompts_uri=str(file),
        temperature=0.01,
        chat_template_uri=str(template),
        out_uri=str(tmp_path),
    )
    assert [json.loads(line)["messages"][1]["content"] for line in records.splitlines()] == ["Paris", "Paris"]
    assert other["identity"]["chat_template"] != manifest["identity"]["chat_template"]
    file.write_text('{"prompt": "x"}\n{"question": "y"}\n')
    with pytest.raises(DataError, match="row 2: no column 'prompt'"):
        run(tmp_path, prompts_uri=str(file))


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"temperature": 0.0}, "temperature is above 0"),
        ({"top_p": 1.5}, "top_p is above 0 and at most 1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 1 or more"),
        ({"num_records": 0}, "num_records is 1 or more"),
        ({"seed": -1}, "seed is 0 to"),
    ],
)
def test_options_out_of_range_are_refused(inputs: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        run(tmp_path, **inputs)


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), min_size=1, max_size=LONGEST_LOOP))
def test_a_piece_that_stands_there_often_enough_in_a_row_is_a_loop(before: list[int], piece: list[int]) -> None:
    assert has_loop(before + piece * LOOPS)
    assert not has_loop(list(range(200)) + [7, 8] * (LOOPS - 1))


def test_tokens_are_drawn_as_often_as_they_are_probable_and_top_p_leaves_the_tail_out() -> None:
    chances = torch.tensor([0.5, 0.1, 0.3, 0.1])
    uniforms = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    logits = chances.log().expand(1000, -1)

    def counts(**options: float) -> list[int]:
        sampling = Sampling(**{"temperature": 1.0, "top_p": 1.0, **options}, seed=0, stream_ids=())
        return torch.bincount(engines.draw(logits, uniforms, sampling), minlength=4).tolist()

    assert counts() == [500, 100, 300, 100]
    assert counts(top_p=0.7) == [625, 0, 375, 0]
    assert counts(temperature=0.05) == pytest.approx([1000, 0, 0, 0], abs=1)


def test_vllm_is_told_a_seed_for_every_text() -> None:
    told: list[Any] = []

    def generate(prompts: list[Any], wanted: list[Any], **_: Any) -> list[Any]:
        told.extend(wanted)
        output = SimpleNamespace(token_ids=[5, 9], finish_reason="stop")
        return [SimpleNamespace(outputs=[output], metrics=None) for _ in prompts]

    engine = VllmEngine(
        SimpleNamespace(generate=generate), lambda **options: options, max_length=64, stop_ids=frozenset({2})
    )
    sampling = RehearseSettings(temperature=0.7, top_p=0.9).sampling([0, 2], frozenset({9}))
    assert [one.token_ids for one in engine.generate([(1,), (1,)], 8, sampling)] == [(5,), (5,)]
    assert told[0] == {
        "temperature": 0.7, "top_p": 0.9, "max_tokens": 8, "stop_token_ids": [2, 9], "detokenize": False,
        "seed": sampling.seeds()[0],
    }  # fmt: skip
    assert told[0]["seed"] != told[1]["seed"]


def test_what_a_reasoning_model_thinks_goes_by_its_own_key() -> None:
    answer = json.loads(rehearse_run.record_line("2+2?", "<think>\nTwo and two.\n</think>\n\n4"))["messages"][1]
    assert answer == {"role": "assistant", "content": "4", "reasoning": "Two and two."}
    plain = json.loads(rehearse_run.record_line("2+2?", "<think></think>4"))["messages"][1]
    assert plain == {"role": "assistant", "content": "4"}
    marked = json.loads(rehearse_run.record_line("2+2?", "<mm:think>Two and two.</mm:think>4"))["messages"][1]
    assert marked == answer, "whatever the model's family writes around a thought"
    tokenizer = AutoTokenizer.from_pretrained(BASE_MODEL)
    engine = SimpleNamespace(generate=lambda prompts, *_: [done(tokenizer, text) for text in ("<think>2</think>", "4")])
    samples = ConversationGenerator(tokenizer, RehearseSettings())([(0, "2+2?"), (1, "3+1?")], engine)
    assert [one.error for one in samples] == ["answer: empty", ""], "thought and said nothing"


def test_a_thought_that_the_chat_template_opens_goes_by_its_own_key() -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE_MODEL)
    tokenizer.chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
    texts = ("Two and two.\n</think>\n\n4", "Two and")
    engine = SimpleNamespace(generate=lambda prompts, *_: [done(tokenizer, text) for text in texts])
    samples = ConversationGenerator(tokenizer, RehearseSettings())([(0, "2+2?"), (1, "3+1?")], engine)
    assert [one.error for one in samples] == ["", "answer: empty"]
    answer = json.loads(rehearse_run.record_line("2+2?", samples[0].response))["messages"][1]
    assert answer == {"role": "assistant", "content": "4", "reasoning": "Two and two."}
