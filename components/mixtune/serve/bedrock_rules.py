"""The rules of Amazon Bedrock's Custom Model Import, from `bedrock.toml`, with their source and date."""

import datetime
import tomllib
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("bedrock.toml")


@dataclass(frozen=True, kw_only=True)
class Tokenizers:
    """Classes of tokenizers that an import takes."""

    names: list[str]
    sentencepiece: list[str]
    """Of these, which read `tokenizer.model`."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What an import takes."""

    source: str
    date: datetime.date
    stale_after_days: int
    transformers: str
    """The version that reads the model."""
    largest_text_gb: float
    """Weights, 10^9 bytes, exclusive; of a text model."""
    largest_multimodal_gb: float
    longest_positions: int
    """Tokens of context."""
    architectures: dict[str, str]
    """`text` or `multimodal`, by class."""
    notes: dict[str, str]
    """By class."""
    tokenizers: Tokenizers
    llama3_rope: dict[str, float]
    """Scaling of rotary embeddings that every Llama 3 model is given."""

    def age_warning(self, today: datetime.date) -> str:
        """Return a warning where the rules are older than they may be; else an empty text."""
        age = (today - self.date).days
        if age <= self.stale_after_days:
            return ""
        return f"these rules are {age} days old; look at {self.source}"


def read_rules() -> Rules:
    """Read the package's table."""
    table = tomllib.loads(TABLE.read_text())
    return Rules(**{**table, "tokenizers": Tokenizers(**table["tokenizers"])})
