"""The training loop: one optimizer step per global batch, read from its place in the shards.

Rank 0 prints steps, each on its own line, in one stable form that job monitors may match on:
`step 17/300 loss 1.2345 grad_norm 0.678 lr 1.0e-05 tokens/s 4321`.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from mixtune.artifacts.shards import Shards, TokenRecord
from mixtune.errors import ConfigError, TrainingError
from mixtune.settings.train import TrainSettings
from mixtune.train.batches import cost, pack, plan_micro_batches, spread
from mixtune.train.checkpoints import Checkpoints
from mixtune.train.distributed import World
from mixtune.train.divergence_guard import Guard
from mixtune.train.forgetting_monitor import Seen, Watch
from mixtune.train.grad_accumulation import GradientSums
from mixtune.train.metrics import StepFigures, peak_memory, peak_operations
from mixtune.train.modeling.model import Trainable, make_optimizer, rate


@dataclass(frozen=True)
class Trainer:
    """Everything that a step needs."""

    shards: Shards
    model: Trainable
    optimizer: torch.optim.Optimizer
    config: TrainSettings
    world: World
    guard: Guard
    watch: Watch | None
    """What looks at held-out records; None: nothing does."""

    @property
    def last_step(self) -> int:
        """Steps of this training."""
        return min(self.config.validation_steps, self.shards.num_steps) or self.shards.num_steps

    def rate(self, step: int) -> float:
        """Share of the peak learning rate at a step, 0-based; a validation run warms up over all its steps."""
        if self.config.validation_steps:
            return (step + 1) / self.last_step
        return rate(step, self.shards.num_steps, self.config)

    def forgets(self, seen: Seen) -> bool:
        """Whether more is forgotten than `max_nll_rise` allows."""
        limit = self.config.guards.max_nll_rise
        return bool(limit and self.watch and not seen.nll - self.watch.base.nll <= limit)


def make_trainer(shards: Shards, model: Trainable, config: TrainSettings, world: World) -> Trainer:
    """A training that has done nothing yet.

    Raises:
        ConfigError: There is a limit on what may be forgotten, and no record to see it by.
    """
    held_out = [] if config.validation_steps else shards.holdout()
    if config.guards.max_nll_rise and not config.validation_steps and not held_out:
        raise ConfigError("max_nll_rise: the shards hold no held-out general records; hold some back in sanitize, or 0")
    watch = Watch(held_out, model.loss, config.memory.max_tokens_per_gpu) if held_out else None
    return Trainer(shards, model, make_optimizer(model, config), config, world, Guard(config), watch)


def train_steps(trainer: Trainer, checkpoints: Checkpoints | None) -> Iterator[StepFigures]:
    """Train, from the newest checkpoint on, one step at a time.

    Args:
        trainer: Its model is trained in place.
        checkpoints: None: none are made.

    Raises:
        TrainingError: Loss or gradient is not finite or far off; nothing was changed by that step. Or a SIGTERM came:
            what was done is in a checkpoint.
    """
    done = checkpoints.load(trainer.model, trainer.optimizer, trainer.guard) if checkpoints else 0
    if done and trainer.world.is_main:
        print(f"going on after step {done} of {trainer.shards.num_steps}", flush=True)
    num_parts = checkpoints.num_parts if checkpoints else trainer.world.size
    if trainer.world.is_main and num_parts < trainer.world.size:
        print(
            f"batches stay cut for the {num_parts} processes that the training began in; where some of the "
            f"{trainer.world.size} have no work, lower max_tokens_per_gpu",
            flush=True,
        )
    for step in range(done, trainer.last_step):
        flags = checkpoints.wishes() if checkpoints else torch.zeros(2)
        figures, wishes = _one_step(trainer, step, num_parts, flags)
        seen = _look(trainer, step + 1)
        figures = replace(figures, seen=seen)
        if checkpoints and seen and trainer.forgets(seen):
            yield replace(figures, kept=_go_back(trainer, checkpoints, figures))
            return
        if checkpoints and step + 1 < trainer.last_step:
            checkpoints.after_step(step + 1, trainer.model, trainer.optimizer, trainer.guard, wishes)
        yield figures


def _look(trainer: Trainer, done: int) -> Seen | None:
    """What the watch sees where it is time to look; rank 0's figures, so that all decide alike."""
    if not trainer.watch or (done % trainer.config.checkpoints.every_steps and done != trainer.last_step):
        return None
    seen = trainer.watch.look()
    told = trainer.world.copy(torch.tensor([seen.nll, seen.kl], dtype=torch.float64, device=trainer.world.device))
    return Seen(nll=float(told[0]), kl=float(told[1]))


