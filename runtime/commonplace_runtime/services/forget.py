"""Forgetting: what is selected goes with all that hangs on it, in transactions that hold nobody up."""

import asyncio
from time import monotonic
from typing import Final, Literal, TypeAlias, cast

import structlog

from commonplace_runtime.domain.erasure import (
    FIRST_ROWS,
    LEAST_ROWS,
    QUERY_LIMITS,
    Counts,
    Forgotten,
    Selection,
    counts_of,
    next_rows,
)
from commonplace_runtime.domain.errors import NotFound, Unavailable
from commonplace_runtime.domain.models import Json, Reach, Recall
from commonplace_runtime.domain.questions import hints_of
from commonplace_runtime.domain.ranking import rank
from commonplace_runtime.domain.redaction import redact
from commonplace_runtime.ids import uuid7
from commonplace_runtime.services.keep_index import purge_project_index
from commonplace_runtime.services.search import CANDIDATES, NAME_CHARACTERS, clean_query
from commonplace_runtime.store import erasures, memories
from commonplace_runtime.store.erasures import Begun, Erasure
from commonplace_runtime.store.pool import Pool
from commonplace_runtime.store.search_index import Project

log = structlog.get_logger(__name__)
Action: TypeAlias = Literal["memory.forgotten", "observation.deleted", "project.memory_purged"]

BUSY_SECONDS: Final = 20.0
"""How long an erasure is tried again that finds its rows in use; then whoever asked is told to come back."""
_BUSY_PAUSE_SECONDS: Final = 0.05
_TEXT_CHARACTERS: Final = 4096
_MISSING: Final = {"memory": "Memory not found", "session": "Session not found"}


async def forget(pool: Pool, reach: Reach, selection: Selection, *, dry_run: bool, via: str | None = None) -> Forgotten:
    """
    Erase what `selection` means of what the caller sees, and answer when all of it is gone; or say what would go.

    A query takes the best of what a search for it finds that has one of its words itself, or has superseded one that
    has: never what only stands beside such a one. A project goes whole, other actors' private memories too. Raises
    NotFound, NotPermitted, ProjectMissing, Unavailable: an erasure that had begun is then finished by a worker.
    """
    begun = await _begin(pool, reach, selection, dry_run=dry_run, via=via, action="memory.forgotten")
    counts = await _finish(pool, begun)
    return {
        "erasureId": None if begun.erasure is None else begun.erasure.id,
        "dryRun": dry_run,
        "counts": counts,
        "memories": begun.memories,
    }


async def delete_memory(pool: Pool, reach: Reach, memory_id: str, *, via: str | None = None) -> Counts:
    """The same for one memory, as `observation.deleted`. Raises NotFound, Unavailable."""
    selection = Selection(memory_id=memory_id)
    return await _finish(
        pool, await _begin(pool, reach, selection, dry_run=False, via=via, action="observation.deleted")
    )


async def purge_project(pool: Pool, reach: Reach, project: str, *, via: str | None = None) -> tuple[str, Counts]:
    """
    The same for all that a project captured, as `project.memory_purged`; the project's id and what went.

    The project, its keys, its audit rows and what it used stay. Raises NotFound, NotPermitted, Unavailable.
    """
    selection = Selection(project=project)
    begun = await _begin(pool, reach, selection, dry_run=False, via=via, action="project.memory_purged")
    return begun.project_id, await _finish(pool, begun)


async def finish_erasures(pool: Pool) -> int:
    """
    Finish what others left behind, of any team; how many erasures that were.

    One that cannot be finished now is tried again another time, and keeps none of the others waiting. Raises
    Unavailable.
    """
    finished = 0
    tried: set[str] = set()
    while (erasure := await erasures.resume(pool)) is not None and erasure.id not in tried:
        tried.add(erasure.id)
        log.info("erasure_resumed", erasure=erasure.id, team=erasure.team_id)
        try:
            counts = await _erase(pool, erasure)
        except Unavailable as error:
            log.warning("erasure_left_behind", erasure=erasure.id, team=erasure.team_id, reason=error.message)
        except Exception:
            log.exception("erasing_broke", erasure=erasure.id, team=erasure.team_id)
        else:
            log.info("erasure_finished", erasure=erasure.id, team=erasure.team_id, **counts)
            finished += 1
    return finished


async def _begin(
    pool: Pool, reach: Reach, selection: Selection, *, dry_run: bool, via: str | None, action: Action
) -> Begun:
    value = _value(selection)
    project = None if selection.project is None else _clean(selection.project[:NAME_CHARACTERS])
    begun = await erasures.begin(
        pool,
        reach,
        {
            "id": str(uuid7()),
            "what": selection.kind,
            "value": value,
            "limit": selection.limit,
            "ranking": None if selection.query is None else await _ranking(pool, reach, value, project),
            "project": project,
            "isDry": dry_run,
            "action": action,
            "via": via or "api",
        },
    )
    if begun is None:
        raise NotFound(_MISSING.get(selection.kind, "Project not found"))
    return begun


async def _ranking(pool: Pool, reach: Reach, query: str | None, project: str | None) -> Json:
    """The ranking as `forgotten_by_query` takes it, without neighbours; None where the rows must be read instead."""
    wanted = Recall(mode="search", project=project, query=query, limit=QUERY_LIMITS[1])
    ranking = rank(await memories.search_parts(pool, reach, wanted), most=CANDIDATES, asks=False)
    if ranking is None:
        return None
    hints = hints_of(query)
    columns = {"indexes": ranking.indexes, "docnos": ranking.docnos, "scores": ranking.scores}
    return cast("Json", {**columns, "names": hints.words, "years": hints.years, "months": hints.months})


async def _finish(pool: Pool, begun: Begun) -> Counts:
    return counts_of(dict(begun.counts)) if begun.erasure is None else await _erase(pool, begun.erasure)


async def _erase(pool: Pool, erasure: Erasure) -> Counts:
    rows, phase = FIRST_ROWS, None
    busy_since: float | None = None
    while True:
        try:
            step = await erasures.step(pool, erasure, rows=rows)
        except Unavailable as error:
            busy_since = busy_since or monotonic()
            if not erasures.was_busy(error) or monotonic() - busy_since > BUSY_SECONDS:
                raise
            rows = max(LEAST_ROWS, rows // 2)
            await asyncio.sleep(_BUSY_PAUSE_SECONDS)
            continue
        busy_since = None
        if step["outcome"] == "done":
            # Should this process die here, the keeper does it: the hint was written with what went.
            await purge_project_index(pool, Project(team_id=erasure.team_id, project_id=erasure.project_id))
            return counts_of(step["counts"])
        if step["outcome"] == "lease_lost":
            raise Unavailable("another process goes on with this erasure")
        # What one row takes is another matter in each phase.
        rows = next_rows(rows, step["seconds"]) if step["phase"] == phase else FIRST_ROWS
        phase = step["phase"]


def _value(selection: Selection) -> str | None:
    """What was named, as it would have been stored; what is longer than anything stored finds nothing."""
    if selection.query is not None:
        return clean_query(selection.query)
    if selection.value is None:
        return None
    text = _clean(selection.value[: _TEXT_CHARACTERS + 1])
    return text if selection.file is None else _path(text)


def _path(text: str) -> str:
    """A path as `is_file` compares it."""
    return text.replace("\\", "/").removeprefix("./")


def _clean(text: str) -> str:
    return cast("str", redact(text).value)
