"""A model ready to be evaluated: a base model, a base model with its adapter, or a whole tuned model."""

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedConfig

from mixtune import models, storage
from mixtune.artifacts.model import AdapterConfig
from mixtune.artifacts.samples import ModelIdentity
from mixtune.chat.template import ChatTemplate
from mixtune.chat.template_files import DEFAULT, read_template_file, read_templates, templates_digest
from mixtune.errors import ModelError
from mixtune.inference.endpoint_engine import EndpointEngine
from mixtune.inference.engine import Engine, Tokenizer
from mixtune.inference.transformers_engine import TransformersEngine
from mixtune.inference.vllm_engine import VllmEngine, load_vllm, takes_plain
from mixtune.interpolation import interpolate_model, load_pretrained
from mixtune.settings.inference import ENDPOINT, VLLM, EvaluateSettings, InferenceSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_LENGTH_KEYS = ("n_positions", "max_position_embeddings", "n_ctx")
_DEFAULT_LENGTH = 2048
PROBE = "The quick brown fox"


@dataclass(frozen=True, kw_only=True)
class ModelSource(InferenceSettings):
    """Which model, and how it is loaded."""

    base_model: str
    """Folder, `s3://` prefix or `org/name@revision`, possibly with `#digest`."""
    model_uri: str = ""
    """Empty: the base model itself; else an adapter's folder or a whole model's."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1` ...; `auto`: the first GPU there is, else the CPU."""
    chat_template_uri: str = ""
    """File with a chat template in place of the base model's own."""

    @classmethod
    def of(cls, settings: InferenceSettings, base_model: str, model_uri: str = "") -> "ModelSource":
        """Return the source of a model that is loaded by the settings."""
        values = {item.name: getattr(settings, item.name) for item in fields(cls) if hasattr(settings, item.name)}
        if isinstance(settings, EvaluateSettings):
            values["chat_template_uri"] = settings.chat.chat_template_uri
        return cls(base_model=base_model, model_uri=model_uri, **values)

    def resolved(self) -> "ModelSource":
        """Return the same with `auto` replaced by what this machine has; of a served model neither is known."""
        if self.engine == ENDPOINT:
            return replace(self, device=ENDPOINT, dtype=ENDPOINT)
        device, dtype = self.device, self.dtype
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if dtype == "auto":
            dtype = "float32" if device == "cpu" else "bfloat16"
        return replace(self, device=device, dtype=dtype)


@dataclass(frozen=True)
class Fetched:
    """A model's folders on local disk."""

    base: Path
    tuned: Path | None
    """Adapter or whole model; None for the base itself."""

    @property
    def adapter(self) -> Path | None:
        """The adapter's folder; None without one."""
        return self.tuned if self.tuned and models.is_adapter(self.tuned) else None

    @property
    def kind(self) -> str:
        """`base`, `adapter`, `weights` or `quantized`."""
        if not self.tuned:
            return "base"
        if self.adapter:
            return "adapter"
        config = json.loads((self.tuned / "config.json").read_text())
        return "quantized" if models.find_stored_form(config) else "weights"

    @property
    def weights(self) -> Path:
        """The folder that holds the whole weights."""
        return self.base if self.adapter or not self.tuned else self.tuned


def fetch(source: ModelSource) -> Fetched:
    """Bring the model's folders to local disk; of a served model its base, for its tokenizer."""
    base = models.fetch_model(source.base_model)
    if source.engine == ENDPOINT:
        return Fetched(base, None)
    return Fetched(base, models.fetch_model(source.model_uri) if source.model_uri else None)


def at_strength(fetched: Fetched, strength: float, scratch: Path) -> Fetched:
    """Return the model with its tuned part interpolated, in an empty folder; as it was for strength 1 or a base.

    Raises:
        ModelError: An adapter that cannot be scaled.
    """
    if strength == 1 or not fetched.tuned:
        return fetched
    return replace(fetched, tuned=interpolate_model(fetched.tuned, fetched.base, strength, scratch / "model"))


def digest(uri: str, local: str | Path = "") -> str:
    """Return the digest that a URI carries, or else that of the files there, or in a local copy of them."""
    return storage.split_fingerprint(uri)[1] or storage.split_fingerprint(storage.fingerprint(str(local or uri)))[1]


def identify(source: ModelSource, fetched: Fetched) -> ModelIdentity:
    """Return what a model's outputs depend on; the source is resolved."""
    return ModelIdentity(
        base_model=digest(source.base_model, fetched.base),
        tokenizer=models.tokenizer_digest(fetched.base),
        chat_template=templates_digest(_templates(source, fetched)),
        engine=source.engine,
        dtype=source.dtype,
        device=source.device.split(":")[0],
        versions={"torch": torch.__version__, "transformers": transformers.__version__},
    )


def load_engine(source: ModelSource, fetched: Fetched, device: str = "") -> Engine:
    """Load a model onto the source's device, or another, and make sure that its adapter changes its output.

    Raises:
        ModelError: The weights cannot be read, or the adapter changes no logit.
    """
    source = replace(source, device=device or source.device).resolved()
    if source.engine == ENDPOINT:
        config = AutoConfig.from_pretrained(fetched.base, trust_remote_code=False)
        tokenizer = load_tokenizer(source, fetched)
        return EndpointEngine(source.endpoint, tokenizer, max_length=max_length(config, tokenizer))
    return _load_vllm(source, fetched) if source.engine == VLLM else _load_transformers(source, fetched)


