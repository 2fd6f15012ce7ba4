"""What a user sees of a running job: its queue, its nodes, rank 0's log line by line, and why a pod died.

The log is read again and again from shortly before where it was left, and every line is shown once by its timestamp:
so a lost connection, or an API server that is away for minutes, loses and doubles nothing.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass, field

from mixtune.kubernetes_api import Object
from mixtune.train.launcher.job_api import JobApi
from mixtune.train.launcher.jobs import Backend, State
from mixtune.train.launcher.pod_failures import Reason, explain_failure, explain_not_starting, restarts, terminated

LOSS_LINE = re.compile(r"^step (\d+)/(\d+) loss (\S+)")
OVERLAP_SECONDS = 60
TAIL_LINES = 40
"""Last lines of a pod that failed, shown."""
SEARCHED_LINES = 1000
"""Last lines of such a pod in which its reason is looked for: torchrun and the other processes write below it."""
EVENTS_EVERY_SECONDS = 30.0
REPORT_EVERY_SECONDS = 600.0
START_PATIENCE_SECONDS = 600.0
"""A pod whose image cannot be pulled, or that lacks a ConfigMap, is waited for so long."""


@dataclass
class LogPosition:
    """How far a pod's log was shown: every line begins with its time, and several may have the same."""

    pod: str = ""
    time: str = ""
    """Of the newest line that was shown."""
    num_shown: int = 0
    """Lines of that time that were shown."""
    num_read: int = 0
    """Lines of that time in this reading."""
    read_at: float = 0.0
    """Seconds since the epoch of the last reading; 0: none."""

    def is_new(self, time: str) -> bool:
        """Return whether a line of that time, the next of a reading, was not shown yet; it counts as shown then."""
        if not time or _sortable(time) < _sortable(self.time):
            return False
        if time != self.time:
            self.time, self.num_shown, self.num_read = time, 1, 1
            return True
        self.num_read += 1
        is_new = self.num_read > self.num_shown
        self.num_shown += is_new
        return is_new


