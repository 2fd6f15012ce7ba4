"""Settings of a model registry: which one, where, and as whom."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from mixtune.errors import ConfigError

MLFLOW, KUBEFLOW = "mlflow", "kubeflow"
MAX_NAME = 256
"""Characters that registries keep of a name."""


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
        if self.kind == KUBEFLOW and not _is_address(self.url):
            raise ConfigError(f"url: Kubeflow's registry needs its address, http:// or https://; got {self.url!r}")
        if self.kind == MLFLOW and (self.url or self.token_file):
            raise ConfigError("url and token_file are of kind kubeflow; MLflow's address is tracking.uri")

    def check_name(self, name: str) -> None:
        """Check the name of a registered model; else a ConfigError."""
        odd = "/:" if self.kind == MLFLOW else ""
        quotes = self.kind == MLFLOW and "'" in name and '"' in name
        if not name.strip() or len(name) > MAX_NAME or not name.isprintable() or set(odd) & set(name) or quotes:
            rule = ", without / and :, and with one kind of quotes at most" if self.kind == MLFLOW else ""
            raise ConfigError(f"{name!r}: a registered model's name is 1 to {MAX_NAME} characters on one line{rule}")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable() and " " not in url
