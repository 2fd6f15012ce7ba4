"""The client of the Kubernetes API against a server: pages, waiting, and what cannot be waited for."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from mixtune.errors import ClusterError
from mixtune.kubernetes_api import ApiError, Clock, KubernetesApi

from .http_server import Answers, LocalServer, write_kubeconfig

PODS = [{"metadata": {"name": f"pod-{number}"}} for number in range(5)]


class Api(Answers):
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


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    server = LocalServer(Api)
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "kubeconfig", server.url)))
    monkeypatch.setattr(Api, "busy", 0)
    with server.running():
        yield server


def test_a_list_of_several_pages_comes_whole(server: LocalServer) -> None:
    api = KubernetesApi()
    assert api.list(api.path("pods"), labelSelector="a=b") == PODS


def test_a_busy_server_is_waited_for_as_long_as_patience_lasts(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
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


def test_a_refusal_is_not_waited_for_and_says_why(server: LocalServer) -> None:
    api = KubernetesApi(60)
    with pytest.raises(ApiError, match="Kubernetes refused GET /api/v1/namespaces/team/secrets: HTTP 422"):
        api.get(api.path("secrets"))
