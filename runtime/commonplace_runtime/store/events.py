"""Captured events: stored with their jobs in one transaction, and read one at a time."""

import json
from collections.abc import Sequence
from typing import Any, Final, cast

import orjson

from commonplace_runtime.domain.models import Json, Principal, TeamId
from commonplace_runtime.domain.wire import EventRow, IngestedRow, JobRow, NewEventRow
from commonplace_runtime.store.calls import fetch_rows, fetch_value
from commonplace_runtime.store.pool import Pool, Record
from commonplace_runtime.store.sql import statements

_SQL = statements("events")
_SPOT: Final = ("project", "serverSessionId", "contentSessionId", "platformGiven", "platformSource")
"""Where an event belongs; many in a batch belong together."""


async def ingest(
    pool: Pool,
    principal: Principal,
    *,
    request_id: str,
    generate: bool,
    is_awaited: bool,
    is_batch: bool,
    events: Sequence[NewEventRow],
) -> list[IngestedRow]:
    """
    Store all of `events` or none, in one transaction with jobs, group marks and audit; answers in their order.
    `is_awaited`: the jobs' ends are to be notified.

    An event that is new is answered as it was given: only what Postgres has added comes back.

    Raises NotPermitted for a project or session out of the key's reach, InvalidInput where no project was named
    and none can be assumed.
    """
    caller = (principal.team_id, principal.key_id, principal.project_id, principal.actor, request_id)
    arguments = _columns(events) if is_batch else _fields(events[0])
    statement = _SQL["ingest_batch" if is_batch else "ingest"]
    rows = await fetch_rows(pool, statement, *caller, generate, is_awaited, *arguments)
    return [_ingested(row, event, principal.team_id) for row, event in zip(rows, events, strict=True)]


def _fields(event: NewEventRow) -> tuple[object, ...]:
    return (
        event["id"],
        event["jobId"],
        event["project"],
        event["serverSessionId"],
        event["contentSessionId"],
        event["platformGiven"],
        event["platformSource"],
        event["sourceAdapter"],
        event["sourceEventId"],
        event["eventType"],
        _to_json(event["payload"]),
        _to_json(event["metadata"]),
        event["occurredAt"],
        event["digest"],
        event["privateParts"],
        event["redactedSecrets"],
    )


def _columns(events: Sequence[NewEventRow]) -> tuple[object, ...]:
    numbers: dict[tuple[Json, ...], int] = {}
    spots: list[dict[str, Json]] = []
    places: list[int] = []
    for first, event in enumerate(events):
        spot: tuple[Json, ...] = tuple(event[name] for name in _SPOT)
        number = numbers.setdefault(spot, len(spots) + 1)
        if number > len(spots):
            spots.append({**dict(zip(_SPOT, spot, strict=True)), "first": first})
        places.append(number)
    return (
        spots,
        places,
        [event["id"] for event in events],
        [event["jobId"] for event in events],
        [event["sourceAdapter"] for event in events],
        [event["sourceEventId"] for event in events],
        [event["eventType"] for event in events],
        [_to_json(event["payload"]) for event in events],
        [_to_json(event["metadata"]) for event in events],
        [event["occurredAt"] for event in events],
        [event["digest"] for event in events],
        [event["privateParts"] for event in events],
        [event["redactedSecrets"] for event in events],
    )


def _to_json(value: Json) -> str:
    # What a sender said has no NaN: no parser lets one in.
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # nested deeper than orjson goes
        return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _ingested(row: Record, event: NewEventRow, team_id: TeamId) -> IngestedRow:
    project_id, session_id, received, created, shown, job = cast("tuple[Any, ...]", row)
    if shown is None:
        shown = EventRow(
            id=event["id"],
            projectId=project_id,
            teamId=team_id,
            serverSessionId=session_id,
            sourceAdapter=event["sourceAdapter"],
            sourceEventId=event["sourceEventId"],
            eventType=event["eventType"],
            platformSource=event["platformSource"],
            payload=event["payload"],
            metadata=cast("dict[str, Json]", event["metadata"]),
            privateParts=event["privateParts"],
            redactedSecrets=event["redactedSecrets"],
            occurredAtEpoch=event["occurredAt"],
            receivedAtEpoch=received,
            createdAtEpoch=created,
        )
    return {"event": shown, "job": cast("JobRow | None", job)}


async def get(pool: Pool, team_id: TeamId, actor: str, event_id: str) -> EventRow | None:
    """One event of the team that the actor may see, or None."""
    if "\0" in event_id:  # no id, and nothing that Postgres would take
        return None
    return cast("EventRow | None", await fetch_value(pool, _SQL["get"], team_id, actor, event_id))
