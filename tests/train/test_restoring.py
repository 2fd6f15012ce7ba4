"""A trained model is drawn back towards its base on answers of its own: exactly, from any step on, by any processes."""

import json
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file
from torch.nn.functional import cross_entropy

from mixtune import storage
from mixtune.artifacts.model import read_model
from mixtune.artifacts.shards import TokenRecord
from mixtune.artifacts.typed_json import write_artifact
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.errors import ConfigError, MixtuneError
from mixtune.settings.train import RestoreSettings
from mixtune.train.distributed import SINGLE_PROCESS
from mixtune.train.entry import restore_settings
from mixtune.train.metrics import StepMetrics
from mixtune.train.modeling.trainable import load_trainable
from mixtune.train.restoring.distillation import Distillation, ReverseDivergence, Teacher
from mixtune.train.restoring.own_answers import AnswerWriter, prompt_of
from mixtune.train.run import run_training
from mixtune.train.task import TrainJobFile, TrainTask
from mixtune.train.trainer import Trainer

from ..faulty_s3 import FaultyS3, no_fault
from .conftest import settings, task_in

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.kills import furthest, run_forked, run_with_kills

Train = Callable[..., str]
WEIGHTS = {"lora": "adapter_model.safetensors", "sft": "model.safetensors"}
torch.set_num_threads(1)  # bits depend on the number of threads


def restoring(folder: Path, shards: str, start: str, **options: Any) -> TrainTask:
    """Draw a trained model back to its base in a folder."""
    task = task_in(folder, shards, **{"memory": {"max_tokens_per_gpu": 40}, **options})
    own = replace(task.settings, restore=RestoreSettings(max_new_tokens=6))
    return replace(task, settings=own, inputs=replace(task.inputs, start_model=start))


def weights(folder: Path, method: str) -> dict[str, torch.Tensor]:
    return load_file(folder / "data/model" / WEIGHTS[method])


