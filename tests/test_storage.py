import hashlib
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from botocore.exceptions import ResponseStreamingError
from botocore.response import StreamingBody
from safetensors.numpy import save

from mixtune import models, storage
from mixtune.artifacts.sizes.stored_weights import read_tensors
from mixtune.artifacts.typed_json import Manifest, read_artifact, write_artifact
from mixtune.errors import ConfigError, DataError, StorageError
from mixtune.preflight.model_checks import check_weights
from mixtune.storage import streams, transfer

from .http_server import Answers, LocalServer
from .limits import limited


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "folder")
    return storage.join(request.getfixturevalue("bucket"), "folder")


def test_what_is_written_is_read_back_with_its_hash(folder: str) -> None:
    data = os.urandom(storage.BLOCK_BYTES * 2 + 12345)
    with storage.open_write(storage.join(folder, "a.bin")) as stream:
        for start in range(0, len(data), 1_000_000):
            stream.write(data[start : start + 1_000_000])
    entry = stream.entry("a.bin")
    assert (entry.num_bytes, entry.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    with storage.open_read(storage.join(folder, "a.bin")) as stream:
        assert stream.read() == data
        stream.seek(-10, os.SEEK_END)
        assert stream.read() == data[-10:]


def test_a_whole_object_is_read_in_few_requests(bucket: str) -> None:
    uri, data = storage.join(bucket, "a.bin"), os.urandom(storage.BLOCK_BYTES + 12345)
    with storage.open_write(uri) as stream:
        stream.write(data)
    requests: list[str] = []
    events = storage.s3_client().meta.events
    events.register("before-call.s3.GetObject", lambda params, **_: requests.append(params["headers"]["Range"]))
    with storage.open_read(uri) as stream:
        assert stream.read() == data
    assert len(requests) == 2


def test_objects_that_a_role_may_not_delete_are_said(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    storage.write_json(storage.join(bucket, "old/a.json"), 1)
    keep = {"Errors": [{"Key": "old/a.json", "Code": "AccessDenied"}]}
    events = storage.s3_client().meta.events
    events.register_first("after-call.s3.DeleteObjects", update := lambda parsed, **_: parsed.update(keep))
    try:
        storage.delete(storage.join(bucket, "old"))
    finally:
        events.unregister("after-call.s3.DeleteObjects", update)
    assert capsys.readouterr().out == f"{bucket}/old: 1 of 1 objects stay there: AccessDenied\n"


def test_a_write_that_fails_leaves_nothing_and_keeps_what_was_there(folder: str) -> None:
    uri = storage.join(folder, "a.txt")
    storage.write_json(uri, 1)
    with pytest.raises(RuntimeError), storage.open_write(uri) as stream:
        stream.write(b"x" * (storage.BLOCK_BYTES + 1))
        raise RuntimeError
    assert storage.read_json(uri) == 1
    assert [entry.path for entry in storage.list_files(folder)] == ["a.txt"]


def test_a_fingerprint_sees_a_changed_byte_and_nothing_else(folder: str) -> None:
    storage.write_json(storage.join(folder, "a.json"), {"a": 1})
    first = storage.fingerprint(folder)
    storage.write_json(storage.join(folder, "_hidden"), 0)
    assert storage.fingerprint(folder) == first
    assert storage.check_fingerprint(first) == folder
    storage.write_json(storage.join(folder, "a.json"), {"a": 2})
    assert storage.fingerprint(folder) != first
    with pytest.raises(DataError, match="changed since this run looked at it"):
        storage.check_fingerprint(first)


def test_a_local_file_is_hashed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = list[str]()
    digest_of = hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda stream, name: hashed.append(stream.name) or digest_of(stream, name)
    )
    paths, uri = [tmp_path / name for name in ("fresh", "settled")], str(tmp_path)
    for path in paths:
        path.write_text("a")
    os.utime(paths[1], (0, 0))  # long ago, so that a further write would show
    first = storage.fingerprint(uri)
    assert storage.fingerprint(uri) == first
    assert sorted(Path(name).name for name in hashed) == ["fresh", "fresh", "settled"]
    paths[1].write_text("b")
    os.utime(paths[1], (0, 0))
    assert storage.fingerprint(uri) != first


@dataclass(frozen=True, kw_only=True)
class Listing(Manifest):
    KIND: ClassVar[str] = "listing"
    VERSION: ClassVar[int] = 1


def test_a_manifest_that_is_read_has_whole_files(folder: str) -> None:
    entry = storage.write_json(storage.join(folder, "data/x/a.json"), [1, 2, 3])
    write_artifact(storage.join(folder, "m"), Listing(data_uri=storage.join(folder, "data/x"), files=(entry,)))
    read_artifact(Listing, storage.join(folder, "m")).verify()
    storage.write_json(storage.join(folder, "data/x/a.json"), [1, 2, 3, 4])
    with pytest.raises(DataError, match="make it again"):
        read_artifact(Listing, storage.join(folder, "m")).verify()


def test_a_folder_is_fetched_whole_and_deleted_whole(folder: str, tmp_path: Path) -> None:
    for name in ("a.json", "sub/b.json"):
        storage.write_json(storage.join(folder, name), name)
    local = storage.fetch(folder, tmp_path / "fetched")
    assert sorted(path.relative_to(local).as_posix() for path in local.rglob("*.json")) == ["a.json", "sub/b.json"]
    storage.delete(folder)
    assert not storage.exists(folder)
    with pytest.raises(DataError, match="no such file or folder"):
        storage.list_files(folder)


def test_a_folder_of_hidden_files_alone_is_not_said_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "_chat.txt").write_text("x")
    with pytest.raises(DataError, match=r"no file in it, but for names with \. or _ in front"):
        storage.list_files(str(tmp_path))


