"""What `commonplace doctor` asks of the database; the statements are in `doctor.sql`."""

from collections.abc import Sequence

from commonplace_runtime import contract
from commonplace_runtime.store.pool import Pool, faults_as_unavailable
from commonplace_runtime.store.sql import statements

_SQL = statements("doctor")
_GROUPS = [contract.ROLE_OWNER, contract.ROLE_RUNTIME, contract.ROLE_OPERATOR, contract.ROLE_ADMIN]


async def unforced_tables(pool: Pool) -> Sequence[str]:
    """Tables of tenants that row-level security does not close. Raises Unavailable."""
    async with faults_as_unavailable():
        return [row["relname"] for row in await pool.fetch(_SQL["unforced"])]


async def missing_roles(pool: Pool) -> Sequence[str]:
    """Group roles that are missing, or that pass row-level security. Raises Unavailable."""
    async with faults_as_unavailable():
        return [row["name"] for row in await pool.fetch(_SQL["missing_roles"], _GROUPS)]


async def server_version(pool: Pool) -> tuple[str, int]:
    """As people write it, and as Postgres counts it: 160004. Raises Unavailable."""
    async with faults_as_unavailable():
        (row,) = await pool.fetch(_SQL["server_version"])
    return row["version"], int(row["number"])
