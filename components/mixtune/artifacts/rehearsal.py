"""A rehearsed pool on disk: conversations of the base model with itself, as JSON lines beside their manifest."""

from dataclasses import dataclass, field
from typing import ClassVar

from mixtune.artifacts.samples import ModelIdentity
from mixtune.artifacts.typed_json import Manifest


@dataclass(frozen=True, kw_only=True)
class RehearsalIdentity(ModelIdentity):
    """Everything that a conversation depends on."""

    prompts: str
    """Digest; empty where the model asks itself."""
    temperature: float
    top_p: float
    max_prompt_tokens: int
    max_new_tokens: int
    seed: int
    texts_per_part: int


@dataclass(frozen=True, kw_only=True)
class Rehearsal(Manifest):
    """The manifest of a rehearsed pool."""

    KIND: ClassVar[str] = "rehearsal"
    VERSION: ClassVar[int] = 1

    base_model: str
    identity: RehearsalIdentity
    num_records: int
    num_drawn: int
    """Conversations that were sampled, dropped ones included."""
    dropped: dict[str, int] = field(default_factory=dict)
    """By reason."""
