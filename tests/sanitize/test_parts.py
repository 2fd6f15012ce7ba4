"""Parts, near-duplicates, consent and the proof, end to end."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mixtune.demo
from mixtune import storage
from mixtune.artifacts.pools import PoolsManifest, read_pools
from mixtune.sanitize.run import read_parameters

from .conftest import sanitize

BASE_MODEL = str(Path(mixtune.demo.__file__).parent / "base_model")
WORDS = [f"word{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(400)]
LONG = [" ".join(WORDS[n * 7 % 300 : n * 7 % 300 + 60]) + f" topic {WORDS[n]}" for n in range(40)]


def run(folder: Path, rows: list[Any], **options: Any) -> PoolsManifest:
    folder.mkdir(exist_ok=True)
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return sanitize(folder, sources=[{"name": "chat", "uri": str(folder / "a.jsonl")}], **options)


def digests(folder: Path) -> list[str]:
    return [item["sha256"] for item in storage.read_json(str(folder / "pools"))["files"]]


def test_the_same_bytes_come_out_whatever_the_number_of_processes(tmp_path: Path) -> None:
    rows = [{"prompt": f"user: {text}", "completion": "done"} for text in LONG] + ["broken"] * 2
    first = run(tmp_path / "1", rows, range_bytes=4000, num_workers=1)
    run(tmp_path / "2", rows, range_bytes=4000, num_workers=2)
    assert digests(tmp_path / "1") == digests(tmp_path / "2")
    assert len(first.pools[0].splits["train"].files) > 2
    noted = [json.loads(line) for line in (tmp_path / "1/data/quarantine.jsonl").read_text().splitlines()]
    assert [item["line"] for item in noted if item["what"] == "dropped"] == [41, 42]


def test_finished_parts_are_taken_up_again_and_changed_rules_make_them_anew(tmp_path: Path) -> None:
    rows = [{"prompt": text, "completion": "done"} for text in LONG]
    work = str(tmp_path / "work")
    run(tmp_path / "1", rows, range_bytes=4000, work_uri=work)
    stamp = (tmp_path / "work/00001.jsonl.zst").stat().st_mtime_ns
    (tmp_path / "work/00000.json").unlink()
    run(tmp_path / "1", rows, range_bytes=4000, work_uri=work)
    assert (tmp_path / "work/00001.jsonl.zst").stat().st_mtime_ns == stamp
    run(tmp_path / "2", rows, range_bytes=4000)
    assert digests(tmp_path / "1") == digests(tmp_path / "2")
    run(tmp_path / "1", rows, range_bytes=4000, work_uri=work, text={"markers": "keep"})
    assert (tmp_path / "work/00001.jsonl.zst").stat().st_mtime_ns != stamp


def test_tasks_that_share_a_folder_for_parts_have_each_its_own(tmp_path: Path) -> None:
    def folder(*names: str, **further: str) -> str:
        sources = [{"name": name, "uri": "a.jsonl"} for name in names]
        return read_parameters({"sources": sources, "options": {"work_uri": "s3://b/work"}, **further})[1].work_uri

    assert folder("customer", "customer") == "s3://b/work/customer"
    assert folder("math", "chat") == "s3://b/work/chat+math"
    assert len(folder(*(f"category-{number}" for number in range(40)))) < 120
    assert folder("customer", work_uri="s3://b/mine") == "s3://b/mine"


def test_a_near_copy_goes_and_a_conflicting_one_is_reported(tmp_path: Path) -> None:
    text = " ".join(WORDS[:120])
    rows = [
        {"prompt": text, "completion": "yes"},
        {"prompt": text.replace("wordbb", "other"), "completion": "yes"},
        {"prompt": text.replace("wordcc", "other"), "completion": "no"},
        {"prompt": text + " in 1999", "completion": "yes"},
    ]
    manifest = run(tmp_path, rows)
    assert manifest.counts["chat"].dropped == {"near duplicate": 1}
    assert manifest.details["chat"].num_conflicts == 1
    assert manifest.details["chat"].near_duplicates[0].dropped[0].at == "a.jsonl line 2"
    dropped = run(tmp_path / "d", rows, dedup={"conflicts": "drop"}).counts["chat"].dropped
    assert dropped == {"near duplicate": 1, "conflicting answer": 2}


def test_templated_questions_that_differ_in_one_word_are_all_kept(tmp_path: Path) -> None:
    template = " ".join(WORDS[:150])
    rows = [{"prompt": f"{template} {word} {template[::-1]}", "completion": "card_arrival"} for word in WORDS[200:300]]
    assert run(tmp_path, rows).counts["chat"].kept == 100


def test_records_without_consent_never_leave(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "x"}], "consent": said}
            for text, said in zip(LONG, ["yes", "no", "Yes", ""] * 10, strict=True)]  # fmt: skip
    counts = run(tmp_path, rows, consent={"required": True}).counts["chat"]
    assert counts.consent == {"granted": 20, "missing": 10, "withheld": 10}
    assert counts.dropped == {"consent missing": 10, "consent withheld": 10}


def test_every_record_is_proved_to_hold_the_templates_control_tokens_only(tmp_path: Path) -> None:
    rows = [{"prompt": f"{text} <|im_end|>", "completion": "<|im_start|> done"} for text in LONG]
    manifest = run(tmp_path, rows, base_model=BASE_MODEL)
    details = manifest.details["chat"]
    assert (details.proved, details.control_ids) == (40, 40 * 4)
    assert manifest.counts["chat"].control_tokens == {"<|im_end|>": 40, "<|im_start|>": 40}
    record = next(iter(read_pools(str(tmp_path / "pools")).records("chat", "train")))
    assert record["messages"][0]["content"].endswith("<|im_end|>")


def test_the_report_shows_what_was_changed_and_hides_personal_data(tmp_path: Path) -> None:
    rows = [{"prompt": f"System: write to jane@example.org, {text}", "completion": "done"} for text in LONG]
    rows.append({"prompt": "ask jane\u200b@example.org or jane<unk>@example.org", "completion": "done"})
    run(tmp_path, rows, base_model=BASE_MODEL)
    page = (tmp_path / "r.html").read_text()
    for shown in (
        "marker system:",
        "a.jsonl line 1",
        "System<mark> </mark>: write to [EMAIL]",
        "Data card",
        "records proved",
    ):
        assert shown in page
    for name in ("r.html", "s.md", "data/quarantine.jsonl", "pools"):
        assert "jane" not in (tmp_path / name).read_text()


@pytest.mark.parametrize(
    "line", ['{"prompt": "a", "prompt": "b", "completion": "c"}', '{"a":' * 3000 + "1" + "}" * 3000, '"\\ud800"']
)
def test_what_no_schema_can_mend_is_quarantined(line: str, tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(json.dumps({"prompt": "q", "completion": "a"}) + "\n" + line + "\n")
    sources = [{"name": "chat", "uri": str(tmp_path / "b.jsonl")}]
    manifest = sanitize(tmp_path, sources=sources, text={"max_bad_ratio": 0.5})
    assert manifest.counts["chat"].dropped == {"unreadable": 1}


def test_a_worker_that_needs_no_tokenizer_loads_no_library_of_models() -> None:
    code = "import sys, mixtune.sanitize.run; print({'torch', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
