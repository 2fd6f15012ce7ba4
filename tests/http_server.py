"""Local HTTP servers for tests: what all of them have, and the kubeconfig that leads to one."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class LocalServer(ThreadingHTTPServer):
    """Listens on a free port of this machine."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def start(self) -> None:
        """Answer in a thread of its own."""
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    @contextmanager
    def running(self) -> Iterator[None]:
        self.start()
        yield
        self.stop()


class Answers(BaseHTTPRequestHandler):
    """Reads JSON, and answers with JSON, with a text as it is, or with nothing; keeps no log."""

    def body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")

    def answer(self, status: int, value: object = None, **headers: str) -> None:
        kind, data = "application/json", b"" if value is None else json.dumps(value).encode()
        if isinstance(value, str):
            kind, data = "text/plain", value.encode()
        self.send_response(status)
        for name, text in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def write_kubeconfig(file: Path, url: str) -> Path:
    """Write a kubeconfig whose context `here` is the namespace `team` of a server."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
    }
    file.write_text(json.dumps(document))
    return file
