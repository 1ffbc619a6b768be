"""Runs the numbered migrations: each in a transaction of its own, under an advisory lock, exactly once."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from commonplace_runtime import contract
from commonplace_runtime.domain.errors import Conflict
from commonplace_runtime.store.pool import Connection

_FILE = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")
_LOCK = 0x636F6D6D6F6E  # "common"; any constant that nobody else locks


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


async def create_roles(connection: Connection) -> None:
    """Create the four group roles where they are missing. Needs CREATEROLE, no superuser."""
    text = (files("commonplace_runtime.store") / "roles.sql").read_text(encoding="utf-8")
    async with connection.transaction():
        # Two GRANTs on one database at once fail with "tuple concurrently updated".
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(text)


async def missing_roles(connection: Connection) -> Sequence[str]:
    """Names of the group roles that do not exist."""
    wanted = [contract.ROLE_OWNER, contract.ROLE_RUNTIME, contract.ROLE_OPERATOR, contract.ROLE_ADMIN]
    known = await connection.fetch("SELECT rolname FROM pg_roles WHERE rolname = ANY($1::text[])", wanted)
    return sorted(set(wanted) - {row["rolname"] for row in known})


async def apply_migrations(connection: Connection) -> Sequence[Migration]:
    """
    Bring the schema up to date and return what was applied now (empty: it was current).

    Safe to run from several places at once. Raises Conflict when an applied migration's text has changed or the
    database is newer than this program.
    """
    wanted = migrations()
    applied = []
    async with connection.transaction():
        await _lock(connection)
        if await connection.fetchval("SELECT to_regnamespace('commonplace') IS NULL"):
            await connection.execute("CREATE SCHEMA commonplace")
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS commonplace.schema_migrations (version integer PRIMARY KEY, name text NOT NULL,"
            " checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
    for migration in wanted:
        async with connection.transaction():
            await _lock(connection)
            known = await connection.fetchval(
                "SELECT checksum FROM commonplace.schema_migrations WHERE version = $1", migration.version
            )
            if known is None:
                await connection.execute(migration.text)
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
    newest = await connection.fetchval("SELECT max(version) FROM commonplace.schema_migrations")
    if newest > len(wanted):
        raise Conflict(f"the database is at schema {newest}, this program knows {len(wanted)}: run the newer program")
    return applied


async def _lock(connection: Connection) -> None:
    await connection.execute(f"SET LOCAL ROLE {contract.ROLE_OWNER}")
    await connection.execute("SET LOCAL lock_timeout = '60s'")
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    await connection.execute("SET LOCAL lock_timeout = '10s'")
