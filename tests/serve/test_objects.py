"""The objects that serve a model are KServe's and Kubernetes' to the field, hardened, and of the model's size."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from mixtune import storage
from mixtune.artifacts.comparison import Comparison
from mixtune.artifacts.endpoint import ServedEndpoint
from mixtune.artifacts.typed_json import read_artifact, write_artifact
from mixtune.cli import main
from mixtune.commands.local.work_dir import RunRecord, WorkDir
from mixtune.errors import ConfigError, DataError, ModelError
from mixtune.prices import read_prices
from mixtune.serve.fetch_weights import main as fetch
from mixtune.serve.serve_model import ServeRequest, serve_model
from mixtune.serve.served_model import read_served_model
from mixtune.settings.from_dict import from_dict
from mixtune.settings.serving import FORMS, ServeSettings

from ..conftest import install_beside
from ..crd_rules import CEL
from . import kserve_schemas
from .conftest import LLAMA_8B, Models, write_proof

Object = dict[str, Any]
KINDS = {"llm": "LLMInferenceService", "inference": "InferenceService", "deployment": "Deployment"}
PORTS = {"llm": 8000, "inference": 8080, "deployment": 8000}


@pytest.fixture(scope="module")
def kserve(pytestconfig: pytest.Config) -> Path:
    return install_beside(pytestconfig, "kserve==0.21.0")


@pytest.fixture(scope="module")
def cel(pytestconfig: pytest.Config) -> Path:
    return install_beside(pytestconfig, CEL)


def serve(model_uri: str, base: str, **settings: Any) -> list[Object]:
    request = ServeRequest(name="desk", model_uri=model_uri, base_model=base)
    return list(
        yaml.safe_load_all(serve_model(request, from_dict(ServeSettings, settings, "serve"), read_prices()).objects)
    )


def pod_of(document: Object) -> Object:
    spec = document["spec"]
    return {"LLMInferenceService": lambda: spec["template"], "InferenceService": lambda: spec["predictor"]}.get(
        document["kind"], lambda: spec["template"]["spec"]
    )()


def problems(documents: list[Object], kserve: Path, cel: Path) -> list[str]:
    checks: dict[str, Callable[[Object], list[str]]] = {
        "LLMInferenceService": lambda value: kserve_schemas.llm_errors(value, cel),
        "InferenceService": lambda value: kserve_schemas.inference_errors(value, kserve, cel),
    }
    found = []
    for document in documents:
        if check := checks.get(document["kind"]):
            found += check(document)
        else:
            kubernetes_validate.validate(document, "1.33", strict=True)
    return found


@pytest.mark.parametrize("whole", [False, True], ids=["adapter", "whole"])
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("form", FORMS)
def test_every_object_has_only_fields_that_its_kind_knows(
    models: Models, kserve: Path, cel: Path, form: str, replicas: int, whole: bool
) -> None:
    base = models.base()
    tuned = (
        models.put("kfp/sft", {"config.json": LLAMA_8B, "model.safetensors": bytes(9)})
        if whole
        else models.adapter(r=64)
    )
    documents = serve(tuned, base, form=form, replicas=replicas, clients=["kserve"], namespace="team-a")
    assert documents[0]["kind"] == KINDS[form]
    assert problems(documents, kserve, cel) == []
    assert {document["metadata"]["namespace"] for document in documents} == {"team-a"}


def test_a_field_that_a_kind_does_not_know_is_caught(models: Models, kserve: Path, cel: Path) -> None:
    base, adapter = models.base(), models.adapter(r=64)
    for form, old, new in (
        ("llm", '"maxRank"', '"maxrank"'),
        ("llm", '"nodeSelector"', '"nodeSelectors"'),
        ("inference", '"storageUris"', '"storageURIs"'),
        ("inference", '"mountPath": "/mnt', '"path": "/mnt'),
    ):
        documents = serve(adapter, base, form=form)
        assert problems(json.loads(json.dumps(documents).replace(old, new)), kserve, cel), old


LLAMA_70B = {**LLAMA_8B, "num_hidden_layers": 80, "hidden_size": 8192, "num_attention_heads": 64,
             "intermediate_size": 28672}  # fmt: skip


@pytest.mark.parametrize("clients", [[], ["kserve", "team-b"]], ids=["policy for nobody else", "for two"])
@pytest.mark.parametrize("merged", [False, True], ids=["adapter", "merged"])
@pytest.mark.parametrize("form", FORMS)
def test_a_model_of_several_gpus_and_a_merged_one_are_accepted_too(
    models: Models, kserve: Path, cel: Path, form: str, merged: bool, clients: list[str]
) -> None:
    weights = {"config.json": LLAMA_70B, "model.safetensors": bytes(9)}
    base = models.put("models/large", weights)
    tuned = models.adapter(r=256)
    if merged:
        models.put("kfp/run/data/model/merged", weights)
        tuned = storage.fingerprint(tuned.partition("#")[0])
    settings = {
        "instance": "p5.48xlarge",
        "max_length": 131072,
        "merged": merged,
        "gateway": bool(clients),
        "clients": clients,
    }
    documents = serve(tuned, base, form=form, replicas=2, **settings)
    assert problems(documents, kserve, cel) == []
    (container,) = pod_of(documents[0])["containers"]
    assert int(container["resources"]["limits"]["nvidia.com/gpu"]) > 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scaling": {"maxReplicas": 3}}, "has(self.replicas) && has(self.scaling)"),
        ({"worker": {"containers": []}}, "has(self.worker)"),
        ({"parallelism": {"tensor": 0}}, "less than the minimum"),
        ({"parallelism": {"data": 2}}, "dataLocal"),
        ({"model": {"uri": "s3://b/m", "name": "desk", "lora": {"adapters": [{"name": "desk", "uri": "s3://b/a"}]}}},
         "a.name != self.model.name"),
        ({"model": {"uri": "s3://b/m", "name": "m", "lora": {"adapters": 2 * [{"name": "a", "uri": "s3://b/a"}]}}},
         "exists_one"),
        ({"modle": {}}, "modle: unknown field"),
    ],
)  # fmt: skip
def test_what_the_crds_rules_and_the_webhook_refuse_is_caught(
    models: Models, kserve: Path, cel: Path, change: Object, words: str
) -> None:
    document = serve(models.adapter(), models.base(), form="llm")[0]
    assert problems([document], kserve, cel) == []
    document["spec"] |= change
    (problem,) = problems([document], kserve, cel)
    assert words in problem


@pytest.mark.parametrize("form", FORMS)
def test_a_server_is_not_root_writes_to_volumes_alone_and_has_no_token(models: Models, form: str) -> None:
    document, *_ = serve(models.adapter(), models.base(), form=form)
    pod = pod_of(document)
    assert pod["automountServiceAccountToken"] is False and pod["serviceAccountName"] == "mixtune-server"
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] >= 10000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"] + pod.get("initContainers", []):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
        for kind in ("requests", "limits"):
            assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"][kind])
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
    assert "trust-remote-code" not in json.dumps(document)


@pytest.mark.parametrize("form", FORMS)
def test_nobody_but_the_named_namespaces_reaches_the_servers_port(models: Models, form: str) -> None:
    policy = serve(models.adapter(), models.base(), form=form, clients=["kserve"])[-1]
    (rule,) = policy["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": PORTS[form]}]
    assert rule["from"] == [
        {"podSelector": {}},
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kserve"}}},
    ]


def test_kserve_gets_base_and_adapter_under_two_names_and_the_rank_that_it_needs(models: Models) -> None:
    base = models.base()
    spec = serve(models.adapter(), base)[0]["spec"]
    adapters = [{"name": "desk", "uri": f"{models.bucket}/kfp/run/data/model"}]
    assert spec["model"] == {"uri": f"{models.bucket}/models/base", "name": "desk-base", "lora": {"adapters": adapters}}
    higher = serve(models.adapter(rank_pattern={"q_proj": 100}), base)[0]["spec"]
    assert higher["model"]["lora"]["maxRank"] == 128
    assert spec["router"] == {"route": {}, "gateway": {}}
    assert "router" not in serve(models.adapter(), base, gateway=False)[0]["spec"]


def test_the_merged_model_is_served_as_whole_weights(models: Models) -> None:
    adapter = models.adapter()
    with pytest.raises(ModelError, match="no merged model"):
        serve(adapter, models.base(), merged=True)
    models.put("kfp/run/data/model/merged", {"config.json": LLAMA_8B, "model.safetensors": bytes(9)})
    tuned = storage.fingerprint(f"{models.bucket}/kfp/run/data/model")
    spec = serve(tuned, models.base(), merged=True)[0]["spec"]
    assert spec["model"] == {"uri": f"{models.bucket}/kfp/run/data/model/merged", "name": "desk"}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"peft_type": "OSF"}, "peft_type is OSF"),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "whole modules"),
        ({"r": 600}, "its rank is 600"),
    ],
)
def test_an_adapter_that_vllm_cannot_serve_is_refused_with_the_way_out(
    models: Models, config: Object, reason: str
) -> None:
    with pytest.raises(ModelError, match=f"{reason}.*lora_options.merge"):
        serve(models.adapter(**config), models.base())


def test_a_model_that_a_cluster_cannot_reach_is_refused(models: Models, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps(LLAMA_8B))
    (tmp_path / "base" / "model.safetensors").write_bytes(bytes(9))
    with pytest.raises(ConfigError, match=r"a cluster cannot load it from there.*base_uri"):
        serve(models.adapter(), str(tmp_path / "base"))
    spec = serve(models.adapter(), str(tmp_path / "base"), base_uri="pvc://models/base")[0]["spec"]
    assert spec["model"]["uri"] == "pvc://models/base"
    with pytest.raises(ConfigError, match="s3:// only"):
        serve(models.adapter(), str(tmp_path / "base"), base_uri="pvc://models/base", form="deployment")


def test_the_deployment_fetches_what_was_proved_and_starts_on_that(models: Models, tmp_path: Path) -> None:
    base, adapter = models.base(), models.adapter()
    models.put("kfp/run/data/model/merged", {"model.safetensors": bytes(99)})
    adapter = storage.fingerprint(f"{models.bucket}/kfp/run/data/model")
    pod = pod_of(serve(adapter, base, form="deployment", registry="r.example/team")[0])
    (first,) = pod["initContainers"]
    assert first["image"].startswith("r.example/team/mixtune-python-data:")
    arguments = first["command"][3:]
    assert arguments == [base, "/models/base", adapter, "/models/adapter"]
    local = [base, f"{tmp_path}/base", adapter, f"{tmp_path}/adapter"]
    fetch(local)
    assert sorted(item.name for item in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    command = pod["containers"][0]["command"] + pod["containers"][0]["args"]
    assert command[:3] == ["vllm", "serve", "/models/base"]
    assert {"--enable-lora", "--max-lora-rank=16", "--lora-modules=desk=/models/adapter"} <= set(command)
    models.adapter(r=8)
    with pytest.raises(DataError, match="changed"):
        fetch(local)


def keep_run(folder: Path, adapter: str, **arguments: object) -> str:
    """Leave a run that passed in the work folder there; return its id."""
    work, run_id = WorkDir(folder / "mixtune-work"), "finetune-20260101-000000-abcd"
    work.begin(run_id, RunRecord(pipeline="finetune", code=""), arguments)
    work.pages(run_id).mkdir(parents=True)
    proof = read_artifact(Comparison, write_proof(work.report(run_id, "json"), adapter))
    write_artifact(str(work.report(run_id, "json")), replace(proof, model_uri=adapter))
    return run_id


def test_a_runs_model_is_read_from_the_store_that_the_run_was_told_of(
    models: Models, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_id = keep_run(tmp_path, models.adapter(), base_model=models.base(), storage={"endpoint_url": s3_server})
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    storage.s3_client.cache_clear()
    assert main(["serve", run_id, "--name", "desk"]) == 0


def test_the_model_of_a_run_here_is_served_by_the_runs_name_once_its_files_lie_where_a_cluster_reads(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for uri in (models.base(), models.adapter()):
        storage.fetch(storage.plain_uri(uri), tmp_path / Path(uri.split("#")[0]).name, storage.ALONE)
    adapter = storage.fingerprint(str(tmp_path / "model"))
    run_id = keep_run(tmp_path, adapter, base_model=str(tmp_path / "base"))
    assert main(["bedrock", run_id]) == 1
    assert "an adapter; an import takes whole weights; `mixtune merge RUN_ID --out FOLDER`" in capsys.readouterr().err
    assert main(["serve", run_id, "--name", "desk"]) == 2
    assert "copy it to s3:// and say where by base_uri" in capsys.readouterr().err
    assert main(["serve", run_id, "--name", "desk", "base_uri=s3://b/base", "tuned_uri=s3://b/desk"]) == 0
    endpoint = read_artifact(ServedEndpoint, "serve.json")
    assert (endpoint.verdict, endpoint.model_uri) == ("pass", adapter)
    assert main(["register", run_id, "--name", "desk", "kind=kubeflow", "url=http://127.0.0.1:9"]) == 1
    assert "# desk" in Path("model-card.md").read_text()
    assert "does not answer" in capsys.readouterr().err


def test_a_model_is_served_on_a_pass_alone_and_the_record_says_which(
    models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, adapter, out = models.base(), models.adapter(), tmp_path / "serve.yaml"
    command = ["serve", adapter, "--base-model", base, "--name", "desk", "--out", str(out), "form=deployment"]
    assert main([*command, "--report", write_proof(tmp_path / "proof", adapter, "fail")]) == 2
    assert "only a model that passed is served" in capsys.readouterr().err and not out.exists()
    assert main([*command, "--report", write_proof(tmp_path / "other", f"{adapter}0")]) == 1
    assert main([*command, "--report", write_proof(tmp_path / "proof", adapter)]) == 0
    endpoint = read_artifact(ServedEndpoint, str(out.with_suffix(".json")))
    assert (endpoint.verdict, endpoint.model_uri) == ("pass", adapter)
    assert endpoint.url == "http://desk.mixtune.svc.cluster.local:8000/v1"
    assert [item["kind"] for item in yaml.safe_load_all(out.read_text())] == [
        "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy",
    ]  # fmt: skip
    assert main([*command, "form=llm"]) == 2
    assert main([*command[:-1], "farm=llm"]) == 2
    assert "did you mean 'form'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "form", "limit"),
    [
        ("7b-desk", "llm", "from a letter"),
        ("Acme/Desk_v2", "deployment", "63 characters at most for form=deployment, such as desk-v2"),
        ("a" * 44, "llm", "43 characters at most for form=llm"),
        ("a" * 54, "inference", "53 characters at most for form=inference"),
        ("desk-", "llm", "to a letter or digit"),
    ],
)
def test_a_name_that_kserve_refuses_or_shortens_is_refused(models: Models, name: str, form: str, limit: str) -> None:
    request = ServeRequest(name=name, model_uri=models.adapter(), base_model=models.base())
    with pytest.raises(ConfigError, match=limit):
        serve_model(request, ServeSettings(form=form), read_prices())


@pytest.mark.parametrize("name", [{"image": "my image"}, {"registry": "https://r.example/team"}])
def test_an_image_that_no_node_can_pull_is_refused(name: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"named as in r\.example/team, without https://"):
        from_dict(ServeSettings, name, "serve")
    for good in ("r.example:5000/vllm:v0.9@sha256:" + "a" * 64, "vllm/vllm-openai:latest", "r.example/team/"):
        from_dict(ServeSettings, dict.fromkeys(name, good), "serve")


def test_an_adapters_weights_take_memory_beside_its_base(models: Models) -> None:
    models.adapter(r=320)
    adapter = models.put("kfp/run/data/model", {"adapter_model.safetensors": bytes(5000)})
    assert read_served_model("desk", adapter, models.base(), ServeSettings()).weight_bytes == 6000


def test_objects_and_record_have_two_files(models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "serve.json"
    command = ["serve", models.adapter(), "--base-model", models.base(), "--name", "desk", "--out"]
    assert main([*command, str(out)]) == 2
    assert "name the objects with .yaml" in capsys.readouterr().err and not out.exists()
    assert main([*command, str(tmp_path)]) == 1
    assert f"{tmp_path}: Is a directory" in capsys.readouterr().err


def test_a_model_that_is_nowhere_is_not_called_one_without_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bedrock", "run-that-is-not"]) == 2
    assert "no run in " in capsys.readouterr().err
