"""The proof: a record, rendered by the base model's chat template and tokenized, holds the template's control ids only.

Text of the record that spells a control token is set aside before rendering. Whatever stands between the control
tokens that the template wrote is then encoded as ordinary text; if a control id comes out all the same, no tokenizer
setting can keep this text apart, and the record is refused. So is one that the template will not render.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from mixtune import storage
from mixtune.chat.template import ChatTemplate, TemplateRefusal
from mixtune.records import Record


@dataclass(frozen=True)
class Proof:
    """The outcome for one record."""

    problem: str = ""
    """Why the record is refused; empty: it is proved."""
    num_tokens: int = 0
    num_control: int = 0
    """Control ids in it: those that the template put there."""


class Prover:
    """The tokenizer and chat template of a model folder, for the proof alone."""

    def __init__(self, folder: str) -> None:
        """Load them.

        Raises:
            ModelError: There is no `tokenizer.json`, or no chat template.
        """
        self.template = ChatTemplate.load(Path(folder))
        value = storage.read_json(str(Path(folder) / "tokenizer.json"))
        for token in value.get("added_tokens") or []:
            token["special"] = token["content"] in self.template.control_tokens
        value["post_processor"] = value["truncation"] = value["padding"] = None
        self._tokenizer = Tokenizer.from_str(json.dumps(value))
        self._tokenizer.encode_special_tokens = True
        self._control_ids = set(self.template.control_tokens.values())

    def prove(self, record: Record) -> Proof:
        """Render and tokenize a record, and look for control ids in its own text."""
        template = self.template
        conversation = template.conversation(record["messages"], record.get("tools"))
        try:
            rendered = template.render(conversation.messages, conversation.tools).text
        except TemplateRefusal as error:
            return Proof(problem=f"the chat template refuses it: {error}")
        written = len(template.control_pattern.findall(rendered))
        pieces = [template.put_back(piece, conversation.aside) for piece in template.control_pattern.split(rendered)]
        encodings = self._tokenizer.encode_batch_fast([piece for piece in pieces if piece], add_special_tokens=False)
        if any(not self._control_ids.isdisjoint(encoding.ids) for encoding in encodings):
            return Proof(problem="cannot be told from a control token")
        return Proof(num_tokens=written + sum(len(encoding.ids) for encoding in encodings), num_control=written)
