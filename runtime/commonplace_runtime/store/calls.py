"""How a hot path calls the database: one statement, bounded waiting, faults sorted by who must act."""

from typing import Any, Final

import asyncpg

from commonplace_runtime.domain.errors import DomainError, InvalidInput, NotPermitted, Unavailable
from commonplace_runtime.domain.validation import ProjectMissing
from commonplace_runtime.store.pool import Pool, Record, unavailable_for

ACQUIRE_TIMEOUT_SECONDS: Final = 10.0
"""How long a request waits for a free connection before it is told to come back."""

_NOT_PERMITTED: Final = "CM100"
_PROJECT_MISSING: Final = "CM101"
_UNSTORABLE: Final = (asyncpg.DataError, asyncpg.ProgramLimitExceededError)
_OVERTAKEN: Final = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.ForeignKeyViolationError,  # what was found a moment ago is erased: whoever looks again does not find it
)
_TRIES: Final = 3


async def fetch_value(pool: Pool, statement: str, *arguments: object) -> Any:
    """The first column of the first row, None without a row; as `fetch_rows`."""
    rows = await fetch_rows(pool, statement, *arguments)
    return rows[0][0] if rows else None


async def fetch_rows(pool: Pool, statement: str, *arguments: object) -> list[Record]:
    """
    All rows. Runs the statement again when another transaction came between.

    Raises Unavailable for what time heals, NotPermitted and InvalidInput for what `0003_api_functions.sql` raises
    as CM1xx and for values that Postgres cannot hold.
    """
    tries = 1
    while True:
        try:
            async with pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
                return await connection.fetch(statement, *arguments)
        except Exception as error:
            # Postgres rolled all of it back in favour of another transaction, which is done by now.
            if tries < _TRIES and isinstance(error, _OVERTAKEN):
                tries += 1
                continue
            told = _told(error)
            if told is None:
                raise
            raise told from error


def _told(error: Exception) -> DomainError | None:
    """What the caller is told of a fault; None for one that is ours."""
    if isinstance(error, _UNSTORABLE):
        return InvalidInput(f"this cannot be stored: {error}")
    if isinstance(error, asyncpg.ForeignKeyViolationError):
        return Unavailable("what this refers to was erased meanwhile")
    if isinstance(error, asyncpg.PostgresError):
        if error.sqlstate == _NOT_PERMITTED:
            return NotPermitted(str(error))
        if error.sqlstate == _PROJECT_MISSING:
            return ProjectMissing(int(getattr(error, "detail", None) or 0))
    return unavailable_for(error)
