"""From an ApiKey or Quota to its team's rows, or to the reason why there is no way."""

from dataclasses import dataclass, field

from commonplace_operator import errors
from commonplace_operator.children.installation import endpoint_of
from commonplace_operator.planning.hints import did_you_mean
from commonplace_operator.reconcile.access import NotReady, accepting_runtime, database_uri, uri_for_release
from commonplace_operator.reconcile.context import Context
from commonplace_operator.resources import names
from commonplace_operator.resources.objects import ApiKey, MemoryTeam, Quota
from commonplace_operator.resources.reasons import Reason


@dataclass(frozen=True, kw_only=True)
class TeamAccess:
    """A provisioned team and where its rows are."""

    team: MemoryTeam
    team_id: str
    endpoint: str
    uri: str = field(repr=False)


async def find_team(context: Context, wanted: ApiKey | Quota) -> MemoryTeam | None:
    """The MemoryTeam that the object names, if it exists."""
    try:
        body = await context.cluster.get(names.TEAM, wanted.namespace, wanted.spec.team_ref.name)
    except errors.NotFound:
        return None
    return MemoryTeam.parse(body)


async def provisioned_team(context: Context, wanted: ApiKey | Quota) -> TeamAccess | NotReady:
    """The team's rows, provided that the team exists, stays, and has rows."""
    name = wanted.spec.team_ref.name
    team = await find_team(context, wanted)
    if team is None:
        known = [b["metadata"]["name"] for b in await context.cluster.list(names.TEAM, wanted.namespace)]
        return NotReady(
            reason=Reason.TEAM_NOT_FOUND,
            message=f"MemoryTeam {wanted.namespace}/{name} does not exist{did_you_mean(name, known)}",
        )
    if team.is_deleting:
        return NotReady(reason=Reason.TEAM_NOT_FOUND, message=f"MemoryTeam {wanted.namespace}/{name} is being deleted")
    runtime = await accepting_runtime(context, team)
    if isinstance(runtime, NotReady):
        return NotReady(reason=Reason.TEAM_NOT_READY, message=f"MemoryTeam {name}: {runtime.message}")
    uri = await database_uri(context, runtime)
    if isinstance(uri, NotReady):
        return NotReady(reason=Reason.TEAM_NOT_READY, message=f"MemoryTeam {name}: {uri.message}")
    team_id = team.status.team_id
    if team_id is None:
        return NotReady(reason=Reason.TEAM_NOT_READY, message=f"MemoryTeam {wanted.namespace}/{name} is not ready yet")
    return TeamAccess(team=team, team_id=team_id, endpoint=endpoint_of(runtime), uri=uri)


async def team_uri_for_release(context: Context, wanted: ApiKey | Quota) -> str | NotReady | None:
    """Where to release the object's rows; None when team or runtime are gone, for the team took its keys along."""
    team = await find_team(context, wanted)
    return None if team is None else await uri_for_release(context, team)
