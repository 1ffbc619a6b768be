"""PURE: where a node keeps its files, its addresses, and what each of its programs is told."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from e2e.cluster.components import (
    LOOPBACK,
    SERVICE_SUBNET,
    Layout,
    Ports,
    api_server_arguments,
    controllers_arguments,
    kubeadm_config,
)

NODE_NAME: Final = "node"
HOST_ADDRESS: Final = "10.250.0.1"
NODE_ADDRESS: Final = "10.250.0.2"
NODE_SUBNET: Final = "10.250.0.0/30"
POD_SUBNET: Final = "10.244.0.0/16"
HOST_INTERFACE: Final = "commonplace0"
NODE_INTERFACE: Final = "eth0"
CGROUP: Final = "commonplace-e2e"
PORTS: Final = Ports(api=6443, etcd=2379, etcd_peer=2380, controllers=10257)
"""Fixed: the node has a network of its own."""

CONTAINERD: Final = "containerd"
SCHEDULER: Final = "kube-scheduler"
KUBELET: Final = "kubelet"
PROXY: Final = "kube-proxy"

PAUSE_IMAGE: Final = "localhost/commonplace-e2e/pause:1"
COREDNS_IMAGE: Final = "localhost/commonplace-e2e/coredns:1"

MOUNT_POINTS: Final = (
    "/var/lib/kubelet",
    "/var/lib/cni",
    "/var/log/pods",
    "/var/log/containers",
    "/tmp/hostpath_pv",
)
"""Paths that the programs have compiled in. In the node's mount namespace directories of its state lie over them."""

_ANYWHERE: Final = "0.0.0.0"


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeLayout(Layout):
    """The files of one node, beside those of its control plane."""

    @property
    def containerd_socket(self) -> Path:
        return self.state / "containerd.sock"

    @property
    def containerd_config(self) -> Path:
        return self.state / "containerd.toml"

    @property
    def network_directory(self) -> Path:
        return self.state / "cni"

    @property
    def kubelet_config(self) -> Path:
        return self.state / "kubelet.json"

    @property
    def resolver_config(self) -> Path:
        return self.state / "resolv.conf"

    @property
    def volumes(self) -> Path:
        """What the hostpath provisioner makes lies here, one directory for each persistent volume."""
        return self.over("/tmp/hostpath_pv")

    def over(self, mount_point: str) -> Path:
        """The directory that lies over one of `MOUNT_POINTS`."""
        return self.state / "over" / mount_point.strip("/").replace("/", "-")

    def kubeconfig_of(self, name: str) -> Path:
        return self.state / f"{name}.conf"


def node_kubeadm_config(layout: NodeLayout, *, version: str) -> str:
    return kubeadm_config(
        layout, version=version, ports=PORTS, node=NODE_NAME, address=NODE_ADDRESS, advertised=NODE_ADDRESS
    )


def config_files(layout: NodeLayout, *, plugins: Path) -> Mapping[Path, str]:
    """Every configuration file and its content. plugins: the directory of the CNI plugins."""
    return {
        layout.containerd_config: containerd_config(layout, plugins=plugins),
        layout.network_directory / "10-bridge.conflist": json.dumps(network_config(), indent=1),
        layout.kubelet_config: json.dumps(kubelet_config(layout), indent=1),
        layout.resolver_config: f"nameserver {_dns_address()}\n",
    }


def containerd_config(layout: NodeLayout, *, plugins: Path) -> str:
    """
    One runtime (Debian's runc) with cgroups driven directly, since no systemd runs in the node.

    restrict_oom_score_adj: where CAP_SYS_RESOURCE is missing, as in many virtual machines, runc may not lower a
    score and a sandbox would not start.
    """
    return f"""\
version = 3
root = "{layout.state / "containerd"}"
state = "/run/containerd"
[grpc]
  address = "{layout.containerd_socket}"
[ttrpc]
  address = "{layout.containerd_socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{layout.state / "opt"}"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  discard_unpacked_layers = true
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE_IMAGE}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{plugins}"]
    conf_dir = "{layout.network_directory}"
"""


