"""
What claude-mem's older hooks send: POST /api/sessions/observations, POST /api/sessions/summarize.

/api/sessions/init, which belongs to the same hooks, is left out on purpose: it would have to number sessions and
prompts, and claude-mem's own server has no such route either.
"""

from typing import Annotated, Any, Final, NotRequired

from fastapi import Depends
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from commonplace_runtime.domain.compat import read_tool_use, read_turn_end
from commonplace_runtime.domain.errors import InvalidInput, NotFound
from commonplace_runtime.domain.models import Principal
from commonplace_runtime.domain.quotas import Spending
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.domain.wire import Transport
from commonplace_runtime.entrypoints.http.bodies import read_json
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.operations import Operation
from commonplace_runtime.entrypoints.http.security import needs
from commonplace_runtime.entrypoints.http.state import request_id_of, state_of
from commonplace_runtime.services import compat

EventWriter = Annotated[Principal, Depends(needs(Access.EVENTS, Spending.CAPTURE))]
SessionWriter = Annotated[Principal, Depends(needs(Access.SESSIONS, Spending.CAPTURE))]

_OBSERVATIONS: Final = "/api/sessions/observations"
_SUMMARIZE: Final = "/api/sessions/summarize"


class ToolUseBody(TypedDict):
    """One use of a tool in a session; further fields are ignored."""

    contentSessionId: Annotated[str, Field(min_length=1, description="The client's own name of the session.")]
    tool_name: Annotated[str, Field(min_length=1)]
    tool_input: NotRequired[Any]
    tool_response: NotRequired[Any]
    cwd: NotRequired[str]
    agentId: NotRequired[str]
    agentType: NotRequired[str]
    platformSource: NotRequired[Annotated[str, Field(description="`claude` where it is left out.")]]
    tool_use_id: NotRequired[Annotated[str, Field(description="The same id in a session is stored once.")]]
    toolUseId: NotRequired[str]


class ToolUseAnswer(TypedDict):
    """What became of a tool use. `sessionId` and `serverSessionId` are the same."""

    status: str
    observationCount: int
    sessionId: str
    serverSessionId: str
    eventId: str
    generationJobId: str | None
    transport: Transport


class TurnEndBody(TypedDict):
    """The end of a turn; further fields are ignored."""

    contentSessionId: Annotated[str, Field(min_length=1, description="The client's own name of the session.")]
    last_assistant_message: NotRequired[Annotated[str, Field(description="Kept as an event before the session ends.")]]
    agentId: NotRequired[Annotated[str, Field(description="A subagent's turn: nothing is done.")]]
    platformSource: NotRequired[str]


class TurnEndAnswer(TypedDict):
    """What became of a turn's end: `queued` with the summary's job, or `skipped` with a reason."""

    status: str
    reason: NotRequired[str]
    sessionId: NotRequired[str]
    serverSessionId: NotRequired[str]
    generationJobId: NotRequired[str]
    transport: NotRequired[Transport]


async def post_observation(request: Request, principal: EventWriter) -> Response:
    """Store a tool use as an older hook sends it; its session is found or started."""
    state = state_of(request)
    body = await read_json(request, expected="object")
    use = read_tool_use(body.value, now_ms=_now_ms(request))
    _require_project(principal, _OBSERVATIONS)
    session, stored = await compat.store_tool_use(
        state.pool, state.doorbell, principal, use, body_bytes=body.size, request_id=request_id_of(request)
    )
    (item,) = stored.items
    return json_response(
        {
            "status": "queued",
            "observationCount": 1,
            "sessionId": session["id"],
            "serverSessionId": session["id"],
            "eventId": item["event"]["id"],
            "generationJobId": None if item["job"] is None else item["job"]["id"],
            "transport": stored.transport,
        }
    )


async def post_summarize(request: Request, principal: SessionWriter) -> Response:
    """End a session as an older hook does, keeping what the assistant said last."""
    state = state_of(request)
    body = await read_json(request, expected="object")
    turn = read_turn_end(body.value, now_ms=_now_ms(request))
    _require_project(principal, _SUMMARIZE)
    if turn.is_subagent:
        return json_response({"status": "skipped", "reason": "subagent_context"})
    try:
        ended = await compat.end_turn(
            state.pool, state.doorbell, principal, turn, body_bytes=body.size, request_id=request_id_of(request)
        )
    except NotFound:
        return json_response({"status": "not_found", "reason": "session_not_found"}, 404)
    return json_response(
        {
            "status": "queued",
            "sessionId": ended.session["id"],
            "serverSessionId": ended.session["id"],
            "generationJobId": ended.job["id"],
            "transport": ended.transport,
        }
    )


def _now_ms(request: Request) -> int:
    return int(state_of(request).now().timestamp() * 1000)


def _require_project(principal: Principal, path: str) -> None:
    # These bodies name no project, and the only one that a team happens to have today is a guess.
    if principal.project_id is None:
        raise InvalidInput(f"Legacy {path} requires a project-scoped API key")


OPERATIONS: Final = (
    Operation(
        method="POST",
        path=_OBSERVATIONS,
        handler=post_observation,
        id="createLegacyObservation",
        tag="Compat",
        body=ToolUseBody,
        answer=ToolUseAnswer,
        example={
            "contentSessionId": "5b7c6f0e",
            "tool_name": "Edit",
            "tool_input": {"file_path": "src/upload.ts"},
            "tool_response": "ok",
            "cwd": "/src/uploader",
            "tool_use_id": "toolu_01",
        },
    ),
    Operation(
        method="POST",
        path=_SUMMARIZE,
        handler=post_summarize,
        id="summarizeLegacySession",
        tag="Compat",
        body=TurnEndBody,
        answer=TurnEndAnswer,
        fails=(404,),
        example={"contentSessionId": "5b7c6f0e", "last_assistant_message": "The upload now retries."},
    ),
)
