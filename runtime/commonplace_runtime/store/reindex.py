"""Search indexes that are built anew because somebody asks; the statements are in `reindex.sql`."""

from typing import cast

from commonplace_runtime.domain.models import Reach
from commonplace_runtime.domain.reindex import IndexState
from commonplace_runtime.store.calls import fetch_value
from commonplace_runtime.store.pool import Pool
from commonplace_runtime.store.sql import statements

_SQL = statements("reindex")


async def request(pool: Pool, reach: Reach, project: str | None) -> IndexState | None:
    """
    Queue a rebuild unless one is pending; None for no such project.

    Raises NotPermitted when the key is bound to another, ProjectMissing where none was named and none is evident.
    """
    return cast("IndexState | None", await fetch_value(pool, _SQL["request"], *reach.arguments, project))


async def state(pool: Pool, reach: Reach, project: str | None) -> IndexState | None:
    """How far the index of a project is; None for no such project. Raises what `request` raises."""
    found = await fetch_value(pool, _SQL["state"], reach.team_id, reach.project_id, project)
    return cast("IndexState | None", found)
