"""The checks of a run before anything is computed: parameters, places, base model, memory, cluster, tracking."""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from mixtune import models, storage
from mixtune.artifacts.comparison import CUSTOMER_AXIS
from mixtune.chat.template_files import DEFAULT, read_templates
from mixtune.errors import ConfigError, MixtuneError, ModelError
from mixtune.preflight.cluster_checks import check_cluster
from mixtune.preflight.findings import Findings, Row, conclude, look
from mixtune.preflight.item_checks import check_items
from mixtune.preflight.memory import RESERVE, Training, estimate_memory, num_shards, training_on_gpus
from mixtune.preflight.model_checks import check_architecture, check_embedding, check_lengths, check_weights
from mixtune.preflight.places import check_artifacts, check_region, check_sources, encryption_key
from mixtune.preflight.run_settings import RunSettings, valid
from mixtune.preflight.shape import Shape
from mixtune.preflight.template_check import check_template
from mixtune.prices import read_prices
from mixtune.processes import free_memory, memory_limit
from mixtune.settings.from_dict import from_dict
from mixtune.settings.inference import THOUGHTS_OFF, THOUGHTS_ON, EvaluateSettings
from mixtune.settings.job import NodeSettings
from mixtune.settings.mix import check_grid
from mixtune.settings.sanitize import SanitizeSettings, read_sanitize_settings
from mixtune.settings.train import VALIDATION_STEPS, TrainSettings
from mixtune.tracking import Tracking, commit_hash
from mixtune.training_math import CROSSOVER, LEAST_MICRO_TOKENS, largest_micro_batch, most_cpu_tokens

RECORDS_PER_GPU = 4
"""Of a global batch: at as many, records of mixed lengths keep some 60 % of 32 GPUs busy, at one 24 %."""

SHORT_TRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
"""How long MLflow's client asks a server that does not answer, in its own variables."""

FEW_STEPS = 20
"""Optimizer steps under which a training hardly moves a model, and a warm-up is most of it."""
IMAGE_DIGESTS = "image digests"
"""A row of the checklist that only the first preflight fills: no other task gets the names of all images."""


def run_preflight(
    run: RunSettings, report_path: str, further: Mapping[str, Callable[[], Findings]] = MappingProxyType({})
) -> str:
    """Run all checks and `further` ones, print and write them; return `pass`, or `warn` where one warns.

    Raises:
        ConfigError: At least one failed; all of those are named.
    """
    print("looking at files, base model and memory, before anything is computed", flush=True)
    checks = [look(name, check, run) for name, check in CHECKS.items() if name not in run.left_out]
    checks += [look(name, check) for name, check in further.items()]
    return conclude(checks, "Preflight", checklist(run), report_path)


def _check_mix(run: RunSettings) -> Findings:
    check_grid(len(run.customer_data_percents))
    if 100 in run.customer_data_percents:
        yield "warn", "100 % customer: nothing is mixed in, expect forgetting; 50 or 75 are good starts"
    records = run.num_records[CUSTOMER_AXIS, "train"]
    for percent in run.customer_data_percents:
        mix = run.mix(percent)
        mix.check_general_pools(run.general_pools)
        length = f"{mix.max_steps} steps" if mix.max_steps else f"{mix.customer_epochs:g} customer epochs"
        shares = f"{percent:g} % customer, {100 - percent:g} % from {len(run.weights)} general pools"
        yield "pass", f"{shares}; {length} of {mix.global_batch_size} records"
        steps = mix.about_steps(records)
        customers = FEW_STEPS * mix.global_batch_size * mix.mix_ratio  # as many of their records make so many steps
        enough = replace(mix, customer_epochs=math.ceil(customers / max(records, 1)))
        if records and steps < FEW_STEPS and not mix.max_steps:
            yield (
                "warn",
                f"about {records:,} customer records make about {steps} steps at {percent:g} %, which hardly move a "
                f"model: {enough.customer_epochs} customer_epochs make {enough.about_steps(records)}, or "
                "take a smaller mix_options.global_batch_size",
            )


def _check_training(run: RunSettings) -> Findings:
    training = run.training()
    yield "pass", f"{training.method}, learning rate {training.learning_rate:g}"
    if training.guards.max_nll_rise and (run.sanitize_options.get("splits") or {}).get("holdout_records") == 0:
        yield "fail", "max_nll_rise needs held-out general records, and sanitize_options.splits.holdout_records is 0"
    if warning := training.warning():
        yield "warn", warning


