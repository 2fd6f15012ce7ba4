"""How much memory a training needs, and how much arithmetic, from the model's own shape.

The count follows what the training loop holds at its two highest moments. One is the end of a forward pass: weights,
AdamW's moments, the gradients of earlier micro batches, what autograd keeps for the backward pass, one chunk of logits.
The other is after the last backward pass: no activations, but gradients twice. It is held against measured peaks in
`benchmarks/results/preflight.md`.
"""

from dataclasses import dataclass, replace

from mixtune.errors import ModelError
from mixtune.settings.foreign import JsonObject
from mixtune.settings.train import TrainSettings
from mixtune.training_math import (
    STATE_BYTES,
    Attention,
    logits_at_once,
    node_holds,
    operations_per_token,
    reachable_share,
)

PLAIN_MLP = ("gpt2", "gpt_neox", "opt", "phi", "falcon", "bloom", "gptj")
"""Model types whose MLP has two matrices; the others' is gated and has three."""
SURE = 0.85
"""Share of the room that an estimate may fill where more is kept than has to be: it may be off by as much."""
RESERVE = 0.90
"""Share of a GPU's memory that a training may be planned to fill; the rest is CUDA, NCCL and fragmentation."""


@dataclass(frozen=True, kw_only=True)
class Experts:
    """The mixture of experts that stands in the place of some layers' MLP."""

    layers: int
    """Layers that have one."""
    count: int
    """Experts of a layer."""
    active: int
    """Experts that a token goes through."""
    inner: int
    """Width of an expert."""
    shared: int
    """Width of the experts that every token goes through, together."""

    @property
    def active_inner(self) -> int:
        """Width of all that a token goes through."""
        return self.active * self.inner + self.shared


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A decoder-only transformer's sizes."""

    layers: int
    hidden: int
    inner: int
    """Width of the MLP."""
    query: int
    """Width of all query heads together."""
    key_value: int
    """Width of all key heads together, which is that of all value heads."""
    vocabulary: int
    tied: bool
    """Whether input and output embeddings are one matrix."""
    mlp_matrices: int = 3
    latent: int = 0
    """Values in the matrices of one layer's attention over a latent (MLA); 0: it has none."""
    experts: Experts | None = None
    attending: int = 0
    """Layers with attention to the whole record; 0: all."""
    windowed: int = 0
    """Layers with attention to `window` tokens; those that are neither keep a state."""
    window: int = 0

    @classmethod
    def from_config(cls, config: JsonObject) -> "Shape":
        """Read a model's `config.json`.

        Raises:
            ModelError: A size is missing.
        """
        config = config.get("text_config") or config
        sizes = {name: _first(config, names) for name, names in _NAMES.items()}
        missing = [_NAMES[name][0] for name, value in sizes.items() if not value]
        if missing:
            raise ModelError(f"config.json gives no {missing[0]}; the memory is measured in the validation run")
        hidden, heads = sizes["hidden"], sizes["heads"]
        width = config.get("head_dim") or hidden // heads
        kinds = [str(kind) for kind in config.get("layer_types") or []]
        window = int(config.get("sliding_window") or 0) if config.get("use_sliding_window") is not False else 0
        return cls(
            layers=sizes["layers"],
            hidden=hidden,
            inner=_first(config, ("intermediate_size", "n_inner", "ffn_dim")) or 4 * hidden,
            query=heads * width,
            key_value=(config.get("num_key_value_heads") or heads) * width,
            vocabulary=sizes["vocabulary"],
            tied=bool(config.get("tie_word_embeddings", True)),
            mlp_matrices=2 if config.get("model_type") in PLAIN_MLP else 3,
            latent=_latent(config, hidden, heads),
            experts=_experts(config, sizes["layers"]),
            attending=sum(kind in _WHOLE for kind in kinds),
            windowed=sum(kind == "sliding_attention" for kind in kinds) if window else 0,
            window=window,
        )

    @property
    def linear(self) -> int:
        """Parameters in the layers' matrices."""
        return self._linear(self.experts.count * self.experts.inner + self.experts.shared if self.experts else 0)

    @property
    def active_linear(self) -> int:
        """Values in the layers' matrices that a token goes through."""
        return self._linear(self.experts.active_inner if self.experts else 0)

    def _linear(self, width: int) -> int:
        """Return the values in matrices, with experts of so much width together."""
        attention = self.latent or 2 * self.hidden * (self.query + self.key_value)
        mixed = self.experts.layers if self.experts else 0
        mlp = (self.layers - mixed) * self.inner + mixed * width
        return self.layers * attention + self.mlp_matrices * self.hidden * mlp

    @property
    def attention(self) -> Attention:
        """The width of attention."""
        whole = self.attending or (0 if self.windowed else self.layers)
        return Attention(whole=whole * self.query, windowed=self.windowed * self.query, window=self.window)

    @property
    def embeddings(self) -> int:
        """Parameters of the embeddings, in and out."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All parameters; norms counted, biases not."""
        return self.embeddings + self.linear + (2 * self.layers + 1) * self.hidden

    def adapter(self, rank: int) -> int:
        """Parameters of a LoRA adapter on all linear layers."""
        attention = 2 * (self.hidden + self.query) + 2 * (self.hidden + self.key_value)
        dense = self.mlp_matrices * (self.hidden + self.inner)
        if not self.experts:
            return self.layers * rank * (attention + dense)
        mixed, shared = self.experts.layers, 3 * (self.hidden + self.experts.shared) if self.experts.shared else 0
        fused = self.experts.count * (2 * self.hidden + 3 * self.experts.inner)  # gate and up have one A
        return rank * (self.layers * attention + (self.layers - mixed) * dense + mixed * (fused + shared))


