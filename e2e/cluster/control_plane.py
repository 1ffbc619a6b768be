"""
A control plane to use: etcd, kube-apiserver and kube-controller-manager on loopback, with a real API and no pods.

    with ControlPlane.start() as cluster:
        subprocess.run([cluster.kubectl, "get", "namespaces"], env=cluster.environment(), check=True, timeout=30)

Everything that it starts and writes is gone afterwards, also when its owner is killed. A detached one (`owned=False`)
stays until somebody attaches to its state directory and stops it.
"""

import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from e2e.cluster.api import ApiClient
from e2e.cluster.build import ensure_built, kubernetes_version
from e2e.cluster.cache import ClusterError, Report
from e2e.cluster.components import START_ORDER, Layout
from e2e.cluster.processes import Identity
from e2e.cluster.supervisor import START_SECONDS, Order

_REPOSITORY: Final = Path(__file__).resolve().parents[2]
_STOP_SECONDS: Final = 30.0
_KUBECTL_SECONDS: Final = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlPlane:
    """A running control plane. `processes` names the supervisor and its three programs."""

    state_dir: Path
    bin_dir: Path
    processes: Mapping[str, Identity]
    _child: "subprocess.Popen[bytes] | None" = field(default=None, repr=False, compare=False)

    @classmethod
    def start(
        cls,
        state_dir: Path | None = None,
        *,
        owned: bool = True,
        owner_pid: int | None = None,
        crds: Path | None = None,
        report: Report = lambda line: None,
    ) -> Self:
        """
        Start one (about 5 s, after `ensure_built`) and return when its API and its controllers work.

        state_dir: a directory to be made, or an empty one; by default a new one among the temporary files. Removed at
        the end. owned: end when the process `owner_pid` (by default this one) ends; else run until `stop`. crds: a
        directory of CustomResourceDefinitions to install before the controllers start, so that garbage collection knows
        them at once. Raises ClusterError, with the programs' last lines, and leaves nothing running.
        """
        bin_dir = ensure_built(report)
        state = _fresh_directory(state_dir)
        starter = _living(os.getpid())
        order = Order(
            state=str(state),
            programs=str(bin_dir),
            version=kubernetes_version(),
            starter=starter,
            owner=_living(owner_pid or os.getpid()) if owned else None,
            crds=str(crds.resolve()) if crds else None,
        )
        try:
            child = _run_supervisor(order, Layout(state=state))
        except BaseException:
            shutil.rmtree(state, ignore_errors=True)
            raise
        return replace(cls.attach(state), _child=child)

    @classmethod
    def attach(cls, state_dir: Path) -> Self:
        """The control plane that runs in `state_dir`. Raises ClusterError when none does."""
        recorded = _recorded(state_dir)
        if recorded is None or not recorded.processes["supervisor"].is_alive:
            raise ClusterError(f"no control plane runs in {state_dir}")
        return cls(state_dir=state_dir.resolve(), bin_dir=recorded.bin_dir, processes=recorded.processes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def kubeconfig(self) -> Path:
        """Credentials of a super-admin."""
        return Layout(state=self.state_dir).kubeconfig

    @property
    def kubectl(self) -> Path:
        return self.bin_dir / "kubectl"

    @property
    def is_running(self) -> bool:
        return all(process.is_alive for process in self.processes.values())

    def log(self, program: str) -> Path:
        """Where `etcd`, `kube-apiserver` or `kube-controller-manager` logs."""
        return Layout(state=self.state_dir).log(program)

    def environment(self) -> dict[str, str]:
        """
        This process's environment plus what `kubectl` and the client libraries need to find the cluster.

        kubectl's cache goes into the state directory too: in the home directory it would be left behind, and believed
        for hours by a later cluster that happens to get the same port.
        """
        cluster = {"KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.state_dir / "kubectl-cache")}
        return {**os.environ, **cluster, "PATH": f"{self.bin_dir}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}

    def run_kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Standard output of kubectl. Raises ClusterError with its standard error when it fails or takes over 60 s."""
        try:
            ended = subprocess.run(
                [self.kubectl, *arguments],
                env=self.environment(),
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                text=True,
                timeout=_KUBECTL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise ClusterError(f"kubectl {' '.join(arguments)} took more than {_KUBECTL_SECONDS:.0f} s") from late
        if ended.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {ended.stderr.strip()}")
        return ended.stdout

    def api(self) -> ApiClient:
        """A new connection with the super-admin's credentials."""
        return ApiClient(self.kubeconfig)

    def stop(self) -> None:
        """End it and remove its files; safe to call again. Returns when nothing is left."""
        _end(self.processes)
        if self._child is not None:
            self._child.wait()
        shutil.rmtree(self.state_dir, ignore_errors=True)


def stop_in(state_dir: Path) -> None:
    """End whatever control plane runs, or was left half dead, in `state_dir`, and remove the directory."""
    recorded = _recorded(state_dir)
    if recorded is not None:
        _end(recorded.processes)
        shutil.rmtree(state_dir, ignore_errors=True)


def _end(processes: Mapping[str, Identity]) -> None:
    processes["supervisor"].end(grace_seconds=_STOP_SECONDS)
    # Only after SIGKILL of the supervisor, and where the kernel sends no death signals, is anything left to do here.
    for program in reversed(START_ORDER):
        if program in processes:
            processes[program].end(grace_seconds=5)


def _fresh_directory(wanted: Path | None) -> Path:
    if wanted is None:
        return Path(tempfile.mkdtemp(prefix="commonplace-cluster-")).resolve()
    wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(wanted.iterdir()):
        raise ClusterError(
            f"{wanted} is not empty, and a control plane removes its directory at the end: name a new one"
        )
    return wanted.resolve()


def _living(pid: int) -> Identity:
    identity = Identity.of(pid)
    if identity is None:
        raise ClusterError(f"process {pid} is to own a control plane, but has ended")
    return identity


@dataclass(frozen=True, kw_only=True, slots=True)
class _Record:
    bin_dir: Path
    processes: Mapping[str, Identity]


def _recorded(state_dir: Path) -> _Record | None:
    try:
        recorded = json.loads(Layout(state=state_dir).record.read_text())
    except FileNotFoundError:
        return None
    processes = {name: Identity(**fields) for name, fields in recorded["processes"].items()}
    return _Record(bin_dir=Path(recorded["programs"]), processes=processes)


def _run_supervisor(order: Order, layout: Layout) -> "subprocess.Popen[bytes]":
    log = layout.log("supervisor")
    log.parent.mkdir(mode=0o700)
    with log.open("wb") as errors:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "e2e.cluster.supervisor", order.encode()],
            cwd=layout.state,
            env={**os.environ, "PYTHONPATH": str(_REPOSITORY)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    try:
        answer = _announcement(supervisor, START_SECONDS + 30)
    except BaseException:
        supervisor.terminate()
        with suppress(subprocess.TimeoutExpired):
            supervisor.wait(_STOP_SECONDS)
        supervisor.kill()
        raise
    if "ready" not in answer:
        supervisor.wait(_STOP_SECONDS)
        raise ClusterError(f"the control plane did not start: {answer.get('error', 'its supervisor was killed')}")
    return supervisor


def _announcement(supervisor: "subprocess.Popen[bytes]", seconds: float) -> dict[str, Any]:
    """The one line of JSON that a supervisor writes; {} when it died without."""
    assert supervisor.stdout is not None
    deadline = time.monotonic() + seconds
    with supervisor.stdout as stream, selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        line = b""
        while not line.endswith(b"\n"):
            if not selector.select(timeout=max(0.0, deadline - time.monotonic())):
                raise ClusterError(f"the control plane did not start within {seconds:.0f} s")
            chunk = os.read(stream.fileno(), 65536)
            if not chunk:
                return {}
            line += chunk
    answer: dict[str, Any] = json.loads(line)
    return answer
