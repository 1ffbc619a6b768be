"""Runs the numbered migrations: each in a transaction of its own, under an advisory lock, exactly once."""

import asyncio
import hashlib
import random
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from time import monotonic
from typing import Final

import asyncpg

from commonplace_runtime import contract
from commonplace_runtime.domain.errors import Conflict
from commonplace_runtime.store.pool import CONNECTION_FAULTS, Connection
from commonplace_runtime.store.roles import locked
from commonplace_runtime.store.sql import statements

_FILE = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")
_LOCKS = re.compile(r"^-- Locks( against writes)?: ([a-z_]+(?:, [a-z_]+)*)$", re.MULTILINE)
_SQL = statements("roles_missing")

LOCK_SECONDS: Final = 120.0
"""How long a migration tries to get its tables from those who work on them."""
_LOCK_ATTEMPT_MS: Final = 300
"""Shorter than Postgres' deadlock_timeout: it is we who give way, and nobody is held up longer."""
_LONGEST_LOCK_ATTEMPT_MS: Final = 3000
"""Where statements of others take so long that no shorter attempt outlasts them."""


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

    @property
    def locks(self) -> Sequence[str]:
        """
        `LOCK TABLE` for the tables that its text says it locks: those of before that it alters, indexes or refers to.

        The runner takes them all before it begins: one after the other, as the statements come, would be a deadlock
        with whoever works on two of them in another order.
        """
        return [
            f"LOCK TABLE {', '.join(f'commonplace.{name}' for name in tables.split(', '))}"
            f" IN {'SHARE ROW' if against_writes else 'ACCESS'} EXCLUSIVE MODE"
            for against_writes, tables in _LOCKS.findall(self.text)
        ]


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
        if migration.locks:
            await _lock(connection, migration.locks)
        await connection.execute(migration.text)
    except CONNECTION_FAULTS:
        raise
    except asyncpg.PostgresError as error:
        message = f"migration {migration.version:04d}_{migration.name} failed and was rolled back: {error}"
        raise Conflict(message) from error


async def _lock(connection: Connection, locks: Sequence[str]) -> None:
    """All of the locks or none, again and again, so that whoever holds one of the tables gets done in between."""
    before = await connection.fetchval("SHOW lock_timeout")
    deadline = monotonic() + LOCK_SECONDS
    patience = float(_LOCK_ATTEMPT_MS)
    while True:
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = {int(patience)}")
                for lock in locks:
                    await connection.execute(lock)
            break
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if monotonic() > deadline:
                raise
            patience = min(patience * 1.2, _LONGEST_LOCK_ATTEMPT_MS)
            await asyncio.sleep(random.uniform(0.05, 0.5))  # noqa: S311 - not to fall in step with anybody
    await connection.execute(f"SET LOCAL lock_timeout = '{before}'")


@asynccontextmanager
async def _as_owner(connection: Connection) -> AsyncIterator[None]:
    async with locked(connection):
        await connection.execute(f"SET LOCAL ROLE {contract.ROLE_OWNER}")
        yield
