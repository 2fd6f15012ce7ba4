"""Whole files between S3 and local disk, and rows out of the middle of them: many ranges at once.

One connection to S3 gives some 70 to 90 MB/s, and every request waits some 30 ms; the network of a node with GPUs takes
a hundred times that. Downloads are ranges that pin the object's ETag, so that an object replaced meanwhile is an error;
uploads are boto3's own transfers, s3transfer. Several processes of a node can share the ranges of the same files.
"""

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mixtune.errors import DataError, StorageError
from mixtune.storage.streams import BLOCK_BYTES, FileEntry, encryption, head, s3_client, split_s3

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

NUM_THREADS = 48
"""Requests of this process at once."""
RANGE_BYTES = 8 * 2**20
"""Bytes of one range, and of one part of an upload where 10,000 of these are enough."""
TRIES = 5
"""Of a range whose connection breaks."""
SETTLED_NS = 2 * 10**9
"""Nanoseconds after which a further write shows in a file's time of change, on the coarsest clocks of file systems."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Share:
    """This process among those of a node that bring the same files to the same folder together."""

    index: int = 0
    count: int = 1
    wait: Callable[[], None] = lambda: None
    """Returns when all of them have called it."""
    token: str = ""
    """The same text in all of them, new for every fetch; empty: this process is alone."""


ALONE = Share()


@dataclass(frozen=True, kw_only=True)
class Download:
    """One object and the file that it becomes."""

    uri: str
    target: Path
    num_bytes: int


class RangeReader:
    """Ranges of one file, local or in S3, by several threads at once."""

    def __init__(self, uri: str) -> None:
        self._uri, self._etag, self._file = uri, "", -1
        if uri.startswith("s3://"):
            headers = head(uri)
            self.num_bytes, self._etag = int(headers["ContentLength"]), str(headers["ETag"])
        else:
            self._file = os.open(uri, os.O_RDONLY)
            self.num_bytes = os.fstat(self._file).st_size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer of bytes with those from `offset` on.

        Raises:
            DataError: The file ends before.
            StorageError: Its connection breaks again and again.
        """
        for number in range(TRIES):
            try:
                size = self._read_local(offset, buffer) if self._file >= 0 else self._read_s3(offset, buffer)
            except _broken() as error:
                if number + 1 == TRIES:
                    words = f"the connection broke {TRIES} times ({error}); check the network"
                    raise StorageError(f"{self._uri}: {words}") from error
                time.sleep(0.2 * 2**number)
                continue
            if size != len(buffer):
                raise DataError(f"{self._uri}: ends {len(buffer) - size} bytes before it should; make it again")
            return

    def read(self, offset: int, num_bytes: int) -> bytes:
        """Return bytes; errors as of `read_into`."""
        buffer = bytearray(num_bytes)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def close(self) -> None:
        """Close a local file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _read_local(self, offset: int, buffer: memoryview) -> int:
        num_filled = 0
        while num_filled < len(buffer) and (size := os.preadv(self._file, [buffer[num_filled:]], offset + num_filled)):
            num_filled += size
        return num_filled

    def _read_s3(self, offset: int, buffer: memoryview) -> int:
        bucket, key = split_s3(self._uri)
        span = f"bytes={offset}-{offset + len(buffer) - 1}"
        body = s3_client().get_object(Bucket=bucket, Key=key, Range=span, IfMatch=self._etag)["Body"]
        num_filled = 0
        while size := body.readinto(buffer[num_filled : num_filled + 2**20]):
            num_filled += size
        body.read(1)  # at its end a checksum is looked at
        return num_filled


class S3Reader(RawIOBase):
    """A seekable stream of one object in S3, read by ranges."""

    def __init__(self, uri: str) -> None:
        self._ranges, self._position = RangeReader(uri), 0

    def readable(self) -> bool:  # noqa: D102 - as the io protocol has it, like the next four
        return True

    def seekable(self) -> bool:  # noqa: D102
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:  # noqa: D102
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._ranges.num_bytes}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:  # noqa: D102
        view = memoryview(buffer).cast("B")
        length = max(0, min(len(view), self._ranges.num_bytes - self._position))
        if length:
            self._ranges.read_into(self._position, view[:length])
        self._position += length
        return length

    def readall(self) -> bytes:  # noqa: D102
        # The inherited one asks for 8 KiB at a time, and each time is a request.
        return b"".join(iter(lambda: self.read(BLOCK_BYTES) or b"", b""))


def download(files: list[Download], share: Share = ALONE) -> None:
    """Bring objects from S3 to local files, each of which appears under its name when it is whole.

    All processes of a share call this with the same files, and each brings its ranges.
    """
    token = share.token or uuid.uuid4().hex
    temporary = [item.target.with_name(f".{item.target.name}.{token[:16]}") for item in files]
    for item in files:
        item.target.parent.mkdir(parents=True, exist_ok=True)
    readers = in_threads(lambda item: RangeReader(item.uri), files)
    handles = [os.open(path, os.O_RDWR | os.O_CREAT, 0o666) for path in temporary]
    try:
        ranges = [
            (number, offset, min(RANGE_BYTES, item.num_bytes - offset))
            for number, item in enumerate(files)
            for offset in range(0, item.num_bytes, RANGE_BYTES)
        ]
        own_ranges = ranges[share.index :: share.count]
        in_threads(lambda part: _copy_range(readers[part[0]], handles[part[0]], part[1], part[2]), own_ranges)
        share.wait()
        if share.index == 0:
            for path, item in zip(temporary, files, strict=True):
                path.replace(item.target)
        share.wait()
    finally:
        for handle in handles:
            os.close(handle)
        if not share.token:
            for path in temporary:
                path.unlink(missing_ok=True)


def upload_files(files: list[tuple[Path, str]]) -> list[FileEntry]:
    """Copy local files to objects in S3, many parts at once; return an entry for each, with the object's last name.

    The digest is of the local file, which must not change meanwhile.
    """
    from boto3.s3.transfer import TransferConfig

    config = TransferConfig(
        multipart_threshold=RANGE_BYTES, multipart_chunksize=RANGE_BYTES, max_concurrency=NUM_THREADS
    )

    def put(item: tuple[Path, str]) -> FileEntry:
        path, uri = item
        bucket, key = split_s3(uri)
        s3_client().upload_file(str(path), bucket, key, ExtraArgs=encryption(), Config=config)
        return entry_of(path, uri.rsplit("/", 1)[-1])

    return in_threads(put, files, 8)


def entry_of(path: Path, name: str) -> FileEntry:
    """Return a local file's entry under a name; of a file that stays as it is, the content is read once."""
    state = path.stat()
    version = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    is_settled = time.time_ns() - state.st_mtime_ns > SETTLED_NS
    digest = _digest_of(path, version) if is_settled else _digest_of.__wrapped__(path, version)
    return FileEntry(path=name, num_bytes=state.st_size, sha256=digest)


