"""Settings of training jobs, checked as they are constructed: a run's nodes, and the platform's ConfigMap."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime

from mixtune.errors import ConfigError

CONFIG_MAP = "mixtune-jobs"
"""ConfigMap of a run's namespace that holds `JobSettings`."""
BACKENDS = ("trainjob", "pytorchjob")
LAUNCHERS = ("", "process", *BACKENDS)
BLOCK_MARGIN_SECONDS = 45 * 60
"""A job ends this long before its capacity block: EC2 takes the instances 30 minutes before the block's end, Karpenter
drains them 10 minutes earlier, and a last checkpoint may take 5."""
MIN_SECONDS = 15 * 60
"""A job that could not run this long before a capacity block's end is not started."""


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """The nodes that a run asks for."""

    launcher: str = ""
    """`process`, `trainjob` or `pytorchjob`; empty: `process` without nodes, else the platform's kind of job."""
    num_nodes: str = ""
    """Nodes of a job; empty or `0`: none."""
    gpus_per_node: str = ""
    """GPUs, and so processes, of each node; empty or `0`: one process without a GPU."""

    def __post_init__(self) -> None:
        if self.launcher not in LAUNCHERS:
            raise ConfigError(f"launcher is empty or one of {', '.join(LAUNCHERS[1:])}; got {self.launcher!r}")
        for name in ("num_nodes", "gpus_per_node"):
            if getattr(self, name) and not getattr(self, name).isdecimal():
                raise ConfigError(f"{name} is empty or a whole number as text; got {getattr(self, name)!r}")
        if self.launcher == "process" and self.count:
            raise ConfigError(
                f"launcher 'process' trains in the task's own process; num_nodes is {self.num_nodes!r}: leave it "
                "empty, or leave launcher empty to train as a job"
            )
        if self.launcher in BACKENDS and not self.count:
            raise ConfigError(f"launcher {self.launcher!r} needs num_nodes, 1 or more; got {self.num_nodes!r}")

    @property
    def count(self) -> int:
        """Nodes of the job; 0: there is no job."""
        return int(self.num_nodes or 0)

    @property
    def gpus(self) -> int:
        """GPUs of each node."""
        return int(self.gpus_per_node or 0)


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """Settings of training jobs that are the cluster's, not the run's: what a platform engineer sets once."""

    backend: str = "trainjob"
    """What a job is where a step does not say: `trainjob` (Kubeflow Trainer) or `pytorchjob` (Training Operator v1)."""
    runtime: str = "mixtune-torch-p5"
    """Runtime (`pytorchjob`: PodTemplate) of jobs with GPUs."""
    cpu_runtime: str = "mixtune-torch-cpu"
    """The same for jobs without."""
    runtime_kind: str = "ClusterTrainingRuntime"
    """Or `TrainingRuntime`, where the runtimes are the namespace's own."""
    queue: str = ""
    """Kueue's LocalQueue; empty: jobs start at once."""
    priority: str = ""
    """Kueue's priority class of a training; empty: the queue's own."""
    validation_priority: str = ""
    """The same for a validation run."""
    deadline_seconds: int = 4 * 24 * 3600
    """A job that has been active so long is ended."""
    capacity_block_end: str = ""
    """UTC end of the capacity block that the nodes are of, such as `2026-12-01T11:30:00Z`; empty: there is none."""

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ConfigError(f"{CONFIG_MAP}: backend is one of {', '.join(BACKENDS)}; got {self.backend!r}")
        if self.runtime_kind not in ("ClusterTrainingRuntime", "TrainingRuntime"):
            raise ConfigError(
                f"{CONFIG_MAP}: runtime_kind is ClusterTrainingRuntime or TrainingRuntime; got {self.runtime_kind!r}"
            )
        if self.deadline_seconds < 1:
            raise ConfigError(f"{CONFIG_MAP}: deadline_seconds is 1 or more; got {self.deadline_seconds}")
        if self.capacity_block_end:
            _block_end(self.capacity_block_end)

    @classmethod
    def from_config_map(cls, data: Mapping[str, str]) -> "JobSettings":
        """Read the map's data; what it leaves out or leaves empty is the default.

        Raises:
            ConfigError: An unknown key, or a value that cannot be.
        """
        names = [item.name for item in fields(cls)]
        if unknown := sorted(set(data) - set(names)):
            raise ConfigError(f"{CONFIG_MAP}: unknown key {unknown[0]!r}; there are {', '.join(names)}")
        values: dict[str, str | int] = {key: value.strip() for key, value in data.items() if value.strip()}
        if "deadline_seconds" in values:
            if not str(values["deadline_seconds"]).isdecimal():
                raise ConfigError(f"{CONFIG_MAP}: deadline_seconds is a number; got {values['deadline_seconds']!r}")
            values["deadline_seconds"] = int(values["deadline_seconds"])
        return cls(**values)  # type: ignore[arg-type]

    def backend_of(self, nodes: NodeSettings) -> str:
        """Return the kind of job that a run becomes, one of `BACKENDS`."""
        return nodes.launcher or self.backend

    def runtime_of(self, nodes: NodeSettings) -> str:
        """Return the runtime, or PodTemplate, of a run's job."""
        return self.runtime if nodes.gpus else self.cpu_runtime

    def last_second(self) -> float:
        """Return when a job must have ended, in seconds since the epoch; infinite without a capacity block."""
        if not self.capacity_block_end:
            return float("inf")
        return _block_end(self.capacity_block_end) - BLOCK_MARGIN_SECONDS

    def seconds_for(self, now: float) -> int:
        """Return how many seconds a job that starts now may be active.

        Raises:
            ConfigError: The capacity block is over, or so near its end that nothing should be started.
        """
        seconds = self.last_second() - now
        if seconds < MIN_SECONDS:
            raise ConfigError(
                f"the capacity block ends at {self.capacity_block_end} and its nodes {BLOCK_MARGIN_SECONDS // 60} "
                f"minutes earlier: less than {MIN_SECONDS // 60} minutes are left; set the next block's end in "
                f"ConfigMap {CONFIG_MAP}"
            )
        return int(min(self.deadline_seconds, seconds))


def _block_end(text: str) -> float:
    try:
        end = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{CONFIG_MAP}: capacity_block_end is a time such as 2026-12-01T11:30:00Z; got {text!r}"
        ) from error
    return (end if end.tzinfo else end.replace(tzinfo=UTC)).timestamp()