def test_one_file_in_s3_is_fetched_under_its_name(bucket: str, tmp_path: Path) -> None:
    storage.write_json(f"{bucket}/deep/a.json", 5)
    assert storage.read_json(str(storage.fetch(f"{bucket}/deep/a.json", tmp_path / "f") / "a.json")) == 5


def test_a_model_in_s3_comes_without_its_weights_where_they_are_not_asked_for(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXTUNE_CACHE_DIR", str(tmp_path / "cache"))
    weights = save({"lm_head.weight": np.ones((2**19, 32), np.float32)})
    for name, content in {"config.json": b"{}", "model.safetensors": weights, "original/a.pth": weights}.items():
        with storage.open_write(f"{bucket}/model/{name}") as stream:
            stream.write(content)
    headers = models.fetch_model(f"{bucket}/model", weights=False)
    assert sum(512 * path.stat().st_blocks for path in headers.rglob("*")) < len(weights) / 100
    assert list(check_weights(headers)) == []
    assert [tensor.shape for tensor in read_tensors(f"{bucket}/model", headers)] == [(2**19, 32)]
    whole = models.fetch_model(f"{bucket}/model")
    assert (whole / "model.safetensors").read_bytes() == weights
    assert not list((tmp_path / "cache").rglob("*.pth"))


def test_objects_are_encrypted_with_the_key_that_is_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIXTUNE_KMS_KEY_ID", raising=False)
    storage.configure_storage({"kms_key_id": "alias/data"})
    monkeypatch.setenv("MIXTUNE_KMS_KEY_ID", os.environ["MIXTUNE_KMS_KEY_ID"])
    for name, size in (("small", 10), ("large", storage.BLOCK_BYTES + 1)):
        with storage.open_write(f"{bucket}/{name}") as stream:
            stream.write(b"x" * size)
        head = streams.head(f"{bucket}/{name}")
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "alias/data")


def test_an_unknown_storage_option_is_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown option 'kms'; there are kms_key_id"):
        storage.configure_storage({"kms": "x"})


