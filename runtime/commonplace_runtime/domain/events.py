"""An event on its way in: checked, cleaned of what must not be stored, and named so that it is stored once."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

import orjson

from commonplace_runtime.domain.models import Json, Principal
from commonplace_runtime.domain.platforms import normalise_platform
from commonplace_runtime.domain.redaction import is_clean, redact
from commonplace_runtime.domain.validation import Fields, InvalidFields, Issue, Path, size_issues, type_name, wrong_type
from commonplace_runtime.domain.wire import NewEventRow

SOURCE_TYPES: Final = ("hook", "worker", "provider", "server", "api")
MAX_BATCH: Final = 500
LATEST_EPOCH_MS: Final = 253_402_300_799_999
"""The end of the year 9999: what every client and our own language can name."""
_TOOL_USE_FIELDS: Final = ("tool_use_id", "toolUseId")


@dataclass(frozen=True, kw_only=True)
class GivenEvent:
    """
    One event as its sender meant it.

    platform_given: whether the sender spoke of a platform at all. is_dated: whether its time tells it from another.
    """

    project: str | None
    source_type: str
    event_type: str
    occurred_at_ms: int
    server_session_id: str | None
    content_session_id: str | None
    platform_given: bool
    platform: str | None
    source_event_id: str | None
    payload: Json
    metadata: dict[str, Json]
    is_dated: bool = True


def read_event(body: object, *, now_ms: int) -> GivenEvent:
    """One event from a body. Raises InvalidFields with all its faults."""
    issues: list[Issue] = []
    event = _read(body, now_ms, issues, ())
    if issues:
        raise InvalidFields(issues)
    return event


def read_events(body: object, *, now_ms: int) -> list[GivenEvent]:
    """A batch of 1 to 500 events. Raises InvalidFields with all faults of all items."""
    if not isinstance(body, list):
        raise InvalidFields([wrong_type((), "array", type_name(body))])
    issues = size_issues(body, least=1, most=MAX_BATCH)
    if issues:
        raise InvalidFields(issues)
    events = [_read(item, now_ms, issues, (place,)) for place, item in enumerate(body)]
    if issues:
        raise InvalidFields(issues)
    return events


def _read(body: object, now_ms: int, issues: list[Issue], path: Path) -> GivenEvent:
    fields = Fields(body, issues, path)
    occurred = fields.integer("occurredAtEpoch", minimum=0, maximum=LATEST_EPOCH_MS)
    fields.text("memorySessionId")
    platform = fields.text("platformSource")
    source_event_id = fields.value("sourceEventId")
    metadata = fields.value("metadata")
    payload = fields.value("payload")
    return GivenEvent(
        project=fields.text("projectId"),
        source_type=fields.choice("sourceType", SOURCE_TYPES, "api"),
        event_type=fields.text("eventType", required=True) or "",
        occurred_at_ms=now_ms if occurred is None else occurred,
        server_session_id=fields.text("serverSessionId"),
        content_session_id=fields.text("contentSessionId"),
        platform_given=fields.has("platformSource"),
        platform=normalise_platform(platform),
        source_event_id=source_event_id if isinstance(source_event_id, str) and source_event_id else None,
        payload={} if payload is None else payload,
        metadata=metadata if isinstance(metadata, dict) else {},
    )


def _tool_use_id(payload: Json) -> str | None:
    if isinstance(payload, dict):
        for name in _TOOL_USE_FIELDS:
            value = payload.get(name)
            if isinstance(value, str) and value:
                return value
    return None


def digest_of(event: GivenEvent, payload: Json, principal: Principal) -> str:
    """
    What makes two deliveries one event, inside a project: SHA-256, hexadecimal.

    The sender's own id where there is one. A tool use id counts within its session and event type only, for
    some agents number their calls from one in each session. Else everything that the sender said. What two actors
    send is never one event: each becomes a memory of its own actor.
    """
    parts: list[Json] = [principal.team_id, principal.actor, event.source_type]
    parts += [event.platform] if event.platform else []
    session = event.content_session_id or event.server_session_id
    if event.source_event_id is not None:
        parts += ["source", event.source_event_id]
    elif (tool_use := _tool_use_id(payload)) is not None:
        parts += ["tool", session, event.event_type, tool_use]
    else:
        parts += ["content", session, event.event_type, event.occurred_at_ms if event.is_dated else None, payload]
    return hashlib.sha256(_canonical(parts)).hexdigest()


def _canonical(parts: list[Json]) -> bytes:
    try:
        return orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # a lone surrogate in a name, an integer above 64 bits
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return text.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, kw_only=True)
class CleanEvents:
    """Events that may be stored, and how many secrets of which pattern were taken out of them."""

    rows: Sequence[NewEventRow]
    secrets: Mapping[str, int]


def clean_events(events: Sequence[GivenEvent], principal: Principal, ids: Sequence[tuple[str, str]]) -> CleanEvents:
    """
    Strip private parts and secrets, then name each event. `ids`: a fresh (event id, job id) for each.

    Every text is cleaned, session ids and types included: whatever Postgres cannot hold is gone afterwards.
    """
    secrets: dict[str, int] = {}
    # Most events hold nothing that is to be taken out, and one look at all texts is cheaper than one at each.
    all_clean = is_clean([_texts_of(event) for event in events])
    rows = [
        _row(event, principal, *each)
        if all_clean or is_clean(_texts_of(event))
        else _redacted_row(event, principal, *each, secrets)
        for event, each in zip(events, ids, strict=True)
    ]
    return CleanEvents(rows=rows, secrets=secrets)


def _texts_of(event: GivenEvent) -> list[Json]:
    named = (event.project, event.server_session_id, event.content_session_id, event.platform, event.source_event_id)
    return [event.payload, event.metadata, event.event_type, *named]


def _row(event: GivenEvent, principal: Principal, event_id: str, job_id: str) -> NewEventRow:
    """An event in which nothing is to be taken out."""
    return {
        "id": event_id,
        "jobId": job_id,
        "project": event.project,
        "serverSessionId": event.server_session_id,
        "contentSessionId": event.content_session_id,
        "platformGiven": event.platform_given,
        "platformSource": event.platform,
        "sourceAdapter": event.source_type,
        "sourceEventId": event.source_event_id or _tool_use_id(event.payload),
        "eventType": event.event_type,
        "payload": event.payload,
        "metadata": event.metadata,
        "occurredAt": event.occurred_at_ms,
        "digest": digest_of(event, event.payload, principal),
        "privateParts": 0,
        "redactedSecrets": 0,
    }


def _redacted_row(
    event: GivenEvent, principal: Principal, event_id: str, job_id: str, secrets: dict[str, int]
) -> NewEventRow:
    """An event with all its texts redacted; adds to `secrets`."""
    payload, metadata, event_type = found = redact(event.payload), redact(event.metadata), redact(event.event_type)
    for each in found:
        for pattern, count in each.secrets.items():
            secrets[pattern] = secrets.get(pattern, 0) + count
    return {
        **_row(event, principal, event_id, job_id),
        "project": storable(event.project),
        "serverSessionId": storable(event.server_session_id),
        "contentSessionId": storable(event.content_session_id),
        "platformSource": storable(event.platform),
        "sourceEventId": storable(event.source_event_id or _tool_use_id(payload.value)),
        "eventType": cast("str", event_type.value),
        "payload": payload.value,
        "metadata": metadata.value,
        "digest": digest_of(event, payload.value, principal),
        "privateParts": sum(each.private_parts for each in found),
        "redactedSecrets": sum(sum(each.secrets.values()) for each in found),
    }


def storable(text: str | None) -> str | None:
    """A name or id without secrets, private parts and what Postgres cannot hold."""
    return None if text is None else cast("str", redact(text).value)
