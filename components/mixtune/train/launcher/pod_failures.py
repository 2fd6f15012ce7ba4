"""Why a pod failed or does not start, in words, and what to do about it."""

import re
from dataclasses import dataclass

from mixtune.kubernetes_api import Object


@dataclass(frozen=True)
class Reason:
    """What happened and the way out."""

    what: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.what}; {self.way_out}" if self.way_out else self.what


NOT_STARTING = {
    "ErrImagePull": "the image cannot be pulled",
    "ImagePullBackOff": "the image cannot be pulled",
    "InvalidImageName": "the image's name is wrong",
    "CreateContainerConfigError": "a ConfigMap or Secret that the container needs is missing",
    "CreateContainerError": "the container cannot be made",
}
"""Reasons of a waiting container that waiting does not mend."""
_LOG_PATTERNS = (
    (r"OutOfMemoryError|CUDA out of memory|CUDA error: out of memory", "out of GPU memory", "lower max_tokens_per_gpu"),
    (r"(?m)^error: (.*)", "", ""),
    (
        r"NCCL error|ncclSystemError|ncclInternalError|ncclRemoteError|collective operation timeout|ncclUnhandled",
        "NCCL failed between the nodes",
        "look at the first node that died; else check that the nodes' security group allows all traffic among "
        "themselves (EFA) and that no pod was moved",
    ),
    (r"No space left on device", "the node's disk is full", "raise ephemeral-storage in the runtime"),
    (r"Bus error|unable to open shared memory", "shared memory is too small", "raise the shm volume in the runtime"),
    (
        r"AccessDenied|403 Forbidden|Unable to locate credentials",
        "S3 refused access",
        "check the role of service account mixtune-trainer",
    ),
    (
        r"RendezvousConnectionError|RendezvousTimeoutError|DistNetworkError|Connection refused",
        "the nodes could not meet",
        "check network policy mixtune-ranks and that all nodes started",
    ),
    (
        r"(?m)^(?:\[rank\d+\]:\s*)?((?:[A-Za-z_]\w*\.)*(?!ChildFailed)[A-Z]\w*(?:Error|Exception|Exit|Interrupt): .*)",
        "",
        "the traceback above it says where; a fault of mixtune's is worth reporting",
    ),
)
"""Pattern, what it means (empty: its first group) and the way out; the first that matches counts."""


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
    for pattern, what, way_out in _LOG_PATTERNS:
        if match := re.search(pattern, log):
            return Reason(what or match[1][:500], way_out)
    if end.get("exitCode") == 137:
        return Reason("killed (SIGKILL)", "it was evicted, or the node ran out of memory: see the node's events")
    if end:
        return Reason(f"exit status {end.get('exitCode')} {end.get('reason', '')}".strip(), "see the log above")
    return Reason(str(status.get("message") or status.get("reason") or "no reason given"), "")


def explain_not_starting(pod: Object) -> Reason | None:
    """Return why a pod's container does not start, if it is something that waiting does not mend."""
    for item in _containers(pod):
        waiting = item.get("state", {}).get("waiting", {})
        if waiting.get("reason") in NOT_STARTING:
            what = f"{NOT_STARTING[waiting['reason']]} ({waiting['reason']}: {waiting.get('message', '')[:300]})"
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
