"""What a training reads and where it writes."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Places:
    """What a training reads and where it writes."""

    shards_path: str
    """Manifest of the shards."""
    base_model: str
    model_path: str
    """Where the model's manifest goes."""
    model_uri: str
    """The artifact's URI: weights and checkpoints lie beside it."""
    shards_uri: str = ""
    """URI of the shards' manifest, which a job's pods read."""
    tracking: dict[str, Any] = field(default_factory=dict)
