"""Sessions of agents: started, looked up, and ended, which lets go what waits and asks for a summary."""

import asyncio
from dataclasses import dataclass

from commonplace_runtime.domain.errors import NotFound, NotPermitted
from commonplace_runtime.domain.models import Principal
from commonplace_runtime.domain.sessions import GivenSession, SessionRow, clean_session
from commonplace_runtime.domain.wire import JobRow, Transport
from commonplace_runtime.ids import uuid7
from commonplace_runtime.observability import SECRETS_REDACTED
from commonplace_runtime.services.doorbell import Doorbell
from commonplace_runtime.services.ingest import CLEAN_ASIDE_BYTES
from commonplace_runtime.store import sessions as session_store
from commonplace_runtime.store.pool import Pool

_NOT_FOUND = "Session not found"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """An ended session, the job of its summary, and whether a worker was told."""

    session: SessionRow
    job: JobRow
    transport: Transport


async def start_session(
    pool: Pool, principal: Principal, session: GivenSession, *, body_bytes: int, request_id: str
) -> tuple[SessionRow, bool]:
    """
    Start a session or go on with a known one, which is open again; True where it is answered as a new one.

    What the call says wins, what it leaves out stays; prompts are kept (`merge_session` in the migrations says how).
    Events that came earlier with its contentSessionId stay unlinked. Raises NotPermitted, ProjectMissing, Unavailable.
    """
    session_id = str(uuid7())
    if body_bytes < CLEAN_ASIDE_BYTES:
        clean = clean_session(session, session_id)
    else:
        clean = await asyncio.to_thread(clean_session, session, session_id)
    started = await session_store.start(pool, principal, clean.row, request_id=request_id)
    for pattern, count in clean.secrets.items():
        SECRETS_REDACTED.labels(pattern).inc(count)
    return started["session"], started["created"]


async def get_session(pool: Pool, principal: Principal, session_id: str) -> SessionRow:
    """One session. Raises NotFound outside the team, NotPermitted outside the project that the key is bound to."""
    session = await session_store.get(pool, principal.team_id, principal.actor, session_id)
    if session is None:
        raise NotFound(_NOT_FOUND)
    if principal.project_id is not None and session["projectId"] != principal.project_id:
        raise NotPermitted("API key is scoped to a different project")
    return session


async def end_session(
    pool: Pool, doorbell: Doorbell, principal: Principal, session_id: str, *, request_id: str
) -> Ended:
    """
    End a session: what waits of it is due, and its summary has a job. Again with nothing new: the same job.

    Raises NotFound outside the team, NotPermitted outside the project that the key is bound to, Unavailable.
    """
    ended = await session_store.end(pool, principal, session_id, job_id=str(uuid7()), request_id=request_id)
    if ended is None:
        raise NotFound(_NOT_FOUND)
    transport: Transport = "enqueued" if await doorbell.ring() else "queued_only"
    return Ended(session=ended["session"], job=ended["job"], transport=transport)
