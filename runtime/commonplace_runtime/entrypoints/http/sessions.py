"""POST /v1/sessions/start, GET /v1/sessions/:id, POST /v1/sessions/:id/end."""

from typing import Annotated, Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from commonplace_runtime.domain.models import Principal
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.domain.sessions import read_session
from commonplace_runtime.domain.wire import brief_job
from commonplace_runtime.entrypoints.http.bodies import read_json
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.operations import Operation
from commonplace_runtime.entrypoints.http.security import needs
from commonplace_runtime.entrypoints.http.state import request_id_of, state_of
from commonplace_runtime.services import sessions

Writer = Annotated[Principal, Depends(needs(Access.SESSIONS))]
Reader = Annotated[Principal, Depends(needs(Access.READ))]


async def post_start(request: Request, principal: Writer) -> Response:
    """201 with a session; 200 where its external id is known, and the session is open again."""
    body = await read_json(request, expected="object")
    session, is_created = await sessions.start_session(
        state_of(request).pool,
        principal,
        read_session(body.value),
        body_bytes=body.size,
        request_id=request_id_of(request),
    )
    return json_response({"session": session}, 201 if is_created else 200)


async def get_session(request: Request, principal: Reader, session_id: str) -> Response:
    """One session as it is stored."""
    return json_response({"session": await sessions.get_session(state_of(request).pool, principal, session_id)})


async def post_end(request: Request, principal: Writer, session_id: str) -> Response:
    """The ended session with its summary's job; a body is not looked at."""
    state = state_of(request)
    ended = await sessions.end_session(
        state.pool, state.doorbell, principal, session_id, request_id=request_id_of(request)
    )
    return json_response({"session": ended.session, "generationJob": brief_job(ended.job, ended.transport)})


OPERATIONS: Final = (
    Operation(method="POST", path="/v1/sessions/start", handler=post_start, id="startSession", tag="Capture"),
    Operation(method="GET", path="/v1/sessions/{session_id}", handler=get_session, id="getSession", tag="Capture"),
    Operation(method="POST", path="/v1/sessions/{session_id}/end", handler=post_end, id="endSession", tag="Capture"),
)
