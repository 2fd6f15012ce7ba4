"""What Bedrock's Custom Model Import would refuse, or read otherwise, is said before anybody uploads it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mixtune.cli import main
from mixtune.errors import ModelError
from mixtune.serve.bedrock_check import check_import
from mixtune.serve.bedrock_files import older_config, older_tokenizer
from mixtune.serve.bedrock_rules import read_rules

from .conftest import LLAMA_8B

DEMO = Path(__file__).parents[2] / "components" / "mixtune" / "demo" / "base_model"
LLAMA_31 = {
    **LLAMA_8B,
    "torch_dtype": "bfloat16",
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "max_position_embeddings": 8192,
}  # fmt: skip
TOKENIZER = {"tokenizer_class": "PreTrainedTokenizerFast"}


def write_model(folder: Path, config: dict[str, Any], tokenizer: dict[str, Any] | None = None, **more: Any) -> str:
    folder.mkdir(exist_ok=True)
    files = {"config.json": config, "tokenizer.json": {}, "tokenizer_config.json": tokenizer or TOKENIZER, **more}
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    (folder / "model.safetensors").write_bytes(bytes(10))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return str(folder)


def outcomes(folder: str) -> dict[str, tuple[str, str]]:
    return {name: (outcome, text) for name, outcome, text in check_import(folder)}


def test_a_model_as_the_pages_describe_it_passes_every_check(tmp_path: Path) -> None:
    assert {outcome for outcome, _ in outcomes(write_model(tmp_path / "m", LLAMA_31)).values()} == {"pass"}


@pytest.mark.parametrize(
    ("change", "check", "outcome", "words"),
    [
        ({"architectures": ["Gemma3ForCausalLM"]}, "architecture", "fail", "Gemma3ForCausalLM: taken are Mistral"),
        ({"architectures": ["LlamaModel"]}, "architecture", "fail", "LlamaModel"),
        ({"architectures": ["Qwen3ForCausalLM"]}, "architecture", "warn", "call InvokeModel"),
        ({"architectures": ["GptOssForCausalLM"]}, "architecture", "warn", "N. Virginia"),
        ({"torch_dtype": "float8_e4m3fn", "dtype": None}, "number format", "fail", "float8"),
        ({"torch_dtype": "float32", "dtype": None}, "number format", "warn", "bfloat16"),
        ({"quantization_config": {"quant_method": "awq"}}, "number format", "warn", "packed by awq"),
        ({"max_position_embeddings": 131073}, "context", "fail", "less than 128K"),
        ({"max_position_embeddings": 131072}, "context", "warn", "Llama 3.1 has the same"),
        ({"rope_theta": None, "rope_parameters": {"rope_theta": 1e6}}, "configuration", "fail", "1e.06"),
        ({"rope_theta": None, "text_config": {**LLAMA_8B, "rope_parameters": {"rope_theta": 1e6}}},
         "configuration", "fail", "1e.06"),
        ({"rope_theta": None, "rope_scaling": None, "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}},
         "configuration", "pass", "as it has to be"),
        ({"torch_dtype": None}, "configuration", "warn", "torch_dtype is missing"),
        ({"rope_scaling": {**LLAMA_31["rope_scaling"], "factor": 32.0}}, "configuration", "warn", "factor 32"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_with_the_way_out(
    tmp_path: Path, change: dict[str, Any], check: str, outcome: str, words: str
) -> None:
    config = {key: value for key, value in {**LLAMA_31, **change}.items() if value is not None}
    found = outcomes(write_model(tmp_path / "m", config))[check]
    assert found[0] == outcome and words.replace(".", "") in found[1].replace(".", "").replace("+", "")


def test_sizes_count_by_kind_and_files_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model(tmp_path / "m", {**LLAMA_31, "architectures": ["MllamaForConditionalGeneration"]})
    with open(tmp_path / "m" / "model.safetensors", "wb") as stream:
        stream.truncate(3_000_000)
    limits = read_rules()
    monkeypatch.setattr("mixtune.serve.bedrock_check.read_rules", lambda: limits)
    object.__setattr__(limits, "largest_multimodal_gb", 0.003)
    assert outcomes(folder)["size"] == ("fail", "0.0 GB of weights, less than 0.003 GB are taken")
    (tmp_path / "m" / "pytorch_model.bin").write_bytes(b"x")
    assert outcomes(folder)["files"] == (
        "warn",
        "pytorch_model.bin is no safetensors file; leave it out of what you upload",
    )
    (tmp_path / "m" / "tokenizer.json").unlink()
    assert outcomes(folder)["files"][0] == "fail"
    (tmp_path / "m" / "tokenizer_config.json").write_text('{"tokenizer_class": "X", "chat_template": "{{ messages }}"}')
    assert outcomes(folder)["tokenizer"][0] == "fail"
    assert outcomes(folder)["chat template"][0] == "warn"
    object.__setattr__(limits, "stale_after_days", -1)
    assert "days old" in outcomes(folder)["rules"][1]


def test_an_adapter_is_refused_with_the_way_out(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", LLAMA_31, **{"adapter_config.json": {}})
    with pytest.raises(ModelError, match="an import takes whole weights"):
        check_import(folder)


def test_a_model_of_todays_transformers_passes_once_its_two_files_are_written_in_older_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(DEMO, tmp_path / "m")
    assert main(["bedrock", str(tmp_path / "m")]) == 1
    assert "TokenizersBackend is not taken" in capsys.readouterr().out
    assert main(["bedrock", str(tmp_path / "m"), "--out", str(tmp_path / "older")]) == 0
    config = json.loads((tmp_path / "older" / "config.json").read_text())
    assert (config["torch_dtype"], config["rope_theta"]) == ("bfloat16", 10000.0)
    assert "rope_scaling" not in config and "rope_parameters" not in config


def test_stretched_embeddings_keep_their_scaling_in_older_words() -> None:
    scaling = dict(LLAMA_31["rope_scaling"])
    new = {"dtype": "bfloat16", "rope_parameters": {"rope_theta": 500000.0, **scaling}}
    old = older_config(new)
    assert (old["rope_theta"], old["rope_scaling"]) == (500000.0, scaling)
    assert older_config(old) == old
    assert older_tokenizer({"tokenizer_class": "Qwen2Tokenizer"}) == {"tokenizer_class": "Qwen2Tokenizer"}


@pytest.mark.slow
def test_the_tokenizer_in_older_words_gives_the_same_tokens(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    shutil.copytree(DEMO, tmp_path / "m")
    before = AutoTokenizer.from_pretrained(str(DEMO))
    main(["bedrock", str(tmp_path / "m"), "--out", str(tmp_path / "m")])
    after = AutoTokenizer.from_pretrained(str(tmp_path / "m"))
    text = "<|im_start|>user\nWhere is my parcel?<|im_end|>\n"
    assert after(text)["input_ids"] == before(text)["input_ids"]
    assert after.eos_token == before.eos_token
