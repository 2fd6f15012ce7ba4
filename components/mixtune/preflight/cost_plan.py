"""The costed plan of a run: instances, hours and dollars, the validation run first, every point of a mix grid.

Hours come from measured throughput where a validation run left some, else from the model's arithmetic, the GPUs' peak
and an assumed utilisation; the plan says which.
"""

import math
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any

from mixtune.errors import ConfigError
from mixtune.preflight.memory import RESERVE, Training, estimate_memory, num_shards, training_on_gpus
from mixtune.preflight.shape import Shape
from mixtune.prices import Instance, Prices
from mixtune.report.pages import page, table
from mixtune.settings.job import BLOCK_MARGIN_SECONDS
from mixtune.settings.mix import MixSettings
from mixtune.settings.train import VALIDATION_STEPS, TrainSettings
from mixtune.training_math import largest_micro_batch, operations_per_token, reachable_share, slowdown

MOST_RECORDS, MOST_HOURS = 1_000_000_000, 100_000
"""Of the customer's records, and of an evaluation: what is more is a slip."""
STARTUP_HOURS = 0.25
"""Assumed for a job: image pull, weights to disk, first step."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is to be computed."""

    mix: MixSettings
    training: TrainSettings
    customer_records: int
    """0: not known, where the mix has `max_steps`."""
    tokens_per_record: float
    """Mean over the mix."""
    layout: str = "packed"
    """How the architecture's records lie in a forward pass: `packed`, `rows` or `single`."""

    def __post_init__(self) -> None:
        if not 0 < self.tokens_per_record < math.inf:
            raise ConfigError(f"tokens_per_record is above 0; got {self.tokens_per_record}")
        if not 0 <= self.customer_records < MOST_RECORDS:
            few = f"1 to {MOST_RECORDS:,}, or left out: then they are counted"
            raise ConfigError(f"customer_records is {few}; got {self.customer_records}")
        if not self.mix.max_steps and self.customer_records < 1:
            raise ConfigError(
                "steps are not known: give --customer-records N or max_steps=N; JSONL, CSV and TSV are counted"
            )

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return self.mix.about_steps(self.customer_records)

    @property
    def tokens(self) -> float:
        """Tokens of all steps."""
        return self.steps * self.mix.global_batch_size * self.tokens_per_record

    def with_mix(self, **changes: Any) -> "Work":
        """Return the same work with other settings of the mix."""
        return replace(self, mix=replace(self.mix, **changes))


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What it is computed on, and how fast that is known to be."""

    instance: Instance
    nodes: int
    gpus_per_node: int = 0
    """Of a node that train, a process each; 0: all that it has."""
    evaluation: Instance
    evaluation_hours: float
    """Both evaluations together; the user's guess, there is no figure before the first run."""
    evaluation_assumed: bool = False
    """Whether nobody gave the hours."""
    measured: float = 0.0
    """Tokens a second of one GPU of this kind, from a validation run; 0: none."""
    measured_memory: float = 0.0
    """Bytes that a process of a validation run took at most; 0: none was run."""
    mfu: float = 0.0
    """Assumed share of the GPUs' peak, 0 to 1, where nothing is measured; 0: by method and length of the records."""

    def __post_init__(self) -> None:
        if self.nodes < 1:
            raise ConfigError(f"nodes is 1 or more; got {self.nodes}")
        if self.gpus_per_node > self.instance.gpus:
            has = f"{self.instance.name} has {self.instance.gpus}"
            raise ConfigError(f"gpus_per_node is {self.gpus_per_node}; {has}; fewer, or another --instance")
        if not 0 <= self.evaluation_hours <= MOST_HOURS:
            raise ConfigError(f"evaluation_hours is 0 to {MOST_HOURS:,}; got {self.evaluation_hours:g}")
        if not 0 <= self.mfu <= 1:
            raise ConfigError(f"mfu is a share of the peak, 0 to 1; got {self.mfu}")

    @property
    def gpus(self) -> int:
        """GPUs of a node that train."""
        return self.gpus_per_node or self.instance.gpus


@dataclass(frozen=True, kw_only=True)
class Times:
    """When the run starts, and by when it has to end."""

    start: datetime
    """Of the first stage."""
    block_ends: datetime | None = None
    """End of a capacity block that the training has to fit in; it cannot be prolonged."""
    deadline: datetime | None = None
    """When all has to be done."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One line of the plan."""

    name: str
    instances: int
    instance: str
    hours: float
    usd: float
    basis: str
    """Where the hours come from."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole plan."""

    stages: list[Stage]
    grid: list[dict[str, float]]
    """Per customer percent: steps, hours and dollars of training."""
    usd_per_hour: float
    """Of training and evaluation instances together."""
    memory: str
    fits: bool
    """Whether a GPU of the training instance holds it."""
    prices: str
    """Source and date."""
    ends: str
    """When the last stage ends, UTC, ISO 8601."""
    warnings: list[str]

    @property
    def hours(self) -> float:
        """All stages, one after another."""
        return sum(stage.hours for stage in self.stages)

    @property
    def usd(self) -> float:
        """All stages."""
        return sum(stage.usd for stage in self.stages)

    def as_json(self) -> dict[str, object]:
        """For machines."""
        return {**asdict(self), "hours": self.hours, "usd": self.usd}


