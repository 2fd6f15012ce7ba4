"""Fixtures: a base model, an adapter and a merged model in S3, and what their comparison proves."""

import json
from pathlib import Path
from typing import Any

import pytest

from mixtune import storage
from mixtune.artifacts.samples import Identity
from mixtune.artifacts.typed_json import write_artifact

from ..comparisons import make_axis, make_comparison

LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "num_hidden_layers": 32,
    "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 131072, "eos_token_id": [1, 2],
}  # fmt: skip


class Models:
    """A bucket with models in it."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket

    def put(self, name: str, files: dict[str, Any]) -> str:
        """Write a model's files; its URI with digest comes back."""
        for path, content in files.items():
            with storage.open_write(f"{self.bucket}/{name}/{path}") as stream:
                stream.write(content if isinstance(content, bytes) else json.dumps(content).encode())
        return storage.fingerprint(f"{self.bucket}/{name}")

    def base(self, config: dict[str, Any] | None = None) -> str:
        return self.put("models/base", {"config.json": config or LLAMA_8B, "model.safetensors": bytes(1000)})

    def adapter(self, **config: Any) -> str:
        files = {"adapter_config.json": {"peft_type": "LORA", "r": 16, **config}, "adapter_model.safetensors": bytes(9)}
        return self.put("kfp/run/data/model", files)


@pytest.fixture
def models(bucket: str) -> Models:
    return Models(bucket)


def write_proof(path: Path, model_uri: str, verdict: str = "pass") -> str:
    """A comparison of a model, with a verdict."""
    digest = storage.split_fingerprint(model_uri)[1]
    identity = {"base": Identity(), "candidate": Identity(model=digest, model_kind="adapter")}
    write_artifact(str(path), make_comparison(verdict, make_axis("mmlu", verdict, 0.5), identity=identity))
    return str(path)
