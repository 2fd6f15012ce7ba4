"""Only a model that passed is registered, unless somebody forces it, and then the registry says so."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mixtune import storage
from mixtune.artifacts.comparison import TrainedMix
from mixtune.artifacts.pools import PoolInputs, Source
from mixtune.artifacts.provenance import Terms
from mixtune.artifacts.samples import Identity
from mixtune.artifacts.shards import MixReceipt, PoolReceipt
from mixtune.artifacts.typed_json import write_artifact
from mixtune.choose.registration import Registration, register_model
from mixtune.errors import ConfigError, DataError

from ..comparisons import make_axis, make_comparison, make_mix


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {"uri": f"sqlite:///{tmp_path / 'mlflow.db'}"}


POOL = PoolReceipt(
    name="customer", planned_share=0.75, share_of_records=0.75, share_of_loss_tokens=0.6, unique_records=5, epochs=1.0
)


def make_request(folder: Path, verdict: str, mix: TrainedMix | None = None, *, force: bool = False) -> Registration:
    (folder / "base").mkdir(exist_ok=True)
    (folder / "base" / "config.json").write_text("{}")
    (folder / "base" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (folder / "adapter").mkdir(exist_ok=True)
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    model = storage.fingerprint(str(folder / "adapter"))
    digest = storage.split_fingerprint(model)[1]
    identity = Identity(model=digest, model_kind="adapter", customer="c1", tokenizer="t1")
    comparison = make_comparison(
        verdict,
        make_axis("customer", "pass", 0.5),
        make_axis("mmlu", verdict, 0.5),
        identity={"base": Identity(), "candidate": identity},
        mix=mix or make_mix(75, digest="s1", receipt=MixReceipt(num_tokens=1234, pools=(POOL,))),
    )
    write_artifact(str(folder / "comparison"), comparison)
    return Registration(
        comparison_path=str(folder / "comparison"),
        model_uri=model,
        base_model=str(folder / "base"),
        name="desk",
        force=force,
    )


def test_a_model_that_passed_gets_a_version_with_its_card_and_keeps_it(tmp_path: Path, options: dict[str, Any]) -> None:
    request = make_request(tmp_path, "pass")
    assert register_model(request, str(tmp_path / "card"), options) == "1"
    assert register_model(request, str(tmp_path / "card"), options) == "1"
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
    terms = Terms(licence="CC-BY-4.0", licence_url="https://l", source="org/chat", revision="c0", attribution="A")
    sources = (Source(name="chat", uri="a", provenance=terms), Source(name="math", uri="b"))
    pools = tuple(replace(POOL, name=name) for name in ("customer", "chat", "math"))
    mix = make_mix(
        75,
        receipt=MixReceipt(num_tokens=1234, pools=pools),
        inputs={"general": PoolInputs(inputs=sources)},
    )
    register_model(make_request(tmp_path, "pass", mix), str(tmp_path / "card"), options)
    card = (tmp_path / "card").read_text()
    assert "| chat | CC-BY-4.0 | https://l | org/chat | c0 | A |" in card
    assert "| math | not recorded |" in card


def test_a_model_that_failed_is_refused_and_forced_only_on_record(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"the verdict is fail \(mmlu\)"):
        register_model(make_request(tmp_path, "fail"), str(tmp_path / "card"), options)
    assert not (tmp_path / "card").exists()
    register_model(make_request(tmp_path, "fail", force=True), str(tmp_path / "card"), options)
    version = MlflowClient(options["uri"], options["uri"]).get_model_version("desk", "1")
    assert (version.tags["verdict"], version.tags["forced"]) == ("fail", "true")
    assert "registered by force" in version.description


def test_a_comparison_of_another_model_proves_nothing(tmp_path: Path, options: dict[str, Any]) -> None:
    request = make_request(tmp_path, "pass")
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"r": 4}')
    other = replace(request, model_uri=storage.fingerprint(str(tmp_path / "adapter")))
    with pytest.raises(DataError, match="compare this one first"):
        register_model(other, str(tmp_path / "card"), options)


def test_without_mlflow_there_is_no_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="needs MLflow"):
        register_model(make_request(tmp_path, "pass"), str(tmp_path / "card"), {})
