"""Whether this process can do its work now."""

import asyncio
from dataclasses import dataclass
from typing import Final

from commonplace_runtime import contract
from commonplace_runtime.domain.errors import Conflict, NotPermitted, Unavailable
from commonplace_runtime.store.health import may_act_as_owner, schema_version
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


async def check_administrator(pool: Pool) -> None:
    """
    That `pool` is an administrator's, and the schema the one this program knows: another role would see empty tables.

    Raises NotPermitted, Conflict or Unavailable, each with what to do.
    """
    is_owner = await may_act_as_owner(pool)
    if is_owner is None:
        raise Conflict("the roles of Commonplace do not exist: run `commonplace migrate --create-roles` once")
    if not is_owner:
        raise NotPermitted(
            f"this role may not act as {contract.ROLE_OWNER}: connect as a member of {contract.ROLE_ADMIN} "
            f"({contract.ENV_ADMIN_DATABASE_URL})"
        )
    if (found := await readiness(pool)).problem is not None:
        raise Conflict(found.problem)
