"""Memories as resources: /v1/memories, /v1/observations/:id and what was made of an event."""

import re
from dataclasses import replace
from typing import Annotated, Final, Literal, NotRequired, TypeAlias

from fastapi import Depends
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from commonplace_runtime.domain.bounded_fields import no_moment, read_moment
from commonplace_runtime.domain.memories import (
    MANUAL,
    MAX_ITEMS,
    MAX_TAGS,
    MAX_TITLE,
    MAX_WORD,
    VISIBILITIES,
    EventMemories,
    MemoryPage,
    MemoryQuery,
    MemoryRow,
    read_changes,
    read_memory,
)
from commonplace_runtime.domain.models import Json, Principal
from commonplace_runtime.domain.quotas import Spending
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.domain.validation import Fields, InvalidFields, Issue
from commonplace_runtime.entrypoints.http.bodies import read_json
from commonplace_runtime.entrypoints.http.errors import HttpFault, json_response
from commonplace_runtime.entrypoints.http.operations import Operation
from commonplace_runtime.entrypoints.http.queries import read_count, read_flag
from commonplace_runtime.entrypoints.http.security import needs
from commonplace_runtime.entrypoints.http.state import reach_of, state_of
from commonplace_runtime.services import memories
from commonplace_runtime.services.memories import ProjectIsFixed, Superseded

Reader = Annotated[Principal, Depends(needs(Access.READ))]
Writer = Annotated[Principal, Depends(needs(Access.WRITE, Spending.TOKENS))]

USUAL_LIMIT: Final = 50
MOST: Final = 200
_NAME_CHARACTERS: Final = 256
_EPOCH_MS: Final = re.compile(r"-?(?:[0-9]{1,3}|[0-9]{5,18})")
"""Four digits are a year."""


async def post_memory(request: Request, principal: Writer) -> Response:
    """Write a memory down."""
    body = await read_json(request, expected="object")
    memory = read_memory(body.value)
    pool, reach = state_of(request).pool, reach_of(request, principal)
    return json_response({"memory": await memories.create_memory(pool, reach, memory, body_bytes=body.size)}, 201)


async def get_memories(request: Request, principal: Reader) -> Response:
    """The memories that the key reaches, newest first; those that were superseded only where asked for."""
    wanted = _query(request)
    return json_response(await memories.list_memories(state_of(request).pool, reach_of(request, principal), wanted))


async def get_memory(request: Request, principal: Reader, memory_id: str) -> Response:
    """One memory; 404 for all that the key does not reach."""
    found = await memories.get_memory(state_of(request).pool, reach_of(request, principal), memory_id)
    return json_response({"memory": found})


async def get_observation(request: Request, principal: Reader, observation_id: str) -> Response:
    """One memory by its other name; 404 for all that the key does not reach."""
    found = await memories.get_observation(state_of(request).pool, reach_of(request, principal), observation_id)
    return json_response({"observation": found})


async def patch_memory(request: Request, principal: Writer, memory_id: str) -> Response:
    """
    Change parts of a memory; what is left out stays.

    `metadata` is laid over what is there, key by key: a key with null goes, and null empties it.
    """
    body = await read_json(request, expected="object")
    changes = read_changes(body.value)
    pool, reach = state_of(request).pool, reach_of(request, principal)
    try:
        memory = await memories.update_memory(pool, reach, memory_id, changes, body_bytes=body.size)
    except ProjectIsFixed as error:
        raise HttpFault(400, "ValidationError", error.message) from error
    return json_response({"memory": memory})


async def post_supersede(request: Request, principal: Writer, memory_id: str) -> Response:
    """Put a memory in the place of another: a new one (201), or by its id one that is there (200)."""
    body = await read_json(request, expected="object")
    issues: list[Issue] = []
    by = Fields(body.value, issues).text("by")
    if issues:
        raise InvalidFields(issues)
    new = by if by is not None else read_memory(body.value)
    pool, reach = state_of(request).pool, reach_of(request, principal)
    try:
        done = await memories.supersede_memory(pool, reach, memory_id, new, body_bytes=body.size)
    except ProjectIsFixed as error:
        raise HttpFault(400, "ValidationError", error.message) from error
    return json_response(done, 201 if by is None else 200)


async def get_event_observations(request: Request, principal: Reader, event_id: str) -> Response:
    """What was made of an event, oldest first."""
    pool, reach = state_of(request).pool, reach_of(request, principal)
    return json_response(await memories.observations_of_event(pool, reach, event_id))


def _query(request: Request) -> MemoryQuery:
    asked = request.query_params
    issues: list[Issue] = []
    times = {}
    for name in ("since", "until"):
        given = asked.get(name) or None
        times[name] = read_moment(int(given) if given and _EPOCH_MS.fullmatch(given) else given)
        if given is not None and times[name] is None:
            issues.append(no_moment((name,)))
    visibility = Fields({"visibility": asked.get("visibility") or None}, issues).choice("visibility", VISIBILITIES, "")
    if issues:
        raise InvalidFields(issues)
    cursor = asked.get("cursor")
    wanted = MemoryQuery(
        project=_name(asked.get("projectId")),
        kind=_name(asked.get("kind")),
        session=_name(asked.get("serverSessionId")),
        actor=_name(asked.get("actor")),
        tag=_name(asked.get("tag")),
        visibility=visibility or None,
        since=times["since"],
        until=times["until"],
        include_superseded=read_flag(request, "includeSuperseded", default=False),
        limit=read_count(request, "limit", default=USUAL_LIMIT, most=MOST),
    )
    return wanted if not cursor else replace(wanted, before=memories.read_place(cursor))


