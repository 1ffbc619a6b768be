"""A control plane of its own: nothing but other projects' CRDs in it, so that Helm really installs ours."""

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.control_plane import ControlPlane
from tests.charts import helm

RELEASE = "commonplace"
SYSTEM = "commonplace-system"
MANAGER = "--field-manager=argocd-controller"


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """A fresh control plane with the CRDs of KEDA and of the Prometheus operator."""
    with ControlPlane.start(crds=Path(__file__).parent / "crds") as started:
        yield started


@pytest.fixture(scope="session")
def release(plane: ControlPlane) -> str:
    """The operator chart, installed with its defaults in a namespace that enforces restricted Pod Security."""
    make_namespace(plane, SYSTEM)
    helm.run("install", RELEASE, helm.OPERATOR, "--namespace", SYSTEM, environment=plane.environment())
    return RELEASE


@pytest.fixture
def namespace(plane: ControlPlane) -> Iterator[str]:
    """The name of a new namespace, restricted."""
    name = f"t-{uuid.uuid4().hex[:10]}"
    make_namespace(plane, name)
    yield name
    plane.run_kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def installed(plane: ControlPlane) -> Iterator[Callable[[str], None]]:
    """Applies a manifest, and takes it away after the test: what has no namespace does not go with one."""
    manifests: list[str] = []

    def install(manifest: str) -> None:
        manifests.append(manifest)
        ended = kubectl(plane, "apply", MANAGER, manifest=manifest)
        assert (ended.returncode, ended.stderr) == (0, "")

    yield install
    for manifest in manifests:
        ended = kubectl(plane, "delete", "--ignore-not-found", "--wait=false", manifest=manifest)
        assert ended.returncode == 0, ended.stderr


def kubectl(plane: ControlPlane, *arguments: str, manifest: str) -> "subprocess.CompletedProcess[str]":
    way = [] if arguments[0] == "delete" else ["--server-side"]
    return subprocess.run(
        [plane.kubectl, *arguments, *way, "--filename", "-"],
        env=plane.environment(),
        input=manifest,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def make_namespace(plane: ControlPlane, name: str) -> None:
    """A namespace that refuses, and warns of, pods that are not restricted."""
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    plane.run_kubectl("apply", "--server-side", "--filename", "-", stdin=json.dumps(body))


def read(plane: ControlPlane, *what: str) -> Any:
    """What `kubectl get … --output json` says."""
    return json.loads(plane.run_kubectl("get", *what, "--output", "json"))
