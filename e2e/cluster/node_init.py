"""
Process 1 of a node's namespaces: runs what its supervisor asks for, reaps what pods leave behind.

    {"commands": [["ip", "link", …], …]}           run in order  -> {"done": true} or {"failed": "…"}
    {"launch": "kubelet", "argv": […], "log": "…"}  keep running  -> {"ended": "kubelet", "status": 1} if it ever ends

One JSON document a line, requests on standard input, answers on standard output. The end of the input ends this
process, and with process 1 the kernel ends every other one of the namespaces: so nothing outlives the supervisor.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

_TICK_SECONDS: Final = 0.1
_COMMAND_SECONDS: Final = 30.0


class Init:
    def __init__(self) -> None:
        self._programs: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}

    def run(self) -> None:
        rest = b""
        while True:
            ready, _, _ = select.select([0], [], [], _TICK_SECONDS)
            if ready:
                chunk = os.read(0, 65536)
                if not chunk:
                    return
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))
            self._reap()

    def _obey(self, request: Mapping[str, Any]) -> None:
        if "commands" in request:
            for argv in request["commands"]:
                failure = _failure_of(argv)
                if failure:
                    _say({"failed": failure})
                    return
            _say({"done": True})
        else:
            with open(request["log"], "wb") as log:  # noqa: PTH123
                process = subprocess.Popen(
                    request["argv"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._programs[process.pid] = (request["launch"], process)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            ended = self._programs.pop(pid, None)
            if ended is not None:
                _say({"ended": ended[0], "status": os.waitstatus_to_exitcode(status)})


def _failure_of(argv: list[str]) -> str:
    try:
        ended = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{' '.join(argv)}: {error}"
    return f"{' '.join(argv)}: {ended.stderr.strip() or ended.returncode}" if ended.returncode != 0 else ""


def _say(message: Mapping[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    # Only the supervisor ends it, by the end of the input or by SIGKILL.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    Init().run()
    sys.exit(0)
