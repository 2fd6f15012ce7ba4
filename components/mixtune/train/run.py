"""From a training task to a trained model in its place."""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from mixtune import models, storage
from mixtune.artifacts.model import LossCurve, ModelManifest, Restoration, TrainedModel, TrainingFigures, read_model
from mixtune.artifacts.shards import Shards, ShardsManifest, TokenRecord, open_shards
from mixtune.artifacts.typed_json import read_artifact, write_artifact
from mixtune.errors import ConfigError
from mixtune.tracking import Run, article_tags, point_name, task_run
from mixtune.train.batches import Layout, check_ids
from mixtune.train.checkpoints import Checkpoints, delete_checkpoints
from mixtune.train.distributed import ProcessGroup, join_process_group
from mixtune.train.forgetting_monitor import ForgettingMonitor
from mixtune.train.loop import OnStep, train_steps
from mixtune.train.metrics import StepMetrics, loss_curves, summarize, track
from mixtune.train.modeling.activations import fastest_activations, set_activations
from mixtune.train.modeling.attention import attention_names, settle_attention, try_training
from mixtune.train.modeling.kernels import active_flash
from mixtune.train.modeling.probe import probe
from mixtune.train.modeling.speed import compile_layers, undo_compile
from mixtune.train.modeling.trainable import Trainable, load_trainable
from mixtune.train.postprocess import name_base, postprocess
from mixtune.train.restoring.distillation import restore_towards_base
from mixtune.train.task import TrainTask
from mixtune.train.trainer import Trainer, make_trainer

LAYOUTS = {
    Layout.BORDERS: "records are packed, and its kernels get each record's start",
    Layout.ROWS: "each record is a row of its own, padded to the longest: exact, and somewhat slower than packed ones",
    Layout.SINGLE: "every record is a forward pass of its own: exact, and slower than packed ones",
}


@dataclass(frozen=True, kw_only=True)
class Session:
    """What trainings and validation runs begin with."""

    task: TrainTask
    group: ProcessGroup
    run: Run
    """In MLflow; one that keeps nothing in all but the main process."""
    scratch: Path
    """A folder that goes away."""
    base_folder: Path
    """The base model, on local disk."""
    shards: Shards
    start: Path | None = None
    """The trained model that `restore` begins with, on local disk; None: the base model."""

    def folder(self, name: str) -> str:
        """Return the URI of a folder beside the model's manifest: `model` or `checkpoints`."""
        return storage.data_uri(self.task.outputs.model_uri, name)


@contextmanager
def open_session(task: TrainTask, name: str) -> Iterator[Session]:
    """Join the other processes, open the MLflow run of that name, and fetch base model and shards.

    Raises:
        ConfigError: The base model's tokenizer is not the one that the shards were made with.
    """
    with join_process_group() as group, tempfile.TemporaryDirectory() as scratch, _open_run(task, name, group) as run:
        path = task.inputs.shards_path
        base, *further = folders = [name for name in (task.inputs.base_model, task.inputs.start_model) if name]
        for name in filter(storage.is_s3, folders):
            models.fetch_model(name, share=group.share())
        with group.local_main_first():
            base_folder = models.fetch_model(base)
            start = models.fetch_model(further[0]) if further else None
            shards = open_shards(path, _shards_folder(path, Path(scratch), group))
        _check_tokenizer(shards, base_folder)
        yield Session(
            task=task,
            group=group,
            run=run,
            scratch=Path(scratch),
            base_folder=base_folder,
            shards=shards,
            start=start,
        )


def prepare(session: Session) -> Trainer:
    """Load the model and make its optimizer.

    Raises:
        ModelError: The base model cannot be used, or does not keep packed records apart.
    """
    settings, shards = session.task.settings, session.shards
    session.run.log_params({**settings.flat(), "num_steps": shards.num_steps, "shards": shards.digest})
    if session.group.is_main and (warning := settings.warning()):
        print(f"warning: {warning}", flush=True)
    model = load_trainable(session.base_folder, settings, session.group, session.start)
    if session.group.is_main:
        print(f"{'the adapter works on' if model.adapter else 'trained are'} {model.reach.line()}", flush=True)
    _choose_layout(session, model)
    trainer = make_trainer(shards, model, settings, session.group)
    return restore_towards_base(trainer) if settings.restore else trainer