@dataclass(frozen=True, kw_only=True)
class Training:
    """What is trained and in what portions; the rest follows from the method and the device, as in `train/`."""

    method: str
    """`lora` or `sft`."""
    micro_tokens: int
    """Tokens of a micro batch: `max_tokens_per_gpu`, or the longest record where that is longer."""
    lora_rank: int = 16
    gpu: bool = True
    """On a GPU there is no mask over packed records."""
    dtype: str = ""
    """Of the arithmetic; empty: bfloat16 over float32 weights on a GPU, float32 on a CPU."""
    activations: str = ""
    """For the backward pass; empty: computed again on a GPU, which needs least, kept on a CPU."""
    packed: bool = True
    """Whether there are several records in a micro batch; on a CPU attention then takes a mask."""
    micro_batches: int = 2
    """Of a process in a step; from the second on, gradients of the earlier ones are held."""
    float32_base: bool = False
    """LoRA: the base stays in float32, since the adapter begins by changing it (PiSSA, OLoRA)."""
    shards: int = 1
    """GPUs over which FSDP2 spreads weights, and in full fine-tuning gradients and moments."""

    @property
    def value_bytes(self) -> int:
        """Of a value in the arithmetic, and of a weight that is not trained."""
        return 2 if (self.dtype or ("bfloat16" if self.gpu else "float32")) == "bfloat16" else 4

    @property
    def keeps_activations(self) -> bool:
        """Whether those of all layers are held; where they are offloaded, as few are as where they are recomputed."""
        return (self.activations or ("recompute" if self.gpu else "keep")) == "keep"

    @property
    def needs_mask(self) -> bool:
        """Whether attention takes a mask over packed records: kernels that need none do not compute in float32."""
        return not self.gpu or self.value_bytes == 4

    @property
    def sum_bytes(self) -> int:
        """Per trained parameter, of the sums of gradients over micro batches: float64 but in slices on GPUs."""
        return 0 if self.gpu and self.method == "sft" else 8


