"""What becomes of the workers and the queue over a story, looked at once a second."""

import json
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from e2e.load import Sender
from e2e.report import CheckFailed
from e2e.site import Site


@dataclass(kw_only=True)
class _Look:
    wanted: int
    ready: int


@dataclass
class Watch:
    """Number of workers over time. Use as a context manager."""

    site: Site
    most_ready: int = 0
    _looks: list[_Look] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            try:
                body = self.site.get("deployment", "main-worker") or {}
            except (CheckFailed, json.JSONDecodeError):
                continue
            look = _Look(
                wanted=(body.get("spec") or {}).get("replicas", 0),
                ready=(body.get("status") or {}).get("readyReplicas", 0),
            )
            self.most_ready = max(self.most_ready, look.ready)
            if not self._looks or look != self._looks[-1]:
                self._looks.append(look)

    def line(self) -> str:
        """`1/1 4/1 4/4 …`: wanted and ready, each time one changed."""
        return " ".join(f"{look.wanted}/{look.ready}" for look in self._looks) or "nothing seen"

    def backlog_of(self, sender: Sender) -> int:
        """Jobs of this sender that are not finished; while many wait only a sample of them is asked for."""
        sample = sender.jobs[:: max(1, len(sender.jobs) // 50)]
        probe = Sender(url=sender.url, token=sender.token, jobs=list(sample))
        left = len(probe.unfinished())
        return left or len(sender.unfinished())
