"""Jobs of any team, for an administrator at a terminal. `pool` is of a role in `commonplace_admin`."""

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from commonplace_runtime.domain.errors import InvalidInput, NotFound
from commonplace_runtime.domain.models import Reach, TeamId
from commonplace_runtime.services import tenants
from commonplace_runtime.services.jobs import MAX_RETRIES
from commonplace_runtime.store import job_views
from commonplace_runtime.store.job_views import Wanted
from commonplace_runtime.store.pool import Pool, Record

_ACTOR: Final = "human:administrator"
_NOTHING: Final = {"retried": 0, "remaining": 0}


async def _place(pool: Pool, team: str | None, project: str | None) -> tuple[UUID | None, UUID | None]:
    if team is None:
        if project is not None:
            raise InvalidInput("a project is found within a team: name that too, with --team")
        return None, None
    owner = await tenants.find_team(pool, team)
    within = None if project is None else await tenants.find_project(pool, owner, project)
    return owner["id"], None if within is None else within["id"]


async def list_jobs(
    pool: Pool, *, team: str | None, project: str | None, wanted: Wanted, limit: int
) -> Sequence[Record]:
    """
    Rows of `team_id`, `team` (slug), `project` (name) and `job`, newest first; `team` None is every team.

    Raises NotFound, InvalidInput for a project without its team.
    """
    team_id, project_id = await _place(pool, team, project)
    return await job_views.list_everywhere(pool, team_id, project_id, wanted, limit)


async def reach_of(pool: Pool, job_id: str) -> Reach:
    """The administrator's reach to the team that has this job. Raises NotFound."""
    team_id = await job_views.team_of_job(pool, job_id)
    if team_id is None:
        raise NotFound(f"there is no job {job_id}: `commonplace jobs list` shows them")
    return Reach(team_id=team_id, actor=_ACTOR)


async def retry_all(pool: Pool, *, team: str | None, project: str | None, wanted: Wanted) -> Mapping[str, int]:
    """
    Put the jobs that `wanted` means back into the queue, MAX_RETRIES in a transaction: `{"retried", "remaining"}`.

    As many of each team as are there at the first look, which sees 10,000: what fails again meanwhile is not
    chased. Raises NotFound, InvalidInput for a project without its team.
    """
    team_id, project_id = await _place(pool, team, project)
    teams = [team_id] if team_id is not None else [row["id"] for row in await tenants.list_teams(pool)]
    asked: Wanted = {**wanted, "project": None if project_id is None else str(project_id)}
    retried = remaining = 0
    for one in teams:
        reach = Reach(team_id=TeamId(str(one)), actor=_ACTOR)
        done = await job_views.retry_jobs(pool, reach, wanted=asked, limit=MAX_RETRIES) or _NOTHING
        left = done["remaining"]
        retried += done["retried"]
        while left > 0 and done["retried"] > 0:
            done = await job_views.retry_jobs(pool, reach, wanted=asked, limit=min(left, MAX_RETRIES)) or _NOTHING
            left -= done["retried"]
            retried += done["retried"]
        remaining += done["remaining"]
    return {"retried": retried, "remaining": remaining}