def training_on_gpus(settings: TrainSettings, micro_tokens: int, *, packed: bool = True, shards: int = 1) -> Training:
    """Return what a training with these settings holds on a GPU.

    Args:
        settings: Of the training.
        micro_tokens: Of the largest micro batch.
        packed: Whether it holds several records.
        shards: From `num_shards`.
    """
    memory = settings.memory
    return Training(
        method=settings.method,
        micro_tokens=micro_tokens,
        packed=packed,
        lora_rank=settings.lora_rank,
        dtype=memory.dtype,
        activations=memory.activations,
        float32_base=settings.lora_options.changes_base,
        shards=shards,
    )


def num_shards(shape: Shape, settings: TrainSettings, gpus: int, nodes: int, gpu_bytes: float) -> int:
    """Return the GPUs that a model is sharded over, as in `train/modeling/sharding.py`; 1 where each holds it whole.

    Args:
        shape: The model's.
        settings: Of the training.
        gpus: Of a node.
        nodes: 1 or more.
        gpu_bytes: Memory of a GPU.
    """
    lora = settings.method == "lora"
    if lora and not settings.memory.shard_base:
        return 1
    bytes_each = 2 if lora and settings.memory.dtype != "float32" else 4 if lora else STATE_BYTES
    return gpus if node_holds(shape.parameters, bytes_each, gpus, gpu_bytes) else gpus * nodes


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that one GPU needs at the peak."""

    weights: int
    gradients: int
    """Those of earlier micro batches."""
    moments: int
    """AdamW's two."""
    activations: int
    logits: int
    update: int
    """Gradients, and their sums or the optimizer's temporary, when there are neither activations nor logits."""

    @property
    def total(self) -> int:
        """At the higher of the two moments."""
        return self.weights + self.moments + max(self.gradients + self.activations + self.logits, self.update)

    def line(self, place: str = "GPU") -> str:
        """In words."""
        states = self.moments + self.gradients
        parts = {"weights": self.weights, "optimizer": states, "activations": self.activations, "logits": self.logits}
        listed = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in parts.items())
        return f"{self.total / 1e9:.1f} GB per {place} ({listed})"


def estimate_memory(shape: Shape, training: Training) -> Memory:
    """Peak memory of one GPU, or of a process on a CPU."""
    lora = training.method == "lora"
    trained = shape.adapter(training.lora_rank) if lora else shape.parameters
    base_bytes = 4 if training.float32_base else training.value_bytes
    base = shape.parameters * base_bytes // training.shards if lora else 0
    resident = base + (_gathered(shape, training) if training.shards > 1 or not lora else 0)
    own = trained if lora else trained // training.shards
    return Memory(
        weights=resident + 4 * own,
        gradients=(training.sum_bytes or 4) * own if training.sum_bytes or training.micro_batches > 1 else 0,
        moments=8 * own,
        activations=_activations(shape, training),
        logits=_logits(shape, training),
        update=(4 + (training.sum_bytes or 4)) * own,
    )


def choose_activations(shape: Shape, training: Training, room: float) -> str:
    """Return the fastest way with activations that surely fits into so many bytes; `recompute` where none does."""
    for activations in ("keep", "selective"):
        if estimate_memory(shape, replace(training, activations=activations)).total <= SURE * room:
            return activations
    return "recompute"


def _gathered(shape: Shape, training: Training) -> int:
    """Return the bytes that no sharding divides: embeddings and two layers; logits hold the head's gradient."""
    if not training.gpu:
        return 0
    layer = (shape.parameters - shape.embeddings) // shape.layers
    return training.value_bytes * (shape.embeddings + 2 * layer)


