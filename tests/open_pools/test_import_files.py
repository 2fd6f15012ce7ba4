"""An open set becomes a general pool with its licence, from the hub or a mirror, or is refused in words."""

import io
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixtune import storage
from mixtune.artifacts.pools import read_pools
from mixtune.artifacts.provenance import Provenance, read_provenance, read_terms
from mixtune.artifacts.typed_json import read_artifact
from mixtune.cli import main
from mixtune.errors import ConfigError, DataError
from mixtune.open_pools.catalogue import (
    CATEGORIES,
    OWN_TABLE,
    PoolSource,
    check_allowed,
    find_pool,
    pool_argument,
    read_catalogue,
)
from mixtune.open_pools.component import import_pool
from mixtune.open_pools.import_files import import_files
from mixtune.preflight.fingerprint import fingerprint_pools
from mixtune.sanitize.reading.readers import is_readable
from mixtune.sanitize.reading.schemas import find_schema
from mixtune.sanitize.run import Outputs, read_parameters, run

COMMIT = "c" * 40
TABLE = f"""
[pools.questions]
category = "rag"
source = "org/questions"
revision = "{COMMIT}"
files = ["data/train-*.parquet", "more.jsonl"]
licence = "cc-by-4.0"
licence_url = "https://creativecommons.org/licenses/by/4.0/legalcode"
attribution = "Questions by Org"
columns = {{ prompt = "{{documents}}\\n\\n{{question}}", completion = "answer" }}
"""


def rows(part: int) -> list[dict[str, Any]]:
    words = ("river", "harbour", "bridge", "market", "tower", "garden", "museum", "station", "castle", "island")
    return [
        {
            "documents": [f"The {word} has {part}{n} gates."],
            "question": f"How many has the {word}?",
            "answer": f"{part}{n}.",
        }
        for n, word in enumerate(words)
    ]


def shard(part: int) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows(part)), stream)
    return stream.getvalue()


FILES = {
    "data/train-00000-of-00002.parquet": shard(1),
    "data/train-00001-of-00002.parquet": shard(2),
    "data/test-00000-of-00001.parquet": shard(3),
    "more.jsonl": "".join(json.dumps(row) + "\n" for row in rows(4)).encode(),
    "load.py": b"print('not run')",
    "weights.pkl": b"\x80\x04",
    "README.md": b"---\nlicense: cc-by-4.0\n---",
}
TAKEN = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "more.jsonl"]


CHAT = {
    "id": "1", "prompt": "asked", "source": "s", "chat_template_kwargs": {"enable_thinking": True},
    "messages": [{"content": "asked", "role": "user"}, {"content": "<think>why</think>answered", "role": "assistant"}],
}  # fmt: skip
ROWS_OF_CARDS: dict[str, dict[str, Any]] = {
    "dolly-15k": {"instruction": "asked", "context": "", "response": "answered", "category": "open_qa"},
    "aya": {"inputs": "asked", "targets": "answered", "language": "English", "user_id": "u"},
    "magicoder-oss": {"lang": "python", "seed": "x", "problem": "asked", "solution": "answered"},
    "gsm8k": {"question": "asked", "answer": "answered\n#### 4"},
    "opencode-reasoning": {"id": "1", "input": "asked", "output": "answered", "license": "mit"},
    "openscience-reasoning": {"input": "asked", "output": "answered", "expected_answer": "C"},
    "rag-instruct": {"question": "asked", "answer": "answered", "documents": ["one", "two"]},
    "coconot": {"id": "1", "category": "c", "prompt": "asked", "response": "answered"},
    "toolace": {"system": "tools", "conversations": [
        {"from": "user", "value": "asked"}, {"from": "assistant", "value": "[Find(x=1)]"},
        {"from": "tool", "value": "1"}, {"from": "assistant", "value": "answered"}]},
    "hermes-function-calling": {
        "id": "1", "tools": json.dumps([{"type": "function", "function": {"name": "f", "parameters": {}}}]),
        "conversations": [{"from": "system", "value": "tools"}, {"from": "human", "value": "asked"},
                          {"from": "gpt", "value": "answered"}]},
}  # fmt: skip
"""Rows with the columns that the sets' cards describe; those not named here have `messages`, as CHAT has."""


@pytest.fixture
def table(tmp_path: Path) -> str:
    (tmp_path / "own.toml").write_text(TABLE)
    return str(tmp_path / "own.toml")


@pytest.fixture
def questions(table: str) -> PoolSource:
    return find_pool("questions", table, {})


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        path = tmp_path / "mirror" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "mirror"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_entry_of_the_shipped_catalogue_can_be_imported_and_accounted_for() -> None:
    entries = read_catalogue()
    assert len({(pool.source, tuple(pool.files)) for pool in entries.values()}) == len(entries) >= 10
    for name, pool in entries.items():
        assert pool.category in CATEGORIES, name
        assert pool.on_hub and pool.revision, name
        assert all(is_readable(pattern) and not pattern.startswith(("/", ".", "_")) for pattern in pool.files), name
        assert pool.licence_url.startswith("https://") and pool.attribution and pool.good_for and pool.mind, name
        assert pool.records > 0, name
        assert ("non-commercial" in pool.mind) == ("-NC-" in pool.licence), name
    assert len(CATEGORIES) == len(set(CATEGORIES)) == 23