def test_the_region_and_the_endpoint_that_are_set_are_those_of_the_client(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert storage.s3_client().meta.region_name == "us-east-1"
    storage.configure_storage({"region": "eu-west-1", "endpoint_url": "http://127.0.0.1:9"})
    assert storage.s3_client().meta.region_name == "eu-west-1"
    assert storage.s3_client().meta.endpoint_url == "http://127.0.0.1:9"


def test_a_writer_that_is_killed_leaves_no_file_under_the_name(tmp_path: Path) -> None:
    code = (
        "import sys, time; from mixtune import storage\n"
        "with storage.open_write(sys.argv[1]) as stream:\n"
        "    stream.write(b'x' * 1000000); print('there', flush=True); time.sleep(60)\n"
    )
    target = tmp_path / "a.bin"
    with subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"there\n"
        process.send_signal(signal.SIGKILL)
    time.sleep(0.05)
    assert not target.exists()
    with pytest.raises(DataError):
        storage.list_files(str(tmp_path))


def test_an_unknown_scheme_is_refused_and_never_becomes_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for uri in ("minio://mlpipeline/v2/a", "gs://bucket/a"):
        for use in (storage.exists, storage.list_files, lambda uri: storage.write_json(uri, {})):
            with pytest.raises(ConfigError, match=r":// is not read or written here; give a local path, s3://"):
                use(uri)
    assert not list(tmp_path.iterdir())


def test_processes_of_a_node_bring_each_byte_of_a_model_once(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "RANGE_BYTES", 1000)
    files = {"a.safetensors": os.urandom(4500), "config.json": b"{}", "b/empty": b""}
    for name, data in files.items():
        with storage.open_write(f"{bucket}/model/{name}") as stream:
            stream.write(data)
    ranges: list[str] = []
    storage.s3_client().meta.events.register(
        "before-call.s3.GetObject", lambda params, **_: ranges.append(params["url_path"] + params["headers"]["Range"])
    )
    meeting = threading.Barrier(3)

    def process(index: int) -> None:
        share = storage.Share(index=index, count=3, wait=lambda: meeting.wait(20) and None, token="t" * 32)
        for _ in range(2):  # the second time everything is there
            storage.fetch(f"{bucket}/model", tmp_path / "node", share)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(process, range(3)))
    assert len(ranges) == len(set(ranges)) == 6
    assert {name: (tmp_path / "node" / name).read_bytes() for name in files} == files
    assert not list((tmp_path / "node").glob(".*"))


