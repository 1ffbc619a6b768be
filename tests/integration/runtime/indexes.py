"""The states of a search index, which the tests of what searches promise go through."""

import asyncio
from typing import Final, Literal, TypeAlias

import pytest

from commonplace_runtime.services import keep_index
from commonplace_runtime.store.pool import Pool

State: TypeAlias = Literal["waiting", "merged", "being built"]
STATES: tuple[State, ...] = ("waiting", "merged", "being built")

_HINT: Final = """
    INSERT INTO commonplace.search_work (team_id, project_id)
    SELECT DISTINCT team_id, project_id FROM commonplace.search_tail
"""
_IS_UNDONE: Final = """
    SELECT EXISTS (SELECT FROM commonplace.search_tail)
        OR EXISTS (SELECT FROM commonplace.search_work WHERE rebuild_from IS NOT NULL)
"""


async def bring_to(state: State, admin_pool: Pool, runtime_pool: Pool) -> None:
    """All memories wait, or stand in segments, or none is known to the index of a project that is being built."""
    if state == "merged":
        await merge_all(admin_pool, runtime_pool)
    elif state == "being built":
        await admin_pool.execute("DELETE FROM commonplace.search_tail")
        await admin_pool.execute(
            "INSERT INTO commonplace.search_work (team_id, project_id, rebuild_from)"
            " SELECT team_id, id, 0 FROM commonplace.projects ON CONFLICT DO NOTHING"
        )


async def merge_all(admin_pool: Pool, runtime_pool: Pool) -> None:
    """What the keeper does, with as few as one memory that waits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keep_index, "MERGE_FROM", 1)
        async with asyncio.timeout(30):
            # Another keeper may hold a project at the moment.
            while await admin_pool.fetchval(_IS_UNDONE):
                await admin_pool.execute(_HINT)
                await keep_index.keep_indexes(runtime_pool)
