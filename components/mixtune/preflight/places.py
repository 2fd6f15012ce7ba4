"""What a run reads and where it writes: is it there, is it readable, writable, in the right region, encrypted."""

import os
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

from mixtune import storage
from mixtune.errors import ConfigError, DataError, MixtuneError, StorageError
from mixtune.preflight.findings import Findings
from mixtune.settings.sanitize import SourceSettings

PROBE = "preflight-probe"
SAMPLED_FILES = 8
"""Of a source, whose beginnings tell how long its lines are."""
DUPLICATE_BYTES = 1000
"""Memory that sanitize needs for a record while it looks for duplicates."""
UNITS = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
"""Bytes by the unit of a Kubernetes quantity."""
PART = "part"
"""In place of a split whose records were counted in some of its files only."""
HEADED = (".csv", ".tsv")
"""Of files whose first line names the columns."""
LINES = (".jsonl", ".ndjson", *HEADED)
"""Of files with a record a line; of other formats, and of compressed files, lines are not counted."""


def check_sources(sources: list[SourceSettings], records: int, data_memory: str = "") -> Findings:
    """Check every source: there, readable, not empty, unchanged since it was fingerprinted, and within the memory.

    They have about so many `records`; `data_memory` is what sanitize's tasks reserve, as Kubernetes writes it; empty:
    not looked at.
    """
    total, uncounted = 0, list[str]()
    for source in sources:
        uri = storage.plain_uri(source.uri)
        try:
            files = storage.list_files(uri)
            storage.check_fingerprint(source.uri)
            total += sum(file.num_bytes for file in files)
            uncounted += [file.path or uri for file in files if file.num_bytes and not file.path.endswith(LINES)]
            yield from _check_files(source.name, uri, files)
        except (ConfigError, DataError, StorageError) as error:
            yield "fail", f"{source.name}: {error}"
    by_digest: dict[tuple[str, str], SourceSettings] = {}
    for source in sources:
        uri, digest = storage.split_fingerprint(source.uri)
        twin = by_digest.setdefault((source.name, digest), source)
        if digest and twin.split != source.split:
            same = f"{uri} holds what {storage.plain_uri(twin.uri)} does"
            yield "fail", f"{source.name}: {same}: no record would be left to train on; give a test_uri of its own"
    needed = records * DUPLICATE_BYTES
    text = f"{len(sources)} sources, {total / 1e6:,.1f} MB, all readable; about {records:,} records"
    if uncounted:
        text += f" without those of {len(uncounted)} files that are not JSONL, CSV or TSV, {uncounted[0]} first"
    yield "pass", f"{text}, for whose duplicates sanitize needs {needed / 1e9:.1f} GB of memory"
    if data_memory and needed > quantity("data_memory", data_memory):
        text = f"about {records:,} records: to find duplicates sanitize needs {needed / 1e9:.0f} GB"
        yield "warn", f"{text}, its tasks reserve {data_memory}; raise data_memory, or give fewer records"


