"""Whether the database answers, and how old its schema is."""

import asyncpg

from commonplace_runtime import contract
from commonplace_runtime.store.calls import fetch_value
from commonplace_runtime.store.pool import Pool, Refused
from commonplace_runtime.store.sql import statements

_SQL = statements("health")


async def schema_version(pool: Pool) -> int:
    """Number of the newest migration that was applied, 0 for a database without any. Raises Unavailable."""
    try:
        return int(await fetch_value(pool, _SQL["schema_version"]) or 0)
    except Refused as error:
        if isinstance(error.__cause__, asyncpg.UndefinedFunctionError | asyncpg.InvalidSchemaNameError):
            return 0
        raise


async def may_act_as_owner(pool: Pool) -> bool | None:
    """Whether the role has the rights of `commonplace_owner`; None where that does not exist. Raises Unavailable."""
    known: bool | None = await fetch_value(pool, _SQL["may_act_as_owner"], contract.ROLE_OWNER)
    return known
