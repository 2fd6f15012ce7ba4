"""Records to tokens, by the model's own tokenizer and chat template; which tokens are to be learned.

The template is rendered once per record. Text of the record that spells a control token (`<|im_end|>` in a message)
is set aside before rendering and encoded as the ordinary text it is: only the template can write a control token.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from jinja2.exceptions import TemplateError
from jinja2.runtime import new_context
from tokenizers import Tokenizer
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import (
    _compile_jinja_template,
    _get_template_literal_text,
)

from mixtune.errors import ModelError
from mixtune.mix_shard.tokenize.encoding import COMPARED_EVERY, Encoder, Spans, encode_exactly, is_byte_level
from mixtune.mix_shard.tokenize.turn_spans import Probe, Rendered, find_spans, probe_template
from mixtune.records import Record, template_messages, template_tools
from mixtune.settings.mix import TokenSettings

BATCH_RECORDS = 1024
TEMPLATE_DATE = date(2024, 7, 26)
"""What a template that writes today's date is told: the same records give the same tokens on any day."""

# Noncharacters: never in text that came through `sanitize`, and dropped from a record that has them.
_ASIDE_START, _ASIDE_END, _CONTROL_START, _CONTROL_END = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3"
_NONCHARACTERS = re.compile(f"[{_ASIDE_START}-{_CONTROL_END}]")
_CONTROL = re.compile(f"[{_CONTROL_START}{_CONTROL_END}]")
_ASIDE = re.compile(f"{_ASIDE_START}(\\d+){_ASIDE_END}")


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
        self.template = template or tokenizer.chat_template
        if not isinstance(self.template, str):
            raise ModelError(f"{folder}: its tokenizer has no chat template; give chat_template_uri")
        try:
            self._compiled = _compile_jinja_template(self.template)
        except TemplateError as error:
            raise ModelError(f"the chat template is not valid: {error}") from error
        self._variables = {
            **self._compiled.globals,
            **tokenizer.special_tokens_map,
            "strftime_now": TEMPLATE_DATE.strftime,
        }
        self._train_on = frozenset(self.settings.train_on)
        self.control = _control_tokens(tokenizer, _get_template_literal_text(self.template))
        self._control_text = re.compile("|".join(map(re.escape, sorted(self.control, key=len, reverse=True))) or "(?!)")
        self._suspicious = _suspicious(self.control)
        self._tokenizer = tokenizer.backend_tokenizer
        self._renamed: Tokenizer | None = None
        self.encoder = Encoder(self._tokenizer, fast=fast)
        self.probe: Probe = probe_template(self.render, self._control_text)
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
        texts = [self._render_record(record) for record in records]
        plain = ["" if item.aside else item.text for item in texts]
        spans = [[] if item.aside else item.spans for item in texts]
        flat, bounds, masks, exact = self._encode_together(plain, spans)
        for number, (record, item) in enumerate(zip(records, texts, strict=True)):
            part = slice(bounds[number], bounds[number + 1])
            ids, mask, problem = flat[part], masks[part], item.problem
            if not problem and (item.aside or not exact[number]):
                ids, mask, problem = self._encode_alone(item)
            yield Tokenized(record, ids, mask, problem or ("" if mask[1:].any() else "no token to learn"))

    def render(self, messages: list[dict[str, Any]], tools: Any = None, *, prompt: bool = False) -> Rendered:
        """A conversation as the template writes it, with the spans of its generation marks."""
        blocks: list[str] = []
        marks: Spans = []
        values = {"messages": messages, "tools": tools, "documents": None, "add_generation_prompt": prompt}
        environment, write = self._compiled.environment, self._compiled.root_render_func
        context = new_context(environment, None, self._compiled.blocks, {**self._variables, **values}, shared=True)
        with environment.activate_tracker(blocks, marks):
            for block in write(context):
                blocks.append(block)
        return Rendered("".join(blocks), marks)

    def decode(self, ids: np.ndarray) -> str:
        """The text of tokens, control tokens included."""
        return str(self._tokenizer.decode(ids.tolist(), skip_special_tokens=False))

    def _encode_together(
        self, texts: list[str], spans: list[Spans]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[bool]]:
        """Ids one behind the other, each text's bounds in them, masks, and for which texts these are exact."""
        if self._spelled:
            self.encoder.compare(texts[::COMPARED_EVERY])
            flat, bounds = self.encoder.encode(texts)
            return flat, bounds, *self.encoder.masks(flat, bounds, texts, spans)
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        bounds = np.cumsum([0, *(len(encoding.ids) for encoding in encodings)])
        flat = np.array([number for encoding in encodings for number in encoding.ids], np.int32)
        masks = [_mask(encoding.offsets, found) for encoding, found in zip(encodings, spans, strict=True)]
        learned = [flat[a:b][mask == 1].tolist() for (a, b), mask in zip(pairwise(bounds), masks, strict=True)]
        decoded = self._tokenizer.decode_batch(learned, skip_special_tokens=False)
        wanted = ["".join(text[a:b] for a, b in found) for text, found in zip(texts, spans, strict=True)]
        exact = [_comparable(one) == _comparable(other) for one, other in zip(decoded, wanted, strict=True)]
        return flat, bounds, np.concatenate([np.empty(0, np.uint8), *masks]), exact

    def _is_spelled(self) -> bool:
        """Whether tokens spell the texts that the template writes, as they do unless spaces are put before them."""
        if not self.encoder.spells:
            return False
        texts = [self.render([{"role": "user", "content": "a b"}]).text]
        return is_byte_level(self._tokenizer) or self.encoder.masks(*self.encoder.encode(texts), texts, [[]])[1][0]

    def _encode_alone(self, item: _Text) -> tuple[np.ndarray, np.ndarray, str]:
        """One record's tokens and mask; what is wrong if the tokens to learn do not decode to the assistant's text.

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
        wanted = _CONTROL.sub("", "".join(text[start:end] for start, end in spans))
        same = _comparable(self.decode(ids[mask == 1])) == _comparable(wanted)
        return ids, mask, "" if same else "the tokens to learn are not the text to learn"

    def _render_record(self, record: Record) -> _Text:
        messages, tools = template_messages(record["messages"]), template_tools(record.get("tools"))
        aside: list[str] = []
        if self._suspicious.search(orjson.dumps([messages, tools])):
            messages, tools = self._set_aside(messages, aside), self._set_aside(tools, aside)
        try:
            found = find_spans(self.render, messages, tools, self.probe, self._train_on)
        except TemplateError as error:
            return _Text(problem=f"template refuses it: {error}")
        if found.problem:
            return _Text(problem=found.problem)
        if not aside:
            return _Text(found.text, found.spans)
        return _Text(*self._restore(found.text, found.spans, aside), aside=True)

    def _set_aside(self, value: Any, aside: list[str]) -> Any:
        """A value without the text in it that spells control tokens; that text is added to `aside`."""

        def keep(match: re.Match[str]) -> str:
            aside.append(match[0])
            return f"{_ASIDE_START}{len(aside) - 1}{_ASIDE_END}"

        if isinstance(value, str):
            return self._control_text.sub(keep, _NONCHARACTERS.sub("", value))
        if isinstance(value, list):
            return [self._set_aside(item, aside) for item in value]
        if isinstance(value, dict):
            return {self._set_aside(key, aside): self._set_aside(item, aside) for key, item in value.items()}
        return value

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


def _suspicious(control: Iterable[str]) -> re.Pattern[bytes]:
    """What a record's JSON holds if text in it spells a control token, or has a noncharacter of those used here."""
    spelled = [orjson.dumps(text)[1:-1] for text in sorted(control, key=len, reverse=True)]
    return re.compile(b"|".join([b"\\xef\\xb7[\\x90-\\x93]", *map(re.escape, spelled)]))


def _mask(offsets: Sequence[tuple[int, int]], spans: Spans) -> np.ndarray:
    places, mask = np.array(offsets, np.int64).reshape(-1, 2), np.zeros(len(offsets), np.uint8)
    for start, end in spans:
        mask[(places[:, 0] >= start) & (places[:, 1] <= end) & (places[:, 1] > start)] = 1
    return mask


def _comparable(text: str) -> str:
    """Text without the white space that decoders add and take, in composed letters."""
    return "".join(unicodedata.normalize("NFC", text).split())
