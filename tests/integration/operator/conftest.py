"""A real operator process over a real API server and a real Postgres."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from e2e.cluster.api import ApiClient
from e2e.cluster.control_plane import ControlPlane
from tests.conftest import Database
from tests.integration.operator.harness import PLURALS, OperatorProcess, World, operator_environment
from tests.integration.operator.kubelet import OWNER, ManagedWorld, PasswordServer


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


def release_all(api: ApiClient, namespace: str) -> None:
    """Whatever a test left behind must not keep its namespace, nor another test's operator busy."""
    for kind in ("ApiKey", "Quota", "MemoryTeam", "MemoryRuntime"):
        path = f"/apis/commonplace.dev/v1alpha1/namespaces/{namespace}/{PLURALS[kind]}"
        _, answer = api.request("GET", path)
        for item in answer["items"]:
            own = f"{path}/{item['metadata']['name']}"
            api.request("PATCH", own, {"metadata": {"finalizers": None}}, content_type="application/merge-patch+json")
            api.request("DELETE", own)


@pytest.fixture
async def world(control_plane: ControlPlane, namespace: str, database: Database) -> AsyncIterator[World]:
    sql = await asyncpg.create_pool(database.superuser_url, min_size=1, max_size=4)
    with control_plane.api() as api:
        yield World(api=api, namespace=namespace, database=database, sql=sql)
        release_all(api, namespace)
    await sql.close()


@pytest.fixture(scope="session")
async def password_server() -> AsyncIterator[PasswordServer]:
    async with PasswordServer.started() as server:
        yield server


@pytest.fixture
async def empty_world(
    control_plane: ControlPlane,
    namespace: str,
    operator_namespace: str,
    password_server: PasswordServer,
    tmp_path: Path,
) -> AsyncIterator[ManagedWorld]:
    """A namespace and an empty database of an owner who may create roles; no operator yet."""
    name = f"managed_{namespace.replace('-', '_')}"
    async with password_server.superuser() as connection:
        await connection.execute(f"CREATE DATABASE {name} OWNER {OWNER}")
    database = Database(
        name=name,
        superuser_url=password_server.socket_url(name),
        admin_url="",
        runtime_url="",
        operator_url="",
    )
    sql = await asyncpg.create_pool(database.superuser_url, min_size=1, max_size=2)
    with control_plane.api() as api:
        world = ManagedWorld(
            api=api,
            namespace=namespace,
            database=database,
            sql=sql,
            owner_uri=password_server.url(name),
            folder=tmp_path,
        )

        def begin(**settings: str) -> OperatorProcess:
            environment = operator_environment(
                control_plane, operator_namespace, WATCH_NAMESPACES=namespace, **settings
            )
            log = tmp_path / f"operator-{len(world.operators)}"
            process = OperatorProcess(environment, log, ("-m", "commonplace_operator"))
            world.operators.append(process)
            return process

        world.begin = begin
        yield world
        for process in world.operators:
            assert process.stop() == 0, process.log
        release_all(api, namespace)
    await sql.close()
    async with password_server.superuser() as connection:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def managed_world(empty_world: ManagedWorld) -> ManagedWorld:
    """The same with an operator that looks again every ten seconds."""
    empty_world.begin(RESYNC_SECONDS="10")
    return empty_world
