"""Files by URI: a local path or `s3://bucket/key`, read and written alike, in bounded memory.

Writes are atomic: a file appears under its name when it is whole, or not at all. What is written is hashed on the
way (SHA-256). A *manifest* lists the files of an artifact and is written last, so that its presence means that the
folder is whole; `verify` checks that it still is.

Credentials come from the default AWS chain. `use` sets the few options there are, in the environment, so that child
processes see them too.
"""

import fnmatch
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import IO, Any

from mixtune.errors import ConfigError, DataError

BLOCK_BYTES = 8 * 2**20
"""Bytes of one ranged read and of one part of a multipart upload (S3 asks for at least 5 MiB)."""

_OPTIONS = {"kms_key_id": "MIXTUNE_KMS_KEY_ID", "endpoint_url": "AWS_ENDPOINT_URL_S3", "region": "AWS_REGION"}


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of an artifact."""

    path: str
    """Relative to the artifact's data folder, with `/`."""
    num_bytes: int
    sha256: str
    """Hex."""


def use(options: dict[str, Any]) -> None:
    """Take the `storage` parameter of a component: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Raises:
        ConfigError: An unknown key.
    """
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise ConfigError(f"storage: unknown option {unknown[0]!r}; there are {', '.join(_OPTIONS)}")
    for key, value in options.items():
        if value:
            os.environ[_OPTIONS[key]] = str(value)


def is_s3(uri: str) -> bool:
    """Whether the URI names an object in S3 rather than a local path."""
    return uri.startswith("s3://")