def check_settings(run: RunSettings) -> None:
    """Construct every setting of a run, without a look at files; a ConfigError names all that cannot be."""
    checks = [look(name, check, run) for name, check in SETTINGS.items() if name not in run.left_out]
    if problems := [f"{check.name}: {check.text}" for check in checks if check.outcome == "fail"]:
        raise ConfigError("\n".join(problems))


def _construct_options(run: RunSettings) -> tuple[SanitizeSettings, EvaluateSettings]:
    cleaning = dict(run.sanitize_options)
    if not isinstance(work := cleaning.pop("work_uri", ""), str):
        raise ConfigError(f"sanitize_options: work_uri is a folder or s3:// prefix; got {work!r}")
    evaluate = from_dict(EvaluateSettings, run.evaluate_options, "evaluate_options")
    if (nodes := valid(run.nodes)) and 0 < nodes.gpus < evaluate.gpus_per_model:
        raise ConfigError(
            f"evaluate_options: gpus_per_model is {evaluate.gpus_per_model}; gpus_per_node is {nodes.gpus}"
        )
    return read_sanitize_settings({"seed": run.seed}, cleaning), evaluate


def _check_known(run: RunSettings) -> Findings:
    _construct_options(run)
    run.nodes()
    yield "pass", "options of sanitize and evaluate are known and in range"


def _check_options(run: RunSettings) -> Findings:
    cleaning, evaluate = _construct_options(run)
    proof = cleaning.chat
    yield "pass", "options of sanitize and evaluate are known and in range"
    mix = valid(run.mix)
    if mix is None or "mix" in run.left_out:
        return
    for task, chat in (("sanitize", proof), ("evaluate", evaluate.chat)):
        for name in ("chat_template_uri", "thinking", "on_lost"):
            mine, learned = getattr(chat, name), getattr(mix.tokens, name)
            if mine != learned:
                text = f"{task}_options.chat: {name} is {mine!r}, and {learned!r} in mix_options, by which is learned"
                yield "fail", f"{text}; leave it out there"
    if evaluate.thinking in (THOUGHTS_ON, THOUGHTS_OFF) and evaluate.thinking != mix.tokens.thinking:
        text = f"evaluate_options: thinking is {evaluate.thinking!r}, and {mix.tokens.thinking!r} in mix_options"
        yield "warn", f"{text}: the model is asked otherwise than it is trained; leave it out to ask alike"


def _check_model(run: RunSettings) -> Findings:
    folder, mix = models.fetch_model(run.base_model, weights=False), valid(run.mix)
    licence = models.read_licence(folder)
    yield "pass", f"configuration, tokenizer and chat template are there; licence: {licence or 'not stated'}"
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        yield "fail", f"{folder.name}: no tokenizer.json in it; save the tokenizer beside the model"
    if DEFAULT not in read_templates(folder) and not (mix and mix.tokens.chat_template_uri):
        yield "fail", f"{folder.name}: the tokenizer has no chat template; take the instruct version, or add one"
    if not licence:
        where = "no LICENSE, nor `license` in the head of a README.md"
        yield "warn", f"{folder.name}: no licence lies beside it ({where}); find out whether you may tune it"
    if not models.is_hub_name(run.base_model):
        yield from check_weights(folder)


def check_memory(run: RunSettings) -> Findings:
    """Check that a GPU, or this machine, holds a micro batch, or one record of `max_length` where that is longer."""
    mix, settings, nodes = valid(run.mix), valid(run.training), valid(run.nodes)
    if mix is None or settings is None or nodes is None:
        return  # other checks say why
    models.fetch_model(run.base_model, weights=False)
    try:
        shape = Shape.read(run.base_model)
    except ModelError as error:
        yield "warn", str(error)
        return
    yield "pass", shape.line()
    chosen = settings.memory.max_tokens_per_gpu
    tokens = largest_micro_batch(mix.tokens.max_length, mix.global_batch_size, chosen, run.max_batch_tokens)
    training = training_on_gpus(settings, tokens, packed=tokens > mix.tokens.max_length)
    if nodes.gpus:
        yield from _check_gpu(run, shape, training, settings)
        yield from _check_batch(mix.global_batch_size, nodes)
    else:
        yield from _check_machine(shape, replace(training, gpu=False), min(tokens, mix.tokens.max_length), chosen)


