"""The checks of a run before anything is computed: parameters, places, base model, memory, cluster, tracking."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mixtune import models, storage
from mixtune.chat.template_files import DEFAULT, read_templates
from mixtune.errors import ConfigError, MixtuneError, ModelError
from mixtune.preflight.cluster_checks import check_cluster
from mixtune.preflight.findings import Row, conclude, look
from mixtune.preflight.memory import RESERVE, Shape, Training, estimate_memory
from mixtune.preflight.places import check_artifacts, check_region, check_sources, encryption_key
from mixtune.prices import read_prices
from mixtune.settings.job import NodeSettings
from mixtune.settings.mix import check_grid, check_weights
from mixtune.tracking import Tracking, commit_hash
from mixtune.training_math import largest_micro_batch

VALIDATION_STEPS = 5
"""Of the validation run that goes before every training."""
SLOW_LORA = 5e-7
"""Peak learning rate under which not even LoRA+ lets an adapter learn in a usual number of steps."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is checked; the names and units are the pipeline's."""

    base_model: str
    weights: dict[str, float]
    customer_data_percents: list[float]
    """Several for a grid, at least one."""
    max_length: int
    method: str
    max_steps: int
    global_batch_size: int
    customer_epochs: float = 1.0
    learning_rate: float = 1e-5
    tracking: dict[str, Any] = field(default_factory=dict)
    storage: dict[str, Any] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    """`{"name", "uri"}` of everything that is read, as `fingerprint` leaves it."""
    artifacts: str = ""
    """Folder or prefix that artifacts are written to; empty: not looked at."""
    lora_rank: int = 16
    seed: int = 42
    num_nodes: str = ""
    """Nodes of the training job; empty or `0`: it runs in the task's process, and no cluster is looked at."""
    gpus_per_node: str = ""
    data_memory: str = ""
    """Memory that sanitize's tasks reserve, such as `4G`; empty: not looked at."""
    namespace: str = ""
    """Of the training job; empty: the pod's own."""


def run_preflight(settings: Settings, report_path: str) -> str:
    """Run all checks, print and write them; `pass`, or `warn` where one warns.

    Raises:
        ConfigError: At least one failed; all of those are named.
    """
    checks = [look(name, check, settings) for name, check in CHECKS.items()]
    return conclude(checks, "Preflight", checklist(settings), report_path)


def _check_mix(settings: Settings) -> Iterator[tuple[str, str]]:
    for percent in settings.customer_data_percents:
        yield "pass", f"{percent:g} % customer, {100 - percent:g} % from {len(settings.weights)} general pools"
        if not 0 <= percent <= 100:
            yield "fail", f"customer_data_percent is a percentage, 0 to 100; got {percent:g}"
    try:
        check_grid(len(settings.customer_data_percents))
        check_weights(settings.weights)
    except ConfigError as error:
        yield "fail", str(error)
    if 100 in settings.customer_data_percents:
        yield "warn", "100 % customer: nothing is mixed in, expect forgetting; 50 or 75 are good starts"


def _check_exposure(settings: Settings) -> Iterator[tuple[str, str]]:
    steps = f"{settings.max_steps} steps" if settings.max_steps else f"{settings.customer_epochs:g} customer epochs"
    yield "pass", f"{steps} of {settings.global_batch_size} records"
    if settings.global_batch_size < 1:
        yield "fail", f"global_batch_size is 1 or more; got {settings.global_batch_size}"
    if settings.max_steps < 0:
        yield "fail", f"max_steps is 0 or more; got {settings.max_steps}"
    if settings.max_steps == 0 and 0 in settings.customer_data_percents:
        yield "fail", "at 0 % customer no epoch of theirs ends; give max_steps"
    if settings.max_steps == 0 and settings.customer_epochs <= 0:
        yield "fail", f"customer_epochs is above 0; got {settings.customer_epochs:g}"


def _check_method(settings: Settings) -> Iterator[tuple[str, str]]:
    yield "pass", f"{settings.method}, learning rate {settings.learning_rate:g}"
    if settings.method not in ("lora", "sft"):
        yield "fail", f"method is 'lora' or 'sft'; got {settings.method!r}"
    if settings.learning_rate <= 0:
        yield "fail", f"learning_rate is above 0; got {settings.learning_rate:g}"
    elif settings.method == "lora" and settings.learning_rate < SLOW_LORA:
        yield "warn", f"learning rate {settings.learning_rate:g} is too low for LoRA to learn; 1e-5 is a good start"


def _check_model(settings: Settings) -> Iterator[tuple[str, str]]:
    folder = models.fetch_model(settings.base_model, weights=False)
    config = storage.read_json(str(folder / "config.json"))
    longest = config.get("max_position_embeddings") or config.get("n_positions") or 0
    yield "pass", f"{config.get('model_type', 'unknown')}, takes {longest or 'an unknown number of'} tokens"
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        yield "fail", f"{folder.name}: no tokenizer.json in it; save the tokenizer beside the model"
    if longest and settings.max_length > longest:
        yield "warn", f"max_length {settings.max_length} is more than the {longest} tokens that the model was made for"
    if DEFAULT not in read_templates(folder):
        yield "fail", f"{folder.name}: the tokenizer has no chat template; take the instruct version, or add one"
    if not (config.get("license") or list(folder.glob("LICENSE*")) or list(folder.glob("README*"))):
        yield (
            "warn",
            f"{folder.name}: no licence lies beside it (LICENSE or README.md); find out whether you may tune it",
        )
    if not list(folder.glob("*.safetensors")) and not models.is_hub_name(settings.base_model):
        yield "fail", f"{folder.name}: no safetensors weights in it; convert the model, pickles are not loaded"


