"""
What a node and the stories on it need beside Kubernetes, each built on demand by `gobuild`.

    promtool = ensure_promtool(print)      # a minute the first time; any user, no root, no container
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from e2e.cluster.cache import Report
from e2e.cluster.gobuild import GO_SOURCES, GoProgram, ensure_program

_CONTAINERD_MODULE: Final = "github.com/containerd/containerd/v2"
_CNI_MODULE: Final = "github.com/containernetworking/plugins"
_PROMETHEUS_MODULE: Final = "github.com/prometheus/prometheus"
_PROMETHEUS_VERSION: Final = "github.com/prometheus/common/version.Version"
# Of the Go module, which Prometheus numbers apart from itself: 3.15.1 is v0.315.1.
_PROMETHEUS_STAMPS: Final = {_PROMETHEUS_VERSION: "{version}"}
# The other ways of finding targets bring the clients of two dozen clouds.
_PROMETHEUS_TAGS: Final = ("remove_all_sd", "enable_kubernetes_sd")

CONTAINERD: Final = GoProgram(
    title="containerd",
    prefix="containerd-",
    sources=GO_SOURCES / "containerd",
    module=_CONTAINERD_MODULE,
    packages={name: f"{_CONTAINERD_MODULE}/cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")},
    stamps={f"{_CONTAINERD_MODULE}/version.Version": "{version}"},
    usually="a minute",
    cold_gigabytes=2,
)
CNI: Final = GoProgram(
    title="the CNI plugins",
    prefix="cni-",
    sources=GO_SOURCES / "cni",
    module=_CNI_MODULE,
    packages={
        path.rpartition("/")[2]: f"{_CNI_MODULE}/plugins/{path}"
        for path in ("main/bridge", "main/loopback", "main/ptp", "ipam/host-local", "meta/portmap")
    },
    usually="half a minute",
    cold_gigabytes=1,
)
COREDNS: Final = GoProgram(
    title="CoreDNS",
    prefix="coredns-",
    sources=GO_SOURCES / "coredns",
    module="github.com/coredns/coredns",
    packages={"coredns": "."},
    usually="2 minutes",
    cold_gigabytes=2,
)
PAUSE: Final = GoProgram(
    title="pause",
    prefix="pause-",
    sources=GO_SOURCES / "pause",
    version="1",
    packages={"pause": "."},
    usually="half a minute",
    cold_gigabytes=0.5,
)
PROMETHEUS: Final = GoProgram(
    title="Prometheus",
    prefix="prometheus-",
    sources=GO_SOURCES / "prometheus",
    module=_PROMETHEUS_MODULE,
    packages={"prometheus": f"{_PROMETHEUS_MODULE}/cmd/prometheus"},
    tags=_PROMETHEUS_TAGS,
    stamps=_PROMETHEUS_STAMPS,
    usually="2 minutes",
    cold_gigabytes=2,
)
PROMTOOL: Final = GoProgram(
    title="promtool",
    prefix="promtool-",
    sources=GO_SOURCES / "prometheus",
    module=_PROMETHEUS_MODULE,
    packages={"promtool": f"{_PROMETHEUS_MODULE}/cmd/promtool"},
    tags=_PROMETHEUS_TAGS,
    stamps=_PROMETHEUS_STAMPS,
    usually="a minute",
    cold_gigabytes=2,
)
PROMETHEUS_ADAPTER: Final = GoProgram(
    title="prometheus-adapter",
    prefix="prometheus-adapter-",
    sources=GO_SOURCES / "prometheus-adapter",
    module="sigs.k8s.io/prometheus-adapter",
    packages={"adapter": "sigs.k8s.io/prometheus-adapter/cmd/adapter"},
    usually="2 minutes",
    cold_gigabytes=2,
)
KIND: Final = GoProgram(
    title="kind",
    prefix="kind-",
    sources=GO_SOURCES / "kind",
    module="sigs.k8s.io/kind",
    packages={"kind": "sigs.k8s.io/kind"},
    usually="half a minute",
    cold_gigabytes=1,
)

NODE_PROGRAMS: Final[Sequence[GoProgram]] = (CONTAINERD, CNI, COREDNS, PAUSE)
"""What a node runs beside Kubernetes."""


def ensure_promtool(report: Report) -> Path:
    """The program `promtool`."""
    return ensure_program(PROMTOOL, report) / "promtool"


def ensure_kind(report: Report) -> Path:
    """The program `kind`."""
    return ensure_program(KIND, report) / "kind"
