"""What a user sees of a running job: its queue, its nodes, rank 0's log line by line, and why a pod died.

The log is read again and again from shortly before where it was left, and every line is shown once by its timestamp:
so a lost connection, or an API server that is away for minutes, loses and doubles nothing.
"""

import math
import re
from dataclasses import dataclass, field

from mixtune.kubernetes_api import Object
from mixtune.train.launcher.job_api import JobApi
from mixtune.train.launcher.jobs import Backend, State
from mixtune.train.launcher.pod_failures import Reason, failure, not_starting, restarts, terminated

LOSS_LINE = re.compile(r"^step (\d+)/(\d+) loss (\S+)")
OVERLAP_SECONDS = 60
TAIL_LINES = 40
EVENTS_EVERY_SECONDS = 30.0
REPORT_EVERY_SECONDS = 600.0
START_PATIENCE_SECONDS = 600.0
"""A pod whose image cannot be pulled, or that lacks a ConfigMap, is waited for so long."""


@dataclass
class Follower:
    """What has been shown of one job, and what was learned from it."""

    cluster: JobApi
    backend: Backend
    name: str
    began: float
    """Seconds since the epoch; older events are not shown."""
    phase: str = ""
    step: tuple[int, int] = (0, 0)
    """Steps done, and steps in all, by the newest loss line."""
    loss: str = ""
    failures: list[str] = field(default_factory=list)
    """A line for every pod that died, oldest first."""
    pods: list[Object] = field(default_factory=list)
    """As of the last look."""
    _seen: set[tuple[str, int]] = field(default_factory=set)
    _nodes: str = ""
    _pod: str = ""
    _stamp: tuple[str, int] = ("", 0)
    _again: int = 0
    """Lines of this reading that have the newest line's time."""
    _read_at: float = 0.0
    _events_at: float = 0.0
    _reported_at: float = 0.0
    _first_step: tuple[int, float] = (0, 0.0)
    _stuck_since: dict[str, float] = field(default_factory=dict)

    def look(self, state: State) -> None:
        """Show what is new."""
        if state.phase != self.phase:
            self._say(f"{state.phase}{f' ({state.message})' if state.message else ''}")
            self.phase, self._reported_at = state.phase, self.cluster.clock.now()
        self.pods = self.cluster.pods(self.backend.pods.format(name=self.name))
        self._show_nodes(self.pods)
        self._show_log(self.pods)
        for pod in self.pods:
            self._show_death(pod)
        self._show_events()
        self._report()

    def stuck(self) -> Reason | None:
        """Why the job cannot start, once that has lasted too long to mend itself."""
        now = self.cluster.clock.now()
        for pod in self.pods:
            reason, uid = not_starting(pod), pod["metadata"]["uid"]
            if reason is None:
                self._stuck_since.pop(uid, None)
            elif now - self._stuck_since.setdefault(uid, now) > START_PATIENCE_SECONDS:
                return Reason(f"pod {pod['metadata']['name']}: {reason.what}", reason.do)
        return None

    def _say(self, text: str) -> None:
        print(f"{self.backend.kind} {self.name}: {text}", flush=True)

    def _show_nodes(self, pods: list[Object]) -> None:
        counts: dict[str, int] = {}
        for pod in pods:
            phase = pod.get("status", {}).get("phase", "Unknown")
            counts[phase] = counts.get(phase, 0) + 1
        nodes = sorted({pod["spec"].get("nodeName", "") for pod in pods} - {""})
        text = ", ".join(f"{count} {phase.lower()}" for phase, count in sorted(counts.items()))
        text += f" on {', '.join(nodes)}" if nodes else ""
        if text != self._nodes:
            self._nodes = text
            self._say(f"pods: {text or 'none'}")

    def _show_log(self, pods: list[Object]) -> None:
        first = [pod for pod in pods if self.backend.is_first(pod)]
        if not first:
            return
        name, now = first[-1]["metadata"]["name"], self.cluster.clock.now()
        if name != self._pod:
            self._pod, self._stamp, self._read_at = name, ("", 0), 0.0
        since = {"sinceSeconds": math.ceil(now - self._read_at) + OVERLAP_SECONDS} if self._read_at else {}
        lines = self.cluster.log(name, **since)
        if lines:
            self._read_at = now
        self._again = 0
        for line in lines:
            self._show_line(line)

    def _show_line(self, line: str) -> None:
        """Show a line that begins with its time, unless it has been shown."""
        stamp, _, text = line.partition(" ")
        last, count = self._stamp
        if not stamp or _order(stamp) < _order(last):
            return
        if stamp == last:
            self._again += 1
            if self._again <= count:
                return
            self._stamp = (stamp, count + 1)
        else:
            self._again = 1
            self._stamp = (stamp, 1)
        print(text, flush=True)
        if found := LOSS_LINE.match(text):
            self.step, self.loss = (int(found[1]), int(found[2])), found[3]
            if not self._first_step[0]:
                self._first_step = (self.step[0], self.cluster.clock.now())

    def _show_death(self, pod: Object) -> None:
        """Once for every end of a pod's container: the end of its log, and the reason in words."""
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        failed = pod.get("status", {}).get("phase") == "Failed"
        ended = terminated(pod)
        died = failed or (ended and ended.get("exitCode", 0) != 0)
        if not died or (uid, restarts(pod)) in self._seen:
            return
        self._seen.add((uid, restarts(pod)))
        stamped = self.cluster.log(name, tailLines=TAIL_LINES, **({} if failed else {"previous": "true"}))
        tail = [line.partition(" ")[2] for line in stamped]
        self._say(f"the last lines of pod {name}, which failed:")
        for line in tail:
            print(f"  | {line}", flush=True)
        reason = failure(pod, "\n".join(tail))
        self.failures.append(f"pod {name}: {reason}")
        self._say(self.failures[-1])

    def _show_events(self) -> None:
        now = self.cluster.clock.now()
        if now - self._events_at < EVENTS_EVERY_SECONDS:
            return
        self._events_at = now
        for event in self.cluster.events():
            about = event.get("involvedObject", {})
            key = (str(event["metadata"].get("uid", event["metadata"]["name"])), -1)
            if self.name in about.get("name", "") and key not in self._seen:
                self._seen.add(key)
                self._say(f"{about.get('kind', '')}: {event.get('reason', '')}: {event.get('message', '')}")

    def _report(self) -> None:
        """Every few minutes: how long it has waited, or how far it is."""
        now = self.cluster.clock.now()
        if now - self._reported_at < REPORT_EVERY_SECONDS:
            return
        self._reported_at = now
        done, steps = self.step
        first, since = self._first_step
        if self.phase == "waiting":
            self._say(f"waiting for its queue for {(now - self.began) / 60:.0f} minutes")
        elif done > first:
            left = (steps - done) * (now - since) / (done - first)
            self._say(f"step {done} of {steps}, loss {self.loss}, about {left / 60:.0f} minutes left")


def _order(stamp: str) -> tuple[str, str]:
    """RFC 3339 times of one log in order, whatever the number of digits after the point."""
    seconds, _, fraction = stamp.partition(".")
    return seconds.rstrip("Z"), re.sub(r"\D.*", "", fraction).ljust(9, "0") if fraction else "0" * 9