@dataclass
class Follower:
    """What was shown of one job, and what was learned from it."""

    api: JobApi
    backend: Backend
    name: str
    start: float
    """Seconds since the epoch."""
    phase: str = ""
    step: tuple[int, int] = (0, 0)
    """Steps done, and steps in all, by the newest loss line."""
    loss: str = ""
    failures: list[str] = field(default_factory=list)
    """A line for every pod that died, oldest first."""
    pods: list[Object] = field(default_factory=list)
    """As last read."""
    _shown: set[tuple[str, int]] = field(default_factory=set)
    """Ends of pods (uid and restarts) and events (uid and -1) that were shown."""
    _pods_text: str = ""
    _log: LogPosition = field(default_factory=LogPosition)
    _events_at: float = 0.0
    _reported_at: float = 0.0
    _first_step: tuple[int, float] = (0, 0.0)
    """First step that was seen, and when."""
    _stuck_since: dict[str, float] = field(default_factory=dict)

    @property
    def position(self) -> str:
        """How far the training is, in words."""
        step, num_steps = self.step
        return f"after step {step} of {num_steps}" if num_steps else "before its first step"

    def show(self, state: State) -> None:
        """Read pods, log and events, and show what is new."""
        if state.phase != self.phase:
            self._print(f"{state.phase}{f' ({state.message})' if state.message else ''}")
            self.phase, self._reported_at = state.phase, self.api.clock.now()
        self.pods = self.api.pods(self.backend.pods.format(name=self.name))
        self._show_pods()
        self._show_log()
        for pod in self.pods:
            self._show_death(pod)
        self._show_events()
        self._show_progress()

    def stuck(self) -> Reason | None:
        """Return why the job cannot start, once that has lasted too long to mend itself."""
        now = self.api.clock.now()
        for pod in self.pods:
            reason, uid = explain_not_starting(pod), pod["metadata"]["uid"]
            if reason is None:
                self._stuck_since.pop(uid, None)
            elif now - self._stuck_since.setdefault(uid, now) > START_PATIENCE_SECONDS:
                return Reason(f"pod {pod['metadata']['name']}: {reason.what}", reason.way_out)
        return None

    def _print(self, text: str) -> None:
        print(f"{self.backend.kind} {self.name}: {text}", flush=True)

    def _show_pods(self) -> None:
        counts = Counter(pod.get("status", {}).get("phase", "Unknown") for pod in self.pods)
        nodes = sorted({pod["spec"].get("nodeName", "") for pod in self.pods} - {""})
        text = ", ".join(f"{count} {phase.lower()}" for phase, count in sorted(counts.items()))
        text += f" on {', '.join(nodes)}" if nodes else ""
        if text != self._pods_text:
            self._pods_text = text
            self._print(f"pods: {text or 'none'}")

    def _show_log(self) -> None:
        first = [pod for pod in self.pods if self.backend.is_first(pod)]
        if not first:
            return
        name, now = first[-1]["metadata"]["name"], self.api.clock.now()
        if name != self._log.pod:
            self._log = LogPosition(pod=name)
        log = self._log
        since = {"sinceSeconds": math.ceil(now - log.read_at) + OVERLAP_SECONDS} if log.read_at else {}
        lines = self.api.log(name, **since)
        if lines:
            log.read_at = now
        log.num_read = 0
        for line in lines:
            time, _, text = line.partition(" ")
            if log.is_new(time):
                self._show_line(text)

    def _show_line(self, text: str) -> None:
        print(text, flush=True)
        if match := LOSS_LINE.match(text):
            self.step, self.loss = (int(match[1]), int(match[2])), match[3]
            if not self._first_step[0]:
                self._first_step = (self.step[0], self.api.clock.now())

    def _show_death(self, pod: Object) -> None:
        """Show once, for every end of a pod's container, the end of its log and the reason in words."""
        name, key = pod["metadata"]["name"], (pod["metadata"]["uid"], restarts(pod))
        has_failed = pod.get("status", {}).get("phase") == "Failed"
        if key in self._shown or not (has_failed or terminated(pod).get("exitCode", 0)):
            return
        self._shown.add(key)
        timed_lines = self.api.log(name, tailLines=SEARCHED_LINES, **({} if has_failed else {"previous": "true"}))
        lines = [line.partition(" ")[2] for line in timed_lines]
        self._print(f"the last lines of pod {name}, which failed:")
        for line in lines[-TAIL_LINES:]:
            print(f"  | {line}", flush=True)
        self.failures.append(f"pod {name}: {explain_failure(pod, chr(10).join(lines))}")
        self._print(self.failures[-1])

    def _show_events(self) -> None:
        now = self.api.clock.now()
        if now - self._events_at < EVENTS_EVERY_SECONDS:
            return
        self._events_at = now
        for event in self.api.events():
            about = event.get("involvedObject", {})
            key = (str(event["metadata"].get("uid", event["metadata"]["name"])), -1)
            if self.name in about.get("name", "") and key not in self._shown:
                self._shown.add(key)
                self._print(f"{about.get('kind', '')}: {event.get('reason', '')}: {event.get('message', '')}")

    def _show_progress(self) -> None:
        """Show every few minutes how long it has waited, or how far it is."""
        now = self.api.clock.now()
        if now - self._reported_at < REPORT_EVERY_SECONDS:
            return
        self._reported_at = now
        step, num_steps = self.step
        first, since = self._first_step
        if self.phase == "waiting":
            self._print(f"waiting for its queue for {(now - self.start) / 60:.0f} minutes")
        elif step > first:
            seconds = (num_steps - step) * (now - since) / (step - first)
            self._print(f"step {step} of {num_steps}, loss {self.loss}, about {seconds / 60:.0f} minutes left")


def _sortable(time: str) -> tuple[str, str]:
    """Return an RFC 3339 time in a form that sorts, whatever the number of digits after the point."""
    seconds, _, fraction = time.partition(".")
    return seconds.rstrip("Z"), re.sub(r"\D.*", "", fraction).ljust(9, "0") if fraction else "0" * 9
