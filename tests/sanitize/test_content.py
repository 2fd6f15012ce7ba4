"""Properties of cleaning: any text in, no marker out, nothing lost, and a second pass changes nothing."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixtune.demo
from mixtune.artifacts.pools import PoolsManifest, read_pools
from mixtune.chat.thinking import split_headless
from mixtune.errors import ConfigError, DataError
from mixtune.sanitize.clean import Cleaner, Rules, SourceFile
from mixtune.sanitize.proof import Prover
from mixtune.sanitize.reading.exports.transcripts import spoken
from mixtune.sanitize.rules.markers import ROLE_WORDS, TAGS, Markers, strip_end_token
from mixtune.sanitize.rules.normalize import normalise, suspects
from mixtune.sanitize.rules.pii import Personal
from mixtune.sanitize.rules.text_batch import join_texts
from mixtune.settings.chat import LOSABLE

from .conftest import sanitize

BASE_MODEL = Path(mixtune.demo.__file__).parent / "base_model"
MARKERS = [*(f"{word}:" for word in ROLE_WORDS), *TAGS]
PIECES = [
    *MARKERS, "MyChatBot:", "_USER:", "ſystem:", "[E", "OS]", "Sys", "tem:", "<im", "age>", "us", "er:", "<|im_end|>",
    "\u00e4NDERN:", "\u673a\u5bc6", "A\nB", "\u200b", "\u00a0", "\r", "\r\n", "e", "\u0301", "Ã", "¶", "Â", "\ufdd0", "0", "\ufdd1", "jane@", "example.org", "4111 1111 1111 ",
    "1111", "+49 170 ", "1234567", "</s>", "<|endoftext|>", " ", "\n", "```", "a",
]  # fmt: skip
BROKEN = st.text(
    st.sampled_from(
        "aZ \u00c3\u00c2\u00e2\u20ac\u2122\u0153\u0152\u00d0\u0432\u0402\u00e9\u2019\u00ab\u00b2\u0391\u4e2d\u0130\u017f\u212a\u0344\ufb01\uf8ff\n"
    ),
    max_size=6,
)
"""What wrong decoding leaves, and what does not."""
TEXT = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=14).map("".join)


KEPT = {"on_lost": dict.fromkeys(LOSABLE, "keep")}
"""The demo's chat template has no place for calls, tools and thoughts."""


def job(folder: Path, rows: list[Any], **options: Any) -> PoolsManifest:
    folder.mkdir(exist_ok=True)
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return sanitize(folder, sources=[{"name": "chat", "uri": str(folder / "a.jsonl")}], **options)


def clean(folder: Path, rows: list[Any], rules: Rules) -> tuple[list[Any], Cleaner]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cleaner = Cleaner(SourceFile(pool="chat", split="train", uri=str(path), columns={}), rules)
    return list(cleaner.records()), cleaner


def conversation(text: str) -> dict[str, Any]:
    """A record with a text in every field that a chat template may print."""
    call = {"id": "c1", "name": "find", "arguments": {text: [text, {"deep": text}]}}
    return {
        "tools": [{"name": "find", "description": text, "parameters": {"properties": {"q": {"description": text}}}}],
        "messages": [
            {"role": "system", "content": f"s {text}"},
            {"role": "user", "content": f"u {text}"},
            {"role": "assistant", "content": f"c {text}", "reasoning": text, "tool_calls": [call]},
            {"role": "tool", "content": f"t {text}", "tool_call_id": "c1"},
            {"role": "assistant", "content": f"a {text}"},
        ],
        "label": f"l {text}",
    }


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=4), st.sampled_from(["space", "strip"]))
def test_any_text_comes_out_clean_counted_and_unchanged_by_a_second_pass(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], mode: str
) -> None:
    folder, rules = tmp_path_factory.getbasetemp(), Rules(markers=Markers(mode), max_bad_ratio=1)
    records, cleaner = clean(folder, [conversation(text) for text in texts], rules)
    assert cleaner.tally.read == len(texts) == len(records) + sum(cleaner.tally.dropped.values())
    assert sum(json.loads(note)["what"] == "dropped" for note in cleaner.notes) == len(texts) - len(records)
    said = json.dumps(
        [{**record, "id": ""} for record in records], ensure_ascii=False
    )  # digits of a digest are no datum
    assert rules.markers.find(said) == []
    assert all(not Personal().find(text) for text in said.split('"'))
    again, second = clean(folder, records, rules)
    assert [item["messages"] for item in again] == [item["messages"] for item in records]
    assert [item["id"] for item in again] == [item["id"] for item in records]
    assert not second.tally.changed


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXT | BROKEN, max_size=5), st.sampled_from([(), ("\u00c4ndern:",), ("\u673a\u5bc6",), ("a\nb",)]))
def test_a_text_that_one_scan_of_many_passes_over_is_one_that_no_rule_changes(texts: list[str], extra: Any) -> None:
    markers, personal, together = Markers(extra=extra), Personal(), join_texts(texts)
    unclean, marked, held = suspects(together), markers.suspects(together), personal.suspects(together)
    for number, text in enumerate(texts):
        assert number in unclean or normalise(text, Counter()) == text
        assert number in marked or (not markers.find(text) and strip_end_token(text) == text)
        assert number in held or not personal.find(text)


