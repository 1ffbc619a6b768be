"""One server and one database for all cases of a process: each case has teams of its own."""

import os
from collections.abc import AsyncIterator

import asyncpg
import httpx2
import pytest

from commonplace_runtime.embedded import EmbeddedPostgres
from commonplace_runtime.entrypoints.http.app import create_app
from commonplace_runtime.settings import Settings
from commonplace_runtime.store.pool import Pool, open_pool
from tests.api_server import served
from tests.contract.support import Api, World, make_world
from tests.integration.runtime.conftest import CountingDoorbell

WAIT_SECONDS = 0.5
"""Instead of the 30 that `wait=true` holds an answer back in production."""


@pytest.fixture(scope="session")
async def contract_database(postgres: EmbeddedPostgres, template_database: str) -> AsyncIterator[str]:
    name = f"contract_{os.getpid()}"
    connection = await asyncpg.connect(postgres.url())
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template_database}")
        yield name
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


@pytest.fixture(scope="session")
async def api_settings(postgres: EmbeddedPostgres, contract_database: str) -> Settings:
    url = postgres.url(user="test_runtime", database=contract_database)
    return Settings.model_validate({"database_url": url, "wait_timeout_seconds": WAIT_SECONDS})


@pytest.fixture(scope="session")
async def admin_pool(postgres: EmbeddedPostgres, contract_database: str) -> AsyncIterator[Pool]:
    url = postgres.url(user="test_admin", database=contract_database)
    async with await open_pool(url, size=5, connect_timeout=10, statement_timeout=30, application="tests") as pool:
        yield pool


@pytest.fixture(scope="session")
async def runtime_pool(postgres: EmbeddedPostgres, contract_database: str) -> AsyncIterator[Pool]:
    url = postgres.url(user="test_runtime", database=contract_database)
    async with await open_pool(url, size=5, connect_timeout=10, statement_timeout=30, application="tests") as pool:
        yield pool


@pytest.fixture(scope="session")
async def base_url(api_settings: Settings) -> AsyncIterator[str]:
    async with served(create_app(api_settings, doorbell=CountingDoorbell())) as url:
        yield url


@pytest.fixture(scope="session")
async def api(base_url: str, admin_pool: Pool) -> AsyncIterator[Api]:
    async with httpx2.AsyncClient(base_url=base_url, timeout=20) as http:
        yield Api(url=base_url, http=http, pool=admin_pool)


@pytest.fixture
async def world(admin_pool: Pool) -> World:
    return await make_world(admin_pool)


@pytest.fixture
async def other(admin_pool: Pool) -> World:
    """Another team, whose projects have the same names."""
    return await make_world(admin_pool)
