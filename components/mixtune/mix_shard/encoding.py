"""Texts to token ids, as fast as can be had exactly: fastokens where it agrees with the model's own tokenizer.

A byte-level tokenizer's tokens are bytes. Their lengths say where in a text every token lies, and their bytes, joined,
prove that the tokens spell the text.
"""

import importlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer


class Encoder:
    """A tokenizer's encoding, by the Hugging Face library or by fastokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.bytes: list[bytes] = token_bytes(tokenizer)
        """What every token id spells; empty where the tokenizer is not byte-level."""
        self.lengths: np.ndarray = np.array([len(item) for item in self.bytes], np.int64)
        self._fast: Any = None

    @property
    def backend(self) -> str:
        """The library that encodes: `fastokens` or `tokenizers`."""
        return "fastokens" if self._fast else "tokenizers"

    def try_fastokens(self, texts: Sequence[str]) -> bool:
        """Encode with fastokens from now on, if it is installed and gives the same ids for all these texts."""
        if not self.bytes or not texts:
            return False
        try:
            fast = importlib.import_module("fastokens").Tokenizer.from_json_str(self._tokenizer.to_str())
            found = _flat(fast, texts)
        except (ImportError, ValueError, RuntimeError, NotImplementedError):
            return False
        wanted = self.encode(texts)
        if all(np.array_equal(mine, theirs) for mine, theirs in zip(wanted, found, strict=True)):
            self._fast = fast
        return self._fast is not None

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all texts, one behind the other (int32), and where each text begins and ends (int64, texts + 1)."""
        if self._fast:
            return _flat(self._fast, texts)
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        bounds = np.cumsum([0, *map(len, ids)])
        return np.concatenate([np.array(item, np.int32) for item in ids]) if ids else np.empty(0, np.int32), bounds

    def spells(self, ids: np.ndarray, texts: Sequence[str]) -> bool:
        """Whether tokens are, byte for byte, these texts one behind the other."""
        return bool(self.bytes) and b"".join(map(self.bytes.__getitem__, ids.tolist())) == "".join(texts).encode()

    def mask(self, ids: np.ndarray, text: str, spans: Sequence[tuple[int, int]]) -> np.ndarray | None:
        """1 for the tokens of the spans, uint8; None where a token lies across a span's border."""
        if text.isascii():
            places = [place for span in spans for place in span]
        else:
            places = [len(text[:place].encode()) for span in spans for place in span]
        ends = np.concatenate([[0], self.lengths[ids].cumsum()])
        found = np.searchsorted(ends, places)
        if not np.array_equal(ends[np.minimum(found, len(ends) - 1)], places):
            return None
        mask = np.zeros(len(ids), np.uint8)
        for start, end in found.reshape(-1, 2):
            mask[start:end] = 1
        return mask


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """What every token id of a byte-level tokenizer spells; empty for another tokenizer."""
    value = json.loads(tokenizer.to_str())
    if (value.get("decoder") or {}).get("type") != "ByteLevel" or value["model"].get("type") != "BPE":
        return []
    letters = _byte_letters()
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    added = {token["id"]: token["content"].encode() for token in value["added_tokens"]}
    table = [b""] * (max([*vocabulary.values(), *added], default=-1) + 1)
    for text, number in vocabulary.items():
        table[number] = bytes(letters[letter] for letter in text) if all(map(letters.__contains__, text)) else b""
    for number, content in added.items():
        table[number] = content
    return table


def _byte_letters() -> dict[str, int]:
    """The byte that each letter of a byte-level vocabulary stands for: printable ones themselves, the rest from 256."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


def _flat(fast: Any, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    ids, bounds = fast.encode_batch_flat(list(texts))
    return np.frombuffer(ids, np.uint32).astype(np.int32), np.frombuffer(bounds, np.uint64).astype(np.int64)
