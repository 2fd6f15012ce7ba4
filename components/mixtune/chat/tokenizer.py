"""Records to tokens, by the model's own tokenizer and chat template; which tokens are to be learned."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from mixtune import storage
from mixtune.chat.encoding import (
    BYTE,
    COMPARED_EVERY,
    HOSTILE,
    Encoder,
    encode_exactly,
    is_byte_level,
    rename_control_tokens,
)
from mixtune.chat.planner import Planner
from mixtune.chat.sandbox import Spans
from mixtune.chat.template import ChatTemplate, TemplateRefusal, without_renaming
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
    num_control: int = 0
    """Control tokens in it, all of which the template wrote."""
    number: int = 0
    """Of the example within its record: a record gives several where no text shows all its turns as they are asked."""
    lost: frozenset[str] = frozenset()
    """Parts of the record that are not in its texts, as the settings allow."""


class _Text(NamedTuple):
    """An example as text."""

    record: Record
    text: str = ""
    spans: Spans = []  # noqa: RUF012 - never changed
    """To be learned."""
    problem: str = ""
    num_control: int = 0
    number: int = 0
    lost: frozenset[str] = frozenset()
    aside: bool = False
    """Text that spells a control token was set aside: only the renamed tokenizer may encode it."""


class ChatTokenizer:
    """The tokenizer and chat template of a model folder."""

    def __init__(
        self, folder: Path, settings: TokenSettings | None = None, template: str = "", *, fast: bool = True
    ) -> None:
        """Load them; `template` is one in place of the model's own, `fast`: whether fastokens may encode.

        Raises:
            ModelError: The folder has no fast tokenizer, or no chat template and none is given.
        """
        from transformers import AutoTokenizer  # with PyTorch, which sanitize and its workers would wait for in vain

        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder}: its tokenizer cannot be loaded ({error})") from error
        if not tokenizer.is_fast:
            raise ModelError(f"{folder}: it has no tokenizer.json; save a fast tokenizer with the model")
        self.settings = settings or TokenSettings()
        self.template = ChatTemplate.of(tokenizer, template)
        self._planner = Planner(self.template, self.settings, frozenset(self.settings.train_on))
        self._tokenizer: Tokenizer = tokenizer.backend_tokenizer
        self._renamed: Tokenizer | None = None
        self.encoder = Encoder(self._tokenizer, fast=fast)
        self._spelled = self._is_spelled()
        # (ids,) whether a token is a control token; bytes that a vocabulary falls back on are text
        self._is_control = np.zeros(max(self._tokenizer.get_vocab().values(), default=0) + 1, np.bool_)
        control = self.template.control_tokens.items()
        self._is_control[[token_id for text, token_id in control if not BYTE.fullmatch(text)]] = True
        self._num_embeddings = read_num_embeddings(folder)

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
        texts = [item for record in records for item in self._render(record)]
        plain = ["" if item.aside else item.text for item in texts]
        spans = [[] if item.aside else item.spans for item in texts]
        flat, bounds, masks, exact = self._encode_together(plain, spans)
        control = _count(self._is_control[flat], bounds)
        learned = _count(masks, bounds)
        is_inside = self._is_inside(flat)
        for number, item in enumerate(texts):
            part = slice(bounds[number], bounds[number + 1])
            ids, mask, problem, count = flat[part], masks[part], item.problem, control[number]
            if not problem and (item.aside or not exact[number]):
                ids, mask, problem = self._encode_alone(item)
                count, learned[number] = int(self._is_control[ids].sum()), int(mask.sum())
            if not problem and learned[number] == (len(mask) and mask[0]):
                problem = "no token to learn"
            elif not problem and count != item.num_control and (item.aside or count != self._count_control(item.text)):
                problem = "cannot be told from a control token"
            elif not problem and not (is_inside and not item.aside) and not self._is_inside(ids):
                problem = f"a token beyond the model's {self._num_embeddings:,} embeddings"
            yield Tokenized(item.record, ids, mask, problem, int(count), item.number, item.lost)

    def _count_control(self, text: str) -> int:
        """Return the control tokens in a text of which nothing was set aside: all are the template's."""
        return len(self.template.control_pattern.findall(text))

    def _is_inside(self, ids: np.ndarray) -> bool:
        """Return whether the model's embedding holds all tokens."""
        return not self._num_embeddings or not len(ids) or int(ids.max()) < self._num_embeddings

    def unlike_file(self, file: Path) -> str:
        """Return a text for which a `tokenizer.json` gives other ids than transformers' tokenizer; empty: none."""
        own = [encode_exactly(tokenizer, HOSTILE) for tokenizer in (self._tokenizer, Tokenizer.from_file(str(file)))]
        ids = [[flat[a:b].tolist() for a, b in pairwise(bounds)] for flat, bounds in own]
        return next((text for text, mine, its in zip(HOSTILE, *ids, strict=True) if mine != its), "")

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

    def _render(self, record: Record) -> list[_Text]:
        """Return a record's examples, or one that says why there is none."""
        conversation = self.template.conversation(record["messages"], record.get("tools"))
        examples, problem, lost, _ = self._planner.find(conversation)
        if problem:
            return [_Text(record, problem=problem)]
        texts = []
        for number, example in enumerate(examples):
            text, spans = example.text, example.spans
            if conversation.aside:
                text, spans = self.template.restore(text, spans, conversation.aside)
            count, aside = example.num_control, bool(conversation.aside)
            texts.append(_Text(record, text, spans, "", count, number, lost, aside))
        return texts

    def _renamed_tokenizer(self) -> Tokenizer:
        """Return the tokenizer whose control tokens have names that no text can spell."""
        if self._renamed is None:
            self._renamed = rename_control_tokens(self._tokenizer, self.template.control_tokens)
        return self._renamed


def read_num_embeddings(folder: Path) -> int:
    """Return how many tokens a model folder's embedding holds; 0 where that is not known."""
    config = storage.read_json(str(folder / "config.json")) if (folder / "config.json").is_file() else {}
    nested = config.get("text_config") or {}
    return int(config.get("vocab_size") or nested.get("vocab_size") or 0)


def _count(flags: np.ndarray, bounds: np.ndarray) -> list[int]:
    """Return how many tokens of each text have a flag."""
    counts: list[int] = np.diff(np.searchsorted(np.flatnonzero(flags), bounds)).tolist()
    return counts


def _mask(offsets: Sequence[tuple[int, int]], spans: Spans) -> np.ndarray:
    places, mask = np.array(offsets, np.int64).reshape(-1, 2), np.zeros(len(offsets), np.uint8)
    for start, end in spans:
        mask[(places[:, 0] >= start) & (places[:, 1] <= end) & (places[:, 1] > start)] = 1
    return mask


def _comparable(text: str) -> str:
    """Return a text without the white space that decoders add and remove, in composed letters."""
    return "".join(unicodedata.normalize("NFC", text).split())
