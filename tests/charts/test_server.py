"""What the charts render, sent to a real API server: accepted without warnings, and stable when applied again."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.cluster.control_plane import ControlPlane
from tests.charts import helm
from tests.charts.conftest import MANAGER, SYSTEM, kubectl, make_namespace, read
from tests.integration.operator.harness import until


def accept(plane: ControlPlane, manifest: str) -> None:
    """Server-side dry run with strict validation; a warning counts as a fault."""
    ended = kubectl(plane, "apply", "--dry-run=server", "--validate=strict", manifest=manifest)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(ended.stdout.splitlines()) == len(helm.documents(manifest))


@pytest.fixture(scope="session")
def namespaces(plane: ControlPlane) -> None:
    """Those that variants and examples name."""
    for name in (SYSTEM, "memory", "team-a", "team-b", "team-shop", "team-warehouse"):
        make_namespace(plane, name)


@pytest.mark.usefixtures("release", "namespaces")
@pytest.mark.parametrize("file", helm.VARIANTS, ids=lambda file: file.stem)
def test_the_server_accepts_every_variant_without_a_warning(plane: ControlPlane, file: Path) -> None:
    # Another release's name: what the release in the cluster owns is Helm's.
    accept(plane, helm.template(helm.OPERATOR, file, release="other", values={"crds.install": False}))


@pytest.mark.usefixtures("release", "namespaces")
@pytest.mark.parametrize("file", helm.EXAMPLES, ids=lambda file: file.stem)
def test_the_server_accepts_every_example_of_the_tenancy_chart(plane: ControlPlane, file: Path) -> None:
    accept(plane, helm.template(helm.TENANCY, file, namespace="memory"))


@pytest.mark.usefixtures("release")
def test_the_crds_of_the_chart_are_accepted(plane: ControlPlane) -> None:
    for file in sorted((helm.OPERATOR / "files" / "crds").iterdir()):
        ended = kubectl(plane, "apply", "--dry-run=server", "--force-conflicts", manifest=file.read_text())
        assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize("name", ["default", "full", "monitoring"])
def test_applying_the_operator_twice_is_no_diff(
    plane: ControlPlane, namespace: str, installed: Callable[[str], None], name: str
) -> None:
    file = helm.OPERATOR / "ci" / f"{name}-values.yaml"
    values = {"crds.install": False, "watchNamespaces": []}
    manifest = helm.template(helm.OPERATOR, file, namespace=namespace, values=values)
    installed(manifest)

    again = kubectl(plane, "diff", MANAGER, manifest=manifest)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")

    changed = kubectl(plane, "diff", MANAGER, manifest=manifest.replace("minAvailable: ", "minAvailable: 2 # "))
    assert changed.returncode == 1, "a diff that never shows anything proves nothing"


@pytest.mark.usefixtures("release")
async def test_restricted_pod_security_lets_the_operators_pods_in(plane: ControlPlane) -> None:
    def pods() -> bool:
        return len(read(plane, "pods", "--namespace", SYSTEM)["items"]) == 2

    await until(pods, "two pods made by the ReplicaSet")
    events = read(plane, "events", "--namespace", SYSTEM)["items"]
    assert [event["message"] for event in events if event["reason"] == "FailedCreate"] == []


@pytest.mark.usefixtures("release")
async def test_the_operator_gets_every_right_that_its_kinds_need_and_those_who_view_get_no_secret(
    plane: ControlPlane, namespace: str
) -> None:
    plane.run_kubectl("create", "rolebinding", "v", "--clusterrole=view", "--user=vera", "--namespace", namespace)

    def may(who: str, verb: str, what: str) -> bool:
        ended = subprocess.run(
            [plane.kubectl, "auth", "can-i", verb, what, "--as", who, "--namespace", namespace],
            env=plane.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.stdout.strip() in {"yes", "no"}, ended.stderr
        return ended.stdout.strip() == "yes"

    await until(lambda: may("vera", "list", "apikeys.commonplace.dev"), "the aggregation of our role into view")
    assert not may("vera", "get", "secrets")
    assert not may("vera", "create", "apikeys.commonplace.dev")

    operator = f"system:serviceaccount:{SYSTEM}:commonplace-operator"
    for forbidden in ("create pods", "create pods/exec", "create clusterroles", "get configmaps", "update secrets"):
        assert not may(operator, *forbidden.split()), forbidden
