"""
The process that starts a control plane, watches over it and takes it away again: `python -m e2e.cluster.supervisor`.

It exists so that nothing outlives its owner. It has a session of its own, so Ctrl-C does not reach it; it looks for its
owner ten times a second, so not even SIGKILL of the owner leaves anything behind; and it forks the three programs from
its only thread with a death signal, so that SIGKILL of itself ends them too.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from e2e.cluster.api import ApiClient
from e2e.cluster.cache import ClusterError
from e2e.cluster.components import (
    API_SERVER,
    CONTROLLERS,
    ETCD,
    LOOPBACK,
    START_ORDER,
    Layout,
    Ports,
    api_server_arguments,
    controllers_arguments,
    etcd_arguments,
    kubeadm_config,
)
from e2e.cluster.processes import Identity, dies_with_parent

START_SECONDS: Final = 120.0
_TOOL_SECONDS: Final = 60.0
_TICK_SECONDS: Final = 0.1
_POLL_SECONDS: Final = 0.05
_TAIL_LINES: Final = 12
# What the programs do on SIGTERM is for data that is kept; ours is thrown away, so none gets long.
_GRACE_SECONDS: Final = {CONTROLLERS: 5.0, API_SERVER: 10.0, ETCD: 2.5}


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a supervisor is asked for. `owner` None: run until told to stop. `starter`: who waits for the start."""

    state: str
    programs: str
    version: str
    starter: Identity
    owner: Identity | None
    crds: str | None

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> Self:
        # JSON knows no tuples.
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(text).items()
        }
        owner = fields.pop("owner")
        return cls(**fields | {"starter": Identity(**fields["starter"]), "owner": Identity(**owner) if owner else None})


def reserve_ports(count: int) -> list[socket.socket]:
    """
    Sockets bound to free loopback ports and not listening: as long as they stay open nobody else can take the ports.

    The programs bind the same ports with SO_REUSEPORT (same user only), so there is no gap between choosing a port and
    using it in which another run could take it.
    """
    reserved = []
    for _ in range(count):
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((LOOPBACK, 0))
        reserved.append(holder)
    return reserved


class _Stopped(Exception):
    """Whoever wanted the control plane is gone, or said stop."""


