"""Jobs as the api reads them, and the notices of those that ended."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import asyncpg

from commonplace_runtime.domain.errors import Unavailable
from commonplace_runtime.domain.models import ProjectId, TeamId
from commonplace_runtime.domain.wire import JobRow
from commonplace_runtime.store.calls import fetch_value
from commonplace_runtime.store.pool import CONNECTION_FAULTS, Pool, faults_as_unavailable
from commonplace_runtime.store.sql import statements

_SQL = statements("job_views")
CHANNEL: Final = "commonplace_jobs"
"""Workers notify it with a job's id when the job became completed, failed or cancelled."""


async def get_jobs(
    pool: Pool, team_id: TeamId, project_id: ProjectId | None, job_ids: Sequence[str]
) -> dict[str, JobRow]:
    """Those of `job_ids` that the team has (and `project_id`, where given), by id."""
    ids = [job_id for job_id in job_ids if "\0" not in job_id]  # no ids, and nothing that Postgres would take
    return cast("dict[str, JobRow]", await fetch_value(pool, _SQL["get_jobs"], team_id, project_id, ids))


@asynccontextmanager
async def listening(url: str, heard: Callable[[str], None], *, connect_timeout: float) -> AsyncIterator[asyncio.Event]:
    """
    A connection of its own on which `heard(job id)` is called for every job that ends.

    Yields an event that is set when the connection is lost. Raises Unavailable when it cannot be made.
    """
    lost = asyncio.Event()

    def relay(_connection: Any, _pid: int, _channel: str, payload: object) -> None:
        heard(str(payload))

    async with faults_as_unavailable():
        try:
            connection = await asyncpg.connect(
                url, timeout=connect_timeout, server_settings={"application_name": "commonplace-api-listener"}
            )
        except asyncpg.PostgresError as error:  # refused credentials too: the waiters still have their slow look
            raise Unavailable(f"the listening connection was refused: {error}") from error
        try:
            connection.add_termination_listener(lambda _connection: lost.set())
            await connection.add_listener(CHANNEL, relay)
            yield lost
        finally:
            try:
                await connection.close(timeout=2)
            except (*CONNECTION_FAULTS, asyncpg.InterfaceError):
                connection.terminate()
