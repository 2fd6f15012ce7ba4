"""The forgetting monitor: the loss of held-out general records while a training runs, beside the base model's."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch.distributed.fsdp import FSDPModule
from torch.nn.functional import cross_entropy

from mixtune.artifacts.shards import TokenRecord
from mixtune.train.batches import assign_to_ranks, pack, plan_layout
from mixtune.train.distributed import SINGLE_PROCESS, ProcessGroup
from mixtune.train.modeling.loss import PackedLoss, PerToken, evaluate_tokens

TOP = 64
"""Tokens that the base model thinks likeliest and that are told apart; the rest of the vocabulary counts as one."""


@dataclass(frozen=True, kw_only=True)
class HoldoutLoss:
    """The loss of the held-out records, mean over their loss tokens, in nats."""

    nll: float
    """Negative log-likelihood."""
    kl: float
    """Kullback-Leibler divergence from the base model's predictions to this model's, over the base's `TOP` likeliest
    tokens and the rest as one: a lower bound of the whole. It rises before the NLL does (early warning)."""

    def line(self) -> str:
        """Return it as a line of the log."""
        return f"held-out general NLL {self.nll:.4f}, KL to the base {self.kl:.4f}"


class ForgettingMonitor:
    """Evaluates the same records again and again, beside a base.

    The processes share the records out; all of them make one, and evaluate, together.

    Args:
        records: One at least.
        loss: The model.
        max_tokens: Of a micro batch at most.
        base: The base while it is open; None: the model as it is now.
        group: The processes.
    """

    def __init__(
        self,
        records: list[TokenRecord],
        loss: PackedLoss,
        max_tokens: int,
        base: AbstractContextManager[PackedLoss] | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self._loss, self._device, self._group = loss, next(loss.parameters()).device, group
        lengths = [len(record.input_ids) for record in records]
        micro_batches = plan_layout(loss.layout, lengths, max_tokens, longest_shared=loss.longest_shared)
        ranks = assign_to_ranks([sum(lengths[index] for index in batch) for batch in micro_batches], group.size)
        own = ranks[group.rank]
        self._num_counted = len(own)
        if isinstance(loss, FSDPModule):  # its processes meet at every layer: who has fewer runs one again
            own = own + [0] * (max(map(len, ranks)) - len(own))
        self._packed = [pack([records[index] for index in micro_batches[number]]) for number in own]
        with base or nullcontext(loss) as self._loss:
            values = [self._run(number, _nll_and_likeliest) for number in range(len(self._packed))]
        self._loss, self._base = loss, [item[:, 1:].unflatten(1, (2, -1)) for item in values]
        # One pass tells both of the base: its NLL, and what later predictions are held against. Its own KL is 0.
        self.base = self._mean(torch.stack([item[:, 0], torch.zeros_like(item[:, 0])], 1) for item in values)
        self.start = self.evaluate() if base else self.base
        """Of the model as the training began."""
        self.last = self.start
        """Of the newest evaluation."""

    def evaluate(self) -> HoldoutLoss:
        """Return the loss of the model as it is: nothing is learned, nothing is dropped, every process has the same."""
        self.last = self._mean(self._run(number, _NllAndKl(base)) for number, base in enumerate(self._base))
        return self.last

    def _mean(self, by_batch: Iterable[torch.Tensor]) -> HoldoutLoss:
        """Return the mean over all processes' tokens, (tokens, 2) of each own micro batch."""
        totals = torch.zeros(3, dtype=torch.float64, device=self._device)
        for number, values in enumerate(by_batch):
            if number < self._num_counted:
                totals += torch.cat([values.sum(0), values.new_tensor([len(values)])])
        nll, kl, num_tokens = self._group.all_reduce_sum(totals).tolist()
        return HoldoutLoss(nll=nll / num_tokens, kl=max(0.0, kl / num_tokens))

    def _run(self, number: int, per_token: PerToken) -> torch.Tensor:
        return evaluate_tokens(self._loss, self._packed[number].to(self._device), per_token)


def _nll_and_likeliest(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return NLL, ids and log-probabilities of the likeliest tokens, (tokens, 1 + 2 top), float64 so ids stay exact."""
    values, likeliest = logits.log_softmax(-1).topk(min(TOP, logits.shape[-1]))
    nll = cross_entropy(logits, ids, reduction="none")
    return torch.cat([nll[:, None].double(), likeliest.double(), values.double()], 1)


class _NllAndKl:
    """Computes NLL and KL to the base by token, (tokens, 2); called chunk by chunk, in order."""

    def __init__(self, base: torch.Tensor) -> None:
        self._ids, self._base = base[:, 0].long(), base[:, 1]
        self._done = 0

    def __call__(self, logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        chunk = slice(self._done, self._done + len(ids))
        self._done = chunk.stop
        # (tokens, top) log-probabilities of the base's likeliest tokens: the model's, and the base's with the rest.
        current = logits.log_softmax(-1).gather(1, self._ids[chunk]).double()
        base = _with_rest(self._base[chunk])
        kl = (base.exp() * (base - _with_rest(current))).sum(1)
        return torch.stack([cross_entropy(logits, ids, reduction="none").double(), kl], 1)


def _with_rest(values: torch.Tensor) -> torch.Tensor:
    """Return log-probabilities of some tokens, (tokens, top), and of all others together, (tokens, top + 1)."""
    rest = (1 - values.exp().sum(1, keepdim=True)).clamp(min=1e-9)
    return torch.cat([values, rest.log()], 1)
