"""The training loop: one optimizer step per global batch, read from its place in the shards.

Rank 0 prints steps, each on its own line, in one stable form that job monitors may match on:
`step 17/300 loss 1.2345 grad_norm 0.678 lr 1.0e-05 tokens/s 4321`.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from mixtune.artifacts.shards import TokenRecord
from mixtune.errors import TrainingError
from mixtune.train.batches import Layout, assign_to_ranks, check_ids, pack, plan_layout, record_cost
from mixtune.train.checkpoints import Checkpoints, NoCheckpoints
from mixtune.train.divergence_guard import StepLosses
from mixtune.train.forgetting_monitor import HoldoutLoss
from mixtune.train.grad_accumulation import GradientAccumulator
from mixtune.train.metrics import PhaseTimer, StepMetrics, peak_memory, peak_operations
from mixtune.train.trainer import Trainer

OnStep = Callable[[Trainer, StepMetrics], None]
"""Called after every step, once its checkpoint is begun."""


def train_steps(
    trainer: Trainer, checkpoints: Checkpoints | NoCheckpoints, on_step: OnStep = lambda trainer, metrics: None
) -> Iterator[StepMetrics]:
    """Train, from the newest checkpoint on, one step at a time; `on_step` sees each.

    Raises:
        TrainingError: Loss or gradient is not finite or far off; nothing was changed by that step. Or a SIGTERM came:
            what was done is in a checkpoint.
    """
    first_step = checkpoints.load(trainer)
    if trainer.group.is_main:
        _print_resumption(trainer, first_step, checkpoints.num_parts)
    for step in range(first_step, trainer.num_steps):
        metrics, flags = train_step(trainer, step, checkpoints.num_parts, checkpoints.stop_and_save_flags())
        metrics = replace(metrics, holdout=_evaluate_holdout(trainer, step + 1))
        if metrics.holdout and trainer.forgets(metrics.holdout):
            yield replace(metrics, kept_step=_roll_back(trainer, checkpoints, metrics.step, metrics.holdout))
            return
        checkpoints.after_step(step + 1, trainer, flags)
        on_step(trainer, metrics)
        yield metrics


def _print_resumption(trainer: Trainer, first_step: int, num_parts: int) -> None:
    if first_step:
        print(f"going on after step {first_step} of {trainer.num_steps}", flush=True)
    if num_parts < trainer.group.size:
        print(
            f"batches stay cut for the {num_parts} processes that the training began in; where some of the "
            f"{trainer.group.size} have no work, lower max_tokens_per_gpu",
            flush=True,
        )


def _evaluate_holdout(trainer: Trainer, steps_done: int) -> HoldoutLoss | None:
    """Evaluate the held-out records if due; every rank gets the same, and decides alike."""
    every_steps = trainer.settings.checkpoints.every_steps
    if not trainer.monitor or (steps_done % every_steps and steps_done != trainer.num_steps):
        return None
    return trainer.monitor.evaluate()


def _roll_back(trainer: Trainer, checkpoints: Checkpoints | NoCheckpoints, step: int, holdout: HoldoutLoss) -> int:
    """Take up the newest healthy checkpoint and return its steps; a TrainingError where there is none."""
    base = trainer.monitor.base.nll if trainer.monitor else 0.0
    rise = (
        f"step {step}: the NLL of held-out general records rose from {base:.3f} to {holdout.nll:.3f}, more than "
        f"max_nll_rise {trainer.settings.guards.max_nll_rise:g} allows"
    )
    kept_step = checkpoints.load(trainer, healthy=True)
    if not kept_step:
        raise TrainingError(f"{rise}, and no checkpoint is within; lower learning_rate, or mix in more")
    if trainer.group.is_main:
        print(f"{rise}; the training ends, with the weights after step {kept_step}", flush=True)
    return kept_step


def train_step(trainer: Trainer, step: int, num_parts: int, flags: torch.Tensor) -> tuple[StepMetrics, torch.Tensor]:
    """Do one optimizer step, counted from 0, of a global batch that is cut for so many ranks.

    `flags`, float64, are this rank's to stop and to save; they are returned summed over all ranks, in the same
    all-reduce as the losses.
    """
    timer = PhaseTimer(trainer.group.device)
    model, group = trainer.model, trainer.group
    records = trainer.batch(step, num_parts)
    check_ids(records, model.loss.num_rows)
    lr_scale = trainer.lr_schedule(step)
    for parameters in trainer.optimizer.param_groups:
        parameters["lr"] = parameters["peak_lr"] * lr_scale
    if model.dropout:
        model.dropout.begin_step(step)
    local_losses = accumulate_gradients(trainer, records, num_parts, timer)
    # (records + flags,): one collective a step.
    sums = group.all_reduce_sum(torch.cat([local_losses, flags.to(local_losses)]))
    record_losses, flags = sums[: len(records)].tolist(), sums[len(records) :].cpu()
    losses = StepLosses(
        step=step + 1,
        loss=sum(record_losses) / max(_total_weight(records), 1e-9),
        grad_norm=model.clip_gradients(trainer.settings.schedule.max_grad_norm),
        records=records,
        record_losses=record_losses,
        pools=trainer.shards.pools,
    )
    trainer.guard.check(losses)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)
    timer.stop("step")
    metrics = StepMetrics(
        step=step + 1,
        loss=losses.loss,
        grad_norm=losses.grad_norm,
        learning_rate=trainer.settings.learning_rate * lr_scale,
        num_tokens=sum(len(record.input_ids) for record in records),
        num_loss_tokens=sum(record.num_loss_tokens for record in records),
        seconds=timer.seconds,
        num_ranks=group.size,
        operations=sum(model.operations(len(record.input_ids)) for record in records),
        peak_operations=peak_operations(group.device),
        memory_bytes=peak_memory(group.device),
        pool_losses=losses.by_pool(),
    )
    return metrics, flags


def _total_weight(records: list[TokenRecord]) -> float:
    """Return the loss tokens of a global batch, each times its record's weight: what its loss is divided by."""
    return sum(record.num_loss_tokens * record.weight for record in records)


