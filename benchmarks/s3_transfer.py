"""How fast a model comes from S3 and a checkpoint goes there, by a local server that answers as slowly as S3 does.

    python benchmarks/s3_transfer.py --results benchmarks/results/s3_transfer.md

The server waits before every answer and gives a connection a limited bandwidth; nothing is stored. One request at a time,
8 MiB each, is how mixtune 0.1 read and wrote, and is measured on a sixteenth of the bytes; the others are what it does now,
in one process and in several that share. The file has several times as many ranges as there are requests at once. Bytes are drawn once and repeated, so that the disk and the page cache cost the same in every row.
"""

import argparse
import multiprocessing
import os
import re
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from mixtune import storage
from mixtune.storage import transfer
from mixtune.storage.transfer import S3Reader

BLOCK = os.urandom(2**20)
OBJECT = "s3://bucket/model"
SERVERS = 3
"""Processes of the server."""
SHARE = 16
"""Part of the bytes that one request at a time reads and writes: it has the same speed from the first request on."""


class SlowS3(BaseHTTPRequestHandler):
    """As much of S3 as downloads and uploads need."""

    protocol_version = "HTTP/1.1"
    wbufsize = 0
    latency, bandwidth, size = 0.03, 90e6, 0

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, body: bytes = b"", status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"ETag": '"1"', **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body:
            self.wfile.write(body)

    def _pace(self, begin: float, num_bytes: int) -> None:
        time.sleep(max(0.0, begin + num_bytes / self.bandwidth - time.monotonic()))

    def do_HEAD(self) -> None:
        time.sleep(self.latency)
        self._answer(Content_Length=str(self.size))

    def do_GET(self) -> None:
        time.sleep(self.latency)
        if "list-type" in self.path:
            entry = f'<Contents><Key>model/a.safetensors</Key><ETag>"1"</ETag><Size>{self.size}</Size></Contents>'
            listed = "" if "prefix=model%2Fa" in self.path or "max-keys=1" in self.path else entry
            self._answer(f"<ListBucketResult><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>".encode())
            return
        match = re.match(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert match
        length, sent, begin = int(match[2]) - int(match[1]) + 1, 0, time.monotonic()
        self._answer(status=206, Content_Length=str(length), Content_Range=f"bytes {match[1]}-{match[2]}/{self.size}")
        while sent < length:
            sent += self.connection.send(memoryview(BLOCK)[: min(len(BLOCK), length - sent)])
            self._pace(begin, sent)

    def do_PUT(self) -> None:
        begin, left = time.monotonic(), int(self.headers["Content-Length"])
        if "100-continue" in self.headers.get("Expect", ""):
            self.send_response_only(100)
            self.end_headers()
        done = 0
        while done < left:
            done += len(self.rfile.read1(min(2**20, left - done)))
            self._pace(begin, done)
        time.sleep(self.latency)
        self._answer()

    def do_POST(self) -> None:
        time.sleep(self.latency)
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        kind = "InitiateMultipartUploadResult" if "uploads" in self.path else "CompleteMultipartUploadResult"
        self._answer(f"<{kind}><UploadId>1</UploadId><ETag>1</ETag></{kind}>".encode())

    def do_DELETE(self) -> None:
        self._answer(status=204)


class Server(ThreadingHTTPServer):
    """Takes many connections at once."""

    request_queue_size = 256
    daemon_threads = True

    def server_bind(self) -> None:
        """Share the port with the other processes of the server."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()


def serve(ports: "multiprocessing.Queue[int]", latency: float, bandwidth: float, size: int, port: int = 0) -> None:
    """Run one process of the server."""
    SlowS3.latency, SlowS3.bandwidth, SlowS3.size = latency, bandwidth, size
    server = Server(("127.0.0.1", port), SlowS3)
    ports.put(server.server_address[1])
    server.serve_forever()


def start_servers(latency: float, bandwidth: float, size: int) -> tuple[list[multiprocessing.Process], int]:
    """Return the server's processes, which share the connections, and their port."""
    ports: multiprocessing.Queue[int] = multiprocessing.Queue()
    servers, port = [], 0
    for _ in range(SERVERS):
        servers.append(multiprocessing.Process(target=serve, args=(ports, latency, bandwidth, size, port), daemon=True))
        servers[-1].start()
        port = ports.get()
    return servers, port


def one_request_at_a_time(target: Path, size: int) -> None:
    """Read as mixtune 0.1 did."""
    with S3Reader(f"{OBJECT}/a.safetensors") as stream, storage.open_write(str(target)) as writer:
        while writer.num_bytes < size // SHARE:
            writer.write(stream.read(transfer.RANGE_BYTES))


def one_part_at_a_time(source: Path, size: int) -> None:
    """Write as mixtune 0.1 did."""
    client = storage.s3_client()
    upload = client.create_multipart_upload(Bucket="bucket", Key="out")["UploadId"]
    with source.open("rb") as stream:
        for number in range(1, 1 + size // SHARE // transfer.RANGE_BYTES):
            block = stream.read(transfer.RANGE_BYTES)
            client.upload_part(Bucket="bucket", Key="out", UploadId=upload, PartNumber=number, Body=block)


def many_ranges(target: Path, size: int) -> None:
    """Read as mixtune does."""
    storage.fetch(OBJECT, target.with_suffix(""))


def many_parts(source: Path, size: int) -> None:
    """Write as mixtune does, the local file's digest included."""
    storage.upload(source.parent, "s3://bucket/out")


def shared(target: Path, size: int, processes: int = 2) -> None:
    """Read as the processes of a node do."""
    context = multiprocessing.get_context("fork")
    meeting, token = context.Barrier(processes), uuid.uuid4().hex

    def wait() -> None:
        meeting.wait(120)

    def bring(index: int) -> None:
        storage.s3_client.cache_clear()
        storage.fetch(
            OBJECT, target.with_suffix(""), storage.Share(index=index, count=processes, wait=wait, token=token)
        )

    running = [context.Process(target=bring, args=(index,)) for index in range(processes)]
    for process in running:
        process.start()
    for process in running:
        process.join()
        assert process.exitcode == 0


WAYS: dict[str, tuple[Callable[[Path, int], None], bool]] = {
    "read, one request at a time": (one_request_at_a_time, False),
    "read, many ranges": (many_ranges, False),
    "read, two processes share": (shared, False),
    "write, one part at a time": (one_part_at_a_time, True),
    "write, many parts": (many_parts, True),
}


def measure(latency: float, bandwidth: float, size: int) -> dict[str, tuple[float, float]]:
    """Return bytes a second, and CPU seconds of this process a GB, by way."""
    servers, port = start_servers(latency, bandwidth, size)
    os.environ |= {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}", "AWS_REGION": "us-east-1"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    storage.s3_client.cache_clear()
    storage.file_size(f"{OBJECT}/a.safetensors")  # the client is made once a process, whatever the way
    rates = {}
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source" / "weights.bin"
        source.parent.mkdir()
        with source.open("wb") as stream:
            for _ in range(size // len(BLOCK)):
                stream.write(BLOCK)
        for number, (name, (way, writes)) in enumerate(WAYS.items()):
            begin, cpu = time.monotonic(), time.process_time()
            way(source if writes else Path(scratch) / f"target-{number}.bin", size)
            moved = size // SHARE if "at a time" in name else size
            rates[name] = (moved / (time.monotonic() - begin), (time.process_time() - cpu) / moved * 1e9)
    for server in servers:
        server.kill()
        server.join()
    storage.s3_client.cache_clear()
    return rates


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="MiB")
    parser.add_argument("--latency", type=float, default=0.03, help="seconds before every answer")
    parser.add_argument(
        "--bandwidth",
        type=float,
        default=8e6,
        help="bytes a second of one connection; S3 gives ten times that, which two cores do not take",
    )
    parser.add_argument("--block", type=int, default=8, help="MiB of a request, in all ways")
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    transfer.RANGE_BYTES = options.block * 2**20
    rates = measure(options.latency, options.bandwidth, options.size * 2**20)
    first = {name.split(",")[0]: rate for name, (rate, _) in reversed(rates.items())}
    rows = [
        f"| {name} | {rate / 1e6:,.0f} | {rate / first[name.split(',')[0]]:.1f} | {cpu:.2f} |"
        for name, (rate, cpu) in rates.items()
    ]
    lines = ["| way | MB/s | times | CPU s a GB |", "|---|--:|--:|--:|", *rows]
    print("\n".join(lines))
    if options.results:
        setting = (
            f"{options.size} MiB by requests of {options.block} MiB, {options.latency * 1e3:.0f} ms before every answer, {options.bandwidth / 1e6:.0f} MB/s a "
            f"connection; server and client share {os.cpu_count()} cores, which bounds the larger figures: {transfer.NUM_THREADS} requests at once would give up to {transfer.NUM_THREADS} times."
        )
        options.results.write_text(f"# Files to and from S3\n\n{setting}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    threading.stack_size(256 * 1024)
    main()
