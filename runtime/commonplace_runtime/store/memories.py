"""Memories: found by words or by age, and kept as resources; each in one round trip that also audits."""

from collections.abc import Mapping
from typing import Any, cast

import orjson

from commonplace_runtime.domain.memories import EventMemories, MemoryRow
from commonplace_runtime.domain.models import Json, Principal, Reach, Recall, TeamId
from commonplace_runtime.domain.questions import Hints
from commonplace_runtime.domain.ranking import Part, Ranking
from commonplace_runtime.domain.wire import ObservationRow
from commonplace_runtime.store.calls import fetch_rows, fetch_value
from commonplace_runtime.store.pool import Pool, Record
from commonplace_runtime.store.sql import statements

_SQL = statements("memories")


async def search_parts(pool: Pool, reach: Principal | Reach, wanted: Recall) -> list[Part]:
    """
    What the search index has for the words of a query, to be ranked.

    Raises NotPermitted, InvalidInput and Unavailable as `recall` does.
    """
    rows = await fetch_rows(
        pool,
        _SQL["search_parts"],
        reach.team_id,
        reach.project_id,
        reach.actor,
        wanted.project,
        wanted.query,
    )
    return [Part(*row) for row in rows]


async def recall(
    pool: Pool, principal: Principal, wanted: Recall, ranking: Ranking | None, hints: Hints, *, request_id: str
) -> list[ObservationRow]:
    """
    What the caller may see, best first: as `ranking` says, or else by the words of the rows, or the newest.

    A project that the team does not have holds nothing.

    Raises NotPermitted when the key is bound to another project, InvalidInput when none was named and none is evident.
    """
    rows = await fetch_rows(
        pool,
        _SQL["recall"],
        principal.team_id,
        principal.key_id,
        principal.project_id,
        principal.actor,
        request_id,
        wanted.mode,
        wanted.project,
        wanted.query,
        wanted.limit,
        wanted.platform,
        wanted.via,
        None if ranking is None else ranking.indexes,
        None if ranking is None else ranking.docnos,
        None if ranking is None else ranking.scores,
        hints.words,
        hints.years,
        hints.months,
    )
    return [_observation(row, principal.team_id) for row in rows]


def _observation(row: Record, team_id: TeamId) -> ObservationRow:
    memory_id, project_id, session_id, kind, title, content, metadata, sources, score, created, updated = row
    return {
        "id": memory_id,
        "projectId": project_id,
        "teamId": team_id,
        "serverSessionId": session_id,
        "kind": kind,
        "title": title,
        "content": content,
        # Most are empty, and reading them costs as much as the rest of the row.
        "metadata": {} if metadata == "{}" else orjson.loads(metadata),
        "sources": [] if sources is None else orjson.loads(sources),
        "score": None if score is None else round(score, 6),
        "createdAtEpoch": created,
        "updatedAtEpoch": updated,
    }


async def get(pool: Pool, reach: Reach, memory_id: str, *, action: str) -> MemoryRow | None:
    """One memory within reach, or None. `action`: what audit calls the read."""
    if not _may_be_id(memory_id):
        return None
    return cast("MemoryRow | None", await fetch_value(pool, _SQL["get"], *reach.arguments, memory_id, action))


async def list_page(
    pool: Pool, reach: Reach, wanted: Mapping[str, Json], *, before: int | None, limit: int
) -> tuple[list[MemoryRow], int | None]:
    """A page, newest first, and the number that the next begins below. Raises NotPermitted for another project."""
    page = await fetch_value(pool, _SQL["list"], *reach.arguments, dict(wanted), before, limit)
    return page["memories"], page["last"]


async def create(pool: Pool, reach: Reach, memory: Mapping[str, Json], *, via: str | None) -> dict[str, Any]:
    """
    `{"outcome", "memory", "superseded"}` as above `create_memory_v1`.

    Raises NotPermitted for a project or session out of reach, ProjectMissing where none was named and none is evident.
    """
    return cast("dict[str, Any]", await fetch_value(pool, _SQL["create"], *reach.arguments, via, dict(memory)))


async def update(
    pool: Pool, reach: Reach, memory_id: str, changes: Mapping[str, Json], *, via: str | None
) -> dict[str, Any] | None:
    """
    `{"outcome", "memory"}` as above `update_memory_v1`, or None for no such memory.

    Raises NotPermitted for a session out of reach, and for the visibility of what another actor wrote.
    """
    if not _may_be_id(memory_id):
        return None
    done = await fetch_value(pool, _SQL["update"], *reach.arguments, via, memory_id, dict(changes))
    return cast("dict[str, Any] | None", done)


async def supersede(pool: Pool, reach: Reach, memory_id: str, by: str, *, via: str | None) -> dict[str, Any] | None:
    """`{"outcome", "memory", "superseded"}` as above `supersede_memory_v1`, or None for no such memory."""
    if not _may_be_id(memory_id):
        return None
    done = await fetch_value(pool, _SQL["supersede"], *reach.arguments, via, memory_id, by)
    return cast("dict[str, Any] | None", done)


async def of_event(pool: Pool, reach: Reach, event_id: str) -> EventMemories | None:
    """What was made of an event, or None for no such event. Raises NotPermitted for one of another project."""
    if not _may_be_id(event_id):
        return None
    return cast("EventMemories | None", await fetch_value(pool, _SQL["of_event"], *reach.arguments, event_id))


def _may_be_id(text: str) -> bool:
    """What this rules out Postgres might not even take."""
    return text.isascii() and "\0" not in text
