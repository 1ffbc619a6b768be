"""
A cluster of one node that runs pods: the control plane, kubelet, kube-proxy, containerd and CoreDNS, and no Docker.

    with Node.start(report=print) as cluster:
        cluster.load(Path("app.tar"))
        cluster.run_kubectl("create", "deployment", "app", "--image=localhost/app:1")

It takes about 15 s, root, and Debian's runc, iptables and conntrack. NodePorts answer on `address`. It runs in
namespaces of its own, and nothing leaves them: no image can be pulled, and pods reach this machine alone. Everything
that it starts and writes is gone afterwards, also when its owner is killed. A machine holds one node at a time.

Tried on cgroup v1 (Linux 6.18, Debian 12). The way through cgroup v2 is the one that kind takes, but was not tried.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from e2e.cluster.build import ensure_built, kubernetes_version
from e2e.cluster.cache import ClusterError, Report, cache_root
from e2e.cluster.gobuild import ensure_program
from e2e.cluster.launch import STOP_SECONDS, fresh_directory, living, recorded, run_supervisor
from e2e.cluster.node_components import NODE_ADDRESS, NodeLayout
from e2e.cluster.node_host import clean_up, node_processes
from e2e.cluster.node_images import node_image_tars
from e2e.cluster.node_supervisor import NodeOrder, import_arguments
from e2e.cluster.preflight import require_node_support, require_short_path
from e2e.cluster.processes import Identity
from e2e.cluster.programs import CNI, CONTAINERD
from e2e.cluster.running import RunningCluster

_LOAD_SECONDS: Final = 180.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Node(RunningCluster):
    """A running node. `processes` names its supervisor and the first process of its namespaces."""

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
        Start one (about 15 s, after what has to be built) and return when the node is ready and names resolve.

        The arguments are those of `ControlPlane.start`, but a new `state_dir` is made in the cache: images want a real
        disk. Raises ClusterError, with the programs' last lines, and leaves nothing running.
        """
        require_node_support()
        programs, containerd, plugins = (
            ensure_built(report),
            ensure_program(CONTAINERD, report),
            ensure_program(CNI, report),
        )
        images = node_image_tars(report)
        state = fresh_directory(state_dir, below=cache_root() / "nodes")
        require_short_path(NodeLayout(state=state).containerd_socket)
        order = NodeOrder(
            state=str(state),
            programs=str(programs),
            version=kubernetes_version(),
            starter=living(os.getpid()),
            owner=living(owner_pid or os.getpid()) if owned else None,
            crds=str(crds.resolve()) if crds else None,
            containerd=str(containerd),
            plugins=str(plugins),
            images=tuple(map(str, images)),
        )
        try:
            child = run_supervisor(order, module="e2e.cluster.node_supervisor", what="the node")
        except BaseException:
            shutil.rmtree(state, ignore_errors=True)
            raise
        return replace(cls.attach(state), _child=child)

    @classmethod
    def attach(cls, state_dir: Path) -> Self:
        """The node that runs in `state_dir`. Raises ClusterError when none does."""
        record = recorded(state_dir)
        if record is None or not record.processes["supervisor"].is_alive:
            raise ClusterError(f"no node runs in {state_dir}")
        return cls(state_dir=state_dir.resolve(), bin_dir=record.bin_dir, processes=record.processes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def kubeconfig(self) -> Path:
        return self._layout.kubeconfig

    @property
    def address(self) -> str:
        """Where this machine finds NodePorts."""
        return NODE_ADDRESS

    @property
    def is_running(self) -> bool:
        return all(process.is_alive for process in self.processes.values())

    @property
    def _layout(self) -> NodeLayout:
        return NodeLayout(state=self.state_dir)

    def log(self, program: str) -> Path:
        """Where `containerd`, `kubelet`, `kube-apiserver` and so on log."""
        return self._layout.log(program)

    def program_names(self) -> Mapping[int, str]:
        """Everything that runs in the node: pid, as this machine counts, to the name of its program."""
        found = {}
        for pid in node_processes():
            identity = Identity.of(pid)
            if identity is not None:
                found[pid] = Path(f"/proc/{pid}/comm").read_text().strip()
        return found

    def load(self, archive: Path) -> None:
        """Load an image archive, such as `write_image` makes. Raises ClusterError with containerd's words."""
        ended = subprocess.run(
            import_arguments(ensure_program(CONTAINERD, lambda line: None), self._layout, archive.resolve()),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LOAD_SECONDS,
            check=False,
        )
        if ended.returncode != 0:
            raise ClusterError(f"{archive} cannot be loaded: {ended.stderr.strip()[-800:]}")

    def stop(self) -> None:
        """End it and remove its files; safe to call again. Returns when nothing is left."""
        self.processes["supervisor"].end(grace_seconds=STOP_SECONDS)
        if self._child is not None:
            self._child.wait()
        clean_up()
        shutil.rmtree(self.state_dir, ignore_errors=True)


def stop_node_in(state_dir: Path) -> None:
    """End whatever node runs, or was left half dead, in `state_dir`, and remove the directory."""
    record = recorded(state_dir)
    if record is not None:
        for process in ("supervisor", "init"):
            if process in record.processes:
                record.processes[process].end(grace_seconds=STOP_SECONDS)
        clean_up()
        shutil.rmtree(state_dir, ignore_errors=True)
