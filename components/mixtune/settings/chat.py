"""Settings of conversations: by which chat template they are rendered, with or without thoughts, what may be lost."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mixtune.errors import ConfigError

THINKING = ("record", "on", "off")
LOSABLE = ("system", "reasoning", "tool_calls", "tool_results", "tools")
"""Parts of a record that some chat templates have no place for."""
ON_LOST = ("refuse", "drop_field", "keep")


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """How conversations become text, alike in proof, training and evaluation."""

    chat_template_uri: str = ""
    """File with a Jinja chat template; empty: the model's own."""
    thinking: str = "record"
    """How a hybrid model is asked: "record": with thoughts where the answer has one, without where it has none; "on":
    always with (an answer without is learned behind an empty thought); "off": never, and thoughts are left out."""
    on_lost: Mapping[str, str] = field(default_factory=dict)
    """What becomes of a record with a part that the chat template leaves out ("system", "reasoning", "tool_calls",
    "tool_results", "tools"): "refuse" the record, the default; "drop_field": take the part off it before rendering;
    "keep": render it as the template does."""
    max_refused_ratio: float = 0.05
    """Share of a pool's records that may be refused for its chat template, 0 to 1; above it the run stops."""

    def __post_init__(self) -> None:
        if self.thinking not in THINKING:
            raise ConfigError(f"thinking is {self.thinking!r}; it is one of {', '.join(THINKING)}")
        if not 0 <= self.max_refused_ratio <= 1:
            raise ConfigError(f"max_refused_ratio is a share, 0 to 1; got {self.max_refused_ratio}")
        for kind, policy in self.on_lost.items():
            if kind not in LOSABLE:
                raise ConfigError(f"on_lost: there is no part {kind!r}; there are {', '.join(LOSABLE)}")
            if policy not in ON_LOST:
                raise ConfigError(f"on_lost: {kind} is {policy!r}; it is one of {', '.join(ON_LOST)}")
