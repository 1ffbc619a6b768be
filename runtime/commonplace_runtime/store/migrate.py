"""Runs the numbered migrations: each in a transaction of its own, under an advisory lock, exactly once."""

import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files

import asyncpg

from commonplace_runtime import contract
from commonplace_runtime.domain.errors import Conflict
from commonplace_runtime.store.pool import CONNECTION_FAULTS, Connection
from commonplace_runtime.store.roles import locked
from commonplace_runtime.store.sql import statements

_FILE = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")
_SQL = statements("roles_missing")


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One file of `store/migrations/`."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def migrations() -> Sequence[Migration]:
    """All migrations, oldest first. Raises ValueError when the numbers are not 1, 2, 3, …"""
    folder = files("commonplace_runtime.store") / "migrations"
    found = sorted(
        (
            Migration(version=int(match[1]), name=match[2], text=file.read_text(encoding="utf-8"))
            for file in folder.iterdir()
            if (match := _FILE.match(file.name))
        ),
        key=lambda migration: migration.version,
    )
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError("migration numbers must be 1, 2, 3, … without a gap")
    return found


class SchemaNewer(Conflict):
    """The database's schema is newer than this program; `version` is the schema's."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"the database is at schema {version}, this program knows {len(migrations())}: run the newer program"
        )
        self.version = version


async def known_schema(connection: Connection) -> int:
    """Number of the newest migration that was applied, 0 for none or where this role may not look."""
    async with connection.transaction():
        if not await connection.fetchval(_SQL["may_own"]):
            return 0
        await connection.execute(f"SET LOCAL ROLE {contract.ROLE_OWNER}")
        if await connection.fetchval("SELECT to_regclass('commonplace.schema_migrations') IS NULL"):
            return 0
        return await _newest(connection)


async def apply_migrations(connection: Connection) -> Sequence[Migration]:
    """
    Bring the schema up to date and return what was applied now (empty: it was current).

    Safe to run from several places at once. Raises Conflict when a migration fails or the text of an applied one has
    changed, SchemaNewer when the database is newer than this program, before anything is touched.
    """
    wanted = migrations()
    applied = []
    async with _as_owner(connection):
        if await connection.fetchval("SELECT to_regnamespace('commonplace') IS NULL"):
            await connection.execute("CREATE SCHEMA commonplace")
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS commonplace.schema_migrations (version integer PRIMARY KEY, name text NOT NULL,"
            " checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        if (newest := await _newest(connection)) > len(wanted):
            raise SchemaNewer(newest)
    for migration in wanted:
        async with _as_owner(connection):
            known = await connection.fetchval(
                "SELECT checksum FROM commonplace.schema_migrations WHERE version = $1", migration.version
            )
            if known is None:
                await _run(connection, migration)
                await connection.execute(
                    "INSERT INTO commonplace.schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
                    migration.version,
                    migration.name,
                    migration.checksum,
                )
                applied.append(migration)
            elif known != migration.checksum:
                raise Conflict(
                    f"migration {migration.version:04d}_{migration.name} was applied with another text: "
                    "applied migrations are never edited, add a new one"
                )
    return applied


async def _newest(connection: Connection) -> int:
    return int(await connection.fetchval("SELECT max(version) FROM commonplace.schema_migrations") or 0)


async def _run(connection: Connection, migration: Migration) -> None:
    try:
        await connection.execute(migration.text)
    except CONNECTION_FAULTS:
        raise
    except asyncpg.PostgresError as error:
        message = f"migration {migration.version:04d}_{migration.name} failed and was rolled back: {error}"
        raise Conflict(message) from error


@asynccontextmanager
async def _as_owner(connection: Connection) -> AsyncIterator[None]:
    async with locked(connection):
        await connection.execute(f"SET LOCAL ROLE {contract.ROLE_OWNER}")
        yield
