"""Records to tokens, by the model's own tokenizer and chat template; which tokens are to be learned."""

import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from mixtune.chat.encoding import COMPARED_EVERY, Encoder, encode_exactly, is_byte_level
from mixtune.chat.sandbox import Spans
from mixtune.chat.template import ChatTemplate, TemplateRefusal, renamed, without_renaming
from mixtune.chat.turn_spans import find_turns
from mixtune.errors import ModelError
from mixtune.records import Record
from mixtune.settings.mix import TokenSettings

BATCH_RECORDS = 1024


class Tokenized(NamedTuple):
    """A record as tokens."""

    record: Record
    input_ids: np.ndarray
    """int32, (length,)"""
    loss_mask: np.ndarray
    """uint8, (length,)"""
    problem: str = ""
    """Why the record cannot be learned from; empty where it can."""


class _Text(NamedTuple):
    """A record as text."""

    text: str = ""
    spans: Spans = []  # noqa: RUF012 - never changed
    """To be learned."""
    problem: str = ""
    aside: bool = False
    """Text that spells a control token was set aside: only the renamed tokenizer may encode it."""


class ChatTokenizer:
    """The tokenizer and chat template of a model folder."""

    def __init__(
        self, folder: Path, settings: TokenSettings | None = None, template: str = "", *, fast: bool = True
    ) -> None:
        """Load them.

        Args:
            folder: A model folder.
            settings: Roles to learn and lengths; None: the defaults.
            template: Jinja chat template; empty: the model's own.
            fast: Whether fastokens may encode.

        Raises:
            ModelError: The folder has no fast tokenizer, or no chat template and none is given.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder}: its tokenizer cannot be loaded ({error})") from error
        if not tokenizer.is_fast:
            raise ModelError(f"{folder}: it has no tokenizer.json; save a fast tokenizer with the model")
        self.settings = settings or TokenSettings()
        self.template = ChatTemplate.of(tokenizer, template)
        self._train_on = frozenset(self.settings.train_on)
        self._tokenizer: Tokenizer = tokenizer.backend_tokenizer
        self._renamed: Tokenizer | None = None
        self.encoder = Encoder(self._tokenizer, fast=fast)
        self._spelled = self._is_spelled()

    def tokenize(self, records: Iterable[Record]) -> Iterator[Tokenized]:
        """Tokenize records in their order, a batch at a time."""
        records = iter(records)
        while batch := list(islice(records, BATCH_RECORDS)):
            yield from self.tokenize_batch(batch)

    def tokenize_batch(self, records: Sequence[Record]) -> Iterator[Tokenized]:
        """Tokenize records in their order, all of them at once.

        Raises:
            Disagreement: fastokens gives other ids than the model's own tokenizer.
        """
        texts = [self._render(record) for record in records]
        plain = ["" if item.aside else item.text for item in texts]
        spans = [[] if item.aside else item.spans for item in texts]
        flat, bounds, masks, exact = self._encode_together(plain, spans)
        for number, (record, item) in enumerate(zip(records, texts, strict=True)):
            part = slice(bounds[number], bounds[number + 1])
            ids, mask, problem = flat[part], masks[part], item.problem
            if not problem and (item.aside or not exact[number]):
                ids, mask, problem = self._encode_alone(item)
            yield Tokenized(record, ids, mask, problem or ("" if mask[1:].any() else "no token to learn"))

    def decode(self, ids: np.ndarray) -> str:
        """Return the text of tokens, control tokens included."""
        return str(self._tokenizer.decode(ids.tolist(), skip_special_tokens=False))

    def _encode_together(
        self, texts: list[str], spans: list[Spans]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[bool]]:
        """Return ids, concatenated, each text's bounds in them, masks, and for which texts these are exact."""
        if self._spelled:
            self.encoder.compare(texts[::COMPARED_EVERY])
            flat, bounds = self.encoder.encode(texts)
            return flat, bounds, *self.encoder.masks(flat, bounds, texts, spans)
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        bounds = np.cumsum([0, *(len(encoding.ids) for encoding in encodings)])
        flat = np.array([number for encoding in encodings for number in encoding.ids], np.int32)
        masks = [_mask(encoding.offsets, item) for encoding, item in zip(encodings, spans, strict=True)]
        learned = [flat[a:b][mask == 1].tolist() for (a, b), mask in zip(pairwise(bounds), masks, strict=True)]
        decoded = self._tokenizer.decode_batch(learned, skip_special_tokens=False)
        turns = ["".join(text[a:b] for a, b in item) for text, item in zip(texts, spans, strict=True)]
        exact = [_comparable(text) == _comparable(turn) for text, turn in zip(decoded, turns, strict=True)]
        return flat, bounds, np.concatenate([np.empty(0, np.uint8), *masks]), exact

    def _is_spelled(self) -> bool:
        """Return whether tokens spell the texts that the template writes; they do unless spaces are put before them."""
        if not self.encoder.spells:
            return False
        try:
            texts = [self.template.render([{"role": "user", "content": "a b"}]).text]
        except TemplateRefusal:
            texts = ["a b"]
        return is_byte_level(self._tokenizer) or self.encoder.masks(*self.encoder.encode(texts), texts, [[]])[1][0]

    def _encode_alone(self, item: _Text) -> tuple[np.ndarray, np.ndarray, str]:
        """Return one record's tokens, its mask, and a problem if the tokens to learn do not decode to the turns' text.

        Where tokens spell the text, it is encoded in pieces, cut where a turn begins or ends, as it is when a model is
        asked: no token lies across.
        """
        text, spans = item.text, item.spans
        if self._spelled:
            cuts = [0, *(place for span in spans for place in span), len(text)]
            pieces = [text[start:end] for start, end in pairwise(cuts)]
            if item.aside:
                ids, bounds = encode_exactly(self._renamed_tokenizer(), pieces)
            else:
                ids, bounds = self.encoder.encode(pieces)
            mask = np.repeat(np.arange(len(pieces)) % 2, np.diff(bounds)).astype(np.uint8)
        else:
            tokenizer = self._renamed_tokenizer() if item.aside else self._tokenizer
            encoding = tokenizer.encode(text, add_special_tokens=False)
            ids, mask = np.array(encoding.ids, np.int32), _mask(encoding.offsets, spans)
        turns = without_renaming("".join(text[start:end] for start, end in spans))
        same = _comparable(self.decode(ids[mask == 1])) == _comparable(turns)
        return ids, mask, "" if same else "the tokens to learn are not the text to learn"

    def _render(self, record: Record) -> _Text:
        conversation = self.template.conversation(record["messages"], record.get("tools"))
        turns = find_turns(self.template, conversation, self._train_on)
        if turns.problem or not conversation.aside:
            return _Text(*turns)
        return _Text(*self.template.restore(turns.text, turns.spans, conversation.aside), aside=True)

    def _renamed_tokenizer(self) -> Tokenizer:
        """Return the tokenizer whose control tokens have names that no text can spell."""
        if self._renamed is None:
            self._renamed = rename_control_tokens(self._tokenizer, self.template.control_tokens)
        return self._renamed


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


def _mask(offsets: Sequence[tuple[int, int]], spans: Spans) -> np.ndarray:
    places, mask = np.array(offsets, np.int64).reshape(-1, 2), np.zeros(len(offsets), np.uint8)
    for start, end in spans:
        mask[(places[:, 0] >= start) & (places[:, 1] <= end) & (places[:, 1] > start)] = 1
    return mask


def _comparable(text: str) -> str:
    """Return a text without the white space that decoders add and remove, in composed letters."""
    return "".join(unicodedata.normalize("NFC", text).split())
