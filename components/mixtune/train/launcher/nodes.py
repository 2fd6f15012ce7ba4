"""Where a training runs: in the task's own process, or as a job on nodes of its own."""

from dataclasses import dataclass

from mixtune.errors import ConfigError

LAUNCHERS = ("", "process", "trainjob", "pytorchjob")


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """What a step says of the nodes it wants."""

    launcher: str = ""
    """`process`, `trainjob` or `pytorchjob`; empty: `process` without nodes, else the platform's kind of job."""
    num_nodes: str = ""
    """Nodes of a job; empty or `0`: none."""
    gpus_per_node: str = ""
    """GPUs, and so processes, of each node; empty or `0`: one process without a GPU."""
    shards_uri: str = ""
    """URI of the shards' manifest, which the job's pods read."""

    def __post_init__(self) -> None:
        if self.launcher not in LAUNCHERS:
            raise ConfigError(f"launcher is empty or one of {', '.join(LAUNCHERS[1:])}; got {self.launcher!r}")
        for name in ("num_nodes", "gpus_per_node"):
            if getattr(self, name) and not getattr(self, name).isdigit():
                raise ConfigError(f"{name} is empty or a whole number as text; got {getattr(self, name)!r}")
        if self.launcher == "process" and self.count:
            raise ConfigError(
                f"launcher 'process' trains in the task's own process; num_nodes is {self.num_nodes!r}: leave it "
                "empty, or leave launcher empty to train as a job"
            )
        if self.launcher in LAUNCHERS[2:] and not self.count:
            raise ConfigError(f"launcher {self.launcher!r} needs num_nodes, 1 or more; got {self.num_nodes!r}")

    @property
    def count(self) -> int:
        """Nodes of the job; 0: there is no job."""
        return int(self.num_nodes or 0)

    @property
    def gpus(self) -> int:
        """GPUs of each node."""
        return int(self.gpus_per_node or 0)
