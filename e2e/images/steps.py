"""Programs that take a while: a line of progress now and then, and the last lines of their log when they fail."""

import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Final

from e2e.cluster.cache import ClusterError, Report

_REPORT_SECONDS: Final = 20.0
_LIMIT_SECONDS: Final = 30 * 60.0
_KEPT_LINES: Final = 15


def run(
    command: Sequence[str],
    report: Report,
    *,
    what: str,
    usually: str,
    advice: str,
    environment: Mapping[str, str] | None = None,
) -> None:
    """
    Run `command` to its end. Raises ClusterError with its last lines and `advice`.

    what, usually: for the lines of progress, "… 40 s (about two minutes the first time)". environment: None for ours.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        except FileNotFoundError as error:
            raise ClusterError(f"{what}: {command[0]} is not there: {advice}") from error
        try:
            while True:
                try:
                    process.wait(_REPORT_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    seconds = time.monotonic() - started
                    if seconds > _LIMIT_SECONDS:
                        raise ClusterError(f"{what} took more than {seconds:.0f} s: {advice}") from None
                    report(f"{what}: {seconds:.0f} s ({usually})")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode != 0:
            log.seek(0)
            said = "\n".join(log.read().decode(errors="replace").splitlines()[-_KEPT_LINES:])
            raise ClusterError(f"{what} failed: {advice}\n{said}")
    report(f"{what}: done in {time.monotonic() - started:.0f} s")
