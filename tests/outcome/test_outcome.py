"""The end of a run: an audit record, its cost in MLflow, and a message to a real HTTPS server."""

import datetime
import ipaddress
import json
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mlflow import MlflowClient

from mixtune import http_post
from mixtune.artifacts.audit import AuditRecord
from mixtune.artifacts.comparison import AxisDetails, DialVerdict, LostItem, Overlap
from mixtune.artifacts.grid import Candidate, GridReport, Recommendation
from mixtune.artifacts.ladder import LadderReport, Rung
from mixtune.artifacts.model import ModelManifest
from mixtune.artifacts.pools import PoolInputs, RowCounts, Source
from mixtune.artifacts.run_report import RunReport
from mixtune.artifacts.shards import MixReceipt, PoolReceipt
from mixtune.artifacts.typed_json import read_artifact, to_json, write_artifact
from mixtune.commands.run_summary import read_mlflow_verdict
from mixtune.compare.comparison_page import write_comparison
from mixtune.errors import DataError
from mixtune.outcome import webhook
from mixtune.outcome.run import conclude_run
from mixtune.outcome.run_record import make_record
from mixtune.outcome.tracked_outcome import track_outcome
from mixtune.settings.sanitize import ConsentSettings, SanitizeSettings

from ..comparisons import make_axis, make_comparison, make_mix
from ..http_server import Answers, LocalServer

COUNTS: dict[str, Any] = {
    "read": 120, "kept": 100, "dropped": {"duplicate": 20}, "changed": {"markers": 3}, "personal_data": {"email": 4},
    "consent": {"granted": 100},
}  # fmt: skip
MIX = make_mix(
    75,
    num_steps=10,
    receipt=MixReceipt(
        pools=(PoolReceipt(name="customer", num_records=240, dropped={"too long": 2}, num_truncated=1),)
    ),
    inputs={
        "customer": PoolInputs(
            inputs=(Source(name="customer", uri="s3://b/c.csv#d1g35t"),),
            counts={"customer": RowCounts(**COUNTS)},
            rules=SanitizeSettings(consent=ConsentSettings(required=True)),
        )
    },
)
LOST = LostItem(item_id="1", subject="s", text="a record's text", gold="A", base="A", candidate="B")
AXIS = make_axis("mmlu", "pass", 0.49, details=AxisDetails(lost_items=(LOST,)))
OVERLAP = Overlap(
    axis="mmlu", num_items=9, searched=9, exact=0, short_exact=0, partial=0, mean_coverage=0.0, items=("an id",)
)
COMPARISON = make_comparison("pass", AXIS, mix=MIX, contamination=(OVERLAP,))