def make_plan(
    work: Work,
    shape: Shape,
    hardware: Hardware,
    prices: Prices,
    times: Times,
    *,
    grid: tuple[float, ...] = (),
) -> Plan:
    """Plan a run; `grid` has further customer percents to price, above 0 to 100."""
    memory = estimate_memory(shape, training_of(work, shape, hardware))
    needed, estimated = hardware.measured_memory or memory.total, f"{memory.line()}; {shape.line()}"
    room = hardware.instance.gpu_memory_gb * 1e9 * RESERVE
    stages = _stages(work, shape, hardware, prices)
    points = []
    for percent in grid:
        point = work.with_mix(customer_data_percent=percent, max_steps=0)
        hours, _ = training_hours(point, shape, hardware)
        usd = hours * hardware.nodes * hardware.instance.usd_per_hour
        points.append({"customer_data_percent": percent, "steps": point.steps, "hours": hours, "usd": usd})
    try:
        ends = times.start + timedelta(hours=sum(stage.hours for stage in stages))
    except OverflowError as error:
        raise ConfigError("the run would end after the year 9999: fewer steps, records or epochs") from error
    training_ends = times.start + timedelta(hours=sum(stage.hours for stage in stages[:2]))
    warnings = [prices.warning(times.start.date())]
    if needed > room:
        need = f"needs {needed / 1e9:.0f} GB, {hardware.instance.gpu} has {room / 1e9:.0f} to give"
        warnings.append(f"does not fit: {need}; larger GPUs, a smaller max_length, or method=lora")
    margin = timedelta(seconds=BLOCK_MARGIN_SECONDS)
    if times.block_ends and training_ends > times.block_ends - margin:
        late = (training_ends - times.block_ends + margin).total_seconds() / 3600
        warnings.append(
            f"the capacity block's job is ended {late:.1f} hours before the training is done "
            f"({BLOCK_MARGIN_SECONDS // 60} minutes before the block ends); more nodes, or fewer epochs"
        )
    if times.deadline and ends > times.deadline:
        late = (ends - times.deadline).total_seconds() / 3600
        warnings.append(f"the last stage ends {late:.1f} hours after the deadline")
    return Plan(
        stages=stages,
        grid=points,
        usd_per_hour=hardware.nodes * hardware.instance.usd_per_hour + hardware.evaluation.usd_per_hour,
        memory=f"measured: {needed / 1e9:.1f} GB per GPU" if hardware.measured_memory else estimated,
        fits=needed <= room,
        prices=f"{prices.source}, {prices.date}",
        ends=ends.astimezone(UTC).isoformat(timespec="minutes"),
        warnings=[warning for warning in warnings if warning],
    )


def training_of(work: Work, shape: Shape, hardware: Hardware) -> Training:
    """What the estimate takes for a GPU."""
    longest, memory, instance = work.mix.tokens.max_length, work.training.memory, hardware.instance
    tokens = largest_micro_batch(longest, work.mix.global_batch_size, memory.max_tokens_per_gpu)
    gpu_bytes = instance.gpu_memory_gb * 1e9
    shards = num_shards(shape, work.training, hardware.gpus, hardware.nodes, gpu_bytes)
    return training_on_gpus(work.training, tokens, packed=tokens > longest, shards=shards)


def training_hours(work: Work, shape: Shape, hardware: Hardware) -> tuple[float, str]:
    """Hours of the training, and where they come from."""
    gpus = hardware.nodes * hardware.gpus
    if hardware.measured:
        rate, basis = hardware.measured, f"measured: {hardware.measured:,.0f} tokens/s per GPU"
    else:
        of = work.training.method, shape.active, shape.attention, work.tokens_per_record
        operations, mfu = operations_per_token(*of), hardware.mfu or reachable_share(*of)
        factor = slowdown(work.layout, work.tokens_per_record)
        rate = mfu * hardware.instance.tflops * 1e12 / operations / factor
        basis = f"assumed: {mfu:.0%} of {hardware.instance.tflops:g} TFLOPS, {rate:,.0f} tokens/s per GPU"
        if factor > 1:
            basis += f", {factor:.1f} times as slow as with packed records"
    if hardware.gpus < hardware.instance.gpus:
        basis += f", on {hardware.gpus} of {hardware.instance.gpus} GPUs"
    return STARTUP_HOURS + work.tokens / (rate * gpus) / 3600, basis