def accumulate_gradients(
    trainer: Trainer, records: list[TokenRecord], num_parts: int, timer: PhaseTimer
) -> torch.Tensor:
    """Leave the gradients of the global batch in the parameters; return this rank's losses, weighted, (records,)."""
    group, model = trainer.group, trainer.model
    total = _total_weight(records)
    losses = torch.zeros(len(records), dtype=torch.float64, device=group.device)
    accumulator = GradientAccumulator(model.parameters().values(), exact=group.on_cpu or model.method == "lora")
    micro_batches = local_micro_batches(trainer, records, num_parts)
    for number, (indices, weight) in enumerate(micro_batches, 1):
        packed = pack([records[index] for index in indices], indices).to(group.device)
        if model.dropout:
            lengths = [len(records[index].input_ids) for index in indices]
            model.dropout.begin_micro_batch(indices, lengths, in_rows=model.loss.layout is Layout.ROWS)
        # On a GPU gradients of a sharded model are sharded after every micro batch, and go over nodes once a step.
        model.set_gradient_sync(is_last=number == len(micro_batches), keep_whole=group.on_cpu)
        timer.stop("data")
        # (loss tokens,) each micro batch's sum is divided by the whole global batch's weight, however it is cut.
        weighted = trainer.losses(packed) * packed.weights * weight
        timer.stop("forward")
        (weighted.sum() / max(total, 1e-9)).backward()
        accumulator.accumulate()
        losses.index_add_(0, packed.records, weighted.detach().double())
        timer.stop("backward")
    accumulator.all_reduce(group)
    return losses


def local_micro_batches(trainer: Trainer, records: list[TokenRecord], num_parts: int) -> list[tuple[list[int], float]]:
    """Return this rank's micro batches: indices of records, and the weight of their loss.

    The batch is always cut for `num_parts` ranks, so that the cut does not depend on how many there are now. Ranks that
    share a sharded model meet at every layer: one with fewer micro batches than others runs the cheapest once more, at
    a weight of 0.
    """
    lengths, crossover = [len(record.input_ids) for record in records], trainer.model.crossover_length
    layout, longest = trainer.model.loss.layout, trainer.model.loss.longest_shared
    micro_batches = plan_layout(layout, lengths, trainer.max_micro_tokens, num_parts, crossover, longest)
    costs = [sum(record_cost(lengths[index], crossover) for index in indices) for indices in micro_batches]
    ranks = assign_to_ranks(costs, trainer.group.size)
    local = [(micro_batches[number], 1.0) for number in ranks[trainer.group.rank]]
    if trainer.model.is_sharded:
        cheapest = micro_batches[costs.index(min(costs))]
        local += [(cheapest, 0.0)] * (max(len(numbers) for numbers in ranks) - len(local))
    return local


def batch_loss(trainer: Trainer, step: int) -> float:
    """Return the loss of a step's global batch by the model as it is, over all ranks; nothing is learned from it."""
    records = trainer.shards.step(step)
    total = torch.zeros(1, dtype=torch.float64, device=trainer.group.device)
    trainer.model.loss.eval()
    with torch.no_grad():
        for indices, weight in local_micro_batches(trainer, records, trainer.group.size):
            packed = pack([records[index] for index in indices], indices).to(trainer.group.device)
            total += (trainer.model.loss(packed) * packed.weights * weight).double().sum()
    trainer.model.loss.train()
    return float(trainer.group.all_reduce_sum(total)) / max(_total_weight(records), 1e-9)