def test_the_ranges_of_an_object_are_asked_for_at_once(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "RANGE_BYTES", 1000)
    data = os.urandom(32_000)
    with storage.open_write(f"{bucket}/model.safetensors") as stream:
        stream.write(data)
    client, all_asked = storage.s3_client(), threading.Barrier(32)
    get_object = client.get_object

    def wait_for_the_others(**arguments: Any) -> Any:
        all_asked.wait(20)
        return get_object(**arguments)

    monkeypatch.setattr(client, "get_object", wait_for_the_others)
    storage.fetch(f"{bucket}/model.safetensors", tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == data


def test_a_range_whose_connection_breaks_is_asked_for_again_and_an_object_that_was_replaced_is_an_error(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, data = f"{bucket}/a.bin", os.urandom(5000)
    with storage.open_write(uri) as stream:
        stream.write(data)
    read, breaks = StreamingBody.read, iter([True, False, True])

    def breaking(body: StreamingBody, amount: int) -> bytes:
        if next(breaks, False):
            raise ResponseStreamingError(error="reset by peer")
        return bytes(read(body, amount))

    monkeypatch.setattr(StreamingBody, "read", breaking)
    reader = storage.RangeReader(uri)
    assert reader.read(1000, 3000) == data[1000:4000]
    with storage.open_write(uri) as stream:
        stream.write(b"x" * 5000)
    with pytest.raises(StorageError, match=r"a\.bin: PreconditionFailed: it was replaced"):
        reader.read(0, 10)
    with pytest.raises(DataError, match="ends 8 bytes before it should"):
        storage.RangeReader(uri).read(4998, 10)


def test_a_stream_goes_on_where_its_connection_broke_and_says_so_where_it_breaks_again_and_again(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with storage.open_write(f"{bucket}/a.bin") as stream:
        stream.write(data := os.urandom(5000))
    read, breaks = StreamingBody.read, ["cut", "changed"]

    def breaking(body: StreamingBody, amt: int | None = None) -> bytes:
        kind = breaks.pop(0) if breaks else ""
        if kind == "cut":
            raise ResponseStreamingError(error="reset by peer")
        block = bytes(read(body, amt))
        return bytes(len(block)) if kind == "changed" else block

    monkeypatch.setattr(StreamingBody, "read", breaking)
    monkeypatch.setattr(transfer, "TRIES", 3)
    with storage.open_read(f"{bucket}/a.bin") as stream:
        assert stream.read() == data
    breaks += ["cut"] * 3
    with (
        pytest.raises(StorageError, match=r"a\.bin: the connection broke 3 times .*reset by peer.*; check the network"),
        storage.open_read(f"{bucket}/a.bin") as stream,
    ):
        stream.read()


class Expired(Answers):
    """Refuses everything as S3 does when a token's time is over."""

    def do_GET(self) -> None:
        self.answer(403, "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>")

    do_PUT = do_POST = do_GET


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("there", "NoSuchKey: there is no such object; it was deleted meanwhile"),
        ("bucket", "s3://no-such-bucket/x: NoSuchBucket: there is no such bucket; check its name"),
        ("expired", "ExpiredToken: the credentials have expired; log in again"),
        (
            "nowhere",
            "EndpointConnectionError: S3 does not answer; check storage.endpoint_url, the network and its proxy",
        ),
    ],
)
def test_what_s3_refuses_names_the_object_and_the_way_out(
    place: str, words: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = LocalServer(Expired)
    with server.running():
        if place == "nowhere":
            monkeypatch.setattr(streams, "TRIES", 1)
        if place in ("expired", "nowhere"):
            storage.configure_storage({"endpoint_url": server.url if place == "expired" else "http://127.0.0.1:9"})
        uri = "s3://no-such-bucket/x" if place == "bucket" else f"{bucket}/x"
        (tmp_path / "x").write_bytes(b"x")
        calls = [lambda: storage.write_json(uri, {}), lambda: storage.move_in(tmp_path / "x", uri)]
        if place == "there":
            calls = [lambda: storage.s3_client().get_object(Bucket=bucket[5:], Key="x")]
        for call in calls:
            with pytest.raises(StorageError, match=re.escape(uri)) as raised:
                call()
            assert words in str(raised.value)
    assert (tmp_path / "x").exists()


@pytest.mark.parametrize("block", [700, 300_000])
def test_a_file_that_does_not_fit_leaves_the_one_before_it_and_nothing_else(tmp_path: Path, block: int) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"before")
    with (
        limited(resource.RLIMIT_FSIZE, 100_100),
        pytest.raises(OSError, match=re.escape(f"File too large: '{file}'")),
        storage.open_write(str(file)) as stream,
    ):
        for _ in range(0, 100_200, block):
            stream.write(bytes(block))
    assert file.read_bytes() == b"before" and list(tmp_path.iterdir()) == [file]


def test_parts_go_out_while_the_next_is_written_and_a_failed_one_leaves_nothing(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BLOCK_BYTES", 5 * 2**20)
    client = storage.s3_client()
    started: list[int] = []
    upload_part = client.upload_part

    def slow(**arguments: Any) -> Any:
        started.append(arguments["PartNumber"])
        if arguments["PartNumber"] == 1:
            deadline = time.monotonic() + 20
            while len(started) < 3 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(started) >= 3
        if arguments["PartNumber"] == 4:
            raise OSError("the network is away")
        return upload_part(**arguments)

    monkeypatch.setattr(client, "upload_part", slow)
    with storage.open_write(f"{bucket}/whole.bin") as stream:
        stream.write(data := os.urandom(16 * 2**20)[: 15 * 2**20])
    assert client.get_object(Bucket=bucket[5:], Key="whole.bin")["Body"].read() == data
    with pytest.raises(OSError, match="the network is away"), storage.open_write(f"{bucket}/torn.bin") as stream:
        stream.write(os.urandom(21 * 2**20))
    assert not storage.exists(f"{bucket}/torn.bin")
    assert not client.list_multipart_uploads(Bucket=bucket[5:]).get("Uploads")


def test_an_upload_that_s3_does_not_complete_leaves_no_parts(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BLOCK_BYTES", 5 * 2**20)
    client = storage.s3_client()

    def refuse(**_: object) -> None:
        raise OSError("the network is away")

    monkeypatch.setattr(client, "complete_multipart_upload", refuse)
    with pytest.raises(OSError, match="the network is away"), storage.open_write(f"{bucket}/torn.bin") as stream:
        stream.write(bytes(6 * 2**20))
    assert not client.list_multipart_uploads(Bucket=bucket[5:]).get("Uploads")


class Closing(Answers):
    """Closes every connection without a word."""

    def do_GET(self) -> None:
        self.close_connection = True


def test_a_server_that_closes_every_connection_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    server = LocalServer(Closing)
    for name, value in {"AWS_ENDPOINT_URL_S3": server.url, "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setattr(streams, "TRIES", 1)
    storage.s3_client.cache_clear()
    with (
        server.running(),
        pytest.raises(StorageError, match=r"s3://bucket/a: ConnectionClosedError: S3 does not answer"),
    ):
        storage.exists("s3://bucket/a")
    storage.s3_client.cache_clear()
