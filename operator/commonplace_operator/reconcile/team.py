"""A MemoryTeam: rows of team, projects, members and policies."""

from collections.abc import Mapping
from typing import Any

from commonplace_operator import errors
from commonplace_operator.children.installation import endpoint_of
from commonplace_operator.engine.queue import Result
from commonplace_operator.planning.status import (
    kept_fields,
    negative,
    not_implemented,
    not_ready,
    positive,
    ready,
    status_of,
)
from commonplace_operator.planning.team import ids_needed, may_adopt, slug_fault, team_row, wanted_slug
from commonplace_operator.planning.unimplemented import unimplemented_in_team
from commonplace_operator.reconcile.access import NotReady, accepting_runtime, database_uri, uri_for_release
from commonplace_operator.reconcile.context import (
    Context,
    Key,
    ensure_finalizer,
    is_abandoned,
    release_finalizer,
    write_status,
)
from commonplace_operator.reconcile.deletion import abandon, block_deletion
from commonplace_operator.registry import Registry
from commonplace_operator.resources import names
from commonplace_operator.resources.conditions import Condition
from commonplace_operator.resources.objects import MemoryRuntime, MemoryTeam
from commonplace_operator.resources.reasons import ConditionType, EventReason, Reason
from commonplace_operator.resources.rows import StoredTeam, TeamRow

_DEPENDENTS = (names.API_KEY, names.QUOTA)


async def reconcile_team(context: Context, team: MemoryTeam) -> Result:
    """Make the rows agree with the object."""
    runtime = await accepting_runtime(context, team)
    if isinstance(runtime, NotReady):
        return await _not_ready(context, team, runtime)
    uri = await database_uri(context, runtime)
    if isinstance(uri, NotReady):
        return await _not_ready(context, team, uri)
    if fault := slug_fault(team, runtime):
        return await _not_ready(context, team, NotReady(reason=Reason.INVALID_SPEC, message=fault))
    row = team_row(
        team, new_ids=tuple(context.new_id() for _ in range(ids_needed(team))), adopt=may_adopt(team, runtime)
    )
    await context.databases.keep((runtime.namespace, runtime.name))
    await ensure_finalizer(context, team)
    try:
        async with context.registries.of(uri) as registry:
            stored = await _put(context, registry, team, row)
    except errors.SlugTaken as error:
        return await _not_ready(context, team, _slug_conflict(team, error))
    await _report(context, team, runtime, stored)
    if stored.outcome in {"created", "adopted"}:
        note = f"Team {stored.slug} was {stored.outcome} with id {stored.id}"
        context.tell(team, "Normal", EventReason.PROVISIONED, note, action="Provision")
        _count_again(context, team)
    if stored.outcome == "adopted":
        # Every key of the former owner was revoked and every limit dropped, maybe those of living objects too.
        await context.enqueue_dependents(_DEPENDENTS, "spec.teamRef.name", team.name, team.namespace)
    return Result(requeue_after=context.resync_seconds())


async def _put(context: Context, registry: Registry, team: MemoryTeam, row: TeamRow) -> StoredTeam:
    """A row whose owner is gone, as after a restored cluster, may be adopted; one of a living MemoryTeam never."""
    try:
        return await registry.put_team(context.writer(team), row)
    except errors.SlugTaken as error:
        if error.holder is None:
            raise
        uid, namespace = error.holder
        if any(body["metadata"]["uid"] == uid for body in await context.cluster.list(names.TEAM, namespace)):
            raise
        return await registry.put_team(context.writer(team), row, gone_owner=uid)


def _count_again(context: Context, team: MemoryTeam) -> None:
    """The runtime shows how many teams it has, and keeps its database's address until the last one is released."""
    context.enqueue(Key(kind=names.RUNTIME, namespace=team.runtime_namespace, name=team.spec.runtime_ref.name))


