"""How many tokens of one micro batch a CPU's memory holds, by what the model itself keeps for the backward pass."""

from dataclasses import replace

import numpy as np
import torch
from torch.autograd.graph import saved_tensors_hooks

from mixtune.artifacts.shards import TokenRecord
from mixtune.train.batches import Layout, pack
from mixtune.train.modeling.trainable import Trainable
from mixtune.training_math import LEAST_MICRO_TOKENS, LOGITS_AT_ONCE, most_cpu_tokens

TRIED = (64, 128, 256)
"""Tokens of the packed rows that are measured: each twice the one before."""
RECORD_TOKENS = 32
SHARE = 0.5
"""Of the free memory that activations may take: the rest is for what else runs on the machine."""
PARAMETER_BYTES = 4 + 8 + 8
"""Of a trained parameter: its gradient, the float64 sum of gradients, AdamW's two moments."""


def choose_micro_tokens(model: Trainable, record: TokenRecord, free_bytes: float) -> int:
    """Return the tokens of a micro batch, a power of two, that fit into a CPU's free memory and pay."""
    trained = sum(value.numel() for value in model.parameters().values())
    room = SHARE * (free_bytes - PARAMETER_BYTES * trained - 3 * 4 * LOGITS_AT_ONCE)
    linear, quadratic = _bytes_by_token(model, record)
    tokens = most_cpu_tokens(model.crossover_length)
    while tokens > LEAST_MICRO_TOKENS and linear * tokens + quadratic * tokens**2 > room:
        tokens //= 2
    return tokens


def _bytes_by_token(model: Trainable, record: TokenRecord) -> tuple[float, float]:
    """Return the bytes kept for the backward pass by token, and by token squared: masks over packed records."""
    small, middle, large = (_kept_bytes(model, record, tokens) for tokens in TRIED)
    step = TRIED[0]
    # With n tokens, c + a n + b n^2 is kept; differences leave out c, the weights among it.
    quadratic = max(0.0, (large - middle) - 2 * (middle - small)) / (6 * step**2)
    return max(0.0, (middle - small) / step - 3 * quadratic * step), quadratic


def _kept_bytes(model: Trainable, record: TokenRecord, num_tokens: int) -> int:
    """Return the bytes of all tensors that a forward pass keeps, each storage once, hardly any logits among them."""
    mask = np.zeros(RECORD_TOKENS, np.uint8)
    mask[-1] = 1
    short = replace(record, input_ids=np.resize(record.input_ids, RECORD_TOKENS), loss_mask=mask)
    storages: dict[int, int] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return value

    if model.dropout:
        count = num_tokens // RECORD_TOKENS
        model.dropout.begin_step(0)
        in_rows = model.loss.layout is Layout.ROWS
        model.dropout.begin_micro_batch(list(range(count)), [RECORD_TOKENS] * count, in_rows=in_rows)
    with saved_tensors_hooks(keep, lambda value: value):
        loss = model.loss(pack([short] * (num_tokens // RECORD_TOKENS)))
        del loss
    return sum(storages.values())