def smallest(work: Work, shape: Shape, prices: Prices) -> Instance | None:
    """The cheapest instance on which the validation run fits; None: on none of the table."""
    for instance in sorted(prices.instances.values(), key=lambda item: item.usd_per_hour):
        hardware = Hardware(instance=instance, nodes=1, evaluation=instance, evaluation_hours=0)
        if estimate_memory(shape, training_of(work, shape, hardware)).total <= instance.gpu_memory_gb * 1e9 * RESERVE:
            return instance
    return None


def _stages(work: Work, shape: Shape, hardware: Hardware, prices: Prices) -> list[Stage]:
    first = smallest(work, shape, prices) or hardware.instance
    short = work.with_mix(max_steps=VALIDATION_STEPS)
    alone = Hardware(instance=first, nodes=1, evaluation=first, evaluation_hours=0, mfu=hardware.mfu)
    validation, basis = training_hours(short, shape, alone)
    training, why = training_hours(work, shape, hardware)
    basis_of_evaluation = "assumed; --evaluation-hours says otherwise" if hardware.evaluation_assumed else "as given"
    plan = [
        (f"validation run, {VALIDATION_STEPS} steps", 1, first, validation, basis),
        (f"training, {work.steps:,} steps", hardware.nodes, hardware.instance, training, why),
        ("evaluation, base and candidate", 1, hardware.evaluation, hardware.evaluation_hours, basis_of_evaluation),
    ]
    return [
        Stage(
            name=name,
            instances=count,
            instance=item.name,
            hours=hours,
            usd=count * hours * item.usd_per_hour,
            basis=text,
        )
        for name, count, item, hours, text in plan
    ]


def plan_text(plan: Plan) -> str:
    """Lines for a terminal."""
    lines = [
        f"{stage.name}: {stage.instances} x {stage.instance}, {stage.hours:.2f} h, ${stage.usd:,.2f} ({stage.basis})"
        for stage in plan.stages
    ]
    lines.append(
        f"total{' of one mix' if len(plan.grid) > 1 else ''}: {plan.hours:.2f} h, ${plan.usd:,.2f}; "
        f"training and evaluation together ${plan.usd_per_hour:,.2f} an hour"
    )
    lines.append(f"memory: {plan.memory}")
    for point in plan.grid:
        percent, steps = point["customer_data_percent"], point["steps"]
        lines.append(f"at {percent:g} % customer: {steps:,.0f} steps, {point['hours']:.2f} h, ${point['usd']:,.2f}")
    if len(plan.grid) > 1:
        hours, usd = (sum(point[key] for point in plan.grid) for key in ("hours", "usd"))
        lines.append(f"all {len(plan.grid)} trainings of the grid: {hours:.2f} h, ${usd:,.2f}")
        first, _, both = plan.stages
        times = (len(plan.grid) + 1) / 2  # of an evaluation of both models: the base's and every candidate's
        hours, usd = hours + first.hours + times * both.hours, usd + first.usd + times * both.usd
        lines.append(f"all of it, with {len(plan.grid) + 1} evaluations: {hours:.2f} h, ${usd:,.2f}")
    lines.append(
        f"ends: {plan.ends}; prices: {plan.prices}; every start assumes {STARTUP_HOURS} h before the first step"
    )
    return "\n".join([*lines, *(f"WARNING: {warning}" for warning in plan.warnings)])


def plan_html(plan: Plan) -> str:
    """One self-contained page."""
    stages = table(
        ["stage", "instances", "hours come from", "hours", "US dollars"],
        [[s.name, f"{s.instances} x {s.instance}", s.basis, f"{s.hours:.2f}", f"{s.usd:,.2f}"] for s in plan.stages],
        texts=3,
    )
    points = [
        [f"{p['customer_data_percent']:g} %", f"{p['steps']:,.0f}", f"{p['hours']:.2f}", f"{p['usd']:,.2f}"]
        for p in plan.grid
    ]
    if len(points) > 1:
        hours, usd = (sum(point[key] for point in plan.grid) for key in ("hours", "usd"))
        points.append(["all", "", f"{hours:.2f}", f"{usd:,.2f}"])
    grid = f"<h2>Mix grid</h2>{table(['customer', 'steps', 'hours', 'US dollars'], points)}" if points else ""
    warnings = "".join(f'<p class="summary warn">{escape(text)}</p>' for text in plan.warnings)
    return page(
        "plan",
        f"<h1>${plan.usd:,.2f}, {plan.hours:.2f} hours</h1>{warnings}{stages}"
        f"<p>Training and evaluation instances together: ${plan.usd_per_hour:,.2f} an hour.</p>"
        f"<p>{escape(plan.memory)}</p>{grid}"
        f"<p>Ends {escape(plan.ends)}. Prices: {escape(plan.prices)}. Every start assumes {STARTUP_HOURS} h before its "
        "first step.</p>",
    )
