"""Streams of bytes: a file that appears whole or not at all, and an object in S3 read by ranges or written in parts.

`storage` is the way to them.
"""

import contextlib
import hashlib
import os
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixtune.errors import ConfigError, StorageError, way_out

if TYPE_CHECKING:
    from botocore.client import BaseClient

BLOCK_BYTES = 8 * 2**20
"""Bytes of one ranged read and of one part of a multipart upload (S3 asks for at least 5 MiB)."""
MAX_CONNECTIONS = 64
"""To S3 from this process, kept open."""
TRIES = 8
"""Of a request that S3 does not answer, or answers with an error of its own."""
PARTS_AT_ONCE = 4
"""Parts of one stream that are on their way, and so in memory."""


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of an artifact."""

    path: str
    """Relative to the artifact's data folder, with `/`."""
    num_bytes: int
    sha256: str
    """Hex."""


def split_s3(uri: str) -> tuple[str, str]:
    """Return bucket and key of an `s3://` URI; a ConfigError where it lacks one of them."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket or not key:
        raise ConfigError(f"{uri}: not a whole S3 address; write s3://bucket/key")
    return bucket, key


@lru_cache(maxsize=1)
def s3_client() -> "BaseClient":
    """Return this process's S3 client, by the default AWS chain and `AWS_REGION`; its calls raise StorageError."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(retries={"mode": "standard", "max_attempts": TRIES}, max_pool_connections=MAX_CONNECTIONS)
    client = boto3.client("s3", region_name=os.environ.get("AWS_REGION") or None, config=config)
    call = client._make_api_call

    def explained_call(operation: str, arguments: dict[str, object]) -> object:
        try:
            return call(operation, arguments)
        except (BotoCoreError, ClientError) as error:
            names: Any = arguments.get("Delete") or {"Objects": [{"Key": arguments.get("Prefix", "")}]}
            key = arguments.get("Key") or names["Objects"][0]["Key"]
            raise _explain(error, f"s3://{arguments.get('Bucket', '')}/{key}") from error

    client._make_api_call = explained_call
    return client


def _explain(error: Exception, uri: str) -> StorageError:
    """Return what S3 refused, with the way out."""
    answer = getattr(error, "response", None) or {}  # a lost connection has None
    code = str(answer.get("Error", {}).get("Code", type(error).__name__))
    region = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region") or "another one"
    way = way_out("s3", code).replace("{region}", region) or f"S3 refused it ({error})"
    explained = StorageError(f"{uri}: {code}: {way}")
    explained.code = code
    return explained


def head(uri: str) -> dict[str, Any]:
    """Return the headers of an object in S3; a FileNotFoundError where there is no such object, or no such bucket."""
    bucket, key = split_s3(uri)
    try:
        return dict(s3_client().head_object(Bucket=bucket, Key=key))
    except StorageError as error:
        if error.code in ("404", "NoSuchKey", "NoSuchBucket"):
            raise FileNotFoundError(uri) from error
        raise


# The io protocol's methods are inherited in meaning from io.RawIOBase and say nothing of their own.
# ruff: noqa: D102
class Writer(RawIOBase):
    """A stream into a file that is not there yet; it counts and hashes what goes through."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.num_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._hash.update(data)
        self._put(data)
        size = memoryview(data).nbytes
        self.num_bytes += size
        return size

    def entry(self, path: str) -> FileEntry:
        """Return the file's entry for a manifest."""
        return FileEntry(path=path, num_bytes=self.num_bytes, sha256=self._hash.hexdigest())

    def _put(self, data: Any) -> None:
        raise NotImplementedError

    def commit(self) -> None:
        """Make the file appear."""
        raise NotImplementedError

    def abort(self) -> None:
        """Leave nothing behind."""
        raise NotImplementedError


class LocalWriter(Writer):
    """A file beside the one that it will replace, under a hidden name until it is whole."""

    def __init__(self, uri: str) -> None:
        super().__init__()
        self._target = Path(uri)
        self._target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="." + self._target.name + ".", dir=self._target.parent)
        self._temporary, self._file = Path(name), os.fdopen(handle, "wb")

    def _put(self, data: Any) -> None:
        self._file.write(data)

    def commit(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.chmod(0o666 & ~_umask())
        self._temporary.replace(self._target)
        self.close()

    def abort(self) -> None:
        with contextlib.suppress(OSError):  # what is still to be written may not fit
            self._file.close()
        self._temporary.unlink(missing_ok=True)
        self.close()


class S3Writer(Writer):
    """One PUT for a small object, a multipart upload for a larger one; SSE-KMS where a key is set.

    Parts go out by threads while the next one is written. They grow, so that 10,000 of them hold 5 TiB.
    """

    def __init__(self, uri: str) -> None:
        super().__init__()
        self._bucket, self._key = split_s3(uri)
        self._buffer = bytearray()
        self._upload_id = ""
        self._parts: list[Future[dict[str, Any]]] = []
        self._threads: ThreadPoolExecutor | None = None

    def _put(self, data: Any) -> None:
        self._buffer += data
        while len(self._buffer) >= (size := self._part_bytes()):
            block = bytes(memoryview(self._buffer)[:size])
            del self._buffer[:size]
            self._send(block)

    def _part_bytes(self) -> int:
        return int(BLOCK_BYTES * 2 ** (len(self._parts) // 1000))

    def _send(self, block: bytes) -> None:
        if not self._threads:
            answer = s3_client().create_multipart_upload(Bucket=self._bucket, Key=self._key, **encryption())
            self._upload_id = answer["UploadId"]
            self._threads = ThreadPoolExecutor(PARTS_AT_ONCE)
        if len(self._parts) >= PARTS_AT_ONCE:
            self._parts[-PARTS_AT_ONCE].result()
        self._parts.append(self._threads.submit(self._send_part, len(self._parts) + 1, block))

    def _send_part(self, number: int, block: bytes) -> dict[str, Any]:
        answer = s3_client().upload_part(
            Bucket=self._bucket, Key=self._key, UploadId=self._upload_id, PartNumber=number, Body=block
        )
        return {"ETag": answer["ETag"], "PartNumber": number}

    def commit(self) -> None:
        if not self._threads:
            s3_client().put_object(Bucket=self._bucket, Key=self._key, Body=bytes(self._buffer), **encryption())
        else:
            if self._buffer:
                self._send(bytes(self._buffer))
            parts = [part.result() for part in self._parts]
            s3_client().complete_multipart_upload(
                Bucket=self._bucket, Key=self._key, UploadId=self._upload_id, MultipartUpload={"Parts": parts}
            )
            self._threads.shutdown()
        self._buffer.clear()
        self.close()

    def abort(self) -> None:
        if self._threads:
            self._threads.shutdown(cancel_futures=True)  # a part that comes later would stay and be paid for
            try:
                s3_client().abort_multipart_upload(Bucket=self._bucket, Key=self._key, UploadId=self._upload_id)
            except StorageError as error:  # what ends the upload counts, not this
                print(f"{error}; the parts that were uploaded stay there", flush=True)
        self.close()


def encryption() -> dict[str, str]:
    """Return the arguments that name the KMS key of whatever is written; empty without one."""
    key = os.environ.get("MIXTUNE_KMS_KEY_ID", "")
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}


@lru_cache(maxsize=1)
def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
