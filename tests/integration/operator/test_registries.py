"""The pools of many databases, over a real Postgres."""

import asyncio
import os
import signal

import asyncpg

from commonplace_operator.registry import PostgresRegistries
from tests.conftest import Database


async def test_a_server_that_hangs_when_it_is_let_go_keeps_no_other_waiting(database: Database) -> None:
    registries = PostgresRegistries(connect_timeout=2, statement_timeout=10, pools=1)
    other = f"{database.operator_url}{'&' if '?' in database.operator_url else '?'}application_name=other"
    async with registries.of(database.operator_url) as registry:
        version = await registry.schema_version()
    connection = await asyncpg.connect(database.superuser_url)
    pid = await connection.fetchval(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'commonplace-operator' AND datname = $1",
        database.name,
    )
    await connection.close()
    os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(30), registries.of(other) as registry:
            assert await registry.schema_version() == version
    finally:
        os.kill(pid, signal.SIGCONT)
        await registries.close()
