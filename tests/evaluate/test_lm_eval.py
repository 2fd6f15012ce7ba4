"""Any lm-eval task by its name, here one of our own, defined beside its data."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from mixtune.errors import ConfigError
from mixtune.evaluate.benchmarks import lm_eval_task

from ..evaluation import compare, evaluate, sentence, write_jsonl

CHOICES = """
task: trivia
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}, {metric: acc_norm, aggregation: mean, higher_is_better: true}]
metadata: {version: 1}
"""
ANSWERS = """
task: spoken
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 4, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
metadata: {version: 1}
"""
FILTERS = """
filter_list:
  - name: strict
    filter: [{function: regex, regex_pattern: "#### (.*)"}, {function: take_first}]
  - name: loose
    filter: [{function: regex, regex_pattern: "(.*)"}, {function: take_first}]
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {"question": sentence(n), "choices": [sentence(n + 1, 2), sentence(n + 2, 3)], "answer": n % 2}
        for n in range(9)
    ]
    data = write_jsonl(folder / "data.jsonl", rows)
    for name, text in (("trivia", CHOICES), ("spoken", ANSWERS)):
        (folder / f"{name}.yaml").write_text(text.replace("DATA", json.dumps(str(data))))
    worse = ANSWERS.replace("spoken", "worse").replace("higher_is_better: true", "higher_is_better: false")
    for name, text in (("filtered", ANSWERS.replace("spoken", "filtered") + FILTERS), ("worse", worse)):
        (folder / f"{name}.yaml").write_text(text.replace("DATA", json.dumps(str(data))))
    (folder / "far.yaml").write_text(CHOICES.replace("trivia", "far").replace("json", "nobody/nothing", 1))
    return folder


def named(tasks: Path, task: str, **options: Any) -> dict[str, Any]:
    return {task: {"form": "lm_eval", "task": task, "uri": str(tasks), **options}}


@pytest.mark.slow
def test_a_task_of_ones_own_is_an_axis_like_any_other(world: Any, tasks: Path, tmp_path: Path) -> None:
    benchmarks = {**named(tasks, "trivia", metric="acc_norm"), **named(tasks, "spoken")}
    base = evaluate(world, tmp_path / "base", benchmarks=benchmarks)
    evaluate(world, tmp_path / "candidate", benchmarks=benchmarks, model_uri=str(world.damaged))
    table, scores = base.table("trivia"), base.axes["trivia"].scores
    measures = [dict(row) for row in table["measures"].to_pylist()]
    assert len(set(table["item_id"].to_pylist())) == 9
    assert scores["score"] == scores["acc_norm"] == pytest.approx(sum(row["acc_norm"] for row in measures) / 9)
    assert scores["acc"] == pytest.approx(sum(row["acc"] for row in measures) / 9)
    assert any(base.table("spoken")["response"].to_pylist())
    comparison = compare(tmp_path / "base", tmp_path / "candidate", tmp_path, limits={"trivia": 0.5})
    axes = {axis.axis: axis for axis in comparison.axes}
    assert (axes["trivia"].limit, axes["spoken"].limit, axes["spoken"].items.total) == (0.5, 0.02, 9)


def test_a_task_that_filters_answers_in_two_ways_has_each_item_once(world: Any, tasks: Path, tmp_path: Path) -> None:
    axis = {"filtered": {**named(tasks, "filtered", metric="exact_match,loose")["filtered"]}}
    samples = evaluate(world, tmp_path / "out", benchmarks=axis)
    table = samples.table("filtered")
    assert len(set(table["item_id"].to_pylist())) == len(table) == 9
    assert set(dict(table["measures"][0].as_py())) == {"exact_match", "exact_match,loose"}
    assert samples.axes["filtered"].scores["score"] == samples.axes["filtered"].scores["exact_match,loose"]


def test_a_task_is_looked_for_before_anything_is_asked(tasks: Path) -> None:
    options = lm_eval_task.LmEvalOptions(task="quiz", uri=str(tasks))
    with pytest.raises(ConfigError, match="lm-eval has no task 'quiz'; give the name of a task"):
        lm_eval_task.FORM.plan("quiz", options, cast(Any, None), 0)


