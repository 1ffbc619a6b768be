"""An ApiKey: observe rows and Secret, plan purely, carry out in order, report."""

from dataclasses import dataclass
from typing import Final, assert_never

from commonplace_operator import errors
from commonplace_operator.children.secret import SecretFacts, key_secret
from commonplace_operator.engine.queue import Result
from commonplace_operator.planning.apikey import (
    Amend,
    DeleteSecret,
    KeyPlan,
    KeyWorld,
    Minted,
    Publish,
    PutRow,
    Revoke,
    Step,
    WriteSecret,
    plan_api_key,
)
from commonplace_operator.planning.hints import did_you_mean
from commonplace_operator.planning.keystatus import key_conditions, key_fields, next_look
from commonplace_operator.planning.status import kept_fields, not_ready, status_of
from commonplace_operator.reconcile.access import NotReady
from commonplace_operator.reconcile.context import (
    Context,
    Key,
    ensure_finalizer,
    is_abandoned,
    release_finalizer,
    write_status,
)
from commonplace_operator.reconcile.deletion import abandon, block_deletion, tell_rows_left
from commonplace_operator.reconcile.team_access import TeamAccess, provisioned_team, team_uri_for_release
from commonplace_operator.registry import Registry
from commonplace_operator.resources import names
from commonplace_operator.resources.objects import ApiKey
from commonplace_operator.resources.reasons import EventReason, Reason
from commonplace_runtime import contract

COUNT_DELAY_SECONDS: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class _Pass:
    """One reconcile of one key."""

    context: Context
    key: ApiKey
    access: TeamAccess
    registry: Registry


async def reconcile_api_key(context: Context, key: ApiKey) -> Result:
    """Make rows and Secret agree with the object."""
    access = await provisioned_team(context, key)
    if isinstance(access, NotReady):
        return await _not_ready(context, key, access)
    if not key.spec.revoked and (missing := _missing_project(key, access)):
        return await _not_ready(context, key, missing)
    await ensure_finalizer(context, key)
    async with context.registries.of(access.uri) as registry:
        return await _issue(_Pass(context=context, key=key, access=access, registry=registry))


def _missing_project(key: ApiKey, access: TeamAccess) -> NotReady | None:
    name = key.spec.project
    known = {project.name for project in access.team.status.projects}
    if name is None or name in known or name == contract.DEFAULT_PROJECT:
        return None
    return NotReady(
        reason=Reason.PROJECT_NOT_FOUND,
        message=f"MemoryTeam {key.namespace}/{access.team.name} has no project {name}{did_you_mean(name, known)}",
    )


async def _issue(this: _Pass) -> Result:
    context, key = this.context, this.key
    writer = context.writer(key)
    world = await _observe(this)
    plan = plan_api_key(key, world, Minted(token=context.mint(), row_id=context.new_id()))
    try:
        for step in plan.steps:
            await _carry_out(this, step)
    except errors.LimitReached as error:
        limit = NotReady(reason=Reason.QUOTA_EXCEEDED, message=f"{error}: raise a Quota's hard.apiKeys or delete a key")
        return await _not_ready(context, key, limit)
    except errors.RowNotFound as error:
        return await _not_ready(context, key, NotReady(reason=Reason.TEAM_NOT_READY, message=str(error)))
    keys = await this.registry.observe_key(writer) if plan.steps else world.keys
    status = status_of(
        key,
        conditions=key_conditions(key, plan),
        now=context.clock(),
        fields=key_fields(key, keys, team_id=this.access.team_id),
    )
    await write_status(context, key, status)
    _tell(this, plan, keys_revision=status.get("revision"))
    if plan.outcome == "issued":
        _count_again(context, key)
    if plan.outcome == "conflict":
        return Result(retry=True)
    due = next_look(key, keys)
    resync = context.resync_seconds()
    return Result(requeue_after=resync if due is None else min(resync, due))


def _count_again(context: Context, key: ApiKey) -> None:
    """The team shows how many keys it has; a burst of them is counted once."""
    team = Key(kind=names.TEAM, namespace=key.namespace, name=key.spec.team_ref.name)
    context.enqueue_after(team, COUNT_DELAY_SECONDS)


async def _observe(this: _Pass) -> KeyWorld:
    key = this.key
    recorded = key.raw_status.get("secretName")
    stale = None
    if recorded and recorded != key.secret_name:
        facts = await _read_secret(this, recorded)
        if facts is not None and facts.belongs_to(key):
            stale = (recorded, facts)
    return KeyWorld(
        secret=await _read_secret(this, key.secret_name),
        keys=await this.registry.observe_key(this.context.writer(key)),
        team_uid=this.access.team.uid,
        endpoint=this.access.endpoint,
        mac_key=this.context.mac_key,
        stale_secret=stale,
    )


async def _read_secret(this: _Pass, name: str) -> SecretFacts | None:
    try:
        return SecretFacts.parse(await this.context.cluster.get(names.SECRET, this.key.namespace, name))
    except errors.NotFound:
        return None


