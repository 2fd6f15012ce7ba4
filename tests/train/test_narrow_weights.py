"""Base models whose checkpoints hold weights of fewer bits, as many releases do: widened, trained, saved, merged."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizer_finegrained_fp8 import FineGrainedFP8HfQuantizer
from transformers.quantizers.quantizer_mxfp4 import Mxfp4HfQuantizer

from mixtune import storage
from mixtune.artifacts.model import BaseModel
from mixtune.commands.local.use_model import TunedModel, merge_model
from mixtune.errors import ModelError
from mixtune.interpolation import auto_class, load_pretrained
from mixtune.preflight.model_checks import check_architecture
from mixtune.preflight.run_settings import RunSettings
from mixtune.train.run import run_training

from .conftest import task_in
from .test_packing import base_of

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from tiny_configs import tiny_config

SIZES = {"hidden_size": 64, "intermediate_size": 64, "head_dim": 16}
MIXTURE = {"num_local_experts": 4, "num_experts_per_tok": 2}
BLOCK = 32
NO_POOLS: dict[str, Any] = {"general_pools": [], "weights": {}, "customer_data_percents": [100.0]}
FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
Weights = dict[str, torch.Tensor]


def to_fp8(weights: Weights) -> tuple[Weights, Weights]:
    """Return weights as a checkpoint in fp8 holds them, blocks with a scale each, and what these come to."""
    stored, wide = {}, {}
    for name, value in weights.items():
        wide[name] = stored[name] = value.to(torch.bfloat16)
        if value.ndim == 2 and name.endswith(("proj.weight", "w1.weight", "w2.weight", "w3.weight")):
            rows, columns = value.shape
            whole = torch.nn.functional.pad(value.float(), (0, -columns % BLOCK, 0, -rows % BLOCK))
            blocks = whole.view(len(whole) // BLOCK, BLOCK, -1, BLOCK)
            scales = blocks.abs().amax((1, 3)) / 448
            narrow = (blocks / scales[:, None, :, None]).to(torch.float8_e4m3fn)
            narrow_rows = narrow.view(whole.shape)[:rows, :columns].contiguous()
            stored |= {name: narrow_rows, f"{name}_scale_inv": scales}
            wide[name] = (narrow.float() * scales[:, None, :, None]).view(whole.shape)[:rows, :columns]
    return stored, wide


def to_mxfp4(weights: Weights) -> tuple[Weights, Weights]:
    """Return weights as gpt-oss's checkpoints hold them: of experts, two numbers a byte, and a power of two for 32."""
    stored, wide = {}, {}
    for name, value in weights.items():
        wide[name] = stored[name] = value.to(torch.bfloat16)
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            blocks = value.float().transpose(1, 2).unflatten(-1, (-1, 32))
            exponents = blocks.abs().amax(-1, keepdim=True).log2().floor() - 2
            numbers = ((blocks / exponents.exp2())[..., None] - FP4).abs().argmin(-1)
            del stored[name]
            stored[f"{name}_blocks"] = (numbers[..., 0::2] | numbers[..., 1::2] << 4).to(torch.uint8)
            stored[f"{name}_scales"] = (exponents[..., 0] + 127).to(torch.uint8)
            wide[name] = (FP4[numbers] * exponents.exp2()).flatten(-2).transpose(1, 2)
    return stored, wide