def _check_gpu(run: RunSettings, shape: Shape, training: Training, settings: TrainSettings) -> Findings:
    """Hold a training against the GPU that `tracking.hyperpod` names."""
    name = Tracking.from_options(run.tracking).hyperpod.rpartition("x-")[2]
    instance, nodes, gpus = read_prices().instances.get(name), max(1, run.nodes().count), run.nodes().gpus
    gpu_bytes = instance.gpu_memory_gb * 1e9 if instance else float("inf")
    training = replace(training, shards=num_shards(shape, settings, gpus, nodes, gpu_bytes))
    memory = estimate_memory(shape, training)
    line = f"{memory.line()}, estimated for micro batches of {training.micro_tokens} tokens"
    if not instance:
        yield "pass", f"{line}; tracking.hyperpod names no known instance, such as 4x-p5.48xlarge"
        return
    room = instance.gpu_memory_gb * 1e9 * RESERVE
    yield "pass", f"{line}; {instance.gpu} has {room / 1e9:.0f} GB to give"
    if memory.total > room:
        ways = ", or ".join(_ways_to_fit(shape, training, settings, room, gpus * nodes))
        yield "fail", f"{line}: too big for {instance.gpu}, which has {room / 1e9:.0f} to give; {ways}"
    if gpus > instance.gpus:
        yield "fail", f"gpus_per_node is {gpus}; {name} has {instance.gpus}"


def _ways_to_fit(
    shape: Shape, training: Training, settings: TrainSettings, room: float, num_gpus: int
) -> Iterator[str]:
    """Yield what would make a training fit, options first that are known to."""
    if settings.method == "sft":
        yield "method=lora, or more nodes"
    elif training.shards == 1 and estimate_memory(shape, replace(training, shards=num_gpus)).total <= room:
        yield "train_options={'memory': {'shard_base': True}}"
    if not training.keeps_activations and training.activations != "offload":
        yield "train_options={'memory': {'activations': 'offload'}}"
    yield "larger GPUs, a smaller max_tokens_per_gpu or a smaller max_length"


def _check_batch(global_batch_size: int, nodes: NodeSettings) -> Findings:
    """Say where a global batch is too small to keep all GPUs busy: they wait for the one with the longest record."""
    num_gpus = nodes.gpus * max(1, nodes.count)
    if global_batch_size < RECORDS_PER_GPU * num_gpus:
        text = f"global_batch_size {global_batch_size} over {num_gpus} GPUs: with under {RECORDS_PER_GPU} records each"
        yield "warn", f"{text} they wait for one another; {RECORDS_PER_GPU * num_gpus} or more keeps them busy"


def _check_machine(shape: Shape, training: Training, longest: int, chosen: int) -> Findings:
    """Hold a training on a CPU against this machine's memory, or the pod's.

    Where `max_tokens_per_gpu` (`chosen`) is open, micro batches come down to a few packed records, or to the longest
    record alone; what they may be at most is what pays.
    """
    few, most = min(training.micro_tokens, LEAST_MICRO_TOKENS), most_cpu_tokens(CROSSOVER * shape.hidden)
    cases = [training] if chosen else [replace(training, micro_tokens=tokens, packed=packed) for tokens, packed in (
        (longest, False), (few, True), (min(training.micro_tokens, most), True),
    )]  # fmt: skip
    sizes = [(estimate_memory(shape, case), case.micro_tokens) for case in cases]
    least, tokens = max(sizes[:2], key=lambda size: size[0].total)
    whole, largest = max(sizes, key=lambda size: size[0].total)
    line = f"{least.line('process')}, estimated for micro batches of {tokens} tokens"
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        yield "pass", f"{line}; on a pod's CPU"
        return
    limit, free = memory_limit(), free_memory()
    has = f"this machine has {limit / 1e9:.1f} GB, {free / 1e9:.1f} of them free"
    way = "method=lora, a smaller max_length, or a machine with more memory"
    if least.total > limit:
        yield "fail", f"{line}; {has}: it cannot fit; {way}"
    elif least.total > free:
        yield "warn", f"{line}; {has}: close other programs, or {way}"
    elif whole is not least:
        most_taken = f"{whole.total / 1e9:.1f} GB for {largest} tokens at once"
        yield "pass", f"{line}, up to {most_taken}: as many as fit are taken; {has}"
    else:
        yield "pass", f"{line}; {has}"


def _check_cluster(run: RunSettings) -> Findings:
    nodes = run.nodes()
    if nodes.count:
        yield from check_cluster(run.namespace, nodes)
    else:
        yield "pass", "num_nodes is empty: training runs in the task's own process, no cluster is asked"


