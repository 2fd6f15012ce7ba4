"""Settings of a model registry: which one, where, and as whom."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from mixtune.errors import ConfigError

MLFLOW, KUBEFLOW = "mlflow", "kubeflow"


@dataclass(frozen=True, kw_only=True)
class RegistrySettings:
    """The registry that a model which passed goes to."""

    kind: str = MLFLOW
    """`mlflow`: that of `tracking.uri`; or `kubeflow`: Kubeflow's Model Registry."""
    url: str = ""
    """Of Kubeflow's Model Registry, such as `http://model-registry-service.kubeflow:8080`."""
    token_file: str = ""
    """File with a bearer token for it, such as a projected service account token; empty: none is sent."""
    owner: str = ""
    """Whom Kubeflow's registry names as owner and author; empty: nobody."""

    def __post_init__(self) -> None:
        if self.kind not in (MLFLOW, KUBEFLOW):
            raise ConfigError(f"kind is {MLFLOW} or {KUBEFLOW}; got {self.kind!r}")
        if self.kind == KUBEFLOW and urlsplit(self.url).scheme not in ("http", "https"):
            raise ConfigError(f"url: Kubeflow's registry needs its address, http:// or https://; got {self.url!r}")
        if self.kind == MLFLOW and (self.url or self.token_file):
            raise ConfigError("url and token_file are of kind kubeflow; MLflow's address is tracking.uri")
