"""The api as clients reach it: a real uvicorn on a free port, a real Postgres behind it."""

from collections.abc import AsyncIterator, Awaitable, Callable

import httpx2
import pytest

from commonplace_runtime.entrypoints.http.app import create_app
from commonplace_runtime.settings import Settings
from commonplace_runtime.store.pool import Pool
from tests.api_server import served
from tests.conftest import Database
from tests.integration.runtime.indexes import STATES, bring_to


class CountingDoorbell:
    """Notes how often it was rung."""

    def __init__(self) -> None:
        self.rings = 0

    async def ring(self) -> bool:
        self.rings += 1
        return True

    async def answers(self) -> bool:
        return True


@pytest.fixture
def api_settings(database: Database) -> Settings:
    return Settings.model_validate({"database_url": database.runtime_url, "wait_timeout_seconds": 3})


@pytest.fixture
def doorbell() -> CountingDoorbell:
    return CountingDoorbell()


@pytest.fixture
async def base_url(api_settings: Settings, doorbell: CountingDoorbell) -> AsyncIterator[str]:
    async with served(create_app(api_settings, doorbell=doorbell)) as url:
        yield url


@pytest.fixture
async def http(base_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=base_url, timeout=20) as client:
        yield client


@pytest.fixture(params=STATES)
def settle(request: pytest.FixtureRequest, admin_pool: Pool, runtime_pool: Pool) -> Callable[[], Awaitable[None]]:
    """Brings what was written so far into one of the states of a search index; a test runs once for each."""
    return lambda: bring_to(request.param, admin_pool, runtime_pool)
