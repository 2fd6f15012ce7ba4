"""The memory estimate: what it counts, and that it counts what the training loop does."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from mixtune.artifacts.model import BaseModel
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.errors import ModelError
from mixtune.inference.text_parts import count_model
from mixtune.interpolation import read_config
from mixtune.preflight.memory import Training, choose_activations, estimate_memory, num_shards
from mixtune.preflight.shape import Shape
from mixtune.serve.model_config import read_config as read_served_config
from mixtune.settings.train import MemorySettings, TrainSettings
from mixtune.training_math import GPU_LOGITS_AT_ONCE, MICRO_TOKENS, Attention, largest_micro_batch, reachable_share

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import memory as simulation
import preflight as peaks

RESULTS = Path(simulation.__file__).parent / "results"

SHAPE = Shape(
    layers=32, hidden=4096, inner=14336, query=4096, key_value=1024, vocabulary=128256, tied=False
)  # Llama 3 8B
LORA = Training(method="lora", micro_tokens=16384)
SFT = Training(method="sft", micro_tokens=16384, shards=8)


def test_an_adapter_has_moments_and_its_base_has_none() -> None:
    adapter = SHAPE.adapter(16)
    peak = estimate_memory(SHAPE, LORA)
    assert adapter == 41_943_040  # as PEFT counts it for rank 16 on all linear layers
    assert peak.moments == 8 * adapter
    assert peak.weights == 2 * SHAPE.parameters + 4 * adapter


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
    assert GPU_LOGITS_AT_ONCE / 128256 > 2048  # in many small chunks, the bfloat16 gradient of the head is 1 % off
    assert sizes == [4 * 3 * min(1024 * 128256, GPU_LOGITS_AT_ONCE), 12 * GPU_LOGITS_AT_ONCE]


def test_a_cpu_keeps_every_layer_in_float32_and_a_mask_over_packed_records() -> None:
    gpu, cpu = estimate_memory(SHAPE, LORA), estimate_memory(SHAPE, replace(LORA, gpu=False, packed=False))
    assert cpu.weights > 1.9 * gpu.weights
    assert cpu.activations > 20 * gpu.activations
    packed = estimate_memory(SHAPE, replace(LORA, gpu=False))
    assert packed.activations - cpu.activations == 16384**2 * (1 + 4 * 32)


def test_the_script_that_measures_peaks_trains_by_the_loop_of_today() -> None:
    case = peaks.Case(shape=peaks.WARM_UP, method="lora", tokens=64, records=2)
    assert abs(peaks._train(case)) < 2e9


def test_a_micro_batch_is_as_large_as_the_loop_can_make_it() -> None:
    assert largest_micro_batch(512, 8) == 4096
    assert largest_micro_batch(8192, 32) == MICRO_TOKENS
    assert largest_micro_batch(65536, 32) == 65536


@pytest.mark.parametrize(
    ("config", "said"),
    [({"n_layer": 2}, "config.json gives no num_hidden_layers")],
)
def test_a_shape_that_is_not_known_is_not_guessed(config: dict[str, int], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        Shape.from_config(config)


LARGE = Shape(
    layers=80, hidden=8192, inner=28672, query=8192, key_value=1024, vocabulary=128256, tied=False
)  # Llama 3 70B
SIMULATED = simulation.table(RESULTS / "memory.md")


@pytest.mark.parametrize("case", simulation.CASES, ids=lambda case: case.words)
def test_the_estimate_agrees_with_the_loop_simulated_on_fake_tensors(case: simulation.Case) -> None:
    assert 0.85 < case.estimate().total / 1e9 / SIMULATED[case.words] < 1.15


@pytest.mark.slow
@pytest.mark.parametrize(("method", "gpus"), [("lora", 1), ("sft", 8)])
def test_the_loop_is_simulated_as_the_estimate_counts_it(method: str, gpus: int) -> None:
    case = simulation.Case(model="Llama 3 8B", method=method, tokens=16384, gpus=gpus, layers=4)
    shape, peaks = Shape.from_config(case.sizes), {}
    for activations in ("recompute", "keep"):
        case = replace(case, activations=activations)
        peaks[activations] = simulation.simulate(case)
        assert 0.85 < case.estimate().total / peaks[activations] < 1.15
    kept = 4 * 16384 * 2 * (2 * shape.hidden + 2 * shape.query + 2 * shape.key_value + 4 * shape.inner)
    assert peaks["keep"] - peaks["recompute"] > 0.6 * kept


@pytest.mark.parametrize(
    ("tokens", "choice"), [(2048, "keep"), (8192, "selective"), (16384, "recompute"), (65536, "recompute")]
)
def test_as_much_is_kept_for_the_backward_pass_as_surely_fits(tokens: int, choice: str) -> None:
    assert choose_activations(SHAPE, replace(LORA, micro_tokens=tokens), 0.9 * 80e9) == choice


def test_a_base_in_float32_and_a_mask_in_float32_are_counted() -> None:
    pissa = estimate_memory(SHAPE, replace(LORA, float32_base=True))
    assert pissa.weights - estimate_memory(SHAPE, LORA).weights == 2 * SHAPE.parameters
    masked, single = (
        estimate_memory(SHAPE, replace(LORA, dtype="float32", activations="keep", packed=packed))
        for packed in (True, False)
    )
    assert masked.activations - single.activations == 16384**2 * (1 + 4 * 32)


def test_a_model_that_a_node_does_not_hold_is_sharded_over_all_nodes() -> None:
    sft = TrainSettings(method="sft")
    assert num_shards(SHAPE, sft, 8, 4, 80e9) == 8
    assert num_shards(LARGE, sft, 8, 4, 80e9) == 32
    assert num_shards(LARGE, TrainSettings(method="lora"), 8, 4, 80e9) == 1
    assert num_shards(LARGE, TrainSettings(method="lora", memory=MemorySettings(shard_base=True)), 8, 4, 80e9) == 8


def test_long_records_reach_less_of_a_gpu_and_an_adapter_less_than_all_weights() -> None:
    shares = [
        reachable_share(method, SHAPE.active, SHAPE.attention, length)
        for method in ("sft", "lora")
        for length in (4096, 65536)
    ]
    assert shares[0] > shares[1] and shares[2] > shares[3] and shares[0] > shares[2]
    assert all(0.2 < share < 0.4 for share in shares)


MIXTRAL = {
    "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336, "num_local_experts": 8,
    "num_experts_per_tok": 2, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000,
    "tie_word_embeddings": False,
}  # fmt: skip
GEMMA_4 = {
    "num_hidden_layers": 30, "hidden_size": 2816, "intermediate_size": 2112, "moe_intermediate_size": 704,
    "enable_moe_block": True, "num_experts": 128, "top_k_experts": 8, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 256, "vocab_size": 262144,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "billions", "active"),
    [(MIXTRAL, 46.70, 12.7), (GEMMA_4, 25.15, 3.74)],
    ids=["mixtral", "gemma-4"],
)
def test_a_mixture_counts_all_experts_in_memory_and_those_that_are_used_in_arithmetic(
    config: dict[str, int], billions: float, active: float
) -> None:
    shape = Shape.from_config(config)
    assert shape.parameters / 1e9 == pytest.approx(billions, rel=0.002)
    assert shape.active / 1e9 == pytest.approx(active, rel=0.01)
    assert shape.adapter(16) > 5 * replace(shape, experts=None).adapter(16)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("apertus", {}), ("arcee", {}), ("gpt2", {}), ("gpt_bigcode", {}), ("jais2", {}), ("starcoder2", {}), ("falcon", {}),
        ("falcon", {"hidden_size": 8192, "num_attention_heads": 128, "num_kv_heads": 8, "new_decoder_architecture": True}),
        ("llama4_text", {"num_local_experts": 16}),
        ("llama4_text", {"num_local_experts": 128, "interleave_moe_layer_step": 2}),
        ("gemma4_text", {"num_hidden_layers": 10}), ("gemma3n_text", {"num_hidden_layers": 20}),
    ],
    ids=["apertus", "arcee", "gpt2", "gpt_bigcode", "jais2", "starcoder2", "falcon-7b", "falcon-40b", "scout", "maverick",
         "gemma-4-e2b", "gemma-3n"],
)  # fmt: skip
def test_formulas_stand_in_for_the_model_that_transformers_builds(
    kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    config = CONFIG_MAPPING[kind](**{"num_hidden_layers": 4, **options})
    config.save_pretrained(tmp_path)
    shape = Shape.from_config(read_config(str(tmp_path)))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    served = read_served_config(str(tmp_path)).text
    assert served.key_value_heads * (shape.query // served.num_attention_heads) == shape.key_value
    assert shape.parameters == pytest.approx(model.num_parameters(), rel=0.05)
    assert shape.active == pytest.approx(count_model(model).active, rel=0.05)


def test_what_a_configuration_leaves_out_is_what_its_type_takes(tmp_path: Path) -> None:
    """Gemma 3's of 4 B, as it is published: no heads, no vocabulary, no kinds of layers."""
    text = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024}
    config = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", **text}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shape = Shape.from_config(read_config(str(tmp_path)))
    assert shape.parameters == pytest.approx(3.88e9, rel=0.01)
    assert (shape.query, shape.key_value) == (8 * 256, 4 * 256)
    assert Shape.read(str(tmp_path)).attention == Attention(whole=5 * 2048, windowed=29 * 2048, window=1024)
    assert BaseModel.read(tmp_path).vocab_size == 262_208
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "nemotron_h", "layers_block_type": ["mamba", "mlp"]})
    )
    assert read_config(str(tmp_path))["num_hidden_layers"] == 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    served = read_served_config(str(tmp_path)).text
    assert (served.num_attention_heads, served.key_value_heads, served.head_dim) == (8, 4, 256)


def test_a_llama_that_states_its_sizes_is_sized_as_by_its_class_and_without_loading_it(tmp_path: Path) -> None:
    folder, bare = BASE_MODEL, tmp_path / "config.json"
    code = "import sys; from mixtune.interpolation import read_config; read_config(sys.argv[1]); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    ).stdout
    assert "mixtune.interpolation" in loaded and not {"torch", "transformers"} & set(loaded.split())
    stated = json.loads((folder / "config.json").read_text())
    bare.write_text(json.dumps({name: value for name, value in stated.items() if name != "num_key_value_heads"}))
    by_class, plain = read_config(str(tmp_path)), read_config(str(folder))
    assert plain == stated
    assert Shape.from_config(by_class) == Shape.from_config(plain)
    assert replace(BaseModel.read(tmp_path), folder=folder) == BaseModel.read(folder)
    assert read_served_config(str(tmp_path)).mixing == read_served_config(str(folder)).mixing


def test_attention_in_a_window_costs_what_it_sees() -> None:
    assert Attention(whole=0, windowed=10, window=100).values(100) == Attention(whole=10).values(100)
    assert Attention(whole=0, windowed=10, window=100).values(10_000) == pytest.approx(10 * 199)