@dataclass(kw_only=True)
class Supervisor:
    order: Order
    layout: Layout
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _told_to_stop: threading.Event = field(default_factory=threading.Event)

    def run(self, announce: Callable[[dict[str, str]], None]) -> int:
        """Start, announce, watch until it is over, take everything away. Returns the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self._told_to_stop.set())
        failure = ""
        try:
            self._start(time.monotonic() + START_SECONDS)
            announce({"ready": str(self.layout.kubeconfig)})
            self._watch()
        except _Stopped:
            failure = ""
        except Exception as error:  # noqa: BLE001 - whatever it was, whoever waits for the start must hear of it
            failure = str(error) if isinstance(error, ClusterError) else repr(error)
        finally:
            self._stop()
        if failure:
            announce({"error": failure})
        return 1 if failure else 0

    def _start(self, deadline: float) -> None:
        holders = reserve_ports(4)
        api, etcd, etcd_peer, controllers = (int(holder.getsockname()[1]) for holder in holders)
        ports = Ports(api=api, etcd=etcd, etcd_peer=etcd_peer, controllers=controllers)
        self._issue_credentials(ports)
        self._launch(ETCD, etcd_arguments(self.layout, ports))
        self._launch(API_SERVER, api_server_arguments(self.layout, ports))
        with ApiClient(self.layout.kubeconfig) as client:
            self._await(lambda: client.request("GET", "/readyz")[0] == 200, "the API server is not ready", deadline)
            if self.order.crds:
                self._install(self.order.crds)
            self._launch(CONTROLLERS, controllers_arguments(self.layout, ports))
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            self._await(lambda: client.request("GET", account)[0] == 200, "the controllers do not work", deadline)

    def _issue_credentials(self, ports: Ports) -> None:
        config = kubeadm_config(self.layout, version=self.order.version, ports=ports)
        self.layout.kubeadm_config.write_text(config)
        phase = ("init", "phase")
        common = (f"--config={self.layout.kubeadm_config}",)
        self._tool("kubeadm", *phase, "certs", "all", *common)
        for name in ("super-admin", "controller-manager"):
            self._tool("kubeadm", *phase, "kubeconfig", name, f"--kubeconfig-dir={self.layout.state}", *common)
        # kubeadm sends the controller manager to the advertised address, which nobody listens on.
        with_loopback = [
            f"    server: https://{LOOPBACK}:{ports.api}" if line.lstrip().startswith("server: ") else line
            for line in self.layout.controllers_kubeconfig.read_text().splitlines()
        ]
        self.layout.controllers_kubeconfig.write_text("\n".join(with_loopback) + "\n")

    def _install(self, crds: str) -> None:
        # Before the controllers: their garbage collector looks for new kinds only every 30 s, but knows these at once.
        server = f"--kubeconfig={self.layout.kubeconfig}"
        self._tool("kubectl", server, "apply", "--server-side", f"--filename={crds}")
        self._tool("kubectl", server, "wait", "--for=condition=Established", "--timeout=30s", f"--filename={crds}")

    def _environment(self) -> dict[str, str]:
        """Nothing of the user's: etcd takes ETCD_… for flags, and a proxy has no business between us."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.layout.state),
            "KUBECACHEDIR": str(self.layout.state / "kubectl-cache"),
        }

    def _launch(self, program: str, arguments: Sequence[str]) -> None:
        with self.layout.log(program).open("wb") as log:
            self.running[program] = subprocess.Popen(
                [str(Path(self.order.programs) / program), *arguments],
                cwd=self.layout.state,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=dies_with_parent(),  # noqa: PLW1509 - this process has no other thread
            )
        self._write_record()

    def _write_record(self) -> None:
        identities = {name: Identity.of(process.pid) for name, process in self.running.items()}
        identities["supervisor"] = Identity.of(os.getpid())
        processes = {name: asdict(who) for name, who in identities.items() if who}
        staged = self.layout.record.with_suffix(".tmp")
        staged.write_text(json.dumps({"programs": self.order.programs, "processes": processes}))
        staged.replace(self.layout.record)

    def _tool(self, program: str, *arguments: str) -> None:
        self._run_tool([str(Path(self.order.programs) / program), *arguments], seconds=_TOOL_SECONDS)

    def _run_tool(self, argv: Sequence[str], *, seconds: float) -> None:
        called = " ".join([Path(argv[0]).name, *argv[1:5]])
        try:
            ended = subprocess.run(
                argv,
                cwd=self.layout.state,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise ClusterError(f"{called} took more than {seconds:.0f} s") from late
        self._check()
        if ended.returncode != 0:
            said = "\n".join((ended.stdout + ended.stderr).splitlines()[-_TAIL_LINES:])
            raise ClusterError(f"{called} failed:\n{said}")

    def _await(self, condition: Callable[[], bool], otherwise: str, deadline: float) -> None:
        while True:
            self._check()
            self._tend()
            with suppress(OSError):
                if condition():
                    return
            if time.monotonic() > deadline:
                logs = "\n".join(self._tail(program) for program in self._programs())
                raise ClusterError(f"{otherwise} after {START_SECONDS:.0f} s:\n{logs}")
            time.sleep(_POLL_SECONDS)

    def _programs(self) -> Sequence[str]:
        """Those whose last lines tell why a start took too long."""
        return tuple(self.running)

    def _tend(self) -> None:
        """What has to be done again and again while it runs."""

    def _check(self, *, started: bool = False) -> None:
        needed_by = self.order.owner if started else self.order.starter
        if self._told_to_stop.is_set() or (needed_by is not None and not needed_by.is_alive):
            raise _Stopped
        for program, process in self.running.items():
            if process.poll() is not None:
                raise ClusterError(f"{program} ended with status {process.returncode}:\n{self._tail(program)}")

    def _watch(self) -> None:
        while True:
            self._check(started=True)
            self._tend()
            self._told_to_stop.wait(_TICK_SECONDS)

    def _tail(self, program: str) -> str:
        lines = self.layout.log(program).read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join([f"--- the last lines of {program}", *(line[:400] for line in lines)])

    def _stop(self) -> None:
        for program in reversed(START_ORDER):
            process = self.running.pop(program, None)
            if process is None:
                continue
            process.terminate()
            try:
                process.wait(_GRACE_SECONDS[program])
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.layout.state, ignore_errors=True)


def serve(supervisor: Supervisor) -> int:
    """Run it and tell whoever started this process, on standard output, how the start went. Returns the exit status."""
    os.umask(0o077)
    announcements = os.fdopen(os.dup(1), "w")
    # Nobody reads standard output after the announcement.
    os.dup2(2, 1)

    def announce(message: dict[str, str]) -> None:
        with suppress(BrokenPipeError, ValueError), announcements:
            announcements.write(json.dumps(message) + "\n")

    return supervisor.run(announce)


def main() -> int:
    order = Order.decode(sys.argv[1])
    return serve(Supervisor(order=order, layout=Layout(state=Path(order.state))))


if __name__ == "__main__":
    sys.exit(main())