def _choose_layout(session: Session, model: Trainable) -> None:
    """Let records lie in a forward pass as all processes find that the model keeps them apart."""
    shards, group, layouts = session.shards, session.group, list(Layout)
    records = [record for step in range(min(3, shards.num_steps)) for record in shards.step(step)[:3]][:3]
    check_ids(records, model.loss.num_rows)
    lines = settle_attention(model.loss, records, attention_names(model.loss.dtype))
    if group.is_main and lines:
        now = model.causal.config._attn_implementation
        print("\n".join([*lines, f"attention: {now}, which is exact and may be slower"]), flush=True)
    if group.is_main and (name := active_flash()):
        print(f"attention: {model.causal.config._attn_implementation}, where it is torch's by {name}", flush=True)
    chosen = session.task.settings.memory.activations
    if group.device.type == "cuda" and not chosen:
        _keep_what_fits(session, model, records)
    if chosen == "selective" and (reason := try_training(model.loss, records)):
        name = type(model.causal).__name__
        raise ConfigError(f"activations: {name} cannot keep products alone ({reason}); take recompute")
    _compile(session, model, records)
    reason = probe(model.loss, records)
    # (layouts,) how many processes chose each; the slowest counts.
    votes = torch.tensor(
        [float(model.loss.layout is item) for item in layouts], dtype=torch.float64, device=group.device
    )
    votes = group.all_reduce_sum(votes)
    model.loss.layout = [item for item, count in zip(layouts, votes.tolist(), strict=True) if count][-1]
    if group.is_main and model.loss.layout is not Layout.PACKED:
        print(
            f"{type(model.causal).__name__}: {reason or 'another process found a leak'}; {LAYOUTS[model.loss.layout]}",
            flush=True,
        )


def _keep_what_fits(session: Session, model: Trainable, records: list[TokenRecord]) -> None:
    """Let the layers keep what the GPU has room for, in all processes alike; where that fails, nothing but inputs."""
    group, longest = session.group, session.shards.manifest.max_record_tokens
    choice = fastest_activations(model.causal, session.task.settings, group, longest)
    if choice == "recompute":
        return
    set_activations(model.causal, choice)
    reason = try_training(model.loss, records)
    if group.any_process(bool(reason)):
        set_activations(model.causal, "recompute")
        choice = f"recompute ({reason or 'another process cannot keep more'})"
    if group.is_main:
        print(f"activations: {choice}, by the estimate of memory", flush=True)


def _compile(session: Session, model: Trainable, records: list[TokenRecord]) -> None:
    """Compile the layers where that is asked for and works in all processes; else say why not."""
    choice, group = session.task.settings.memory.compiled, session.group
    if choice == "no" or (not choice and group.device.type != "cuda"):
        return
    reason = compile_layers(model.loss, records)
    if group.any_process(bool(reason)):
        undo_compile(model.loss)
        if group.is_main:
            print(f"layers are not compiled ({reason or 'another process cannot'}): exact, and slower", flush=True)


def run_training(task: TrainTask, on_step: OnStep = lambda trainer, metrics: None) -> TrainedModel:
    """Train over the shards and leave the model in its place; `on_step` sees every step.

    A training that was killed goes on from its newest checkpoint when it is run again in the same place; one that is
    done is not trained again.

    Raises:
        TrainingError: Loss or gradient is not finite or far off, or too much is forgotten at once.
        ModelError: The base model cannot be used.
        ConfigError: Its tokenizer is not the one that the shards were made with.
    """
    with open_session(task, "restore" if task.settings.restore else "train") as session:
        group, run = session.group, session.run
        if finished := group.broadcast_text(_finished_model(session) if group.is_main else ""):
            if group.is_main:
                delete_checkpoints(session.folder("checkpoints"))
            return TrainedModel(finished)
        trainer = prepare(session)
        trainer = replace(trainer, monitor=make_monitor(trainer))
        _track_origin(session, trainer)
        identity = {
            "shards": session.shards.digest,
            "base_model": task.inputs.base_model,
            "layout": str(trainer.model.loss.layout),
            **({"start_model": task.inputs.start_model} if task.inputs.start_model else {}),
        }
        checkpoints = Checkpoints(session.folder("checkpoints"), {**task.settings.identity(), **identity}, trainer)
        steps = train_steps(trainer, checkpoints, on_step)
        with checkpoints.catch_sigterm():
            history = track(steps, trainer.num_steps, run) if group.is_main else list(steps)
        checkpoints.finish()
        model = _save_model(session, trainer, history)
        run.set_tags({"model_uri": str(model), "attempts": checkpoints.lineage})
        group.barrier()
        checkpoints.delete()
        return model


