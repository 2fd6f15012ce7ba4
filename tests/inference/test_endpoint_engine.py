"""A served model, asked over HTTP, against the same model in memory; and whether both are the same."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from mixtune.artifacts.comparison import FAIL, INCONCLUSIVE, PASS
from mixtune.artifacts.samples import read_samples
from mixtune.compare import paired_stats
from mixtune.errors import ConfigError, DataError, ModelError
from mixtune.inference import loading
from mixtune.inference.endpoint_engine import EndpointEngine
from mixtune.inference.engine import Request, Tokenizer
from mixtune.inference.loading import ModelSource
from mixtune.settings.inference import EndpointSettings

from ..evaluation import compare, evaluate
from ..http_server import Answers, LocalServer


class Server:
    """Answers completions as vLLM does, with a model in this process."""

    def __init__(self, base: Path, tuned: Path) -> None:
        source = ModelSource(base_model=str(base), model_uri=str(tuned))
        fetched = loading.fetch(source)
        self.engine: Any = loading.load_engine(source, fetched)
        self.tokenizer: Any = loading.load_tokenizer(source, fetched)
        self.lock, self.echoes, self.asked = threading.Lock(), True, list[dict[str, Any]]()

    def complete(self, asked: dict[str, Any], key: str) -> tuple[int, dict[str, Any]]:
        if key != "Bearer s3cret":
            return 401, {}
        self.asked.append(asked)
        with self.lock, torch.inference_mode():
            if asked.get("echo"):
                ids = asked["prompt"]
                rows = self.engine.model(torch.tensor([ids])).logits[0].log_softmax(-1)
                values = [None, *(float(rows[place, token]) for place, token in enumerate(ids[1:]))]
                return 200, {
                    "choices": [{"text": "", "logprobs": {"token_logprobs": [*values, -1.0]} if self.echoes else None}]
                }
            (done,) = self.engine.generate([asked["prompt"]], asked["max_tokens"])
            text = self.tokenizer.decode(done.token_ids, skip_special_tokens=False)
            ids = list(done.token_ids) + ([] if done.truncated else [self.tokenizer.eos_token_id])
            reason = "length" if done.truncated else "stop"
            return 200, {"choices": [{"text": text, "token_ids": ids, "finish_reason": reason}]}


@pytest.fixture(scope="module")
def served(world: Any) -> Iterator[tuple[Server, str]]:
    server = Server(world.base, world.damaged)

    class Completions(Answers):
        def do_POST(self) -> None:
            status, answer = server.complete(self.body(), self.headers.get("Authorization", ""))
            self.answer(status if self.path == "/v1/completions" else 404, answer)

    http = LocalServer(Completions)
    with http.running():
        yield server, f"{http.url}/v1"


@pytest.fixture(scope="module")
def evaluated(world: Any, served: tuple[Server, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    (folder / "key").write_text("s3cret\n")
    endpoint = {"url": served[1], "model": "mine", "key_path": str(folder / "key")}
    options = {"customer_options": {"method": "generation", "max_new_tokens": 4}}
    evaluate(world, folder / "trained", model_uri=str(world.damaged), **options)
    evaluate(world, folder / "served", engine="endpoint", endpoint=endpoint, **options)
    return folder


def test_a_served_model_scores_as_the_same_model_in_memory(evaluated: Path) -> None:
    trained, served = (read_samples(str(evaluated / name / "samples")) for name in ("trained", "served"))
    assert (served.identity.model_kind, trained.identity.model_kind) == ("served", "weights")
    assert served.identity.model.startswith("mine at http://127.0.0.1:")
    for axis in trained.axes:
        assert served.axes[axis].score == pytest.approx(trained.axes[axis].score, abs=1e-5)
        tables = [side.table(axis).sort_by("item_id") for side in (trained, served)]
        assert tables[0]["response"].to_pylist() == tables[1]["response"].to_pylist()
        assert tables[0]["prompt_hash"].to_pylist() == tables[1]["prompt_hash"].to_pylist()


def test_two_forms_of_a_model_are_the_same_within_a_margin_and_another_model_is_not(
    world: Any, evaluated: Path, tmp_path: Path
) -> None:
    limits = {"mmlu": 0.2, "ifeval": 0.4, "customer": 0.2}
    same = compare(evaluated / "trained", evaluated / "served", tmp_path, same=True, limits=limits)
    assert (same.verdict, {axis.question for axis in same.axes}) == (PASS, {"equivalence"})
    assert "The same within what is allowed" in (tmp_path / "report_path").read_text()
    evaluate(world, tmp_path / "base", customer_options={"method": "generation", "max_new_tokens": 4})
    other = compare(evaluated / "trained", tmp_path / "base", tmp_path, same=True, limits=limits)
    assert other.verdict == FAIL
    assert "this is not what was proved" in (tmp_path / "report_path").read_text()
    with pytest.raises(DataError, match="base was evaluated with engine 'transformers', candidate with 'endpoint'"):
        compare(evaluated / "trained", evaluated / "served", tmp_path)


@pytest.mark.parametrize(
    ("difference", "error", "verdict"),
    [
        (0.0, 0.005, PASS),
        (0.015, 0.005, INCONCLUSIVE),
        (0.05, 0.005, FAIL),
        (-0.05, 0.005, FAIL),
        (0.0, 0.02, INCONCLUSIVE),
    ],
)
def test_equivalence_looks_at_both_sides(difference: float, error: float, verdict: str) -> None:
    assert paired_stats.equivalence(paired_stats.estimate(difference, error), 0.02) == verdict


@pytest.mark.parametrize(("spare", "truncated"), [(0, True), (1, False)])
def test_a_prompt_that_loses_one_token_to_the_generated_one_counts_as_cut(
    monkeypatch: pytest.MonkeyPatch, spare: int, truncated: bool
) -> None:
    settings = EndpointSettings(url="http://server/v1", model="mine")
    engine = EndpointEngine(settings, cast(Tokenizer, None), max_length=8)
    monkeypatch.setattr(engine, "_score_one", lambda pair: (-1.0, 0.0))
    request = Request(context=(5,) * (6 - spare), continuations=((6, 7),))
    assert engine.score([request])[0].truncated is truncated


def test_a_server_that_cannot_be_asked_is_named_and_its_key_is_not(
    world: Any, served: tuple[Server, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = served
    (tmp_path / "wrong").write_text("another")
    wrong = {"url": url, "model": "mine", "key_path": str(tmp_path / "wrong")}
    with pytest.raises(ModelError, match=r"/v1/completions: HTTP 401 .* check URL, model 'mine' and key") as caught:
        evaluate(world, tmp_path / "out", engine="endpoint", endpoint=wrong, benchmarks={})
    assert "another" not in str(caught.value)
    (tmp_path / "key").write_text("s3cret")
    monkeypatch.setattr(server, "echoes", False)
    with pytest.raises(ModelError, match="does not echo a prompt's log-probabilities"):
        evaluate(
            world,
            tmp_path / "out",
            engine="endpoint",
            endpoint={**wrong, "key_path": str(tmp_path / "key")},
            benchmarks={},
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"engine": "endpoint"}, "needs endpoint with url and model"), ({"endpoint": {"url": "http://x/v1", "model": "m"}}, "no other engine takes it"),
     ({"engine": "endpoint", "endpoint": {"url": "x", "model": "m"}}, "is no http"), ({"engine": "endpoint", "endpoint": {"url": "http://x"}}, "model is missing")],
)  # fmt: skip
def test_a_wrong_endpoint_is_refused(world: Any, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        evaluate(world, tmp_path / "out", **changes)
