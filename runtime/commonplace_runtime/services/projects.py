"""Projects of a team, as its keys see and make them."""

from typing import Final, cast

from commonplace_runtime.domain.cursors import invalid_cursor, read_cursor, write_cursor
from commonplace_runtime.domain.errors import Conflict, NotFound
from commonplace_runtime.domain.events import storable
from commonplace_runtime.domain.models import Reach
from commonplace_runtime.domain.projects import MAX_NAME, NewProject, ProjectPage, ProjectRow
from commonplace_runtime.domain.validation import InvalidFields
from commonplace_runtime.ids import uuid7
from commonplace_runtime.store import projects as store
from commonplace_runtime.store.pool import Pool

MOST: Final = 1000
"""Projects of one answer."""


async def list_projects(pool: Pool, reach: Reach, *, after: str | None = None, limit: int = MOST) -> ProjectPage:
    """The projects that the key reaches, by name; after the one of that name. Raises Unavailable."""
    found = await store.list_page(pool, reach, after=after, limit=limit + 1)
    shown = found[:limit]
    return {"projects": shown, "nextCursor": write_cursor(shown[-1]["name"]) if len(found) > limit else None}


async def create_project(pool: Pool, reach: Reach, project: NewProject) -> ProjectRow:
    """
    A project that belongs to people: no operator's object made it, and none takes it away.

    Raises NotPermitted for a key that is bound to a project, Conflict for a name that is taken, Unavailable.
    """
    made = await store.create(
        pool,
        reach,
        {
            "id": str(uuid7()),
            "name": project.name,
            "slug": project.slug,
            "rootPath": project.root_path,
            "metadata": project.metadata,
        },
    )
    if made is None:
        raise Conflict(f'The team has a project "{project.name}" already: use that one, or choose another name')
    return made


async def get_project(pool: Pool, reach: Reach, named: str) -> ProjectRow:
    """One project by id or name. Raises NotFound, NotPermitted for one that the key is not bound to, Unavailable."""
    project = await store.get(pool, reach, storable(named[: MAX_NAME + 1]) or "")
    if project is None:
        raise NotFound("Project not found")
    return project


def read_place(cursor: str) -> str:
    """
    The name after which a page begins, by the `nextCursor` of the one before.

    Raises InvalidFields for anything else.
    """
    (name,) = cast("list[str]", read_cursor(cursor, (str,)))
    if storable(name) != name:
        raise InvalidFields([invalid_cursor()])
    return name