@pytest.mark.parametrize("name", read_catalogue())
def test_a_row_as_the_card_describes_it_becomes_a_record(name: str) -> None:
    pool, row = read_catalogue()[name], ROWS_OF_CARDS.get(name, CHAT)
    schema = find_schema(row, pool.columns)
    record = schema.record(row, "file", 1, Counter())
    asked = [message for message in record["messages"] if message["role"] == "user"]
    assert "asked" in asked[0]["content"] and "answered" in record["messages"][-1]["content"]
    assert (schema.name == "mapping") == bool(pool.columns)


def test_a_pool_of_the_hub_is_imported_cleaned_and_accounted_for(hub: Any, table: str, tmp_path: Path) -> None:
    hub.repos["org/questions"] = FILES
    out = str(tmp_path / "out")
    pool = find_pool("questions", table, {})
    import_files(pool, out, ["CC-BY-4.0"])
    assert sorted(contents(tmp_path / "out")) == ["_provenance.json", *TAKEN]
    assert not {"load.py", "weights.pkl", "data/test-00000-of-00001.parquet"} & set(hub.asked)
    entry = pool_argument(pool, out)
    _, general, _ = fingerprint_pools(out, {}, "", [entry])
    settings, inputs = read_parameters(
        {"sources": general, "splits": {"test_ratio": 0}, "dedup": {"near_duplicates": 0}}
    )
    places = {"json_path": "pools", "data_uri": "data", "html_path": "r.html", "markdown_path": "s.md"}
    manifest = run(settings, inputs, Outputs(**{name: str(tmp_path / place) for name, place in places.items()}))
    assert manifest.counts["rag"].kept == 30
    record = next(read_pools(str(tmp_path / "pools")).records("rag", "train"))
    assert record["messages"][0]["content"] == "The river has 10 gates.\n\nHow many has the river?"
    terms = manifest.inputs[0].provenance
    assert terms and (terms.licence, terms.source, terms.revision) == ("CC-BY-4.0", "org/questions", COMMIT)
    assert all("Questions by Org" in (tmp_path / name).read_text() for name in ("r.html", "s.md"))


def read_folder(uri: str) -> Provenance:
    provenance = read_provenance(uri)
    assert provenance is not None
    return provenance


def test_the_same_files_give_the_same_bytes_from_hub_mirror_and_after_a_kill(
    hub: Any, questions: PoolSource, mirror: Path, bucket: str, tmp_path: Path
) -> None:
    hub.repos["org/questions"] = FILES
    import_files(questions, str(tmp_path / "one"))
    left = tmp_path / "two" / TAKEN[0]  # as a kill may leave it: some files, cut even, and no provenance
    left.parent.mkdir(parents=True)
    left.with_name(".more.jsonl.x1y2").write_bytes(b"half")
    left.write_bytes(FILES[TAKEN[0]][:50])
    import_files(questions, str(tmp_path / "two"))
    left.with_name(".more.jsonl.x1y2").unlink()
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    storage.upload(mirror, f"{bucket}/mirror")
    made = import_files(questions, f"{bucket}/out", mirror_uri=f"{bucket}/mirror")
    assert made.mirror_uri == f"{bucket}/mirror"
    assert made.files == read_folder(str(tmp_path / "one")).files
    assert read_folder(f"{bucket}/out").licence == "CC-BY-4.0"


