import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy
import pytest

from mixtune.artifacts.shards import ShardsManifest
from mixtune.artifacts.typed_json import from_json
from mixtune.cli import main
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.errors import ConfigError
from mixtune.mix_shard.receipt import length_histogram
from mixtune.preflight.mixed_checks import Mixed, run_mixed_preflight


def pool(name: str, share: float, **changed: Any) -> dict[str, Any]:
    """A pool as the receipt has it."""
    counted = {"num_read": 1000, "pool_records": 1000, "num_records": 1500, "epochs": 1.5, "num_truncated": 0}
    return {
        "name": name,
        "planned_share": share,
        "dropped": {},
        "lengths": {"< 128": 400, "< 64": 600},
        **counted,
        **changed,
    }


def counts(**changed: Any) -> dict[str, Any]:
    """A pool's counts as sanitize has them."""
    return {"read": 1010, "kept": 1000, "dropped": {"duplicate": 10}, "personal_data": {}, "consent": {}, **changed}


SHARDS: dict[str, Any] = {
    "kind": "shards",
    "version": ShardsManifest.VERSION,
    "num_steps": 100,
    "shards": [],
    "pools": ["customer", "chat"],
    "max_record_tokens": 63,
    "receipt": {
        "num_steps": 100, "global_batch_size": 32, "mix_ratio": 0.75, "seed": 7, "num_tokens": 9000,
        "num_loss_tokens": 3000, "pools": [pool("customer", 0.75), pool("chat", 0.25)],
    },
    "inputs": {
        "customer": {
            "counts": {"customer": counts(consent={"granted": 1000})},
            "rules": {"personal_data": {"default": "redact"}, "consent": {"required": True}},
            "inputs": [{"name": "customer", "split": "train", "uri": "s3://b/c.csv#d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1"}],
        },
        "general": {"counts": {"chat": counts()}, "rules": {"personal_data": {"default": "redact"}}, "inputs": []},
    },
}  # fmt: skip


def looked_at(shards: dict[str, Any], page: Path, **options: Any) -> str:
    mixed = Mixed(manifest=from_json(ShardsManifest, shards, "shards"))
    return run_mixed_preflight(mixed, mixed.run_settings(str(BASE_MODEL), "lora", **options), str(page))


def cells(page: Path) -> str:
    """The texts of a page, a bar between them."""
    return re.sub("(<[^>]*>)+", "|", page.read_text())


def test_every_pool_gets_its_records_epochs_lengths_and_losses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert looked_at(SHARDS, tmp_path / "page.html") == "pass"
    headline, *lines = capsys.readouterr().out.splitlines()
    assert headline == "Preflight of the mixed data: 7 pass"
    assert lines[0] == (
        "pass  pool customer: 75.00% of the mix: 1,000 records, 1,500 drawn, 1.50 epochs; tokens < 64: 600, "
        "< 128: 400; 0 truncated, 0 dropped"
    )
    assert lines[2] == "pass  steps: 100 of 32 records, 9,000 tokens, 3,000 of them to learn"
    assert lines[4] == "pass  consent: 1,000 granted"
    page = cells(tmp_path / "page.html")
    assert "☑|data: customer, train|d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1" in page
    assert "☑|personal data and consent|reported by pool" in page
    assert "seed|7" in page


def changed(where: str, **values: Any) -> dict[str, Any]:
    """The shards with something else in the customer's receipt, counts or rules, or in the receipt itself."""
    shards = copy.deepcopy(SHARDS)
    part = shards["inputs"]["customer"]
    places = {"pool": shards["receipt"]["pools"][0], "counts": part["counts"]["customer"], "rules": part["rules"]}
    places.get(where, shards["receipt"]).update(values)
    return shards


@pytest.mark.parametrize(
    ("shards", "line"),
    [
        (changed("pool", epochs=12.0), "warn  pool customer: 12.0 passes over its 1,000 records; more data"),
        (
            changed("pool", num_truncated=30, dropped={"too long": 20}),
            "warn  pool customer: 5.0% of its 1,000 records are cut or dropped when tokenized (30 truncated, 20 too",
        ),
        (
            changed("counts", read=3000, dropped={"duplicate": 2000}),
            "warn  pool customer: sanitize kept 1,000 of 3,000 records (2,000 duplicate); see its quarantine",
        ),
        (
            changed("pool", num_records=0, epochs=0.0),
            "warn  pool customer: not one of its records is drawn in so few steps; more steps, or a larger weight",
        ),
        (changed("receipt", num_steps=3), "warn  steps: 3 steps hardly move a model; more customer_epochs"),
        (changed("counts", consent={}), "pass  consent: no record says a word on it"),
    ],
)
def test_what_is_likely_wrong_with_the_mix_gets_its_line(
    shards: dict[str, Any], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    looked_at(shards, tmp_path / "page.html")
    assert line in capsys.readouterr().out


def test_personal_data_that_stays_and_consent_that_nobody_asked_for_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = changed("counts", personal_data={"email": 7, "iban": 2}, consent={})
    rules = shards["inputs"]["customer"]["rules"]
    rules.update(personal_data={"default": "redact", "email": "keep"}, consent={"required": False})
    assert looked_at(shards, tmp_path / "page.html") == "warn"
    said = capsys.readouterr().out
    assert "warn  personal data: customer: 7 email left as they are; let sanitize's personal_data be redact" in said
    assert "warn  consent: no record says whether it may be used; map a consent column" in said


def test_pools_without_reports_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no report on personal data of customer, chat; make the pools by sanitize"):
        looked_at({**SHARDS, "inputs": {}}, tmp_path / "page.html")
    assert "☐|personal data and consent|not reported" in cells(tmp_path / "page.html")


def test_lengths_are_counted_between_powers_of_two() -> None:
    assert length_histogram(numpy.array([1, 2, 3, 4, 63, 64, 65], "<i4")) == {
        "< 2": 1,
        "< 4": 2,
        "< 8": 1,
        "< 64": 1,
        "< 128": 2,
    }


def test_the_command_looks_at_shards_that_are_there_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "records.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "shards").write_text(json.dumps(SHARDS))
    pools = '[{"category": "chat", "uri": "records.jsonl", "weight": 100}]'
    run = [
        "customer_uri=records.jsonl",
        f"general_pools={pools}",
        f"base_model={BASE_MODEL}",
        "mix_options.max_length=512",
    ]
    assert main(["preflight", "finetune", *run, "--shards", "shards"]) == 0
    said = capsys.readouterr().out
    assert "about 2 records, for whose duplicates sanitize needs 0.0 GB of memory" in said
    assert "pass  pool customer: 75.00% of the mix" in said
    assert "preflight of the mixed data: pass; the page is mixtune-work/preflight-mixed.html" in said
    assert "Preflight of the mixed data" in (tmp_path / "mixtune-work" / "preflight-mixed.html").read_text()
