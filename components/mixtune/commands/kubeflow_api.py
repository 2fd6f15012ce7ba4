"""Connect to Kubeflow Pipelines: the client, its errors as ClusterError, and its runs as plain data."""

import argparse
import contextlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixtune import storage
from mixtune.commands.argument_places import Arguments
from mixtune.commands.task_states import Node, nodes_of_details, titles_of
from mixtune.errors import ClusterError, ConfigError, reason

if TYPE_CHECKING:
    from kfp import Client
    from kfp_server_api import ApiException

ENDED = ("SUCCEEDED", "FAILED", "SKIPPED", "ERROR", "CANCELED")
"""States in which KFP leaves a run for good."""


@dataclass(frozen=True, kw_only=True)
class SubmittedRun:
    """A run as KFP knows it."""

    run_id: str
    state: str
    """KFP's, such as `RUNNING`."""
    created: datetime | None
    pipeline: str
    """The name in the pipeline's YAML, which is a folder of the artifacts."""
    arguments: Arguments
    pipeline_root: str
    """Where it was submitted with one."""
    error: str
    titles: dict[str, str]
    """Display names of the tasks, by key."""
    nodes: list[Node]
    """Argo's, as the run's details have them."""

    @classmethod
    def from_api(cls, run: Any) -> "SubmittedRun":
        """Take what is needed of the client's object."""
        runtime, spec = run.runtime_config, run.pipeline_spec or {}
        spec = spec.get("pipeline_spec") or spec
        return cls(
            run_id=run.run_id,
            state=str(run.state or "PENDING"),
            created=run.created_at,
            pipeline=str(spec.get("pipelineInfo", {}).get("name", "finetune")),
            arguments=dict((runtime and runtime.parameters) or {}),
            pipeline_root=(runtime and runtime.pipeline_root) or "",
            error=(run.error and run.error.message) or "",
            titles=titles_of(spec),
            nodes=nodes_of_details((run.run_details and run.run_details.task_details) or []),
        )

    @property
    def ended(self) -> bool:
        """Whether KFP leaves it as it is."""
        return self.state in ENDED

    def folder(self, pipeline_root: str = "") -> str:
        """Return the folder of its artifacts; empty where no pipeline root is known."""
        root = self.pipeline_root or pipeline_root
        return storage.join(root, self.pipeline, self.run_id) if root else ""


def add_connection(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add the options that name a Kubeflow Pipelines."""
    parser.add_argument("--host", required=required, default="", help="address of Kubeflow Pipelines")
    parser.add_argument("--namespace", default="kubeflow", help="(default: %(default)s)")
    parser.add_argument("--token-file", default="", metavar="FILE", help="bearer token, read anew when it expires")


def connect(options: argparse.Namespace) -> "Client":
    """Return a KFP client; the token is read anew each time.

    Raises:
        ClusterError: Nobody answers at the address.
        ConfigError: The token's file cannot be read.
    """
    for kind in (FutureWarning, UserWarning):  # of a host without https://, which it adds itself
        warnings.filterwarnings("ignore", category=kind, module="kfp")
    from kfp import Client

    try:
        token = Path(options.token_file).read_text().strip() if options.token_file else None
    except (OSError, ValueError) as error:
        raise ConfigError(f"--token-file {options.token_file}: cannot be read ({reason(error)})") from error
    with answers(options.host):
        return Client(host=options.host, namespace=options.namespace, existing_token=token)


def read_run(client: "Client", run_id: str) -> SubmittedRun:
    """Return a run; a ClusterError where KFP does not answer, or knows no such run."""
    with answers(f"run {run_id}"):
        return SubmittedRun.from_api(client.get_run(run_id))


@contextlib.contextmanager
def answers(question: str) -> Iterator[None]:
    """Turn what KFP's API refuses, or does not answer, into a ClusterError that says what to do."""
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise ClusterError(f"{question}: {_reason(error)}") from error
    except (HTTPError, TimeoutError) as error:  # the client's own of a health check that is refused
        cause = str(getattr(error, "reason", None) or error).rpartition(": ")[2]  # without the client's own words
        raise ClusterError(
            f"{question}: Kubeflow Pipelines does not answer ({cause}); check --host and --token-file"
        ) from error


def _reason(error: "ApiException") -> str:
    if error.status == 401:
        return "the token is not accepted, or no longer (401); log in again, or renew the file of --token-file"
    if error.status == 403:
        return "no right to do this (403); ask for it in the run's namespace, or give --namespace"
    if error.status == 404:
        return "not there (404); `mixtune runs --host ...` lists what is"
    try:
        message = json.loads(error.body or "{}").get("message") or error.reason
    except ValueError:
        message = error.reason
    return f"Kubeflow Pipelines refused it ({error.status}): {message}"


def run_page(host: str, run_id: str) -> str:
    """Return the address of a run's page."""
    return f"{host.rstrip('/')}/#/runs/details/{run_id}"
