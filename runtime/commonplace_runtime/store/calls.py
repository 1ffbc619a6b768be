"""How a hot path calls the database: one statement, one value, bounded waiting, faults sorted by who must act."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from commonplace_runtime.domain.errors import InvalidInput, NotPermitted, Unavailable
from commonplace_runtime.domain.validation import ProjectMissing
from commonplace_runtime.store.pool import Connection, Pool, Record, faults_as_unavailable

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
    """
    The first column of the first row. Runs the statement again when another transaction came between.

    Raises Unavailable for what time heals, NotPermitted and InvalidInput for what `0003_api_functions.sql` raises
    as CM1xx and for values that Postgres cannot hold.
    """
    for _ in range(_TRIES - 1):
        try:
            return await _fetch_value(pool, statement, *arguments)
        except Unavailable as error:
            # Postgres rolled all of it back in favour of another transaction, which is done by now.
            if not isinstance(error.__cause__, _OVERTAKEN):
                raise
    return await _fetch_value(pool, statement, *arguments)


async def fetch_rows(pool: Pool, statement: str, *arguments: object) -> list[Record]:
    """All rows of a statement that only reads. Raises what `fetch_value` raises."""
    async with _told(pool) as connection:
        return await connection.fetch(statement, *arguments)


async def _fetch_value(pool: Pool, statement: str, *arguments: object) -> Any:
    async with _told(pool) as connection:
        return await connection.fetchval(statement, *arguments)


@asynccontextmanager
async def _told(pool: Pool) -> AsyncIterator[Connection]:
    async with faults_as_unavailable(), pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
        try:
            yield connection
        except _UNSTORABLE as error:
            raise InvalidInput(f"this cannot be stored: {error}") from error
        except asyncpg.ForeignKeyViolationError as error:
            raise Unavailable("what this refers to was erased meanwhile") from error
        except asyncpg.PostgresError as error:
            if error.sqlstate == _NOT_PERMITTED:
                raise NotPermitted(str(error)) from error
            if error.sqlstate == _PROJECT_MISSING:
                raise ProjectMissing(int(getattr(error, "detail", None) or 0)) from error
            raise
