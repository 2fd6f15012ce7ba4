"""The sizes and the arithmetic of a training step, as the training loop and preflight both count them."""

MICRO_TOKENS = 16384
"""Tokens of one micro batch at most, where `max_tokens_per_gpu` leaves it open."""
LEAST_MICRO_TOKENS = 256
"""Tokens of the smallest micro batch that is chosen where memory is short."""
LOGITS_AT_ONCE = 2**25
"""Logits that the loss holds at once, at most (128 MiB in float32)."""


def largest_micro_batch(longest_record: int, num_records: int, max_tokens: int = 0, batch_tokens: int = 0) -> int:
    """Return a bound on the tokens of any micro batch: packed up to `max_tokens`, or one record where that is longer.

    Args:
        longest_record: Tokens.
        num_records: Records of a global batch.
        max_tokens: Tokens of a micro batch at most; 0: `MICRO_TOKENS`.
        batch_tokens: Tokens of the largest global batch; 0: not known.
    """
    whole = batch_tokens or longest_record * max(1, num_records)
    return max(longest_record, min(max_tokens or MICRO_TOKENS, whole))


def operations_per_token(method: str, matrix_values: int, attention_values: int, length: float) -> float:
    """Return the arithmetic of one trained token: 6 operations per value (Kaplan et al. 2020), 4 where it is frozen.

    A token attends to half of its record on average. What is computed again for checkpointing is not counted.

    Args:
        method: `lora` or `sft`.
        matrix_values: Values in the matrices that every token passes through, the head's included.
        attention_values: Width of attention over all layers.
        length: Tokens of the record.
    """
    return float((4 if method == "lora" else 6) * (matrix_values + attention_values * length))
