"""Texts to token ids, as fast as can be had exactly: fastokens where it agrees with the model's own tokenizer.

Most tokenizers' tokens are bytes, or letters. Their lengths say where in a text every token lies, and their bytes,
joined, prove that the tokens spell the text.
"""

import importlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders

from mixtune.chat.sandbox import Spans
from mixtune.chat.template import renamed
from mixtune.errors import ModelError

BYTE = re.compile("<0x([0-9A-F]{2})>")
_SPACE = "\u2581"

COMPARED_EVERY = 32
"""One text of so many is encoded by the model's own tokenizer too, all through a corpus."""
HOSTILE = tuple(json.loads(Path(__file__).with_name("hostile_texts.json").read_text(encoding="utf-8")))
"""Texts on which tokenizers are known to differ."""


class Disagreement(Exception):
    """fastokens gives other ids than the model's own tokenizer."""


class Encoder:
    """A tokenizer's encoding, by the Hugging Face library or by fastokens."""

    def __init__(self, tokenizer: Tokenizer, *, fast: bool = True) -> None:
        """Take fastokens if it is allowed, there, and gives the tokenizer's ids for hostile texts."""
        self._tokenizer = tokenizer
        spelled = token_bytes(tokenizer)
        self.spells = bool(spelled)
        """Whether it is known what tokens spell."""
        self._lengths = np.array([len(item) for item in spelled], np.int64)
        self._starts = (self._lengths.cumsum() - self._lengths).astype(np.int32)
        self._bytes = np.frombuffer(b"".join(spelled), np.uint8)
        self._fast: Any = _load_fastokens(tokenizer) if fast and spelled else None
        self.num_compared = 0
        """Texts for which both libraries gave the same ids."""
        try:
            self.compare(HOSTILE)
        except Disagreement:
            self._fast = None

    @property
    def backend(self) -> str:
        """The library that encodes: `fastokens` or `tokenizers`."""
        return "fastokens" if self._fast else "tokenizers"

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of all texts, concatenated (int32), and each text's bounds in them (int64, (texts + 1,))."""
        return _flat(self._fast, texts) if self._fast else encode_exactly(self._tokenizer, texts)

    def compare(self, texts: Sequence[str]) -> None:
        """Encode texts by both libraries; a Disagreement where they give different ids."""
        if not self._fast:
            return
        pairs = zip(_flat(self._fast, texts), encode_exactly(self._tokenizer, texts), strict=True)
        if not all(np.array_equal(mine, theirs) for mine, theirs in pairs):
            raise Disagreement
        self.num_compared += len(texts)

    def masks(
        self, ids: np.ndarray, bounds: np.ndarray, texts: Sequence[str], spans: Sequence[Spans]
    ) -> tuple[np.ndarray, list[bool]]:
        """Return which tokens lie in spans of characters.

        Args:
            ids: Tokens of all texts, one behind the other, int32 (tokens,).
            bounds: Where each text begins and ends in them, int64 (texts + 1,).
            texts: What the tokens should spell.
            spans: Of each text, in characters; they do not overlap.

        Returns:
            1 for the tokens of a span, uint8, (tokens,); and for each text whether that is exact: its tokens spell it,
            byte for byte, and none lies across a span's border.
        """
        # ends: (tokens + 1,) bytes before each token of all texts, concatenated; starts: the same before each text
        ends = np.concatenate([[0], self._lengths[ids].cumsum()])
        spelled, starts = self._spell(ids, ends), ends[bounds].tolist()
        exact = [spelled[a:b] == text.encode() for a, b, text in zip(starts, starts[1:], texts, strict=False)]
        # borders: begin and end of every span in turn, in the same bytes, of the texts that are spelled
        borders: list[int] = []
        for start, text, text_spans, is_exact in zip(starts, texts, spans, exact, strict=False):
            if is_exact and text.isascii():
                borders += [start + place for span in text_spans for place in span]
            elif is_exact:
                borders += [start + len(text[:place].encode()) for span in text_spans for place in span]
        # A border between two tokens is the end of the one before: +1 where a span begins, -1 where it ends, summed
        # up, is the mask. A border inside a token makes its text inexact.
        tokens = np.searchsorted(ends, borders)
        edges = np.zeros(len(ids) + 1, np.int8)
        np.add.at(edges, tokens[0::2], 1)
        np.add.at(edges, tokens[1::2], -1)
        for text_index in np.searchsorted(starts, np.array(borders)[ends[tokens] != borders], "right") - 1:
            exact[text_index] = False
        return edges[:-1].cumsum().astype(np.uint8), exact

    def _spell(self, ids: np.ndarray, ends: np.ndarray) -> bytes:
        """Return the bytes that tokens spell, of which each begins at one of `ends`, int64, (tokens + 1,)."""
        # byte k of token t lies at _starts[t] + k in the table of all tokens' bytes
        shifts = np.repeat(self._starts[ids] - ends[:-1].astype(np.int32), self._lengths[ids])
        return bytes(self._bytes[np.arange(ends[-1], dtype=np.int32) + shifts])


