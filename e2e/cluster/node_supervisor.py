"""
The process that starts a node, watches over it and takes it away again: `python -m e2e.cluster.node_supervisor`.

As for a control plane, with one step between: the programs run in pid, mount, network, uts, ipc and cgroup namespaces
of their own, whose process 1 (`node_init`) starts them. That process dies with this one, and the kernel ends everything
inside with it: containers, too, cannot outlive their owner.
"""

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from e2e.cluster.api import ApiClient
from e2e.cluster.cache import ClusterError
from e2e.cluster.components import API_SERVER, CONTROLLERS, ETCD, etcd_arguments
from e2e.cluster.node_components import (
    CONTAINERD,
    KUBELET,
    MOUNT_POINTS,
    NODE_NAME,
    PORTS,
    PROXY,
    SCHEDULER,
    NodeLayout,
    config_files,
    kubelet_arguments,
    mount_commands,
    network_commands,
    node_api_server_arguments,
    node_controllers_arguments,
    node_kubeadm_config,
    proxy_arguments,
    scheduler_arguments,
)
from e2e.cluster.node_host import Host, cgroup_hierarchies
from e2e.cluster.processes import dies_with_parent
from e2e.cluster.supervisor import Order, Supervisor, serve

_MANIFESTS: Final = Path(__file__).parent / "manifests" / "node.yaml"
_REPOSITORY: Final = Path(__file__).resolve().parents[2]
_INIT: Final = "init"
_COMMANDS_SECONDS: Final = 60.0
_IMPORT_SECONDS: Final = 120.0
_GRACE_SECONDS: Final = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeOrder(Order):
    """`images`: archives to load at the start. `containerd`, `plugins`: directories with programs."""

    containerd: str
    plugins: str
    images: tuple[str, ...]


def import_arguments(containerd: Path, layout: NodeLayout, archive: Path) -> Sequence[str]:
    """The command that loads an image archive into the node."""
    call = (str(containerd / "ctr"), "--address", str(layout.containerd_socket), "--namespace", "k8s.io")
    return (*call, "images", "import", "--local", "--discard-unpacked-layers", str(archive))