def _name(text: str | None) -> str | None:
    """A filter; one that is longer than any name becomes one that nothing has."""
    if not text:
        return None
    return text if len(text) <= _NAME_CHARACTERS else "\ufffd"


_Words: TypeAlias = Annotated[list[str] | None, Field(max_length=MAX_ITEMS)]
_Moment: TypeAlias = Annotated[int | str | None, Field(description="Epoch milliseconds or ISO 8601.")]


class MemoryFields(TypedDict):
    """What a memory says. One of content, narrative, text, title, subtitle, facts and concepts is needed."""

    content: NotRequired[Annotated[str | None, Field(min_length=1)]]
    narrative: NotRequired[Annotated[str | None, Field(description="The text where there is no content.")]]
    text: NotRequired[Annotated[str | None, Field(description="The text where there is neither.")]]
    title: NotRequired[Annotated[str | None, Field(max_length=MAX_TITLE)]]
    subtitle: NotRequired[Annotated[str | None, Field(max_length=MAX_TITLE)]]
    kind: NotRequired[Annotated[str, Field(min_length=1, max_length=MAX_WORD, description=f"Default `{MANUAL}`.")]]
    type: NotRequired[Annotated[str | None, Field(max_length=MAX_WORD, description="Kept in the metadata.")]]
    facts: NotRequired[_Words]
    concepts: NotRequired[_Words]
    filesRead: NotRequired[_Words]
    filesModified: NotRequired[_Words]
    serverSessionId: NotRequired[Annotated[str | None, Field(description="A session of the same project.")]]
    metadata: NotRequired[dict[str, Json] | None]
    tags: NotRequired[Annotated[list[Annotated[str, Field(max_length=MAX_WORD)]] | None, Field(max_length=MAX_TAGS)]]
    importance: NotRequired[Annotated[float | None, Field(ge=0, le=1, description="Default 0.5.")]]
    visibility: NotRequired[
        Annotated[
            Literal["team", "private"],
            Field(description="Who sees it: the team, or its writer alone. Default: the team's."),
        ]
    ]
    validFrom: NotRequired[_Moment]
    validTo: NotRequired[_Moment]
    supersedes: NotRequired[Annotated[str | None, Field(description="The memory whose place it takes.")]]


class MemoryBody(MemoryFields):
    """A memory to be stored."""

    projectId: NotRequired[
        Annotated[str | None, Field(description="Id or name. Default: the key's, or the team's only one.")]
    ]


class SupersedeBody(MemoryBody):
    """Either the successor's id, or the successor as a new memory."""

    by: NotRequired[Annotated[str | None, Field(description="A memory of the same project.")]]


class MemoryAnswer(TypedDict):
    """One memory."""

    memory: MemoryRow


class ObservationAnswer(TypedDict):
    """One memory, by its other name."""

    observation: MemoryRow


class MemoriesQuery(TypedDict, total=False):
    """Which memories."""

    projectId: Annotated[str, Field(description="Id or name. Default: every project that the key reaches.")]
    kind: str
    serverSessionId: str
    actor: Annotated[str, Field(description="Who wrote it.")]
    tag: str
    visibility: Literal["team", "private"]
    since: Annotated[str, Field(description="Made then or later: ISO 8601 or epoch milliseconds.")]
    until: Annotated[str, Field(description="Made before: ISO 8601 or epoch milliseconds.")]
    includeSuperseded: Annotated[bool, Field(description="Default false.")]
    limit: Annotated[int, Field(ge=1, le=MOST, description=f"Default {USUAL_LIMIT}.")]
    cursor: Annotated[str, Field(description="`nextCursor` of the page before.")]


_EXAMPLE: Final[Json] = {
    "content": "The staging database is reset every Monday at 06:00 UTC.",
    "title": "Staging is reset weekly",
    "tags": ["staging", "database"],
    "importance": 0.7,
}

OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/v1/memories",
        handler=post_memory,
        id="createMemory",
        tag="Memories",
        body=MemoryBody,
        answer=MemoryAnswer,
        status=201,
        fails=(409,),
        example=_EXAMPLE,
    ),
    Operation(
        method="GET",
        path="/v1/memories",
        handler=get_memories,
        id="listMemories",
        tag="Memories",
        query=MemoriesQuery,
        answer=MemoryPage,
    ),
    Operation(
        method="GET",
        path="/v1/memories/{memory_id}",
        handler=get_memory,
        id="getMemory",
        tag="Memories",
        answer=MemoryAnswer,
        fails=(404,),
    ),
    Operation(
        method="PATCH",
        path="/v1/memories/{memory_id}",
        handler=patch_memory,
        id="updateMemory",
        tag="Memories",
        body=MemoryBody,
        answer=MemoryAnswer,
        fails=(404, 409),
        example={"tags": ["staging"], "importance": 0.9},
    ),
    Operation(
        method="POST",
        path="/v1/memories/{memory_id}/supersede",
        handler=post_supersede,
        id="supersedeMemory",
        tag="Memories",
        body=SupersedeBody,
        answer=Superseded,
        status=201,
        fails=(404, 409),
        example=_EXAMPLE,
    ),
    Operation(
        method="GET",
        path="/v1/observations/{observation_id}",
        handler=get_observation,
        id="getObservation",
        tag="Memories",
        answer=ObservationAnswer,
        fails=(404,),
    ),
    Operation(
        method="GET",
        path="/v1/events/{event_id}/observations",
        handler=get_event_observations,
        id="listEventObservations",
        tag="Memories",
        answer=EventMemories,
        fails=(404,),
    ),
)