def _go_back(trainer: Trainer, checkpoints: Checkpoints, figures: StepFigures) -> int:
    """Take up the newest checkpoint within the limit; its steps come back."""
    kept = checkpoints.load(trainer.model, trainer.optimizer, trainer.guard, within=True)
    if trainer.watch and figures.seen:
        rise = (
            f"step {figures.step}: the NLL of held-out general records rose from {trainer.watch.base.nll:.3f} to "
            f"{figures.seen.nll:.3f}, more than max_nll_rise {trainer.config.guards.max_nll_rise:g} allows"
        )
        if not kept:
            raise TrainingError(f"{rise}, and no checkpoint is within; lower learning_rate, or mix in more")
        if trainer.world.is_main:
            print(f"{rise}; the training ends, with the weights after step {kept}", flush=True)
    return kept


def _one_step(trainer: Trainer, step: int, num_parts: int, flags: torch.Tensor) -> tuple[StepFigures, torch.Tensor]:
    """One optimizer step; the flags come back summed over all processes, in the same collective as the losses."""
    clock = Clock(trainer.world.device)
    config, model = trainer.config, trainer.model
    records = trainer.shards.step(step)
    share = trainer.rate(step)
    for group in trainer.optimizer.param_groups:
        group["lr"] = group["peak"] * share
    if dropout := model.dropout:
        dropout.begin_step(step)
    sums = _accumulate(trainer, records, num_parts, clock)
    told = trainer.world.add(torch.cat([sums, flags.to(sums)]))
    losses, wishes = told[: len(records)].tolist(), told[len(records) :].cpu()
    total = sum(record.num_loss_tokens * record.weight for record in records)
    loss = sum(losses) / max(total, 1e-9)
    norm = model.clip_gradients(config.schedule.max_grad_norm)
    trainer.guard.check(step + 1, loss, norm, records, losses, trainer.shards.pools)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)
    clock.stop("step")
    figures = StepFigures(
        step=step + 1,
        loss=loss,
        grad_norm=norm,
        learning_rate=config.learning_rate * share,
        num_tokens=sum(len(record.input_ids) for record in records),
        num_loss_tokens=sum(record.num_loss_tokens for record in records),
        seconds=clock.seconds,
        num_ranks=trainer.world.size,
        operations=sum(model.operations(len(record.input_ids)) for record in records),
        peak_operations=peak_operations(trainer.world.device),
        memory_bytes=peak_memory(trainer.world.device),
        pool_losses=_by_pool(records, losses, trainer.shards.pools),
    )
    return figures, wishes


def _accumulate(trainer: Trainer, records: list[TokenRecord], num_parts: int, clock: "Clock") -> torch.Tensor:
    """Gradients of the global batch; weighted losses of this process's share, by record, float64, (records,)."""
    world, model = trainer.world, trainer.model
    total = sum(record.num_loss_tokens * record.weight for record in records)
    losses = torch.zeros(len(records), dtype=torch.float64, device=world.device)
    on_cpu = world.device.type == "cpu"
    sums = GradientSums(model.parameters().values(), exact=on_cpu or model.method == "lora")
    turns = own_turns(trainer, records, num_parts)
    for number, (micro, share) in enumerate(turns, 1):
        packed = pack([records[index] for index in micro], micro).to(world.device)
        if model.dropout:
            model.dropout.begin_micro_batch(micro, [len(records[index].input_ids) for index in micro])
        model.add_over_processes(number == len(turns) or not on_cpu)
        clock.stop("data")
        weighted = model.loss(packed) * packed.weights * share
        clock.stop("forward")
        (weighted.sum() / max(total, 1e-9)).backward()
        sums.take()
        losses.index_add_(0, packed.rows, weighted.detach().double())
        clock.stop("backward")
    sums.finish(world)
    return losses


