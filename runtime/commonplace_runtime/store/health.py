"""Whether the database answers, and how old its schema is."""

import asyncpg

from commonplace_runtime.store.calls import fetch_value
from commonplace_runtime.store.pool import Pool
from commonplace_runtime.store.sql import statements

_SQL = statements("health")


async def schema_version(pool: Pool) -> int:
    """Number of the newest migration that was applied, 0 for a database without any. Raises Unavailable."""
    try:
        return int(await fetch_value(pool, _SQL["schema_version"]) or 0)
    except (asyncpg.UndefinedFunctionError, asyncpg.InvalidSchemaNameError):
        return 0
