"""POST /v1/events, POST /v1/events/batch, GET /v1/events/:id."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NotRequired

from fastapi import Depends
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from commonplace_runtime.domain.events import LATEST_EPOCH_MS, MAX_BATCH, GivenEvent, read_event, read_events
from commonplace_runtime.domain.models import Json, Principal
from commonplace_runtime.domain.quotas import Spending
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.domain.wire import (
    FINISHED,
    AwaitedJob,
    BriefJob,
    EventRow,
    IngestedRow,
    JobRow,
    Transport,
    awaited_job,
    brief_job,
)
from commonplace_runtime.entrypoints.http.bodies import read_json
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.operations import Operation, ProjectName, Text
from commonplace_runtime.entrypoints.http.queries import read_flag
from commonplace_runtime.entrypoints.http.security import needs
from commonplace_runtime.entrypoints.http.state import request_id_of, state_of
from commonplace_runtime.services import ingest

Writer = Annotated[Principal, Depends(needs(Access.EVENTS, Spending.CAPTURE))]
Reader = Annotated[Principal, Depends(needs(Access.READ))]


class NewEvent(TypedDict):
    """Something that happened in a session. The same event sent twice is stored once."""

    projectId: NotRequired[ProjectName | None]
    eventType: Annotated[str, Field(min_length=1, description="Free text, for example `tool_use`.")]
    sourceType: NotRequired[
        Annotated[Literal["hook", "worker", "provider", "server", "api"] | None, Field(description="Default `api`.")]
    ]
    occurredAtEpoch: NotRequired[
        Annotated[int | None, Field(ge=0, le=LATEST_EPOCH_MS, description="Milliseconds since 1970. Default: now.")]
    ]
    serverSessionId: NotRequired[
        Annotated[Text | None, Field(description="A session's `id`: 403 unless it is one of the project.")]
    ]
    contentSessionId: NotRequired[
        Annotated[
            Text | None, Field(description="The client's own name of the session; links to the newest with that name.")
        ]
    ]
    memorySessionId: NotRequired[Annotated[Text | None, Field(description="Not looked at.")]]
    platformSource: NotRequired[Annotated[Text | None, Field(description="The client, for example `claude-code`.")]]
    sourceEventId: NotRequired[
        Annotated[Json, Field(description="The client's own id of the event: two with one id are one event.")]
    ]
    payload: NotRequired[Annotated[Json, Field(description="What happened. Private tags and secrets are taken out.")]]
    metadata: NotRequired[Annotated[Json, Field(description="An object; anything else counts as none.")]]


class IngestFlags(TypedDict):
    """How an event is taken in."""

    generate: NotRequired[Annotated[bool, Field(description="Make memories of it. Default true.")]]
    wait: NotRequired[
        Annotated[bool, Field(description="Answer once its job has ended, or after 30 seconds. Default false.")]
    ]


class IngestedEvent(TypedDict):
    """`generationJob`: absent with `generate=false`, or null when the caller waited."""

    event: EventRow
    generationJob: NotRequired[AwaitedJob | BriefJob | None]
    waitTimedOut: NotRequired[Annotated[bool, Field(description="True where the wait ended before the job.")]]


class IngestedEvents(TypedDict):
    """In the order of the request."""

    events: list[IngestedEvent]
    waitTimedOut: NotRequired[Annotated[bool, Field(description="True where it is for any of them.")]]


class EventAnswer(TypedDict):
    """One event."""

    event: EventRow


async def post_event(request: Request, principal: Writer) -> Response:
    """Store one event; with its job, and with `wait=true` with the job's outcome."""
    generate, wait = read_flag(request, "generate", default=True), read_flag(request, "wait", default=False)
    body = await read_json(request, expected="object")
    event = read_event(body.value, now_ms=_now_ms(request))
    items, is_late = await _ingest(request, principal, [event], body.size, generate=generate, wait=wait, is_batch=False)
    return json_response({**items[0], "waitTimedOut": True} if is_late else items[0], 201)


