"""Only a model that passed is registered, unless somebody forces it, and then the registry says so."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mixtune import models, storage
from mixtune.artifacts.pools import PoolInputs, Source
from mixtune.artifacts.provenance import Terms
from mixtune.artifacts.shards import MixReceipt
from mixtune.errors import ClusterError, ConfigError, DataError
from mixtune.registry.mlflow_registry import find_or_create_version
from mixtune.registry.model_card import CardSubject, write_card
from mixtune.registry.registration import Registration
from mixtune.registry.registration import register_model as register
from mixtune.registry.registry_entry import Entry
from mixtune.settings.model_registry import RegistrySettings
from mixtune.tracking import Tracking

from ..comparisons import make_axis, make_comparison, make_mix
from .proved_models import POOL, make_request


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {"uri": f"sqlite:///{tmp_path / 'mlflow.db'}"}


def register_model(request: Registration, card: str, options: dict[str, Any]) -> str:
    return register(request, card, RegistrySettings(), Tracking.from_options(options))


@pytest.mark.slow
def test_a_model_that_passed_gets_a_version_with_its_card_and_keeps_it(tmp_path: Path, options: dict[str, Any]) -> None:
    request = make_request(tmp_path, "pass")
    assert register_model(request, str(tmp_path / "card"), options) == "1"
    assert register_model(request, str(tmp_path / "card"), options) == "1"
    version = MlflowClient(options["uri"], options["uri"]).get_model_version("desk", "1")
    assert (version.tags["verdict"], version.tags["forced"]) == ("pass", "false")
    assert json.loads(version.tags["mix_receipt"])["customer"]["of_loss_tokens"] == 0.6
    assert json.loads(version.tags["scores"])["mmlu"]["verdict"] == "pass"
    assert (version.tags["licence"], version.tags["base_model"]) == ("apache-2.0", str(tmp_path / "base"))
    assert version.source == str(tmp_path / "adapter")
    card = (tmp_path / "card").read_text()
    assert version.description == card
    for said in (
        "licence: apache-2.0",
        "| mmlu (accuracy) |",
        "| customer | 75.00%",
        "| shards | s1 |",
        "PeftModel",
        "vllm serve",
    ):
        assert said in card
    for code in re.findall(r"```python\n(.*?)```", card, re.S):
        compile(code, "card", "exec")
    long = Entry(
        name="long",
        uri="u",
        digest="d",
        kind="adapter",
        card="a line\n" * 2000,
        run_id="",
        properties={"model_digest": "d"},
    )  # MLflow's databases refuse more than 5,000 characters
    for _ in range(2):
        find_or_create_version(long, options["uri"])
        kept = MlflowClient(options["uri"], options["uri"]).get_model_version("long", "1").description
        assert 4800 < len(kept) <= 5000 and "output `card` of the component `register` has the whole" in kept


@pytest.mark.slow
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


def test_the_card_shows_a_relative_change_and_its_limit_in_percent(tmp_path: Path) -> None:
    axis = make_axis("general_nll", "pass", 0.51)
    axis = replace(axis, measures=(replace(axis.measure, relative=True),))
    subject = CardSubject(name="desk", model_uri=str(tmp_path), base_model="base", licence="apache-2.0")
    card = write_card(subject, make_comparison("pass", axis))
    assert "| general_nll (accuracy) | 0.5000 | 0.5100 | +1.00 % | -4.00 % to +6.00 % | 2 % | pass |" in card


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
    with pytest.raises(DataError, match="changed since this run looked at it"):
        register_model(request, str(tmp_path / "card"), options)


def test_a_model_that_is_compared_again_keeps_its_version_and_gets_the_new_verdict(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    register_model(make_request(tmp_path, "fail", force=True), str(tmp_path / "card"), options)
    assert register_model(make_request(tmp_path, "pass"), str(tmp_path / "card"), options) == "1"
    version = MlflowClient(options["uri"], options["uri"]).get_model_version("desk", "1")
    assert (version.tags["verdict"], version.tags["forced"]) == ("pass", "false")
    assert "registered by force" not in version.description


def test_without_mlflow_there_is_no_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="needs MLflow"):
        register_model(make_request(tmp_path, "pass"), str(tmp_path / "card"), {})


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "a\nb", "x" * 257, 'it\'s "it"'])
def test_a_name_that_mlflow_does_not_take_is_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], name: str
) -> None:
    with pytest.raises(ConfigError, match=r"1 to 256 characters on one line, without / and :"):
        register_model(replace(make_request(tmp_path, "pass"), name=name), str(tmp_path / "card"), options)
    assert not (tmp_path / "card").exists()


def test_a_name_with_a_quote_keeps_its_version(tmp_path: Path, options: dict[str, Any]) -> None:
    for name in ("Bob's desk", 'the "desk"'):
        request = replace(make_request(tmp_path, "pass"), name=name)
        assert [register_model(request, str(tmp_path / "card"), options) for _ in range(2)] == ["1", "1"]


def test_what_mlflow_refuses_names_its_address_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"ftp://x: MLflow's registry did not take desk .*; check the tracking uri"):
        register_model(make_request(tmp_path, "pass"), str(tmp_path / "card"), {"uri": "ftp://x"})


APACHE = "\n                                 Apache License\n                           Version 2.0, January 2004\n"


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({"LICENSE": APACHE}, "Apache-2.0"),
        ({"LICENSE.txt": "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\n\nMeta"}, "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT"),
        ({"LICENCE.md": "# MIT License\n\nCopyright"}, "MIT"),
        ({"README.md": "---\nlicense: gemma\ntags:\n- x\n---\n", "LICENSE": APACHE}, "gemma"),
        ({"README.md": "---\r\nlicense: other\r\nlicense_name: qwen\r\n---\r\n"}, "qwen"),
        ({"README.md": "---\nlicense:\n- mit\n- apache-2.0\n---\n"}, "mit, apache-2.0"),
        ({"README.md": "---\n: [\n---\n# A model\nlicense: none of this\n", "LICENSE": ""}, ""),
        ({"config.json": '{"license": "bsd"}'}, "bsd"),
        ({}, ""),
    ],
)
def test_the_licence_is_what_card_or_text_say_never_a_files_name(
    files: dict[str, str], licence: str, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, newline="")
    assert models.read_licence(tmp_path) == licence
