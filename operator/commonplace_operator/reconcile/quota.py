"""A Quota: the limits' row, and what usage says about it."""

from collections.abc import Mapping
from decimal import Decimal

from commonplace_operator import errors
from commonplace_operator.engine.queue import Result
from commonplace_operator.planning.quota import (
    effective_limits,
    is_news,
    over_limit,
    over_soft_limit,
    shown_use,
    use_message,
    wanted_limits,
)
from commonplace_operator.planning.status import (
    kept_fields,
    negative,
    not_implemented,
    not_ready,
    positive,
    ready,
    status_of,
)
from commonplace_operator.planning.unimplemented import enforces_anything, unimplemented_in_quota
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
from commonplace_operator.resources import names
from commonplace_operator.resources.conditions import Condition
from commonplace_operator.resources.objects import Quota
from commonplace_operator.resources.reasons import ConditionType, EventReason, Reason
from commonplace_operator.resources.rows import StoredQuota
from commonplace_operator.resources.times import format_time


async def reconcile_quota(context: Context, quota: Quota) -> Result:
    """Make the limits' row agree with the object and report usage."""
    limits = wanted_limits(quota)
    access = await provisioned_team(context, quota)
    if isinstance(access, NotReady):
        return await _not_ready(context, quota, access)
    await ensure_finalizer(context, quota)
    try:
        stored = await _put(context, quota, access, limits)
    except errors.RowNotFound as error:
        return await _not_ready(context, quota, NotReady(reason=Reason.TEAM_NOT_READY, message=str(error)))
    conditions = (*_conditions(quota, limits, stored.used), *not_implemented(unimplemented_in_quota(quota)))
    fields = {
        "used": shown_use(stored.used),
        "effective": effective_limits(stored.effective),
        "measuredAt": format_time(stored.measured_at),
    }
    status = status_of(quota, conditions=conditions, now=context.clock(), fields=fields)
    if is_news(quota.raw_status, status):
        await write_status(context, quota, status)
    return Result(requeue_after=context.timings.quota_refresh_seconds)


async def _put(context: Context, quota: Quota, access: TeamAccess, limits: Mapping[str, int | str]) -> StoredQuota:
    async with context.registries.of(access.uri) as registry:
        return await registry.put_quota(
            context.writer(quota),
            quota_id=context.new_id(),
            team_id=access.team_id,
            name=f"{quota.namespace}/{quota.name}",
            limits=limits,
            enforcement=quota.spec.enforcement,
        )


async def _not_ready(context: Context, quota: Quota, why: NotReady) -> Result:
    conditions = (not_ready(why.reason, why.message),)
    status = status_of(quota, conditions=conditions, now=context.clock(), fields=kept_fields(quota))
    if await write_status(context, quota, status):
        context.tell(quota, "Warning", EventReason.NOT_READY, f"{why.reason}: {why.message}", action="Reconcile")
    return Result(retry=True)


def _conditions(
    quota: Quota, limits: Mapping[str, int | str], used: Mapping[str, Decimal]
) -> tuple[Condition, Condition]:
    is_enforced = quota.spec.enforcement == "Enforce"
    first = ready(Reason.ENFORCED if is_enforced and enforces_anything(quota) else Reason.WARN_ONLY)
    over, near = over_limit(limits, used), over_soft_limit(limits, used)
    message = use_message(over, near, is_enforced=is_enforced)
    if over:
        return first, positive(ConditionType.EXCEEDED, Reason.OVER_LIMIT, message)
    if near:
        return first, positive(ConditionType.EXCEEDED, Reason.NEAR_LIMIT, message)
    return first, negative(ConditionType.EXCEEDED, Reason.WITHIN_LIMITS, message)


async def release_quota(context: Context, quota: Quota) -> Result:
    """The object is being deleted: drop its limits, then let it go."""
    if names.FINALIZER not in quota.metadata.finalizers:
        return Result()
    if is_abandoned(quota):
        return await abandon(context, quota)
    uri = await team_uri_for_release(context, quota)
    if isinstance(uri, NotReady):
        return await block_deletion(context, quota, uri.reason, uri.message)
    if uri is not None:
        async with context.registries.of(uri) as registry:
            await registry.release_quota(context.writer(quota))
    elif quota.raw_status.get("effective"):
        tell_rows_left(context, quota, quota.spec.team_ref.name)
    await release_finalizer(context, quota)
    return Result()


async def quota_gone(context: Context, key: Key) -> None:
    """Nothing is left to do."""
