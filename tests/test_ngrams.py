"""Words hashed in bulk are the words found one by one."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtune.ngrams import SHINGLE, distinct, hash_ngrams, hash_words, shingle_sets, words

TEXTS = st.lists(st.text(st.sampled_from("aBé٣²_ -\n日本İßσς9\U00010400\U0001d7d9·")) | st.text(), max_size=8)


@settings(deadline=None)
@given(TEXTS)
def test_two_words_have_one_digest_exactly_if_they_are_the_same(texts: list[str]) -> None:
    found = hash_words(texts)
    one_by_one = [words(text) for text in texts]
    assert [len(found[number]) for number in range(len(texts))] == [len(item) for item in one_by_one]
    every = [word for item in one_by_one for word in item]
    assert len(set(zip(every, found.flat.tolist(), strict=True))) == len(set(every)) == len(set(found.flat.tolist()))
    assert found.numeric.tolist() == [any(map(str.isdigit, word)) for word in every]


@settings(deadline=None)
@given(TEXTS)
def test_a_texts_words_and_shingles_do_not_depend_on_its_neighbours(texts: list[str]) -> None:
    found = hash_words(texts)
    sets = shingle_sets(found.flat, found.at[:-1], found.at[1:])
    for number, text in enumerate(texts):
        alone = hash_words([text])
        assert np.array_equal(found[number], alone.flat)
        edge = np.zeros(SHINGLE - 1, np.uint64)
        padded = hash_ngrams(np.concatenate([edge, alone.flat, edge]), SHINGLE) if len(alone.flat) else alone.flat
        expected = distinct((padded * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)).astype(np.uint32))
        assert np.array_equal(sets[number], expected)
        assert len(expected) <= len(alone.flat) + SHINGLE - 1


def test_words_of_any_length_differ_by_their_last_letter_and_by_their_length() -> None:
    texts = [letter * (size - 1) + last for size in range(1, 200) for letter, last in ("aa", "ab", "éa", "éb")]
    found = hash_words(texts)
    assert found.at.tolist() == list(range(len(texts) + 1))
    assert len(set(found.flat.tolist())) == len(set(texts))
    assert len(set(hash_words(["customer " * 80_000]).flat.tolist())) == 1
