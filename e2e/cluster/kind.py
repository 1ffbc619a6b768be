"""
A cluster of one node in a container of Docker's, by kind: what most users of Kubernetes on a laptop have.

    with Kind.start(report=print) as cluster:
        cluster.load(Path("app.tar"))

It is used like a `Node`. What differs: the node's image is pulled once (300 MB), pods may reach the network, and it
takes a Docker engine on this machine instead of root, which only the building of our images wants. Gone afterwards,
also when its owner is killed; only should the supervisor itself be killed, `kind delete cluster` is left to do.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from e2e.cluster.api import ApiClient
from e2e.cluster.build import ensure_built
from e2e.cluster.cache import ClusterError, Report
from e2e.cluster.components import Layout
from e2e.cluster.launch import STOP_SECONDS, fresh_directory, living, recorded, run_supervisor
from e2e.cluster.processes import Identity
from e2e.cluster.programs import KIND, ensure_kind
from e2e.cluster.running import RunningCluster
from e2e.cluster.supervisor import Order, Supervisor, serve

_CREATE_SECONDS: Final = 900.0
_CALL_SECONDS: Final = 30.0
_LOAD_SECONDS: Final = 180.0
_DELETE_SECONDS: Final = 60.0
_CONFIG_NAME: Final = "kind.yaml"

CONFIG: Final = """\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking: {apiServerAddress: 127.0.0.1}
nodes:
  - role: control-plane
kubeadmConfigPatches:
  - |
    kind: ClusterConfiguration
    controllerManager:
      extraArgs:
        - {name: horizontal-pod-autoscaler-sync-period, value: 1s}
        - {name: kube-api-qps, value: "500"}
        - {name: kube-api-burst, value: "1000"}
  - |
    kind: KubeletConfiguration
    failCgroupV1: false
"""
"""The autoscaler looks every second instead of every 15 s; the kubelet takes cgroup v1 where there is no other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KindOrder(Order):
    """`name`: of kind's cluster. `kind`: the program. `image`: of the node, empty for kind's own choice."""

    kind: str
    name: str
    image: str


