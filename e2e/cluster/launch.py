"""Start a supervisor and hear from it, and find the one that runs in a directory."""

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from e2e.cluster.cache import ClusterError
from e2e.cluster.components import Layout
from e2e.cluster.processes import Identity
from e2e.cluster.supervisor import START_SECONDS, Order

STOP_SECONDS: Final = 30.0
_REPOSITORY: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What a supervisor wrote down about itself."""

    bin_dir: Path
    processes: Mapping[str, Identity]


def recorded(state_dir: Path) -> Record | None:
    """The record in `state_dir`, or None where no supervisor got as far as starting a program."""
    try:
        found = json.loads(Layout(state=state_dir).record.read_text())
    except FileNotFoundError:
        return None
    processes = {name: Identity(**fields) for name, fields in found["processes"].items()}
    return Record(bin_dir=Path(found["programs"]), processes=processes)


def fresh_directory(wanted: Path | None, *, below: Path | None = None) -> Path:
    """`wanted`, made or found empty; without one a new directory, among the temporary files or `below`."""
    if wanted is None:
        if below is not None:
            below.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="commonplace-cluster-", dir=below)).resolve()
    wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(wanted.iterdir()):
        raise ClusterError(f"{wanted} is not empty, and a cluster removes its directory at the end: name a new one")
    return wanted.resolve()


def living(pid: int) -> Identity:
    """The process with this pid. Raises ClusterError when it has ended."""
    identity = Identity.of(pid)
    if identity is None:
        raise ClusterError(f"process {pid} is to own a cluster, but has ended")
    return identity


def run_supervisor(
    order: Order, *, module: str, what: str, seconds: float = START_SECONDS + 30
) -> "subprocess.Popen[bytes]":
    """
    Start `python -m <module>` for `order` and return when it says that all is ready.

    what: it starts, for messages. Raises ClusterError with the supervisor's words; then it has ended.
    """
    layout = Layout(state=Path(order.state))
    log = layout.log("supervisor")
    log.parent.mkdir(mode=0o700)
    with log.open("wb") as errors:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", module, order.encode()],
            cwd=layout.state,
            env={**os.environ, "PYTHONPATH": str(_REPOSITORY)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    try:
        answer = _announcement(supervisor, seconds, what)
    except BaseException:
        supervisor.terminate()
        with suppress(subprocess.TimeoutExpired):
            supervisor.wait(STOP_SECONDS)
        supervisor.kill()
        raise
    if "ready" not in answer:
        supervisor.wait(STOP_SECONDS)
        raise ClusterError(f"{what} did not start: {answer.get('error', 'its supervisor was killed')}")
    return supervisor


def _announcement(supervisor: "subprocess.Popen[bytes]", seconds: float, what: str) -> dict[str, Any]:
    """The one line of JSON that a supervisor writes; {} when it died without."""
    assert supervisor.stdout is not None
    deadline = time.monotonic() + seconds
    with supervisor.stdout as stream, selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        line = b""
        while not line.endswith(b"\n"):
            if not selector.select(timeout=max(0.0, deadline - time.monotonic())):
                raise ClusterError(f"{what} did not start within {seconds:.0f} s")
            chunk = os.read(stream.fileno(), 65536)
            if not chunk:
                return {}
            line += chunk
    answer: dict[str, Any] = json.loads(line)
    return answer
