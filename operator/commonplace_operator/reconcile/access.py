"""From an object to the database of its runtime, or to the reason why there is no way."""

import base64
from dataclasses import dataclass

from commonplace_operator import errors
from commonplace_operator.children.installation import operator_key
from commonplace_operator.planning.hints import did_you_mean
from commonplace_operator.planning.team import is_permitted
from commonplace_operator.reconcile.context import Context
from commonplace_operator.resources import names
from commonplace_operator.resources.conditions import find
from commonplace_operator.resources.objects import MemoryRuntime, MemoryTeam
from commonplace_operator.resources.reasons import ConditionType, Reason


@dataclass(frozen=True, kw_only=True)
class NotReady:
    """Why an object cannot be served now, and what to do about it."""

    reason: Reason
    message: str


async def find_runtime(context: Context, team: MemoryTeam) -> MemoryRuntime | None:
    """The MemoryRuntime of a team, if it exists."""
    try:
        body = await context.cluster.get(names.RUNTIME, team.runtime_namespace, team.spec.runtime_ref.name)
    except errors.NotFound:
        return None
    return MemoryRuntime.parse(body)


async def accepting_runtime(context: Context, team: MemoryTeam) -> MemoryRuntime | NotReady:
    """The team's runtime, provided that it exists, lets the team in and is ready."""
    runtime = await find_runtime(context, team)
    name, namespace = team.spec.runtime_ref.name, team.runtime_namespace
    if runtime is None:
        # Names of another namespace are not this author's to see.
        known = await _runtime_names(context, namespace) if namespace == team.namespace else []
        return NotReady(
            reason=Reason.RUNTIME_NOT_FOUND,
            message=f"MemoryRuntime {namespace}/{name} does not exist{did_you_mean(name, known)}",
        )
    if team.namespace != runtime.namespace and not await _lets_in(context, team, runtime):
        return NotReady(
            reason=Reason.REF_NOT_PERMITTED,
            message=f"MemoryRuntime {namespace}/{name} does not let teams of namespace {team.namespace} in: "
            "ask its owner to extend spec.allowedTeams",
        )
    recorded = find(runtime.conditions, ConditionType.READY)
    if recorded is None:
        return NotReady(
            reason=Reason.RUNTIME_NOT_READY, message=f"MemoryRuntime {namespace}/{name} was not looked at yet"
        )
    # Rows need the database alone: that pods come, go or fail is no reason to hold a team or a key back.
    current = find(runtime.conditions, ConditionType.SCHEMA_CURRENT)
    has_schema = current is not None and current.condition.status == "True"
    if not has_schema and recorded.condition.reason != Reason.DATABASE_UNAVAILABLE:
        return NotReady(
            reason=Reason.RUNTIME_NOT_READY,
            message=f"MemoryRuntime {namespace}/{name} is not ready: {recorded.condition.reason}",
        )
    return runtime


async def _runtime_names(context: Context, namespace: str) -> list[str]:
    return [body["metadata"]["name"] for body in await context.cluster.list(names.RUNTIME, namespace)]


async def _lets_in(context: Context, team: MemoryTeam, runtime: MemoryRuntime) -> bool:
    labels: dict[str, str] = {}
    if runtime.spec.allowed_teams.from_ == "Selector":
        namespace = await context.cluster.get(names.NAMESPACE, None, team.namespace)
        labels = namespace["metadata"].get("labels") or {}
    return is_permitted(team, runtime, labels)


async def database_uri(context: Context, runtime: MemoryRuntime) -> str | NotReady:
    """The operator's connection URI, from the Secret that the runtime names."""
    reference = operator_key(runtime)
    if reference is None:
        return NotReady(
            reason=Reason.SECRET_NOT_FOUND,
            message="set spec.database.operatorSecretRef to a Secret with the operator's connection URI in its key uri",
        )
    key = reference.key
    try:
        body = await context.cluster.get(names.SECRET, runtime.namespace, reference.name)
    except errors.NotFound:
        return NotReady(
            reason=Reason.SECRET_NOT_FOUND, message=f"Secret {runtime.namespace}/{reference.name} does not exist"
        )
    encoded = (body.get("data") or {}).get(key)
    uri = base64.b64decode(encoded).decode("utf-8", "replace").strip() if encoded else ""
    if not uri:
        return NotReady(
            reason=Reason.SECRET_NOT_FOUND,
            message=f"Secret {runtime.namespace}/{reference.name} has no key {key}",
        )
    context.databases.meet((runtime.namespace, runtime.name), uri)
    return uri


async def uri_for_release(context: Context, team: MemoryTeam) -> str | NotReady | None:
    """
    The database to release rows in. None when the runtime is gone and its database is not known:
    a finalizer does not outlive its parent.
    """
    runtime = await find_runtime(context, team)
    last_known = context.databases.of((team.runtime_namespace, team.spec.runtime_ref.name))
    if runtime is None:
        return last_known
    found = await database_uri(context, runtime)
    return last_known if isinstance(found, NotReady) and last_known else found
