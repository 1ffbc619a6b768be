"""
A control plane to use: etcd, kube-apiserver and kube-controller-manager on loopback, with a real API and no pods.

    with ControlPlane.start() as cluster:
        subprocess.run([cluster.kubectl, "get", "namespaces"], env=cluster.environment(), check=True, timeout=30)

Everything that it starts and writes is gone afterwards, also when its owner is killed. A detached one (`owned=False`)
stays until somebody attaches to its state directory and stops it.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from e2e.cluster.build import ensure_built, kubernetes_version
from e2e.cluster.cache import ClusterError, Report
from e2e.cluster.components import START_ORDER, Layout
from e2e.cluster.launch import STOP_SECONDS, fresh_directory, living, recorded, run_supervisor
from e2e.cluster.processes import Identity
from e2e.cluster.running import RunningCluster
from e2e.cluster.supervisor import Order


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlPlane(RunningCluster):
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
        state = fresh_directory(state_dir)
        starter = living(os.getpid())
        order = Order(
            state=str(state),
            programs=str(bin_dir),
            version=kubernetes_version(),
            starter=starter,
            owner=living(owner_pid or os.getpid()) if owned else None,
            crds=str(crds.resolve()) if crds else None,
        )
        try:
            child = run_supervisor(order, module="e2e.cluster.supervisor", what="the control plane")
        except BaseException:
            shutil.rmtree(state, ignore_errors=True)
            raise
        return replace(cls.attach(state), _child=child)

    @classmethod
    def attach(cls, state_dir: Path) -> Self:
        """The control plane that runs in `state_dir`. Raises ClusterError when none does."""
        record = recorded(state_dir)
        if record is None or not record.processes["supervisor"].is_alive:
            raise ClusterError(f"no control plane runs in {state_dir}")
        return cls(state_dir=state_dir.resolve(), bin_dir=record.bin_dir, processes=record.processes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def kubeconfig(self) -> Path:
        """Credentials of a super-admin."""
        return Layout(state=self.state_dir).kubeconfig

    @property
    def is_running(self) -> bool:
        return all(process.is_alive for process in self.processes.values())

    def log(self, program: str) -> Path:
        """Where `etcd`, `kube-apiserver` or `kube-controller-manager` logs."""
        return Layout(state=self.state_dir).log(program)

    def stop(self) -> None:
        """End it and remove its files; safe to call again. Returns when nothing is left."""
        _end(self.processes)
        if self._child is not None:
            self._child.wait()
        shutil.rmtree(self.state_dir, ignore_errors=True)


def stop_in(state_dir: Path) -> None:
    """End whatever control plane runs, or was left half dead, in `state_dir`, and remove the directory."""
    record = recorded(state_dir)
    if record is not None:
        _end(record.processes)
        shutil.rmtree(state_dir, ignore_errors=True)


def _end(processes: Mapping[str, Identity]) -> None:
    processes["supervisor"].end(grace_seconds=STOP_SECONDS)
    # Only after SIGKILL of the supervisor, and where the kernel sends no death signals, is anything left to do here.
    for program in reversed(START_ORDER):
        if program in processes:
            processes[program].end(grace_seconds=5)
