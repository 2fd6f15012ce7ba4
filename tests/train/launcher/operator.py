"""What a job's operator and the kubelet do, with a process in place of a pod: the job object's own command is run."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from .api import FakeCluster
from .conftest import first_labels

Object = dict[str, Any]
Started = tuple[list[str], dict[str, str]]


def nodes_of(body: Object, template: Object, port: int) -> list[Started]:
    """Command and environment of every node: the job's and its runtime's, and what the operator adds.

    Kubeflow Trainer gives a node `PET_*` only, Training Operator v1 `MASTER_ADDR` and `MASTER_PORT` in place of the
    meeting's two. This machine is every node, so that the address is the same for all.
    """
    spec, there = body["spec"], {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if body["kind"] == "PyTorchJob":
        replicas = [spec["pytorchReplicaSpecs"][role] for role in ("Master", "Worker")]
        containers = [item["template"]["spec"]["containers"][0] for item in replicas for _ in range(item["replicas"])]
        given = {**there, "WORLD_SIZE": str(len(containers)), "PET_NPROC_PER_NODE": spec["nprocPerNode"]}
    else:
        (container,), trainer = template["spec"]["containers"], spec["trainer"]
        containers = [{**trainer, "env": container["env"] + trainer["env"]}] * trainer["numNodes"]
        given = {f"PET_{key}": value for key, value in there.items()}
        given["PET_NPROC_PER_NODE"] = str(trainer["numProcPerNode"])
    started = []
    for rank, container in enumerate(containers):
        environment = {**given, "PET_NNODES": str(len(containers)), "PET_NODE_RANK": str(rank)}
        environment |= {item["name"]: item["value"] for item in container["env"]}
        command = [re.sub(r"\$\((\w+)\)", lambda name: environment[name[1]], word) for word in container["command"]]  # noqa: B023
        started.append((command, environment))
    return started


class Operator:
    """Starts every node of the job that is made, all of them again when one dies, and says so in the cluster."""

    def __init__(self, cluster: FakeCluster, kind: str, template: Object, folder: Path) -> None:
        self.cluster, self.kind, self.template, self.folder = cluster, kind, template, folder
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.shown: dict[str, int] = {}
        self.starts = 0
        self.port = socket.socket()
        """Holds the port at which the nodes meet."""
        self.on_line: Callable[[str], None] = lambda line: None
        """Gets rank 0's lines."""
        cluster.on_create = self.start

    def start(self, body: Object) -> None:
        """Start all nodes."""
        self.starts += 1
        self.port.close()
        self.port = socket.socket()
        # torchrun may take the port, and no other program is given it
        self.port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.port.bind(("127.0.0.1", 0))
        name = body["metadata"]["name"]
        for rank, (command, environment) in enumerate(nodes_of(body, self.template, self.port.getsockname()[1])):
            pod = f"{name}-node-{rank}-{self.starts}"
            self.cluster.pod(pod, first_labels(name, self.kind, rank))
            self.nodes.append(self.spawn(pod, command, environment))

    def spawn(self, pod: str, command: list[str], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
        """Start a node's container: its volume is a folder of its own, and it sees no more of this environment."""
        local = self.folder / f"{pod}.local"
        local.mkdir()
        outside = ("PYTHONPATH", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        whole = {key: os.environ[key] for key in outside if key in os.environ}
        whole |= {key: value.replace("/local", str(local)) for key, value in environment.items()}
        whole |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(local)}
        with open(self.folder / pod, "wb") as log:
            return subprocess.Popen(command, env=whole, stdout=log, stderr=subprocess.STDOUT, cwd=local)

    def sleep(self, seconds: float) -> None:
        """The launcher's sleep: meanwhile the nodes go on."""
        time.sleep(0.05)
        codes = [node.poll() for node in self.nodes]
        for name in self.pods():
            text = (self.folder / name).read_bytes()[self.shown.get(name, 0) :]
            lines = text[: text.rfind(b"\n") + 1]
            self.shown[name] = self.shown.get(name, 0) + len(lines)
            self.cluster.say(name, *lines.decode().splitlines())
            for line in lines.decode().splitlines() if "-node-0-" in name else []:
                self.on_line(line)
        self.cluster.clock.sleep(seconds)
        if codes and not any(codes) and None not in codes:
            self.cluster.condition("Succeeded" if self.kind == "pytorchjob" else "Complete", "Done", "")
        elif any(codes):
            assert self.starts < 3, "\n".join((self.folder / name).read_text()[-2000:] for name in self.shown)
            self.stop()
            for name in self.pods():
                del self.cluster.objects["pods", name]
            self.start(self.cluster.job())

    def pods(self) -> list[str]:
        """The nodes' pods, as they are now."""
        return [name for plural, name in self.cluster.objects if plural == "pods" and "-node-" in name]

    def lose(self, rank: int) -> None:
        """A node is gone, without a word."""
        kill(self.nodes[rank])

    def stop(self) -> None:
        """Nothing that was started here stays."""
        for node in self.nodes:
            kill(node)
        self.nodes.clear()
        self.port.close()


def kill(node: "subprocess.Popen[bytes]") -> None:
    """End a node's processes, all of them, as the end of their container does; torchrun's have sessions of their own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        agent = psutil.Process(node.pid)
        for process in [*agent.children(recursive=True), agent]:
            process.kill()
    node.wait()
