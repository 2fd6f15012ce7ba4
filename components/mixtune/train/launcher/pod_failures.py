"""Why a pod failed or does not start, in words, and what to do about it."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from mixtune.kubernetes_api import Object


@dataclass(frozen=True)
class Reason:
    """What happened and the way out."""

    what: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.what}; {self.way_out}" if self.way_out else self.what


_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def explain_failure(pod: Object, log: str) -> Reason:
    """Return why a pod failed, from its status and the end of its log."""
    status, end = pod.get("status", {}), terminated(pod)
    if status.get("reason") == "Evicted":
        return Reason(f"evicted: {status.get('message', '')}", "raise the runtime's requests to what it needs")
    disruption = _condition(pod, "DisruptionTarget")
    if disruption or status.get("reason") in ("NodeLost", "NodeShutdown", "Terminated", "UnexpectedAdmissionError"):
        cause = disruption or status
        return Reason(
            f"its node was lost or taken away ({cause.get('reason', '')} {cause.get('message', '')})",
            "a restarted job goes on from its newest checkpoint",
        )
    if end.get("reason") == "OOMKilled":
        return Reason(
            "out of memory: the kernel ended it at the container's limit",
            "raise memory in the runtime, or lower max_tokens_per_gpu",
        )
    for line in _TABLE["log"]:
        if match := re.search(line["pattern"], log):
            return Reason(line.get("meaning") or match[1][:500], line.get("way_out", ""))
    if end.get("exitCode") == 137:
        return Reason("killed (SIGKILL)", "it was evicted, or the node ran out of memory: see the node's events")
    if end:
        return Reason(f"exit status {end.get('exitCode')} {end.get('reason', '')}".strip(), "see the log above")
    return Reason(str(status.get("message") or status.get("reason") or "no reason given"), "")


def explain_not_starting(pod: Object) -> Reason | None:
    """Return why a pod's container does not start, if it is something that waiting does not mend."""
    for item in _containers(pod):
        waiting = item.get("state", {}).get("waiting", {})
        if meaning := _TABLE["not_starting"].get(waiting.get("reason")):
            what = f"{meaning} ({waiting['reason']}: {waiting.get('message', '')[:300]})"
            return Reason(what, f"check image {item.get('image', '')} and what the pod refers to")
    return None


def terminated(pod: Object) -> Object:
    """Return how a container of the pod ended, now or before it was started again: rather one that failed.

    Empty while none did. An init container that is done, such as the Training Operator's own, says nothing of the pod.
    """
    ends = []
    for item in _containers(pod):
        end = item.get("state", {}).get("terminated") or item.get("lastState", {}).get("terminated")
        ends += [dict(end)] if end else []
    return next((end for end in ends if end.get("exitCode")), ends[-1] if ends else {})


def restarts(pod: Object) -> int:
    """Return how often the pod's containers were started again."""
    return sum(int(item.get("restartCount", 0)) for item in _containers(pod))


def _containers(pod: Object) -> list[Object]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _condition(pod: Object, kind: str) -> Object:
    for item in pod.get("status", {}).get("conditions", []):
        if item.get("type") == kind and item.get("status") == "True":
            return dict(item)
    return {}
