"""GSM8K beside lm-eval's own: prompts, answers, the two readings of them, and an axis that is compared."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixtune import benchmark_files
from mixtune.errors import DataError
from mixtune.evaluate.benchmarks import gsm8k
from mixtune.evaluate.named_benchmarks import parse_benchmarks

from ..evaluation import compare, evaluate, write_jsonl
from .layouts import ask, make_asking_tokenizer

PROBLEMS = [
    (
        "Janet's ducks lay 16 eggs, she eats 3 and bakes with 4. How many are left?",
        "16 - 3 - 4 = <<16-3-4=9>>9\n#### 9",
    ),
    ("A robe takes 2 bolts of blue fiber and half that of white. How many in all?", "2 + 1 = <<2+1=3>>3\n#### 3"),
    ("A house of $80,000 gains 150 %. What is the profit?", "80,000 * 1.5 = $120,000\n#### 120,000"),
    ("It is 5 degrees and falls by 8. What is it now?", "5 - 8 = -3\n#### -3"),
    ("What are 3 sprints of 60 meters, 3 times a week?", "3 * 3 * 60 = 540\n#### 540"),
]
ROWS = [{"question": question, "answer": answer} for question, answer in PROBLEMS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gsm8k")
    for split, rows in (("test", ROWS), ("train", ROWS[::-1])):
        write_jsonl(folder / f"{split}.jsonl", rows)
    return folder


def test_prompts_answers_and_scores_are_those_of_lm_eval(world: Any, folder: Path, tmp_path: Path) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(Path(lm_eval.__file__).parent / "tasks/gsm8k/gsm8k.yaml", resolve_func=True)
    config.pop("dataset_name")
    files = {split: str(folder / f"{split}.jsonl") for split in ("test", "train")}
    result = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(world.base), "dtype": "float32"},
        tasks=[{**config, "dataset_path": "json", "dataset_kwargs": {"data_files": files},
                "fewshot_config": {"sampler": "first_n"}}],
        num_fewshot=2,
        gen_kwargs="max_gen_toks=24",
        device="cpu",
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )  # fmt: skip
    theirs = {(row["filter"], row["doc_id"]): row for row in result["samples"]["gsm8k"]}
    options = {"uri": str(folder), "num_fewshot": 2, "max_new_tokens": 24}
    ours = evaluate(world, tmp_path / "out", benchmarks={"gsm8k": options}).table("gsm8k").to_pylist()
    shots = tuple(gsm8k.read_problems(ROWS[::-1], ""))[:2]
    for row, problem in zip(ours, gsm8k.read_problems(ROWS, ""), strict=True):
        strict, flexible = (theirs[name, int(row["item_id"])] for name in ("strict-match", "flexible-extract"))
        assert strict["arguments"][0][0] == gsm8k.prompt(problem, shots)
        assert strict["resps"][0][0] == row["response"]
        assert (row["correct"], dict(row["measures"])["flexible_match"]) == (
            strict["exact_match"],
            flexible["exact_match"],
        )


@given(st.text(alphabet="#0123456789 $,.-aZ\n", max_size=40) | st.sampled_from([answer for _, answer in PROBLEMS]))
def test_answers_are_read_and_compared_as_lm_eval_reads_them(text: str) -> None:
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    strict = RegexFilter(r"#### (\-?[0-9\.\,]+)")
    flexible = RegexFilter(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)
    for read, theirs in ((gsm8k.read_strict, strict), (gsm8k.read_flexible, flexible)):
        expected = theirs.apply([[text]], [{}])[0][0]  # type: ignore[index]
        assert read(text) == expected
        for _, answer in PROBLEMS:
            same = exact_match_hf_evaluate([expected], [answer], [",", "\\$", "(?s).*#### ", "\\.$"], ignore_case=True)
            assert (gsm8k.normalise(read(text)) == gsm8k.normalise(answer)) == bool(same["exact_match"])


@pytest.mark.parametrize(
    "said",
    [
        "#### 9\n\nQ: And of 3?",
        "It is 9.\n\nUser: And of 3?\nAssistant: 4",
        "9\n**Question 2:** 3",
        "\nProblem: 16 eggs.\nSo 9",
        "তাই ৯",
        "It is ９.",
    ],
)
def test_what_a_model_asks_itself_after_its_answer_is_no_part_of_it(said: str, folder: Path, tmp_path: Path) -> None:
    entry = {"form": "gsm8k", "uri": str(folder), "num_fewshot": 0}
    _, samples = ask(parse_benchmarks({"axis": entry})["axis"], make_asking_tokenizer(tmp_path), said)
    assert dict(samples[0].measures) == {"flexible_match": 1}


def test_an_axis_of_gsm8k_is_compared_like_any_other(world: Any, folder: Path, tmp_path: Path) -> None:
    benchmarks = {"maths": {"form": "gsm8k", "uri": str(folder), "num_fewshot": 1, "max_new_tokens": 8}}
    base = evaluate(world, tmp_path / "base", benchmarks=benchmarks)
    evaluate(world, tmp_path / "candidate", benchmarks=benchmarks, model_uri=str(world.damaged))
    assert {"strict_match", "flexible_match", "tokens_per_second"} <= set(base.axes["maths"].scores)
    axes = {axis.axis: axis for axis in compare(tmp_path / "base", tmp_path / "candidate", tmp_path).axes}
    assert [measure.metric for measure in axes["maths"].measures] == ["strict_match", "flexible_match"]
    assert (axes["maths"].limit, axes["maths"].items.total) == (0.02, 5)


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [([{"question": "q", "answer": "nine"}], {}, "row 1: answer ends in '#### '"), ([{"question": "q"}], {}, "or is one; got ''"),
     (ROWS, {"num_fewshot": 6}, "0 items in the train split, num_fewshot is 6")],
)  # fmt: skip
def test_rows_that_are_no_problems_are_refused(
    world: Any, tmp_path: Path, rows: list[Any], options: dict[str, Any], words: str
) -> None:
    path = write_jsonl(tmp_path / "test.jsonl", rows)
    with pytest.raises(DataError, match=words):
        evaluate(world, tmp_path / "out", benchmarks={"gsm8k": {"uri": str(path), "num_fewshot": 0, **options}})


@pytest.mark.parametrize(
    ("row", "question", "answer"),
    [({"question": "q", "answer": None, "answer_number": 18, "equation_solution": None}, "q", "#### 18"),
     ({"question": "q", "answer": "Step-by-Step Answer: It is 11.", "answer_number": 11}, "q",
      "Step-by-Step Answer: It is 11.\n#### 11"),
     ({"ID": "c-1", "Body": "A pack has 76.", "Question": "How many?", "Answer": "145.0"}, "A pack has 76. How many?", "#### 145"),
     ({"question": "q", "answer": 1200}, "q", "#### 1200")],
)  # fmt: skip
def test_a_number_may_stand_alone_as_in_mgsm_and_svamp(
    tmp_path: Path, row: dict[str, Any], question: str, answer: str
) -> None:
    path = str(write_jsonl(tmp_path / "test.jsonl", [row]))
    (problem,) = gsm8k.read_problems(benchmark_files.read_items(path), path)
    assert (problem.question, problem.answer) == (question, answer)
