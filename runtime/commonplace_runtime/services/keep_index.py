"""
The keeper of the search index: merges what waits, puts segments together, takes away what is dead, builds anew.

Each step is a short transaction after which the index is whole, so that a keeper may die between any two. Any number of
keepers may work at once: a project is held for one transaction at a time.
"""

import asyncio
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Final, Literal, TypeAlias

import numpy as np
import structlog

from commonplace_runtime.domain.erasure import FIRST_ROWS, MOST_ROWS, next_rows
from commonplace_runtime.domain.errors import Unavailable
from commonplace_runtime.domain.postings import IndexFull, merge, to_compact, without
from commonplace_runtime.observability import (
    SEARCH_INDEX_FAILURES,
    SEARCH_INDEX_FULL,
    SEARCH_INDEX_WORK,
    SEARCH_MERGES,
)
from commonplace_runtime.store import search_index
from commonplace_runtime.store.pool import Pool
from commonplace_runtime.store.search_index import Held, Pair, Project, State

log = structlog.get_logger(__name__)
Outcome: TypeAlias = Literal["kept", "goes on", "held"]
"""Of a project's turn: nothing is left to do, there is more, somebody else is at it."""

WATCH_SECONDS: Final = 15.0
"""Between the rounds of an api; workers, where there are any, come first."""
AWAY_LONGEST_SECONDS: Final = 60.0
PROJECTS: Final = 100
"""Projects of one round."""
VISITS: Final = 4
"""How often one project's state is looked at before the others have their turn."""
MERGE_FROM: Final = 256
"""Memories that must wait before they become a segment; fewer are read as they are. A long one counts for several."""
MERGE_MOST: Final = 512
"""Counted alike: 1 MB of words, which one transaction writes and for which an event loop's thread is not needed."""
_MERGED: Final = 4096
"""Memories of one owner that are merged before the others have their turn."""
_REBUILT: Final = 2048
"""Memories that a project puts into its tail before they are merged."""
_DEAD_MOST: Final = 4096
"""Documents that are purged in one pass over their words."""
_DEAD_WORDS: Final = 1_000_000
_DROPPED_ROWS: Final = 5000


async def watch_indexes(pool: Pool, seconds: float | None = None) -> None:
    """
    Keep the indexes of all teams until cancelled: a round every `seconds`, and at once again while there is more.

    seconds: None for WATCH_SECONDS. While Postgres is away, or its schema is another one, it looks less and less often.
    """
    seconds = WATCH_SECONDS if seconds is None else seconds
    pause = seconds
    while True:
        await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
        try:
            while await keep_indexes(pool):
                log.debug("index_keeping_goes_on")
        except Unavailable as error:
            pause = min(2 * pause, max(seconds, AWAY_LONGEST_SECONDS))
            log.warning("index_keeping_failed", reason=error.message, retry_in_seconds=round(pause, 1))
        except Exception:
            log.exception("index_keeping_broke")
        else:
            pause = seconds


async def keep_indexes(pool: Pool) -> bool:
    """
    One round over the projects that may have something to do; whether there is more to do at once.

    A project whose turn breaks is logged and comes after all others. Raises Unavailable.
    """
    outcomes: set[Outcome] = set()
    projects = await search_index.work(pool, most=PROJECTS)
    SEARCH_INDEX_WORK.set(len(projects))
    for project in projects:
        try:
            outcomes.add(await _keep(pool, project))
        except Unavailable as error:
            SEARCH_INDEX_FAILURES.inc()
            log.warning("index_left_behind", team=project.team_id, project=project.project_id, reason=error.message)
            await search_index.postpone(pool, project)
        except Exception:
            SEARCH_INDEX_FAILURES.inc()
            log.exception("index_turn_broke", team=project.team_id, project=project.project_id)
            await search_index.postpone(pool, project)
    return "goes on" in outcomes or (len(projects) == PROJECTS and "kept" in outcomes)


async def purge_project_index(pool: Pool, project: Project) -> None:
    """
    No posting is left of any document that was gone when this began.

    For erasures, which answer afterwards. Raises Unavailable.
    """
    for index_no in await search_index.dead_indexes(pool, project):
        await _clear(pool, project, index_no, patient=True)


async def _keep(pool: Pool, project: Project) -> Outcome:
    full: set[str] = set()
    for _ in range(VISITS):
        state = await search_index.state(pool, project)
        if not _has_work(state, full):
            async with search_index.holding(pool, project) as held:
                if held is None:
                    return "held"
                await held.done(state.hints)
            return "kept"
        if not await _visit(pool, project, state, full):
            return "held"
    await search_index.postpone(pool, project)
    return "goes on"


