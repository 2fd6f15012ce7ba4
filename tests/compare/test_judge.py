"""The judge: its parsing, its calibration, a real HTTP server that answers for it, and its weight in the verdict."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from mixtune import http_post
from mixtune.artifacts.judgments import Judgment, Judgments
from mixtune.compare.judge import judge_models, pairwise
from mixtune.compare.judge import run as judge_run
from mixtune.compare.judge.pairwise import Pair, calibrate, judge_pairs, parse_verdict
from mixtune.compare.judge.run import JudgeInputs, Outputs, judge_axis, run_judging
from mixtune.errors import ConfigError, DataError, ModelError

from ..evaluation import compare, evaluate, write_jsonl
from ..http_server import Answers, LocalServer

KEY = "a-secret-key"


class Server(LocalServer):
    """An OpenAI-compatible server whose judge prefers the longer answer."""

    failures = 0
    reply: str | None = None
    redirect = ""
    page = ""

    def __init__(self) -> None:
        super().__init__(Handler)
        self.keys, self.paths, self.prompts = set[str](), set[str](), list[str]()


class Handler(Answers):
    server: Server

    def do_POST(self) -> None:
        body = self.body()
        self.server.keys.add(self.headers.get("Authorization", ""))
        self.server.paths.add(self.path)
        if self.server.redirect:
            self.answer(302, Location=self.server.redirect)
            return
        if self.server.failures:
            self.server.failures -= 1
            self.send_error(503)
            return
        prompt = body["messages"][0]["content"]
        self.server.prompts.append(prompt)
        one, two = re.search(r"Answer 1:\n(.*)\n\nAnswer 2:\n(.*)\n\nReply", prompt, re.DOTALL).groups()  # type: ignore[union-attr]
        better = 0 if len(one) == len(two) else 1 if len(one) > len(two) else 2
        text = self.server.reply if self.server.reply is not None else json.dumps({"better": better})
        self.answer(200, self.server.page or {"choices": [{"message": {"content": text}}]})

    def do_GET(self) -> None:
        self.server.paths.add(self.path)
        self.send_error(404)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    with server.running():
        yield server


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/v1"


def pairs(*answers: tuple[str, str]) -> list[Pair]:
    return [Pair(item_id=str(n), request="x", first=one, second=two) for n, (one, two) in enumerate(answers)]


@pytest.mark.parametrize("text", ["", "1", "better: 1", '{"better": 3}', '{"better": true}', '{"better": 1} yes', "[1]",
                                  '{"better": 1, "why": "longer"}', '{"better": "1"}'])  # fmt: skip
def test_anything_but_the_agreed_object_is_missing(text: str) -> None:
    assert parse_verdict(text) is None


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    assert parse_verdict(text) in (None, 0, 1, 2)


def test_a_judge_that_prefers_a_place_has_no_preference() -> None:
    assert judge_pairs(pairs(("a", "b")), lambda prompts: ['{"better": 1}'] * len(prompts)) == ["tie"]
    assert judge_pairs(pairs(("a", "b")), lambda prompts: ['{"better": 2}', '{"better": 1}']) == ["second"]
    assert judge_pairs(pairs(("a", "b")), lambda prompts: ['{"better": 1}', "well"]) == [None]


def test_answers_cannot_break_the_prompt() -> None:
    seen: list[str] = []
    judge_pairs(pairs(("{first} %s", "{}")), lambda prompts: [seen.append(one) or "" for one in prompts])
    assert "Answer 1:\n{first} %s\n\nAnswer 2:\n{}\n" in seen[0]
    assert "Answer 1:\n{}\n\nAnswer 2:\n{first} %s\n" in seen[1]


def test_kappa_is_scikit_learns_and_its_error_that_of_simulation() -> None:
    random = np.random.default_rng(0)
    table = np.array([[0.4, 0.05, 0.05], [0.05, 0.25, 0.0], [0.05, 0.05, 0.1]])
    found = []
    for _ in range(400):
        counts = random.multinomial(200, table.ravel()).reshape(3, 3)
        found.append(pairwise.cohen_kappa(counts))
    said = [name for row in range(3) for column in range(3) for name in [row] * counts[row, column]]
    true = [name for row in range(3) for column in range(3) for name in [column] * counts[row, column]]
    assert found[-1][0] == pytest.approx(cohen_kappa_score(said, true))
    spread = np.std([kappa for kappa, _ in found])
    assert np.mean([error for _, error in found]) == pytest.approx(spread, rel=0.1)


def test_a_judge_is_calibrated_by_enough_labels_that_it_agrees_with() -> None:
    labels = ["first", "second"] * 60
    assert calibrate(labels, labels).is_sufficient
    assert not calibrate(labels[:80], labels[:80]).is_sufficient
    assert not calibrate(["first"] * 120, labels).is_sufficient
    partly = calibrate([None] * 30 + labels[30:], labels)
    assert (partly.labels, partly.missing, partly.is_sufficient) == (90, 30, False)


def test_a_judge_behind_a_url_is_asked_with_the_mounted_key(server: Server, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    server.failures = 2
    ask = judge_models.ask_url(url(server), "m", str(tmp_path / "key"))
    assert judge_pairs(pairs(("long answer", "x"), ("x", "long answer"), ("xy", "yx")), ask) == [
        "first", "second", "tie",
    ]  # fmt: skip
    assert server.keys == {f"Bearer {KEY}"}


def test_a_judge_that_cannot_be_reached_is_named_without_its_key(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_post, "FIRST_PAUSE_SECONDS", 0.0)
    (tmp_path / "key").write_text(KEY)
    server.failures = 99
    with pytest.raises(ModelError, match="HTTP 503") as caught:
        judge_pairs(pairs(("a", "b")), judge_models.ask_url(url(server), "m", str(tmp_path / "key")))
    assert KEY not in str(caught.value)
    with pytest.raises(ConfigError, match="mount the secret"):
        judge_models.ask_url(url(server), "m", str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="no http"):
        judge_models.ask_url("file:///etc/passwd", "m", "")


def test_a_judge_that_redirects_elsewhere_is_refused_and_its_key_goes_nowhere(server: Server, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    server.redirect = f"{url(server)}/elsewhere"
    with pytest.raises(ModelError, match="HTTP 302"):
        judge_pairs(pairs(("a", "b")), judge_models.ask_url(url(server), "m", str(tmp_path / "key")))
    assert server.paths == {"/v1/chat/completions"}


def test_a_judge_that_answers_with_a_page_is_refused(server: Server) -> None:
    server.page = "<html>log in</html>"
    with pytest.raises(ModelError, match="its answer is not JSON"):
        judge_pairs(pairs(("a", "b")), judge_models.ask_url(url(server), "m", ""))


@pytest.fixture(scope="module")
def answered(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged")
    options = {"method": "generation", "max_new_tokens": 4}
    evaluate(world, folder / "base", benchmarks={}, customer_options=options)
    evaluate(world, folder / "candidate", benchmarks={}, customer_options=options, model_uri=str(world.adapter))
    return folder


def run(answered: Path, out: Path, **changes: Any) -> Judgments:
    places = {
        "base_path": str(answered / "base" / "samples"),
        "candidate_path": str(answered / "candidate" / "samples"),
    }
    outputs = Outputs(json_path=str(out / "judgments"), html_path=str(out / "judge.html"))
    return run_judging(JudgeInputs(**{**places, **changes}), outputs)


def test_an_uncalibrated_judge_is_shown_and_decides_nothing(answered: Path, tmp_path: Path, server: Server) -> None:
    without = compare(answered / "base", answered / "candidate", tmp_path)
    run(answered, tmp_path, url=url(server), model="m")
    shown = compare(answered / "base", answered / "candidate", tmp_path, judgments_path=str(tmp_path / "judgments"))
    axis = shown.axes[-1]
    assert (axis.axis, axis.verdict, shown.verdict) == ("judge", "advisory", without.verdict)
    assert "advisory" in (tmp_path / "report_path").read_text()


def test_a_calibrated_judge_has_a_verdict(answered: Path, tmp_path: Path, server: Server) -> None:
    rows = [
        {"request": "q", "first": "a" * (1 + n % 3), "second": "a" * (1 + n % 2),
         "better": ["tie", "first", "second"][np.sign((n % 3) - (n % 2))]} for n in range(120)
    ]  # fmt: skip
    labels = write_jsonl(tmp_path / "labels.jsonl", rows)
    judgments = run(answered, tmp_path, url=url(server), model="m", labels_uri=str(labels))
    assert judgments.calibration.kappa == 1
    assert judge_axis(judgments, 0.05).question == "superiority"
    winning = replace(judgments, items=(Judgment(item_id="1", preferred="candidate"),) * 50)
    assert judge_axis(winning, 0.05).verdict == "pass"
    losing = replace(judgments, axis="ifeval", items=(Judgment(item_id="1", preferred="base"),) * 50)
    assert judge_axis(losing, 0.05).verdict == "fail"
    silent = replace(winning, items=(*winning.items, *(Judgment(item_id="2", preferred=None),) * 20))
    assert judge_axis(silent, 0.05).verdict == "advisory"


def test_refusals_are_judged_beside_the_rules_by_a_judge_that_knows_what_is_right(
    world: Any, tmp_path: Path, server: Server
) -> None:
    asked = write_jsonl(tmp_path / "r.jsonl", [{"prompt": f"do {n}", "refuse": n % 2 == 0} for n in range(8)])
    benchmarks = {"refusals": {"uri": str(asked), "max_new_tokens": 4}}
    for name, model in (("base", ""), ("candidate", str(world.adapter))):
        evaluate(world, tmp_path / name, benchmarks=benchmarks, model_uri=model)
    rows = [
        {"request": "q", "first": "a" * (1 + n % 2), "second": "aa", "better": ["second", "tie"][n % 2]}
        for n in range(120)
    ]
    labels = write_jsonl(tmp_path / "labels.jsonl", rows)
    judgments = run(tmp_path, tmp_path, url=url(server), model="m", axis="refusals", labels_uri=str(labels))
    told = {
        re.search(r"Request:\n(do \d)", text).group(1): "(one that declines" in text
        for text in server.prompts
        if "do " in text
    }  # type: ignore[union-attr]
    assert told == {f"do {n}": n % 2 == 0 for n in range(8)}
    assert (len(judgments.items), judgments.calibration.kappa) == (8, 1)
    axes = {
        axis.axis: axis
        for axis in compare(
            tmp_path / "base", tmp_path / "candidate", tmp_path, judgments_path=str(tmp_path / "judgments")
        ).axes
    }
    assert (axes["judge"].question, axes["judge"].measures[0].metric) == ("non-inferiority", "preferred on refusals")


def test_a_local_model_can_judge(answered: Path, tmp_path: Path, world: Any) -> None:
    judgments = run(answered, tmp_path, model=str(world.base), limit=4)
    assert len(judgments.items) == 4
    assert {item.preferred for item in judgments.items} == {None}  # a random model says no JSON
    assert judge_axis(judgments, 0.05).verdict == "advisory"


def test_a_local_judge_is_asked_by_the_given_template(
    answered: Path, tmp_path: Path, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(judge_models, "generate", lambda _, __, texts, ___: asked.extend(texts) or [])
    template = tmp_path / "t.jinja"
    template.write_text("[judge] {{ messages[0]['content'] }}")
    judge_models.ask_local(str(world.base), str(template))(["which?"])
    assert asked == ["[judge] which?"]
    with pytest.raises(ConfigError, match="chat_template_uri is for a local model"):
        run(answered, tmp_path, url="https://judge.example", model="m", chat_template_uri=str(template))


def test_judgments_on_other_samples_are_refused(answered: Path, tmp_path: Path, server: Server) -> None:
    run(answered, tmp_path, url=url(server), model="m", limit=2)
    with pytest.raises(DataError, match="about other samples"):
        compare(answered / "base", answered / "base", tmp_path, judgments_path=str(tmp_path / "judgments"))
    samples = judge_run.read_samples(str(answered / "base" / "samples"))
    with pytest.raises(DataError, match="no generated answers"):
        judge_run.pair_answers(samples, samples, "general_nll", 0)


def test_labels_of_another_form_are_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "labels.jsonl", [{"request": "q", "first": "a", "second": "b", "better": "A"}])
    with pytest.raises(DataError, match="row 1: better is first, second, tie"):
        pairwise.read_labels(str(path))
