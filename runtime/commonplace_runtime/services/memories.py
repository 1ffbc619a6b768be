"""Memories as resources: written down by people and agents, read, listed, changed, and superseded."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias, cast

from typing_extensions import TypedDict

from commonplace_runtime.domain.cursors import invalid_cursor, read_cursor, write_cursor
from commonplace_runtime.domain.errors import Conflict, InvalidInput, NotFound
from commonplace_runtime.domain.events import storable
from commonplace_runtime.domain.memories import (
    ENDS_TOO_EARLY,
    CleanMemory,
    EventMemories,
    MemoryPage,
    MemoryQuery,
    MemoryRow,
    NewMemory,
    clean_changes,
    clean_memory,
    clean_query,
)
from commonplace_runtime.domain.models import Json, Reach
from commonplace_runtime.domain.validation import InvalidFields, Issue
from commonplace_runtime.ids import uuid7
from commonplace_runtime.observability import SECRETS_REDACTED
from commonplace_runtime.services.ingest import CLEAN_ASIDE_BYTES
from commonplace_runtime.store import memories as store
from commonplace_runtime.store.pool import Pool

_NOT_FOUND: Final = "Memory not found"
_LARGEST_NUMBER: Final = 2**31 - 1
_TOO_MUCH_METADATA: Final[Issue] = {
    "code": "too_big",
    "origin": "record",
    "path": ["metadata"],
    "message": "Too big: metadata may have 10 MiB of JSON, with what is there already",
}
Changes: TypeAlias = Mapping[str, Json]
"""What `read_changes` makes of a body."""


class Superseded(TypedDict):
    """A memory and the one whose place it took."""

    memory: MemoryRow
    superseded: MemoryRow


class ProjectIsFixed(InvalidInput):
    """A memory stays in its project."""

    def __init__(self) -> None:
        super().__init__("projectId cannot be changed")


async def create_memory(
    pool: Pool, reach: Reach, memory: NewMemory, *, body_bytes: int, via: str | None = None
) -> MemoryRow:
    """
    Store a memory, cleaned like an event; with `supersedes` it takes that one's place. Never makes a job.

    via: the door where it is not REST, for audit. Raises NotPermitted for a project or session out of reach,
    ProjectMissing where none was named and none is evident, InvalidFields for an unknown `supersedes`, Conflict where
    that one cannot be superseded, Unavailable.
    """
    done = await _create(pool, reach, memory, body_bytes=body_bytes, via=via)
    if done["outcome"] in ("missing", "elsewhere"):
        raise _no_such("supersedes")
    _refuse(done["outcome"])
    return cast("MemoryRow", done["memory"])


async def get_memory(pool: Pool, reach: Reach, memory_id: str) -> MemoryRow:
    """One memory. Raises NotFound for all that is out of reach, Unavailable."""
    memory = await store.get(pool, reach, memory_id, action="memory.read")
    if memory is None:
        raise NotFound(_NOT_FOUND)
    return memory


async def get_observation(pool: Pool, reach: Reach, observation_id: str) -> MemoryRow:
    """The same, by its other name. Raises NotFound for all that is out of reach, Unavailable."""
    memory = await store.get(pool, reach, observation_id, action="observation.read")
    if memory is None:
        raise NotFound("Observation not found")
    return memory


async def list_memories(pool: Pool, reach: Reach, wanted: MemoryQuery) -> MemoryPage:
    """
    A page, newest first; one that would be very large ends early. A project that the team does not have holds nothing.

    Raises NotPermitted for a project that the key is not bound to, Unavailable.
    """
    found, last = await store.list_page(pool, reach, clean_query(wanted), before=wanted.before, limit=wanted.limit)
    return {"memories": found, "nextCursor": None if last is None else write_cursor(last)}


async def update_memory(
    pool: Pool, reach: Reach, memory_id: str, changes: Changes, *, body_bytes: int, via: str | None = None
) -> MemoryRow:
    """
    Change what `changes` names; `metadata` is laid over what is there, key by key, and a key with None goes.

    Raises NotFound for all that is out of reach, NotPermitted for a session out of reach and for the visibility of
    what another actor wrote, ProjectIsFixed, InvalidFields, Conflict as `create_memory`, Unavailable.
    """
    clean = await _aside(body_bytes, lambda: clean_changes(changes))
    done = await store.update(pool, reach, memory_id, clean.row, via=via)
    if done is None:
        raise NotFound(_NOT_FOUND)
    match done["outcome"]:
        case "project":
            raise ProjectIsFixed
        case "validity":
            raise InvalidFields([ENDS_TOO_EARLY])
        case "metadata":
            raise InvalidFields([_TOO_MUCH_METADATA])
        case "missing" | "elsewhere":
            raise _no_such("supersedes")
    _refuse(done["outcome"])
    _count(clean)
    return cast("MemoryRow", done["memory"])


async def supersede_memory(
    pool: Pool, reach: Reach, memory_id: str, by: str | NewMemory, *, body_bytes: int = 0, via: str | None = None
) -> Superseded:
    """
    Put `by` in the place of a memory: one of the same project by its id, or a new one. The same id again changes
    nothing.

    Raises NotFound for all that is out of reach, InvalidFields for an unknown successor, ProjectIsFixed, NotPermitted
    for a session out of reach, Conflict where it cannot be superseded or not by that one, Unavailable.
    """
    if isinstance(by, NewMemory):
        new = replace(by, supersedes=memory_id)
        return await _supersede_by_new(pool, reach, new, body_bytes=body_bytes, via=via)
    done = await store.supersede(pool, reach, memory_id, storable(by) or "", via=via)
    if done is None:
        raise NotFound(_NOT_FOUND)
    if done["outcome"] == "no_successor":
        raise _no_such("by")
    _refuse(done["outcome"])
    return {"memory": done["memory"], "superseded": done["superseded"]}


async def _supersede_by_new(
    pool: Pool, reach: Reach, memory: NewMemory, *, body_bytes: int, via: str | None
) -> Superseded:
    done = await _create(pool, reach, memory, body_bytes=body_bytes, via=via)
    if done["outcome"] == "missing":
        raise NotFound(_NOT_FOUND)
    if done["outcome"] == "elsewhere":
        raise ProjectIsFixed
    _refuse(done["outcome"])
    return {"memory": done["memory"], "superseded": done["superseded"]}


async def observations_of_event(pool: Pool, reach: Reach, event_id: str) -> EventMemories:
    """
    What was made of an event.

    Raises NotFound outside the team, NotPermitted outside the project that the key is bound to, Unavailable.
    """
    found = await store.of_event(pool, reach, event_id)
    if found is None:
        raise NotFound("Event not found")
    return found


def read_place(cursor: str) -> int:
    """Where a page begins, by the `nextCursor` of the one before. Raises InvalidFields for anything else."""
    (number,) = cast("list[int]", read_cursor(cursor, (int,)))
    if not 0 < number <= _LARGEST_NUMBER:
        raise InvalidFields([invalid_cursor()])
    return number


async def _create(
    pool: Pool, reach: Reach, memory: NewMemory, *, body_bytes: int, via: str | None
) -> Mapping[str, Any]:
    memory_id = str(uuid7())
    clean = await _aside(body_bytes, lambda: clean_memory(memory, memory_id))
    done = await store.create(pool, reach, clean.row, via=via)
    if done["outcome"] == "created":
        _count(clean)
    return done


async def _aside(body_bytes: int, work: Callable[[], CleanMemory]) -> CleanMemory:
    return work() if body_bytes < CLEAN_ASIDE_BYTES else await asyncio.to_thread(work)


def _count(clean: CleanMemory) -> None:
    for pattern, count in clean.secrets.items():
        SECRETS_REDACTED.labels(pattern).inc(count)


def _no_such(name: str) -> InvalidFields:
    return InvalidFields([{"code": "custom", "path": [name], "message": "No such memory in this project"}])


_CONFLICTS: Final = {
    "itself": "A memory cannot supersede itself",
    "superseded": "The memory is superseded already: supersede its successor, which its supersededBy names",
    "hidden": (
        "What the whole team sees cannot be superseded by a private memory: make the successor visible to the team"
    ),
    "circle": "The successor is itself superseded by this memory: supersede the newest of them instead",
}


def _refuse(outcome: str) -> None:
    if outcome in _CONFLICTS:
        raise Conflict(_CONFLICTS[outcome])
