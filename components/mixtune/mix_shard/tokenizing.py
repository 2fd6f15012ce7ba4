"""Records to tokens, by the model's own tokenizer and chat template; which tokens are to be learned.

The template is rendered once per record. Text of the record that spells a control token (`<|im_end|>` in a message)
is set aside before rendering and encoded as the ordinary text it is: only the template can write a control token.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jinja2.exceptions import TemplateError
from tokenizers import Tokenizer
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import (
    _compile_jinja_template,
    _get_template_literal_text,
    _render_with_assistant_indices,
)

from mixtune.errors import ModelError
from mixtune.mix_shard.encoding import Encoder
from mixtune.mix_shard.templates import Probe, Rendered, find_spans, probe_template, template_messages
from mixtune.records import Record

BATCH_RECORDS = 1024
TEMPLATE_DATE = date(2024, 7, 26)
"""What a template that writes today's date is told: the same records give the same tokens on any day."""

# Noncharacters: never in text that came through `sanitize`, and dropped from a record that has them.
_ASIDE_START, _ASIDE_END, _CONTROL_START, _CONTROL_END = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3"
_NONCHARACTERS = re.compile(f"[{_ASIDE_START}-{_CONTROL_END}]")
_CONTROL = re.compile(f"[{_CONTROL_START}{_CONTROL_END}]")
_ASIDE = re.compile(f"{_ASIDE_START}(\\d+){_ASIDE_END}")


@dataclass(frozen=True)
class Tokenized:
    """A record as tokens."""

    record: Record
    input_ids: np.ndarray
    """int32, (length,)"""
    loss_mask: np.ndarray
    """uint8, (length,)"""
    problem: str = ""
    """Why the record cannot be learned from; empty where it can."""


class ChatTokenizer:
    """The tokenizer and chat template of a model folder."""

    def __init__(self, folder: Path, chat_template: str = "") -> None:
        """Load them.

        Args:
            folder: A model folder.
            chat_template: A Jinja template instead of the model's own; empty: the model's own.

        Raises:
            ModelError: The folder has no fast tokenizer, or no chat template and none is given.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder}: its tokenizer cannot be loaded ({error})") from error
        if not tokenizer.is_fast:
            raise ModelError(f"{folder}: it has no tokenizer.json; save a fast tokenizer with the model")
        self.template = chat_template or tokenizer.chat_template
        if not isinstance(self.template, str):
            raise ModelError(f"{folder}: its tokenizer has no chat template; give chat_template")
        self._variables = {**tokenizer.special_tokens_map, "strftime_now": TEMPLATE_DATE.strftime}
        self._compiled = _compile_jinja_template(self.template)
        self.control = _control_tokens(tokenizer, _get_template_literal_text(self.template))
        self._control_text = re.compile("|".join(map(re.escape, sorted(self.control, key=len, reverse=True))) or "(?!)")
        self._tokenizer = tokenizer.backend_tokenizer
        self._renamed: Tokenizer | None = None
        self.encoder = Encoder(self._tokenizer)
        self.probe: Probe = probe_template(self.render, self._control_text)

    def tokenize(self, records: Iterable[Record]) -> Iterator[Tokenized]:
        """Tokenize records in their order, a batch at a time."""
        records = iter(records)
        while batch := list(islice(records, BATCH_RECORDS)):
            yield from self._tokenize_batch(batch)

    def render(self, messages: list[dict[str, Any]], tools: Any = None, *, prompt: bool = False) -> Rendered:
        """A conversation as the template writes it, with the spans of its generation marks."""
        text, marks = _render_with_assistant_indices(self._compiled, messages, tools, None, prompt, **self._variables)
        return Rendered(text=text, marks=marks)

    def decode(self, ids: np.ndarray) -> str:
        """The text of tokens, control tokens included."""
        return str(self._tokenizer.decode(ids.tolist(), skip_special_tokens=False))

    def _tokenize_batch(self, records: list[Record]) -> Iterator[Tokenized]:
        rendered = [self._render_record(record) for record in records]
        plain = ["" if aside else text for text, _, _, aside in rendered]
        flat, bounds = self.encoder.encode(plain)
        proved = self.encoder.spells(flat, plain)
        for number, (record, (text, spans, problem, aside)) in enumerate(zip(records, rendered, strict=True)):
            ids = flat[bounds[number] : bounds[number + 1]]
            mask = self.encoder.mask(ids, text, spans) if proved and not aside else None
            if mask is None:
                ids, mask, disproved = self._encode_alone(text, spans, aside)
                problem = problem or disproved
            yield Tokenized(record, ids, mask, problem or ("" if mask[1:].any() else "no token to learn"))

    def _encode_alone(self, text: str, spans: list[tuple[int, int]], aside: bool) -> tuple[np.ndarray, np.ndarray, str]:
        """One record's tokens and mask; what is wrong if the tokens to learn do not decode to the assistant's text.

        A byte-level text is encoded in pieces, cut where a turn begins or ends, as it is when a model is asked: no
        token lies across.
        """
        tokenizer = self._renamed_tokenizer() if aside else self._tokenizer
        if self.encoder.bytes:
            cuts = [0, *(place for span in spans for place in span), len(text)]
            pieces = tokenizer.encode_batch(
                [text[start:end] for start, end in pairwise(cuts)], add_special_tokens=False
            )
            ids = np.array([number for piece in pieces for number in piece.ids], np.int32)
            mask = np.repeat(np.arange(len(pieces)) % 2, [len(piece.ids) for piece in pieces]).astype(np.uint8)
        else:
            encoding = tokenizer.encode(text, add_special_tokens=False)
            ids = np.array(encoding.ids, np.int32)
            mask = _mask(np.array(encoding.offsets, np.int64).reshape(-1, 2), spans)
        wanted = _CONTROL.sub("", "".join(text[start:end] for start, end in spans))
        same = _comparable(self.decode(ids[mask == 1])) == _comparable(wanted)
        return ids, mask, "" if same else "the tokens to learn are not the assistant's text"

    def choose_encoder(self, records: Iterable[Record]) -> str:
        """Encode with fastokens if it gives the ids of the Hugging Face tokenizer for all these records.

        Returns:
            The library that encodes from now on: `fastokens` or `tokenizers`.
        """
        rendered = (self._render_record(record) for record in records)
        self.encoder.try_fastokens([text for text, _, _, aside in rendered if text and not aside])
        return self.encoder.backend

    def _render_record(self, record: Record) -> tuple[str, list[tuple[int, int]], str, bool]:
        """Text, spans to learn, what is wrong with the record, and whether text was set aside."""
        aside: list[str] = []

        def set_aside(value: Any) -> Any:
            if isinstance(value, str):
                return self._control_text.sub(keep, _NONCHARACTERS.sub("", value))
            if isinstance(value, list):
                return [set_aside(item) for item in value]
            return {key: set_aside(item) for key, item in value.items()} if isinstance(value, dict) else value

        def keep(match: re.Match[str]) -> str:
            aside.append(match[0])
            return f"{_ASIDE_START}{len(aside) - 1}{_ASIDE_END}"

        messages, tools = template_messages(record)
        messages, tools = set_aside(messages), set_aside(tools)
        try:
            spans = find_spans(self.render, messages, tools, self.probe)
        except TemplateError as error:
            return "", [], f"template refuses it: {error}", False
        if spans.problem:
            return "", [], spans.problem, False
        if not aside:
            return spans.text, spans.spans, "", False
        return (*self._restore(spans.text, spans.spans, aside), "", True)

    def _restore(self, text: str, spans: list[tuple[int, int]], aside: list[str]) -> tuple[str, list[tuple[int, int]]]:
        """Put set-aside text back, and give the template's own control tokens the names of the renamed tokenizer."""
        pieces, old_ends, new_ends, at, length = [], [0], [0], 0, 0
        both = re.compile(f"{_ASIDE.pattern}|{self._control_text.pattern}")
        for match in both.finditer(text):
            literal = aside[int(match[1])] if match[1] else _renamed(match[0])
            pieces += [text[at : match.start()], literal]
            length += match.start() - at
            old_ends.append(match.start())
            new_ends.append(length)
            length += len(literal)
            at = match.end()
            old_ends.append(at)
            new_ends.append(length)
        pieces.append(text[at:])
        old, new = np.array(old_ends), np.array(new_ends)

        def moved(place: int) -> int:
            index = int(np.searchsorted(old, place, "right")) - 1
            return int(new[index] + place - old[index])

        return "".join(pieces), [(moved(start), moved(end)) for start, end in spans]

    def _renamed_tokenizer(self) -> Tokenizer:
        """The same tokenizer, whose control tokens have names that no text can spell; the ids are the same."""
        if self._renamed is None:
            self._renamed = rename_control_tokens(self._tokenizer, self.control)
        return self._renamed


