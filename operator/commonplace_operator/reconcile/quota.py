"""A Quota: the limits' row, and what usage says about it."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from commonplace_operator.engine.queue import Result
from commonplace_operator.planning.quota import effective_limits, over_limit, over_soft_limit, wanted_limits
from commonplace_operator.planning.status import kept_fields, negative, not_ready, positive, ready, status_of
from commonplace_operator.reconcile.access import NotReady
from commonplace_operator.reconcile.context import (
    Context,
    Key,
    ensure_finalizer,
    is_abandoned,
    release_finalizer,
    write_status,
)
from commonplace_operator.reconcile.deletion import abandon, block_deletion
from commonplace_operator.reconcile.team_access import provisioned_team, team_uri_for_release
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
        conditions = (not_ready(access.reason, access.message),)
        status = status_of(quota, conditions=conditions, now=context.clock(), fields=kept_fields(quota))
        if await write_status(context, quota, status):
            note = f"{access.reason}: {access.message}"
            context.tell(quota, "Warning", EventReason.NOT_READY, note, action="Reconcile")
        return Result(retry=True)
    await ensure_finalizer(context, quota)
    async with context.registries.of(access.uri) as registry:
        stored = await registry.put_quota(
            context.writer(quota),
            quota_id=context.new_id(),
            team_id=access.team_id,
            name=f"{quota.namespace}/{quota.name}",
            limits=limits,
            enforcement=quota.spec.enforcement,
        )
    status = status_of(
        quota, conditions=_conditions(quota, limits, stored.used), now=context.clock(), fields=_fields(quota, stored)
    )
    await write_status(context, quota, status)
    return Result(requeue_after=context.timings.quota_refresh_seconds)


def _conditions(
    quota: Quota, limits: Mapping[str, int | str], used: Mapping[str, Decimal]
) -> tuple[Condition, Condition]:
    enforced = quota.spec.enforcement == "Enforce"
    first = ready(Reason.ENFORCED if enforced else Reason.WARN_ONLY)
    if over := over_limit(limits, used):
        return first, positive(ConditionType.EXCEEDED, Reason.OVER_LIMIT, "Used up: " + ", ".join(over))
    if near := over_soft_limit(limits, used):
        message = "Over the soft limit: " + ", ".join(near)
        return first, positive(ConditionType.EXCEEDED, Reason.NEAR_LIMIT, message)
    return first, negative(ConditionType.EXCEEDED, Reason.WITHIN_LIMITS, "")


def _fields(quota: Quota, stored: StoredQuota) -> dict[str, Any]:
    """Usage with its time; the recorded time stays while the figures do, so that an idle team costs no write."""
    used = {name: format(value.normalize(), "f") for name, value in sorted(stored.used.items())}
    effective = effective_limits(stored.effective)
    recorded = quota.raw_status
    same = recorded.get("used") == used and recorded.get("effective") == effective
    measured = recorded.get("measuredAt") if same else None
    return {"used": used, "effective": effective, "measuredAt": measured or format_time(stored.measured_at)}


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
    await release_finalizer(context, quota)
    return Result()


async def quota_gone(context: Context, key: Key) -> None:
    """Nothing is left to do."""
