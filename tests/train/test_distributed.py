"""What the processes of a job wait for, and what they send one another."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from mixtune.artifacts.shards import TokenRecord
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.train.distributed import ProcessGroup, join_process_group
from mixtune.train.forgetting_monitor import ForgettingMonitor
from mixtune.train.modeling.trainable import load_trainable

from .conftest import drawn, settings


def test_a_process_waits_on_its_cpu_where_a_collective_of_the_gpus_would_hold_nobody_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[tuple[str, object]] = []
    patient: Any = object()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(dist, "all_reduce", lambda value, group=None: sent.append((value.device.type, group)))
    monkeypatch.setattr(dist, "broadcast", lambda value, source, group=None: sent.append((value.device.type, group)))
    group = ProcessGroup(size=2, waiting=patient)
    assert group.on_cpu is False
    group.barrier()
    assert group.broadcast_text("text") == "text"
    with group.local_main_first():
        assert len(sent) == 2
    assert sent == [("cpu", patient)] * 3


def test_gradients_go_over_nodes_with_the_last_micro_batch_of_a_step_alone() -> None:
    with join_process_group() as group:
        model = load_trainable(BASE_MODEL, settings(method="sft", memory={"dtype": "bfloat16"}), group)
        layers = [state for module in model.loss.modules() if (state := getattr(module, "_get_fsdp_state", None))]
        parts = [part for state in layers for part in [state()._fsdp_param_group] if part]
        assert parts
        for is_last in (False, True):
            model.set_gradient_sync(is_last=is_last, keep_whole=False)
            assert {(part.reduce_grads, part.all_reduce_grads) for part in parts} == {(True, is_last)}


def test_whole_weights_that_are_trained_in_bfloat16_are_loaded_so(tmp_path: Path) -> None:
    with join_process_group() as group:
        load_trainable(BASE_MODEL, settings(method="sft", memory={"dtype": "bfloat16"}), group).save(tmp_path)
    assert {value.dtype for value in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
    assert AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").dtype == torch.bfloat16


def test_held_out_records_are_run_by_one_process_each(monkeypatch: pytest.MonkeyPatch) -> None:
    records = drawn(8, 5)
    model = load_trainable(BASE_MODEL, settings(method="sft"))
    monkeypatch.setattr(ProcessGroup, "all_reduce_sum", lambda group, value: value)

    def run_by(rank: int, size: int) -> int:
        group = ProcessGroup(rank=rank, size=size)
        return sum(len(packed.input_ids) for packed in ForgettingMonitor(records, model.loss, 40, group=group)._packed)

    whole, shares = run_by(0, 1), [run_by(rank, 2) for rank in range(2)]
    assert whole == num_tokens(records) == sum(shares)
    assert max(shares) < 0.75 * whole


def num_tokens(records: list[TokenRecord]) -> int:
    return sum(len(record.input_ids) for record in records)
