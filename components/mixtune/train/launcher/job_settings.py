"""What a platform engineer sets once for all training jobs: the ConfigMap `mixtune-jobs` of a run's namespace."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime

from mixtune.errors import ConfigError

CONFIG_MAP = "mixtune-jobs"
BACKENDS = ("trainjob", "pytorchjob")
BLOCK_MARGIN_SECONDS = 45 * 60
"""EC2 ends a capacity block's instances 30 minutes before the block's end, Karpenter drains them 10 before that."""
MIN_SECONDS = 15 * 60
"""A job that could not even run so long before a capacity block's end is not started."""


@dataclass(frozen=True, kw_only=True)
class Platform:
    """Settings of training jobs that are the cluster's, not the run's."""

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
    def from_config_map(cls, data: Mapping[str, str]) -> "Platform":
        """Read the map's data; what it leaves out or leaves empty is the default.

        Raises:
            ConfigError: An unknown key, or a value that cannot be.
        """
        known = [item.name for item in fields(cls)]
        if unknown := sorted(set(data) - set(known)):
            raise ConfigError(f"{CONFIG_MAP}: unknown key {unknown[0]!r}; there are {', '.join(known)}")
        values: dict[str, str | int] = {key: value.strip() for key, value in data.items() if value.strip()}
        if "deadline_seconds" in values:
            if not str(values["deadline_seconds"]).isdigit():
                raise ConfigError(f"{CONFIG_MAP}: deadline_seconds is a number; got {values['deadline_seconds']!r}")
            values["deadline_seconds"] = int(values["deadline_seconds"])
        return cls(**values)  # type: ignore[arg-type]

    def last_second(self) -> float:
        """The moment, in seconds since the epoch, by which a job must have ended; infinite without a block."""
        if not self.capacity_block_end:
            return float("inf")
        return _block_end(self.capacity_block_end) - BLOCK_MARGIN_SECONDS

    def seconds_for(self, now: float) -> int:
        """How long a job that starts now may be active.

        Raises:
            ConfigError: The capacity block is over, or so near its end that nothing should be started.
        """
        left = self.last_second() - now
        if left < MIN_SECONDS:
            raise ConfigError(
                f"the capacity block ends at {self.capacity_block_end} and its nodes {BLOCK_MARGIN_SECONDS // 60} "
                f"minutes earlier: less than {MIN_SECONDS // 60} minutes are left; set the next block's end in "
                f"ConfigMap {CONFIG_MAP}"
            )
        return int(min(self.deadline_seconds, left))


def _block_end(text: str) -> float:
    try:
        end = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{CONFIG_MAP}: capacity_block_end is a time such as 2026-12-01T11:30:00Z; got {text!r}"
        ) from error
    return (end if end.tzinfo else end.replace(tzinfo=UTC)).timestamp()
