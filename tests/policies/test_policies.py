"""Roles reach their own prefixes and no others; nothing is kept unencrypted, in plain transport or from elsewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixtune import storage
from mixtune.errors import StorageError
from mixtune.serve.fetch_weights import fetch_weights

from .conftest import Account, administrator

READS = {
    "data": {"raw", "benchmarks", "models", "kfp"},
    "launcher": {"raw", "benchmarks", "models", "kfp"},
    "trainer": {"models", "kfp"},
    "viewer": {"kfp"},
    "server": {"models"},
}


def refused(action: Callable[[], Any]) -> bool:
    try:
        action()
    except StorageError as error:
        assert error.code in ("AccessDenied", "403"), error
        return True
    return False


def encrypted(account: Account, key: str) -> tuple[str, str]:
    answer = administrator(account.url).head_object(Bucket=account.bucket, Key=key)
    return answer.get("ServerSideEncryption", ""), answer.get("SSEKMSKeyId", "")


@pytest.mark.parametrize("role", list(READS))
def test_a_role_reads_its_own_prefixes_and_no_other(
    account: Account, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    account.act_as(role, monkeypatch)
    for prefix in ("raw", "benchmarks", "models", "kfp"):
        uri = f"s3://{account.bucket}/{prefix}/there.txt"
        assert refused(lambda uri=uri: storage.sha256_file(uri)) == (prefix not in READS[role]), prefix


@pytest.mark.parametrize("role", ["data", "launcher", "trainer"])
def test_a_role_lists_its_own_prefixes_and_never_the_bucket(
    account: Account, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    account.act_as(role, monkeypatch)
    for prefix in READS[role]:
        assert storage.exists(f"s3://{account.bucket}/{prefix}/there.txt")
        assert not storage.exists(f"s3://{account.bucket}/{prefix}/not-there")
    assert refused(lambda: storage.s3_client().list_objects_v2(Bucket=account.bucket))
    assert refused(lambda: storage.list_files(f"s3://{account.bucket}/other-team/data"))


@pytest.mark.parametrize(
    ("role", "key", "permitted"),
    [
        ("data", "kfp/prepare-data/run/sanitize/1/data/pools/a", True),
        ("launcher", "kfp/finetune/run/mix-shard/1/data/shards/a", True),
        ("launcher", "raw/customer.jsonl", False),
        ("launcher", "models/base/model.safetensors", False),
        ("trainer", "kfp/finetune/run/train-lora/1/data/model/adapter_model.safetensors", True),
        ("trainer", "kfp/finetune/run/train-sft-2/1/data/model/checkpoint/step", True),
        ("trainer", "kfp/finetune/run/mix-shard/1/data/shards/a", False),
        ("trainer", "raw/customer.jsonl", False),
        ("viewer", "kfp/finetune/run/compare/1/report", False),
        ("server", "models/base/model.safetensors", False),
        ("server", "kfp/finetune/run/train-lora/1/data/model/adapter_model.safetensors", False),
    ],
)
def test_a_role_writes_only_what_its_tasks_make(
    account: Account, monkeypatch: pytest.MonkeyPatch, role: str, key: str, permitted: bool
) -> None:
    account.act_as(role, monkeypatch)
    monkeypatch.setenv("MIXTUNE_KMS_KEY_ID", account.key)
    uri = f"s3://{account.bucket}/{key}"
    assert refused(lambda: storage.write_json(uri, {})) != permitted
    if permitted:
        assert encrypted(account, key) == ("aws:kms", account.key)
        storage.delete(uri)


def test_a_server_fetches_a_model_and_no_other_artifact(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = f"s3://{account.bucket}/kfp/finetune/run/train-2/1/data"
    client = administrator(account.url)
    for key in ("model/adapter_config.json", "shards/shard-0", "pools/customer.parquet"):
        client.put_object(Bucket=account.bucket, Key=f"{task.split('/', 3)[3]}/{key}", Body=b"{}")
    account.act_as("server", monkeypatch)
    fingerprint = storage.fingerprint(f"{task}/model")
    assert fetch_weights(fingerprint, tmp_path) == ["adapter_config.json"]
    assert (tmp_path / "adapter_config.json").read_bytes() == b"{}"
    for key in ("shards/shard-0", "pools/customer.parquet"):
        assert refused(lambda key=key: storage.sha256_file(f"{task}/{key}"))
    assert refused(lambda: storage.list_files(f"{task}/shards"))


def test_a_large_file_is_encrypted_in_every_part(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account.act_as("launcher", monkeypatch)
    storage.configure_storage({"region": "us-east-1"})
    monkeypatch.setenv("MIXTUNE_KMS_KEY_ID", account.key)
    uri = f"s3://{account.bucket}/kfp/finetune/run/mix-shard/1/data/shards/large"
    with storage.open_write(uri) as stream:
        stream.write(bytes(2 * storage.BLOCK_BYTES + 1))
    assert encrypted(account, uri.split("/", 3)[3]) == ("aws:kms", account.key)
    assert storage.sha256_file(uri) == stream.entry("large").sha256


def test_a_put_with_another_key_or_none_is_refused(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account.act_as("launcher", monkeypatch)
    other = account.key.replace("0000", "1111")

    def put(**headers: str) -> bool:
        return refused(
            lambda: storage.s3_client().put_object(Bucket=account.bucket, Key="kfp/a/b", Body=b"", **headers)
        )

    assert put(ServerSideEncryption="AES256")
    assert put(ServerSideEncryption="aws:kms", SSEKMSKeyId=other)
    assert put(ServerSideEncryption="aws:kms")
    assert not put(ServerSideEncryption="aws:kms", SSEKMSKeyId=account.key)
    # KFP's own launcher names no key: under the pipeline root the bucket's default encrypts.
    assert not put()
    assert encrypted(account, "kfp/a/b") == ("aws:kms", account.key)


def test_an_unencrypted_put_is_refused_outside_the_pipeline_root(
    account: Account, policies: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even of somebody who may write there."""
    account.act_as("launcher", monkeypatch)
    statement = {"Effect": "Allow", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{account.bucket}/raw/*"}
    account.gate._documents["launcher"] = {
        "Statement": [*policies("iam/steps")["Statement"], statement],
    }
    client = storage.s3_client()
    assert refused(lambda: client.put_object(Bucket=account.bucket, Key="raw/a", Body=b""))
    key = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": account.key}
    assert not refused(lambda: client.put_object(Bucket=account.bucket, Key="raw/a", Body=b"", **key))


@pytest.mark.parametrize(
    "network",
    [{"aws:SecureTransport": "false"}, {"s3:TlsVersion": "1.1"}, {"aws:SourceVpce": "vpce-other"}],
)
def test_plain_transport_old_tls_and_other_endpoints_are_refused(
    account: Account, monkeypatch: pytest.MonkeyPatch, network: dict[str, str]
) -> None:
    account.act_as("launcher", monkeypatch)
    uri = f"s3://{account.bucket}/raw/there.txt"
    assert not refused(lambda: storage.sha256_file(uri))
    account.gate.network |= network
    assert refused(lambda: storage.sha256_file(uri))


def test_a_request_over_the_internet_is_refused(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account.act_as("launcher", monkeypatch)
    del account.gate.network["aws:SourceVpce"]
    assert refused(lambda: storage.sha256_file(f"s3://{account.bucket}/raw/there.txt"))


def test_the_trainer_never_reads_what_was_quarantined(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account.act_as("launcher", monkeypatch)
    uri = f"s3://{account.bucket}/kfp/finetune/run/sanitize/1/data/pools/quarantine.jsonl"
    storage.write_json(uri, {})
    account.act_as("trainer", monkeypatch)
    assert refused(lambda: storage.read_json(uri))


def test_a_viewer_reads_reports_and_not_the_data_beside_them(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account.act_as("launcher", monkeypatch)
    task = f"s3://{account.bucket}/kfp/finetune/run/compare/1"
    storage.write_json(f"{task}/report", {})
    storage.write_json(f"{task}/data/samples/rows", {})
    account.act_as("viewer", monkeypatch)
    assert not refused(lambda: storage.sha256_file(f"{task}/report"))
    assert refused(lambda: storage.sha256_file(f"{task}/data/samples/rows"))


def test_a_deleted_artifact_is_kept_as_a_version(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account.act_as("launcher", monkeypatch)
    uri = f"s3://{account.bucket}/kfp/finetune/run/compare/1/report"
    storage.write_json(uri, {})
    storage.delete(uri)
    assert not storage.exists(uri)
    found = administrator(account.url).list_object_versions(Bucket=account.bucket, Prefix=uri.split("/", 3)[3])
    assert len(found["Versions"]) == len(found["DeleteMarkers"]) == 1
