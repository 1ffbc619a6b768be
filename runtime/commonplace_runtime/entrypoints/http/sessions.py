"""POST /v1/sessions/start, GET /v1/sessions/:id, POST /v1/sessions/:id/end."""

from typing import Annotated, Final, NotRequired

from fastapi import Depends
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from commonplace_runtime.domain.models import Json, Principal
from commonplace_runtime.domain.quotas import Spending
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.domain.sessions import SessionRow, read_session
from commonplace_runtime.domain.wire import BriefJob, brief_job
from commonplace_runtime.entrypoints.http.bodies import read_json
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.operations import Operation, ProjectName, Text
from commonplace_runtime.entrypoints.http.security import needs
from commonplace_runtime.entrypoints.http.state import request_id_of, state_of
from commonplace_runtime.services import sessions

Writer = Annotated[Principal, Depends(needs(Access.SESSIONS, Spending.CAPTURE))]
Reader = Annotated[Principal, Depends(needs(Access.READ))]


class NewSession(TypedDict):
    """What makes two starts one session: `externalSessionId`, else `contentSessionId`, else the agent."""

    projectId: NotRequired[ProjectName | None]
    externalSessionId: NotRequired[Annotated[Text | None, Field(description="The client's own id of the session.")]]
    contentSessionId: NotRequired[Annotated[Text | None, Field(description="The conversation that it names.")]]
    agentId: NotRequired[Text | None]
    agentType: NotRequired[Text | None]
    platformSource: NotRequired[Annotated[Text | None, Field(description="The client, for example `claude-code`.")]]
    metadata: NotRequired[
        Annotated[dict[str, Json] | None, Field(description="Kept and merged; `prompt` is the prompt of this turn.")]
    ]


class SessionAnswer(TypedDict):
    """One session."""

    session: SessionRow


class EndedSession(TypedDict):
    """A session and the job of its summary."""

    session: SessionRow
    generationJob: BriefJob


async def post_start(request: Request, principal: Writer) -> Response:
    """
    Start a session, or go on with a known one.

    201 with a session; 200 where its external id is known, and the session is open again.
    """
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
    """
    End a session, and have it summarised.

    A body is not looked at. Ended again with nothing new in it, it answers with the same job.
    """
    state = state_of(request)
    ended = await sessions.end_session(
        state.pool, state.doorbell, principal, session_id, request_id=request_id_of(request)
    )
    return json_response({"session": ended.session, "generationJob": brief_job(ended.job, ended.transport)})


_EXAMPLE: Final[Json] = {
    "contentSessionId": "session-1",
    "platformSource": "claude-code",
    "metadata": {"prompt": "Why does the build fail?", "project": "app"},
}

OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/v1/sessions/start",
        handler=post_start,
        id="startSession",
        tag="Capture",
        body=NewSession,
        answer=SessionAnswer,
        also=(201,),
        example=_EXAMPLE,
    ),
    Operation(
        method="GET",
        path="/v1/sessions/{session_id}",
        handler=get_session,
        id="getSession",
        tag="Capture",
        answer=SessionAnswer,
        fails=(404,),
    ),
    Operation(
        method="POST",
        path="/v1/sessions/{session_id}/end",
        handler=post_end,
        id="endSession",
        tag="Capture",
        answer=EndedSession,
        fails=(404,),
    ),
)
