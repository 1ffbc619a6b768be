"""Processes that end when they should: tied to their parent, named without mistaking a reused pid, ended in order."""

import ctypes
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_POLL_SECONDS: Final = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """A process for good: pids are given out again, a pid together with its start time is not."""

    pid: int
    started_ticks: int

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """The process that has this pid now, or None when there is none (one that nobody waited for counts as none)."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The name stands in parentheses and may hold any character, so the fields are counted from its end.
        state, *fields = stat.rpartition(")")[2].split()
        return None if state in "ZX" else cls(pid=pid, started_ticks=int(fields[18]))

    @property
    def is_alive(self) -> bool:
        return Identity.of(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Signal this very process; nothing happens when it has ended, or is not ours to signal."""
        if self.is_alive:
            try:
                os.kill(self.pid, number)
            except (ProcessLookupError, PermissionError):
                return

    def end(self, *, grace_seconds: float) -> None:
        """SIGTERM, up to `grace_seconds` to obey, SIGKILL. Returns when it is gone."""
        self.send(signal.SIGTERM)
        if not wait_until(lambda: not self.is_alive, seconds=grace_seconds):
            self.send(signal.SIGKILL)
            wait_until(lambda: not self.is_alive, seconds=5)


def wait_until(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Ask `condition` until it holds; False when it still does not after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def dies_with_parent(number: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """
    A `preexec_fn`: the child gets `number` as soon as its parent dies, by whatever death.

    The kernel means the forking *thread* by "parent": start such children from a thread that outlives them.
    """
    parent = os.getpid()

    def set_death_signal() -> None:
        if _LIBC.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
            os._exit(127)
        # The parent may have died before the line above; then no signal would ever come.
        if os.getppid() != parent:
            os._exit(127)

    return set_death_signal