def rename_control_tokens(tokenizer: Tokenizer, control: dict[str, int]) -> Tokenizer:
    """A copy of a tokenizer in which each control token is spelled with noncharacters around it.

    Raises:
        ModelError: An id changed by it.
    """
    value = json.loads(tokenizer.to_str())
    for token in value["added_tokens"]:
        if token["content"] in control:
            token["content"] = _renamed(token["content"])
            token["normalized"] = False
    vocabulary = value["model"].get("vocab")
    if isinstance(vocabulary, dict):
        value["model"]["vocab"] = {_renamed(k) if k in control else k: v for k, v in vocabulary.items()}
    elif isinstance(vocabulary, list):
        value["model"]["vocab"] = [[_renamed(k) if k in control else k, score] for k, score in vocabulary]
    if value["model"].get("unk_token") in control:
        value["model"]["unk_token"] = _renamed(value["model"]["unk_token"])
    value["post_processor"] = None
    renamed = Tokenizer.from_str(json.dumps(value))
    for text, number in control.items():
        if renamed.token_to_id(_renamed(text)) != number:
            raise ModelError(f"the tokenizer's control token {text!r} cannot be told from text that spells it")
    return renamed


def _renamed(text: str) -> str:
    return f"{_CONTROL_START}{text}{_CONTROL_END}"


def _control_tokens(tokenizer: Any, template_text: str) -> dict[str, int]:
    """Added tokens that are flagged special or that the template writes, by their text."""
    return {
        token.content: number
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special or (token.content.strip() and token.content in template_text)
    }


def _mask(offsets: np.ndarray, spans: list[tuple[int, int]]) -> np.ndarray:
    mask = np.zeros(len(offsets), np.uint8)
    for start, end in spans:
        mask[(offsets[:, 0] >= start) & (offsets[:, 1] <= end) & (offsets[:, 1] > start)] = 1
    return mask


def _comparable(text: str) -> str:
    """Text without the white space that decoders add and take, in composed letters."""
    return "".join(unicodedata.normalize("NFC", text).split())
