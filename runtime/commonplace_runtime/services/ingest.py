"""Events come in: cleaned, stored with their jobs in one transaction, then the doorbell rings."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from commonplace_runtime.domain.errors import NotFound, NotPermitted
from commonplace_runtime.domain.events import CleanEvents, GivenEvent, clean_events
from commonplace_runtime.domain.models import Principal
from commonplace_runtime.domain.validation import InvalidFields, ProjectMissing, wrong_type
from commonplace_runtime.domain.wire import FINISHED, EventRow, IngestedRow, JobRow, Transport
from commonplace_runtime.ids import uuid7_texts
from commonplace_runtime.observability import EVENTS_INGESTED, SECRETS_REDACTED
from commonplace_runtime.services.doorbell import Doorbell
from commonplace_runtime.services.jobs import JobNotices
from commonplace_runtime.store import events as event_store
from commonplace_runtime.store.pool import Pool

CLEAN_ASIDE_BYTES: Final = 100_000
"""From this size of a body on, cleaning is done in a thread: it would hold up everybody else's requests."""


@dataclass(frozen=True, kw_only=True)
class Ingested:
    """Stored events with their jobs, in the order sent, and whether a worker was told."""

    items: Sequence[IngestedRow]
    transport: Transport


async def ingest_events(
    pool: Pool,
    doorbell: Doorbell,
    principal: Principal,
    events: Sequence[GivenEvent],
    *,
    body_bytes: int,
    request_id: str,
    generate: bool,
    is_awaited: bool,
    is_batch: bool,
) -> Ingested:
    """
    Store all events or none; with `generate` each gets its job, whose end is announced where it is awaited. The same
    event sent again is the same row and job.

    Raises NotPermitted for a project or session out of the key's reach, InvalidFields where a project must be
    named, Unavailable.
    """
    made = uuid7_texts(2 * len(events))
    ids = list(zip(made[::2], made[1::2], strict=True))
    if body_bytes < CLEAN_ASIDE_BYTES:
        clean = clean_events(events, principal, ids)
    else:
        clean = await asyncio.to_thread(clean_events, events, principal, ids)
    try:
        items = await event_store.ingest(
            pool,
            principal,
            request_id=request_id,
            generate=generate,
            is_awaited=is_awaited,
            is_batch=is_batch,
            events=clean.rows,
        )
    except ProjectMissing as error:
        path = (error.position, "projectId") if is_batch else ("projectId",)
        raise InvalidFields([wrong_type(path, "string", "undefined")]) from error
    _count(clean, items, ids)
    transport: Transport = "skipped"
    if generate:
        transport = "enqueued" if await doorbell.ring() else "queued_only"
    return Ingested(items=items, transport=transport)


def _count(clean: CleanEvents, items: Sequence[IngestedRow], ids: Sequence[tuple[str, str]]) -> None:
    EVENTS_INGESTED.inc(sum(item["event"]["id"] == event_id for item, (event_id, _) in zip(items, ids, strict=True)))
    for pattern, count in clean.secrets.items():
        SECRETS_REDACTED.labels(pattern).inc(count)


async def wait_for_jobs(
    pool: Pool, notices: JobNotices, principal: Principal, ingested: Ingested, *, seconds: float
) -> dict[str, JobRow]:
    """The jobs of `ingested` as they are once all ended or `seconds` have passed, by id."""
    jobs = {item["job"]["id"]: item["job"] for item in ingested.items if item["job"] is not None}
    if open_ids := [job_id for job_id, job in jobs.items() if job["status"] not in FINISHED]:
        jobs |= await notices.wait(pool, principal, open_ids, seconds=seconds)
    return jobs


async def get_event(pool: Pool, principal: Principal, event_id: str) -> EventRow:
    """
    One event.

    Raises NotFound outside the team and for what says the same as others' private memories, NotPermitted outside the
    project that the key is bound to.
    """
    event = await event_store.get(pool, principal.team_id, principal.actor, event_id)
    if event is None:
        raise NotFound("Event not found")
    if principal.project_id is not None and event["projectId"] != principal.project_id:
        raise NotPermitted("API key is scoped to a different project")
    return event
