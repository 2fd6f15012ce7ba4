"""Fingerprints of records: digests by which copies, near copies and benchmark items are found."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
import orjson
import xxhash
from numpy.lib.stride_tricks import sliding_window_view

from mixtune.ngrams import NGRAM, Sets, Words, distinct, hash_ngrams, hash_words, is_in, shingle_sets, words
from mixtune.records import Record, content_id, dump_json
from mixtune.sanitize.dedup.minhash import COMMON

_WORDY = bytes(code for code in range(128) if chr(code).isalnum() or chr(code) in " \t\n\r.,!?;:'\"()[]_")
"""What says nothing beside the words of a text, as far as it is ASCII."""
_NO_SIGN = bytes(set(range(256)) - set(b"+-*/=<>^%"))
COVERAGE = 0.5
"""Share of a protected text's 13-grams in one record from which on the record counts as a copy. Any single shared
13-gram would flag templated text by the thousand."""
BATCH = 256
"""Texts or records whose words are hashed at once."""
SHORT = 90
"""Words of a question up to which five-word shingles cannot see one changed word at a similarity of 0.9."""
_LIGHT = (
    "a an the please kindly hi hello hey thanks thank just simply really actually currently still der die das den dem "
    "des ein eine einen einem einer bitte hallo danke eigentlich gerade einfach le la les un une svp merci bonjour "
    "vraiment actuellement el los las una unos unas gracias hola o os as um uma obrigado obrigada il lo gli uno grazie "
    "ciao het de een alstublieft hoi"
)
"""Articles and courtesies: a question is the same with and without them."""
_WINDOW = 8
"""13-grams in a row of which one is an anchor: every run of 20 words that two questions share has a common one."""


@dataclass(frozen=True, kw_only=True)
class Fingerprints:
    """Fingerprints of some records."""

    keys: list[tuple[int, ...]]
    """By record, digests of: all of its content and its label; the same but for case, spacing and punctuation of all
    texts before the answer; the question (everything but the last answer) in that way; the numbers in it, in order,
    without system messages; and the second and the third again, for a short question without words that say nothing."""
    words: Words
    """The words of the records' messages, in the order of `records`' messages but system messages first."""
    contents: np.ndarray
    """Which texts of `words` are the contents of messages, (messages,)."""
    owners: np.ndarray
    """The record of each of them, (messages,)."""
    spans: np.ndarray
    """Where question and answer begin and end in the words, (records, 2, 2)."""

    def shingles(self, part: int) -> Sets:
        """Return the shingles of the questions (0), or of the answers with their labels (1)."""
        return shingle_sets(self.words.flat, self.spans[:, part, 0], self.spans[:, part, 1])

    def anchors(self) -> Sets:
        """Return some of the questions' 13-grams: the least of every _WINDOW in a row (Schleimer 2003), uint64."""
        ngrams, sets = hash_ngrams(self.words.flat, NGRAM), list[np.ndarray]()
        for start, end in self.spans[:, 0].tolist():
            values = ngrams[start : max(start, end - NGRAM + 1)]
            sets.append(sliding_window_view(values, _WINDOW).min(axis=1) if len(values) > _WINDOW else values)
            sets[-1] = distinct(sets[-1])
        return Sets(np.concatenate(sets), np.cumsum([0, *map(len, sets)]))


def fingerprint_records(records: Sequence[Record]) -> Fingerprints:
    """Return the fingerprints of some records."""
    texts: list[str] = []
    contents, owners, bounds = list[int](), list[int](), []
    for number, record in enumerate(records):
        # texts of a record: system messages; role and content of every other turn; the answer; its label and calls
        *turns, last = record["messages"]
        start = len(texts)
        texts += [turn["content"] for turn in turns if turn["role"] == "system"]
        contents += range(start, len(texts))
        question = len(texts)
        for turn in turns:
            if (role := turn["role"]) != "system":
                texts += role, turn["content"]
                contents.append(len(texts) - 1)
        contents.append(len(texts))
        owners += [number] * len(record["messages"])
        bounds.append((start, question, len(texts), len(texts) + 2))
        calls = (f"{call['name']} {call['arguments']}" for call in last.get("tool_calls", ()))
        texts += last["content"], f"{record.get('label', '')} {' '.join(calls)}"
    hashed = hash_words(texts)
    # (records, 4) the same bounds, in words: where system messages, question and answer begin, and the answer's end
    at = hashed.at[np.array(bounds).reshape(len(records), 4)]
    gist, places = _gist(hashed)
    rows = zip(records, at.tolist(), places[at].tolist(), strict=True)
    return Fingerprints(
        keys=[_keys(hashed, record, row, gist[row_gist[0] : row_gist[2]]) for record, row, row_gist in rows],
        words=hashed,
        contents=np.array(contents),
        owners=np.array(owners),
        spans=np.stack([at[:, 1:3], at[:, 2:4]], axis=1),
    )


def _gist(hashed: Words) -> tuple[np.ndarray, np.ndarray]:
    """Return the words without those that say nothing, and where each word stands in them."""
    stays = ~is_in(hashed.flat, _light_words())
    return hashed.flat[stays], np.concatenate([[0], np.cumsum(stays)])


@lru_cache(maxsize=1)
def _light_words() -> np.ndarray:
    return distinct(hash_words([_LIGHT]).flat)


