"""How much memory a training needs, from the model's own shape.

The count follows what the training loop holds at its highest moments. All have weights, AdamW's moments and the
gradients of earlier micro batches. At the end of a forward pass there is what autograd keeps for the backward pass, and
one chunk of logits; a little later, in its place, one layer that is computed again. After the last backward pass there
are no activations, but gradients twice. It is held against measured peaks (`benchmarks/results/preflight.md`), and
against the loop on tensors without values (`benchmarks/results/memory.md`).
"""

from dataclasses import dataclass, replace

from mixtune.preflight.shape import Shape
from mixtune.settings.train import TrainSettings
from mixtune.training_math import STATE_BYTES, logits_at_once, node_holds

SURE = 0.85
"""Share of the room that an estimate may fill where more is kept than has to be: it may be off by as much."""
RESERVE = 0.90
"""Share of a GPU's memory that a training may be planned to fill; the rest is CUDA, NCCL and fragmentation."""


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
    """Return what a training with these settings holds on a GPU, whose largest micro batch has so many tokens.

    `packed`: that micro batch holds several records; `shards` comes from `num_shards`.
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

    `gpus` are those of a node, `gpu_bytes` the memory of one.
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
    """Kept by the forward pass for the backward one."""
    layer: int
    """What one layer adds that is computed again, and the head's gradient; 0: nothing is computed again."""
    logits: int
    update: int
    """Gradients, and their sums or the optimizer's temporary, when there are neither activations nor logits."""

    @property
    def total(self) -> int:
        """At the highest moment."""
        passes = self.gradients + self.activations + max(self.layer, self.logits)
        return self.weights + self.moments + max(passes, self.update)

    def line(self, place: str = "GPU") -> str:
        """In words."""
        states = self.moments + self.gradients
        parts = {"weights": self.weights, "optimizer": states, "activations": self.activations}
        parts |= {"logits": self.logits} if self.logits > self.layer else {"a layer computed again": self.layer}
        listed = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in parts.items())
        return f"{self.total / 1e9:.1f} GB per {place} ({listed})"


def estimate_memory(shape: Shape, training: Training) -> Memory:
    """Peak memory of one GPU, or of a process on a CPU."""
    lora = training.method == "lora"
    trained = shape.adapter(training.lora_rank) if lora else shape.text
    base_bytes = 4 if training.float32_base else training.value_bytes
    base = (shape.parameters if lora else shape.parameters - shape.text) * base_bytes // training.shards
    resident = base + (_gathered(shape, training) if training.shards > 1 or not lora else 0)
    own = trained if lora else trained // training.shards
    return Memory(
        weights=resident + 4 * own,
        gradients=(training.sum_bytes or 4) * own if training.sum_bytes or training.micro_batches > 1 else 0,
        moments=8 * own,
        activations=_activations(shape, training),
        # of one layer that is computed again, while the head's gradient waits for the root's
        layer=0 if training.keeps_activations else _layer_bytes(shape, training) + _head_gradient(shape, training),
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
    layer = (shape.text - shape.embeddings) // shape.layers
    return training.value_bytes * (shape.embeddings + 2 * layer)


def _activations(shape: Shape, training: Training) -> int:
    """Bytes kept for the backward pass: of all layers, of their products, or, computed again, their inputs alone.

    A mask over packed records is a square of yes and no, and once more as numbers in every layer that is kept.
    """
    tokens = training.micro_tokens
    if training.keeps_activations:
        mask = tokens * tokens * (1 + 4 * shape.layers) if training.packed and training.needs_mask else 0
        return shape.layers * _layer_bytes(shape, training) + 12 * tokens * shape.hidden + mask
    values = ((0 if training.activations == "offload" else shape.layers) + 3) * shape.hidden
    if training.activations == "selective":
        inner = shape.experts.active_inner if shape.experts else shape.inner
        products = 2 * shape.hidden + 2 * (shape.query + shape.key_value) + (shape.mlp_matrices - 1) * inner
        values += shape.layers * products
    return tokens * training.value_bytes * values


def _logits(shape: Shape, training: Training) -> int:
    """Bytes of one chunk, float32: logits, their logarithms and gradient; in full tuning the head's own gradient."""
    chunk = 4 * min(logits_at_once(gpu=training.gpu), training.micro_tokens * shape.vocabulary)
    return max(3 * chunk, chunk + _head_gradient(shape, training))


def _head_gradient(shape: Shape, training: Training) -> int:
    """Bytes of the head's gradient, in the dtype in which the head is gathered."""
    width = training.value_bytes if training.gpu else 4
    return width * shape.vocabulary * shape.hidden if training.method == "sft" else 0


def _layer_bytes(shape: Shape, training: Training) -> int:
    """Bytes that autograd keeps of one layer.

    Of each of two norms its input in float32, and what comes out; where it is trained, what its weight is multiplied
    with, too. Query, key, value, attention's output; gate, up, the activation and their product.
    """
    norms = 2 * shape.hidden * (4 + training.value_bytes * (1 if training.method == "lora" else 2))
    attention = 2 * shape.query + 2 * shape.key_value
    inner = (4 if shape.mlp_matrices == 3 else 2) * (shape.experts.active_inner if shape.experts else shape.inner)
    layer = training.micro_tokens * (norms + training.value_bytes * (attention + inner))
    if shape.experts and training.method == "lora":  # what an adapter adds to fused experts is added to all of them
        layer += 3 * training.value_bytes * shape.experts.count * shape.hidden * shape.experts.inner
    return layer
