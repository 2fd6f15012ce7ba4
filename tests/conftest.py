"""Fixtures that several parts share: a local S3 server."""

import uuid
from collections.abc import Iterator

import pytest

from mixtune import storage


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """A real S3 server (moto) on a free local port; its URL."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """`s3://` URI of a fresh bucket; child processes reach it too."""
    for name, value in {
        "AWS_ENDPOINT_URL_S3": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    storage.s3_client.cache_clear()
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    storage.s3_client().create_bucket(Bucket=name)
    yield f"s3://{name}"
    storage.s3_client.cache_clear()
