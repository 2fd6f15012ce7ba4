"""The dial: a tuned model at lower strengths, evaluated as it was, each with a verdict of its own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import LlamaForCausalLM

from mixtune import interpolation
from mixtune.artifacts.comparison import Comparison, DialVerdict
from mixtune.artifacts.samples import Dial, DialPoint, read_samples
from mixtune.artifacts.typed_json import read_artifact
from mixtune.cli import main
from mixtune.errors import ConfigError, ModelError
from mixtune.evaluate.named_benchmarks import parse_benchmarks
from mixtune.evaluate.run import Inputs, sweep
from mixtune.settings.inference import EvaluateSettings

from ..evaluation import compare, evaluate, make_adapter, rows


def swept(world: Any, folder: Path, model: Path | str, strengths: list[Any]) -> tuple[DialPoint, ...]:
    inputs = Inputs(
        base_model=str(world.base), model_uri=str(model), customer_path=str(world.customer),
        general_path=str(world.general), benchmarks=parse_benchmarks({"mmlu": world.benchmarks["mmlu"]}),
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    sweep(EvaluateSettings(), inputs, strengths, str(folder / "dial"), str(folder / "data" / "dial"))
    return read_artifact(Dial, str(folder / "dial")).points


@pytest.fixture(scope="module")
def turned(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("turned")
    benchmarks = {"mmlu": world.benchmarks["mmlu"]}
    evaluate(world, folder / "base", benchmarks=benchmarks)
    evaluate(world, folder / "candidate", model_uri=str(world.damaged), benchmarks=benchmarks)
    swept(world, folder, world.damaged, [0.9, 0.1])
    return folder


def test_a_model_turned_down_is_evaluated_as_the_very_model_that_the_command_makes(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (one,) = swept(world, tmp_path, world.adapter, [0.25])
    made = tmp_path / "made"
    command = ["dial", str(world.adapter), "--base-model", str(world.base), "--strength", "0.25", "--out", str(made)]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert f"at 0.25: {made}\nnext: " in shown and f"chat {made} --base-model {world.base}" in shown
    assert main(command) == 2, "what is there is not overwritten"
    benchmarks = {"mmlu": world.benchmarks["mmlu"]}
    alone = evaluate(world, tmp_path / "alone", model_uri=str(made), benchmarks=benchmarks)
    found = read_samples(one.samples)
    assert rows(found) == rows(alone)
    assert found.model_uri == str(world.adapter)
    assert found.identity.strength == 0.25


@pytest.mark.parametrize("kind", ["adapter", "weights"])
def test_a_quarter_of_the_strength_is_a_quarter_of_the_way_from_the_base(world: Any, tmp_path: Path, kind: str) -> None:
    tuned = world.adapter if kind == "adapter" else world.damaged
    made = interpolation.interpolate_model(tuned, world.base, 0.25, tmp_path / "made")

    def weights(folder: Path) -> dict[str, torch.Tensor]:
        if kind == "adapter":
            model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(world.base), str(folder))
            return dict(model.merge_and_unload().named_parameters())
        return dict(LlamaForCausalLM.from_pretrained(folder).named_parameters())

    base, whole, part = (
        dict(LlamaForCausalLM.from_pretrained(world.base).named_parameters()),
        *map(weights, (tuned, made)),
    )
    assert any(not torch.equal(base[name], value) for name, value in whole.items())
    for name, value in whole.items():
        assert torch.allclose(part[name] - base[name], 0.25 * (value - base[name]), atol=1e-6)


def test_every_strength_gets_a_verdict_and_the_candidates_own_stays(turned: Path, tmp_path: Path) -> None:
    alone = compare(turned / "base", turned / "candidate", tmp_path)
    found = compare(turned / "base", turned / "candidate", tmp_path, dial_path=str(turned / "dial"))
    assert (found.verdict, alone.dial) == (alone.verdict, ())
    low, high = found.dial
    assert (low.strength, high.strength) == (0.1, 0.9)

    def rise(item: Comparison | DialVerdict) -> float:
        return next(axis.measure.change.difference for axis in item.axes if axis.axis == "general_nll")

    assert rise(low) < rise(high) < rise(found)
    assert high.verdict == "fail"
    assert "Turned down" in (tmp_path / "report_path").read_text()


def test_a_strength_that_cannot_be_evaluated_is_told_and_costs_nothing_else(
    world: Any, turned: Path, tmp_path: Path
) -> None:
    idle = make_adapter(world.base, tmp_path / "idle", scale=0.0)
    (one,) = swept(world, tmp_path, idle, [0.5])
    assert "changes no logit" in one.reason
    found = compare(turned / "base", turned / "candidate", tmp_path, dial_path=str(tmp_path / "dial"))
    assert (found.dial[0].verdict, found.verdict) == ("failed", "fail")


def test_a_sweep_that_is_run_again_scores_nothing_twice(world: Any, turned: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (turned / "data" / "dial").rglob("*.parquet")}
    swept(world, turned, world.damaged, [0.9, 0.1])
    assert len(before) > 4
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())


def test_of_a_training_that_failed_and_of_no_strengths_nothing_is_evaluated(world: Any, tmp_path: Path) -> None:
    assert swept(world, tmp_path, "failed: step 3: the loss is not finite", [0.5]) == ()
    assert swept(world, tmp_path, world.adapter, []) == ()


@pytest.mark.parametrize("strength", [0.0, 1.0, -0.5, "half", True])
def test_a_strength_out_of_range_is_refused(strength: Any) -> None:
    with pytest.raises(ConfigError, match="lies between 0"):
        interpolation.check_strengths([0.5, strength])


def test_an_adapter_that_is_more_than_two_factors_is_not_scaled_in_part(world: Any, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=2, target_modules=["q_proj"], use_dora=True)
    get_peft_model(LlamaForCausalLM.from_pretrained(world.base), settings).save_pretrained(tmp_path / "dora")
    with pytest.raises(ModelError, match=r"only LoRA's two factors can be scaled; the adapter has .*magnitude"):
        interpolation.interpolate_model(tmp_path / "dora", world.base, 0.5, tmp_path / "out")
