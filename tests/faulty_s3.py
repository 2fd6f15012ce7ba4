"""A local S3 that fails as it is told: it stands before the tests' S3 server, and hands on what it does not fail."""

import http.client
import itertools
import socket
import struct
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from .http_server import Answers, LocalServer

Fault = Callable[[str, str], str]
"""From a request's method and path to what goes wrong: `SlowDown`, `AccessDenied`, `reset` (of what is read halfway), `slow`; else empty."""
ERROR = '<?xml version="1.0"?><Error><Code>{0}</Code><Message>{0}</Message></Error>'
STATUS = {"SlowDown": 503, "AccessDenied": 403}
SECONDS = 0.3
"""That a slow answer takes."""


def no_fault(method: str, path: str) -> str:
    """Let everything through."""
    return ""


class Proxy(Answers):
    """Hands requests on to the server behind, and answers back."""

    protocol_version = "HTTP/1.1"
    server: "FaultyS3"

    def _hand_on(self) -> None:
        self.server.num_requests += 1
        fault = self.server.fault(self.command, self.path)
        size = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Expect"):
            self.send_response_only(100)
            self.end_headers()
        body = self.rfile.read(size)
        if fault:
            self.server.faults.append((self.command, self.path, fault))
        if fault in STATUS:
            self._send(STATUS[fault], {}, b"" if self.command == "HEAD" else ERROR.format(fault).encode())
            return
        if fault == "reset" and self.command != "GET":
            self._reset()
            return
        if fault == "slow":
            time.sleep(SECONDS)
        behind = http.client.HTTPConnection(self.server.behind)
        headers = {name: text for name, text in self.headers.items() if name.lower() != "expect"}
        behind.request(self.command, self.path, body, headers)
        answer = behind.getresponse()
        data = answer.read()
        self._send(answer.status, dict(answer.getheaders()), data, cut=fault == "reset")
        behind.close()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _hand_on

    def _send(self, status: int, headers: dict[str, str], data: bytes, *, cut: bool = False) -> None:
        self.send_response_only(status)
        own = {"connection", "transfer-encoding", "content-length", "server", "date"}
        size = headers.get("Content-Length") if self.command == "HEAD" else str(len(data))
        for name, text in {
            **{n: t for n, t in headers.items() if n.lower() not in own},
            "Content-Length": size or "0",
        }.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self._reset()

    def _reset(self) -> None:
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()


class FaultyS3(LocalServer):
    """The server; `fault` is set by a test, `faults` are those that were answered: method, path, fault."""

    def __init__(self, url: str) -> None:
        super().__init__(Proxy)
        self.behind = urlsplit(url).netloc
        self.fault: Fault = no_fault
        self.faults: list[tuple[str, str, str]] = []
        self.num_requests = 0

    def fail_once(self, *faults: str) -> None:
        """Fail every request the first time that it comes, by one fault after the other."""
        seen: set[tuple[str, str]] = set()
        kinds = itertools.cycle(faults)

        def fail(method: str, path: str) -> str:
            first = (method, path) not in seen
            seen.add((method, path))
            return next(kinds) if first else ""

        self.fault = fail

    def refuse_after(self, num_requests: int) -> None:
        """Refuse every request but the first ones."""
        left = itertools.count(num_requests, -1)
        self.fault = lambda method, path: "" if next(left) > 0 else "AccessDenied"

    def handle_error(self, *_: object) -> None:
        """Keep no log of connections that a test cut."""
