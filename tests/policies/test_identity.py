"""The way that a pod gets its rights: a web identity token, the default chain, a role; no key anywhere."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

CHILD = """
import json, sys
from mixtune import storage
from mixtune.errors import StorageError
said = []
for verb, uri in json.load(sys.stdin):
    try:
        storage.read_json(uri) if verb == "read" else storage.write_json(uri, {})
        said.append("ok")
    except StorageError as error:
        said.append(error.code)
print(json.dumps(said))
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """moto in a process of its own: what it enforces is global to it."""
    script = "from moto.server import ThreadedMotoServer as S; import time; s = S('127.0.0.1', 0, verbose=False)\n"
    script += "s.start(); print(s.get_host_and_port()[1], flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("role", "policy", "said"),
    [
        ("trainer", "iam/trainer", ["403", "ok", "AccessDenied", "ok"]),
        ("launcher", "iam/steps", ["ok", "ok", "ok", "ok"]),
    ],
)
def test_a_pods_role_is_taken_by_the_default_chain_and_holds_it_to_its_prefixes(
    server: str, tmp_path: Path, settings: dict[str, str], policies: Callable[[str], Any],
    role: str, policy: str, said: list[str],
) -> None:  # fmt: skip
    bucket = settings["BUCKET"]
    arn = set_up(server, bucket, role, policies(f"iam/trust-irsa-{role}"), policies(policy))
    token = tmp_path / "token"
    token.write_text("a service account's token")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    environment |= {"AWS_ENDPOINT_URL": server, "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}
    environment |= {"AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "AWS_ROLE_ARN": arn}
    asked = [
        ("read", f"s3://{bucket}/raw/there.json"),
        ("read", f"s3://{bucket}/models/there.json"),
        ("write", f"s3://{bucket}/kfp/finetune/run/mix-shard/1/shards"),
        ("write", f"s3://{bucket}/kfp/finetune/run/train-lora/1/model"),
    ]
    answer = subprocess.run(
        [sys.executable, "-c", CHILD], input=json.dumps(asked), env=environment, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert json.loads(answer.stdout) == said


def set_up(server: str, bucket: str, role: str, trust: dict[str, Any], policy: dict[str, Any]) -> str:
    """A role with its policies, a bucket with something in it; then IAM is enforced. The role's ARN."""
    options = {"endpoint_url": server, "region_name": "us-east-1"}
    session = boto3.Session(aws_access_key_id="admin", aws_secret_access_key="secret")
    storage, iam = session.client("s3", **options), session.client("iam", **options)
    storage.create_bucket(Bucket=bucket)
    for prefix in ("raw", "models"):
        storage.put_object(Bucket=bucket, Key=f"{prefix}/there.json", Body=b"{}")
    name = f"mixtune-{role}"
    created = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
    iam.put_role_policy(RoleName=name, PolicyName=name, PolicyDocument=json.dumps(policy))
    # The next request, for the role's credentials, carries no signature yet.
    request = urllib.request.Request(f"{server}/moto-api/reset-auth", data=b"1", headers={"Content-Type": "text/plain"})
    urllib.request.urlopen(request, timeout=10).read()
    return str(created["Role"]["Arn"])
