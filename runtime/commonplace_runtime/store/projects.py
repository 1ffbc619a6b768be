"""Projects as resources, each call with its audit row in one statement."""

from typing import cast

from commonplace_runtime.domain.models import Json, Reach
from commonplace_runtime.domain.projects import ProjectRow
from commonplace_runtime.store.calls import fetch_value
from commonplace_runtime.store.pool import Pool
from commonplace_runtime.store.sql import statements

_SQL = statements("projects")


async def list_page(pool: Pool, reach: Reach, *, after: str | None, limit: int) -> list[ProjectRow]:
    """Projects within reach by name, after that one."""
    return cast("list[ProjectRow]", await fetch_value(pool, _SQL["list"], *reach.arguments, after, limit))


async def create(pool: Pool, reach: Reach, project: dict[str, Json]) -> ProjectRow | None:
    """The new project, or None where the name is taken. Raises NotPermitted for a key that is bound to a project."""
    return cast("ProjectRow | None", await fetch_value(pool, _SQL["create"], *reach.arguments, project))


async def get(pool: Pool, reach: Reach, named: str) -> ProjectRow | None:
    """One project by id or name, or None. Raises NotPermitted for one that the key is not bound to."""
    return cast("ProjectRow | None", await fetch_value(pool, _SQL["get"], *reach.arguments, named))
