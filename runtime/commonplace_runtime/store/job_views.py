"""Jobs as people and probes look at them, and the notices of those that ended."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias, cast
from uuid import UUID

import asyncpg

from commonplace_runtime.domain.errors import Unavailable
from commonplace_runtime.domain.models import ProjectId, Reach, TeamId
from commonplace_runtime.domain.wire import JobPage, JobRow, LaneRow
from commonplace_runtime.store.calls import fetch_value
from commonplace_runtime.store.pool import CONNECTION_FAULTS, Pool, Record, faults_as_unavailable
from commonplace_runtime.store.sql import statements

_SQL = statements("job_views")
CHANNEL: Final = "commonplace_jobs"
"""Notified with a job's id when the job became completed, failed or cancelled."""
Wanted: TypeAlias = "dict[str, str | None]"
"""Which jobs: "status", "sourceType", "classification" of the last error, "since" (ISO 8601); absent or None is any."""


async def get_jobs(
    pool: Pool, team_id: TeamId, project_id: ProjectId | None, job_ids: Sequence[str]
) -> dict[str, JobRow]:
    """Those of `job_ids` that the team has (and `project_id`, where given), by id."""
    ids = [job_id for job_id in job_ids if "\0" not in job_id]  # no ids, and nothing that Postgres would take
    return cast("dict[str, JobRow]", await fetch_value(pool, _SQL["get_jobs"], team_id, project_id, ids))


async def show_job(pool: Pool, team_id: TeamId, project_id: ProjectId | None, job_id: str) -> JobRow | None:
    """One job with what holds it back, or None."""
    return cast("JobRow | None", await fetch_value(pool, _SQL["show"], team_id, project_id, _no_nul(job_id)))


async def list_jobs(
    pool: Pool,
    reach: Reach,
    *,
    mode: str,
    project: str | None,
    wanted: Wanted,
    limit: int,
    offset: int,
    with_payload: bool,
) -> JobPage | None:
    """A page, newest first, and its audit row; None where there is no such project. `project`: id or name."""
    page = await fetch_value(
        pool, _SQL["list"], *reach.arguments, mode, _no_nul(project), wanted, limit, offset, with_payload
    )
    return cast("JobPage | None", page)


async def retry_job(pool: Pool, reach: Reach, job_id: str) -> dict[str, Any] | None:
    """`{"outcome", "job", "retriedCount"}` as above `retry_job_v1`, or None for no such job."""
    return cast("dict[str, Any] | None", await fetch_value(pool, _SQL["retry"], *reach.arguments, _no_nul(job_id)))


async def retry_jobs(pool: Pool, reach: Reach, *, wanted: Wanted, limit: int) -> dict[str, int] | None:
    """`{"retried", "remaining"}`; `wanted` may name a "project" too. None where there is no such project."""
    return cast("dict[str, int] | None", await fetch_value(pool, _SQL["retry_many"], *reach.arguments, wanted, limit))


async def cancel_job(pool: Pool, reach: Reach, job_id: str) -> dict[str, Any] | None:
    """`{"outcome", "job"}` as above `cancel_job_v1`, or None for no such job."""
    return cast("dict[str, Any] | None", await fetch_value(pool, _SQL["cancel"], *reach.arguments, _no_nul(job_id)))


async def lanes(pool: Pool) -> list[LaneRow]:
    """The jobs of all teams by kind; the fields stand above `queue_lanes_v1`. Raises Unavailable."""
    return cast("list[LaneRow]", await fetch_value(pool, _SQL["lanes"]))


async def team_of_job(pool: Pool, job_id: str) -> TeamId | None:
    """Whose job it is, or None for no such job. For administrators."""
    found: UUID | None = await fetch_value(pool, _SQL["team_of_job"], _no_nul(job_id))
    return None if found is None else TeamId(str(found))


async def list_everywhere(
    pool: Pool, team_id: UUID | None, project_id: UUID | None, wanted: Wanted, limit: int
) -> Sequence[Record]:
    """Rows of `team_id`, `team` (slug), `project` (name) and `job`, newest first. For administrators."""
    async with faults_as_unavailable():
        return await pool.fetch(_SQL["list_everywhere"], team_id, project_id, wanted, limit)


def _no_nul(text: Any) -> Any:
    """What names nothing, in place of a text that Postgres would not take."""
    return "" if isinstance(text, str) and "\0" in text else text


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