@dataclass(kw_only=True)
class NodeSupervisor(Supervisor):
    order: NodeOrder
    layout: NodeLayout
    _host: Host = field(default_factory=Host)
    _started: list[str] = field(default_factory=list)
    _heard: bytes = b""

    def _start(self, deadline: float) -> None:
        self._host.claim(self.layout.state)
        self._write_files()
        init = self._enter_namespaces()
        self._perform(mount_commands(self.layout, hierarchies=cgroup_hierarchies()))
        self._host.connect(_only_child_of(init.pid))
        self._perform(network_commands())
        self._launch(CONTAINERD, (f"--config={self.layout.containerd_config}",))
        self._launch(ETCD, etcd_arguments(self.layout, PORTS))
        self._launch(API_SERVER, node_api_server_arguments(self.layout))
        self._load_images(deadline)
        with ApiClient(self.layout.kubeconfig) as client:
            self._await(lambda: _found(client, "/readyz"), "the API server is not ready", deadline)
            self._await(lambda: _found(client, "/api/v1/namespaces/kube-system"), "no system namespace", deadline)
            if self.order.crds:
                self._install(self.order.crds)
            self._launch(CONTROLLERS, node_controllers_arguments(self.layout))
            self._launch(SCHEDULER, scheduler_arguments(self.layout))
            self._launch(KUBELET, kubelet_arguments(self.layout))
            self._launch(PROXY, proxy_arguments(self.layout))
            server = f"--kubeconfig={self.layout.kubeconfig}"
            self._tool("kubectl", server, "apply", "--server-side", f"--filename={_MANIFESTS}")
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            self._await(lambda: _found(client, account), "the controllers do not work", deadline)
            self._await(lambda: _is_ready(client), "the node is not ready", deadline)
            self._await(lambda: _resolves(client), "CoreDNS is not available", deadline)

    def _write_files(self) -> None:
        self.layout.kubeadm_config.write_text(node_kubeadm_config(self.layout, version=self.order.version))
        for path, text in config_files(self.layout, plugins=Path(self.order.plugins)).items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        for point in MOUNT_POINTS:
            self.layout.over(point).mkdir(mode=0o755, parents=True)
        common = f"--config={self.layout.kubeadm_config}"
        self._tool("kubeadm", "init", "phase", "certs", "all", common)
        self._tool("kubeadm", "init", "phase", "kubeconfig", "all", f"--kubeconfig-dir={self.layout.state}", common)

    def _enter_namespaces(self) -> "subprocess.Popen[bytes]":
        procs = self._host.prepare()
        dies = dies_with_parent()

        def enter() -> None:
            dies()
            # The supervisor's own would make files in pods unreadable to all but root.
            os.umask(0o022)
            # Before the cgroup namespace is made: its root is where its first process is.
            for path in procs:
                path.write_text(str(os.getpid()))

        program = (sys.executable, "-m", "e2e.cluster.node_init")
        kinds = ("--pid", "--mount", "--net", "--uts", "--ipc", "--cgroup")
        with self.layout.log(_INIT).open("wb") as log:
            process = subprocess.Popen(
                ["unshare", *kinds, "--fork", "--kill-child", "--mount-proc", *program],
                cwd=self.layout.state,
                env=self._environment() | {"PYTHONPATH": str(_REPOSITORY)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                preexec_fn=enter,  # noqa: PLW1509 - this process has no other thread
            )
        self.running[_INIT] = process
        self._write_record()
        return process

    def _environment(self) -> dict[str, str]:
        """containerd looks for its shim and runc on the path; kube-proxy and the plugins for iptables."""
        usual = super()._environment()
        path = (self.order.programs, self.order.containerd, "/usr/sbin", "/sbin", usual["PATH"])
        return usual | {"PATH": os.pathsep.join(path)}

    def _launch(self, program: str, arguments: Sequence[str]) -> None:
        directory = self.order.containerd if program == CONTAINERD else self.order.programs
        argv = [str(Path(directory) / program), *arguments]
        self._ask({"launch": program, "argv": argv, "log": str(self.layout.log(program))})
        self._started.append(program)

    def _perform(self, commands: Sequence[Sequence[str]]) -> None:
        self._ask({"commands": commands})
        deadline = time.monotonic() + _COMMANDS_SECONDS
        while True:
            for message in self._hear(0.1):
                if "failed" in message:
                    raise ClusterError(f"the node's namespaces cannot be set up: {message['failed']}")
                if "done" in message:
                    return
            self._check()
            if time.monotonic() > deadline:
                raise ClusterError(f"the node's namespaces were not set up within {_COMMANDS_SECONDS:.0f} s")

    def _ask(self, request: object) -> None:
        stdin = self.running[_INIT].stdin
        assert stdin is not None
        with suppress(BrokenPipeError):  # that it ended is noticed, and told better, by the next check
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()

    def _hear(self, seconds: float) -> Sequence[dict[str, Any]]:
        init = self.running.get(_INIT)
        if init is None:
            return ()
        stdout = init.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], seconds)[0]:
            return ()
        *lines, self._heard = (self._heard + os.read(stdout.fileno(), 65536)).split(b"\n")
        return [json.loads(line) for line in lines]

    def _load_images(self, deadline: float) -> None:
        containerd = Path(self.order.containerd)
        self._await(self.layout.containerd_socket.exists, "containerd does not answer", deadline)
        for archive in self.order.images:
            self._run_tool(import_arguments(containerd, self.layout, Path(archive)), seconds=_IMPORT_SECONDS)

    def _check(self, *, started: bool = False) -> None:
        super()._check(started=started)
        for message in self._hear(0):
            if "ended" in message:
                program, status = message["ended"], message["status"]
                raise ClusterError(f"{program} ended with status {status}:\n{self._tail(program)}")

    def _tend(self) -> None:
        # The provisioner makes 0750 for root, and the kubelet gives no hostPath to a pod's group: a pod that does not
        # run as root could not write to its own volume.
        for volume in self.layout.volumes.iterdir():
            if volume.stat().st_mode & 0o777 != 0o777:
                volume.chmod(0o777)

    def _programs(self) -> Sequence[str]:
        return (_INIT, *self._started)

    def _stop(self) -> None:
        process = self.running.pop(_INIT, None)
        if process is not None:
            # The end of its input ends process 1, and the kernel everything else before it lets process 1 go.
            if process.stdin is not None:
                with suppress(OSError):
                    process.stdin.close()
            try:
                process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._host.release()
        shutil.rmtree(self.layout.state, ignore_errors=True)


def _only_child_of(pid: int) -> int:
    """The pid, as the machine counts, of process 1 of the namespaces that `unshare` made."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def _found(client: ApiClient, path: str) -> bool:
    return client.request("GET", path)[0] == 200


def _is_ready(client: ApiClient) -> bool:
    status, node = client.request("GET", f"/api/v1/nodes/{NODE_NAME}")
    conditions = node["status"].get("conditions", ()) if status == 200 else ()
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _resolves(client: ApiClient) -> bool:
    status, deployment = client.request("GET", "/apis/apps/v1/namespaces/kube-system/deployments/coredns")
    return status == 200 and deployment.get("status", {}).get("availableReplicas", 0) > 0


def main() -> int:
    order = NodeOrder.decode(sys.argv[1])
    return serve(NodeSupervisor(order=order, layout=NodeLayout(state=Path(order.state))))


if __name__ == "__main__":
    sys.exit(main())
