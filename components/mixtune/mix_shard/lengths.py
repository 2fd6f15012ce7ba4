"""Records that are longer than a model may see: dropped, refused, or cut so that an answer stays whole."""

import numpy as np


def shorten(ids: np.ndarray, mask: np.ndarray, max_length: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Cut a record to `max_length` tokens, or return None where its first answer alone is longer.

    It ends after the last whole answer that fits. If even the first answer does not fit, the middle of its context is
    cut out, so that the record's beginning and the words right before the answer stay. `ids`, int32, and `mask`, uint8
    (1 where the token is to be learned), are (length,).
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask, [0]])))
    starts, ends = edges[::2], edges[1::2]
    fitting = ends[ends <= max_length]
    if len(fitting):
        return ids[: fitting[-1]], mask[: fitting[-1]]
    room = max_length - int(ends[0] - starts[0]) if len(starts) else 0
    if room < 2:
        return None
    head = room // 2
    picked = np.concatenate([np.arange(head), np.arange(starts[0] - (room - head), ends[0])])
    return ids[picked], mask[picked]
