"""Only a model that passed is registered, unless somebody forces it, and then the registry says so."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mixtune import storage
from mixtune.choose.registration import Candidate, register_model
from mixtune.compare.run import mix_of
from mixtune.errors import ConfigError, DataError


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {"uri": f"sqlite:///{tmp_path / 'mlflow.db'}"}


def candidate(folder: Path, verdict: str, *, force: bool = False) -> Candidate:
    (folder / "base").mkdir(exist_ok=True)
    (folder / "base" / "config.json").write_text("{}")
    (folder / "base" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (folder / "adapter").mkdir(exist_ok=True)
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    model = storage.fingerprint(str(folder / "adapter"))
    pool = {"name": "customer", "planned_share": 0.75, "share_of_records": 0.75, "share_of_loss_tokens": 0.6}
    receipt = {
        "num_steps": 9,
        "global_batch_size": 32,
        "num_tokens": 1234,
        "pools": [{**pool, "unique_records": 5, "epochs": 1.0}],
    }
    identity = {
        "model": storage.split_fingerprint(model)[1],
        "model_kind": "adapter",
        "customer": "c1",
        "tokenizer": "t1",
    }
    figures = {"base": 0.5, "candidate": 0.5, "difference": 0.0, "lower": -0.01, "upper": 0.01, "limit": 0.02}
    axes = [{**figures, "axis": "customer", "verdict": "pass"}, {**figures, "axis": "mmlu", "verdict": verdict}]
    comparison = {
        "verdict": verdict, "axes": axes, "identity": {"candidate": identity},
        "mix": {"mix_ratio": 0.75, "digest": "s1", "receipt": receipt},
    }  # fmt: skip
    (folder / "comparison").write_text(json.dumps(comparison))
    return Candidate(
        comparison_path=str(folder / "comparison"),
        model_uri=model,
        base_model=str(folder / "base"),
        name="desk",
        force=force,
    )


def test_a_model_that_passed_gets_a_version_with_its_card_and_keeps_it(tmp_path: Path, options: dict[str, Any]) -> None:
    made = candidate(tmp_path, "pass")
    assert register_model(made, str(tmp_path / "card"), options) == "1"
    assert register_model(made, str(tmp_path / "card"), options) == "1"
    version = MlflowClient(options["uri"], options["uri"]).get_model_version("desk", "1")
    assert (version.tags["verdict"], version.tags["forced"]) == ("pass", "false")
    assert version.source == str(tmp_path / "adapter")
    card = (tmp_path / "card").read_text()
    assert version.description == card
    for said in (
        "licence: apache-2.0",
        "| mmlu |",
        "| customer | 75.00%",
        "| shards | s1 |",
        "PeftModel",
        "vllm serve",
    ):
        assert said in card
    for code in re.findall(r"```python\n(.*?)```", card, re.S):
        compile(code, "card", "exec")


def test_the_card_says_on_what_terms_the_general_pools_are(tmp_path: Path, options: dict[str, Any]) -> None:
    made = candidate(tmp_path, "pass")
    comparison = json.loads((tmp_path / "comparison").read_text())
    pools = comparison["mix"]["receipt"]["pools"]
    pools += [{**pools[0], "name": name} for name in ("chat", "math")]
    told = {
        "licence": "CC-BY-4.0",
        "licence_url": "https://l",
        "source": "org/chat",
        "revision": "c0",
        "attribution": "A",
    }
    shards = {
        "inputs": {
            "general": {"inputs": [{"name": "chat", "uri": "a", "provenance": told}, {"name": "math", "uri": "b"}]}
        }
    }
    comparison["mix"] |= {"provenance": mix_of(shards)["provenance"]}
    (tmp_path / "comparison").write_text(json.dumps(comparison))
    register_model(made, str(tmp_path / "card"), options)
    card = (tmp_path / "card").read_text()
    assert "| chat | CC-BY-4.0 | https://l | org/chat | c0 | A |" in card
    assert "| math | not recorded |" in card


def test_a_model_that_failed_is_refused_and_forced_only_on_record(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"the verdict is fail \(mmlu\)"):
        register_model(candidate(tmp_path, "fail"), str(tmp_path / "card"), options)
    assert not (tmp_path / "card").exists()
    register_model(candidate(tmp_path, "fail", force=True), str(tmp_path / "card"), options)
    version = MlflowClient(options["uri"], options["uri"]).get_model_version("desk", "1")
    assert (version.tags["verdict"], version.tags["forced"]) == ("fail", "true")
    assert "registered by force" in version.description


def test_a_comparison_of_another_model_proves_nothing(tmp_path: Path, options: dict[str, Any]) -> None:
    made = candidate(tmp_path, "pass")
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"r": 4}')
    other = Candidate(**{**vars(made), "model_uri": storage.fingerprint(str(tmp_path / "adapter"))})
    with pytest.raises(DataError, match="compare this one first"):
        register_model(other, str(tmp_path / "card"), options)


def test_without_mlflow_there_is_no_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="needs MLflow"):
        register_model(candidate(tmp_path, "pass"), str(tmp_path / "card"), {})