def own_turns(trainer: Trainer, records: list[TokenRecord], num_parts: int) -> list[tuple[list[int], float]]:
    """This process's micro batches of a global batch, which is cut for `num_parts` processes; each counts once.

    Processes that hold slices of a model meet at every layer. One that has fewer micro batches than others takes the
    cheapest once more, at a weight of 0.
    """
    lengths, even = [len(record.input_ids) for record in records], trainer.model.even_tokens
    micros = plan_micro_batches(lengths, trainer.config.memory.max_tokens_per_gpu, num_parts, even)
    costs = [sum(cost(lengths[index], even) for index in micro) for micro in micros]
    ranks = spread(costs, trainer.world.size)
    turns = [(micros[number], 1.0) for number in ranks[trainer.world.rank]]
    if trainer.model.in_slices:
        cheapest = micros[costs.index(min(costs))]
        turns += [(cheapest, 0.0)] * (max(len(own) for own in ranks) - len(turns))
    return turns


def batch_loss(trainer: Trainer, step: int) -> float:
    """Loss of a step's global batch by the model as it is, over all processes; nothing is learned from it."""
    records = trainer.shards.step(step)
    total = torch.zeros(1, dtype=torch.float64, device=trainer.world.device)
    trainer.model.loss.eval()
    with torch.no_grad():
        for micro, share in own_turns(trainer, records, trainer.world.size):
            packed = pack([records[index] for index in micro], micro).to(trainer.world.device)
            total += (trainer.model.loss(packed) * packed.weights * share).double().sum()
    trainer.model.loss.train()
    return float(trainer.world.add(total)) / max(sum(item.num_loss_tokens * item.weight for item in records), 1e-9)


def summarise(trainer: Trainer, seen: list[StepFigures]) -> dict[str, float]:
    """Figures of a whole run: losses, speed in tokens a second, peak memory of a process in bytes."""
    timed = seen[1:] or seen
    speed = sum(item.num_tokens for item in timed) / max(sum(sum(item.seconds.values()) for item in timed), 1e-9)
    figures = {
        "num_steps": len(seen),
        "kept_step": (seen[-1].kept or seen[-1].step) if seen else 0,
        "first_loss": seen[0].loss if seen else 0.0,
        "final_loss": seen[-1].loss if seen else 0.0,
        "mean_tokens_per_second": speed,
        "tokens_per_second_per_gpu": speed / trainer.world.size,
        "num_processes": trainer.world.size,
        "num_gpus": trainer.world.size if trainer.world.device.type == "cuda" else 0,
        "seconds": sum(sum(item.seconds.values()) for item in seen),
        "peak_memory_bytes": peak_memory(trainer.world.device),
    }
    return {**figures, **({"base_general_nll": trainer.watch.base.nll} if trainer.watch else {})}


def _by_pool(records: list[TokenRecord], losses: list[float], pools: list[str]) -> dict[str, float]:
    found = {}
    for number, name in enumerate(pools):
        mine = [index for index, record in enumerate(records) if record.pool == number]
        weight = sum(records[index].num_loss_tokens * records[index].weight for index in mine)
        if weight:
            found[name] = sum(losses[index] for index in mine) / weight
    return found


class Clock:
    """Seconds by phase; on a GPU a phase ends when its work is done."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = dict.fromkeys(("data", "forward", "backward", "step"), 0.0)
        self._cuda = device.type == "cuda"
        self._began = time.monotonic()

    def stop(self, phase: str) -> None:
        """Count the time since the last stop to a phase."""
        if self._cuda:
            torch.cuda.synchronize()
        now = time.monotonic()
        self.seconds[phase] += now - self._began
        self._began = now