NARROW: dict[str, tuple[dict[str, Any], dict[str, Any], Callable[[Weights], tuple[Weights, Weights]]]] = {
    "qwen3": ({}, {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic"}, to_fp8),
    "minimax_m2": (
        {**MIXTURE, "rotary_dim": 8},
        {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic"},
        to_fp8,
    ),
    "gpt_oss": (
        {**MIXTURE, "layer_types": ["sliding_attention", "full_attention"]},
        {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]},
        to_mxfp4,
    ),
}


def narrow_base(kind: str, folder: Path, sizes: dict[str, Any] = SIZES) -> tuple[str, Weights]:
    options, stored_as, narrow = NARROW[kind]
    base = base_of(kind, {**sizes, **options}, folder)
    stored, wide = narrow(load_file(folder / "model.safetensors"))
    save_file(
        {name: value.contiguous() for name, value in stored.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16", "quantization_config": stored_as}))
    return base, wide


@pytest.mark.parametrize(("kind", "method"), [("qwen3", "sft"), ("minimax_m2", "lora"), ("gpt_oss", "lora")])
def test_a_base_of_fewer_bits_is_trained_saved_and_merged_as_numbers(
    kind: str, method: str, shards_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    widened: list[bool] = []
    for cls in (FineGrainedFP8HfQuantizer, Mxfp4HfQuantizer):

        def validate(self: HfQuantizer, *_: object, **__: object) -> None:
            widened.append(vars(self.quantization_config)["dequantize"])  # which a CPU alone would do, too

        monkeypatch.setattr(cls, "validate_environment", validate)
    base, wide = narrow_base(kind, tmp_path / "base")
    plain = load_pretrained(Path(base), dtype=torch.float32)
    assert {value.dtype for value in plain.parameters()} == {torch.float32}
    plain.save_pretrained(tmp_path / "plain")
    loaded = load_file(tmp_path / "plain" / "model.safetensors")
    assert loaded.keys() == wide.keys()
    assert all(torch.allclose(loaded[name], value.float(), rtol=0.01, atol=1e-3) for name, value in wide.items())
    task = task_in(tmp_path / "out", shards_path, method=method, learning_rate=1e-3)
    uri = run_training(replace(task, inputs=replace(task.inputs, base_model=base))).uri
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    whole = merge_model(TunedModel(model_uri=uri, base_model=base), scratch)
    assert "quantization_config" not in json.loads((whole / "config.json").read_text())
    after = load_file(next(Path(storage.check_fingerprint(str(whole))).glob("*.safetensors")))
    assert after.keys() == wide.keys()
    assert {value.dtype for value in after.values()} <= {torch.bfloat16, torch.float32}
    assert any(not torch.equal(after[name].float(), loaded[name].bfloat16().float()) for name in wide)
    assert widened and all(widened)


def test_preflight_says_what_becomes_of_weights_of_fewer_bits(tmp_path: Path) -> None:
    base, _ = narrow_base("qwen3", tmp_path)
    found = list(check_architecture(RunSettings(base_model=base, **NO_POOLS)))
    said = "weights are stored as fp8, and trained in bfloat16; whole and merged models are saved so"
    assert ("pass", said) in found


@pytest.mark.parametrize("inner", [48, 80])
def test_blocks_that_the_edge_of_a_matrix_cuts_are_widened_by_their_own_scales(
    inner: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FineGrainedFP8HfQuantizer, "validate_environment", lambda *_, **__: None)
    base, wide = narrow_base("qwen3", tmp_path, {**SIZES, "intermediate_size": inner})
    loaded = load_pretrained(Path(base), dtype=torch.float32).state_dict()
    assert all(torch.allclose(loaded[name], value.float(), rtol=0.01, atol=1e-3) for name, value in wide.items())


def test_a_decoder_that_alone_is_stored_in_fewer_bits_is_widened_and_saved_as_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FineGrainedFP8HfQuantizer, "validate_environment", lambda *_, **__: None)
    config = tiny_config("gemma3")
    auto_class(config).from_config(config).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    stored, wide = to_fp8({name: value for name, value in weights.items() if "language_model" in name})
    save_file({**weights, **stored}, tmp_path / "model.safetensors", {"format": "pt"})
    values = json.loads((tmp_path / "config.json").read_text())
    values["text_config"]["quantization_config"] = NARROW["qwen3"][1]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert BaseModel.read(tmp_path).quantized == "fp8"
    model = load_pretrained(tmp_path, dtype=torch.float32)
    model.save_pretrained(tmp_path / "whole")
    loaded = load_file(tmp_path / "whole" / "model.safetensors")
    assert loaded.keys() == weights.keys()
    assert all(torch.allclose(loaded[name], value.float(), rtol=0.01, atol=1e-3) for name, value in wide.items())
    assert "quantization_config" not in (tmp_path / "whole" / "config.json").read_text()


def test_matrices_of_whole_blocks_are_widened_without_a_further_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FineGrainedFP8HfQuantizer, "validate_environment", lambda *_, **__: None)
    base, wide = narrow_base("qwen3", tmp_path)
    padded: list[torch.Tensor] = []
    monkeypatch.setattr(torch.nn.functional, "pad", lambda value, *_: padded.append(value))
    loaded = load_pretrained(Path(base), dtype=torch.float32).state_dict()
    assert not padded
    assert all(torch.allclose(loaded[name], value.float(), rtol=0.01, atol=1e-3) for name, value in wide.items())


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_matrix_with_one_scale_is_widened_by_it_also_where_it_lies_in_another_file(
    shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FineGrainedFP8HfQuantizer, "validate_environment", lambda *_, **__: None)
    base, wide = narrow_base("qwen3", tmp_path, {**SIZES, "intermediate_size": 80})
    stored = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    scales = {name: torch.full(shape, 0.01) for name in stored if name.endswith("_scale_inv")}
    weights = {name: value for name, value in stored.items() if name not in scales}
    files = {"model-00001-of-00002.safetensors": weights, "model-00002-of-00002.safetensors": scales}
    for file, tensors in files.items():
        save_file(tensors, tmp_path / file, {"format": "pt"})
    places = {name: file for file, tensors in files.items() for name in tensors}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    loaded = load_pretrained(Path(base), dtype=torch.float32).state_dict()
    for name, value in wide.items():
        expected = weights[name].float() * 0.01 if f"{name}_scale_inv" in scales else value.float()
        assert torch.allclose(loaded[name], expected, rtol=0.01, atol=1e-3)


def test_weights_of_fewer_bits_that_only_modelopt_s_file_tells_of_are_not_taken_for_numbers(tmp_path: Path) -> None:
    base, _ = narrow_base("qwen3", tmp_path)
    config = Path(base) / "config.json"
    values = json.loads(config.read_text())
    del values["quantization_config"]
    config.write_text(json.dumps(values))
    with pytest.raises(
        ModelError, match=r"of fewer bits, by .*scale_inv, and its config.json has no quantization_conf"
    ):
        load_pretrained(Path(base), dtype=torch.float32)
    (Path(base) / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "FP8"}}')
    outcomes = dict(check_architecture(RunSettings(base_model=base, **NO_POOLS)))
    assert "weights are stored as modelopt, in which nothing is trained" in outcomes["fail"]
