"""POST /v1/events, POST /v1/events/batch, GET /v1/events/:id."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from commonplace_runtime.domain.events import GivenEvent, read_event, read_events
from commonplace_runtime.domain.models import Principal
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.domain.wire import FINISHED, IngestedRow, JobRow, Transport, awaited_job, brief_job
from commonplace_runtime.entrypoints.http.bodies import read_json
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.operations import Operation
from commonplace_runtime.entrypoints.http.queries import read_flag
from commonplace_runtime.entrypoints.http.security import needs
from commonplace_runtime.entrypoints.http.state import request_id_of, state_of
from commonplace_runtime.services import ingest

Writer = Annotated[Principal, Depends(needs(Access.EVENTS))]
Reader = Annotated[Principal, Depends(needs(Access.READ))]


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


OPERATIONS: Final = (
    Operation(method="POST", path="/v1/events", handler=post_event, id="createEvent", tag="Capture", status=201),
    Operation(
        method="POST", path="/v1/events/batch", handler=post_events, id="createEvents", tag="Capture", status=201
    ),
    Operation(method="GET", path="/v1/events/{event_id}", handler=get_event, id="getEvent", tag="Capture"),
)
