"""MLflow: one parent run per pipeline run, one child run per task that reports.

The parent is the run whose id is injected as `MLFLOW_RUN_ID` (Kubeflow's own MLflow plugin does that); else the run
tagged `pipeline_run_id`, with the id that the environment carries in `MIXTUNE_RUN_ID` (`mixtune run` sets it, on a
cluster the pod's run-id label does); it is made if it is not there yet. Where there is neither, a task's run stands
alone. A task that is run again continues its child run: nothing is doubled.

Without a tracking URI (`tracking={"uri": ...}` or `MLFLOW_TRACKING_URI`) nothing is tracked, and the log says so.
"""

import fcntl
import hashlib
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mixtune import storage
from mixtune.errors import ConfigError
from mixtune.settings.from_dict import from_dict

if TYPE_CHECKING:
    from mlflow import MlflowClient

ARTICLE_TAGS = (
    "project", "experiment", "mix_ratio", "lora_rank", "lr", "lora_lr",
    "seed", "steps", "dataset_version", "tokenizer_version", "commit_hash", "hyperpod",
)  # fmt: skip
"""The tags that every parent run carries; one that does not apply says `none`."""
SQLITE = "sqlite:///"
NAME_CHARACTERS, PARAM_CHARACTERS, TAG_CHARACTERS = 250, 6000, 8000
"""MLflow's limits on a name (an experiment's, too, in its databases), on a parameter's value and a tag's."""
PARAMS_AT_ONCE, METRICS_AT_ONCE = 100, 500
"""And on one request."""
COLLISIONS = ("BAD_REQUEST", "INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
"""What MLflow answers where two tasks insert the same parameter or tag at once: the second try finds it there."""
TRIES = 5
NOTE = "mlflow.note.content"
"""The tag that MLflow shows as a run's description."""
KIND, TRAINING_RUNS = "mlflow.experimentKind", "custom_model_development"
"""The tag by which MLflow opens an experiment on its training runs, not on traces."""


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Where and under which names runs are tracked: the `tracking` parameter of pipelines and components."""

    uri: str = ""
    """MLflow tracking URI; empty: `MLFLOW_TRACKING_URI`, and without that none."""
    experiment: str = "mixtune"
    project: str = "mixtune"
    hyperpod: str = "none"
    """The article's tag for the hardware, such as `4x-p5.48xlarge`."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Further tags of the parent run."""

    def __post_init__(self) -> None:
        if len(self.experiment) > NAME_CHARACTERS:
            raise ConfigError(
                f"experiment is a name of at most {NAME_CHARACTERS} characters; got {len(self.experiment)}: "
                f"{self.experiment[:40]!r}..."
            )
        for name, value in {"project": self.project, "hyperpod": self.hyperpod, **self.tags}.items():
            if name != as_name(name):
                raise ConfigError(
                    f"tags: MLflow takes no tag {name!r}: letters, digits, `_-./:` and space, {NAME_CHARACTERS} at "
                    f"most; take {as_name(name)!r}"
                )
            if len(value) > TAG_CHARACTERS:
                raise ConfigError(f"tags: {name} has {len(value):,} characters; MLflow takes {TAG_CHARACTERS:,}")

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> "Tracking":
        """Read the `tracking` parameter; what is empty is the default.

        Raises:
            ConfigError: An unknown key, or a value of another type.
        """
        values = {key: value for key, value in options.items() if value or key not in cls.__dataclass_fields__}
        return from_dict(cls, {"uri": os.environ.get("MLFLOW_TRACKING_URI", ""), **values}, "tracking")


class Run:
    """One MLflow run; without a client it takes everything and keeps nothing."""

    def __init__(self, client: "MlflowClient | None", run_id: str, parent_id: str = "") -> None:
        self.client, self.run_id, self.parent_id = client, run_id, parent_id

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log parameters; long values are cut."""
        if self.client:
            from mlflow.entities import Param

            values = [Param(as_name(key), str(value)[:PARAM_CHARACTERS]) for key, value in params.items()]
            for start in range(0, len(values), PARAMS_AT_ONCE):
                _write(self.client.log_batch, self.run_id, params=values[start : start + PARAMS_AT_ONCE])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics of a step."""
        self.log_steps({step: metrics})

    def log_steps(self, steps: Mapping[int, Mapping[str, float]]) -> None:
        """Log metrics of several steps, in few requests."""
        if self.client:
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            values = [
                Metric(as_name(key), float(value), now, step)
                for step, metrics in steps.items()
                for key, value in metrics.items()
            ]
            for start in range(0, len(values), METRICS_AT_ONCE):
                _write(self.client.log_batch, self.run_id, metrics=values[start : start + METRICS_AT_ONCE])

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags of this run, long ones cut; `none` takes no value's place that another task set."""
        if self.client:
            present = self.tags if "none" in tags.values() else {}
            for key, value in tags.items():
                if value != "none" or key not in present:
                    _write(self.client.set_tag, self.run_id, as_name(key), str(value)[:TAG_CHARACTERS])

    def end(self, status: str) -> None:
        """End this run as `FINISHED` or `FAILED`, unless Kubeflow's own MLflow plugin made it and ends it."""
        if self.client and self.run_id and self.run_id != os.environ.get("MLFLOW_RUN_ID"):
            self.client.set_terminated(self.run_id, status)

    def log_artifact(self, path: str | Path, folder: str = "") -> None:
        """Log a local file or folder as an artifact."""
        if self.client:
            log = self.client.log_artifacts if Path(path).is_dir() else self.client.log_artifact
            log(self.run_id, str(path), folder or None)

    def log_page(self, path: str) -> None:
        """Log a task's report as `report.html`: MLflow shows a page by its ending, which a task's own file lacks."""
        if self.client:
            self.log_text("report.html", storage.read_bytes(path).decode("utf-8", "replace"))

    def log_text(self, name: str, text: str) -> None:
        """Log a text as an artifact."""
        if self.client:
            self.client.log_text(self.run_id, text, name)

    @property
    def tags(self) -> dict[str, str]:
        """The tags that this run has; none where nothing is tracked."""
        return dict(self.client.get_run(self.run_id).data.tags) if self.client else {}

    @property
    def experiment_id(self) -> str:
        """The experiment that this run belongs to; empty where nothing is tracked."""
        return str(self.client.get_run(self.run_id).info.experiment_id) if self.client else ""

    def siblings_hours(self, prefixes: tuple[str, ...]) -> list[float]:
        """Return how many hours each ended child of this run's parent took, of those whose names begin so."""
        if not self.client or not self.parent_id:
            return []
        clause = f"tags.`mlflow.parentRunId` = '{self.parent_id}'"
        ended = [run.info for run in self.client.search_runs([self.experiment_id], clause) if run.info.end_time]
        return [(run.end_time - run.start_time) / 3.6e6 for run in ended if run.run_name.startswith(prefixes)]

    @property
    def parent(self) -> "Run":
        """The pipeline run's own run; this one where there is no other."""
        return Run(self.client, self.parent_id or self.run_id)


def _write(call: Callable[..., object], *args: object, **kwargs: object) -> None:
    """Send one write, again where another task wrote the same at the same moment."""
    from mlflow.exceptions import MlflowException

    for wait in [0.1 * 2**n for n in range(TRIES - 1)]:
        try:
            call(*args, **kwargs)
            return
        except MlflowException as error:
            if error.error_code not in COLLISIONS:
                raise
            time.sleep(wait * (0.5 + random.random()))  # apart from the other task's next try
    call(*args, **kwargs)


@contextmanager
def task_run(tracking: Tracking, name: str, subject: str = "", seconds: float = 0.0) -> Iterator[Run]:
    """Open the child run of a task; it is finished or failed as the block is.

    The name is the same whenever the task is run again within a pipeline run; `subject`, a digest, tells tasks of one
    name apart. `seconds` are what it took before it is logged, by another task; 0: it begins now.
    """
    if not tracking.uri:
        print(f"MLflow: no tracking URI, {name} is not tracked", flush=True)
        yield Run(None, "")
        return
    from mlflow import MlflowClient

    _keep_to_arns(tracking.uri)
    with _database_lock(tracking.uri):
        client = MlflowClient(tracking_uri=tracking.uri)  # makes the tables of a new database
        experiment_id = _experiment(client, tracking)
        parent_id = _parent(client, experiment_id, tracking)
        run_id = _child(client, experiment_id, parent_id, name, subject, seconds)
    run = Run(client, run_id, parent_id)
    client.update_run(run_id, status="RUNNING")
    if parent_id and parent_id != os.environ.get("MLFLOW_RUN_ID"):
        client.update_run(parent_id, status="RUNNING")
    try:
        yield run
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        run.parent.end("FAILED")  # a task that is tried again, or the next one, opens it anew
        raise
    client.set_terminated(run_id, "FINISHED")


def parent_run(tracking: Tracking, pipeline_run: str) -> Run | None:
    """Return the run of a pipeline run that has been tracked; None where nothing of it has been."""
    uri = tracking.uri
    if not uri or (uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_file()):
        return None
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(tracking.experiment)
    clause = f"tags.pipeline_run_id = '{pipeline_run}'"
    runs = client.search_runs([experiment.experiment_id], clause, max_results=1) if experiment else []
    return Run(client, str(runs[0].info.run_id)) if runs else None


def _keep_to_arns(uri: str) -> None:
    """Take SageMaker's plug-in out of MLflow's requests where the address is no ARN.

    It takes every address for an ARN, and MLflow warns of its failure at each request.
    """
    from mlflow.tracking.request_header import registry

    if not uri.startswith("arn:"):
        providers = registry._request_header_provider_registry
        providers._registry = [
            item for item in providers._registry if not type(item).__module__.startswith("sagemaker_mlflow")
        ]


@contextmanager
def _database_lock(uri: str) -> Iterator[None]:
    """Keep tasks that start together from each making the tables of one SQLite file."""
    if not uri.startswith(SQLITE):
        yield
        return
    path = Path(uri.removeprefix(SQLITE))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def point_name(task: str, mix_ratio: float | None) -> str:
    """Return a task's name with its customer share, `train 75 %`: a pipeline run may hold several mixes."""
    return task if mix_ratio is None else f"{task} {100 * mix_ratio:g} %"


def as_name(name: str) -> str:
    """Return a metric's, parameter's or tag's name as MLflow takes it: letters, digits, `_-./:` and space, no odd path.

    One that is too long ends with its digest, so that two of them stay two.
    """
    plain = "".join(char if char.isalnum() or char in "_-./: " else "_" for char in name)
    plain = "/".join(part if part.strip(".") else part.replace(".", "_") or "_" for part in plain.split("/"))
    if len(plain) <= NAME_CHARACTERS:
        return plain
    return f"{plain[: NAME_CHARACTERS - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def article_tags(values: Mapping[str, object], tracking: Tracking) -> dict[str, str]:
    """Return the article's tags, all of them; what is not given is `none`."""
    own = {"project": tracking.project, "experiment": tracking.experiment, "hyperpod": tracking.hyperpod}
    tags = {"commit_hash": commit_hash(), **own, **values}
    return {**{key: str(tags.get(key, "none")) for key in ARTICLE_TAGS}, **tracking.tags}


def commit_hash() -> str:
    """Return the commit that an image was built from (`MIXTUNE_COMMIT`) or the sources are at; else `unknown`."""
    if commit := os.environ.get("MIXTUNE_COMMIT"):
        return commit
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _experiment(client: "MlflowClient", tracking: Tracking) -> str:
    """Return the id of the experiment, made where it is not there; its artifacts lie beside an SQLite database."""
    from mlflow.exceptions import MlflowException

    name, location = tracking.experiment, None
    if tracking.uri.startswith(SQLITE):
        location = (Path(tracking.uri.removeprefix(SQLITE)).resolve().parent / "mlflow-artifacts").as_uri()
    try:
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            return str(client.create_experiment(name, location, tags={KIND: TRAINING_RUNS}))
    except MlflowException:  # another task made it at the same moment
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise
    if KIND not in experiment.tags:
        _write(client.set_experiment_tag, experiment.experiment_id, KIND, TRAINING_RUNS)
    return str(experiment.experiment_id)


def _parent(client: "MlflowClient", experiment_id: str, tracking: Tracking) -> str:
    pipeline_run = os.environ.get("MIXTUNE_RUN_ID", "")
    if injected := os.environ.get("MLFLOW_RUN_ID", ""):
        return injected
    if not pipeline_run:
        return ""
    tags = {"pipeline_run_id": pipeline_run, "project": tracking.project, **tracking.tags}
    return _find_or_create(client, experiment_id, {"pipeline_run_id": pipeline_run}, pipeline_run, tags)


def _child(client: "MlflowClient", experiment_id: str, parent_id: str, name: str, subject: str, seconds: float) -> str:
    start = int(1000 * (time.time() - seconds))
    if not parent_id:
        return str(client.create_run(experiment_id, start, run_name=name).info.run_id)
    key = {"mixtune_task": f"{name} {subject}".strip(), "mlflow.parentRunId": parent_id}
    return _find_or_create(client, client.get_run(parent_id).info.experiment_id, key, name, key, start)


def _find_or_create(
    client: "MlflowClient",
    experiment_id: str,
    key: dict[str, str],
    name: str,
    tags: dict[str, str],
    start: int | None = None,
) -> str:
    """Return the oldest run with these tags; when two tasks make one at the same moment, both take the older."""

    def find() -> list[str]:
        clause = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in key.items())
        runs = client.search_runs([experiment_id], clause, order_by=["attributes.start_time ASC"])
        return [str(run.info.run_id) for run in runs]

    if existing := find():
        return existing[0]
    own = str(client.create_run(experiment_id, start, run_name=name, tags=tags).info.run_id)
    oldest = find()[0]
    if oldest != own:
        client.delete_run(own)
    return oldest
