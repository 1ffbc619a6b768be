"""etcd, the Kubernetes programs and kubectl: one binary with a link for each, as `gobuild` compiles it."""

from pathlib import Path
from typing import Final

from e2e.cluster.cache import Report
from e2e.cluster.gobuild import GO_SOURCES, GoProgram, ensure_program

PROGRAMS: Final = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubeadm",
    "kubectl",
)
_SOURCES: Final = GO_SOURCES / "kubernetes"
_VERSION_PACKAGE: Final = "k8s.io/component-base/version"
_STAMPS: Final = {
    "gitVersion": "v{version}",
    "gitMajor": "{major}",
    "gitMinor": "{minor}",
    "gitCommit": "local",
    "buildDate": "1970-01-01T00:00:00Z",
}


def kubernetes(sources: Path = _SOURCES) -> GoProgram:
    return GoProgram(
        title="Kubernetes",
        sources=sources,
        module="k8s.io/kubernetes",
        packages={"kubernetes": "."},
        links=PROGRAMS,
        stamps={f"{_VERSION_PACKAGE}.{name}": text for name, text in _STAMPS.items()},
        usually="5 to 10 minutes",
        cold_gigabytes=5,
    )


def kubernetes_version(sources: Path = _SOURCES) -> str:
    """The version that go.mod pins, such as `1.36.3`."""
    return kubernetes(sources).pinned_version()


def build_home(root: Path, sources: Path = _SOURCES) -> Path:
    """`<root>/<Kubernetes version>-<checksum>`."""
    return kubernetes(sources).home(root)


def ensure_built(report: Report) -> Path:
    """The directory with a link for each of `PROGRAMS`, built first if need be (minutes the first time, else 0.2 s)."""
    return ensure_program(kubernetes(), report)
