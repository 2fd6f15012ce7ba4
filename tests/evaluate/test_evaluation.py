"""A whole evaluation, and its comparison."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from transformers import LlamaForCausalLM

from mixtune.artifacts.samples import read_samples
from mixtune.errors import ConfigError, DataError, ModelError

from ..evaluation import compare, evaluate, make_tokenizer, write_pools


@pytest.fixture(scope="module")
def evaluated(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    evaluate(world, folder / "base")
    evaluate(world, folder / "candidate", model_uri=str(world.adapter))
    evaluate(world, folder / "damaged", model_uri=str(world.damaged))
    return folder


def test_every_item_of_every_axis_has_one_row(evaluated: Path) -> None:
    samples = read_samples(str(evaluated / "base" / "samples"))
    counts = {axis: len(samples.table(axis)) for axis in samples.axes}
    assert counts == {"ifeval": 9, "mmlu": 20, "general_nll": 20, "customer": 24}
    mmlu: pa.Table = samples.table("mmlu")
    assert all(len(row) == 4 for row in mmlu["choice_logprobs"].to_pylist())
    assert len(set(mmlu["item_id"].to_pylist())) == 20


def test_an_unchanged_model_never_fails_and_a_damaged_one_does(evaluated: Path, tmp_path: Path) -> None:
    same = compare(evaluated / "base", evaluated / "base", tmp_path)
    assert all(axis.measure.change.difference == 0 for axis in same.axes)
    assert same.verdict != "fail"
    changed = compare(evaluated / "base", evaluated / "damaged", tmp_path)
    nll = next(axis for axis in changed.axes if axis.axis == "general_nll")
    assert nll.verdict == "fail" and nll.measure.change.difference > 0.02
    assert changed.verdict == "fail"


@pytest.mark.parametrize(
    ("limits", "words"),
    [({"mmlu": "a little"}, "on mmlu is a number from 0, got 'a little'"), ({"mmlu": -0.1}, "number from 0, got -0.1"),
     ({"mmlu": float("nan")}, "number from 0, got nan"), ({"humour": 0.1}, "no general axis 'humour'")],
)  # fmt: skip
def test_a_limit_that_is_none_is_refused(evaluated: Path, tmp_path: Path, limits: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        compare(evaluated / "base", evaluated / "base", tmp_path, limits=limits)


def test_an_adapter_that_changes_nothing_is_refused(world: Any, tmp_path: Path) -> None:
    from ..evaluation import make_adapter

    idle = make_adapter(world.base, tmp_path / "idle", scale=0.0)
    with pytest.raises(ModelError, match="changes no logit"):
        evaluate(world, tmp_path / "out", model_uri=str(idle), benchmarks={})


@pytest.mark.parametrize("method", ["logprobs", "generation"])
def test_a_model_whose_logits_are_no_numbers_is_refused(world: Any, tmp_path: Path, method: str) -> None:
    broken = LlamaForCausalLM.from_pretrained(world.base)
    with torch.no_grad():
        broken.lm_head.weight[5, 0] = torch.nan
    broken.save_pretrained(tmp_path / "broken")
    empty = write_pools(tmp_path / "pools", {})
    bare = type("W", (), {**vars(world), "general": empty})
    options = {"method": method, "max_new_tokens": 2}
    with pytest.raises(ModelError, match=r"logits are not finite.*float32"):
        evaluate(bare, tmp_path / "out", model_uri=str(tmp_path / "broken"), benchmarks={}, customer_options=options)


def test_base_and_candidate_are_asked_by_one_chat_template(world: Any, evaluated: Path, tmp_path: Path) -> None:
    samples = [read_samples(str(evaluated / side / "samples")) for side in ("base", "candidate")]
    digests = {one.identity.chat_template for one in samples}
    assert len(digests) == 1 and len(digests.pop()) == 16
    shutil.copytree(world.damaged, tmp_path / "other")
    tokenizer = make_tokenizer(tmp_path / "other")
    evaluate(world, tmp_path / "same", model_uri=str(tmp_path / "other"), benchmarks={})
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant", "helper")
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match=r"its chat template \(\w{16}\) is not the base model's"):
        evaluate(world, tmp_path / "differs", model_uri=str(tmp_path / "other"), benchmarks={})


def test_different_prompts_are_not_compared(world: Any, evaluated: Path, tmp_path: Path) -> None:
    benchmarks = {**world.benchmarks, "mmlu": {**world.benchmarks["mmlu"], "num_fewshot": 4}}
    evaluate(world, tmp_path / "four", benchmarks=benchmarks)
    with pytest.raises(DataError, match="not asked the same"):
        compare(evaluated / "base", tmp_path / "four", tmp_path)


def test_a_candidate_that_was_asked_fewer_items_is_paired_with_the_same_items_of_the_base(
    world: Any, evaluated: Path, tmp_path: Path
) -> None:
    model_uri = read_samples(str(evaluated / "candidate" / "samples")).model_uri
    for side, uri in {"base": "", "candidate": model_uri}.items():
        evaluate(world, tmp_path / side, model_uri=uri, limit=6, axis_limits={"mmlu": 4})
    alike = compare(tmp_path / "base", tmp_path / "candidate", tmp_path)
    paired = compare(evaluated / "base", tmp_path / "candidate", tmp_path)
    assert {axis.axis: axis.items.total for axis in paired.axes} == {
        "ifeval": 6, "mmlu": 4, "general_nll": 6, "customer": 6
    }  # fmt: skip
    assert [axis.measure.base for axis in paired.axes] == pytest.approx([axis.measure.base for axis in alike.axes])
    assert (paired.limit, paired.identity["base"].limit) == (6, 0)
    page = (tmp_path / "report_path").read_text()
    assert "6, of all that the base was asked" in page
    with pytest.raises(DataError, match="customer: base was evaluated on 6 items at most, candidate on all; give both"):
        compare(tmp_path / "base", evaluated / "candidate", tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"uri": "x", "shots": 5}, "unknown key 'shots'"), ({"num_fewshot": 5}, "'uri' is missing"),
     ({"uri": "x", "num_fewshot": "five"}, "num_fewshot is a whole number; got 'five'"), ("x", "give its options"),
     ({"uri": "x", "num_fewshot": 2.5}, "num_fewshot is a whole number; got 2.5")],
)  # fmt: skip
def test_a_wrong_option_of_a_benchmark_is_refused(world: Any, tmp_path: Path, options: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        evaluate(world, tmp_path / "out", benchmarks={"mmlu": options})


def test_an_axis_can_have_a_limit_of_its_own_and_the_work_is_said(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = evaluate(world, tmp_path / "out", limit=6, axis_limits={"mmlu": 4, "general_nll": 0})
    counts = {name: axis.num_items for name, axis in samples.axes.items()}
    assert counts == {"ifeval": 6, "mmlu": 4, "general_nll": 20, "customer": 6}
    assert samples.limit == 6
    out = capsys.readouterr().out
    assert (
        "to do: customer: 6 items, general_nll: 20 items, ifeval: 6 answers of at most 8 tokens, mmlu: 4 items" in out
    )
    with pytest.raises(ConfigError, match="axis_limits: no axis 'mmmlu'; did you mean 'mmlu'"):
        evaluate(world, tmp_path / "out", axis_limits={"mmmlu": 4})