def quantity(name: str, text: str) -> float:
    """Return the value of a Kubernetes quantity, such as `4G` or `500Mi`; a ConfigError where it is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kMGT]|[KMGT]i)?", text)
    if not match:
        raise ConfigError(f"{name} is an amount as Kubernetes writes it, such as 4G or 500Mi; got {text!r}")
    return float(match[1]) * UNITS[match[2] or ""]


def check_artifacts(folder: str, options: Mapping[str, object]) -> Findings:
    """Whether something can be written where artifacts go, under the key that is asked for."""
    if not folder:
        return
    probe = storage.join(folder, PROBE)
    try:
        storage.write_json(probe, {})
        sealed, used = _encryption(probe) if storage.is_s3(probe) else ("", "")
        storage.delete(probe)
    except StorageError as error:
        yield "fail", f"{folder} cannot be written: {str(error).removeprefix(f'{probe}: ')}"
        return
    except OSError as error:
        yield "fail", f"{folder} cannot be written ({error.strerror}); give a folder that you may write to"
        return
    key = encryption_key(options)
    yield "pass", f"{folder} can be written" + (f", encrypted by {sealed} {used}".rstrip() if sealed else "")
    if key and storage.is_s3(probe) and "alias/" not in key and not used.endswith(key.rpartition("/")[2]):
        yield "fail", f"{folder}: encrypted by {used or sealed or 'no key'}, not by {key}; check storage.kms_key_id"
    if storage.is_s3(probe) and not key and "kms" not in sealed:
        yield "warn", f"{folder}: no key of your own (storage.kms_key_id) and no default one on the bucket"


def check_region(sources: list[SourceSettings], options: Mapping[str, object]) -> Findings:
    """Whether the buckets are in the region of the run: reading across regions is slow and costs."""
    region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION", "")
    buckets = sorted({storage.split_s3(item.uri)[0] for item in sources if storage.is_s3(item.uri)})
    for bucket in buckets:
        try:
            answer = storage.s3_client().head_bucket(Bucket=bucket)
        except StorageError:
            continue  # whoever may not ask this may still read; that is checked on its own
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        where = str(answer.get("BucketRegion") or headers.get("x-amz-bucket-region", ""))
        if region and where and where != region:
            yield "fail", f"bucket {bucket} is in {where}, the run in {region}; set storage.region, or copy the data"
    yield "pass", f"{len(buckets)} buckets, region {region or 'not set'}" if buckets else "no data in S3"


def count_records(uri: str, files: list[storage.FileEntry]) -> int:
    """Return about how many records files with one a line have, by the beginnings of the first ones; else 0."""
    counted, read, lines = _counted(files), 0, 0
    for file in counted[:SAMPLED_FILES]:
        with storage.open_read(_place(uri, file)) as stream:
            block = stream.read(2**16)
        read, lines = read + len(block), lines + len(block.splitlines())
    headers = sum(file.path.endswith(HEADED) for file in counted)
    return max(0, round(sum(file.num_bytes for file in counted) * lines / read) - headers) if read else 0


def sample_lines(uri: str) -> list[str]:
    """Return the first lines of the files with a record a line; none where there is no such file."""
    lines: list[str] = []
    with suppress(MixtuneError):  # `check_sources` says why
        for file in _counted(storage.list_files(uri))[:SAMPLED_FILES]:
            with storage.open_read(_place(uri, file)) as stream:
                whole = stream.read(2**14).decode(errors="replace").splitlines()
            lines += whole[:-1] or whole
    return lines


def _counted(files: list[storage.FileEntry]) -> list[storage.FileEntry]:
    return [file for file in files if file.num_bytes and file.path.endswith(LINES)]


def about_records(sources: list[SourceSettings]) -> Counter[tuple[str, str]]:
    """Return about how many records there are by pool and split, which is `PART` where other files are not counted."""
    counts: Counter[tuple[str, str]] = Counter()
    for source in sources:
        uri = storage.plain_uri(source.uri)
        with suppress(MixtuneError):  # `check_sources` says why
            files = storage.list_files(uri)
            is_whole = all(file.path.endswith(LINES) for file in files if file.num_bytes)
            counts[source.name, source.split if is_whole else PART] += count_records(uri, files)
    return counts


def _place(uri: str, file: storage.FileEntry) -> str:
    return uri if storage.file_exists(uri) else storage.join(storage.split_pattern(uri)[0], file.path)


def _check_files(name: str, uri: str, files: list[storage.FileEntry]) -> Findings:
    empty = [file.path for file in files if not file.num_bytes]
    if len(empty) == len(files):
        yield "fail", f"{name}: {uri}: {empty[0]} is empty (0 bytes); fill it or take it away"
        return
    if empty:
        yield "warn", f"{name}: {uri}: {len(empty)} of {len(files)} files are empty (0 bytes), {empty[0]} first"
    with storage.open_read(_place(uri, next(file for file in files if file.num_bytes))) as stream:
        stream.read(1)


def encryption_key(options: Mapping[str, object]) -> str:
    """The key that artifacts are to be encrypted by; empty: whatever the bucket does by itself."""
    return str(options.get("kms_key_id") or os.environ.get("MIXTUNE_KMS_KEY_ID", ""))


def _encryption(uri: str) -> tuple[str, str]:
    """How an object is encrypted, and by which key."""
    bucket, key = storage.split_s3(uri)
    head = storage.s3_client().head_object(Bucket=bucket, Key=key)
    return str(head.get("ServerSideEncryption", "")), str(head.get("SSEKMSKeyId", ""))
