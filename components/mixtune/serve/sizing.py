"""How many GPUs of which machine serve a model, from its own shape: weights, keys and values, and what vLLM takes.

The weights are counted by their files, so that a mixture of experts counts as it is. Keys and values are those of
`num_sequences` requests of full length at once.
"""

import math
from dataclasses import dataclass

from mixtune.errors import ConfigError
from mixtune.prices import Instance, Prices
from mixtune.serve.model_config import VALUE_BYTES, ModelConfig
from mixtune.serve.served_model import ServedModel
from mixtune.settings.serving import ServeSettings

MEMORY_SHARE = 0.90
"""Share of a GPU's memory that vLLM takes (`--gpu-memory-utilization`)."""
OVERHEAD_BYTES = 3 * 10**9
"""On each GPU: CUDA, its graphs, and the activations of a batch."""
SERVED_BYTES = 2
"""Of a weight and of a cached value: bfloat16."""
GIB = 2**30
SHARED_MEMORY_GIB = 2
HOST_GIB = 8
"""Of a server's own memory, beside the weights that pass through it."""
CPUS_PER_GPU = 4


@dataclass(frozen=True, kw_only=True)
class ServingPlan:
    """What one replica asks for."""

    instance: Instance
    gpus: int
    """Over which the weights are split (tensor parallelism)."""
    max_length: int
    """Tokens."""
    weight_bytes: int
    """On all GPUs together."""
    cache_bytes: int
    """Of keys and values of `num_sequences` requests of `max_length` tokens, on all GPUs together."""
    memory_gib: int
    """Of the host."""
    storage_gib: int
    """Of its disk."""
    uncounted: str = ""
    """What of the cache is not known; empty: nothing."""

    @property
    def cpus(self) -> int:
        """Cores."""
        return CPUS_PER_GPU * self.gpus

    @property
    def usd_per_hour(self) -> float:
        """Of the GPUs that one replica holds, as their share of the instance."""
        return self.instance.usd_per_hour * self.gpus / self.instance.gpus

    def line(self) -> str:
        """In words."""
        return (
            f"{self.gpus} of {self.instance.gpus} {self.instance.gpu} of {self.instance.name}: weights "
            f"{self.weight_bytes / 1e9:.1f} GB, keys and values {self.cache_bytes / 1e9:.1f} GB, "
            f"${self.usd_per_hour:,.2f} an hour a replica" + (f"; {self.uncounted}" if self.uncounted else "")
        )


def plan_serving(model: ServedModel, settings: ServeSettings, prices: Prices) -> ServingPlan:
    """Return the cheapest GPUs that hold a model and its requests.

    Raises:
        ConfigError: The instance is not in the price table, or the model fits on none.
    """
    config = model.config
    positions = config.text.max_position_embeddings
    max_length = min(settings.max_length, positions) if positions else settings.max_length
    weights = round(model.weight_bytes * served_share(config))
    cache = settings.num_sequences * config.cache_values(max_length) * SERVED_BYTES
    instances = [prices[settings.instance]] if settings.instance else list(prices.instances.values())
    choices = [
        (instance.usd_per_hour * gpus / instance.gpus, gpus, instance)
        for instance in instances
        if (gpus := count_gpus(config, weights, cache, instance))
    ]
    if not choices:
        need = (weights + cache) / 1e9
        names = ", ".join(instance.name for instance in instances)
        raise ConfigError(
            f"{model.name}: {need:.0f} GB of weights, keys and values fit on no machine of {names}; take a larger "
            "instance, a smaller max_length, or fewer num_sequences"
        )
    _, gpus, instance = min(choices, key=lambda choice: choice[:2])
    return ServingPlan(
        instance=instance,
        gpus=gpus,
        max_length=max_length,
        weight_bytes=weights,
        cache_bytes=cache,
        memory_gib=math.ceil(weights / GIB) + HOST_GIB + SHARED_MEMORY_GIB,
        storage_gib=math.ceil(1.05 * model.download_bytes / GIB) + HOST_GIB,
        uncounted=config.uncounted,
    )


def served_share(config: ModelConfig) -> float:
    """Return the share of its files' bytes that the weights take when they are served in bfloat16."""
    if config.quantization_config:
        return 1.0
    return SERVED_BYTES / VALUE_BYTES.get(config.number_format, SERVED_BYTES)


def count_gpus(config: ModelConfig, weights: int, cache: int, instance: Instance) -> int:
    """Return the fewest GPUs of an instance that hold weights and cache; 0: it has too few.

    Tensor parallelism splits heads evenly, those of keys, too. Where there are fewer of these than GPUs, each GPU holds
    one, and as many GPUs hold each.
    """
    room = instance.gpu_memory_gb * 1e9 * MEMORY_SHARE - OVERHEAD_BYTES
    heads = config.text.key_value_heads
    for gpus in (1, 2, 4, 8):
        is_even = config.text.kv_lora_rank or max(heads, gpus) % min(heads, gpus) == 0
        if gpus <= instance.gpus and config.text.num_attention_heads % gpus == 0 and is_even:
            own = weights / gpus + cache / (1 if config.text.kv_lora_rank else min(gpus, heads))
            if own <= room:
                return gpus
    return 0
