"""Memories by local name, path and number, as claude-mem's hooks and tools ask for them; each read is audited."""

from collections.abc import Sequence
from typing import cast

from commonplace_runtime.domain.models import Reach
from commonplace_runtime.domain.worker_reads import (
    ContextRows,
    SearchRows,
    TimelineRows,
    WantedFile,
    WorkerRow,
    WorkerSearch,
)
from commonplace_runtime.store.calls import fetch_value
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


async def timeline(
    pool: Pool,
    reach: Reach,
    name: str | None,
    *,
    anchor: str | None,
    query: str | None,
    platform: str | None,
    before: int,
    after: int,
) -> TimelineRows:
    """What surrounds the memory that `anchor` (number or id) names, or else the best for `query`."""
    rows = await fetch_value(pool, _SQL["timeline"], *reach.arguments, name, anchor, query, platform, before, after)
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


async def search(pool: Pool, reach: Reach, wanted: WorkerSearch) -> SearchRows:
    """A page of what answers `wanted`."""
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
    )
    return cast("SearchRows", found)
