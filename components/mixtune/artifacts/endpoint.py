"""The record of a served model: what is behind an endpoint, and what was proved of it."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class ServedEndpoint:
    """One model as it was made ready to be served."""

    KIND: ClassVar[str] = "served endpoint"
    VERSION: ClassVar[int] = 1

    name: str
    """As requests name the model."""
    url: str
    """Of the OpenAI-compatible API, within the cluster."""
    model_uri: str
    """With its digest."""
    base_model: str
    verdict: str
    """Of the comparison; empty: none was given."""
    form: str
    """`llm`, `inference` or `deployment`."""
    instance: str
    gpus: int
    """Of one replica."""
    replicas: int
    usd_per_hour: float
    """Of all replicas' GPUs, as their share of the instances."""
    objects_digest: str
    """SHA-256 of the YAML that was written."""