def check_memory(settings: Settings) -> Iterator[tuple[str, str]]:
    """Whether a GPU holds a micro batch, or one record of `max_length` where that is longer."""
    folder = models.fetch_model(settings.base_model, weights=False)
    try:
        shape = Shape.from_config(storage.read_json(str(folder / "config.json")))
    except ModelError as error:
        yield "warn", str(error)
        return
    name = Tracking.from_options(settings.tracking).hyperpod.rpartition("x-")[2]
    gpus = _count("gpus_per_node", settings.gpus_per_node)
    tokens = largest_micro_batch(settings.max_length, settings.global_batch_size)
    training = Training(
        method=settings.method,
        micro_tokens=tokens,
        packed=tokens > settings.max_length,
        lora_rank=settings.lora_rank,
        gpu=bool(gpus),
        shards=max(1, gpus) if settings.method == "sft" else 1,
    )
    memory = estimate_memory(shape, training)
    line = f"{memory.line()}, estimated for micro batches of {tokens} tokens"
    instance = read_prices().instances.get(name)
    if not gpus or not instance:
        where = "on a CPU" if not gpus else "tracking.hyperpod names no known instance, such as 4x-p5.48xlarge"
        yield "pass", f"{line}; {where}"
        return
    room = instance.gpu_memory_gb * 1e9 * RESERVE
    yield "pass", f"{line}; {instance.gpu} has {room / 1e9:.0f} GB to give"
    if memory.total > room:
        yield (
            "fail",
            f"{line}: too big for {instance.gpu}, which has {room / 1e9:.0f} to give; "
            "method=lora, larger GPUs, or a smaller max_length",
        )
    if gpus > instance.gpus:
        yield "fail", f"gpus_per_node is {gpus}; {name} has {instance.gpus}"


def _count(name: str, text: str) -> int:
    if text and not text.isdecimal():
        raise ConfigError(f"{name} is a whole number as text, or empty; got {text!r}")
    return int(text or 0)


def _check_cluster(settings: Settings) -> Iterator[tuple[str, str]]:
    if not _count("num_nodes", settings.num_nodes):
        yield "pass", "num_nodes is empty: training runs in the task's own process, no cluster is asked"
        return
    nodes = NodeSettings(num_nodes=settings.num_nodes, gpus_per_node=settings.gpus_per_node)
    yield from check_cluster(settings.namespace, nodes)


def _check_tags(settings: Settings) -> Iterator[tuple[str, str]]:
    options = Tracking.from_options(settings.tracking)
    yield "pass", f"project {options.project}, experiment {options.experiment}, hyperpod {options.hyperpod}"
    if settings.num_nodes not in ("", "0") and options.hyperpod == "none":
        yield "warn", "tracking.hyperpod is not set; name the hardware, such as 4x-p5.48xlarge, so that cost is known"


def checklist(settings: Settings) -> list[Row]:
    """The article's reproducibility checklist: what is recorded, its value, and whether it is there."""
    try:
        tokenizer = models.tokenizer_digest(models.fetch_model(settings.base_model, weights=False))
    except MixtuneError:
        tokenizer = ""
    base = storage.split_fingerprint(settings.base_model)[1] or settings.base_model.partition("@")[2]
    named = os.environ.get("MIXTUNE_IMAGES", "").split()
    rows = [(f"data: {item['name']}", storage.split_fingerprint(item["uri"])[1]) for item in settings.sources]
    rows += [
        ("MLflow experiment and tags", _tracked(settings)),
        ("seed", str(settings.seed)),
        ("tokenizer version", tokenizer),
        ("base model", base),
        ("mix", f"{_listed(settings.customer_data_percents)} % customer; {settings.weights}"),
        ("validation run", f"max_steps={VALIDATION_STEPS}, before the training"),
        ("encryption of artifacts", encryption_key(settings.storage)),
        ("commit", "" if commit_hash() == "unknown" else commit_hash()),
        ("image digests", " ".join(named) if named and all("@sha256:" in name for name in named) else ""),
    ]
    return [(name, value or "not recorded", bool(value)) for name, value in rows]


def _listed(percents: list[float]) -> str:
    return ", ".join(f"{percent:g}" for percent in percents)


def _tracked(settings: Settings) -> str:
    """Where and under which tags; empty where nothing is tracked, or the hardware's tag is missing."""
    try:
        options = Tracking.from_options(settings.tracking)
    except ConfigError:
        return ""
    named = f"{options.experiment}: project {options.project}, hyperpod {options.hyperpod}"
    return named if options.uri and (options.hyperpod != "none" or not settings.num_nodes) else ""


def _check_tracking(settings: Settings) -> Iterator[tuple[str, str]]:
    uri = Tracking.from_options(settings.tracking).uri
    if not uri:
        yield "warn", "no MLflow tracking URI: nothing will be tracked; give tracking={'uri': ...}"
        return
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        yield "fail", f"MLflow at {uri} does not answer ({type(error).__name__}); check the address and the network"
        return
    yield "pass", f"MLflow at {uri} answers"


CHECKS: dict[str, Callable[[Settings], Iterator[tuple[str, str]]]] = {
    "mix": _check_mix,
    "exposure": _check_exposure,
    "method": _check_method,
    "data": lambda settings: check_sources(settings.sources, settings.data_memory),
    "region": lambda settings: check_region(settings.sources, settings.storage),
    "artifacts": lambda settings: check_artifacts(settings.artifacts, settings.storage),
    "base model": _check_model,
    "memory": check_memory,
    "cluster": _check_cluster,
    "tags": _check_tags,
    "tracking": _check_tracking,
}
