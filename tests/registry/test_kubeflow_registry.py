"""Kubeflow's Model Registry gets a model, a version with its proof, and its artifact, by calls that its API publishes."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mixtune import http_post
from mixtune.errors import ClusterError, ConfigError
from mixtune.http_post import Reply
from mixtune.registry import kubeflow_registry
from mixtune.registry.registration import register_model
from mixtune.settings.from_dict import from_dict
from mixtune.settings.model_registry import RegistrySettings
from mixtune.tracking import Tracking

from ..conftest import install_beside
from .model_registry import ModelRegistry
from .proved_models import make_request

PACKAGES = ("model-registry==0.3.18", "aiohttp-retry==2.9.1")
Start = Callable[..., ModelRegistry]


@pytest.fixture(scope="module")
def package(pytestconfig: pytest.Config) -> Iterator[Path]:
    folder = install_beside(pytestconfig, *PACKAGES)
    sys.path.append(str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture
def start(package: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setattr(http_post, "FIRST_PAUSE_SECONDS", 0.0)
    servers = []

    def run(**options: str) -> ModelRegistry:
        servers.append(ModelRegistry(package, **options))
        return servers[-1]

    yield run
    for server in servers:
        server.stop()


def register(folder: Path, url: str, verdict: str = "pass", *, force: bool = False, **settings: str) -> str:
    options = from_dict(RegistrySettings, {"kind": "kubeflow", "url": url, **settings}, "registry")
    return register_model(make_request(folder, verdict, force=force), str(folder / "card"), options, Tracking())


def properties(item: dict[str, Any]) -> dict[str, str]:
    return {key: value["string_value"] for key, value in item["customProperties"].items()}


@pytest.mark.parametrize("version", ["v1", "v1alpha3"])
def test_a_model_that_passed_is_there_with_proof_terms_and_artifact(
    tmp_path: Path, start: Start, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXTUNE_RUN_ID", "run-7")
    server = start(version=version)
    number = register(tmp_path, server.url, owner="ml-platform")
    (model,), (made,), (artifact,) = server.kept.values()
    assert (model["name"], model["owner"]) == ("desk", "ml-platform")
    assert (made["id"], made["registeredModelId"], made["author"]) == (number, model["id"], "ml-platform")
    assert made["description"] == (tmp_path / "card").read_text()
    proof = properties(made)
    assert (proof["verdict"], proof["forced"], proof["licence"]) == ("pass", "false", "apache-2.0")
    assert proof["base_model"] == str(tmp_path / "base")
    assert json.loads(proof["mix_receipt"])["customer"]["planned"] == 0.75
    assert (artifact["parent"], artifact["uri"]) == (number, str(tmp_path / "adapter"))
    assert (artifact["modelFormatName"], artifact["modelSourceId"]) == ("peft", "run-7")
    assert properties(artifact)["model_digest"] == proof["model_digest"]


def test_the_same_model_keeps_its_version_and_gets_the_verdict_of_its_newest_comparison(
    tmp_path: Path, start: Start
) -> None:
    server = start()
    first = register(tmp_path, server.url, "fail", force=True)
    assert properties(server.kept["model_version"][0])["forced"] == "true"
    assert register(tmp_path, server.url) == first
    assert [len(items) for items in server.kept.values()] == [1, 1, 1]
    assert properties(server.kept["model_version"][0])["forced"] == "false"
    assert "PATCH model_versions/2" in server.calls


def test_a_model_that_failed_is_not_sent(tmp_path: Path, start: Start) -> None:
    server = start()
    with pytest.raises(ConfigError, match=r"the verdict is fail \(mmlu\)"):
        register(tmp_path, server.url, "fail")
    assert not server.calls


def test_what_a_run_left_unfinished_is_completed(tmp_path: Path, start: Start) -> None:
    server = start()
    register(tmp_path, server.url)
    server.kept["model_artifact"].clear()
    register(tmp_path, server.url)
    assert [len(items) for items in server.kept.values()] == [1, 1, 1]


def test_a_token_is_sent_and_a_missing_one_is_named(tmp_path: Path, start: Start) -> None:
    server = start(token="secret")
    with pytest.raises(ClusterError, match=r"HTTP 401 .*token_file"):
        register(tmp_path, server.url)
    (tmp_path / "token").write_text("secret\n")
    assert register(tmp_path, server.url, token_file=str(tmp_path / "token"))


def test_what_the_registry_refuses_is_told_in_its_words(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start()
    monkeypatch.setattr(server, "check", lambda name, body: "no such thing")
    with pytest.raises(ClusterError, match=r"POST registered_models: HTTP 400 .*no such thing"):
        register(tmp_path, server.url)


def test_an_address_without_a_registry_is_refused(tmp_path: Path, start: Start) -> None:
    with pytest.raises(ClusterError, match="neither v1 nor v1alpha3"):
        register(tmp_path, start(version="v7").url)
    with pytest.raises(ClusterError, match="the Model Registry does not answer"):
        register(tmp_path, "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="needs its address"):
        register(tmp_path, "model-registry:8080")


@pytest.mark.parametrize("url", ["http://[::1", "http://", "http://a b/c", "model-registry:8080"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="needs its address, http"):
        from_dict(RegistrySettings, {"kind": "kubeflow", "url": url}, "registry")


@pytest.mark.parametrize("body", ["[]", "{}", '"ok"', "null"])
def test_an_answer_without_an_id_is_no_registrys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    monkeypatch.setattr(kubeflow_registry, "send_json", lambda *_, **__: Reply(status=200, body=body.encode()))
    with pytest.raises(ClusterError, match="no id in the answer, so no Model Registry; check registry url"):
        register(tmp_path, "http://registry:8080")


def test_a_redirect_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeflow_registry, "send_json", lambda *_, **__: Reply(status=302))
    with pytest.raises(ClusterError, match=r"HTTP 302 ; it sends on to another address, such as a login"):
        register(tmp_path, "http://registry:8080")


@pytest.mark.parametrize("key", [b"\xff\xfe", b"two\nlines", b"", b" \n"])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, key: bytes) -> None:
    (tmp_path / "token").write_bytes(key)
    with pytest.raises(ConfigError, match=r"registry token_file: .*token holds no key: one line of ASCII is needed"):
        register(tmp_path, "http://registry:8080", token_file=str(tmp_path / "token"))


def test_the_server_of_these_tests_refuses_a_field_that_the_api_does_not_know(start: Start) -> None:
    server = start()
    assert "unknown fields ['modelName']" in server.check("RegisteredModelCreate", {"name": "a", "modelName": "b"})
    wrong = {"name": "a", "customProperties": {"k": {"metadataType": "MetadataStringValue", "value": "v"}}}
    assert server.check("RegisteredModelCreate", wrong)
