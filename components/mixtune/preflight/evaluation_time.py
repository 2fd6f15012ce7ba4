"""How long a run's evaluations take where they run on this CPU; on a laptop they take longer than all else."""

from mixtune import storage
from mixtune.artifacts.comparison import CUSTOMER_AXIS
from mixtune.errors import ModelError
from mixtune.evaluate.benchmark_checks import BenchmarkPlans
from mixtune.evaluate.benchmarks import nll
from mixtune.evaluate.cpu_time import HeldOut, count_axes, describe, estimate_seconds, is_on_cpu, measure_speed
from mixtune.preflight.findings import Findings
from mixtune.preflight.item_checks import count_held_back
from mixtune.preflight.places import sample_lines
from mixtune.preflight.run_settings import RunSettings, valid
from mixtune.preflight.shape import Shape
from mixtune.settings.inference import GENERATION
from mixtune.settings.sanitize import SourceSettings


def check_time(run: RunSettings, plans: BenchmarkPlans, models: str = "") -> Findings:
    """Say how long the evaluation of a model takes on this CPU, unless GPUs or a cluster are asked; `models`: how many.

    Axes whose items cannot be counted yet are not in it.
    """
    nodes = valid(run.nodes)
    if nodes is None or nodes.gpus or run.asks_cluster or not is_on_cpu(plans):
        return
    try:
        shape = Shape.read(run.base_model)
    except ModelError:  # the check of the memory says why
        return
    held_out = _held_out(run, plans)
    tokens = count_axes(plans, held_out)
    if tokens:
        seconds = estimate_seconds(tokens, shape.active, measure_speed(shape.hidden, shape.inner, plans.settings.dtype))
        left_out = [f"{records.axis} not in it" for records in held_out if not records.num_items]
        yield "pass", "; ".join(text for text in (describe(seconds), *left_out, models) if text)


def _held_out(run: RunSettings, plans: BenchmarkPlans) -> list[HeldOut]:
    """Return the records that will be held back; of files that are not counted, none."""
    counts, customer = count_held_back(run), plans.settings.customer_options
    own = [source for source in run.sources if source.name == CUSTOMER_AXIS]
    general = [source for source in run.sources if source.name in run.general_pools]
    is_scored = customer.method != GENERATION and any("label" in source.columns for source in own)
    tested = HeldOut(
        axis=CUSTOMER_AXIS,
        num_items=counts.customer,
        lines=_sample(own),
        new_tokens=0 if is_scored else customer.max_new_tokens,
    )
    scored = HeldOut(axis=nll.AXIS, num_items=counts.general, lines=_sample(general))
    return [scored, tested] if general else [tested]


def _sample(sources: list[SourceSettings]) -> tuple[str, ...]:
    return tuple(line for source in sources for line in sample_lines(storage.plain_uri(source.uri)))
