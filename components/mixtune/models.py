"""A base model or a tuned one, brought to local disk: a folder, an `s3://` prefix, or `org/name@revision`.

Only safetensors weights and JSON or text files are taken; code and pickles never are. A digest after `#` (see
`storage.fingerprint`) is checked first.
"""

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

import yaml

from mixtune import storage
from mixtune.errors import ModelError
from mixtune.settings.foreign import JsonObject

PROCESSOR_FILES = ["preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"]
"""What turns images, sounds and films into the inputs of a model's other towers; servers do not start without."""
_TOKENIZER_FILES = """
tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json chat_template.jinja
additional_chat_templates/*.jinja tokenizer.model vocab.json merges.txt config.json generation_config.json
README.md LICEN[CS]E*
"""
TOKENIZER_FILES = [*_TOKENIZER_FILES.split(), *PROCESSOR_FILES]
"""And what says a model's licence."""
_LICENCE_TEXTS = {
    r"Apache License\s+Version 2\.0": "Apache-2.0",
    r"MIT License|Permission is hereby granted, free of charge": "MIT",
    r"Redistribution and use in source and binary forms[\s\S]*Neither the name": "BSD-3-Clause",
}
"""Short names of licences, by what their texts say; of others the text's first line is the name."""
WIDENED = ("fp8", "mxfp4")
"""Forms of weights of fewer bits, by `quant_method`, that are loaded as bfloat16 and then trained like any."""
MODELOPT_FILE = "hf_quant_config.json"
"""Where ModelOpt says that weights are of fewer bits; often config.json does not."""
SCALE = re.compile(r"(scale|scales|scale_inv|scale_2|qzeros|g_idx|weight_shape|absmax|quant_map|SCB|quant_state\.\w+)$")
"""Names of what is stored beside weights of fewer bits, and is none of the model's own."""
NEVER_FETCHED = ["*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "*.py"]
"""Code, and weights in other forms: nothing here loads them."""
MAX_HEADER = 100 * 2**20
"""Bytes of a safetensors header, by its own library."""
MERGED = "merged"
"""Folder of the merged model, within the adapter's."""
_HUB_NAME = re.compile(r"^[\w.-]+/[\w.-]+@[\w./-]+$")


def cache_dir() -> Path:
    """Return the node's folder for fetched models: `MIXTUNE_CACHE_DIR`, else one under the temporary folder."""
    return Path(os.environ.get("MIXTUNE_CACHE_DIR") or Path(tempfile.gettempdir()) / "mixtune-cache")


def fetch_model(name: str, *, weights: bool = True, share: storage.Share = storage.ALONE) -> Path:
    """Bring a model to local disk, once per node, and return its folder.

    Args:
        name: A folder, an `s3://` prefix, or `org/name@revision`, with or without `#digest`.
        weights: Without, only configuration and tokenizer come; from S3 also the headers of the weights' files, each
            in a file of its whole size that has a hole in place of values.
        share: Processes of a node that fetch it from S3 together.

    Raises:
        ModelError: There is no model under that name, or a hub name without its revision.
        DataError: Its files changed since they were fingerprinted, or its configuration is not JSON.
    """
    plain = storage.check_fingerprint(name)
    if storage.is_s3(plain):
        key = hashlib.sha256(name.encode()).hexdigest()[:16]
        folder = cache_dir() / "models" / (key if weights else f"{key}-headers")
        storage.fetch(plain, folder, share, NEVER_FETCHED if weights else [*NEVER_FETCHED, "*.safetensors"])
    elif Path(plain).is_dir():
        folder = Path(plain)
    elif _HUB_NAME.match(plain):
        folder = _fetch_from_hub(plain, weights)
    else:
        if Path(plain).is_file():
            raise ModelError(f"base_model {plain!r}: a file; give the folder that it lies in")
        way = "give a folder, an s3:// prefix, or org/name@revision"
        raise ModelError(f"base_model {plain!r}: no such folder, and not a hub name with its revision; {way}")
    configs = [folder / item for item in ("config.json", "adapter_config.json") if (folder / item).is_file()]
    if not configs:
        raise ModelError(f"{plain}: neither config.json nor adapter_config.json in it; this is no Hugging Face model")
    if not isinstance(storage.read_json(str(configs[0])), dict):
        raise ModelError(f"{plain}: its {configs[0].name} is no JSON object; save the model again")
    if storage.is_s3(plain) and not weights:
        _fetch_headers(plain, folder)
    return folder


def _fetch_headers(uri: str, folder: Path) -> None:
    """Bring the headers of a model's weights from S3, as files of their size that take no room for values."""

    def fetch_header(entry: storage.FileEntry) -> None:
        target = folder / entry.path
        if target.exists() and target.stat().st_size == entry.num_bytes:
            return
        with storage.open_read(storage.join(uri, entry.path)) as stream:
            length = stream.read(8)
            header = stream.read(min(int.from_bytes(length, "little"), MAX_HEADER))
        with storage.open_write(str(target)) as writer:
            writer.write(length + header)
        os.truncate(target, entry.num_bytes)

    files = [entry for entry in storage.list_files(uri) if entry.path.endswith(".safetensors")]
    storage.in_threads(fetch_header, files)


def find_stored_form(config: JsonObject) -> JsonObject:
    """Return what a configuration says of weights of fewer bits, of the whole or of its decoder; empty: nothing."""
    text = config.get("text_config") or {}
    form: JsonObject = config.get("quantization_config") or text.get("quantization_config") or {}
    return form


def copy_files(base: Path, folder: Path, patterns: list[str]) -> None:
    """Copy those of a base model's files that match to the same places under another folder."""
    for source in (path for pattern in patterns for path in base.glob(pattern)):
        target = folder / source.relative_to(base)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def is_hub_name(name: str) -> bool:
    """Return whether a model is named as on the hub, by `org/name@revision`."""
    return bool(_HUB_NAME.match(name)) and not storage.is_s3(name) and not Path(name).exists()


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds a PEFT adapter rather than whole weights."""
    return (folder / "adapter_config.json").is_file()


def tokenizer_digest(folder: Path) -> str:
    """Return the digest of a model folder's tokenizer and chat template: `tokenizer_version`, 16 hex digits."""
    total = hashlib.sha256()
    named = sorted(path.relative_to(folder).as_posix() for path in folder.glob("additional_chat_templates/*.jinja"))
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja", *named):
        if (folder / name).is_file():
            total.update(f"{name}\0{storage.sha256_file(str(folder / name))}\n".encode())
    return total.hexdigest()[:16]


def read_licence(folder: Path) -> str:
    """Return a model's licence by its card's metadata, its configuration, or the text beside it; empty: not stated."""
    card = folder / "README.md"
    metadata = _front_matter(card.read_text(errors="replace")) if card.is_file() else {}
    config = folder / "config.json"
    named = metadata.get("license") or (storage.read_json(str(config)).get("license") if config.is_file() else "")
    if str(named).lower() in ("other", "unknown"):
        named = metadata.get("license_name")
    if named:
        return ", ".join(map(str, named)) if isinstance(named, list) else str(named)
    texts = [path.read_text(errors="replace") for path in sorted(folder.glob("LICEN[CS]E*")) if path.is_file()]
    return next(filter(None, map(_name_of_licence, texts)), "")


def _front_matter(text: str) -> dict[str, object]:
    """Return the metadata at a card's head, as model hubs write it; empty where it has none."""
    match = re.match(r"\s*---\n(.*?)\n---", text.replace("\r\n", "\n"), re.DOTALL)
    try:
        values = yaml.safe_load(match[1]) if match else {}
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}


def _name_of_licence(text: str) -> str:
    names = (name for pattern, name in _LICENCE_TEXTS.items() if re.search(pattern, text))
    first = next((line.strip(" #*=-\t") for line in text.splitlines() if re.search("[A-Za-z]", line)), "")
    return next(names, first[:100])


def _fetch_from_hub(name: str, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, revision = name.split("@", 1)
    patterns = [*TOKENIZER_FILES, MODELOPT_FILE, *(["*.safetensors", "*.safetensors.index.json"] if weights else [])]
    try:
        snapshot = snapshot_download(
            repository, revision=revision, allow_patterns=patterns, ignore_patterns=NEVER_FETCHED
        )
        return Path(snapshot)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(f"{name}: the hub did not give it ({error}); put it under a folder or s3:// prefix") from error
