"""The table of architectures is whole, and holds for a sample of it; `benchmarks/architectures.py` tries every type."""

import sys
from pathlib import Path

import pytest
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from mixtune.artifacts.model import read_architectures, tried_with
from mixtune.train.batches import Layout
from mixtune.train.modeling.trainable import load_trainable

from .conftest import settings

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import architectures

OF_TODAY = (
    "qwen3_5_text", "qwen3_5_moe_text", "qwen3_next", "nemotron_h", "granitemoehybrid", "bamba", "falcon_h1", "jamba",
    "lfm2", "lfm3", "kimi_linear", "olmo_hybrid", "bailing_hybrid", "minimax", "deepseek_v4", "gpt_oss", "afmoe",
    "inkling_text", "llama4_text", "qwen3_5", "mistral3", "qwen3_vl", "gemma3", "gemma4", "llama4",
    "qwen4_exp", "qwen4_exp_text", "mistral4", "mistral_large4", "glm5_next", "step3p7", "muse_spark", "inkling2", "molmo2",
    "nemotron_h_omni", "deepseek_v32", "flex_olmo",
)  # fmt: skip
SAMPLE = (
    ("qwen3_5", "lora", "float32"),
    ("gpt_oss", "lora", "float32"),
    ("mistral3", "sft", "float32"),
    ("deepseek_v3", "lora", "float32"),
    ("lfm2", "sft", "float32"),
    ("nemotron_h_omni", "lora", "float32"),
    ("qwen3_moe", "lora", "bfloat16"),
    ("jamba", "lora", "bfloat16"),
    ("llama", "lora", "bfloat16"),
)


def test_every_causal_type_of_transformers_is_in_the_table() -> None:
    assert tried_with() == transformers.__version__
    assert not set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(read_architectures())


def test_no_row_of_the_table_is_left_unmeasured() -> None:
    assert [name for name, row in read_architectures().items() if "not measured" in row.refused] == []


def test_most_types_train_and_those_of_today_do_without_exception() -> None:
    table = read_architectures()
    assert sum(bool(row.layout) for row in table.values()) >= 110
    assert [name for name in OF_TODAY if table[name].refused or table[name].partly] == []


@pytest.mark.parametrize(
    "kind", ["bamba", "falcon_h1", "granitemoehybrid", "jamba", "lfm2", "nemotron_h", "qwen3_5_text", "qwen3_next"]
)
def test_a_hybrid_is_tried_with_states_and_attention(kind: str) -> None:
    row = read_architectures()[kind]
    assert {"states", "attention"} <= set(row.reach)
    assert row.layout == Layout.ROWS


def test_losses_of_every_type_are_a_plain_forwards_or_as_near_as_float32_lets_that_one_be_to_itself() -> None:
    trained = {name: row for name, row in read_architectures().items() if row.layout}
    inexact = {name: row for name, row in trained.items() if row.gap > architectures.EXACT}
    assert len(inexact) <= 2
    assert [name for name, row in inexact.items() if row.gap > row.rounding] == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["lfm2", "bamba", "bloom"])
def test_the_look_for_leaks_by_the_gradient_finds_them(kind: str, dtype: str, tmp_path: Path) -> None:
    architectures.make_base(kind, tmp_path)
    model = load_trainable(tmp_path, settings(memory={"dtype": dtype}))
    batch = architectures.records()
    model.loss.layout = Layout.ROWS
    architectures.check_gradient_leak(model, batch)
    model.loss.layout = Layout.PACKED
    with pytest.raises(ValueError, match="the loss of a record depends on another's embeddings"):
        architectures.check_gradient_leak(model, batch)


@pytest.mark.parametrize(("kind", "method", "dtype"), SAMPLE)
def test_a_type_trains_exactly_saves_and_loads_where_its_base_does(
    kind: str, method: str, dtype: str, tmp_path: Path
) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    out.mkdir()
    architectures.make_base(kind, base)
    seen = {"reach": {}, "layout": Layout.PACKED, "gap": 0.0, "rounding": 0.0, "positions": False}
    architectures.check_training(base, out, method, dtype, seen)
    row = read_architectures()[kind]
    assert str(seen["layout"]) == row.layout
    assert seen["gap"] < architectures.EXACT
    if method == "lora":
        assert seen["reach"] == row.reach
