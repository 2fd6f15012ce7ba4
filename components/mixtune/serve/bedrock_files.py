"""A model's `config.json` and `tokenizer_config.json` in the words of the transformers that Bedrock reads them with."""

from mixtune import storage
from mixtune.serve.bedrock_rules import read_rules

GENERIC_TOKENIZER = "PreTrainedTokenizerFast"
"""Reads any `tokenizer.json`; a class that later versions write in its place is `TokenizersBackend`."""

Content = dict[str, object]


def write_older_files(folder: str, out: str) -> list[str]:
    """Write both files of a model so that transformers 4.51 reads them as they are meant; return their names."""
    names = {"config.json": older_config, "tokenizer_config.json": older_tokenizer}
    written = []
    for name, rewrite in names.items():
        source = storage.join(folder, name)
        if storage.file_exists(source):
            storage.write_json(storage.join(out, name), rewrite(dict(storage.read_json(source))))
            written.append(name)
    return written


def older_config(config: Content) -> Content:
    """Return a `config.json` of transformers 5 in the words of 4.51: `torch_dtype`, `rope_theta`, `rope_scaling`."""
    out = dict(config)
    if isinstance(text := out.get("text_config"), dict):
        out["text_config"] = older_config(text)
    if "dtype" in out and "torch_dtype" not in out:
        out["torch_dtype"] = out.pop("dtype")
    rope = out.pop("rope_parameters", None)
    if isinstance(rope, dict):
        scaling = dict(rope)
        if theta := scaling.pop("rope_theta", None):
            out.setdefault("rope_theta", theta)
        if scaling.get("rope_type", "default") != "default":
            out.setdefault("rope_scaling", scaling)
    out["transformers_version"] = read_rules().transformers
    return out


def older_tokenizer(config: Content) -> Content:
    """Return a `tokenizer_config.json` whose class Bedrock takes; the tokens are those of `tokenizer.json`."""
    out = dict(config)
    if out.get("tokenizer_class") not in read_rules().tokenizers.names:
        out["tokenizer_class"] = GENERIC_TOKENIZER
        out.pop("backend", None)
        if isinstance(extra := out.pop("extra_special_tokens", None), list):
            out["additional_special_tokens"] = extra
    return out
