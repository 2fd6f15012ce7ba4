"""Whether Amazon Bedrock's Custom Model Import would take a model, before anybody uploads it; and how to make it fit.

Bedrock reads a model with transformers 4.51.3. What a later version wrote into `config.json` under other names, that
one passes over without a word: it would take its own default for the base of the rotary embeddings.
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, field

from mixtune import storage
from mixtune.errors import ModelError
from mixtune.serve.bedrock_rules import Rules, read_rules
from mixtune.serve.model_config import VALUE_BYTES, ModelConfig, read_config
from mixtune.settings.foreign import read_known

PASS, WARN, FAIL = "pass", "warn", "fail"
NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json")
TEMPLATES = ("chat_template.jinja", "chat_template.json")
UNPICKLED = (".bin", ".pt", ".pth", ".ckpt")
_READABLE = "mixtune bedrock MODEL --out FOLDER writes both files so that it reads them"

Finding = tuple[str, str]
"""`pass`, `warn` or `fail`, and why, with the way out."""


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary embeddings are stretched; later versions of transformers keep the base here, too."""

    rope_type: str = ""
    rope_theta: float = 0.0
    factor: float = 0.0
    low_freq_factor: float = 0.0
    high_freq_factor: float = 0.0
    original_max_position_embeddings: int = 0


OLD_ROPE = RopeScaling(rope_type="default", rope_theta=10_000.0)
"""What 4.51 takes where it reads nothing."""


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """What of `config.json` two versions of transformers name otherwise."""

    rope_theta: float = 0.0
    rope_scaling: RopeScaling | None = None
    rope_parameters: RopeScaling | None = None
    """The name of version 5; 4.51 does not know it."""


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """What of `tokenizer_config.json` an import looks at."""

    tokenizer_class: str = ""
    chat_template: str | list[dict[str, str]] = ""


@dataclass(frozen=True, kw_only=True)
class ImportedModel:
    """A model's folder as an import sees it."""

    folder: str
    files: dict[str, int]
    """Bytes by name, of the folder's own files."""
    config: ModelConfig
    rope: RopeConfig
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)

    @property
    def weight_bytes(self) -> int:
        """Of the safetensors files."""
        return sum(size for name, size in self.files.items() if name.endswith(".safetensors"))


def check_import(folder: str, older: str = "") -> list[tuple[str, str, str]]:
    """Return what every check of a whole model came to: its name, `pass`, `warn` or `fail`, and why.

    `older` is a folder with the two files of `write_older_files`, which are to take the place of the model's own.

    Raises:
        ModelError: It is an adapter, or no model.
    """
    rules, model = read_rules(), read_imported(storage.check_fingerprint(folder), older)
    outcomes = []
    for name, check in CHECKS.items():
        findings = list(check(model, rules)) or [(PASS, "as it has to be")]
        worst = max((outcome for outcome, _ in findings), key=(PASS, WARN, FAIL).index)
        outcomes.append((name, worst, "; ".join(text for outcome, text in findings if outcome == worst)))
    if old := rules.age_warning(datetime.date.today()):
        outcomes.append(("rules", WARN, old))
    return outcomes


def read_imported(folder: str, older: str = "") -> ImportedModel:
    """Look at a model's folder, and in `older` first for the two files that may lie there.

    Raises:
        ModelError: It is an adapter, or no model.
    """
    if storage.file_exists(storage.join(folder, "adapter_config.json")):
        raise ModelError(
            f"{folder}: an adapter; an import takes whole weights; `mixtune merge RUN_ID --out FOLDER` writes them, "
            "and so does a training with lora_options.merge"
        )
    config, path = read_config(older or folder), storage.join(older or folder, "config.json")
    values = storage.read_json(path)
    words = storage.join(older or folder, "tokenizer_config.json")
    tokenizer = storage.read_json(words) if storage.file_exists(words) else {}
    return ImportedModel(
        folder=folder,
        files={entry.path: entry.num_bytes for entry in storage.list_files(folder) if "/" not in entry.path},
        config=config,
        rope=read_known(RopeConfig, {**values, **(values.get("text_config") or {})}, path),
        tokenizer=read_known(TokenizerConfig, tokenizer, words),
    )


def _architecture(model: ImportedModel, rules: Rules) -> Iterator[Finding]:
    name = model.config.architecture
    if name not in rules.architectures:
        yield FAIL, f"{name or 'none is named'}: taken are {', '.join(rules.architectures)}; serve it with KServe"
    elif note := rules.notes.get(name):
        yield WARN, f"{name}: {note}"
    else:
        yield PASS, name