def make_monitor(trainer: Trainer) -> ForgettingMonitor | None:
    """Return what evaluates the held-out records; None where none were held out.

    Raises:
        ConfigError: There is a limit on what may be forgotten, and no record to see it by.
    """
    records, settings = trainer.shards.holdout(), trainer.settings
    if settings.guards.max_nll_rise and not records:
        raise ConfigError("max_nll_rise: the shards hold no held-out general records; hold some back in sanitize, or 0")
    if not records:
        return None
    base, tokens = trainer.objective.base() if trainer.objective else None, trainer.max_micro_tokens
    if trainer.group.on_cpu:  # there attention looks at the whole row: beyond, that costs more than packing saves
        tokens = min(tokens, trainer.model.crossover_length // 2)
    return ForgettingMonitor(records, trainer.model.loss, tokens, base, trainer.group)


def write_manifest(
    session: Session,
    trainer: Trainer,
    figures: TrainingFigures,
    files: list[storage.FileEntry],
    curves: tuple[LossCurve, ...],
) -> None:
    """Write the model's manifest, last, and log the figures."""
    task = session.task
    session.run.log_metrics(figures.metrics(), trainer.num_steps)
    manifest = ModelManifest(
        settings=task.settings,
        base_model=task.inputs.base_model,
        shards=session.shards.digest,
        figures=figures,
        reach=trainer.model.reach,
        chat=session.shards.manifest.chat,
        curves=curves,
        restoration=_restoration(task, trainer),
        data_uri=session.folder("model"),
        files=tuple(sorted(files, key=lambda entry: entry.path)),
    )
    write_artifact(task.outputs.model_path, manifest)


def _restoration(task: TrainTask, trainer: Trainer) -> Restoration | None:
    """Return what drew a trained model back towards its base; None for a training from the base."""
    if not task.inputs.start_model:
        return None
    if not trainer.monitor:
        return Restoration(model_uri=task.inputs.start_model)
    base, before, after = trainer.monitor.base, trainer.monitor.start, trainer.monitor.last
    return Restoration(
        model_uri=task.inputs.start_model,
        base_nll=base.nll,
        nll_before=before.nll,
        nll_after=after.nll,
        kl_before=before.kl,
        kl_after=after.kl,
    )


def _save_model(session: Session, trainer: Trainer, history: list[StepMetrics]) -> TrainedModel:
    """Save the model, upload it, and write its manifest; processes other than the main one get no URI."""
    trainer.model.check_finite()
    out = session.scratch / "model"
    out.mkdir()
    trainer.model.save(out, session.group.is_main)
    if not session.group.is_main:
        return TrainedModel("")
    if session.task.settings.method == "lora":
        name_base(out, session.task.inputs.base_model, session.base_folder)
    postprocess(out, session.base_folder, session.task.settings)
    if template := session.shards.manifest.chat_template:
        for config in out.glob("**/tokenizer_config.json"):  # of a merged model, too
            config.with_name("chat_template.jinja").write_text(template, encoding="utf-8")
    storage.delete(session.task.outputs.model_path)  # of another training
    files = storage.upload(out, session.folder("model"))
    write_manifest(session, trainer, summarize(trainer, history), files, loss_curves(trainer, history))
    return TrainedModel(storage.fingerprint(session.folder("model")))


def _finished_model(session: Session) -> str:
    """Return the model's URI where this very training has already left it: a job may be started once more."""
    task = session.task
    if not storage.file_exists(task.outputs.model_path):
        return ""
    manifest = read_model(task.outputs.model_path)
    start = manifest.restoration.model_uri if manifest.restoration else ""
    expected = (task.settings, session.shards.digest, task.inputs.base_model, task.inputs.start_model)
    if (manifest.settings, manifest.shards, manifest.base_model, start) != expected or not manifest.files:
        return ""
    manifest.verify()
    print(f"this training is done: {manifest.data_uri}", flush=True)
    return storage.fingerprint(manifest.data_uri)


def _track_origin(session: Session, trainer: Trainer) -> None:
    """Track what the model comes from: settings, base model, shards, their pools and their receipt."""
    run, shards, task = session.run, session.shards, session.task
    tags = {**shards.manifest.article_tags(), **task.settings.article_tags(), "seed": task.settings.seed}
    run.parent.set_tags(article_tags(tags, task.outputs.tracking))
    pools = {f"{name}_pools": item.digest for name, item in shards.manifest.inputs.items()}
    start = {"start_model": task.inputs.start_model} if task.inputs.start_model else {}
    run.set_tags({"base_model": task.inputs.base_model, "shards": shards.digest, **pools, **start})
    receipt = session.scratch / "mix_receipt.json"
    receipt.write_text(json.dumps(asdict(shards.manifest.receipt), indent=1))
    run.log_artifact(receipt)
    if trainer.monitor:
        run.log_metrics({"general_nll": trainer.monitor.start.nll, "kl_to_base": trainer.monitor.start.kl})


@contextmanager
def _open_run(task: TrainTask, name: str, group: ProcessGroup) -> Iterator[Run]:
    if not group.is_main:
        yield Run(None, "")
        return
    mix_ratio = read_artifact(ShardsManifest, task.inputs.shards_path).mix_ratio
    subject = storage.manifest_digest(asdict(task.settings))
    with task_run(task.outputs.tracking, point_name(name, mix_ratio), subject) as run:
        yield run


def _shards_folder(path: str, scratch: Path, group: ProcessGroup) -> Path:
    """Return where shards from S3 are fetched to: one place a node."""
    folder = models.cache_dir() / "shards" / hashlib.sha256(path.encode()).hexdigest()[:16]
    return scratch / "shards" if group.local_size == 1 else folder


def _check_tokenizer(shards: Shards, folder: Path) -> None:
    of_shards, of_model = shards.manifest.tokenizer_digest, models.tokenizer_digest(folder)
    if of_shards != of_model:
        raise ConfigError(
            f"the shards were made with tokenizer {of_shards}, the base model has {of_model}; run mix_shard with this "
            "base model"
        )
