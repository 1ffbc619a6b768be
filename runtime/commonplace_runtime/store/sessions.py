"""Sessions: started, read and ended, each with its audit rows in one statement."""

from typing import cast

from typing_extensions import TypedDict

from commonplace_runtime.domain.models import Principal, TeamId
from commonplace_runtime.domain.sessions import NewSessionRow, SessionRow
from commonplace_runtime.domain.wire import JobRow
from commonplace_runtime.store.calls import fetch_value
from commonplace_runtime.store.pool import Pool
from commonplace_runtime.store.sql import statements

_SQL = statements("sessions")


class StartedRow(TypedDict):
    """A session that was started. `created`: it is answered as a new one."""

    session: SessionRow
    created: bool


class EndedRow(TypedDict):
    """A session that was ended, and the job of its summary."""

    session: SessionRow
    job: JobRow


async def start(pool: Pool, principal: Principal, session: NewSessionRow, *, request_id: str) -> StartedRow:
    """
    Store a start. The same identity again is the same row, open again, its metadata merged.

    Raises NotPermitted for a project out of the key's reach, ProjectMissing where none was named and none is evident.
    """
    answer = await fetch_value(
        pool,
        _SQL["start"],
        principal.team_id,
        principal.key_id,
        principal.project_id,
        principal.actor,
        request_id,
        session,
    )
    return cast("StartedRow", answer)


async def get(pool: Pool, team_id: TeamId, actor: str, session_id: str) -> SessionRow | None:
    """One session of the team as the actor is shown it, or None."""
    if "\0" in session_id:  # no id, and nothing that Postgres would take
        return None
    return cast("SessionRow | None", await fetch_value(pool, _SQL["get"], team_id, actor, session_id))


async def end(pool: Pool, principal: Principal, session_id: str, *, job_id: str, request_id: str) -> EndedRow | None:
    """
    End a session of the team; `job_id` names its summary's job where a new one is needed. None: there is none.

    Raises NotPermitted for a session of another project than the key's.
    """
    if "\0" in session_id:
        return None
    answer = await fetch_value(
        pool,
        _SQL["end"],
        principal.team_id,
        principal.key_id,
        principal.project_id,
        principal.actor,
        request_id,
        session_id,
        job_id,
    )
    return cast("EndedRow | None", answer)