def _number_format(model: ImportedModel, rules: Rules) -> Iterator[Finding]:
    packed = model.config.quantization_config
    if packed and model.config.architecture != "GptOssForCausalLM":
        yield WARN, f"packed by {packed.quant_method}: the pages name GPT-OSS alone as packed; merge in bfloat16"
    if model.config.number_format not in VALUE_BYTES:
        yield FAIL, f"dtype {model.config.number_format or 'missing'}: float32, float16 or bfloat16"
    elif model.config.number_format == "float32":
        yield WARN, "float32 counts double against the size limit; merge in bfloat16"


def _size(model: ImportedModel, rules: Rules) -> Iterator[Finding]:
    multimodal = rules.architectures.get(model.config.architecture) == "multimodal"
    limit = rules.largest_multimodal_gb if multimodal else rules.largest_text_gb
    size = model.weight_bytes / 1e9
    yield (PASS if size < limit else FAIL), f"{size:.1f} GB of weights, less than {limit:g} GB are taken"


def _files(model: ImportedModel, rules: Rules) -> Iterator[Finding]:
    if not model.weight_bytes:
        yield FAIL, "no .safetensors file with weights"
    for name in NEEDED:
        if name not in model.files:
            yield FAIL, f"{name} is missing; copy it from the base model"
    if "tokenizer.model" not in model.files and model.tokenizer.tokenizer_class in rules.tokenizers.sentencepiece:
        yield WARN, f"tokenizer.model is missing, which {model.tokenizer.tokenizer_class} reads; copy it from the base"
    for name in model.files:
        if name.endswith(UNPICKLED):
            yield WARN, f"{name} is no safetensors file; leave it out of what you upload"


def _context(model: ImportedModel, rules: Rules) -> Iterator[Finding]:
    positions = model.config.text.max_position_embeddings
    if positions > rules.longest_positions:
        yield FAIL, f"max_position_embeddings {positions:,}: less than 128K; lower it to what you use"
    elif positions == rules.longest_positions:
        yield WARN, f"max_position_embeddings {positions:,} is 128K, and 'less than' is asked; Llama 3.1 has the same"


def _configuration(model: ImportedModel, rules: Rules) -> Iterator[Finding]:
    rope, scaling = model.rope, model.rope.rope_scaling or model.rope.rope_parameters
    if rope.rope_parameters and not rope.rope_theta and rope.rope_parameters != OLD_ROPE:
        yield (
            FAIL,
            f"rope_parameters are not read by transformers {rules.transformers}, which would take rope_theta 10000 in "
            f"place of {rope.rope_parameters.rope_theta:g}; {_READABLE}",
        )
    if not model.config.torch_dtype:
        yield WARN, f"torch_dtype is missing: `dtype` is not read by transformers {rules.transformers}; {_READABLE}"
    if model.config.model_type == "llama" and scaling and scaling.rope_type == "llama3":
        own = {name: getattr(scaling, name) for name in rules.llama3_rope}
        if own != rules.llama3_rope:
            other = ", ".join(f"{name} {own[name]:g}" for name in own if own[name] != rules.llama3_rope[name])
            yield WARN, f"Bedrock replaces rope_scaling by Llama 3.1's; this model has {other}: compare its answers"


def _tokenizer(model: ImportedModel, rules: Rules) -> Iterator[Finding]:
    name = model.tokenizer.tokenizer_class
    if name not in rules.tokenizers.names:
        yield FAIL, f"tokenizer_class {name or 'missing'} is not taken; {_READABLE}"


def _chat_template(model: ImportedModel, rules: Rules) -> Iterator[Finding]:
    sources = [name for name in TEMPLATES if name in model.files]
    sources += ["tokenizer_config.json"] if model.tokenizer.chat_template else []
    if not sources:
        yield WARN, "none: messages are not taken, only whole prompts; copy the base model's chat_template.jinja"
    if len(sources) > 1:
        yield WARN, f"in {' and '.join(sources)}: Bedrock takes the file, and asks for one alone"


CHECKS = {
    "architecture": _architecture,
    "number format": _number_format,
    "size": _size,
    "files": _files,
    "context": _context,
    "configuration": _configuration,
    "tokenizer": _tokenizer,
    "chat template": _chat_template,
}
