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


async def index_rebuilds(pool: Pool) -> Sequence[tuple[str, int]]:
    """`team/project` whose search index is being built anew, and for how many seconds. Raises Unavailable."""
    async with faults_as_unavailable():
        return [(row["project"], row["seconds"]) for row in await pool.fetch(_SQL["index_rebuilds"])]


async def index_tails(pool: Pool, *, more_than: int) -> Sequence[tuple[str, int]]:
    """`team/project` of which more memories than that wait for the search index, and how many. Raises Unavailable."""
    async with faults_as_unavailable():
        return [(row["project"], row["waiting"]) for row in await pool.fetch(_SQL["index_tails"], more_than)]


async def index_losses(pool: Pool) -> Sequence[str]:
    """`team/project` whose search index lacks words of memories that it has. Raises Unavailable."""
    async with faults_as_unavailable():
        return [row["project"] for row in await pool.fetch(_SQL["index_losses"])]
