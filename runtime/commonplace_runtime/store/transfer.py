"""Pages of an export and batches of an import."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from typing_extensions import TypedDict

from commonplace_runtime.domain.models import Json, Reach
from commonplace_runtime.domain.transfer import Place
from commonplace_runtime.store.calls import ACQUIRE_TIMEOUT_SECONDS, fetch_value
from commonplace_runtime.store.pool import Pool, Record, faults_as_unavailable
from commonplace_runtime.store.sql import statements

_SQL = statements("transfer")


class ExportedProject(TypedDict):
    """A project to be exported, and the newest numbers that it has."""

    id: str
    name: str
    memories: int | None
    events: int | None


class ExportPlan(TypedDict):
    """What an export will go through."""

    team: dict[str, str]
    nowEpoch: int
    projects: list[ExportedProject]


async def begin_export(pool: Pool, reach: Reach, project: str | None, details: Mapping[str, Json]) -> ExportPlan | None:
    """What will be exported, audited; None where there is no such project. Raises NotPermitted, Unavailable."""
    found = await fetch_value(pool, _SQL["begin_export"], *reach.arguments, project, dict(details))
    return cast("ExportPlan | None", found)


async def export_page(
    pool: Pool,
    reach: Reach,
    project: ExportedProject,
    place: Place,
    *,
    since: datetime | None,
    with_sources: bool,
    with_sessions: bool,
    everything: bool,
    rows: int,
    size: int,
) -> Sequence[Record]:
    """Rows of `place` and `line` (None: it is not for this reader); none at the end. Raises Unavailable."""
    until = {"memories": project["memories"], "events": project["events"]}.get(place.kind)
    arguments = (
        *(reach.team_id, reach.actor, project["id"], project["name"], place.kind, place.after, until, since),
        *(with_sources, with_sessions, everything, rows, size),
    )
    async with faults_as_unavailable(), pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
        return await connection.fetch(_SQL["export_page"], *arguments)


async def audit_export(pool: Pool, reach: Reach, project_id: str | None, details: Mapping[str, Json]) -> None:
    """One row about an export. Raises Unavailable."""
    await fetch_value(pool, _SQL["audit"], *reach.arguments, "memory.export", project_id, dict(details))


async def import_records(
    pool: Pool, reach: Reach, project: str | None, records: Sequence[Mapping[str, Json]], *, is_admin: bool
) -> list[dict[str, Any]] | None:
    """
    What became of each of `records`, `{"line", "outcome"}` in their order; None where there is no such project.

    Raises NotPermitted, Unavailable, and InvalidInput when one of them cannot be stored: then none was.
    """
    answer = await fetch_value(
        pool, _SQL["import"], *reach.arguments, project, is_admin, [dict(record) for record in records]
    )
    return None if answer is None else cast("list[dict[str, Any]]", answer["outcomes"])