def _check_tags(run: RunSettings) -> Findings:
    options = Tracking.from_options(run.tracking)
    yield "pass", f"project {options.project}, experiment {options.experiment}, hyperpod {options.hyperpod}"
    if run.asks_cluster and options.hyperpod == "none":
        yield "warn", "tracking.hyperpod is not set; name the hardware, such as 4x-p5.48xlarge, so that cost is known"


def checklist(run: RunSettings) -> list[Row]:
    """Return the article's reproducibility checklist: what is recorded, its value, and whether it is there."""
    try:
        tokenizer = models.tokenizer_digest(models.fetch_model(run.base_model, weights=False))
    except MixtuneError:
        tokenizer = ""
    base = storage.split_fingerprint(run.base_model)[1] or run.base_model.partition("@")[2]
    images = os.environ.get("MIXTUNE_IMAGES", "").split()
    percents = ", ".join(f"{percent:g}" for percent in run.customer_data_percents)
    weights = ", ".join(f"{name} {weight:g} %" for name, weight in run.weights.items())
    rows = [(f"data: {item.name}", storage.split_fingerprint(item.uri)[1]) for item in (*run.sources, *run.measured)]
    rows += [
        ("MLflow experiment and tags", _tracked(run)),
        ("seed", str(run.seed)),
        ("tokenizer version", tokenizer),
        ("base model", base),
        ("mix", f"{percents} % customer; {weights}"),
        ("validation run", f"max_steps={VALIDATION_STEPS}, before the training"),
        ("encryption of artifacts", encryption_key(run.storage)),
        ("commit", "" if commit_hash() == "unknown" else commit_hash()),
        (IMAGE_DIGESTS, " ".join(images) if images and all("@sha256:" in image for image in images) else ""),
    ]
    return [(name, value or "not recorded", bool(value)) for name, value in rows]


def _tracked(run: RunSettings) -> str:
    """Return where and under which tags; empty where nothing is tracked, or the hardware's tag is missing."""
    try:
        options = Tracking.from_options(run.tracking)
    except ConfigError:
        return ""
    place = f"{options.experiment}: project {options.project}, hyperpod {options.hyperpod}"
    return place if options.uri and (options.hyperpod != "none" or not run.asks_cluster) else ""


def _check_tracking(run: RunSettings) -> Findings:
    uri = Tracking.from_options(run.tracking).uri
    if not uri and (os.environ.get("KUBERNETES_SERVICE_HOST") or run.asks_cluster):
        yield "warn", "no MLflow tracking URI: nothing will be tracked; give tracking={'uri': ...}"
        return
    if not uri:
        yield "skip", "runs here are tracked in the work folder's mlflow.db; on a cluster give tracking={'uri': ...}"
        return
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for name, value in SHORT_TRIES.items():  # its own are minutes long
        os.environ.setdefault(name, value)
    name = Tracking.from_options(run.tracking).experiment
    try:
        experiment = MlflowClient(tracking_uri=uri).get_experiment_by_name(name)
    except (MlflowException, OSError) as error:
        yield "fail", f"MLflow at {uri} does not answer ({type(error).__name__}); check the address and the network"
        return
    if experiment and experiment.lifecycle_stage == "deleted":
        yield (
            "fail",
            f"MLflow's experiment {name!r} is deleted; restore it, or name another in tracking.experiment",
        )
    yield "pass", f"MLflow at {uri} answers"


SETTINGS: dict[str, Callable[[RunSettings], Findings]] = {
    "mix": _check_mix,
    "training": _check_training,
    "options": _check_known,
    "tags": _check_tags,
}
"""The checks that look at no file."""
CHECKS: dict[str, Callable[[RunSettings], Findings]] = {
    "mix": _check_mix,
    "training": _check_training,
    "options": _check_options,
    "data": lambda run: check_sources(run.sources, sum(run.num_records.values()), run.data_memory),
    "region": lambda run: check_region([*run.sources, *run.measured], run.storage),
    "artifacts": lambda run: check_artifacts(run.artifacts, run.storage),
    "base model": _check_model,
    "architecture": check_architecture,
    "lengths": check_lengths,
    "embedding": check_embedding,
    "chat template": check_template,
    "memory": check_memory,
    "cluster": _check_cluster,
    "items": check_items,
    "tags": _check_tags,
    "tracking": _check_tracking,
}
