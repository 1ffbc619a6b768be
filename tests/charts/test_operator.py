"""A real operator with the rights and the environment that the chart gives it, over a real API server and Postgres."""

import base64
import json
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

from commonplace_runtime.embedded import free_port
from e2e.cluster.control_plane import ControlPlane
from tests.charts import helm
from tests.charts.conftest import MANAGER, SYSTEM, kubectl, read
from tests.conftest import Database
from tests.integration.operator.harness import OperatorProcess, World, operator_environment, until

REFUSED = "system:serviceaccount:"
"""What the API server writes of whoever may not: User "system:serviceaccount:…" cannot …"""
READY_KEY = 'commonplace_operator_conditions{condition="Ready",kind="ApiKey",reason="Issued",status="True"}'
EXAMPLE = helm.TENANCY / "examples" / "external.yaml"


@pytest.fixture
async def world(plane: ControlPlane, namespace: str, database: Database) -> AsyncIterator[World]:
    sql = await asyncpg.create_pool(database.superuser_url, min_size=1, max_size=2)
    with plane.api() as api:
        yield World(api=api, namespace=namespace, database=database, sql=sql)
    await sql.close()


def kubeconfig(plane: ControlPlane, folder: Path, *, account: str, namespace: str) -> Path:
    """Credentials of a service account, as a pod has them."""
    token = plane.run_kubectl("create", "token", account, "--namespace", namespace, "--duration", "1h").strip()
    config = yaml.safe_load(plane.kubeconfig.read_text())
    user = config["contexts"][0]["context"]["user"]
    config["users"] = [{"name": user, "user": {"token": token}}]
    file = folder / f"{namespace}.kubeconfig"
    file.write_text(yaml.safe_dump(config))
    file.chmod(0o600)
    return file


def start(plane: ControlPlane, folder: Path, manifest: str, namespace: str, **settings: str) -> OperatorProcess:
    """The operator with the environment of the chart's Deployment and the token of its ServiceAccount."""
    objects = helm.documents(manifest)
    (container,) = helm.one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    given = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    environment = operator_environment(plane, namespace) | given
    environment |= {f"COMMONPLACE_OPERATOR_{k}": v for k, v in {"HOST": "127.0.0.1", "PORT": "0", **settings}.items()}
    account = helm.one(objects, "ServiceAccount")["metadata"]["name"]
    environment["KUBECONFIG"] = str(kubeconfig(plane, folder, account=account, namespace=namespace))
    return OperatorProcess(environment, folder / "log", ("-m", "commonplace_operator"))


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def database_secret(world: World) -> None:
    uri = base64.b64encode(world.database.operator_url.encode()).decode()
    body = {"metadata": {"name": "memory-database-operator"}, "data": {"uri": uri}}
    status, answer = world.api.request("POST", world.path("Secret"), body)
    assert status == 201, answer


async def no_drift(plane: ControlPlane, manifest: str) -> None:
    """Argo CD and Flux compare by such a dry run. A status written between its two reads shows too: look again."""
    seen: list[str] = []

    def is_clean() -> bool:
        ended = kubectl(plane, "diff", MANAGER, manifest=manifest)
        seen.append(ended.stdout + ended.stderr)
        return ended.returncode == 0 and not seen[-1]

    try:
        await until(is_clean, "a diff that is empty")
    except AssertionError:
        pytest.fail(seen[-1])


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize("scope", ["Cluster", "Namespaced"])
async def test_the_charts_rights_are_enough_and_what_the_operator_writes_is_no_drift(
    plane: ControlPlane,
    namespace: str,
    world: World,
    tmp_path: Path,
    scope: str,
    installed: Callable[[str], None],
) -> None:
    home = SYSTEM if scope == "Cluster" else namespace
    values: dict[str, Any] = {"crds.install": False, "settings.shutdownSeconds": 1}
    if scope == "Namespaced":
        values |= {"rbac.scope": "Namespaced", "watchNamespaces": [namespace]}
    manifest = helm.template(helm.OPERATOR, namespace=home, values=values)
    if scope == "Namespaced":
        installed(manifest)
    tenancy = helm.template(helm.TENANCY, EXAMPLE, namespace=namespace)
    database_secret(world)
    assert kubectl(plane, "apply", MANAGER, manifest=tenancy).returncode == 0

    port = free_port()
    operator = start(plane, tmp_path, manifest, home, PORT=str(port))
    try:
        await world.ready("MemoryRuntime", "main")
        await world.ready("MemoryTeam", "shop")
        await world.ready("ApiKey", "shop-agent")
        secret = world.secret("shop-agent")
        assert secret is not None
        assert secret["token"].startswith("cm_")
        await until(lambda: "Issued" in str(world.event_reasons("shop-agent")), "the Event of the key")

        await until(lambda: READY_KEY in metrics(port), "the key among the conditions that the alerts read")

        await no_drift(plane, tenancy)
        generation = read(plane, "apikey", "shop-agent", "--namespace", namespace)["metadata"]["generation"]
        assert generation == 1

        assert kubectl(plane, "delete", "--wait=false", manifest=tenancy).returncode == 0
        for kind, name in (("ApiKey", "shop-agent"), ("MemoryTeam", "shop"), ("MemoryRuntime", "main")):
            await world.gone(kind, name)
    finally:
        status = operator.stop()
    assert status == 0, operator.log
    assert REFUSED not in operator.log, operator.log


@pytest.mark.usefixtures("release")
async def test_the_charts_rights_are_enough_for_a_managed_runtime(
    plane: ControlPlane, namespace: str, world: World, tmp_path: Path
) -> None:
    manifest = helm.template(helm.OPERATOR, namespace=SYSTEM)
    tenancy = helm.template(helm.TENANCY, helm.TENANCY / "examples" / "trial.yaml", namespace=namespace)
    assert kubectl(plane, "apply", MANAGER, manifest=tenancy).returncode == 0

    operator = start(plane, tmp_path, manifest, SYSTEM)
    try:
        # No kubelet runs here, so the database never comes up; what is made before it does is all that can be seen.
        await until(
            lambda: read(plane, "statefulsets", "--namespace", namespace)["items"], "the embedded Postgres' StatefulSet"
        )
        await until(lambda: world.condition("MemoryRuntime", "main"), "a condition")
        assert world.condition("MemoryRuntime", "main")["reason"] != "Forbidden"
        await no_drift(plane, tenancy)
        assert kubectl(plane, "delete", "--wait=false", manifest=tenancy).returncode == 0
        await world.gone("MemoryRuntime", "main")
    finally:
        operator.stop()
    assert REFUSED not in operator.log, operator.log


@pytest.mark.usefixtures("release")
async def test_a_namespaced_operator_reads_no_secret_elsewhere(
    plane: ControlPlane, namespace: str, installed: Callable[[str], None]
) -> None:
    values = {"crds.install": False, "rbac.scope": "Namespaced", "watchNamespaces": [namespace]}
    installed(helm.template(helm.OPERATOR, namespace=namespace, values=values))

    def may(verb: str, resource: str, where: str) -> bool:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{namespace}:commonplace-operator",
                "resourceAttributes": {"verb": verb, "resource": resource, "namespace": where},
            },
        }
        answer = plane.run_kubectl("create", "--filename", "-", "--output", "json", stdin=json.dumps(review))
        return bool(json.loads(answer)["status"]["allowed"])

    assert may("get", "secrets", namespace)
    assert not may("get", "secrets", SYSTEM)
    assert not may("list", "secrets", "")
    assert not may("get", "namespaces", "")