@pytest.fixture(scope="module", params=["lora", pytest.param("sft", marks=pytest.mark.slow)])
def trained(
    request: pytest.FixtureRequest, train: Train, watched_shards: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    """A method, and a model that it moved far from its base."""
    folder, rate = tmp_path_factory.mktemp(request.param), {"lora": 2e-4, "sft": 1e-3}[request.param]
    return request.param, train(folder, watched_shards, method=request.param, learning_rate=rate)


@pytest.fixture(scope="module")
def restored(trained: tuple[str, str], watched_shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    method, start = trained
    folder = tmp_path_factory.mktemp("restored")
    run_training(restoring(folder, watched_shards, start, method=method))
    return folder


def test_a_trained_model_comes_nearer_to_its_base_and_its_manifest_says_how_far(
    trained: tuple[str, str], restored: Path
) -> None:
    restoration = read_model(str(restored / "model")).restoration
    assert restoration and restoration.model_uri == trained[1]
    assert restoration.kl_before and restoration.kl_after and restoration.nll_before and restoration.nll_after
    assert restoration.kl_after < 0.9 * restoration.kl_before
    assert restoration.base_nll and restoration.base_nll < restoration.nll_after < restoration.nll_before


def test_a_restoration_that_was_cut_goes_on_with_the_same_bits(
    trained: tuple[str, str], restored: Path, watched_shards: str, tmp_path: Path
) -> None:
    method, start = trained

    def stop(trainer: Trainer, metrics: StepMetrics) -> None:
        if metrics.step == 7:
            raise KeyboardInterrupt

    task = restoring(tmp_path / "cut", watched_shards, start, method=method)
    with pytest.raises(KeyboardInterrupt):
        run_training(task, stop)
    run_training(task)
    expected, again = weights(restored, method), weights(tmp_path / "cut", method)
    assert all(torch.equal(value, again[name]) for name, value in expected.items())


@pytest.mark.slow
@pytest.mark.parametrize("trained", ["lora"], indirect=True)
def test_a_restoration_in_s3_that_fails_now_and_then_or_is_refused_ends_with_the_same_bits(
    trained: tuple[str, str],
    restored: Path,
    watched_shards: str,
    bucket: str,
    faulty_s3: FaultyS3,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method, start = trained
    expected = weights(restored, method)
    folder = storage.check_fingerprint(start)
    for entry in storage.list_files(folder):
        storage.copy(storage.join(folder, entry.path), f"{bucket}/start/{entry.path}")

    def restore(place: str) -> None:
        task = restoring(tmp_path / place, watched_shards, f"{bucket}/start", method=method)
        monkeypatch.setenv("MIXTUNE_CACHE_DIR", str(tmp_path / "cache" / place))
        model = run_training(replace(task, outputs=replace(task.outputs, model_uri=f"{bucket}/{place}/model"))).uri
        again = load(storage.read_bytes(storage.join(storage.check_fingerprint(model), WEIGHTS[method])))
        assert all(torch.equal(value, again[name]) for name, value in expected.items())

    before = faulty_s3.num_requests
    restore("whole")
    total = faulty_s3.num_requests - before
    faulty_s3.fail_once("SlowDown", "reset")
    restore("failing")
    faulty_s3.refuse_after(total // 2)
    with pytest.raises(MixtuneError, match=r"s3://\S+: (AccessDenied|403): no right to do this"):
        restore("refused")
    faulty_s3.fault = no_fault
    restore("refused")


@pytest.mark.slow
def test_two_processes_that_are_killed_end_with_the_weights_of_one(
    trained: tuple[str, str], restored: Path, watched_shards: str, tmp_path: Path
) -> None:
    method, start = trained

    def job(folder: Path) -> str:
        task = restoring(folder, watched_shards, start, method=method)
        write_artifact(str(folder / "job.json"), TrainJobFile(task=task))
        return str(folder / "job.json")

    run_forked(job(tmp_path / "whole"), 2)
    tally = run_with_kills(job(tmp_path / "killed"), [2] * 9, 2, 4, random.Random(5))
    assert tally.kills == 2
    whole, killed = weights(tmp_path / "whole", method), weights(tmp_path / "killed", method)
    assert all(torch.equal(value, killed[name]) for name, value in whole.items())
    # What each writes is cut for as many processes as there are: a token may be drawn otherwise, hardly any is.
    assert furthest(weights(restored, method), whole) < 1e-2


def test_an_answer_depends_on_seed_step_and_place_and_not_on_the_parts_that_prompts_are_cut_into() -> None:
    model = load_trainable(BASE_MODEL, settings())
    writer = AnswerWriter(
        model=model,
        group=SINGLE_PROCESS,
        max_new_tokens=8,
        temperature=1.0,
        seed=3,
        stop_ids=frozenset({2}),
        max_length=16,
    )
    prompts = [np.arange(5, 5 + length, dtype=np.int32) for length in (4, 7, 5, 3)]
    answers = writer.write(prompts, 2, 1)
    assert writer.write(prompts, 2, 3) == answers != writer.write(prompts, 3, 1)
    assert all(0 < len(answer) <= 8 for answer in answers)
    assert writer._write_sharded(prompts, writer._sampling([2 * 2**20 + place for place in range(4)])) == answers
    assert writer.cut(np.arange(40)).tolist() == list(range(32, 40)), "room for an answer"
    assert model.loss.training and model.causal.config._attn_implementation == "sdpa"


def test_a_prompt_ends_where_the_last_learned_turn_begins() -> None:
    mask = np.array([0, 0, 1, 1, 0, 0, 1, 1, 1], np.uint8)
    record = TokenRecord(pool=1, record_id="", input_ids=np.arange(9), loss_mask=mask, weight=1.0)
    assert prompt_of(record).tolist() == [0, 1, 2, 3, 4, 5]
    assert prompt_of(replace(record, loss_mask=np.zeros(9, np.uint8))).tolist() == list(range(9))


def test_general_tokens_are_drawn_to_the_base_and_the_customers_are_learned() -> None:
    draw = torch.Generator().manual_seed(1)
    logits, base = (torch.randn(5, 7, generator=draw) for _ in range(2))
    ids, is_general = torch.arange(5), torch.tensor([True, False, True, True, False])
    loss = ReverseDivergence(base.log_softmax(-1), is_general)
    current = torch.distributions.Categorical(logits=logits)
    expected = torch.distributions.kl_divergence(current, torch.distributions.Categorical(logits=base))
    expected = torch.where(is_general, expected, cross_entropy(logits, ids, reduction="none"))
    torch.testing.assert_close(loss(logits, ids), expected)
    chunks = zip(loss.split(2), logits.split(2), ids.split(2), strict=True)
    torch.testing.assert_close(torch.cat([part(rows, some) for part, rows, some in chunks]), expected)


def test_of_general_records_a_share_is_learned_as_it_is() -> None:
    model = load_trainable(BASE_MODEL, settings())
    writer = AnswerWriter(
        model=model,
        group=SINGLE_PROCESS,
        max_new_tokens=4,
        temperature=1.0,
        seed=3,
        stop_ids=frozenset({2}),
        max_length=16,
    )
    objective = Distillation(model, Teacher(model, SINGLE_PROCESS), writer, learned_ratio=0.25)
    mask = np.array([0, 0, 0, 1, 1, 1], np.uint8)
    ids = np.full(6, 7, np.int32)
    batch = [TokenRecord(pool=pool, record_id="", input_ids=ids, loss_mask=mask, weight=1.0) for pool in (0, 1, 2)]
    written = [objective.batch(batch, step, 1) for step in range(4)]
    own = [[step for step in range(4) if written[step][place] is batch[place]] for place in range(3)]
    assert own[0] == [0, 1, 2, 3], "the customer's"
    assert len(own[1]) + len(own[2]) == 2, "a quarter of eight"


@pytest.mark.parametrize(
    ("options", "method", "message"),
    [
        ({"lora_rank": 8}, "lora", "lora_rank is 8, of this adapter it is 4"),
        ({"lora_options": {"use_dora": True}}, "lora", "use_dora says how an adapter is made"),
        ({}, "sft", "holds an adapter: method is lora, got 'sft'"),
        ({"guards": {"max_nll_rise": 0.1}}, "lora", "max_nll_rise has no part in restore"),
        ({"restore": {"temperature": 0.0}}, "lora", "temperature is above 0"),
        ({"restore": {"learned_ratio": 1.0}}, "lora", "learned_ratio is a share, 0 to below 1; got 1.0"),
    ],
)
def test_an_option_that_does_not_fit_a_trained_model_is_refused(
    options: dict[str, Any], method: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    with pytest.raises(ConfigError, match=message):
        restore_settings(str(tmp_path), options, method=method, learning_rate=1e-5, seed=1)
    plain = restore_settings(str(tmp_path), {}, method="lora", learning_rate=1e-5, seed=1)
    assert (plain.lora_rank, plain.lora_alpha, plain.restore) == (4, 8, RestoreSettings())


def test_an_adapter_of_another_kind_and_a_failed_training_are_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "OSF"}))
    with pytest.raises(ConfigError, match="of type OSF; restore takes LoRA adapters, or all weights"):
        restore_settings(str(tmp_path), {}, method="lora", learning_rate=1e-5, seed=1)
    with pytest.raises(ConfigError, match="there is no model to restore; got 'failed: loss nan'"):
        restore_settings("failed: loss nan", {}, method="lora", learning_rate=1e-5, seed=1)


def test_a_training_takes_no_settings_of_a_restoration(shards_path: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mixtune run restore"):
        task_in(tmp_path, shards_path, restore={"max_new_tokens": 8})