async def post_events(request: Request, principal: Writer) -> Response:
    """Store up to 500 events, all or none."""
    generate, wait = read_flag(request, "generate", default=True), read_flag(request, "wait", default=False)
    body = await read_json(request, expected="array")
    events = read_events(body.value, now_ms=_now_ms(request))
    items, is_late = await _ingest(request, principal, events, body.size, generate=generate, wait=wait, is_batch=True)
    return json_response({"events": items, "waitTimedOut": True} if is_late else {"events": items}, 201)


async def get_event(request: Request, principal: Reader, event_id: str) -> Response:
    """One event as it is stored."""
    return json_response({"event": await ingest.get_event(state_of(request).pool, principal, event_id)})


def _now_ms(request: Request) -> int:
    return int(state_of(request).now().timestamp() * 1000)


async def _ingest(
    request: Request,
    principal: Principal,
    events: list[GivenEvent],
    body_bytes: int,
    *,
    generate: bool,
    wait: bool,
    is_batch: bool,
) -> tuple[list[dict[str, Any]], bool]:
    """The answer's items in the order of `events`, and whether the wait ended before a job did."""
    state = state_of(request)
    stored = await ingest.ingest_events(
        state.pool,
        state.doorbell,
        principal,
        events,
        body_bytes=body_bytes,
        request_id=request_id_of(request),
        generate=generate,
        is_awaited=wait,
        is_batch=is_batch,
    )
    if not wait:
        return [_brief(item, stored.transport) for item in stored.items], False
    seconds = state.settings.wait_timeout_seconds
    jobs = await ingest.wait_for_jobs(state.pool, state.notices, principal, stored, seconds=seconds)
    items = [_awaited(item, jobs, stored.transport, is_batch=is_batch) for item in stored.items]
    return items, any(job["status"] not in FINISHED for job in jobs.values())


def _brief(item: IngestedRow, transport: Transport) -> dict[str, Any]:
    job = item["job"]
    return (
        {"event": item["event"]}
        if job is None
        else {"event": item["event"], "generationJob": brief_job(job, transport)}
    )


def _awaited(item: IngestedRow, jobs: Mapping[str, JobRow], transport: Transport, *, is_batch: bool) -> dict[str, Any]:
    if item["job"] is None:
        return {"event": item["event"], "generationJob": None}
    job = jobs[item["job"]["id"]]
    answer: dict[str, Any] = {"event": item["event"], "generationJob": awaited_job(job, transport)}
    if is_batch and job["status"] not in FINISHED:
        answer["waitTimedOut"] = True
    return answer


_EXAMPLE: Final[dict[str, Json]] = {
    "eventType": "tool_use",
    "sourceType": "hook",
    "occurredAtEpoch": 1_790_000_000_000,
    "contentSessionId": "session-1",
    "platformSource": "claude-code",
    "payload": {"tool_name": "Bash", "tool_input": {"command": "ls"}, "tool_response": "README.md", "cwd": "/src/app"},
}

OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/v1/events",
        handler=post_event,
        id="createEvent",
        tag="Capture",
        body=NewEvent,
        query=IngestFlags,
        answer=IngestedEvent,
        status=201,
        example=_EXAMPLE,
    ),
    Operation(
        method="POST",
        path="/v1/events/batch",
        handler=post_events,
        id="createEvents",
        tag="Capture",
        body=Annotated[list[NewEvent], Field(min_length=1, max_length=MAX_BATCH)],
        query=IngestFlags,
        answer=IngestedEvents,
        status=201,
        example=[_EXAMPLE],
    ),
    Operation(
        method="GET",
        path="/v1/events/{event_id}",
        handler=get_event,
        id="getEvent",
        tag="Capture",
        answer=EventAnswer,
        fails=(404,),
    ),
)
