"""Whether this process can do its work now."""

import asyncio
from dataclasses import dataclass
from typing import Final

from commonplace_runtime import contract
from commonplace_runtime.domain.errors import Unavailable
from commonplace_runtime.store.health import schema_version
from commonplace_runtime.store.pool import Pool

PATIENCE_SECONDS: Final = 2.0
"""A probe that waits longer says the same as one that fails."""


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """`schema`: the newest migration in the database, None when it does not answer. `problem`: None when ready."""

    schema: int | None
    problem: str | None


async def readiness(pool: Pool) -> Readiness:
    """Ask the database. A newer schema is fine: migrations leave the previous version working."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            known = await schema_version(pool)
    except (Unavailable, TimeoutError):
        return Readiness(schema=None, problem="the database does not answer")
    if known < contract.SCHEMA_VERSION:
        problem = f"the schema is at {known}, this program needs {contract.SCHEMA_VERSION}: run `commonplace migrate`"
        return Readiness(schema=known, problem=problem)
    return Readiness(schema=known, problem=None)
