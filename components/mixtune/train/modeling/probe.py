"""How records can lie in a forward pass without seeing one another, found out on the model that trains."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from mixtune.artifacts.shards import TokenRecord
from mixtune.errors import ModelError
from mixtune.inference.text_parts import find_experts
from mixtune.train.batches import Layout, pack
from mixtune.train.modeling.loss import PackedLoss, cross_entropies, evaluating
from mixtune.train.modeling.sharding import gathered_root

PROBED_TOKENS = 512
"""Of each record that `probe` looks at: enough for a convolution or a state to carry something over a border."""
PROBE_NATS = {torch.float32: 1e-4, torch.bfloat16: 0.02}
"""Largest mean gap between a record's losses and those by the model's own logits, beyond rounding, by dtype of the
arithmetic. Leaks between records are found without any tolerance."""
NOISE = 4.0
"""Times the mean gap that rounding alone makes: so much more is put down to it."""


def probe(loss: PackedLoss, records: list[TokenRecord]) -> str:
    """Choose how records lie in a forward pass: packed, else in rows, else one by one; return why they are not packed.

    A layout is taken, and set in the model, where no record sees another, and losses are those by the model's own
    logits. The model has the attention and the dtype that it trains with. Of the records, two at least, the first
    tokens are taken, all as tokens to learn.

    Raises:
        ModelError: A token's loss depends on later tokens, or is another one than by the model's own logits: this
            model cannot be trained.
    """
    short = [
        replace(record, input_ids=ids, loss_mask=np.ones(len(ids), np.uint8), weight=1.0)
        for record, ids in ((record, record.input_ids[:PROBED_TOKENS]) for record in records)
    ]
    name = type(loss.causal).__name__
    reasons: list[str] = []
    with evaluating(loss):
        if _sees_later_tokens(loss, max(short, key=lambda record: len(record.input_ids))):
            raise ModelError(f"{name}: a token's loss depends on the tokens after it; this is no causal language model")
        for layout in Layout:
            loss.layout = layout
            if not (fault := _fault(loss, short)):
                return reasons[0] if reasons else ""
            reasons.append(fault)
    raise ModelError(f"{name}: {reasons[-1]}; this architecture makes its logits in a way that mixtune does not know")


def _fault(loss: PackedLoss, records: list[TokenRecord]) -> str:
    """Return what is wrong with the loss's layout; empty: nothing is."""
    if loss.layout.is_packed and not loss.takes_positions:
        return "it takes no positions, by which packed records are told apart"
    try:
        return _difference(loss, records)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        return f"{loss.layout} records end in {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _difference(loss: PackedLoss, records: list[TokenRecord]) -> str:
    """Return in what losses differ from what they should be; empty: in nothing."""
    if loss.layout is not Layout.SINGLE and (gap := _leak(loss, records)):
        return f"{loss.layout} records see one another: another record's tokens moved a loss by {gap:.2g} nats"
    groups = [[record] for record in records] if loss.layout is Layout.SINGLE else [records]
    gap = _gap_to_logits(loss, groups)
    if gap <= PROBE_NATS[loss.dtype]:
        return ""
    return f"records have other losses than by the model's own logits, by {gap:.2g} nats"


def _sees_later_tokens(loss: PackedLoss, record: TokenRecord) -> bool:
    """Change the second half of a record: the losses of the first half must stay the same, bit by bit."""
    half = len(record.input_ids) // 2
    changed = np.concatenate([record.input_ids[:half], _other_ids(record.input_ids)[half:]])
    loss.layout = Layout.SINGLE
    with _fixed_routing(loss) as routing:
        (before,) = _losses_by_record(loss, [record])
        routing.replays = True
        (after,) = _losses_by_record(loss, [replace(record, input_ids=changed)])
    return not torch.equal(before[: half - 1], after[: half - 1])


def _leak(loss: PackedLoss, records: list[TokenRecord]) -> float:
    """Return by how many nats another record's loss moves where one is changed, lengths kept; 0: not a bit of it."""
    with _fixed_routing(loss) as routing:
        before = _losses_by_record(loss, records)
        routing.replays = True
        return _largest_change(loss, records, before)


def _largest_change(loss: PackedLoss, records: list[TokenRecord], before: list[torch.Tensor]) -> float:
    for changed, record in enumerate(records):
        others = [*records[:changed], replace(record, input_ids=_other_ids(record.input_ids)), *records[changed + 1 :]]
        after = _losses_by_record(loss, others)
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            if number != changed and not torch.equal(old, new):
                return float((old - new).abs().max())
    return 0.0


class _Routing:
    """What experts are given beside tokens, of one forward pass, given again in the next."""

    def __init__(self) -> None:
        self.replays = False
        self._inputs: dict[int, tuple[torch.Tensor, ...]] = {}

    def __call__(self, module: torch.nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
        hidden, *choices = inputs
        tensors = tuple(item for item in choices if isinstance(item, torch.Tensor))
        if len(tensors) < len(choices) or not isinstance(hidden, torch.Tensor):
            return inputs
        if not self.replays:
            self._inputs[id(module)] = tensors
            return inputs
        return (hidden, *self._inputs[id(module)])


@contextmanager
def _fixed_routing(loss: PackedLoss) -> Iterator[_Routing]:
    """While the block runs, tokens can go to the experts that they went to before.

    Else changed tokens would give experts other numbers of tokens, for which other kernels may be chosen: others would
    differ in their last bits without a leak.
    """
    routing = _Routing()
    handles = [module.register_forward_pre_hook(routing) for module in find_experts(loss.causal)]
    try:
        yield routing
    finally:
        for handle in handles:
            handle.remove()


def _other_ids(ids: np.ndarray) -> np.ndarray:
    """Return ids of which none is what it was, and none is beyond the largest."""
    others: np.ndarray = np.roll(np.arange(ids.max() + 1), 1)[ids].astype(ids.dtype)
    return others


def _losses_by_record(loss: PackedLoss, records: list[TokenRecord]) -> list[torch.Tensor]:
    packed = pack(records).to(next(loss.parameters()).device)
    losses: torch.Tensor = loss(packed)
    return [losses[packed.records == number] for number in range(len(records))]


def _gap_to_logits(loss: PackedLoss, groups: list[list[TokenRecord]]) -> float:
    """Return the mean gap, in nats, between a record's losses and those by the model's own logits, where it is largest.

    What rounding explains is taken off: products of other shapes add in another order. Its size is seen where nothing
    but the shape changes, on the first half of a record, alone and before the second half.
    """
    device, gaps = next(loss.parameters()).device, [torch.zeros(())]
    for group in groups:
        packed = pack(group).to(device)
        losses = loss(packed)
        for number, record in enumerate(group):
            ids = torch.from_numpy(record.input_ids.astype(np.int64)).to(device)
            if len(ids) < 4:
                continue
            own, half = _own_losses(loss, ids), _own_losses(loss, ids[: len(ids) // 2])
            noise = (own[: len(half)] - half).abs().mean()
            gaps.append(((losses[packed.records == number] - own).abs().mean() - NOISE * noise).cpu())
    return float(torch.stack(gaps).max())  # no number where one is none


def _own_losses(loss: PackedLoss, ids: torch.Tensor) -> torch.Tensor:
    """Return the losses of a record's tokens, (tokens - 1,), by the model's own logits."""
    with loss.precision(ids.device), gathered_root(loss):
        logits = loss.causal(input_ids=ids[None], use_cache=False).logits[0, :-1].float()
    return cross_entropies(logits, ids[1:])