def _keys(hashed: Words, record: Record, bounds: Sequence[int], gist: np.ndarray) -> tuple[int, ...]:
    """Return a record's digests; lengths go in as seeds, so that a word never moves from one part to another."""
    start, question, answer, _ = bounds
    numbers = hashed.flat[question:answer][hashed.numeric[question:answer]]
    *turns, last = record["messages"]
    label = record.get("label", "")
    identity = record["id"] or content_id(record["messages"], record.get("tools"))
    signs = symbols("\n".join([turn["content"] for turn in turns]))
    prompt = xxhash.xxh3_64_intdigest(signs, _digest(hashed.flat[start:answer], question - start))
    rest = _rest(record, f"{label}\0{last['content'].strip()}")
    key, short, seed = xxhash.xxh3_64_intdigest(rest, prompt), prompt, 0
    if answer - start <= SHORT and len(gist) > 2:
        if len(numbers):
            seed = xxhash.xxh3_64_intdigest(signs.translate(None, _NO_SIGN))
        signs = signs if len(numbers) else signs.replace(b"-", b"")
        short = xxhash.xxh3_64_intdigest(signs, _digest(gist, len(turns)))
    exact = xxhash.xxh3_64_intdigest(f"{identity} {label}".encode(errors="surrogatepass"))
    return exact, key, prompt, _digest(numbers, seed), xxhash.xxh3_64_intdigest(rest, short), short


def symbols(text: str) -> bytes:
    """Return a text without ASCII's letters, digits, spaces and punctuation of sentences, in UTF-8 and lower case."""
    lowered = text if text.isascii() else text.lower()
    return lowered.encode(errors="surrogatepass").translate(None, _WORDY)


def _rest(record: Record, answer: str) -> bytes:
    """Return the answer with all of a record that is no text of a turn: reasoning, calls, tools."""
    rest: list[object] = [answer]
    for message in record["messages"]:
        if len(message) > 2:
            calls = [[call["name"], call["arguments"]] for call in message.get("tool_calls", ())]
            rest.append([message.get("reasoning", ""), calls, message.get("learn", True)])
    if "tools" in record:
        rest.append(record["tools"])
    if len(rest) == 1:
        return answer.encode(errors="surrogatepass")
    return dump_json(rest, orjson.OPT_SORT_KEYS)


def _digest(values: np.ndarray, seed: int = 0) -> int:
    return xxhash.xxh3_64_intdigest(values.data, seed)


def holds_label(record: Record) -> bool:
    """Return whether the words of a record's label stand in its question."""
    if "label" not in record or not (label := " ".join(words(record["label"]))):
        return False
    question = " ".join(words(" ".join(message["content"] for message in record["messages"][:-1])))
    return f" {label} " in f" {question} "


@dataclass(frozen=True, kw_only=True)
class TextIndex:
    """Texts that no training record may repeat, indexed by their 13-grams."""

    exact: np.ndarray
    """Digests of whole texts, uint64, sorted."""
    ngrams: np.ndarray
    """13-grams, uint64, sorted; those of more than COMMON texts are a template's and left out."""
    at: np.ndarray
    """Offsets into `owner` by 13-gram, (13-grams + 1,)."""
    owner: np.ndarray
    """The texts that hold a 13-gram."""
    sizes: np.ndarray
    """Number of different 13-grams by text, (texts,)."""

    def find(self, hashed: Words, chosen: np.ndarray) -> np.ndarray:
        """Return for each of the chosen texts whether it is an indexed one or holds most of one, bool (chosen,)."""
        is_copy = np.zeros(len(chosen), bool)
        if not len(self.exact):
            return is_copy
        starts, sizes = hashed.at[chosen], hashed.at[chosen + 1] - hashed.at[chosen]
        digests = np.array([_digest(hashed[text]) for text in chosen], np.uint64)
        is_copy |= (sizes > 0) & is_in(digests, self.exact)
        # (matches,) indexed 13-grams in all words, each with the chosen text that holds it from end to end
        ngrams = hash_ngrams(hashed.flat, NGRAM)
        place = np.flatnonzero(is_in(ngrams, self.ngrams))
        text = np.searchsorted(starts, place, "right") - 1
        inside = (text >= 0) & (place + NGRAM <= (starts + sizes)[text])
        for number in np.unique(text[inside]):
            matches = np.searchsorted(self.ngrams, distinct(ngrams[place[inside & (text == number)]]))
            owners = np.concatenate([self.owner[self.at[match] : self.at[match + 1]] for match in matches])
            covered, counts = np.unique(owners, return_counts=True)
            is_copy[number] |= (counts >= COVERAGE * self.sizes[covered]).any()
        return is_copy


def index_texts(texts: Iterable[str]) -> TextIndex:
    """Index texts that no training record may repeat."""
    exact, ngrams = list[int](), [np.empty(0, np.uint64)]
    texts = iter(texts)
    while batch := list(islice(texts, BATCH)):
        hashed = hash_words(batch)
        exact += [_digest(hashed[number]) for number in range(len(batch))]
        ngrams += [distinct(hash_ngrams(hashed[number], NGRAM)) for number in range(len(batch))]
    # (13-grams of all texts,) sorted by 13-gram, each with its text
    flat = np.concatenate(ngrams)
    owner = np.repeat(np.arange(-1, len(exact)), [len(values) for values in ngrams])
    order = np.argsort(flat, kind="stable")
    unique, counts = np.unique(flat[order], return_counts=True)
    is_rare = counts <= COMMON
    owner = owner[order][np.repeat(is_rare, counts)]
    return TextIndex(
        exact=np.unique(np.array(exact, np.uint64)),
        ngrams=unique[is_rare],
        at=np.concatenate([[0], np.cumsum(counts[is_rare])]),
        owner=owner,
        sizes=np.bincount(owner, minlength=len(exact)),
    )
