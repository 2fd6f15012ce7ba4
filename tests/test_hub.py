"""Data sets of the hub, from a real HTTP server that answers as the hub does."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mixtune import storage
from mixtune.errors import DataError
from mixtune.evaluate import mmlu
from mixtune.preflight.fingerprint import fingerprint_benchmarks

COMMIT = "c" * 40
QUESTION = {"question": "q", "subject": "anatomy", "choices": ["a", "b"], "answer": 1}
FILES = {
    "all/test-00000-of-00001.jsonl": (json.dumps(QUESTION) + "\n").encode() * 3,
    "all/dev-00000-of-00001.jsonl": (json.dumps(QUESTION) + "\n").encode(),
    "other/test.jsonl": b"not wanted",
}


class Hub(BaseHTTPRequestHandler):
    """One data set, `org/mmlu`, at the revision `v1`."""

    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        name = self.path.removeprefix(f"/datasets/org/mmlu/resolve/{COMMIT}/")
        if self.path.startswith("/api/datasets/org/mmlu/revision/v1"):
            data = json.dumps({"id": "org/mmlu", "sha": COMMIT, "siblings": []}).encode()
        elif self.path.startswith(f"/api/datasets/org/mmlu/tree/{COMMIT}"):
            listed = [{"type": "file", "path": path, "size": len(data), "oid": "0"} for path, data in FILES.items()]
            data = json.dumps(listed).encode()
        elif name in FILES:
            data = FILES[name]
            type(self).asked.append(name)
        else:
            self.send_error(404)
            return
        self.send_response(200)
        for header, value in {"ETag": f'"{hash(data)}"', "X-Repo-Commit": COMMIT, "Content-Length": len(data)}.items():
            self.send_header(header, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    template = constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    storage._fetch_from_hub.cache_clear()
    Hub.asked = []
    yield Hub
    storage._fetch_from_hub.cache_clear()
    server.shutdown()
    server.server_close()


def test_a_benchmark_of_the_hub_is_fingerprinted_and_read_like_a_local_one(hub: type[Hub]) -> None:
    uri = "hf://datasets/org/mmlu@v1/all"
    named, _ = fingerprint_benchmarks({"mmlu": uri})
    plain, digest = storage.split_fingerprint(named["mmlu"]["uri"])
    assert (plain, len(digest)) == (uri, 32)
    splits = mmlu.read_questions(named["mmlu"]["uri"])
    assert {name: len(found) for name, found in splits.items()} == {"test": 3, "dev": 1}
    assert not any(name.startswith("other/") for name in hub.asked), "more was fetched than was asked for"


def test_one_file_of_the_hub_is_a_source_too(hub: type[Hub]) -> None:
    uri = "hf://datasets/org/mmlu@v1/all/dev-00000-of-00001.jsonl"
    assert storage.file_exists(uri)
    assert storage.file_size(uri) == len(FILES["all/dev-00000-of-00001.jsonl"])
    with storage.open_read(uri) as stream:
        assert json.loads(stream.read()) == QUESTION


@pytest.mark.parametrize(
    ("uri", "words"),
    [("hf://datasets/org/mmlu", "revision included"), ("hf://datasets/org/nothing@v1", "the hub did not give it"),
     ("hf://datasets/org/mmlu@v1/none", "no such file or folder")],
)  # fmt: skip
def test_what_the_hub_does_not_give_is_told_with_the_way_out(hub: type[Hub], uri: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        storage.list_files(uri)
