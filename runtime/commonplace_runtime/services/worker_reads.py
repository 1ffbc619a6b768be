"""
What claude-mem's hooks and tools read, by local names of repositories.

A name that nothing is known under finds nothing. Names, paths and queries are cleaned before anybody looks for them:
what was private or secret was never stored, and the audit keeps names and queries.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from commonplace_runtime.domain.events import storable
from commonplace_runtime.domain.models import Reach
from commonplace_runtime.domain.questions import Hints, hints_of
from commonplace_runtime.domain.ranking import Ranking, rank
from commonplace_runtime.domain.worker_reads import (
    ContextRows,
    SearchRows,
    TimelineRows,
    WorkerRow,
    WorkerSearch,
    wanted_file,
)
from commonplace_runtime.services.search import CANDIDATES_OF_PLATFORM, clean_query
from commonplace_runtime.store import worker_reads as store
from commonplace_runtime.store.pool import Pool

MAX_NAMES: Final = 20
MAX_PATHS: Final = 20
CANDIDATES: Final = 1400
"""Documents that are ranked for one answer: it counts 1,000 at most, and some are superseded or just erased."""
_NAME_CHARACTERS: Final = 200
_PATH_CHARACTERS: Final = 1024
_LARGEST_NUMBER: Final = 2**31 - 1


async def session_context(
    pool: Pool, reach: Reach, names: Sequence[str], platform: str | None, *, limit: int
) -> ContextRows:
    """What a session in these repositories begins with; no name means all that the key reaches. Raises Unavailable."""
    return await store.context(pool, reach, _clean_names(names), storable(platform), limit=limit)


async def memories_of_file(
    pool: Pool, reach: Reach, paths: Sequence[str], names: Sequence[str], *, limit: int
) -> list[WorkerRow]:
    """The newest memories that name the file, which `paths` name in one or more ways. Raises Unavailable."""
    clean = [storable(path) or "" for path in paths[:MAX_PATHS] if len(path) <= _PATH_CHARACTERS]
    known = _clean_names(names)
    return await store.by_file(pool, reach, known, wanted_file(clean, known or ()), limit=limit)


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
    """
    What surrounds one memory: the one that `anchor` names by number or id, else the best for `query`.

    Raises Unavailable.
    """
    name = _clean_name(name) if name else None
    query, platform = clean_query(query), storable(platform)
    if anchor is not None:
        return await store.timeline(
            pool,
            reach,
            name,
            anchor=storable(anchor) or "",
            query=query,
            platform=platform,
            before=before,
            after=after,
        )
    hints = hints_of(query)
    return await store.timeline_of_query(
        pool,
        reach,
        name,
        query=query,
        platform=platform,
        before=before,
        after=after,
        ranking=await _ranked(pool, reach, [name] if name is not None else None, query, platform, hints),
        hints=hints,
    )


async def whole_memories(
    pool: Pool, reach: Reach, ids: Sequence[int | str], name: str | None, *, oldest_first: bool, limit: int
) -> list[WorkerRow]:
    """Those of `ids` (numbers, or ids) that the caller sees, whole. Raises Unavailable."""
    numbers = {int(each) for each in ids if _is_number(each)}
    return await store.batch(
        pool,
        reach,
        [_clean_name(name)] if name else None,
        numbers=sorted(number for number in numbers if 0 <= number <= _LARGEST_NUMBER),
        ids=[each for each in ids if isinstance(each, str) and "\0" not in each and each.isascii()],
        oldest_first=oldest_first,
        limit=limit,
    )


async def search(pool: Pool, reach: Reach, wanted: WorkerSearch) -> SearchRows:
    """A page of what answers `wanted`; the read is audited with its query. Raises Unavailable."""
    clean = replace(
        wanted,
        names=_clean_names(wanted.names or ()),
        query=clean_query(wanted.query),
        platform=storable(wanted.platform),
        kinds=None if wanted.kinds is None else [_clean_name(kind) for kind in wanted.kinds[:MAX_NAMES]],
    )
    hints = hints_of(clean.query)
    ranking = await _ranked(pool, reach, clean.names, clean.query, clean.platform, hints)
    return await store.search(pool, reach, clean, ranking, hints)


async def _ranked(
    pool: Pool, reach: Reach, names: Sequence[str] | None, query: str | None, platform: str | None, hints: Hints
) -> Ranking | None:
    """What the index answers; None where there is no query, or where the rows must be read instead."""
    if query is None:
        return None
    most = CANDIDATES if platform is None else CANDIDATES_OF_PLATFORM
    return rank(await store.search_parts(pool, reach, names, query), most=most, asks=hints.asks)


def _is_number(given: int | str) -> bool:
    return not isinstance(given, str) or (given.isascii() and given.isdigit() and len(given) <= 10)


def _clean_names(names: Sequence[str]) -> list[str] | None:
    return [_clean_name(name) for name in names[:MAX_NAMES]] or None


def _clean_name(name: str) -> str:
    """A name to compare with; one that is longer than any name becomes one that nothing has."""
    return storable(name) or "" if len(name) <= _NAME_CHARACTERS else "\ufffd"