def _slug_conflict(team: MemoryTeam, error: errors.SlugTaken) -> NotReady:
    if error.holder is not None:
        cure = "the MemoryTeam that has it is still there: delete that one first, or choose another spec.slug"
        return NotReady(reason=Reason.SLUG_CONFLICT, message=f"The slug {wanted_slug(team)} is in use: {cure}")
    return NotReady(
        reason=Reason.SLUG_CONFLICT,
        message=f"The slug {wanted_slug(team)} belongs to another team of this runtime ({error}): create the team anew "
        "with another spec.slug, or, if it is this team's own earlier data, annotate it "
        f"{names.ANNOTATION_ADOPT}=true",
    )


async def _report(context: Context, team: MemoryTeam, runtime: MemoryRuntime, stored: StoredTeam) -> None:
    fields: dict[str, Any] = {
        "teamId": stored.id,
        "slug": stored.slug,
        "endpoint": endpoint_of(runtime) or None,
        "projects": [{"name": name, "id": id_} for name, id_ in sorted(stored.projects.items())],
        "keys": len(await context.list_naming(names.API_KEY, "spec.teamRef.name", team.name, team.namespace)),
    }
    conditions = (
        ready(Reason.PROVISIONED),
        positive(ConditionType.RUNTIME_ACCEPTED, Reason.ACCEPTED),
        positive(ConditionType.PROVISIONED, Reason.PROVISIONED),
        *not_implemented(unimplemented_in_team(team)),
    )
    await _write(context, team, conditions, fields)


async def _not_ready(context: Context, team: MemoryTeam, why: NotReady) -> Result:
    conditions: list[Condition] = [not_ready(why.reason, why.message)]
    if why.reason in {Reason.RUNTIME_NOT_FOUND, Reason.REF_NOT_PERMITTED}:
        conditions.append(negative(ConditionType.RUNTIME_ACCEPTED, why.reason, why.message))
    conditions += not_implemented(unimplemented_in_team(team))
    if await _write(context, team, conditions, kept_fields(team)):
        context.tell(team, "Warning", EventReason.NOT_READY, f"{why.reason}: {why.message}", action="Provision")
    return Result(retry=True)


async def _write(
    context: Context, team: MemoryTeam, conditions: tuple[Condition, ...] | list[Condition], fields: dict[str, Any]
) -> bool:
    status = status_of(team, conditions=conditions, now=context.clock(), fields=fields)
    if not await write_status(context, team, status):
        return False
    is_ready = status["conditions"][0]["status"] == "True"
    if is_ready != team.is_ready() or _seen_by_dependents(status) != _seen_by_dependents(team.raw_status):
        await context.enqueue_dependents(_DEPENDENTS, "spec.teamRef.name", team.name, team.namespace)
    return True


def _seen_by_dependents(status: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(status.get(field) for field in ("teamId", "endpoint", "projects"))


async def release_team(context: Context, team: MemoryTeam) -> Result:
    """The object is being deleted: revoke every key, keep or delete the data, let the object go."""
    if names.FINALIZER not in team.metadata.finalizers:
        return Result()
    if is_abandoned(team):
        result = await abandon(context, team)
        _count_again(context, team)
        return result
    uri = await uri_for_release(context, team)
    if isinstance(uri, NotReady):
        return await block_deletion(context, team, uri.reason, uri.message)
    if uri is None:
        note = f"MemoryRuntime {team.runtime_namespace}/{team.spec.runtime_ref.name} is gone: the team's rows stay"
        context.tell(team, "Warning", EventReason.ROWS_LEFT, note, action="Release")
    else:
        delete = team.spec.deletion_policy == "Delete"
        async with context.registries.of(uri) as registry:
            outcome, revoked = await registry.release_team(context.writer(team), delete_data=delete)
        if outcome != "absent":
            note = f"{revoked} keys revoked; data {'deleted' if delete else 'kept'}"
            context.tell(team, "Normal", EventReason.RELEASED, note, action="Release")
    await release_finalizer(context, team)
    _count_again(context, team)
    return Result()


async def team_gone(context: Context, key: Key) -> None:
    """Its keys and quotas say so."""
    await context.enqueue_dependents(_DEPENDENTS, "spec.teamRef.name", key.name, key.namespace)