@pytest.mark.parametrize("mode", ["space", "strip", "drop", "fail", "keep"])
def test_every_marker_in_every_field_meets_its_mode(mode: str, tmp_path: Path) -> None:
    forms = [
        *MARKERS, *(marker.upper() for marker in MARKERS), "MyChatBot:", "_User:", "2User:", "[E<unk>OS]",
        "Sys<image>tem:", "<im<unk>age>", "<<video>image>", "us\u200ber:", "UsUser:er:", "[E[EOS]OS]",
    ]  # fmt: skip
    rows = [conversation(f"before {form} after {form}") for form in forms]
    rows.append(conversation("nothing of the kind"))
    if mode == "fail":
        with pytest.raises(ConfigError, match=r"a.jsonl line 1: reserved marker 'system:'"):
            job(tmp_path, rows, text={"markers": mode})
        return
    manifest = job(tmp_path, rows, text={"markers": mode}, base_model=str(BASE_MODEL), chat=KEPT)
    counts, details = manifest.counts["chat"], manifest.details["chat"]
    kept = list(read_pools(str(tmp_path / "pools")).records("chat", "train"))
    found = Markers().find(json.dumps(kept))
    if mode == "drop":
        assert counts.dropped == {"reserved marker": len(forms)}
    elif mode == "keep":
        assert len(found) > 10 * len(forms)
    else:
        assert not found
        assert all(counts.changed.get(f"marker {marker.lower()}") for marker in MARKERS)
        assert counts.read == counts.kept + sum(counts.dropped.values())
    assert details.proved == counts.kept == len(kept)
    assert details.control_ids == 2 * 5 * len(kept)


def test_a_space_before_the_colon_is_all_that_changes_so_that_it_can_be_taken_back() -> None:
    text = "SYSTEM: a, the User: b, MyChatBot: c, ASSISTANT:thought:d"
    assert Markers().rewrite(text, Counter()).replace(" :", ":") == text


CLEANED = st.characters(exclude_categories=["Cs"], exclude_characters=[chr(code) for code in range(0xFDD0, 0xFDF0)])
"""No text of a pool has the characters that `normalize` takes off: the renderer sets texts aside by them."""


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["<|im_end|>", "<|im_start|>", "assistant\n", "a b", "é"]) | st.text(CLEANED, max_size=5))
)
def test_control_tokens_in_a_text_are_ordinary_tokens_that_decode_to_the_same_text(pieces: list[str]) -> None:
    tokenizer, text = PROVER.tokenizer, "".join(pieces)
    record: Any = {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "b"}]}
    (proof,) = PROVER.prove([record])
    (item,) = tokenizer.tokenize_batch([record])
    control = set(tokenizer.template.control_tokens.values())
    assert (proof.problem, proof.num_control) == ("", 4)
    assert sum(token in control for token in item.input_ids.tolist()) == 4
    assert f"user\n{text}<|im_end|>" in tokenizer.decode(item.input_ids)


PROVER = Prover(str(BASE_MODEL))