def join(uri: str, *parts: str) -> str:
    """The URI of something inside a folder."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def data_uri(artifact_uri: str, output: str) -> str:
    """Where the bytes of a KFP artifact lie: beside it, in a folder that no other output of the task shares."""
    return join(artifact_uri.rsplit("/", 1)[0], "data", output)


def list_files(uri: str) -> list[FileEntry]:
    """The files under a folder, or the one file, sorted by path; hidden names (`.x`, `_x`) are left out.

    Where there is nothing of that very name, `*`, `?` and `[...]` in it stand for parts of names, never for a `/`;
    the paths are then relative to the folder before the first of them.

    `sha256` is the digest of the content for local files. For S3 it stands for the version: the digest of version id
    or ETag, which changes whenever the content does.

    Raises:
        DataError: There is nothing under that name.
    """
    folder, pattern = split_pattern(uri)
    entries = _list_s3(folder) if is_s3(uri) else _list_local(Path(folder))
    if pattern:
        entries = [entry for entry in entries if _fits(entry.path.split("/"), pattern.split("/"))]
    if not entries:
        raise DataError(f"{uri}: no such file or folder; give a local path or s3://bucket/key that exists")
    return sorted(entries, key=lambda entry: entry.path)


def split_pattern(uri: str) -> tuple[str, str]:
    """The folder before a name with `*`, `?` or `[` in it, and the rest; a URI without them, and an empty text."""
    first = re.search(r"[*?[]", uri)
    if first is None or exists(uri):
        return uri, ""
    folder, _, _ = uri[: first.start()].rpartition("/")
    return folder or ("/" if uri.startswith("/") else "."), uri[len(folder) :].lstrip("/")


def _fits(names: list[str], pattern: list[str]) -> bool:
    return len(names) == len(pattern) and all(map(fnmatch.fnmatchcase, names, pattern))


def exists(uri: str) -> bool:
    """Whether there is a file or a folder with that name."""
    if not is_s3(uri):
        return Path(uri).exists()
    return file_exists(uri) or bool(_first_key(uri.rstrip("/") + "/"))


def fingerprint(uri: str) -> str:
    """`uri#digest`: the name together with what is there now; a cached step that takes it sees changed bytes."""
    total = hashlib.sha256()
    for entry in list_files(uri):
        total.update(f"{entry.path}\0{entry.num_bytes}\0{entry.sha256}\n".encode())
    return f"{uri}#{total.hexdigest()[:32]}"


def split_fingerprint(uri: str) -> tuple[str, str]:
    """The plain URI and the digest after `#`; the digest is empty where there is none."""
    plain, _, digest = uri.partition("#")
    return plain, digest


def check_fingerprint(uri: str) -> str:
    """The plain URI, once it is sure that its bytes are still the ones that were fingerprinted.

    Raises:
        DataError: They are not.
    """
    plain, digest = split_fingerprint(uri)
    if digest and fingerprint(plain) != uri:
        raise DataError(f"{plain}: changed since this run looked at it (digest {digest}); start the run again")
    return plain


@contextmanager
def open_read(uri: str) -> Iterator[IO[bytes]]:
    """A seekable stream of the bytes at the URI.

    Raises:
        DataError: There is no such file.
    """
    try:
        stream: IO[bytes] = BufferedReader(_S3Reader(uri), BLOCK_BYTES) if is_s3(uri) else Path(uri).open("rb")  # noqa: SIM115
    except FileNotFoundError as error:
        raise DataError(f"{uri}: no such file") from error
    with stream:
        yield stream


@contextmanager
def open_write(uri: str) -> Iterator["Writer"]:
    """A stream into a new file, which appears under its name only if the block ends without an error."""
    writer = _S3Writer(uri) if is_s3(uri) else _LocalWriter(uri)
    try:
        yield writer
    except BaseException:
        writer.abort()
        raise
    writer.commit()


def read_json(uri: str) -> Any:
    """The JSON value in a file.

    Raises:
        DataError: No such file, or not JSON.
    """
    with open_read(uri) as stream:
        try:
            return json.load(stream)
        except ValueError as error:
            raise DataError(f"{uri}: not JSON ({error})") from error


def write_json(uri: str, value: Any) -> FileEntry:
    """Write a JSON value, keys sorted, so that the same value has the same bytes."""
    with open_write(uri) as stream:
        stream.write((json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())
    return stream.entry(uri.rsplit("/", 1)[-1])


def write_manifest(path: str, manifest: dict[str, Any], data: str, files: list[FileEntry]) -> None:
    """Write an artifact's manifest: last, when all its files are there.

    Args:
        path: Where the manifest goes (a KFP artifact's `path`, or any URI).
        manifest: What the artifact says of itself; `kind` names what it is.
        data: URI of the folder that holds the files.
        files: The files, paths relative to `data`.
    """
    from mixtune import __version__

    listed = [asdict(entry) for entry in sorted(files, key=lambda entry: entry.path)]
    write_json(path, {**manifest, "data_uri": data, "files": listed, "mixtune_version": __version__})


def read_manifest(path: str, kind: str) -> dict[str, Any]:
    """Read a manifest of the given kind.

    Raises:
        DataError: No manifest (the step that writes it did not finish), or one of another kind.
    """
    if not exists(path):
        raise DataError(f"{path}: no manifest; the step that makes these {kind} has not finished")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        found = manifest.get("kind") if isinstance(manifest, dict) else type(manifest).__name__
        raise DataError(f"{path}: a manifest of {kind} is needed, this is one of {found!r}")
    return manifest


def manifest_digest(manifest: dict[str, Any]) -> str:
    """SHA-256 over what a manifest says of the content, whatever folder it lies in: 32 hex digits."""
    content = {key: value for key, value in manifest.items() if key != "data_uri"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def verify(manifest: dict[str, Any], folder: str = "") -> None:
    """Check the files of a manifest against their sizes and, where they are local, their SHA-256.

    Args:
        manifest: As read.
        folder: Where the files are; empty: where the manifest says, its `data_uri`.

    Raises:
        DataError: A file is missing, cut or changed.
    """
    for item in manifest["files"]:
        uri = join(folder or manifest["data_uri"], item["path"])
        size = file_size(uri)
        if size != item["num_bytes"]:
            raise DataError(f"{uri}: {size} bytes, the manifest says {item['num_bytes']}; make it again")
        if not is_s3(uri) and sha256_file(uri) != item["sha256"]:
            raise DataError(f"{uri}: its SHA-256 is not the manifest's; it was changed, make it again")


def file_size(uri: str) -> int:
    """Size of a file in bytes.

    Raises:
        DataError: There is no such file.
    """
    try:
        return int(_head(uri)["ContentLength"]) if is_s3(uri) else os.path.getsize(uri)
    except FileNotFoundError as error:
        raise DataError(f"{uri}: no such file") from error


def sha256_file(uri: str) -> str:
    """SHA-256 of a file's content, hex."""
    with open_read(uri) as stream:
        total = hashlib.sha256()
        while block := stream.read(BLOCK_BYTES):
            total.update(block)
        return total.hexdigest()


def delete(uri: str) -> None:
    """Delete a file, or a folder with all that is in it; nothing there is no error."""
    if not is_s3(uri):
        path = Path(uri)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return
    bucket, key = split_s3(uri)
    for page in s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key):
        keys = [item["Key"] for item in page.get("Contents", [])]
        keys = [name for name in keys if name == key or name.startswith(key.rstrip("/") + "/")]
        if keys:
            s3_client().delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": name} for name in keys]})