@lru_cache(maxsize=2**14)
def _digest_of(path: Path, _version: tuple[int, ...]) -> str:
    """Return the digest of a file's content; its version tells what was hashed before from what was not."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def in_threads(function: Callable[[T], R], items: Iterable[T], num_threads: int = NUM_THREADS) -> list[R]:
    """Return what a function makes of each item, by several threads at once; the first error ends it."""
    tasks = list(items)
    if len(tasks) < 2:
        return [function(item) for item in tasks]
    with ThreadPoolExecutor(min(num_threads, len(tasks))) as pool:
        futures = [pool.submit(function, item) for item in tasks]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _copy_range(reader: RangeReader, handle: int, offset: int, num_bytes: int) -> None:
    block = memoryview(bytearray(num_bytes))
    reader.read_into(offset, block)
    num_filled = 0
    while num_filled < num_bytes:
        num_filled += os.pwrite(handle, block[num_filled:], offset + num_filled)


def _broken() -> tuple[type[Exception], ...]:
    """Return the errors of a body that breaks or changes on its way, which botocore does not ask for again."""
    from botocore.exceptions import FlexibleChecksumError, HTTPClientError, IncompleteReadError
    from urllib3.exceptions import HTTPError

    return FlexibleChecksumError, HTTPClientError, IncompleteReadError, HTTPError
