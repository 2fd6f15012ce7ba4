"""Copies, near copies and leaks: it is always the training record that goes, and it says of what it was a copy."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from mixtune.artifacts.pools import PoolsManifest, read_pools
from mixtune.errors import ConfigError, DataError
from mixtune.sanitize.dedup import protected

from .conftest import sanitize

WORDS = [f"word{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(600)]
TEXTS = [" ".join(random.Random(n).sample(WORDS, 42)) for n in range(40)]


def rows(texts: list[str], answer: str = "yes") -> list[dict[str, Any]]:
    return [{"prompt": text, "completion": answer} for text in texts]


def near(text: str) -> str:
    return f"{text} indeed"


def run(folder: Path, train: list[Any], test: list[Any] = (), **options: Any) -> PoolsManifest:  # type: ignore[assignment]
    folder.mkdir(parents=True, exist_ok=True)
    sources = []
    for split, items in (("train", train), ("test", test)):
        if items:
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in items))
            sources.append({"name": "chat", "uri": str(folder / f"{split}.jsonl"), "split": split})
    options["dedup"] = {"near_duplicates": 0.7, **options.get("dedup", {})}
    return sanitize(folder, sources=sources, **options)


def copies(folder: Path) -> dict[str, tuple[str, str]]:
    """What was dropped: reason, and of what it is a copy, by place."""
    notes = [json.loads(line) for line in (folder / "data/quarantine.jsonl").read_text().splitlines()]
    return {f"{note['file']} {note['line']}": (note["rule"], note.get("copy_of", "")) for note in notes}


def test_exact_and_near_copies_are_listed_with_what_was_kept(tmp_path: Path) -> None:
    manifest = run(tmp_path, rows([*TEXTS[:4], TEXTS[0], near(TEXTS[1])]), rows([TEXTS[2].upper(), near(TEXTS[3])]))
    assert manifest.counts["chat"].dropped == {
        "duplicate": 1, "in the test set": 1, "near duplicate": 1, "near the test set": 1,
    }  # fmt: skip
    assert copies(tmp_path)["train.jsonl 5"] == ("duplicate", "train.jsonl line 1")
    assert copies(tmp_path)["train.jsonl 6"] == ("near duplicate", "train.jsonl line 2")
    assert copies(tmp_path)["train.jsonl 4"] == ("near the test set", "test.jsonl line 2")
    assert manifest.pools[0].num_records("test") == 2


def test_nothing_that_stands_in_a_benchmark_or_is_held_back_elsewhere_is_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protected, "_BLOCK", 4)  # several files of what other pools say
    general = tmp_path / "general"
    run(general, rows(TEXTS[:3]), rows(TEXTS[3:6]))
    (tmp_path / "bench.jsonl").write_text("".join(json.dumps({"question": text}) + "\n" for text in TEXTS[6:10]))
    essay = f"An essay begins. {TEXTS[5]} And it goes on for a while, and ends."
    train = [
        *rows([TEXTS[0], near(TEXTS[1])]),  # trained on elsewhere: copy and near copy
        *rows([TEXTS[2], TEXTS[3], near(TEXTS[4]), essay], "another answer"),  # held back elsewhere: the question is enough
        *rows([TEXTS[6], near(TEXTS[7]), f"First. {TEXTS[8]} Then more. {TEXTS[20]}"], "c"),
        {"prompt": "say it", "completion": TEXTS[9]},
        *rows([" ".join(TEXTS[3].split()[:18] + TEXTS[21].split()), *TEXTS[22:30]]),
    ]  # fmt: skip
    test = rows([near(TEXTS[0]), TEXTS[3], TEXTS[6]])
    options = {"against_path": str(general / "pools"), "benchmarks": {"b": {"uri": str(tmp_path / "bench.jsonl")}}}
    manifest = run(tmp_path / "c", train, test, **options)
    found = {place: rule for place, (rule, _) in copies(tmp_path / "c").items()}
    assert found == {
        "train.jsonl 1": "in another pool",
        "train.jsonl 2": "near another pool",
        "train.jsonl 4": "in another pool",
        "train.jsonl 5": "in another pool",
        "train.jsonl 6": "in another pool",
        "train.jsonl 7": "in a benchmark",
        "train.jsonl 8": "in a benchmark",
        "train.jsonl 9": "in a benchmark",
        "train.jsonl 10": "in a benchmark",
    }
    assert manifest.pools[0].num_records("test") == 3
    kept = list(read_pools(str(tmp_path / "c/pools")).records("chat", "train"))
    assert kept[0]["messages"][0]["content"] == TEXTS[2]
    assert len(kept) == 10


def test_what_a_benchmark_asks_is_looked_for_in_the_column_that_is_asked(tmp_path: Path) -> None:
    items = [{"stem": text, "prompt": "Which is right?", "choices": ["a", "b"]} for text in TEXTS[:3]]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in items))
    entry = {"form": "multiple_choice", "uri": str(tmp_path / "b.jsonl"), "columns": {"question": "stem"}}
    manifest = run(tmp_path, rows(TEXTS[:6]), benchmarks={"b": entry})
    assert manifest.counts["chat"].dropped == {"in a benchmark": 3}
    with pytest.raises(DataError, match=r"benchmarks: b, .*no column 'stme'"):
        run(tmp_path / "other", rows(TEXTS[:6]), benchmarks={"b": {**entry, "columns": {"question": "stme"}}})


def test_a_near_copy_of_a_benchmark_question_is_found_without_a_common_thirteen_gram(tmp_path: Path) -> None:
    asked = [text.split()[:25] for text in TEXTS[:3]]
    changed = [" ".join([*words[:12], "changed", *words[13:]]) for words in asked]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"prompt": " ".join(words)}) + "\n" for words in asked))
    train = rows([*changed, *TEXTS[3:]], "whatever")
    counts = run(
        tmp_path, train, benchmarks={"b": {"uri": str(tmp_path / "b.jsonl")}}, dedup={"near_duplicates": 0.65}
    ).counts
    assert counts["chat"].dropped == {"near a benchmark": 3}


def test_a_template_that_many_benchmark_items_share_is_no_leak(tmp_path: Path) -> None:
    template = " ".join(WORDS[:60])
    items = [f"{template} {' '.join(WORDS[100 + n : 120 + n])}" for n in range(0, 400, 13)]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in items))
    train = rows([f"{template} {WORDS[n]} {WORDS[n + 7]}" for n in range(500, 540)])
    options = {"benchmarks": {"b": {"uri": str(tmp_path / "b.jsonl")}}}
    assert run(tmp_path, train, **options).counts["chat"].kept == 40


def test_a_conflict_never_costs_a_test_record(tmp_path: Path) -> None:
    train, test = rows([near(TEXTS[0]), TEXTS[1], near(TEXTS[1]), TEXTS[2]], "no"), rows([TEXTS[0]], "yes")
    train[2]["completion"] = "maybe"
    kept = run(tmp_path / "k", train, test)
    assert kept.details["chat"].num_conflicts == 2
    assert kept.details["chat"].conflicts == (
        ("test.jsonl line 1", "train.jsonl line 1"),
        ("train.jsonl line 2", "train.jsonl line 3"),
    )
    assert kept.counts["chat"].dropped == {}
    manifest = run(tmp_path / "d", train, test, dedup={"conflicts": "drop"})
    assert manifest.counts["chat"].dropped == {"conflicting answer": 3}
    assert manifest.pools[0].num_records("test") == 1


def test_questions_that_hold_their_label_are_counted_and_dropped_on_request(tmp_path: Path) -> None:
    train = [{"text": f"{text} {said}", "label": "card_arrival"} for text, said in
             zip(TEXTS[:6], ["card arrival", "Card-Arrival!", "arrival card", "scard arrival", "", "x"], strict=True)]  # fmt: skip
    kept = run(tmp_path / "k", train)
    assert (kept.details["chat"].label_words_in_question, kept.counts["chat"].kept) == (2, 6)
    assert kept.rules.dedup.label_leaks == "keep"
    dropped = run(tmp_path / "d", train, dedup={"label_leaks": "drop"})
    assert dropped.counts["chat"].dropped == {"label in the question": 2}
    assert dropped.details["chat"].label_words_in_question == 0
    with pytest.raises(ConfigError, match="label_leaks is one of keep, drop; got 'no'"):
        run(tmp_path / "n", train, dedup={"label_leaks": "no"})


def test_labels_that_differ_in_case_alone_are_pointed_at(tmp_path: Path) -> None:
    labels = ("billing", "BILLING", "billing ", "pre sale", "Pre  Sale", "other")
    run(tmp_path, [{"text": text, "label": label} for text, label in zip(TEXTS, labels * 4, strict=False)])
    question = "labels that differ from another in case alone: are they the same?"
    assert f"| {question} | 2 |" in (tmp_path / "s.md").read_text()


def test_groups_and_conflicting_questions_never_straddle_two_splits(tmp_path: Path) -> None:
    train = [{"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "a"}],
              "group": f"g{n // 4}"} for n, text in enumerate(TEXTS)]  # fmt: skip
    pairs = [{"messages": [{"role": "user", "content": change(f"{WORDS[n]} {text}")}, {"role": "assistant", "content": answer}]}
             for n, text in enumerate(" ".join(reversed(text.split())) for text in TEXTS[:20])
             for change, answer in ((str, "one"), (near, "two"))]  # fmt: skip
    run(tmp_path, train + pairs, splits={"test_ratio": 0.3, "validation_ratio": 0.2})
    seen: dict[str, set[str]] = {}
    for split in ("train", "test", "validation"):
        for record in read_pools(str(tmp_path / "pools")).records("chat", split):
            together = record.get("group") or record["messages"][0]["content"].removesuffix(" indeed")
            seen.setdefault(together, set()).add(split)
    assert len(seen) == 30
    assert all(len(splits) == 1 for splits in seen.values())
    assert set.union(*seen.values()) == {"train", "test", "validation"}


def test_the_same_text_in_two_templates_is_two_questions_in_one_split_and_a_leak(tmp_path: Path) -> None:
    one, other = (" ".join(f"{name}{chr(97 + n)}" for n in range(6)) for name in ("first", "second"))
    texts = [f"{template} {text}" for template in (one, other) for text in TEXTS[:22]]
    apart = run(tmp_path / "two", rows(texts), splits={"test_ratio": 0.3})
    assert apart.counts["chat"].dropped == {}
    assert apart.details["chat"].num_conflicts == 0
    pools = read_pools(str(tmp_path / "two/pools"))
    train, test = (
        {record["messages"][0]["content"].split(" ", 6)[6] for record in pools.records("chat", split)}
        for split in ("train", "test")
    )
    assert len(train & test) <= 2 < len(test)  # those that no band proposed
    dropped = run(tmp_path / "one", rows([*texts, near(texts[3])])).counts["chat"].dropped
    assert dropped == {"near duplicate": 1}
    leaks = run(tmp_path / "leak", rows([*texts[:22], *TEXTS[22:24]]), rows(texts[22:])).counts["chat"].dropped
    assert set(leaks) <= {"in the test set", "near the test set"}
    assert sum(leaks.values()) > 15
    answers = run(tmp_path / "answers", rows(texts[:22]) + rows(texts[22:], "no"), dedup={"conflicts": "drop"})
    assert answers.counts["chat"].dropped == {}


DIFFERENT: dict[str, tuple[Any, Any]] = {
    "signs": ({"prompt": "-3 + 5 = ?", "completion": "2"}, {"prompt": "3 - 5 = ?", "completion": "2"}),
    "labels of emoji": ({"text": "q", "label": "👍"}, {"text": "q", "label": "👎"}),
    "labels of signs": ({"text": "q", "label": "A+"}, {"text": "q", "label": "A-"}),
    "case of an answer": ({"prompt": "q", "completion": "US"}, {"prompt": "q", "completion": "us"}),
    "reasoning": tuple({"prompt": "q", "completion": "a", "reasoning": text} for text in ("x", "y")),
    "tools": tuple({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "tools": [{"name": name}]} for name in "fg"),
    "earlier calls": tuple(
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {"x": n}}]},
                      {"role": "tool", "content": "r"}, {"role": "assistant", "content": "a"}]} for n in (1, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENT)
def test_records_that_differ_in_anything_are_no_copies(name: str, tmp_path: Path) -> None:
    manifest = run(tmp_path, [*DIFFERENT[name], *DIFFERENT[name]], dedup={"near_duplicates": 0})
    assert manifest.counts["chat"].dropped == {"duplicate": 2}


def test_copies_but_for_case_and_punctuation_are_counted_apart_and_kept_on_request(tmp_path: Path) -> None:
    train = rows(["Where is it?", "where is it", "Where is  it!", "Where is it?", "Where was it?"])
    dropped = run(tmp_path / "d", train, dedup={"near_duplicates": 0}).counts["chat"].dropped
    assert dropped == {"duplicate": 1, "duplicate but for case or punctuation": 2}
    kept = run(tmp_path / "k", train, dedup={"near_duplicates": 0, "normalised": "keep"})
    assert kept.counts["chat"].dropped == {"duplicate": 1}


def test_conflicts_are_counted_without_near_duplicates(tmp_path: Path) -> None:
    train = [*rows(["Where is it?", "Who is it?"]), *rows(["where is it"], "there")]
    kept = run(tmp_path / "k", train, dedup={"near_duplicates": 0})
    assert (kept.details["chat"].num_conflicts, kept.counts["chat"].kept) == (1, 3)
    dropped = run(tmp_path / "d", train, dedup={"near_duplicates": 0, "conflicts": "drop"})
    assert dropped.counts["chat"].dropped == {"conflicting answer": 2}


SAME = [
    ("Why is my card payment still pending in the app today?", "Why is my card payment pending in the app today?"),
    ("Please, why has the transfer to my friend not arrived?", "Why has a transfer to my friend not arrived?"),
    ("Hallo, wann kommt bitte die neue Karte endlich an?", "Wann kommt eine neue Karte endlich an"),
    ("How do I auto top-up the account", "How do I auto top up the account?"),
]
NOT_SAME = [
    ("Is Paris in the north of France?", "Is Lyon in the north of France?"),
    ("How do I activate the card?", "How do I deactivate the card?"),
    ("Convert the amount from USD to EUR", "Convert the amount from EUR to USD"),
    ("I did make the payment", "I did not make the payment"),
    ("What do I owe you?", "What do you owe me?"),
    ("The sum of -3 and 5", "The sum of 3 and 5"),
    ("Give me the top 10", "Give me the top 11"),
]


def test_one_word_that_says_nothing_makes_no_other_question_of_a_short_one(tmp_path: Path) -> None:
    texts = [text for pair in SAME for text in pair]
    assert run(tmp_path / "s", rows(texts), dedup={"near_duplicates": 0.9}).counts["chat"].dropped == {
        "near duplicate": 4
    }
    assert copies(tmp_path / "s")["train.jsonl 2"] == ("near duplicate", "train.jsonl line 1")
    assert run(tmp_path / "o", rows(texts), dedup={"near_duplicates": 0}).counts["chat"].kept == 8
    leaks = run(
        tmp_path / "l", rows([*texts[::2], TEXTS[0]]), rows(texts[1::2]), dedup={"near_duplicates": 0.9}
    ).counts["chat"]
    assert leaks.dropped == {"near the test set": 4}
    other = run(tmp_path / "c", [*rows(texts[::2]), *rows(texts[1::2], "no")], dedup={"near_duplicates": 0.9})
    assert (other.counts["chat"].dropped, other.details["chat"].num_conflicts) == ({}, 4)
    options = {"against_path": str(tmp_path / "l/pools"), "dedup": {"near_duplicates": 0.9}}
    elsewhere = run(tmp_path / "e", rows([*texts[::2], "Another question altogether, is it?"], "no"), **options)
    assert elsewhere.counts["chat"].dropped == {"near another pool": 4}


def test_no_other_question_goes_for_its_common_words(tmp_path: Path) -> None:
    texts = [text for pair in NOT_SAME for text in pair]
    assert run(tmp_path, rows(texts), dedup={"near_duplicates": 0.9}).counts["chat"].kept == len(texts)


def test_a_question_that_quotes_another_one_is_drawn_into_the_same_split(tmp_path: Path) -> None:
    quoting = [f"Somebody asks: {text} What do you say to {WORDS[n]}?" for n, text in enumerate(TEXTS)]
    run(tmp_path, [*rows(TEXTS), *rows(quoting, "no")], splits={"test_ratio": 0.3}, dedup={"near_duplicates": 0})
    splits = {
        split: {
            record["messages"][0]["content"] for record in read_pools(str(tmp_path / "pools")).records("chat", split)
        }
        for split in ("train", "test")
    }
    assert len(splits["test"]) > 10
    assert all(
        (text in splits["test"]) == (quote in splits["test"]) for text, quote in zip(TEXTS, quoting, strict=True)
    )


def test_a_question_that_holds_half_of_a_test_question_is_dropped_but_no_template_is(tmp_path: Path) -> None:
    test, template = rows(TEXTS[:20], "yes"), " ".join(WORDS[-60:])
    essays = [f"First. {text} And more, {WORDS[n]}." for n, text in enumerate(TEXTS[:3])]
    counts = run(tmp_path / "q", rows([*essays, TEXTS[25]], "no"), test).counts["chat"]
    assert counts.dropped == {"in the test set": 3}
    asked = [f"{template} {WORDS[n]} {WORDS[n + 200]}?" for n in range(60)]
    counts = run(tmp_path / "t", rows(asked[20:], "no"), rows(asked[:20], "yes"), dedup={"near_duplicates": 0}).counts[
        "chat"
    ]
    assert counts.dropped == {}