def _load_transformers(source: ModelSource, fetched: Fetched) -> TransformersEngine:
    if source.device == "cpu":
        torch.use_deterministic_algorithms(True)
        # nothing here reads such memory, and filling it takes a twentieth of a generated token
        setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 (not in the stubs)
    several_gpus = source.gpus_per_model > 1 and source.device != "cpu"
    # a share of the layers on each GPU that this process sees
    options = {"device_map": "auto"} if several_gpus else {}
    try:
        config = AutoConfig.from_pretrained(fetched.weights, trust_remote_code=False)
        model = load_pretrained(fetched.weights, dtype=DTYPES[source.dtype], **options).eval()
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{fetched.weights}: not a causal language model that transformers loads ({error})") from error
    if not several_gpus:
        model.to(source.device)
    tokenizer = load_tokenizer(source, fetched)
    if fetched.adapter:
        probe = torch.tensor([tokenizer(PROBE)["input_ids"]], device=model.device)
        model = _with_adapter(model, fetched.adapter, probe)
    return TransformersEngine(
        model,
        max_length=max_length(config, tokenizer),
        stop_ids=stop_ids(model.generation_config, tokenizer),
        batch_tokens=16_384 if source.device == "cpu" else 65_536,
    )


def _load_vllm(source: ModelSource, fetched: Fetched) -> VllmEngine:
    config = AutoConfig.from_pretrained(fetched.weights, trust_remote_code=False)
    generation_config = GenerationConfig.from_model_config(config)
    if (fetched.weights / "generation_config.json").is_file():
        generation_config = GenerationConfig.from_pretrained(fetched.weights)
    tokenizer = load_tokenizer(source, fetched)
    weights, adapter = _served_weights(fetched)
    engine = load_vllm(
        weights,
        adapter,
        dtype=source.dtype,
        gpus=source.gpus_per_model,
        max_length=max_length(config, tokenizer),
        stop_ids=stop_ids(generation_config, tokenizer),
    )
    if adapter:
        engine.check_adapter(tokenizer(PROBE)["input_ids"])
    return engine


def _served_weights(fetched: Fetched) -> tuple[Path, Path | None]:
    """Return the weights and the adapter that vLLM is given: where it takes no such adapter, the merged weights.

    Raises:
        ModelError: It takes no such adapter, and nothing was merged.
    """
    reason = AdapterConfig.read(str(fetched.adapter)).refused_by_vllm() if fetched.adapter else ""
    if not reason or not fetched.adapter:
        return fetched.weights, fetched.adapter
    merged = fetched.adapter / models.MERGED
    if not (merged / "config.json").is_file():
        raise ModelError(f"{fetched.adapter}: {takes_plain(reason)}")
    print(f"vLLM takes plain LoRA, and {reason}: its merged weights are asked", flush=True)
    return merged, None


def load_tokenizer(source: ModelSource, fetched: Fetched) -> Tokenizer:
    """Return the tokenizer, always the base model's, so that both evaluations read the same prompts.

    Its chat template is the source's, or else the base's own.

    Raises:
        ModelError: The tuned model comes with another chat template than its base model.
    """
    tokenizer = cast(Tokenizer, AutoTokenizer.from_pretrained(fetched.base, trust_remote_code=False))
    if source.chat_template_uri:
        tokenizer.chat_template = read_template_file(source.chat_template_uri)
    if fetched.tuned and (fetched.tuned / "tokenizer_config.json").is_file():
        ours = templates_digest(_templates(source, fetched))
        theirs = templates_digest(read_templates(fetched.tuned))
        if theirs not in ("", ours, templates_digest(read_templates(fetched.base))):
            raise ModelError(
                f"{fetched.tuned}: its chat template ({theirs}) is not the base model's ({ours or 'none'}); both are "
                "evaluated with one: put the same template into both folders, or name it: chat.chat_template_uri"
            )
    return tokenizer


def _templates(source: ModelSource, fetched: Fetched) -> dict[str, str]:
    """Return the chat templates that a model is asked by."""
    text = read_template_file(source.chat_template_uri)
    return {DEFAULT: text} if text else read_templates(fetched.base)


def max_length(config: PreTrainedConfig, tokenizer: Tokenizer) -> int:
    """Return the longest sequence in tokens, determined as lm-eval does."""
    lengths = [getattr(config.get_text_config(), key, None) for key in _LENGTH_KEYS]
    length = next(filter(None, lengths), getattr(tokenizer, "model_max_length", 0) or 0)
    return int(length) if 0 < length < 10**9 else _DEFAULT_LENGTH


def stop_ids(config: GenerationConfig | PreTrainedConfig, tokenizer: Tokenizer) -> frozenset[int]:
    """Return the tokens that end an answer: those of the model's files, and what its chat template writes after one."""
    configured = config.eos_token_id
    ids = {*([configured] if isinstance(configured, int) else configured or []), tokenizer.eos_token_id}
    if tokenizer.chat_template:
        template = ChatTemplate.of(tokenizer)
        ids |= {template.control_tokens.get(end) for end in template.habits().ends}
    return frozenset(token for token in ids if token is not None)


def _with_adapter(model: "PreTrainedModel", folder: Path, probe: torch.Tensor) -> Any:
    """Return the model with its adapter, merged where float32 makes that exact enough."""
    from peft import PeftModel

    with torch.inference_mode():
        plain = model(probe).logits
        try:
            tuned = PeftModel.from_pretrained(model, str(folder))
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ModelError(f"{folder}: the adapter does not fit this base model ({error})") from error
        tuned.eval()
        if torch.equal(plain, tuned(probe).logits):
            reason = "it was not trained, or is not for this base model"
            raise ModelError(f"{folder}: the adapter changes no logit of {PROBE!r}; {reason}")
        return tuned.merge_and_unload() if model.dtype == torch.float32 else tuned
