"""The client of the Kubernetes API against a server: pages, waiting, and what cannot be waited for."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from mixtune.errors import ClusterError
from mixtune.kubernetes_api import ApiError, Clock, KubernetesApi

PODS = [{"metadata": {"name": f"pod-{number}"}} for number in range(5)]


class Api(http.server.BaseHTTPRequestHandler):
    """Two pods a page, whatever the limit; the first `busy` requests get status 503."""

    busy = 0

    def do_GET(self) -> None:
        query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        first = int(query.get("continue", "0"))
        token = str(first + 2) if first + 2 < len(PODS) else ""
        if Api.busy:
            Api.busy -= 1
            self.answer(503, {"message": "not now"})
        elif urlsplit(self.path).path == "/api/v1/namespaces/team/pods":
            self.answer(200, {"metadata": {"continue": token}, "items": PODS[first : first + 2]})
        else:
            self.answer(422, {"message": "no"})

    def answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.ThreadingHTTPServer]:
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{running.server_port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr(Api, "busy", 0)
    yield running
    running.shutdown()
    running.server_close()


def test_a_list_of_several_pages_comes_whole(server: http.server.ThreadingHTTPServer) -> None:
    api = KubernetesApi()
    assert api.list(api.path("pods"), labelSelector="a=b") == PODS


def test_a_busy_server_is_waited_for_as_long_as_patience_lasts(
    server: http.server.ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(Api, "busy", 3)
    api = KubernetesApi(60, clock=Clock(now=lambda: sum(waits), sleep=waits.append))
    assert len(api.list(api.path("pods"))) == 5
    assert waits == [1.0, 2.0, 4.0]
    monkeypatch.setattr(Api, "busy", 1000)
    with pytest.raises(ClusterError, match="has not answered GET /api/v1/namespaces/team/pods for 1 minutes"):
        api.list(api.path("pods"))
    with pytest.raises(ClusterError, match=r"does not answer GET .*HTTP 503.*check KUBECONFIG"):
        KubernetesApi().list(api.path("pods"))


def test_a_refusal_is_not_waited_for_and_says_why(server: http.server.ThreadingHTTPServer) -> None:
    api = KubernetesApi(60)
    with pytest.raises(ApiError, match="Kubernetes refused GET /api/v1/namespaces/team/secrets: HTTP 422"):
        api.get(api.path("secrets"))
