"""The whole finetune pipeline with all its data in S3, behind the policies: nothing denied, every object encrypted."""

import os
from pathlib import Path
from typing import Any

import kfp.local
import pytest
from kfp import components
from kfp.local import executor_input_utils, subprocess_task_handler

from mixtune import storage
from mixtune.commands.arguments import find_pipeline
from mixtune.commands.local.warm_steps import StepServer
from mixtune.demo.demo_data import World, write_world

from .conftest import Account, administrator

LINES = 60
"""Records kept of each of the demo's files: enough for every step to have work."""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_whole_run_is_permitted_to_its_role_and_leaves_every_object_encrypted_with_our_key(
    account: Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments = upload_world(write_world(tmp_path / "world"), account)
    account.act_as("launcher", monkeypatch)
    monkeypatch.delenv("MIXTUNE_KMS_KEY_ID", raising=False)
    server = keep_artifacts_in_s3(monkeypatch, account.bucket, tmp_path)
    kfp.local.init(kfp.local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "local"))

    components.load_component_from_file(str(find_pipeline("finetune")))(**arguments)
    server.close()

    (found,) = [key for key in objects(account) if key.endswith("/compare/1/comparison")]
    comparison = storage.read_json(f"s3://{account.bucket}/{found}")
    assert comparison["verdict"] in ("pass", "fail", "inconclusive")
    assert storage.check_fingerprint(comparison["model_uri"]).startswith(f"s3://{account.bucket}/kfp/finetune")
    # Preflight asks for the bucket's region; a role that may list some prefixes only is refused, and preflight goes on.
    assert set(account.gate.denials) <= {f"mixtune-launcher s3:ListBucket arn:aws:s3:::{account.bucket}"}
    kept = {key.split("/")[3]: 0 for key in objects(account)}
    assert {"sanitize", "mix-shard", "train", "evaluate", "compare"} <= set(kept)
    client = administrator(account.url)
    for key in objects(account):
        answer = client.head_object(Bucket=account.bucket, Key=key)
        assert (answer.get("ServerSideEncryption"), answer.get("SSEKMSKeyId")) == ("aws:kms", account.key), key


def objects(account: Account) -> list[str]:
    """Keys of what the run left."""
    pages = administrator(account.url).get_paginator("list_objects_v2")
    found = pages.paginate(Bucket=account.bucket, Prefix="kfp/finetune")
    return [item["Key"] for page in found for item in page.get("Contents", [])]


def upload_world(world: World, account: Account) -> dict[str, Any]:
    """Put a small part of the demo's world into the bucket; the pipeline's arguments for it."""
    client = administrator(account.url)

    def moved(path: str, prefix: str) -> str:
        local = Path(path)
        for file in [local] if local.is_file() else sorted(item for item in local.rglob("*") if item.is_file()):
            body = file.read_bytes()
            if file.suffix in (".csv", ".jsonl"):
                body = b"".join(body.splitlines(keepends=True)[:LINES])
            key = f"{prefix}/{file.relative_to(world.folder)}"
            encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": account.key}
            client.put_object(Bucket=account.bucket, Key=key, Body=body, **encryption)
        return f"s3://{account.bucket}/{prefix}/{local.relative_to(world.folder)}"

    arguments = world.arguments("lora", 75.0)
    pools = [{**pool, "uri": moved(pool["uri"], "raw")} for pool in world.general_pools]
    ifeval = {**arguments["benchmarks"]["ifeval"], "max_new_tokens": 8}
    return {
        **arguments,
        "customer_uri": moved(arguments["customer_uri"], "raw"),
        "test_uri": moved(arguments["test_uri"], "raw"),
        "general_pools": pools,
        "benchmarks": {"ifeval": {**ifeval, "uri": moved(ifeval["uri"], "benchmarks")}},
        "base_model": moved(arguments["base_model"], "models"),
        "max_steps": 2,
        "storage": {"kms_key_id": account.key, "endpoint_url": account.url, "region": "us-east-1"},
    }


def keep_artifacts_in_s3(monkeypatch: pytest.MonkeyPatch, bucket: str, folder: Path) -> StepServer:
    """Do locally what KFP's launcher does in a pod: artifacts have s3:// names, and their files go up without headers.

    Return what forks the steps.
    """
    mount, local = folder / "mount", str(folder / "local")
    monkeypatch.setenv("MIXTUNE_TEST_MOUNT", str(mount))
    monkeypatch.setenv(
        "PYTHONPATH", f"{Path(__file__).parent / 'mounted'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    )
    make = executor_input_utils.artifact_type_schema_to_artifact_list

    def in_s3(*, name: str, artifact_type: Any, task_root: str) -> Any:
        # A task's folder in KFP's layout: <root>/<pipeline>/<run id>/<task>/<execution>.
        pipeline, task = Path(task_root).relative_to(local).parts
        uri = f"s3://{bucket}/kfp/finetune/{pipeline}/{task}/1"
        return make(name=name, artifact_type=artifact_type, task_root=uri)

    server = StepServer()

    def with_upload(full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
        step = server.start(full_command[3:], {**os.environ, **(env_vars or {})})
        for line in step.stdout:
            print(line, end="")
        code = step.wait()
        client = storage.s3_client()
        for path in [item for item in mount.rglob("*") if item.is_file()]:
            client.put_object(Bucket=bucket, Key=str(path.relative_to(mount / bucket)), Body=path.read_bytes())
        return code

    monkeypatch.setattr(executor_input_utils, "artifact_type_schema_to_artifact_list", in_s3)
    monkeypatch.setattr(subprocess_task_handler, "run_local_subprocess", with_upload)
    return server
