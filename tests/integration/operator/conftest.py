"""A real operator process over a real API server and a real Postgres."""

import os
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from e2e.cluster.control_plane import ControlPlane
from tests.conftest import Database
from tests.integration.operator.harness import PLURALS, OperatorProcess, World, operator_environment


@pytest.fixture(scope="session")
def operator_namespace(control_plane: ControlPlane) -> str:
    """Where operators of this run keep their own Secret."""
    name = f"operator-{os.getpid()}"
    with control_plane.api() as api:
        api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return name


@pytest.fixture(scope="module")
def operator(
    control_plane: ControlPlane, operator_namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """An operator that serves all namespaces."""
    log = tmp_path_factory.mktemp("operator") / "log"
    process = OperatorProcess(
        operator_environment(control_plane, operator_namespace, QUOTA_REFRESH_SECONDS="1"),
        log,
        ("-m", "commonplace_operator"),
    )
    yield process
    assert process.stop() == 0, process.log


@pytest.fixture
async def world(control_plane: ControlPlane, namespace: str, database: Database) -> AsyncIterator[World]:
    sql = await asyncpg.create_pool(database.superuser_url, min_size=1, max_size=4)
    with control_plane.api() as api:
        yield World(api=api, namespace=namespace, database=database, sql=sql)
        for kind in ("ApiKey", "Quota", "MemoryTeam", "MemoryRuntime"):
            _, answer = api.request("GET", f"/apis/commonplace.dev/v1alpha1/namespaces/{namespace}/{PLURALS[kind]}")
            for item in answer["items"]:
                path = (
                    f"/apis/commonplace.dev/v1alpha1/namespaces/{namespace}/{PLURALS[kind]}/{item['metadata']['name']}"
                )
                # Whatever a test left behind must not keep its namespace, nor another test's operator busy.
                api.request(
                    "PATCH", path, {"metadata": {"finalizers": None}}, content_type="application/merge-patch+json"
                )
                api.request("DELETE", path)
    await sql.close()
