"""The connection pool, the types that services need of it, and how its failures are told."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg
import asyncpg.pool
import orjson
import structlog

from commonplace_runtime.domain.errors import Unavailable

if TYPE_CHECKING:
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
else:
    Pool = asyncpg.Pool
    Connection = asyncpg.Connection
Record: TypeAlias = asyncpg.Record

log = structlog.get_logger(__name__)

CONNECTION_FAULTS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,  # what asyncpg says when the server ends a session in the middle of a statement
    asyncpg.TooManyConnectionsError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.QueryCanceledError,
    asyncpg.InsufficientResourcesError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.ObjectNotInPrerequisiteStateError,  # a database that takes no connections while it is worked on
    asyncpg.ReadOnlySQLTransactionError,
)
"""What time heals: the server is away, restarting, overloaded, or chose us as a deadlock's victim."""

_MISCONFIGURED = (
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    ssl.SSLCertVerificationError,
)
_REFUSALS = (
    *_MISCONFIGURED,
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedFunctionError,
)


class Refused(Unavailable):
    """Postgres answers and refuses us: credentials, rights or a schema that an administrator must put right."""


STORE_FAULTS = (asyncpg.PostgresError, asyncpg.InterfaceError)
"""Whatever else Postgres or asyncpg may object to; for those who must not show a traceback."""


def _to_json(value: Any) -> str:
    # Not by orjson, which would store a null where somebody computed a NaN.
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


async def _prepare_connection(connection: Connection) -> None:
    await connection.set_type_codec("jsonb", encoder=_to_json, decoder=orjson.loads, schema="pg_catalog")


async def _keep_session(_connection: Connection) -> None:
    """
    Nothing to undo when a connection is given back: whatever we set, we set for one transaction.

    asyncpg would otherwise send a round trip of resets after each use, doubling those of a request. It rolls an open
    transaction back by itself.
    """


async def open_pool(url: str, *, size: int, connect_timeout: float, statement_timeout: float, application: str) -> Pool:
    """
    Open a pool of at most `size` connections. `jsonb` arrives and leaves as Python values.

    Times in seconds. Raises any of `CONNECTION_FAULTS` when Postgres cannot be reached.
    """
    pool = await asyncpg.create_pool(
        url,
        min_size=1,
        max_size=size,
        timeout=connect_timeout,
        command_timeout=statement_timeout + 5,
        max_inactive_connection_lifetime=300,
        init=_prepare_connection,
        reset=_keep_session,
        server_settings={
            "application_name": application,
            "TimeZone": "UTC",  # JSON of the year 9999 stays readable
            "statement_timeout": str(int(statement_timeout * 1000)),
            "idle_in_transaction_session_timeout": "60000",
        },
    )
    if pool is None:  # pragma: no cover - asyncpg's annotation allows it, its code does not
        raise Unavailable("the pool could not be made")
    return pool


@contextmanager
def refusals_told() -> Iterator[None]:
    """Turn what waiting will not put right about a new connection into `Refused`; everything else passes."""
    try:
        yield
    except _MISCONFIGURED as error:  # first: a bad certificate is a ValueError too
        raise Refused(f"Postgres refused the connection: {error}") from error
    except asyncpg.ClientConfigurationError as error:
        raise Refused(f"the connection string cannot be used: {error}") from error
    except ValueError:  # urllib's text quotes the string, with its password
        raise Refused("the connection string cannot be read") from None


async def open_pool_patiently(url: str, *, patience: float, **options: Any) -> Pool:
    """
    `open_pool`, trying again for up to `patience` seconds with one clear line an attempt.

    Raises `Unavailable` when Postgres stays away; `Refused` at once for credentials, a database's name or a connection
    string that waiting will not put right.
    """
    started = monotonic()
    delay = 0.5
    while True:
        try:
            with refusals_told():
                return await open_pool(url, **options)
        except CONNECTION_FAULTS as error:
            waited = monotonic() - started
            if waited + delay > patience:
                raise Unavailable(f"Postgres was not reachable for {waited:.0f} s: {error}") from error
            log.warning("database_unreachable", error=str(error), retry_in_seconds=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5.0)


@asynccontextmanager
async def faults_as_unavailable() -> AsyncIterator[None]:
    """Turn what time or an administrator heals into `Unavailable` (`Refused`); everything else passes."""
    try:
        yield
    except Exception as error:
        told = unavailable_for(error)
        if told is None:
            raise
        raise told from error


def unavailable_for(error: Exception) -> Unavailable | None:
    """What `error` means where time or an administrator heals it (then `Refused`); None for everything else."""
    if isinstance(error, _REFUSALS):  # before the faults of connections: a bad certificate is an OSError too
        return Refused(f"the database refuses us: {error}")
    if isinstance(error, CONNECTION_FAULTS):
        return Unavailable(f"the database does not answer: {type(error).__name__}")
    if isinstance(error, asyncpg.InterfaceError) and _is_lost(error):
        return Unavailable("the connection to the database was closed")
    return None


def _is_lost(error: asyncpg.InterfaceError) -> bool:
    """asyncpg has one class for a connection that is gone and for its own misuse; only the text differs."""
    return any(word in str(error) for word in ("closed", "closing", "released back"))