def fetch(uri: str, folder: Path) -> Path:
    """Bring a folder or a file to local disk: the path itself if it is local, else a whole copy under `folder`."""
    if not is_s3(uri):
        if not Path(uri).exists():
            raise DataError(f"{uri}: no such file or folder")
        return Path(uri)
    for entry in list_files(uri):
        source = uri if entry.path == uri.rsplit("/", 1)[-1] and file_exists(uri) else join(uri, entry.path)
        target = folder / entry.path
        if target.exists() and target.stat().st_size == entry.num_bytes:
            continue
        with open_read(source) as stream, open_write(str(target)) as writer:
            shutil.copyfileobj(stream, writer, BLOCK_BYTES)
    return folder


def file_exists(uri: str) -> bool:
    """Whether the URI names a file (not a folder)."""
    if not is_s3(uri):
        return Path(uri).is_file()
    # Not a HEAD: where a role may list some prefixes only, S3 answers 403 for an object that is not there.
    return _first_key(uri) == split_s3(uri)[1]


def upload(folder: Path, uri: str) -> list[FileEntry]:
    """Copy a local folder's files to a URI, in sorted order; the entries for a manifest come back."""
    entries = []
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        name = path.relative_to(folder).as_posix()
        with open(path, "rb") as stream, open_write(join(uri, name)) as writer:
            shutil.copyfileobj(stream, writer, BLOCK_BYTES)
        entries.append(writer.entry(name))
    return entries