@pytest.mark.parametrize(
    ("task", "metric", "words"),
    [
        ("trivia", "acc_nrom", "no metric 'acc_nrom'; did you mean 'acc_norm'"),
        ("trivia", "bleu", "no metric 'bleu'; there are acc, acc_norm"),
        ("filtered", "exact_match,lose", "no metric 'exact_match,lose'; did you mean 'exact_match,loose'"),
        ("worse", "exact_match", "less of 'exact_match' is better"),
    ],
)
def test_a_metric_is_looked_for_before_anything_is_asked(tasks: Path, task: str, metric: str, words: str) -> None:
    options = lm_eval_task.LmEvalOptions(task=task, uri=str(tasks), metric=metric)
    with pytest.raises(ConfigError, match=words):
        lm_eval_task.FORM.plan(task, options, cast(Any, None), 0)


def test_metrics_that_a_task_measures_are_taken_and_those_of_its_own_code_left_alone(tasks: Path) -> None:
    coded = ANSWERS.replace("spoken", "coded") + "process_results: !function utils.score\n"
    (tasks / "coded.yaml").write_text(coded.replace("DATA", "x"))
    names = [("trivia", "acc"), ("filtered", "exact_match,loose"), ("filtered", "exact_match"), ("coded", "em_loose")]
    for task, metric in names:
        options = lm_eval_task.LmEvalOptions(task=task, uri=str(tasks), metric=metric)
        assert lm_eval_task.FORM.plan(task, options, cast(Any, None), 0)


def test_a_limit_takes_the_first_items(world: Any, tasks: Path, tmp_path: Path) -> None:
    found = evaluate(world, tmp_path / "out", benchmarks=named(tasks, "trivia"), limit=4)
    assert found.axes["trivia"].num_items == 4


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [("far", {}, r"lm-eval task far: its data cannot be had \(HF_HUB_OFFLINE is set\)"),
     ("quiz", {}, "lm-eval has no task 'quiz'"), ("trivia", {"metric": "bleu"}, "no metric 'bleu'; there are acc"),
     ("worse", {}, "less of 'exact_match' is better, and more counts as better here")],
)  # fmt: skip
def test_a_task_that_cannot_be_run_is_told_why(
    world: Any, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, options: Any, words: str
) -> None:
    import datasets
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=words):
        evaluate(world, tmp_path / "out", benchmarks=named(tasks, task, **options))


def test_multiple_choice_has_the_scores_of_lm_evals_arc(world: Any, tmp_path: Path) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    rows = [
        {"id": str(n), "question": sentence(n), "answerKey": "1234"[n % 4],
         "choices": {"text": [sentence(n + k, 1 + k) for k in range(4)], "label": list("1234")}} for n in range(12)
    ]  # fmt: skip
    path = str(write_jsonl(tmp_path / "arc" / "test.jsonl", rows))
    config = load_yaml(Path(lm_eval.__file__).parent / "tasks/arc/arc_easy.yaml", resolve_func=True)
    config.pop("dataset_name", None)
    split = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": path}}}
    unused = {"training_split": None, "validation_split": None, "test_split": "test", "tag": None}
    theirs = lm_eval.simple_evaluate(
        model="hf", model_args={"pretrained": str(world.base), "dtype": "float32"}, tasks=[{**config, **split, **unused}],
        device="cpu", task_manager=TaskManager(include_defaults=False), bootstrap_iters=0, log_samples=True,
    )["samples"]["arc_easy"]  # fmt: skip
    ours = evaluate(world, tmp_path / "out", benchmarks={"arc": {"uri": path, "form": "multiple_choice"}}).table("arc")
    measures = [dict(row)["accuracy"] for row in ours["measures"].to_pylist()]
    samples = sorted(theirs, key=lambda sample: sample["doc_id"])
    assert ours["correct"].to_pylist() == [sample["acc_norm"] for sample in samples]
    assert measures == [sample["acc"] for sample in samples]
    for row, sample in zip(ours["choice_logprobs"].to_pylist(), samples, strict=True):
        assert row == pytest.approx([float(one[0][0]) for one in sample["resps"]], abs=1e-4)


@pytest.mark.parametrize("name", ["arc_easy", "mmlu_anatomy"])
def test_a_task_of_lm_evals_own_is_found_without_an_index_of_all(name: str) -> None:
    options = lm_eval_task.LmEvalOptions(task=name)
    assert lm_eval_task.FORM.plan(name, options, cast(Any, None), 0)
    assert len(lm_eval_task._load_tasks("", name).all_tasks) < 1000