class Hook(LocalServer):
    """Takes messages over TLS; answers as it is told to, the last answer for good."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(HookAnswers)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.answers = [200]
        self.bodies: list[dict[str, Any]] = []


class HookAnswers(Answers):
    server: Hook

    def do_POST(self) -> None:
        self.server.bodies.append(self.body())
        status = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        self.answer(status, **({"Location": "https://elsewhere.example.com/"} if status == 302 else {}))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, and its key, in one file."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    signed = built.add_extension(address, critical=True).sign(key, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    file.write_bytes(signed.public_bytes(pem) + secret)
    return file


@pytest.fixture
def hook(certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    """A webhook that the environment leads to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = Hook(context)
    (tmp_path / "url").write_text(f"https://127.0.0.1:{server.server_port}/hooks/s3cr3t\n")
    monkeypatch.setenv("MIXTUNE_WEBHOOK_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setattr(http_post, "FIRST_PAUSE_SECONDS", 0.0)
    with server.running():
        yield server


def conclude(report: RunReport, folder: Path, options: dict[str, Any], endpoint: str = "") -> str:
    write_artifact(str(folder / "report"), report)
    report_path, path = str(folder / "report"), str(folder / "record")
    return conclude_run("finetune", report_path, path, "s3://b/kfp/record", options, endpoint)


def make_audit(report: RunReport) -> AuditRecord:
    return make_record(report, run_id="run-1", ended="2026-11-25T10:00:00+00:00", who="ada", cost_usd=None)


def test_a_run_that_ends_leaves_its_record_its_cost_and_word_of_it(
    hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MIXTUNE_RUN_ID", "run-1")
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("mixtune", artifact_location=(tmp_path / "artifacts").as_uri())
    parent = client.create_run(experiment, tags={"pipeline_run_id": "run-1"}).info.run_id
    for name, minutes in (("validate-training 75 %", 6), ("train 75 %", 54), ("evaluate-base", 600)):
        child = client.create_run(experiment, run_name=name, tags={"mlflow.parentRunId": parent}, start_time=60_000)
        client.set_terminated(child.info.run_id, end_time=(minutes + 1) * 60_000)
    options = {"uri": uri, "hyperpod": "4x-p5.48xlarge", "tags": {"submitted_by": "ada"}}

    assert conclude(COMPARISON, tmp_path, options) == "220.16"  # an hour of four

    record = json.loads((tmp_path / "record").read_text())
    assert (record["run_id"], record["who"], record["cost_usd"]) == ("run-1", "ada", 220.16)
    (candidate,) = record["candidates"]
    (source,) = candidate["comparison"]["mix"]["inputs"]["customer"]["inputs"]
    assert (source["name"], source["split"], source["uri"]) == ("customer", "train", "s3://b/c.csv#d1g35t")
    assert read_mlflow_verdict({"uri": uri}, "run-1") == ("", 220.16)
    assert [item.path for item in client.list_artifacts(parent)] == ["audit.json"]
    run = client.get_run(parent)
    assert run.info.status == "FINISHED"
    assert run.data.params["customer_data_percent"] == f"{100 * COMPARISON.mix.mix_ratio:g}.0"
    assert run.data.params["pipeline"] == "finetune" and run.data.params["candidates"] == "1"
    measure = COMPARISON.axes[0].measure
    assert run.data.metrics[COMPARISON.axes[0].axis] == measure.candidate
    (said,) = hook.bodies
    assert said == {
        "text": "finetune run-1: pass, $220.16",
        "run_id": "run-1",
        "pipeline": "finetune",
        "verdict": "pass",
        "taken": "",
        "cost_usd": 220.16,
        "links": {"model": "s3://b/kfp/model#7un3d", "record": "s3://b/kfp/record"},
    }
    shown = capsys.readouterr().out
    assert "webhook: 127.0.0.1 was told (200)" in shown
    assert "s3cr3t" not in shown


class Parent:
    """A run that keeps what it is told."""

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}

    def log_params(self, params: dict[str, Any]) -> None:
        self.params |= params

    def log_metrics(self, *_: Any) -> None: ...

    set_tags = log_metrics


def test_tracking_and_report_name_the_base_model_and_not_its_digest_alone(tmp_path: Path) -> None:
    digest = 32 * "1"
    write_artifact(str(tmp_path / "model"), ModelManifest(base_model=f"models/small#{digest}"))
    comparison = replace(COMPARISON, model_uri=f"{tmp_path}/data/model#{digest}")
    parent: Any = Parent()
    track_outcome(parent, "finetune", comparison)
    assert parent.params["base_model"] == "models/small"
    write_comparison(comparison, html=str(tmp_path / "page"), markdown=str(tmp_path / "summary"))
    assert f"models/small ({comparison.identity['base'].base_model})" in (tmp_path / "page").read_text()


def test_the_record_and_the_message_name_the_endpoint_of_a_model_that_is_served(hook: Hook, tmp_path: Path) -> None:
    conclude(COMPARISON, tmp_path, {}, "http://desk.mixtune.svc.cluster.local:8000/v1")
    assert json.loads((tmp_path / "record").read_text())["endpoint"].startswith("http://desk.")
    assert hook.bodies[0]["links"]["endpoint"].startswith("http://desk.")


def test_the_record_says_what_was_removed_and_decided_and_no_records_content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXTUNE_IMAGES", "r/data@sha256:1 r/train@sha256:2")
    record = make_audit(COMPARISON)
    (candidate,) = record.candidates
    assert candidate.mix.inputs["customer"].counts["customer"] == RowCounts(**COUNTS)
    assert candidate.mix.receipt.pools[0].dropped == {"too long": 2}
    assert record.versions.images == ("r/data@sha256:1", "r/train@sha256:2")
    assert record.verdict == candidate.comparison.verdict == "pass"
    assert candidate.comparison.identity == COMPARISON.identity
    assert candidate.comparison.axes[0].measure.candidate == 0.49
    assert candidate.comparison.contamination[0].exact == 0
    assert not any(text in json.dumps(to_json(record)) for text in ("a record's text", "an id"))


def test_the_record_of_a_grid_or_a_ladder_names_every_candidate_and_the_one_to_take(tmp_path: Path) -> None:
    dial = (DialVerdict(strength=0.5, verdict="pass", axes=(AXIS,)),)
    first, second = replace(COMPARISON, verdict="fail"), replace(COMPARISON, dial=dial, earlier=dial)
    best = Recommendation(name="75 %", percent=75.0, strength=1.0, model_uri="s3://b/kfp/model#7un3d")
    grid = GridReport(
        verdict="pass",
        reason="Take 75 %.",
        recommended=best,
        candidates=(Candidate(name="100 %", comparison=first), Candidate(name="75 %", comparison=second)),
    )
    rungs = tuple(
        Rung(name=item.name, comparison=item.comparison, method="lora", lora_rank=16, lora_alpha=32)
        for item in grid.candidates
    )
    ladder = LadderReport(verdict="pass", reason="Take 75 %.", recommended=best, rungs=rungs)
    for report in (grid, ladder):
        record = make_audit(report)
        assert [(item.name, item.comparison.verdict) for item in record.candidates] == [
            ("100 %", "fail"),
            ("75 %", "pass"),
        ]
        assert (record.verdict, record.reason, record.recommended) == ("pass", "Take 75 %.", best)
        assert [point.strength for point in record.candidates[1].comparison.dial] == [0.5]
        assert "a record's text" not in json.dumps(to_json(record))
        write_artifact(str(tmp_path / "record"), record)
        assert read_artifact(AuditRecord, str(tmp_path / "record")) == record


def test_a_model_that_has_still_to_be_turned_down_is_named_and_not_linked(
    hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    best = Recommendation(name="100 % at 0.5", percent=100.0, strength=0.5, model_uri="s3://b/kfp/model#7un3d")
    candidates = (Candidate(name="100 %", comparison=COMPARISON),)
    conclude(GridReport(verdict="pass", reason="", recommended=best, candidates=candidates), tmp_path, {})
    (said,) = hook.bodies
    assert "pass, 100 % at 0.5" in said["text"] and "model" not in said["links"]


def test_a_comparison_without_shards_has_no_record() -> None:
    with pytest.raises(DataError, match="compared without shards"):
        make_audit(replace(COMPARISON, mix=None))


@pytest.mark.parametrize(
    ("answers", "tries", "said"),
    [
        ([503, 200], 2, "webhook: 127.0.0.1 was told (200)"),
        ([503], 3, "warning: webhook 127.0.0.1 was not told: it answered 503; the run is not affected"),
        ([404], 1, "warning: webhook 127.0.0.1 was not told: it answered 404"),
        ([302], 1, "warning: webhook 127.0.0.1 was not told: it answered 302"),
    ],
)
def test_a_webhook_is_asked_again_only_where_that_may_help(
    hook: Hook, answers: list[int], tries: int, said: str
) -> None:
    hook.answers = answers
    assert webhook.send({"text": "x"}).startswith(said)
    assert len(hook.bodies) == tries


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/s3cr3t", "ftp://host/s3cr3t", "s3cr3t", "https:///s3cr3t", "https://h/a b", "https://h/a\nb"],
)
def test_nothing_is_sent_to_what_is_no_https_address(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_text(url)
    monkeypatch.setenv("MIXTUNE_WEBHOOK_FILE", str(tmp_path / "url"))
    said = webhook.send({"text": "x"})
    assert "a webhook's URL is one line that begins with https://; this one is not" in said
    assert "s3cr3t" not in said


@pytest.mark.parametrize("url", [b"\xff\xfes3cr3t", b"https://[::1/s3cr3t"])
def test_a_file_that_holds_no_address_ends_no_run(url: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_bytes(url)
    monkeypatch.setenv("MIXTUNE_WEBHOOK_FILE", str(tmp_path / "url"))
    said = webhook.send({"text": "x"})
    assert "no webhook's URL can be read there" in said and "s3cr3t" not in said


def test_a_server_that_cannot_prove_itself_is_told_nothing(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "was not told: it does not answer" in webhook.send({"text": "x"})
    assert hook.bodies == []


def test_a_webhooks_file_that_is_named_and_not_there_is_no_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXTUNE_WEBHOOK_FILE", str(tmp_path / "url"))
    assert webhook.send({"text": "x"}).startswith(f"warning: nobody was told: {tmp_path}/url: ")


def test_a_run_without_tracking_or_webhook_still_leaves_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MIXTUNE_WEBHOOK_FILE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert conclude(COMPARISON, tmp_path, {"hyperpod": "4x-p5.48xlarge"}) == ""
    assert json.loads((tmp_path / "record").read_text())["cost_usd"] is None
    assert "webhook: none" in capsys.readouterr().out
