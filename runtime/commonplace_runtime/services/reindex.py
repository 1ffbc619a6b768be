"""Building a project's search index anew: asked for here, done by the keeper (`services/keep_index.py`)."""

from collections.abc import Sequence
from typing import Final

from commonplace_runtime.domain.errors import InvalidInput, NotFound
from commonplace_runtime.domain.events import storable
from commonplace_runtime.domain.models import Reach, TeamId
from commonplace_runtime.domain.projects import MAX_NAME
from commonplace_runtime.domain.reindex import IndexOfTeam, IndexState
from commonplace_runtime.services import tenants
from commonplace_runtime.store import reindex as store
from commonplace_runtime.store.pool import Pool

_ACTOR: Final = "human:administrator"


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


async def request_rebuilds(pool: Pool, *, team: str | None, project: str | None) -> list[IndexOfTeam]:
    """
    The same for every project that `team` (id, slug or name; None: every team) and `project` (None: all) mean.

    `pool` is an administrator's. Raises NotFound, Conflict, InvalidInput for a project without its team.
    """
    if team is None and project is not None:
        raise InvalidInput("a project is found within a team: name that too, with --team")
    teams = await tenants.list_teams(pool) if team is None else [await tenants.find_team(pool, team)]
    told = []
    for owner in teams:
        slug, team_id = owner["slug"], str(owner["id"])
        if project is None:
            meant = await tenants.list_projects(pool, team_id)
        else:
            meant = [await tenants.find_project(pool, owner, project)]
        for one in meant:
            state = await request_rebuild(pool, _reach(team_id), str(one["id"]))
            told.append(IndexOfTeam(**state, teamId=team_id, team=slug, project=one["name"]))
    return told


async def look_again(pool: Pool, told: Sequence[IndexOfTeam]) -> list[IndexOfTeam]:
    """How far those indexes are now. A project that is gone meanwhile is left out."""
    now = []
    for one in told:
        state = await store.state(pool, _reach(one["teamId"]), one["projectId"])
        if state is not None:
            now.append(IndexOfTeam(**state, teamId=one["teamId"], team=one["team"], project=one["project"]))
    return now


def _reach(team_id: str) -> Reach:
    return Reach(team_id=TeamId(team_id), actor=_ACTOR)


def _named(project: str | None) -> str | None:
    # One character more than a name may have: a longer one names nothing, whatever it begins with.
    return None if project is None else storable(project[: MAX_NAME + 1]) or ""


def _found(state: IndexState | None) -> IndexState:
    if state is None:
        raise NotFound("Project not found")
    return state
