"""Fixtures: the policies of overlay eks-p5, filled in, and a local S3 server behind them."""

import json
import runpy
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from mixtune import storage

from .gate import Gate

ROOT = Path(__file__).parents[2]
RENDER = runpy.run_path(str(ROOT / "policies" / "render.py"))
PREFIXES = ("raw", "benchmarks", "models", "kfp")


@pytest.fixture(scope="session")
def settings() -> dict[str, str]:
    return dict(RENDER["read_settings"](ROOT / "kustomize/overlays/eks-p5/settings/settings.env"))


@pytest.fixture(scope="session")
def policies(settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """A filled-in policy by its name, such as `iam/steps`."""
    target = tmp_path_factory.mktemp("policies")
    RENDER["render"](settings, target)
    return lambda name: json.loads((target / f"{name}.json").read_text())


@dataclass(frozen=True, kw_only=True)
class Account:
    """A bucket set up as policies/ says, and a gate that holds every role to its policy."""

    url: str
    gate: Gate
    bucket: str
    key: str

    def act_as(self, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """From here on, this process has a role's credentials in its environment, as a pod has."""
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", self.url)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"AKIA{role.upper()}")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        self.gate.roles[f"AKIA{role.upper()}"] = role
        # boto3's own session keeps the credentials that it found first.
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
        storage.s3_client.cache_clear()


@pytest.fixture
def account(
    settings: dict[str, str], policies: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Account]:
    from moto.backends import get_backend
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    documents = {
        "data": policies("iam/steps"),
        "launcher": policies("iam/steps"),
        "trainer": policies("iam/trainer"),
        "viewer": policies("iam/viewer"),
        "server": policies("iam/server"),
        "bucket": policies("s3/bucket"),
        "key": policies("kms/key"),
    }
    gate = Gate(DomainDispatcherApplication(create_backend_app), documents, settings)
    server = make_server("127.0.0.1", 0, gate, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.port}"
    _set_up(administrator(url), settings["BUCKET"], policies)
    yield Account(url=url, gate=gate, bucket=settings["BUCKET"], key=settings["KMS_KEY_ARN"])
    server.shutdown()
    get_backend("s3").reset()
    storage.s3_client.cache_clear()


def administrator(url: str) -> Any:
    """An S3 client that the gate lets through."""
    return boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="admin", aws_secret_access_key="secret"
    )


def _set_up(client: Any, bucket: str, policies: Callable[[str], Any]) -> None:
    """What docs/cluster.md has an administrator do, over the same API."""
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    client.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=policies("s3/encryption"))
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=policies("s3/lifecycle"))
    client.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=policies("s3/object-lock"))
    client.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=policies("s3/public-access-block"))
    # moto takes every condition as met, so that each conditional deny would always deny: the gate evaluates it instead.
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policies("s3/bucket")))
    client.delete_bucket_policy(Bucket=bucket)
    for prefix in PREFIXES:
        client.put_object(Bucket=bucket, Key=f"{prefix}/there.txt", Body=b"there")
