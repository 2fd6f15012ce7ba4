"""The watch: held-out general records on which a training sees what it forgets, while it forgets it."""

from dataclasses import dataclass

import torch
from torch.distributed.fsdp import FSDPModule
from torch.nn.functional import cross_entropy

from mixtune.artifacts.shards import TokenRecord
from mixtune.train.batches import pack, plan_micro_batches
from mixtune.train.modeling.loss import PackedLoss, Reading

TOP = 64
"""Of the base model's predictions at a token, so many are told apart; the rest of the vocabulary is one."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the watch saw, mean over the records' loss tokens, in nats."""

    nll: float
    """Negative log-likelihood."""
    kl: float
    """Kullback-Leibler divergence from the base model's predictions to this model's, over the base's `TOP` likeliest
    tokens and the rest as one: a lower bound of the whole. It rises before the NLL does (early warning)."""

    def line(self) -> str:
        """In words."""
        return f"held-out general NLL {self.nll:.4f}, KL to the base {self.kl:.4f}"


class Watch:
    """Looks at the same records again and again; the first look, at the model as it is given, is the base."""

    def __init__(self, records: list[TokenRecord], loss: PackedLoss, max_tokens: int) -> None:
        self._loss, self._device = loss, next(loss.parameters()).device
        micros = plan_micro_batches([len(record.input_ids) for record in records], max_tokens)
        self._packed = [pack([records[index] for index in micro]) for micro in micros]
        self._base = [self._read(number, _likeliest) for number in range(len(self._packed))]
        self.base = self.look()

    def look(self) -> Seen:
        """Nothing is learned from it, nor drawn for dropout; every process sees the same."""
        told = torch.cat([self._read(number, _Against(base)) for number, base in enumerate(self._base)])
        nll, kl = told.double().mean(0).tolist()
        return Seen(nll=nll, kl=max(0.0, kl))

    def _read(self, number: int, read: Reading) -> torch.Tensor:
        training = self._loss.training
        self._loss.eval()
        with torch.no_grad():
            out: torch.Tensor = self._loss(self._packed[number].to(self._device), read)
        self._loss.train(training)
        if isinstance(self._loss, FSDPModule):
            self._loss.reshard()  # which a backward pass would have done
        return out


def _likeliest(logits: torch.Tensor, _ids: torch.Tensor) -> torch.Tensor:
    """Ids and log-probabilities of the likeliest tokens, (tokens, 2, top), float64 so that ids stay exact."""
    values, ids = logits.log_softmax(-1).topk(min(TOP, logits.shape[-1]))
    return torch.stack([ids.double(), values.double()], 1)


class _Against:
    """Reads NLL and KL to the base by token, (tokens, 2); called chunk by chunk, in order."""

    def __init__(self, base: torch.Tensor) -> None:
        self._ids, self._base = base[:, 0].long(), base[:, 1]
        self._done = 0

    def __call__(self, logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        part = slice(self._done, self._done + len(ids))
        self._done = part.stop
        now = logits.log_softmax(-1).gather(1, self._ids[part]).double()
        before = _with_rest(self._base[part])
        kl = (before.exp() * (before - _with_rest(now))).sum(1)
        return torch.stack([cross_entropy(logits, ids, reduction="none").double(), kl], 1)


def _with_rest(values: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of some tokens, and of all others together."""
    rest = (1 - values.exp().sum(1, keepdim=True)).clamp(min=1e-9)
    return torch.cat([values, rest.log()], 1)
