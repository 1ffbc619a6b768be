"""Memories by local name, path and number, as claude-mem's hooks and tools ask for them; each read is audited."""

from collections.abc import Sequence
from typing import cast

from commonplace_runtime.domain.models import Reach
from commonplace_runtime.domain.questions import Hints
from commonplace_runtime.domain.ranking import Part, Ranking
from commonplace_runtime.domain.worker_reads import (
    ContextRows,
    SearchRows,
    TimelineRows,
    WantedFile,
    WorkerRow,
    WorkerSearch,
)
from commonplace_runtime.store.calls import fetch_rows, fetch_value
from commonplace_runtime.store.pool import Pool
from commonplace_runtime.store.sql import statements

_SQL = statements("worker_reads")


async def context(
    pool: Pool, reach: Reach, names: Sequence[str] | None, platform: str | None, *, limit: int
) -> ContextRows:
    """The newest memories under any of `names` (None: all), and the newest summary."""
    return cast("ContextRows", await fetch_value(pool, _SQL["context"], *reach.arguments, names, platform, limit))


async def by_file(
    pool: Pool, reach: Reach, names: Sequence[str] | None, wanted: WantedFile, *, limit: int
) -> list[WorkerRow]:
    """The newest memories about a file."""
    rows = await fetch_value(
        pool, _SQL["by_file"], *reach.arguments, names, wanted.names, wanted.paths, wanted.endings, limit
    )
    return cast("list[WorkerRow]", rows)


async def search_parts(pool: Pool, reach: Reach, names: Sequence[str] | None, query: str) -> list[Part]:
    """What the search index has for the words of a query, under any of `names` (None: all), to be ranked."""
    rows = await fetch_rows(pool, _SQL["search_parts"], reach.team_id, reach.project_id, reach.actor, names, query)
    return [Part(*row) for row in rows]


async def timeline(
    pool: Pool,
    reach: Reach,
    name: str | None,
    *,
    anchor: str,
    query: str | None,
    platform: str | None,
    before: int,
    after: int,
) -> TimelineRows:
    """What surrounds the memory that `anchor` (number or id) names."""
    rows = await fetch_value(pool, _SQL["timeline"], *reach.arguments, name, anchor, query, platform, before, after)
    return cast("TimelineRows", rows)


async def timeline_of_query(
    pool: Pool,
    reach: Reach,
    name: str | None,
    *,
    query: str | None,
    platform: str | None,
    before: int,
    after: int,
    ranking: Ranking | None,
    hints: Hints,
) -> TimelineRows:
    """What surrounds the best for `query`: as `ranking` says, or else by the words of the rows."""
    rows = await fetch_value(
        pool,
        _SQL["timeline_of_query"],
        *reach.arguments,
        name,
        query,
        platform,
        before,
        after,
        *_ranked(ranking, hints),
    )
    return cast("TimelineRows", rows)


async def batch(
    pool: Pool,
    reach: Reach,
    names: Sequence[str] | None,
    *,
    numbers: Sequence[int],
    ids: Sequence[str],
    oldest_first: bool,
    limit: int,
) -> list[WorkerRow]:
    """The memories that `numbers` and `ids` name, whole."""
    rows = await fetch_value(pool, _SQL["batch"], *reach.arguments, numbers, ids, names, oldest_first, limit)
    return cast("list[WorkerRow]", rows)


async def search(pool: Pool, reach: Reach, wanted: WorkerSearch, ranking: Ranking | None, hints: Hints) -> SearchRows:
    """A page of what answers `wanted`: as `ranking` says, or else by the words of the rows, or the newest."""
    found = await fetch_value(
        pool,
        _SQL["search"],
        *reach.arguments,
        wanted.names,
        wanted.query,
        wanted.platform,
        wanted.kinds,
        wanted.no_kinds,
        wanted.since,
        wanted.until,
        wanted.order,
        wanted.limit,
        wanted.offset,
        *_ranked(ranking, hints),
    )
    return cast("SearchRows", found)


def _ranked(ranking: Ranking | None, hints: Hints) -> tuple[object, ...]:
    columns = (None, None, None) if ranking is None else (ranking.indexes, ranking.docnos, ranking.scores)
    return (*columns, hints.words, hints.years, hints.months)
