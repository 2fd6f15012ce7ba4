"""The sizes and the arithmetic of a training step, as the training loop and preflight both count them."""

from dataclasses import dataclass

MICRO_TOKENS = 16384
"""Tokens of one micro batch at most, where `max_tokens_per_gpu` leaves it open."""
LEAST_MICRO_TOKENS = 256
"""Tokens of the smallest micro batch that is chosen where memory is short."""
QUICK_TOKENS = 2048
"""Up to here packed records always pay on a CPU: beyond, attention over a whole row may cost more than it saves."""
CROSSOVER = 12
"""Times a model's width: the length of a record at which attention costs about as much as the matrices do."""
LOGITS_AT_ONCE = 2**25
"""Logits that the loss holds at once on a CPU, at most (128 MiB in float32)."""
GPU_LOGITS_AT_ONCE = 2**28
"""The same on a GPU (1 GiB): smaller chunks fill its matrix units badly, and round the head's gradient as often."""
ACTIVE_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")
"""What configurations call the number of experts that a token is sent to."""
EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
"""And the number of those that there are in a layer."""


def logits_at_once(*, gpu: bool) -> int:
    """Return the logits that the loss holds at once, at most."""
    return GPU_LOGITS_AT_ONCE if gpu else LOGITS_AT_ONCE


LEAST_PASS_TOKENS = 1024
"""Tokens of a forward pass below which a GPU waits for weights rather than computes: its speed over its bandwidth."""
ROW_PADDING = 0.125
"""Share of padding assumed where each record is a row: half of what a micro batch may have."""


def slowdown(layout: str, tokens_per_record: float) -> float:
    """Return how many times as long a training takes as with packed records, 1 or more; assumed, not measured.

    The layout is `packed`, `rows` or `single`.
    """
    if layout == "single":
        return max(1.0, LEAST_PASS_TOKENS / tokens_per_record)
    return 1 / (1 - ROW_PADDING) if layout == "rows" else 1.0


def largest_micro_batch(longest_record: int, num_records: int, max_tokens: int = 0, batch_tokens: int = 0) -> int:
    """Return a bound on the tokens of any micro batch: packed up to `max_tokens`, or one record where that is longer.

    `max_tokens` of 0 is `MICRO_TOKENS`; `batch_tokens` are those of the largest global batch of `num_records`, 0:
    unknown.
    """
    whole = batch_tokens or longest_record * max(1, num_records)
    return max(longest_record, min(max_tokens or MICRO_TOKENS, whole))


def most_cpu_tokens(crossover_length: int) -> int:
    """Return the tokens of the largest micro batch that pays on a CPU, a power of two."""
    return 1 << max(QUICK_TOKENS, min(MICRO_TOKENS, crossover_length // 4)).bit_length() - 1


@dataclass(frozen=True, kw_only=True)
class Attention:
    """The width of attention, summed over layers; layers that keep a state instead have none."""

    whole: int
    """Of layers in which a token attends to all before it."""
    windowed: int = 0
    """Of layers in which it attends to the last `window` tokens."""
    window: int = 0

    def values(self, length: float) -> float:
        """Return the products of a query or a weight with a key or a value, per token of a record, on average.

        There are two for each key, and a token has half of the record before it; in a window w of a record n, it has
        w - w^2 / 2n keys.
        """
        window = min(self.window, length)
        return self.whole * length + self.windowed * (2 * window - window**2 / length)


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """What a model has, counted on its own modules."""

    parameters: int
    """All, its towers' among them."""
    text: int
    """Of these, in the decoder of text and its head: full fine-tuning trains them."""
    active: int
    """Values in the matrices that a token goes through, the head's among them."""
    attention: Attention


def operations_per_token(method: str, matrix_values: float, attention: Attention, length: float) -> float:
    """Return the arithmetic of one trained token: 6 operations per value (Kaplan et al. 2020), 4 where it is frozen.

    `matrix_values` are those that a token passes through, the head's included; `length` is the record's in tokens.
    Attention has no frozen values: its backward pass is whole under an adapter, too. What is computed again for
    checkpointing is not counted.
    """
    return float((4 if method == "lora" else 6) * matrix_values + 6 * attention.values(length))


STATE_BYTES = 16
"""Of a trained parameter: weight, gradient and two moments in float32."""
STATE_SHARE = 0.6
"""Of a GPU's memory, that states may fill; the rest is for gathered layers, activations and logits."""


def node_holds(num_parameters: float, bytes_each: int, num_gpus: int, gpu_bytes: float) -> bool:
    """Return whether a node's GPUs hold a sharded model's states; where not, it is sharded over all nodes."""
    return num_parameters * bytes_each / num_gpus <= STATE_SHARE * gpu_bytes


MATRIX_SHARE = {"lora": 0.28, "sft": 0.37}
"""Share of a GPU's peak that the matrices of a training reach, by method, what is computed twice not counted."""
ATTENTION_SHARE = 0.21
"""The same of attention. All three are a roofline of an H100 with compiled layers, less a tenth; not measured."""


def reachable_share(method: str, matrix_values: int, attention: Attention, length: float) -> float:
    """Return the share of a GPU's peak, 0 to 1, that a training is assumed to reach: less where records are long.

    Values and length are as for `operations_per_token`.
    """
    matrices = operations_per_token(method, matrix_values, Attention(whole=0), length)
    attending = operations_per_token(method, 0, attention, length)
    return (matrices + attending) / (matrices / MATRIX_SHARE[method] + attending / ATTENTION_SHARE)
