"""Scoring by tries of tokens (`token_trie`): no padding, no token twice, logits only where they are read."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from mixtune.inference.engine import Request
from mixtune.inference.heartbeat import beat
from mixtune.inference.token_trie import TokenTrie, make_tries, shared_prefix

MAX_REQUEST_TOKENS = 4096
"""Tokens of a request, prefix included, above which it is no part of a trie."""
TOLERANCE = {torch.float32: 1e-3}
_ROUNDED_TOLERANCE = 0.1
"""Nats by which the log-probabilities of the probe may differ, in float32 and in rounded types."""


class ModelOutput(Protocol):
    """What is read of a model's output."""

    logits: torch.Tensor
    """(1, positions that are kept, vocabulary)."""
    past_key_values: DynamicCache


Forward = Callable[..., ModelOutput]
"""Runs the model on token ids, (1, tokens), with `keep` (positions whose logits are read) and further inputs."""
Sights = dict[str, int]
"""How far back layers see, by the kind that a model's `layer_types` have: tokens of a window or a chunk; 0: all."""
FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
_TOKEN_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)
Values = list[list[float]]
"""Log-probabilities in nats by request and continuation."""


class PackedScorer:
    """Scores requests with a model in which a token sees exactly what its mask and position say."""

    def __init__(
        self,
        forward: Forward,
        device: torch.device,
        dtype: torch.dtype,
        *,
        sights: Sights,
        max_nodes: int,
        max_reads: int,
    ) -> None:
        """Wrap a model's forward pass; one pass has at most so many tokens, and positions whose logits are read."""
        self._forward, self.device, self.dtype = forward, device, dtype
        self._sights, self._max_nodes, self._max_reads = sights, max_nodes, max_reads
        self._prefix: tuple[tuple[int, ...], DynamicCache | None] = ((), None)

    def score(self, requests: dict[int, Request], values: Values) -> None:
        """Fill in the log-probabilities of requests, which have a context each, by number."""
        prefix = self._share_prefix(requests)
        for trie in make_tries(requests, prefix, max_nodes=self._max_nodes, max_reads=self._max_reads):
            beat(f"scoring: {trie.reads[0].request} of {len(requests)} items of this part")
            for read, value in zip(trie.reads, self._read(trie), strict=True):
                values[read.request][read.choice] += value

    def _share_prefix(self, requests: dict[int, Request]) -> int:
        """Compute what all contexts begin with, unless it is there from before; return its length."""
        first = next(iter(requests.values())).context
        if not (count := shared_prefix([request.context for request in requests.values()])):
            return 0
        if self._prefix[0] != first[:count]:
            ids = torch.tensor([first[:count]], device=self.device)
            self._prefix = (first[:count], self._forward(ids, keep=1, past_key_values=DynamicCache()).past_key_values)
        return count

    def _read(self, trie: TokenTrie) -> list[float]:
        """Return the log-probability of every read of a trie."""
        # allowed: (nodes, prefix + nodes); nodes: (reads,) places among the positions that are kept
        allowed = trie.mask()
        masks = {kind: self._hide(see(allowed, trie, kind, size)) for kind, size in self._sights.items()}
        positions, nodes = np.unique([read.node for read in trie.reads], return_inverse=True)
        cache = self._prefix[1] if trie.prefix else None
        inputs = {
            "attention_mask": masks if len(masks) > 1 else next(iter(masks.values())),
            "position_ids": torch.tensor([trie.positions()], device=self.device),
            "past_key_values": cache,
            "use_cache": cache is not None,
        }
        ids = torch.tensor([trie.ids], device=self.device)
        logits = self._forward(ids, keep=torch.from_numpy(positions).to(self.device), **inputs).logits[0].float()
        if cache is not None:
            cache.crop(-len(trie.ids))
        tokens = torch.tensor([read.token for read in trie.reads], device=self.device)
        rows = torch.from_numpy(nodes).to(self.device)
        values = logits[rows, tokens] - logits.logsumexp(-1)[rows]
        return [float(value) for value in values.double().tolist()]

    def _hide(self, allowed: npt.NDArray[np.bool_]) -> torch.Tensor:
        """Return what is added to attention's scores, (1, 1, nodes, prefix + nodes)."""
        hidden = torch.zeros(allowed.shape, dtype=self.dtype, device=self.device)
        return hidden.masked_fill_(~torch.from_numpy(allowed).to(self.device), torch.finfo(self.dtype).min)[None, None]


def read_sights(config: PreTrainedConfig) -> Sights:
    """Return the kinds of a model's attention layers, with the size of their window or chunk."""
    sizes = {SLIDING: getattr(config, "sliding_window", None), CHUNKED: getattr(config, "attention_chunk_size", None)}
    kinds = getattr(config, "layer_types", None) or [SLIDING if sizes[SLIDING] else FULL]
    return {kind: sizes.get(kind) or 0 for kind in kinds}


def see(allowed: npt.NDArray[np.bool_], trie: TokenTrie, kind: str, size: int) -> npt.NDArray[np.bool_]:
    """Return what layers of a kind see of what a trie's nodes may see, (nodes, prefix + nodes)."""
    if not size:
        return allowed
    queries = np.array(trie.positions())[:, None]
    keys = np.concatenate([np.arange(trie.prefix), queries[:, 0]])[None, :]
    is_near: npt.NDArray[np.bool_] = queries // size == keys // size if kind == CHUNKED else queries - keys < size
    return allowed & is_near


def probe(vocabulary: int) -> list[Request]:
    """Return two requests that share a context and have continuations that share tokens, for `agrees`."""
    ids = [1 + (7 * place + place**2) % (vocabulary - 1) for place in range(48)]
    first, second = tuple(ids[:34]), tuple([*ids[:33], *ids[40:44]])
    continuations = (tuple(ids[34:38]), tuple([*ids[34:36], *ids[44:48]]), (ids[38],))
    return [Request(context=first, continuations=continuations), Request(context=second, continuations=continuations)]


def agrees(packed: Values, alone: Values, dtype: torch.dtype) -> bool:
    """Return whether packed log-probabilities are those of every continuation by itself."""
    gaps = np.abs(np.concatenate(packed) - np.concatenate(alone))
    return bool(gaps.max() <= TOLERANCE.get(dtype, _ROUNDED_TOLERANCE))


def fits(request: Request, max_length: int) -> bool:
    """Return whether a request can go into a trie: it has a context, and its mask, square in its tokens, is small."""
    longest = len(request.context) + max(map(len, request.continuations))
    return len(request.context) > 0 and longest <= min(max_length, MAX_REQUEST_TOKENS)


def can_pack(cache: object) -> bool:
    """Return whether a model that leaves such a cache may be asked: one that remembers tokens and nothing else."""
    return type(cache) is DynamicCache and all(type(layer) in _TOKEN_LAYERS for layer in cache.layers)