def _activations(shape: Shape, training: Training) -> int:
    """Bytes kept for the backward pass: of all layers, or, computed again, their inputs and all of one layer.

    A mask over packed records is a square of yes and no, and once more as numbers in every layer that is kept.
    """
    tokens = training.micro_tokens
    layer = tokens * _layer_bytes(shape, training)
    if shape.experts and training.method == "lora":  # what an adapter adds to fused experts is added to all of them
        layer += 3 * training.value_bytes * shape.experts.count * shape.hidden * shape.experts.inner
    if training.activations == "selective":
        products = 3 * shape.hidden + 2 * (shape.query + shape.key_value)
        inner = shape.experts.active_inner if shape.experts else shape.inner
        products += (shape.mlp_matrices - 1) * inner
        return layer + tokens * training.value_bytes * (shape.layers * products + 3 * shape.hidden)
    if not training.keeps_activations:
        return layer + tokens * training.value_bytes * shape.hidden * (shape.layers + 3)
    mask = tokens * tokens * (1 + 4 * shape.layers) if training.packed and training.needs_mask else 0
    return shape.layers * layer + 12 * tokens * shape.hidden + mask


def _logits(shape: Shape, training: Training) -> int:
    """Bytes of one chunk, float32: logits, their logarithms and gradient; in full tuning the head's own gradient."""
    chunk = 4 * min(logits_at_once(gpu=training.gpu), training.micro_tokens * shape.vocabulary)
    head = 4 * shape.vocabulary * shape.hidden if training.method == "sft" else 0
    return max(3 * chunk, chunk + head)


def _layer_bytes(shape: Shape, training: Training) -> int:
    """Bytes per token that autograd keeps of one layer.

    Input, normed input and its scaled form, query, key, value, attention's output; the same of the MLP with gate, up,
    the activation and their product. A frozen norm keeps one form less. Norms compute in float32 everywhere.
    """
    norms = 4 if training.method == "lora" else 6
    attention = 2 * shape.query + 2 * shape.key_value
    inner = (4 if shape.mlp_matrices == 3 else 2) * (shape.experts.active_inner if shape.experts else shape.inner)
    return 4 * norms * shape.hidden + training.value_bytes * (attention + inner)


def operations_of_token(shape: Shape, method: str, length: float) -> float:
    """Return the arithmetic of one trained token of a record of so many tokens."""
    matrices = shape.active_linear + shape.vocabulary * shape.hidden
    return operations_per_token(method, matrices, shape.attention, length)


def _latent(config: JsonObject, hidden: int, heads: int) -> int:
    """Return the values of one layer's attention over a latent; 0: it has none."""
    latent = config.get("kv_lora_rank") or 0
    nope, rope, value = (config.get(key) or 0 for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    if not latent or not value:
        return 0
    narrow, query = config.get("q_lora_rank") or 0, heads * (nope + rope)
    queries = narrow * (hidden + query) if narrow else hidden * query
    return int(queries + hidden * (latent + rope) + latent * heads * (nope + value) + heads * value * hidden)


def _experts(config: JsonObject, layers: int) -> Experts | None:
    """Return a model's mixture of experts; None: it has none."""
    count = _first(config, ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"))
    if count < 2:
        return None
    inner = _first(config, ("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size"))
    num_shared = _first(config, ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"))
    shared = _first(config, ("shared_expert_intermediate_size", "shared_intermediate_size")) or num_shared * inner
    kinds = config.get("mlp_layer_types") or []
    dense = kinds.count("dense") or _first(config, ("first_k_dense_replace", "num_dense_layers"))
    return Experts(
        layers=max(0, layers - dense),
        count=count,
        active=_first(config, ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k")) or 1,
        inner=inner,
        shared=shared,
    )


_WHOLE = ("full_attention", "attention", "hybrid", "chunked_attention")
"""Kinds of layers, by the names of `layer_types`, whose attention spans the record."""


def reachable(shape: Shape, method: str, length: float) -> float:
    """Return the share of a GPU's peak, 0 to 1, that a training on records of so many tokens is assumed to reach."""
    return reachable_share(method, shape.active_linear + shape.vocabulary * shape.hidden, shape.attention, length)


_NAMES = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head"),
    "vocabulary": ("vocab_size",),
}


def _first(config: JsonObject, names: tuple[str, ...]) -> int:
    return next((int(config[name]) for name in names if config.get(name)), 0)
