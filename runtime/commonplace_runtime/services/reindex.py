"""Building a project's search index anew: asked for here, done by the keeper (`services/keep_index.py`)."""

from commonplace_runtime.domain.errors import NotFound
from commonplace_runtime.domain.events import storable
from commonplace_runtime.domain.models import Reach
from commonplace_runtime.domain.projects import MAX_NAME
from commonplace_runtime.domain.reindex import IndexState
from commonplace_runtime.store import reindex as store
from commonplace_runtime.store.pool import Pool


async def request_rebuild(pool: Pool, reach: Reach, project: str | None) -> IndexState:
    """
    Queue a rebuild of one project's index, by id or name; while one is pending, nothing more is queued.

    Searches read the memories themselves until it is done: slower, and they find everything. Raises NotFound,
    NotPermitted, ProjectMissing, Unavailable.
    """
    return _found(await store.request(pool, reach, _named(project)))


async def index_state(pool: Pool, reach: Reach, project: str | None) -> IndexState:
    """How far the index of one project is. Raises what `request_rebuild` raises."""
    return _found(await store.state(pool, reach, _named(project)))


def _named(project: str | None) -> str | None:
    # One character more than a name may have: a longer one names nothing, whatever it begins with.
    return None if project is None else storable(project[: MAX_NAME + 1]) or ""


def _found(state: IndexState | None) -> IndexState:
    if state is None:
        raise NotFound("Project not found")
    return state