def split_s3(uri: str) -> tuple[str, str]:
    """Bucket and key of an `s3://` URI.

    Raises:
        ConfigError: There is no bucket or no key in it.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket or not key:
        raise ConfigError(f"{uri}: not a whole S3 address; write s3://bucket/key")
    return bucket, key


@lru_cache(maxsize=1)
def s3_client() -> Any:
    """The S3 client of this process, by the default AWS chain."""
    import boto3
    from botocore.config import Config

    return boto3.client("s3", config=Config(retries={"mode": "standard", "max_attempts": 8}))


def _list_local(path: Path) -> list[FileEntry]:
    if path.is_file():
        return [FileEntry(path=path.name, num_bytes=path.stat().st_size, sha256=sha256_file(str(path)))]
    files = (item for item in path.rglob("*") if item.is_file())
    names = ((item, item.relative_to(path)) for item in files)
    return [
        FileEntry(path=name.as_posix(), num_bytes=item.stat().st_size, sha256=sha256_file(str(item)))
        for item, name in names
        if not any(part.startswith((".", "_")) for part in name.parts)
    ]


def _list_s3(uri: str) -> list[FileEntry]:
    bucket, key = split_s3(uri)
    entries = []
    for page in s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key):
        for item in page.get("Contents", []):
            if item["Key"] == key:
                name = key.rsplit("/", 1)[-1]
            elif item["Key"].startswith(key.rstrip("/") + "/"):
                name = item["Key"][len(key.rstrip("/")) + 1 :]
            else:
                continue
            if name and not name.endswith("/") and not any(part.startswith((".", "_")) for part in name.split("/")):
                version = hashlib.sha256(item["ETag"].encode()).hexdigest()
                entries.append(FileEntry(path=name, num_bytes=item["Size"], sha256=version))
    return entries


def _first_key(uri: str) -> str:
    """The first key in order that starts as the URI does: the object itself, if there is one; else empty."""
    bucket, key = split_s3(uri)
    found = s3_client().list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", [])
    return str(found[0]["Key"]) if found else ""


def _head(uri: str) -> dict[str, Any]:
    from botocore.exceptions import ClientError

    bucket, key = split_s3(uri)
    try:
        return dict(s3_client().head_object(Bucket=bucket, Key=key))
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NoSuchBucket"):
            raise FileNotFoundError(uri) from error
        raise


# The io protocol's methods are inherited in meaning from io.RawIOBase and say nothing of their own.
# ruff: noqa: D102
class _S3Reader(RawIOBase):
    """Ranged reads of one object; the ETag is pinned, so that an object replaced meanwhile is an error."""

    def __init__(self, uri: str) -> None:
        self._bucket, self._key = split_s3(uri)
        head = _head(uri)
        self._size, self._etag = int(head["ContentLength"]), head["ETag"]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        span = f"bytes={self._at}-{self._at + wanted - 1}"
        answer = s3_client().get_object(Bucket=self._bucket, Key=self._key, Range=span, IfMatch=self._etag)
        block = answer["Body"].read()
        buffer[: len(block)] = block
        self._at += len(block)
        return len(block)


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
        """What was written, for a manifest."""
        return FileEntry(path=path, num_bytes=self.num_bytes, sha256=self._hash.hexdigest())

    def _put(self, data: Any) -> None:
        raise NotImplementedError

    def commit(self) -> None:
        """Make the file appear."""
        raise NotImplementedError

    def abort(self) -> None:
        """Leave nothing behind."""
        raise NotImplementedError


class _LocalWriter(Writer):
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
        self._file.close()
        self._temporary.unlink(missing_ok=True)
        self.close()


class _S3Writer(Writer):
    """One PUT for a small object, a multipart upload for a larger one; SSE-KMS where a key is set."""

    def __init__(self, uri: str) -> None:
        super().__init__()
        self._bucket, self._key = split_s3(uri)
        self._buffer = bytearray()
        self._upload_id = ""
        self._parts: list[dict[str, Any]] = []

    def _put(self, data: Any) -> None:
        self._buffer += data
        while len(self._buffer) >= BLOCK_BYTES:
            self._send(bytes(self._buffer[:BLOCK_BYTES]))
            del self._buffer[:BLOCK_BYTES]

    def _send(self, block: bytes) -> None:
        if not self._upload_id:
            answer = s3_client().create_multipart_upload(Bucket=self._bucket, Key=self._key, **_encryption())
            self._upload_id = answer["UploadId"]
        number = len(self._parts) + 1
        answer = s3_client().upload_part(
            Bucket=self._bucket, Key=self._key, UploadId=self._upload_id, PartNumber=number, Body=block
        )
        self._parts.append({"ETag": answer["ETag"], "PartNumber": number})

    def commit(self) -> None:
        if not self._upload_id:
            s3_client().put_object(Bucket=self._bucket, Key=self._key, Body=bytes(self._buffer), **_encryption())
        else:
            if self._buffer:
                self._send(bytes(self._buffer))
            s3_client().complete_multipart_upload(
                Bucket=self._bucket, Key=self._key, UploadId=self._upload_id, MultipartUpload={"Parts": self._parts}
            )
        self._buffer.clear()
        self.close()

    def abort(self) -> None:
        if self._upload_id:
            s3_client().abort_multipart_upload(Bucket=self._bucket, Key=self._key, UploadId=self._upload_id)
        self.close()


def _encryption() -> dict[str, str]:
    key = os.environ.get("MIXTUNE_KMS_KEY_ID", "")
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}


@lru_cache(maxsize=1)
def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
