"""claude-mem's older hooks: their session is found or started first, then it goes the way of every event and end."""

from commonplace_runtime.domain.compat import ToolUse, TurnEnd
from commonplace_runtime.domain.models import Principal
from commonplace_runtime.domain.sessions import SessionRow
from commonplace_runtime.services.doorbell import Doorbell
from commonplace_runtime.services.ingest import Ingested, ingest_events
from commonplace_runtime.services.sessions import Ended, end_session, start_session
from commonplace_runtime.store.pool import Pool


async def store_tool_use(
    pool: Pool, doorbell: Doorbell, principal: Principal, use: ToolUse, *, body_bytes: int, request_id: str
) -> tuple[SessionRow, Ingested]:
    """
    Store a tool use with its job; the same tool use id in a session again is the same event.

    Raises NotPermitted, Unavailable.
    """
    session, _ = await start_session(pool, principal, use.session, body_bytes=body_bytes, request_id=request_id)
    stored = await ingest_events(
        pool,
        doorbell,
        principal,
        [use.event],
        body_bytes=body_bytes,
        request_id=request_id,
        generate=True,
        is_awaited=False,
        is_batch=False,
    )
    return session, stored


async def end_turn(
    pool: Pool, doorbell: Doorbell, principal: Principal, turn: TurnEnd, *, body_bytes: int, request_id: str
) -> Ended:
    """
    Keep what the assistant said last, then end the session: its summary covers it. Again: the same job.

    Raises NotFound where the session was erased meanwhile, NotPermitted, Unavailable.
    """
    session, _ = await start_session(pool, principal, turn.session, body_bytes=body_bytes, request_id=request_id)
    if turn.message is not None:
        await ingest_events(
            pool,
            doorbell,
            principal,
            [turn.message],
            body_bytes=body_bytes,
            request_id=request_id,
            generate=True,
            is_awaited=False,
            is_batch=False,
        )
    return await end_session(pool, doorbell, principal, session["id"], request_id=request_id)
