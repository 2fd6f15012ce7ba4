"""The memory estimate: what it counts, and that it counts what the training loop does."""

from dataclasses import replace

import pytest

from mixtune.errors import ModelError
from mixtune.preflight.memory import Shape, Training, estimate_memory
from mixtune.training_math import LOGITS_AT_ONCE, MICRO_TOKENS, largest_micro_batch

SHAPE = Shape(
    layers=32, hidden=4096, inner=14336, query=4096, key_value=1024, vocabulary=128256, tied=False
)  # Llama 3 8B
LORA = Training(method="lora", micro_tokens=16384)
SFT = Training(method="sft", micro_tokens=16384, shards=8)


def test_an_adapter_has_moments_and_its_base_has_none() -> None:
    adapter = SHAPE.adapter(16)
    memory = estimate_memory(SHAPE, LORA)
    assert adapter == 41_943_040  # as PEFT counts it for rank 16 on all linear layers
    assert memory.moments == 8 * adapter
    assert memory.weights == 2 * SHAPE.parameters + 4 * adapter


def test_slices_divide_what_is_trained_and_not_what_is_gathered() -> None:
    one, eight = estimate_memory(SHAPE, replace(SFT, shards=1)), estimate_memory(SHAPE, SFT)
    assert one.moments == 8 * SHAPE.parameters == pytest.approx(8 * eight.moments, rel=1e-6)
    assert eight.weights > 4 * SHAPE.parameters / 8
    assert one.activations == eight.activations


def test_eight_billion_parameters_fit_eight_h100s_either_way() -> None:
    assert 17e9 < estimate_memory(SHAPE, LORA).total < 72e9
    assert 20e9 < estimate_memory(SHAPE, SFT).total < 72e9


def test_logits_are_held_in_chunks_whatever_the_micro_batch() -> None:
    sizes = [estimate_memory(SHAPE, replace(LORA, micro_tokens=tokens)).logits for tokens in (1024, 65536)]
    assert sizes == [12 * LOGITS_AT_ONCE] * 2


def test_a_cpu_keeps_every_layer_in_float32_and_a_mask_over_packed_records() -> None:
    gpu, cpu = estimate_memory(SHAPE, LORA), estimate_memory(SHAPE, replace(LORA, gpu=False, packed=False))
    assert cpu.weights > 1.9 * gpu.weights
    assert cpu.activations > 20 * gpu.activations
    packed = estimate_memory(SHAPE, replace(LORA, gpu=False))
    assert packed.activations - cpu.activations == 16384**2 * (1 + 4 * 32)


def test_a_micro_batch_is_as_large_as_the_loop_can_make_it() -> None:
    assert largest_micro_batch(512, 8) == 4096
    assert largest_micro_batch(8192, 32) == MICRO_TOKENS
    assert largest_micro_batch(65536, 32) == 65536


@pytest.mark.parametrize(
    ("config", "said"),
    [({"num_local_experts": 8}, "a mixture of experts"), ({"n_layer": 2}, "config.json gives no hidden_size")],
)
def test_a_shape_that_is_not_known_is_not_guessed(config: dict[str, int], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        Shape.from_config(config)
