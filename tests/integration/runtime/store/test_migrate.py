import asyncio
import os
from pathlib import Path
from urllib.parse import unquote

import asyncpg
import pytest

from commonplace_runtime import contract
from commonplace_runtime.domain.errors import Conflict
from commonplace_runtime.embedded import EmbeddedPostgres
from commonplace_runtime.services.migrate import migrate
from commonplace_runtime.store.migrate import migrations
from commonplace_runtime.store.pool import open_pool
from tests.conftest import Database


def test_the_contract_names_the_newest_migration() -> None:
    assert migrations()[-1].version == contract.SCHEMA_VERSION


async def test_migrating_twice_changes_nothing(database: Database) -> None:
    async with await open_pool(
        database.superuser_url, size=1, connect_timeout=5, statement_timeout=30, application="t"
    ) as pool:
        assert await migrate(pool, with_roles=True) == []
        assert await pool.fetchval("SELECT commonplace.schema_version_v1()") == contract.SCHEMA_VERSION


async def test_two_migrations_at_once_run_each_file_once(postgres: EmbeddedPostgres, template_database: str) -> None:
    connection = await asyncpg.connect(postgres.url())
    try:
        await connection.execute("CREATE DATABASE race")
        url = postgres.url(database="race")
        async with (
            await open_pool(url, size=1, connect_timeout=5, statement_timeout=60, application="a") as one,
            await open_pool(url, size=1, connect_timeout=5, statement_timeout=60, application="b") as two,
        ):
            applied = await asyncio.gather(migrate(one, with_roles=True), migrate(two, with_roles=True))
        versions = sorted(migration.version for run in applied for migration in run)
        assert versions == [migration.version for migration in migrations()]
    finally:
        await connection.execute("DROP DATABASE IF EXISTS race WITH (FORCE)")
        await connection.close()


async def test_an_edited_migration_is_refused(database: Database) -> None:
    async with await open_pool(
        database.superuser_url, size=1, connect_timeout=5, statement_timeout=30, application="t"
    ) as pool:
        await pool.execute("UPDATE commonplace.schema_migrations SET checksum = 'other' WHERE version = 1")
        with pytest.raises(Conflict, match="another text"):
            await migrate(pool, with_roles=False)


async def test_a_role_with_createrole_and_its_own_database_is_enough() -> None:
    with EmbeddedPostgres(settings={"fsync": "off"}) as server:
        connection = await asyncpg.connect(server.url())
        try:
            await connection.execute("CREATE ROLE creator LOGIN CREATEROLE")
            await connection.execute("CREATE DATABASE memory OWNER creator")
        finally:
            await connection.close()
        url = server.url(user="creator", database="memory")
        async with await open_pool(url, size=1, connect_timeout=5, statement_timeout=60, application="t") as pool:
            assert len(await migrate(pool, with_roles=True)) == len(migrations())
            assert await migrate(pool, with_roles=False) == []


async def test_a_socket_outside_a_long_data_directory_lets_nobody_else_in(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / ("long" * 30), settings={"fsync": "off"}) as server:
        socket_dir = Path(unquote(server.url().partition("host=")[2]))
        assert not socket_dir.is_relative_to(tmp_path)
        assert os.stat(socket_dir).st_mode & 0o077 == 0  # noqa: PTH116
        connection = await asyncpg.connect(server.url())
        await connection.close()
