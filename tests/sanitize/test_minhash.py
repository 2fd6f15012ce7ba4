"""Near-duplicates: what is planted is found, whoever looks, and what is distinct stays."""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtune.errors import ConfigError
from mixtune.ngrams import Sets
from mixtune.sanitize.dedup.fingerprints import fingerprint_records
from mixtune.sanitize.dedup.minhash import BANDS, COMMON, find_pairs, jaccard, propose_in_memory
from mixtune.sanitize.dedup.minhash_daft import check_near_engine, propose_on_daft
from mixtune.sanitize.parts import Features
from mixtune.settings.sanitize import read_sanitize_settings

from .conftest import sanitize


@pytest.fixture(scope="module")
def planted() -> list[str]:
    """3,000 questions of eighty words; every tenth comes again with one or two words changed."""
    draw = random.Random(5)
    words = [f"w{chr(97 + n // 676)}{chr(97 + n // 26 % 26)}{chr(97 + n % 26)}" for n in range(5000)]
    asked = [draw.choices(words, k=80) for _ in range(3000)]
    for text in asked[::10]:
        copy = list(text)
        for place in draw.sample(range(80), k=draw.randint(1, 2)):
            copy[place] = "changed"
        asked.append(copy)
    return [" ".join(text) for text in asked]


def blocks_of(texts: list[str], size: int) -> Any:
    def blocks(names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        for at in range(0, len(texts), size):
            features = Features(near=True)
            for text in texts[at : at + size]:
                turns = [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]
                features.add({"id": "", "messages": turns, "origin": {"file": "a", "line": 1}})  # type: ignore[typeddict-item]
            arrays = features.arrays()
            yield {name: arrays[name] for name in names}

    return blocks


def test_every_planted_copy_is_found_and_nothing_else(planted: list[str]) -> None:
    whole, pieces = (list(find_pairs(blocks_of(planted, size), 0.8, propose_in_memory)) for size in (9999, 700))
    assert whole == pieces
    found = {(pair.first, pair.second) for pair in whole}
    truth = {
        (10 * number, 3000 + number): jaccard_of(planted[10 * number], planted[3000 + number]) for number in range(300)
    }
    assert found <= set(truth)
    near = {pair for pair, similarity in truth.items() if similarity >= 0.8}
    assert len(near) > 150 and len(found & near) / len(near) > 0.99
    assert all(pair.similarity == pytest.approx(truth[pair.first, pair.second], abs=0.01) for pair in whole)


def jaccard_of(one: str, other: str) -> float:
    sets = []
    for text in (one, other):
        said = fingerprint_records([{"id": "", "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": ""}],
                          "origin": {"file": "", "line": 1}}])  # fmt: skip
        sets.append(set(said.shingles(0)[0].tolist()))
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 12) | st.integers(0, 2**32 - 1)), min_size=1, max_size=6))
def test_jaccard_in_bulk_is_that_of_sets_one_by_one(values: list[set[int]]) -> None:
    flat = np.array([item for value in values for item in sorted(value)], np.uint32)
    sets = Sets(flat, np.cumsum([0, *map(len, values)]))
    pairs = [(one, other) for one in range(len(values)) for other in range(len(values))]
    expected = [len(values[a] & values[b]) / max(1, len(values[a] | values[b])) for a, b in pairs]
    assert jaccard(sets, np.array(pairs)).tolist() == pytest.approx(expected)


def test_questions_whose_numbers_differ_are_different_questions(planted: list[str]) -> None:
    texts = [f"{text} order {number}" for text in planted[:3] for number in (17, 18, 17)]
    texts = [f"{text}{' indeed' * (at % 3 == 2)}" for at, text in enumerate(texts)]
    found = find_pairs(blocks_of(texts, 4), 0.8, propose_in_memory)
    assert [(pair.first, pair.second) for pair in found] == [(0, 2), (3, 5), (6, 8)]


def test_daft_proposes_exactly_what_memory_does() -> None:
    draw = np.random.default_rng(1)
    table = draw.integers(0, 2**32, (4000, BANDS)).astype(np.uint32)
    table[3000:3500, 2] = table[:500, 2]
    table[3000:3100, 7] = table[:100, 7]
    table[100 : 100 + COMMON, 4] = 11
    table[200 : 201 + COMMON, 5] = 12  # one too many
    table[3990:, 0] = 2**32 - 1
    pieces = np.array_split(table, 3)
    expected = propose_in_memory(pieces)
    assert len(expected) == 500 + COMMON * (COMMON - 1) // 2 + 45
    assert np.array_equal(propose_on_daft(pieces), expected)
    assert propose_on_daft([]).shape == propose_in_memory([]).shape == (0, 2)


def test_a_pool_is_the_same_with_either_engine(planted: list[str], tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps({"prompt": text, "completion": "yes"}) + "\n" for text in planted[::2]))
    made = []
    for engine in ("memory", "daft"):
        (tmp_path / engine).mkdir()
        manifest = sanitize(
            tmp_path / engine,
            sources=[{"name": "chat", "uri": str(source)}],
            dedup={"near_engine": engine, "near_duplicates": 0.8},
            splits={},
        )
        made.append((manifest.counts, manifest.details, manifest.pools))
    assert made[0] == made[1]
    assert made[0][0]["chat"].dropped["near duplicate"] > 60


def test_an_engine_that_is_unknown_or_not_installed_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="near_engine is one of memory, daft; got 'spark'"):
        read_sanitize_settings({"dedup": {"near_engine": "spark"}})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"not installed here; install mixtune\[daft\]"):
        check_near_engine("daft")