def encode_exactly(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return ids by the Hugging Face library, concatenated (int32), and each text's bounds in them (int64)."""
    ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
    bounds = np.cumsum([0, *map(len, ids)])
    return np.concatenate([np.empty(0, np.int32), *(np.array(item, np.int32) for item in ids)]), bounds


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """Return what every token id spells: for BPE over bytes, or over letters with bytes to fall back on; else empty."""
    value = json.loads(tokenizer.to_str())
    if value["model"].get("type") != "BPE":
        return []
    if is_byte_level(tokenizer):
        spell = _spell_bytes
    elif value["model"].get("byte_fallback"):
        spell = _spell_letters
    else:
        return []
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    added = {token["id"]: token["content"].encode() for token in value["added_tokens"]}
    table = [b""] * (max([*vocabulary.values(), *added], default=-1) + 1)
    for text, number in vocabulary.items():
        table[number] = spell(text)
    for number, content in added.items():
        table[number] = content
    return table


def rename_control_tokens(tokenizer: Tokenizer, control_tokens: Mapping[str, int]) -> Tokenizer:
    """Return a copy of a tokenizer whose control tokens have names that no text can spell; the ids are the same.

    Raises:
        ModelError: An id changed by it.
    """

    def rename(text: str) -> str:
        return renamed(text) if text in control_tokens else text

    value = json.loads(tokenizer.to_str())
    for token in value["added_tokens"]:
        if token["content"] in control_tokens:
            token.update(content=rename(token["content"]), normalized=False)
    model = value["model"]
    if isinstance(model.get("vocab"), dict):
        model["vocab"] = {rename(text): number for text, number in model["vocab"].items()}
    elif isinstance(model.get("vocab"), list):
        model["vocab"] = [[rename(text), score] for text, score in model["vocab"]]
    if model.get("unk_token"):
        model["unk_token"] = rename(model["unk_token"])
    value["post_processor"] = None
    copy = Tokenizer.from_str(json.dumps(value))
    for text, number in control_tokens.items():
        if copy.token_to_id(renamed(text)) != number:
            raise ModelError(f"the tokenizer's control token {text!r} cannot be told from text that spells it")
    return copy


def is_byte_level(tokenizer: Tokenizer) -> bool:
    """Return whether a tokenizer's tokens are bytes."""
    return isinstance(tokenizer.decoder, decoders.ByteLevel)


def _spell_bytes(text: str) -> bytes:
    return bytes(LETTERS[letter] for letter in text) if all(map(LETTERS.__contains__, text)) else b""


def _spell_letters(text: str) -> bytes:
    byte = BYTE.fullmatch(text)
    return bytes([int(byte[1], 16)]) if byte else text.replace(_SPACE, " ").encode()


def _byte_letters() -> dict[str, int]:
    """Return the byte that each letter of a byte-level vocabulary stands for (GPT-2's `bytes_to_unicode`)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


LETTERS = _byte_letters()


def _load_fastokens(tokenizer: Tokenizer) -> Any:
    try:
        return importlib.import_module("fastokens").Tokenizer.from_json_str(tokenizer.to_str())
    except (ImportError, ValueError, RuntimeError, NotImplementedError):
        return None


def _flat(fast: Any, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    ids, bounds = fast.encode_batch_flat(list(texts))
    return np.frombuffer(ids, np.uint32).astype(np.int32), np.frombuffer(bounds, np.uint64).astype(np.int64)