def network_config() -> Mapping[str, object]:
    """Pods hang on a bridge; addresses from the node's part of the pod subnet; `hostPort` works."""
    addresses = {
        "type": "host-local",
        "dataDir": "/run/cni",
        "ranges": [[{"subnet": "10.244.0.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "hairpinMode": True}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    return {"cniVersion": "1.0.0", "name": "bridge", "plugins": [bridge | {"ipam": addresses}, ports]}


def kubelet_config(layout: NodeLayout) -> Mapping[str, object]:
    """
    A kubelet that never evicts for want of disk and never removes an image, since none could be pulled again.

    failCgroupV1: from 1.36 on the kubelet refuses cgroup v1 unless it is told otherwise.
    """
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": _ANYWHERE,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [_dns_address()],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "resolvConf": str(layout.resolver_config),
        "rotateCertificates": False,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
        "nodeStatusUpdateFrequency": "2s",
        "volumePluginDir": str(layout.state / "volume-plugins"),
    }


def node_api_server_arguments(layout: NodeLayout) -> Sequence[str]:
    """It listens on all addresses of the node's network: pods come through the `kubernetes` Service."""
    pki = layout.pki
    return (
        *api_server_arguments(layout, PORTS, address=_ANYWHERE, advertised=NODE_ADDRESS),
        "--enable-admission-plugins=NodeRestriction",
        f"--kubelet-client-certificate={pki / 'apiserver-kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'apiserver-kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
    )


def node_controllers_arguments(layout: NodeLayout) -> Sequence[str]:
    """The autoscaler looks every second instead of every 15 s, so that stories about it take seconds."""
    return (
        *controllers_arguments(layout, PORTS),
        "--allocate-node-cidrs",
        f"--cluster-cidr={POD_SUBNET}",
        f"--service-cluster-ip-range={SERVICE_SUBNET}",
        "--enable-hostpath-provisioner",
        "--horizontal-pod-autoscaler-sync-period=1s",
        f"--requestheader-client-ca-file={layout.pki / 'front-proxy-ca.crt'}",
        f"--flex-volume-plugin-dir={layout.state / 'volume-plugins'}",
    )


def scheduler_arguments(layout: NodeLayout) -> Sequence[str]:
    kubeconfig = layout.kubeconfig_of("scheduler")
    return (
        f"--bind-address={LOOPBACK}",
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    )


def kubelet_arguments(layout: NodeLayout) -> Sequence[str]:
    return (
        f"--config={layout.kubelet_config}",
        f"--kubeconfig={layout.kubeconfig_of('kubelet')}",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={NODE_ADDRESS}",
    )


def proxy_arguments(layout: NodeLayout) -> Sequence[str]:
    """0 leaves the kernel's connection tracking limits alone: only the machine's own network may set them."""
    return (
        f"--kubeconfig={layout.kubeconfig}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={POD_SUBNET}",
        f"--hostname-override={NODE_NAME}",
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    )


def mount_commands(layout: NodeLayout, *, hierarchies: Sequence[str] | None) -> Sequence[Sequence[str]]:
    """
    What gives the node's mount namespace a /sys, a /run and cgroups of its own.

    hierarchies: the names of cgroup v1's below /sys/fs/cgroup, such as `memory` or `cpu,cpuacct`; None for v2.
    """
    commands: list[Sequence[str]] = [
        ("hostname", NODE_NAME),
        ("mount", "--make-rprivate", "/"),
        ("mount", "-t", "sysfs", "sysfs", "/sys"),
    ]
    if hierarchies is None:
        commands += [("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"), *_delegate_commands()]
    else:
        commands.append(("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/sys/fs/cgroup"))
        for name in hierarchies:
            # The kubelet wants systemd's hierarchy too, because /proc/self/cgroup names it.
            option = f"none,name={name}" if name == "systemd" else name
            commands += [
                ("mkdir", f"/sys/fs/cgroup/{name}"),
                ("mount", "-t", "cgroup", "-o", option, "cgroup", f"/sys/fs/cgroup/{name}"),
            ]
            if "," in name:
                commands += [("ln", "-s", name, f"/sys/fs/cgroup/{part}") for part in name.split(",")]
    commands += [
        ("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"),
        ("mkdir", "-p", "/run/netns", "/run/containerd", "/run/lock"),
    ]
    commands += [("mount", "--bind", str(layout.over(point)), point) for point in MOUNT_POINTS]
    return [*commands, ("mount", "--make-rshared", "/var/lib/kubelet")]


def _delegate_commands() -> Sequence[Sequence[str]]:
    """cgroup v2 wants no process beside children that have controllers: the programs move into one of their own."""
    root = "/sys/fs/cgroup"
    move = (
        f"for pid in $(cat {root}/cgroup.procs); do echo $pid > {root}/programs/cgroup.procs 2>/dev/null || true; done"
    )
    enable = f"for c in $(cat {root}/cgroup.controllers); do echo +$c > {root}/cgroup.subtree_control || true; done"
    return [("mkdir", f"{root}/programs"), ("sh", "-c", move), ("sh", "-c", enable)]


def network_commands() -> Sequence[Sequence[str]]:
    """
    Addresses and routes of the node's network, and the rules that keep everything inside.

    The default route only exists so that service addresses have one before they are translated. What would really leave
    is rejected, not dropped: a client that hears nothing would wait for half a minute. OUTPUT sees the device that was
    chosen before translation, hence the exception for pods.
    """
    commands: list[Sequence[str]] = [
        ("ip", "link", "set", "lo", "up"),
        ("ip", "addr", "add", f"{NODE_ADDRESS}/30", "dev", NODE_INTERFACE),
        ("ip", "link", "set", NODE_INTERFACE, "up"),
        ("ip", "route", "add", "default", "via", HOST_ADDRESS),
        ("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"),
        ("sh", "-c", "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables 2>/dev/null || true"),
    ]
    for chain in ("OUTPUT", "FORWARD"):
        out = ("iptables", "--wait", "10", "-A", chain, "-o", NODE_INTERFACE)
        commands += [(*out, "-d", f"{NODE_SUBNET},{POD_SUBNET}", "-j", "ACCEPT"), (*out, "-j", "REJECT")]
    return commands


def _dns_address() -> str:
    return f"{SERVICE_SUBNET.rsplit('.', 1)[0]}.10"