async def _carry_out(this: _Pass, step: Step) -> None:
    writer = this.context.writer(this.key)
    match step:
        case Amend(grant=grant):
            await this.registry.amend_key(writer, grant)
        case PutRow(key=row):
            await this.registry.put_key(writer, this.access.team_id, row)
        case WriteSecret():
            await _write_secret(this, step)
        case Publish(revision=revision, grace_seconds=grace_seconds):
            published = await this.registry.publish_key(writer, revision, grace_seconds)
            for early in published.revoked_early:
                note = f"Revision {early} was revoked before its grace ended: at most two keys work at once"
                this.context.tell(this.key, "Warning", EventReason.GRACE_CUT_SHORT, note, action="Rotate")
        case Revoke():
            await this.registry.revoke_keys(writer)
        case DeleteSecret(name=name, uid=uid):
            await _delete_secret(this, name, uid)
        case _:
            assert_never(step)


async def _write_secret(this: _Pass, step: WriteSecret) -> None:
    cluster = this.context.cluster
    manifest = key_secret(
        this.key,
        step.token,
        endpoint=this.access.endpoint,
        team_uid=this.access.team.uid,
        revision=step.revision,
        mac_key=this.context.mac_key,
    )
    if step.live is None:
        # By create: 409 means that somebody else's Secret came between; the next pass sees it.
        await cluster.create(names.SECRET, manifest)
        this.context.metrics.writes.labels(names.SECRET.kind, "create").inc()
        return
    manifest["metadata"]["uid"] = step.live.uid
    manifest["metadata"]["resourceVersion"] = step.live.resource_version
    if step.live.takeover:
        taken = await cluster.patch(names.SECRET, this.key.namespace, this.key.secret_name, step.live.takeover)
        manifest["metadata"]["resourceVersion"] = taken["metadata"]["resourceVersion"]
    await cluster.apply(names.SECRET, manifest)
    this.context.metrics.writes.labels(names.SECRET.kind, "apply").inc()


async def _delete_secret(this: _Pass, name: str, uid: str) -> None:
    try:
        await this.context.cluster.delete(names.SECRET, this.key.namespace, name, uid=uid)
    except errors.NotFound:
        return
    this.context.metrics.writes.labels(names.SECRET.kind, "delete").inc()


def _tell(this: _Pass, plan: KeyPlan, *, keys_revision: object) -> None:
    if not plan.steps and plan.outcome != "conflict":
        return
    told = {
        "issued": (EventReason.ISSUED, f"Revision {keys_revision} is in Secret {this.key.secret_name}"),
        "rotated": (EventReason.ROTATED, f"Revision {keys_revision} is in Secret {this.key.secret_name}"),
        "readopted": (EventReason.READOPTED, "The database had lost this key; the token in the Secret works again"),
        "repaired": (EventReason.SECRET_REPAIRED, f"Secret {this.key.secret_name} was written anew, same token"),
        "revoked": (EventReason.REVOKED, "Every token of this key is refused"),
        "expired": (EventReason.EXPIRED, "Every token of this key is refused"),
        "conflict": (EventReason.SECRET_CONFLICT, f"Secret {this.key.secret_name} belongs to somebody else"),
    }.get(plan.outcome)
    if told is not None:
        reason, note = told
        this.context.tell(
            this.key, "Warning" if plan.outcome == "conflict" else "Normal", reason, note, action="Reconcile"
        )


async def _not_ready(context: Context, key: ApiKey, why: NotReady) -> Result:
    conditions = (not_ready(why.reason, why.message),)
    status = status_of(key, conditions=conditions, now=context.clock(), fields=kept_fields(key))
    if await write_status(context, key, status):
        context.tell(key, "Warning", EventReason.NOT_READY, f"{why.reason}: {why.message}", action="Reconcile")
    return Result(retry=True)


async def release_api_key(context: Context, key: ApiKey) -> Result:
    """The object is being deleted: refuse its tokens first, then let it go; its Secret goes by owner reference."""
    if names.FINALIZER not in key.metadata.finalizers:
        return Result()
    if is_abandoned(key):
        return await abandon(context, key)
    uri = await team_uri_for_release(context, key)
    if isinstance(uri, NotReady):
        return await block_deletion(context, key, uri.reason, uri.message)
    if uri is not None:
        async with context.registries.of(uri) as registry:
            revoked = await registry.revoke_keys(context.writer(key))
        context.tell(key, "Normal", EventReason.RELEASED, f"{revoked} rows were revoked", action="Release")
    elif key.raw_status.get("keyId"):
        tell_rows_left(context, key, key.spec.team_ref.name)
    await release_finalizer(context, key)
    _count_again(context, key)
    return Result()


async def api_key_gone(context: Context, key: Key) -> None:
    """Nothing is left to do: its rows were revoked before it could go."""