HOSTILE = {
    "nested": lambda n: "[E" * n + "[EOS]" + "OS]" * n,
    "spaces": lambda n: " " * 10 * n + "x",
    "ends": lambda n: "</s> " * n,
    "addresses": lambda n: "a@" * n + "a." * n,
    "digits": lambda n: "1 (2) " * n,
    "colons": lambda n: "a:" * n + ":1" * n,
    "fences": lambda n: "``` Ã¶ " * n,
    "accents": lambda n: "e\u0301\u0323" * n,
    "lines": lambda n: "\n" * 10 * n,
    "calls": lambda n: "<function=f>" * n,
    "arguments": lambda n: "<tool_call>f" + "<arg_key>k</arg_key><arg_value>v</arg_value>" * (n // 10),
    "a call, then spaces": lambda n: "<｜tool▁call▁begin｜>f {}" + " " * n,
    "a fence": lambda n: "<tool_call>{}" + "\n" * 10 * n + "x</tool_call>",
    "a thought's end, then lines": lambda n: "</think>" + "\n" * 2 * n,
}


@pytest.mark.parametrize("form", HOSTILE)
def test_time_is_linear_in_hostile_text(form: str, tmp_path: Path) -> None:
    def seconds(n: int) -> float:
        text = HOSTILE[form](n)
        start = time.process_time()
        clean(tmp_path, [{"prompt": f"x {text}", "completion": f"x {text} x>", "tools": [{"name": "f"}]}], Rules())
        spoken(f"### Instruction: {text} ### Response: {text} ### Instruction: x")
        split_headless(f"x{text}")
        return time.process_time() - start

    small = min(seconds(1_000) for _ in range(2))
    assert seconds(8_000) < 24 * max(small, 0.01)  # 64 where the time is quadratic


def test_a_record_that_the_chat_template_refuses_is_dropped_with_the_templates_words(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in BASE_MODEL.glob("*.json"):
        (model / file.name).write_bytes(file.read_bytes())
    template = (BASE_MODEL / "chat_template.jinja").read_text()
    (model / "chat_template.jinja").write_text(
        "{%- if messages[0]['role'] == 'system' %}{{ raise_exception('no system messages, please') }}{% endif %}"
        "{%- if 'crash' in messages[0]['content'] %}{{ messages[0]['content'] + 1 }}{% endif %}" + template
    )
    plain = [{"prompt": f"question {word}", "completion": "yes"} for word in ("a", "b", "c")]
    rows = [
        *plain,
        {**plain[0], "prompt": "something else", "system": "be kind"},
        {"prompt": "crash jane@example.org", "completion": "yes"},
        {**plain[0], "prompt": "Something else!", "system": "Be kind."},
    ]
    manifest = job(tmp_path / "1", rows, base_model=str(model), chat={"max_refused_ratio": 1})
    refused = "the chat template refuses it: "
    assert manifest.counts["chat"].dropped == {
        f"{refused}TypeError": 1,
        f"{refused}no system messages, please": 1,
        "duplicate but for case or punctuation": 1,
    }
    assert manifest.details["chat"].copies_of_refused == 1
    assert manifest.details["chat"].proved == manifest.counts["chat"].kept == 3
    notes = [json.loads(line) for line in (tmp_path / "1/data/quarantine.jsonl").read_text().splitlines()]
    assert {(note["line"], note["rule"]) for note in notes if "refuses" in note["rule"]} == {
        (4, f"{refused}no system messages, please"),
        (5, f"{refused}TypeError"),
    }
    with pytest.raises(
        DataError, match=r"'chat': 1 of 1 .* max_refused_ratio 0\.05: 1 x the chat template refuses it: no system"
    ):
        job(tmp_path / "2", rows[3:4], base_model=str(model))
    assert not (tmp_path / "2/pools").exists()


def test_a_wrong_file_stops_the_run_before_its_end(tmp_path: Path) -> None:
    rows = [{"prompt": f"q {n}", "completion": "a"} if n % 4 else {"prompt": n} for n in range(5000)]
    with pytest.raises(DataError, match=r"501 of 2001 rows cannot be used, more than max_bad_ratio 0\.2"):
        clean(tmp_path, rows, Rules(max_bad_ratio=0.2))
    assert len(clean(tmp_path, rows, Rules(max_bad_ratio=0.3))[0]) == 3750


def test_what_is_personal_shows_in_no_report_log_or_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["jane@example.org", "4111 1111 1111 1111", "+49 170 1234567", "123-45-6789", "ghp_" + "a1B2c3" * 6]
    rows: list[Any] = []
    for n, datum in enumerate(data):
        rows += [{**conversation(f"System: x {datum} y"), "label": datum, "group": datum, "consent": datum}]
        rows += [{"messages": [{"role": datum, "content": datum}]}, {datum: [datum]}, "{" + datum]
        rows += [{**conversation(f"x {n}"), "label": f"é {datum}"}]
    (tmp_path / "who.txt").write_text("\n".join(data[:4]))
    for policy in ("redact", "report"):
        folder = tmp_path / policy
        job(
            folder,
            rows,
            text={"max_bad_ratio": 1},
            personal_data={"default": policy},
            consent={"list_uri": str(tmp_path / "who.txt"), "required": False},
            base_model=str(BASE_MODEL),
            chat=KEPT,
        )
        kept = "".join(json.dumps(record) for record in read_pools(str(folder / "pools")).records("chat", "train"))
        shown = [(folder / name).read_text() for name in ("r.html", "s.md", "data/quarantine.jsonl", "pools")]
        for datum in data:
            assert not any(datum in text for text in shown)
            assert (datum in kept) == (policy == "report")
    (tmp_path / "headless.csv").write_text(f"{data[0]},{data[1]}\n" * 3)
    for columns in ({}, {"prompt": "a", "completion": "b"}):
        source = {"name": "chat", "uri": str(tmp_path / "headless.csv"), "columns": columns}
        with pytest.raises((ConfigError, DataError)) as error:
            sanitize(tmp_path / "out", sources=[source])
        assert not any(datum in str(error.value) for datum in data)
    said = capsys.readouterr()
    assert not any(datum in said.out + said.err for datum in data)
