from datetime import UTC, datetime

import asyncpg
import pytest

from commonplace_runtime.domain.errors import Unavailable
from commonplace_runtime.store.calls import fetch_value
from commonplace_runtime.store.pool import Pool, Refused, open_pool
from tests.conftest import Database


async def test_our_own_misuse_is_no_outage(runtime_pool: Pool) -> None:
    with pytest.raises(asyncpg.InterfaceError, match="expects 1 argument"):
        await fetch_value(runtime_pool, "SELECT $1::integer")


async def test_a_closed_pool_is_an_outage(database: Database) -> None:
    pool = await open_pool(database.runtime_url, size=1, connect_timeout=10, statement_timeout=30, application="tests")
    await pool.close()
    with pytest.raises(Unavailable):
        await fetch_value(pool, "SELECT 1")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT pg_read_file('/etc/hostname')",
        "SELECT commonplace.nothing_v1()",
        "SELECT 1 FROM commonplace.nothing",
        "SELECT nowhere.nothing()",
    ],
)
async def test_what_an_administrator_must_put_right_is_refused(runtime_pool: Pool, statement: str) -> None:
    with pytest.raises(Refused):
        await fetch_value(runtime_pool, statement)


async def test_times_are_those_of_utc_wherever_the_server_stands(database: Database) -> None:
    owner = await asyncpg.connect(database.superuser_url)
    try:
        await owner.execute(f"ALTER DATABASE {database.name} SET timezone TO 'Asia/Tokyo'")
    finally:
        await owner.close()
    pool = await open_pool(database.runtime_url, size=1, connect_timeout=10, statement_timeout=30, application="tests")
    async with pool:
        last = await fetch_value(pool, "SELECT to_jsonb(timestamptz '9999-12-31T23:59:59Z')")
    assert datetime.fromisoformat(last) == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