def test_a_set_that_was_fetched_once_is_there_without_a_network(
    hub: Any, questions: PoolSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    hub.repos["org/questions"] = FILES
    import_files(questions, str(tmp_path / "one"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    import_files(questions, str(tmp_path / "two"))
    shutil.rmtree(tmp_path / "hub-cache")
    with pytest.raises(DataError, match=r"--mirror.*hf download org/questions .*--revision cccc"):
        import_files(questions, str(tmp_path / "three"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"licence": ""}, "licence is missing"),
        ({"licence": "unknown"}, "'unknown' is not SPDX .* LicenseRef-NAME"),
        ({"category": ""}, "category is missing"),
        ({"files": []}, "files is missing"),
        ({"files": "more.jsonl"}, "files is a list"),
        ({"source": "org/questions", "revision": "main"}, "can come to mean other files"),
        ({"source": "org/questions"}, "revision is missing"),
        ({"columns": {"question": "q"}}, "unknown key 'question'"),
        ({"files": ["*"]}, "README.md is no data"),
        ({"files": ["*.pkl"]}, "weights.pkl is no data"),
        ({"files": ["train.parquet"]}, "nothing in it is named train.parquet; there is README.md"),
    ],
)  # fmt: skip
def test_what_cannot_be_accounted_for_or_is_no_data_is_refused(
    given: dict[str, Any], words: str, mirror: Path, tmp_path: Path
) -> None:
    told = {"source": str(mirror), "files": ["more.jsonl"], "licence": "LicenseRef-own", "category": "chat"}
    with pytest.raises((ConfigError, DataError), match=words):
        import_files(find_pool("", "", {**told, **given}), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_entry_keeps_its_licence_and_a_wrong_name_is_answered_with_near_ones(table: str) -> None:
    assert find_pool("questions", table, {"category": "rag-2"}).category == "rag-2"
    with pytest.raises(ConfigError, match="licence is the catalogue's to say"):
        find_pool("questions", table, {"licence": "MIT"})
    with pytest.raises(ConfigError, match="no pool 'quest' in the catalogue; did you mean questions"):
        find_pool("quest", table, {})
    with pytest.raises(ConfigError, match="not a catalogue of pools"):
        find_pool("questions", str(OWN_TABLE.with_name("component.py")), {})


def test_a_licence_that_is_not_allowed_is_refused_however_it_is_written(questions: PoolSource) -> None:
    check_allowed(questions, ["Cc-By-4.0", "MIT"])
    with pytest.raises(ConfigError, match=r"CC-BY-4.0 is not allowed; allowed is \['Apache-2.0', 'MIT'\]"):
        check_allowed(questions, ["apache-2.0", "MIT"])


def test_a_mirror_without_all_shards_or_with_pointers_is_refused(
    questions: PoolSource, mirror: Path, tmp_path: Path
) -> None:
    (mirror / TAKEN[0]).unlink()
    with pytest.raises(DataError, match="part 00000 is missing"):
        import_files(questions, str(tmp_path / "out"), mirror_uri=str(mirror))
    (mirror / TAKEN[0]).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(DataError, match="git lfs pull"):
        import_files(questions, str(tmp_path / "out"), mirror_uri=str(mirror))


def test_files_that_were_not_imported_are_not_taken_for_the_pools(
    questions: PoolSource, mirror: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    import_files(questions, str(out), mirror_uri=str(mirror))
    other = replace(questions, revision="d" * 40)
    with pytest.raises(ConfigError, match=r"org/questions at c{40} is there; take an empty folder"):
        import_files(other, str(out), mirror_uri=str(mirror))
    assert read_folder(str(out)).revision == COMMIT
    (out / "own.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match=r"own\.jsonl is there, no part of pool 'questions'"):
        import_files(questions, str(out), mirror_uri=str(mirror))
    with pytest.raises(DataError, match=r"own\.jsonl was not imported with the pool"):
        read_terms(str(out))
    (out / "own.jsonl").unlink()
    before = storage.fingerprint(str(out))
    told = storage.read_json(str(out / storage.PROVENANCE))
    storage.write_json(str(out / storage.PROVENANCE), {**told, "licence": "MIT"})
    assert storage.fingerprint(str(out)) != before, "a cached step would repeat the old licence"
    (out / "more.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"more\.jsonl"):
        read_terms(str(out))


def test_the_component_leaves_a_manifest_and_says_where_the_files_are(table: str, mirror: Path, tmp_path: Path) -> None:
    class Artifact:
        uri = path = str(tmp_path / "task" / "pool")

    uri = import_pool.python_func(pool=Artifact, name="questions", catalogue_uri=table, mirror_uri=str(mirror))
    manifest = read_artifact(Provenance, Artifact.path)
    manifest.verify()
    assert manifest.data_uri == uri == str(tmp_path / "task" / "data" / "pool")
    assert [entry.path for entry in manifest.files] == TAKEN


def test_the_command_lists_shows_and_imports(
    table: str, mirror: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pools"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed[0].split() == ["name", "category", "licence", "records"]
    assert ["dolly-15k", "instruction-following", "CC-BY-SA-3.0", "15,011"] in [line.split() for line in listed]
    out = str(tmp_path / "out")
    asked = ["pools", "questions", "--catalogue", table]
    assert main([*asked, "--out", out, "--mirror", str(mirror), "--allow", "CC-BY-4.0"]) == 0
    entry = json.loads("{" + capsys.readouterr().out.partition("\n{")[2])
    assert entry == pool_argument(find_pool("questions", table, {}), out)
    fingerprint_pools(out, {}, "", [entry])
    assert main([*asked, "--out", out, "--mirror", str(mirror), "--allow", "MIT"]) == 2
    assert "is not allowed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--out", "out"], ["--mirror", "m"], ["--revision", "1"], ["dolly-15k", "--allow", "MIT"]], ids=str
)
def test_an_option_of_an_import_is_refused_where_nothing_is_imported(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pools", *words]) == 2
    assert f"{words[-2]} has no part here" in capsys.readouterr().err
