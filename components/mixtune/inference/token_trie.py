"""Requests as a trie of tokens: what several have in common from their first token on is one chain of nodes.

A trie goes through a model as one sequence without padding. Every token sees its ancestors alone, so the
log-probability of a continuation is what it is for that request by itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mixtune.inference.engine import Request

_ROOT = -1
PREFIX_STEP = 32
"""A shared prefix is a multiple of so many tokens, so that the next part of a benchmark can take it over."""


class Read(NamedTuple):
    """A log-probability that is asked for: of a token behind a node, for a continuation of a request."""

    node: int
    token: int
    request: int
    choice: int


@dataclass
class TokenTrie:
    """Tokens of several requests behind a prefix that all of them share."""

    prefix: int
    """Tokens of that prefix, which are not in here."""
    ids: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    _children: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, number: int, request: Request) -> None:
        """Add a request: its context behind the prefix, and its continuations but for their last tokens."""
        end = self._walk(_ROOT, request.context[self.prefix :])
        for choice, tokens in enumerate(request.continuations):
            node = end
            for place, token in enumerate(tokens):
                self.reads.append(Read(node, token, number, choice))
                if place + 1 < len(tokens):
                    node = self._walk(node, [token])

    def positions(self) -> list[int]:
        """Return each node's place in its request, prefix included."""
        return [self.prefix + depth for depth in self.depths]

    def mask(self) -> npt.NDArray[np.bool_]:
        """Return which nodes each node sees, (nodes, prefix + nodes): the prefix, its ancestors and itself."""
        count = len(self.ids)
        allowed = np.zeros((count, self.prefix + count), dtype=bool)
        allowed[:, : self.prefix] = True
        for node, parent in enumerate(self.parents):
            if parent != _ROOT:
                allowed[node] = allowed[parent]
            allowed[node, self.prefix + node] = True
        return allowed

    def _walk(self, node: int, tokens: Sequence[int]) -> int:
        for token in tokens:
            child = self._children.get((node, token))
            if child is None:
                child = self._children[node, token] = len(self.ids)
                self.ids.append(token)
                self.parents.append(node)
                self.depths.append(0 if node == _ROOT else self.depths[node] + 1)
            node = child
        return node


def make_tries(requests: dict[int, Request], prefix: int, *, max_nodes: int, max_reads: int) -> Iterator[TokenTrie]:
    """Yield tries of all requests in their order, each as large as the limits allow, with one request at least."""
    trie, num_reads = TokenTrie(prefix), 0
    for number, request in requests.items():
        nodes = len(request.context) - prefix + sum(len(tokens) - 1 for tokens in request.continuations)
        reads = sum(map(len, request.continuations))
        if trie.ids and (len(trie.ids) + nodes > max_nodes or num_reads + reads > max_reads):
            yield trie
            trie, num_reads = TokenTrie(prefix), 0
        trie.add(number, request)
        num_reads += reads
    if trie.ids:
        yield trie


def shared_prefix(contexts: Sequence[tuple[int, ...]]) -> int:
    """Return how many tokens all contexts begin with that are computed once for all; 0: too few to pay."""
    first, last = min(contexts), max(contexts)
    shortest = min(map(len, contexts)) - 1
    count = next((place for place in range(shortest) if first[place] != last[place]), max(0, shortest))
    return count - count % PREFIX_STEP if len(contexts) > 1 else 0