@dataclass(kw_only=True)
class KindSupervisor(Supervisor):
    """Has kind make the cluster, and has it removed when nobody wants it any more."""

    order: KindOrder

    def _start(self, deadline: float) -> None:
        self._write_record()
        order = self.order
        image = (f"--image={order.image}",) if order.image else ()
        config = f"--config={self.layout.state / _CONFIG_NAME}"
        self._call(
            "create", "cluster", f"--name={order.name}", f"--kubeconfig={self.layout.kubeconfig}", config, *image
        )
        deadline = time.monotonic() + 120
        with ApiClient(self.layout.kubeconfig) as client:
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            self._await(lambda: client.request("GET", account)[0] == 200, "the controllers do not work", deadline)
            if order.crds:
                self._install(order.crds)
            self._await(lambda: _all_available(client), "the node's own pods are not available", deadline)

    def _call(self, *arguments: str) -> None:
        """Run kind to its end, however long it takes, unless nobody wants the result any more."""
        with self.layout.log("kind").open("wb") as log:
            process = subprocess.Popen(
                [self.order.kind, *arguments],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            while process.poll() is None:
                self._check()
                self._told_to_stop.wait(0.1)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        if process.returncode != 0:
            raise ClusterError(f"kind failed:\n{self._tail('kind')}\n{_advice_for(self._tail('kind'))}")

    def _environment(self) -> dict[str, str]:
        """The user's: it says where Docker is."""
        return {**os.environ, "KUBECACHEDIR": str(self.layout.state / "kubectl-cache")}

    def _stop(self) -> None:
        name = f"--name={self.order.name}"
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [self.order.kind, "delete", "cluster", name, f"--kubeconfig={self.layout.kubeconfig}"],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_DELETE_SECONDS,
                check=False,
            )
        shutil.rmtree(self.layout.state, ignore_errors=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind(RunningCluster):
    """A running cluster of kind's. `processes` names its supervisor."""

    state_dir: Path
    bin_dir: Path
    processes: Mapping[str, Identity]
    name: str
    _child: "subprocess.Popen[bytes] | None" = field(default=None, repr=False, compare=False)

    @classmethod
    def start(
        cls,
        state_dir: Path | None = None,
        *,
        owned: bool = True,
        owner_pid: int | None = None,
        crds: Path | None = None,
        image: str = "",
        config: str = CONFIG,
        report: Report = lambda line: None,
    ) -> Self:
        """
        Start one (half a minute, and once a download) and return when the node's own pods are available.

        The first arguments are those of `ControlPlane.start`. image: of the node, by default the one that this version
        of kind was released with. config: kind's. Raises ClusterError with kind's words.
        """
        require_docker()
        kind = ensure_kind(report)
        programs = _kubectl_directory(report)
        state = fresh_directory(state_dir)
        (state / _CONFIG_NAME).write_text(config)
        order = KindOrder(
            state=str(state),
            programs=str(programs),
            version=KIND.pinned_version(),
            starter=living(os.getpid()),
            owner=living(owner_pid or os.getpid()) if owned else None,
            crds=str(crds.resolve()) if crds else None,
            kind=str(kind),
            name=_name_for(state),
            image=image,
        )
        report("kind makes the cluster; the first time it pulls the image of the node")
        try:
            child = run_supervisor(order, module="e2e.cluster.kind", what="kind's cluster", seconds=_CREATE_SECONDS)
        except BaseException:
            shutil.rmtree(state, ignore_errors=True)
            raise
        return replace(cls.attach(state), _child=child)

    @classmethod
    def attach(cls, state_dir: Path) -> Self:
        """The cluster whose supervisor runs in `state_dir`. Raises ClusterError when none does."""
        record = recorded(state_dir)
        if record is None or not record.processes["supervisor"].is_alive:
            raise ClusterError(f"no cluster of kind's runs in {state_dir}")
        state = state_dir.resolve()
        return cls(state_dir=state, bin_dir=record.bin_dir, processes=record.processes, name=_name_for(state))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def kubeconfig(self) -> Path:
        return Layout(state=self.state_dir).kubeconfig

    @property
    def address(self) -> str:
        """Where this machine finds NodePorts: the container's address."""
        template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return _output("docker", "inspect", f"--format={template}", f"{self.name}-control-plane").strip()

    @property
    def is_running(self) -> bool:
        return all(process.is_alive for process in self.processes.values())

    def load(self, archive: Path) -> None:
        """Load an image archive, such as `write_image` makes. Raises ClusterError with kind's words."""
        kind = str(ensure_kind(lambda line: None))
        _output(kind, "load", "image-archive", str(archive.resolve()), f"--name={self.name}", seconds=_LOAD_SECONDS)

    def stop(self) -> None:
        """Delete it and remove its files; safe to call again. Returns when nothing is left."""
        self.processes["supervisor"].end(grace_seconds=STOP_SECONDS + _DELETE_SECONDS)
        if self._child is not None:
            self._child.wait()
        shutil.rmtree(self.state_dir, ignore_errors=True)


def require_docker() -> None:
    """Raises ClusterError when no Docker engine answers."""
    if shutil.which("docker") is None:
        raise ClusterError("CLUSTER=kind needs docker on the PATH; CLUSTER=node needs root instead")
    try:
        _output("docker", "version", "--format={{.Server.Version}}")
    except ClusterError as away:
        raise ClusterError(
            f"no Docker engine answers ({away}): start it, set DOCKER_HOST, or use CLUSTER=node, which needs root"
        ) from away


def _name_for(state: Path) -> str:
    """A name that no other run has, since no other has this directory; kind takes lower-case letters and digits."""
    suffix = "".join(letter for letter in state.name.lower() if letter.isascii() and letter.isalnum())
    return f"commonplace-{suffix[-12:]}"


def _kubectl_directory(report: Report) -> Path:
    """Where the user's own kubectl is; without one, ours is built, with all of Kubernetes."""
    own = shutil.which("kubectl")
    return Path(own).parent if own else ensure_built(report)


def _advice_for(output: str) -> str:
    if "failed to pull image" in output:
        return "The image of the node cannot be pulled: name one that this machine has, or use CLUSTER=node"
    return "`docker info` and kind's own words above say more; CLUSTER=node needs no Docker"


def _all_available(client: ApiClient) -> bool:
    status, found = client.request("GET", "/apis/apps/v1/deployments")
    deployments = found["items"] if status == 200 else []
    return bool(deployments) and all(
        deployment.get("status", {}).get("availableReplicas", 0) > 0 for deployment in deployments
    )


def _output(*argv: str, seconds: float = _CALL_SECONDS) -> str:
    called = " ".join([Path(argv[0]).name, *argv[1:3]])
    try:
        ended = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise ClusterError(f"{called} took more than {seconds:.0f} s") from late
    if ended.returncode != 0:
        raise ClusterError(f"{called}: {ended.stderr.strip()[-800:]}")
    return ended.stdout


def main() -> int:
    order = KindOrder.decode(sys.argv[1])
    return serve(KindSupervisor(order=order, layout=Layout(state=Path(order.state))))


if __name__ == "__main__":
    sys.exit(main())
