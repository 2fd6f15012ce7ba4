"""Settings of a served model: the kind of object, the machine, and who may call."""

import re
from dataclasses import dataclass

from mixtune.errors import ConfigError

LLM, INFERENCE, DEPLOYMENT = "llm", "inference", "deployment"
FORMS = (LLM, INFERENCE, DEPLOYMENT)
SUFFIXES = {LLM: "-kserve-workload-svc", INFERENCE: "-predictor", DEPLOYMENT: ""}
"""What the service's name has after the model's, by form; KServe shortens a longer name to another one."""
MAX_LABEL = 63
_IMAGE = re.compile(r"[\w.-]+(:\d+)?(/[\w.-]+)*/?(:[\w.-]+)?(@sha256:[0-9a-f]{64})?")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """How a model is served by vLLM."""

    form: str = LLM
    """`llm`: KServe's LLMInferenceService; `inference`: its InferenceService; `deployment`: vLLM without KServe."""
    namespace: str = "mixtune"
    instance: str = ""
    """Instance type of the price table; empty: the cheapest on which the model fits."""
    max_length: int = 8192
    """Tokens of a request and its answer together, 1 or more; the model's own limit is not exceeded."""
    num_sequences: int = 8
    """Requests of that length whose keys and values fit on the GPUs at once, 1 or more."""
    replicas: int = 1
    """1 or more."""
    merged: bool = False
    """Serve base and adapter as one model: the folder `merged` that a training with `lora_options.merge` left."""
    base_uri: str = ""
    """Where the cluster finds the base model, such as `s3://...`; empty: where it was trained from."""
    tuned_uri: str = ""
    """Where the cluster finds the tuned model; empty: where the training left it."""
    gateway: bool = True
    """KServe: a route through the cluster's gateway; else the service is the cluster's own."""
    clients: tuple[str, ...] = ()
    """Further namespaces whose pods may call, such as the gateway's; those of the own namespace may."""
    service_account: str = "mixtune-server"
    image: str = ""
    """With vLLM; empty: KServe's own for `llm`, else that of `vllm_pod.IMAGE`. Pin it by digest."""
    registry: str = ""
    """Before the name of mixtune's image, which fetches the weights of a `deployment`."""

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ConfigError(f"form is one of {', '.join(FORMS)}; got {self.form!r}")
        for name in ("max_length", "num_sequences", "replicas"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is 1 or more; got {getattr(self, name)}")
        for text in (self.namespace, self.service_account, *self.clients):
            check_label(text)
        for text in (self.image, self.registry):
            if text and not _IMAGE.fullmatch(text):
                raise ConfigError(f"{text!r}: an image or registry is named as in r.example/team, without https://")

    def check_name(self, name: str) -> None:
        """Check a model's name, of which the object, its service and its address are made; else a ConfigError."""
        limit = MAX_LABEL - len(SUFFIXES[self.form])
        if not _LABEL.fullmatch(name) or not name[0].isalpha() or len(name) > limit:
            raise ConfigError(
                f"{name!r}: a served model's name is small letters, digits and -, from a letter to a letter or digit; "
                f"{limit} characters at most for form={self.form}, such as desk-v2"
            )


def check_label(name: str) -> None:
    """Check a name that Kubernetes has to take, of a namespace, a service account; else a ConfigError."""
    if not _LABEL.fullmatch(name):
        raise ConfigError(
            f"{name!r}: Kubernetes takes small letters, digits and -, {MAX_LABEL} at most, such as team-a"
        )
