"""What users set of models that are evaluated: how they are loaded, and how a customer's records are scored."""

import re
from dataclasses import dataclass, field, replace

from mixtune.errors import ConfigError
from mixtune.settings.chat import ChatSettings

ENGINES = TRANSFORMERS, VLLM, ENDPOINT = ("transformers", "vllm", "endpoint")
DTYPES = ("auto", "float32", "bfloat16", "float16")
AS_TRAINED, AS_TEMPLATE, THOUGHTS_ON, THOUGHTS_OFF, THOUGHTS_BOTH = THINKING = (
    "trained", "template", "on", "off", "both",
)  # fmt: skip
AUTO, LOGPROBS, GENERATION = METHODS = ("auto", "logprobs", "generation")


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """A served model, behind an OpenAI-compatible URL."""

    url: str = ""
    """Base URL, such as `https://models.example/v1`."""
    model: str = ""
    """What the model is called there."""
    key_path: str = ""
    """File with the server's key, as a mounted secret has it; empty: no key."""
    concurrency: int = 16
    """Requests that are under way at once."""

    def __post_init__(self) -> None:
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"url {self.url!r} is no http:// or https:// URL")
        if self.url and not self.model:
            raise ConfigError("model is missing: what the model is called at the URL")
        if self.concurrency < 1:
            raise ConfigError(f"concurrency is 1 or more, got {self.concurrency}")


@dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """How a model is loaded."""

    dtype: str = "auto"
    """`float32`, `bfloat16` or `float16`; `auto`: bfloat16 on a GPU, float32 on a CPU."""
    engine: str = "transformers"
    """`transformers`, on any device; `vllm`, on GPUs of an image that has it; `endpoint`, a served model."""
    endpoint: EndpointSettings = EndpointSettings()
    """Where the served model is; only for that engine, which needs it."""
    gpus_per_model: int = 1
    """GPUs that share one model: tensor parallel in vLLM, layers spread over them in transformers."""

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ConfigError(f"engine {self.engine!r}: there are {', '.join(ENGINES)}")
        if (self.engine == ENDPOINT) != bool(self.endpoint.url):
            raise ConfigError("engine endpoint needs endpoint with url and model, and no other engine takes it")
        if self.gpus_per_model < 1:
            raise ConfigError(f"gpus_per_model is 1 or more, got {self.gpus_per_model}")
        if self.dtype not in DTYPES and self.engine != ENDPOINT:
            raise ConfigError(f"dtype {self.dtype!r}: there are {', '.join(DTYPES)}")


@dataclass(frozen=True, kw_only=True)
class CustomerOptions:
    """How the customer's held-out records are scored."""

    method: str = AUTO
    """Labels by `logprobs` of their answers or from a `generation`; `auto`: by log-probabilities where every label
    has one answer text, else from a generation. Records without labels are always generated."""
    max_new_tokens: int = 256
    """Tokens of a generated answer at most."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Further names of labels that a generated answer may use."""
    separator: str = ""
    """What joins several labels in a record's label and in its answer; empty: one label each."""
    pattern: str = ""
    """Regular expression that a good generated answer matches from end to end; empty: not measured."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"method {self.method!r}; there are {', '.join(METHODS)}")
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is 1 or more, got {self.max_new_tokens}")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(f"pattern {self.pattern!r} is no regular expression ({error})") from error


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(InferenceSettings):
    """The `options` of `evaluate`."""

    limit: int = 0
    """Items of an axis at most, taken evenly from its strata; 0: all."""
    axis_limits: dict[str, int] = field(default_factory=dict)
    """The same for single axes, over `limit`."""
    thinking: str = AS_TRAINED
    """Whether answers come after a thought: as `trained` by `chat.thinking` (at "record", records as they are, and
    benchmarks with thoughts if most held-out general records have one); `on`, `off`, by the chat template's switch; or
    benchmarks as the `template` has it; `both`: off, and generated benchmarks once more with thoughts, as own axes."""
    chat: ChatSettings = field(default_factory=ChatSettings)
    """How conversations are rendered; a pipeline takes it from `mix_options`, or from what the model was trained by."""
    customer_options: CustomerOptions = CustomerOptions()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.thinking not in THINKING:
            raise ConfigError(f"thinking is one of {', '.join(THINKING)}, got {self.thinking!r}")
        for limit in (self.limit, *self.axis_limits.values()):
            if limit < 0:
                raise ConfigError(f"limit is 0 (all items) or more, got {limit}")

    @property
    def records_chat(self) -> ChatSettings:
        """How records are asked."""
        if self.thinking in (AS_TRAINED, AS_TEMPLATE):
            return self.chat
        return replace(self.chat, thinking=THOUGHTS_ON if self.thinking == THOUGHTS_ON else THOUGHTS_OFF)

    def limit_of(self, axis: str) -> int:
        """Return the number of an axis's items at most; 0: all."""
        return self.axis_limits.get(axis, self.limit)

    @property
    def largest_limit(self) -> int:
        """The largest number of items to which some axis is limited; 0: all axes are whole."""
        return max([self.limit, *self.axis_limits.values()])