def _has_work(state: State, full: Collection[str]) -> bool:
    return (
        state.rebuilds
        or any(waiting >= MERGE_FROM for owner, waiting in state.tails.items() if owner not in full)
        or any(
            index.has_dead or not index.has_living or to_compact(index.segments) is not None for index in state.indexes
        )
    )


async def _visit(pool: Pool, project: Project, state: State, full: set[str]) -> bool:
    """Do what `state` shows; False as soon as somebody else is at it. Owners without room are added to `full`."""
    if state.rebuilds and not await _rebuild(pool, project):
        return False
    for index in state.indexes:
        if (index.has_dead or not index.has_living) and not await _clear(pool, project, index.number):
            return False
        span = to_compact(index.segments)
        if span is not None and not await _compact(pool, project, index.number, span):
            return False
    for owner, waiting in state.tails.items():
        try:
            for _ in range(0, min(waiting - MERGE_FROM + 1, _MERGED), MERGE_MOST):
                if not await _merge(pool, project, owner):
                    return False
        except IndexFull:
            # The memories stay where they are, and beyond 2,000 a search reads the rows.
            log.error("search_index_full", team=project.team_id, project=project.project_id, owner=owner)  # noqa: TRY400
            SEARCH_INDEX_FULL.inc()
            full.add(owner)
    return True


async def _rebuild(pool: Pool, project: Project) -> bool:
    rows, written = FIRST_ROWS, 0
    while written < _REBUILT:
        started = monotonic()
        async with search_index.holding(pool, project) as held:
            if held is None:
                return False
            step = await held.rebuild(rows)
        if step == 0:
            log.info("index_rebuilt", team=project.team_id, project=project.project_id)
            return True
        written += step
        rows = next_rows(rows, monotonic() - started)
    return True


async def _merge(pool: Pool, project: Project, owner: str) -> bool:
    """Make the oldest that wait a segment; False when others hold them."""
    async with search_index.holding(pool, project) as held:
        if held is None:
            return False
        tail = await held.tail(owner, MERGE_MOST)
        if not tail:
            return False
        index_no, room = await held.room(owner, tail)
        await held.write(owner, index_no, tail, await asyncio.to_thread(merge, tail, room))
    SEARCH_MERGES.inc()
    return True


async def _compact(pool: Pool, project: Project, index_no: int, span: tuple[int, int]) -> bool:
    reached: int | None = search_index.BEFORE_ALL
    terms = MOST_ROWS
    while reached is not None:
        started = monotonic()
        async with search_index.holding(pool, project) as held:
            if held is None:
                return False
            reached = await held.compact(index_no, span, after=reached, terms=terms)
        terms = next_rows(terms, monotonic() - started)
    return True


async def _clear(pool: Pool, project: Project, index_no: int, *, patient: bool = False) -> bool:
    """Take away what is dead in an index, or all of it when nothing lives; False when somebody else is at it."""
    clearing = _Clearing(index_no=index_no)
    goes_on = True
    while goes_on:
        started = monotonic()
        async with search_index.holding(pool, project, patient=patient) as held:
            if held is None:
                return False
            goes_on = await clearing.step(held)
        clearing.rows = next_rows(clearing.rows, monotonic() - started)
    return True


@dataclass(kw_only=True)
class _Clearing:
    """How far an index is rid of its dead documents. lists: those that are still to be looked at."""

    index_no: int
    rows: int = 128
    documents: Sequence[int] = ()
    lists: Sequence[Pair] = ()
    has_more: bool = False
    drops: bool = False

    async def step(self, held: Held) -> bool:
        """The next few lists, of what was dead when this began; whether there are more."""
        if not self.documents and not self.drops:
            dead = await held.dead(self.index_no, _DEAD_MOST, _DEAD_WORDS)
            self.documents, self.lists, self.drops = dead.documents, dead.lists, not dead.has_living
            self.has_more = dead.has_more
        if self.drops:
            goes_on = await held.drop(self.index_no, _DROPPED_ROWS)
            # A merge came between: there is something that lives.
            self.drops = goes_on is not None
            return goes_on is not False
        if not self.documents:
            return False
        lists, self.lists = self.lists[: self.rows], self.lists[self.rows :]
        found = await held.lists(self.index_no, lists)
        left = without([one.data for one in found], np.array(self.documents, np.int64))
        changed = [replace(one, data=data) for one, data in zip(found, left, strict=True) if len(data) < len(one.data)]
        await held.rewrite(self.index_no, changed)
        if self.lists:
            return True
        await held.purged(self.index_no, self.documents)
        self.documents = ()
        return self.has_more
