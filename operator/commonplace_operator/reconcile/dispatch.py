"""The one door of every reconcile: read the object, hand it to its kind, turn errors into status and backoff."""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from commonplace_operator import errors
from commonplace_operator.engine.queue import Result
from commonplace_operator.planning.status import AnyObject, database_away_status, kept_fields, not_ready, status_of
from commonplace_operator.reconcile.apikey import api_key_gone, reconcile_api_key, release_api_key
from commonplace_operator.reconcile.context import Context, Key, is_abandoned, serves, write_status
from commonplace_operator.reconcile.deletion import abandon, block_deletion
from commonplace_operator.reconcile.quota import quota_gone, reconcile_quota, release_quota
from commonplace_operator.reconcile.runtime import reconcile_runtime, runtime_gone
from commonplace_operator.reconcile.team import reconcile_team, release_team, team_gone
from commonplace_operator.resources import names
from commonplace_operator.resources.objects import ApiKey, MemoryRuntime, MemoryTeam, Quota, Unread
from commonplace_operator.resources.reasons import Reason

_log = structlog.get_logger("commonplace_operator.reconcile")


async def _nothing_to_release(_: Context, __: MemoryRuntime) -> Result:
    return Result()


@dataclass(frozen=True, kw_only=True)
class _Verbs:
    parse: Callable[[Mapping[str, Any]], Any]
    reconcile: Callable[[Context, Any], Awaitable[Result]]
    release: Callable[[Context, Any], Awaitable[Result]]
    gone: Callable[[Context, Key], Awaitable[None]]


_KINDS: Final[Mapping[str, _Verbs]] = {
    names.RUNTIME.kind: _Verbs(
        parse=MemoryRuntime.parse, reconcile=reconcile_runtime, release=_nothing_to_release, gone=runtime_gone
    ),
    names.TEAM.kind: _Verbs(parse=MemoryTeam.parse, reconcile=reconcile_team, release=release_team, gone=team_gone),
    names.API_KEY.kind: _Verbs(
        parse=ApiKey.parse, reconcile=reconcile_api_key, release=release_api_key, gone=api_key_gone
    ),
    names.QUOTA.kind: _Verbs(parse=Quota.parse, reconcile=reconcile_quota, release=release_quota, gone=quota_gone),
}


async def reconcile(context: Context, key: Key) -> Result:
    """
    Bring one object and its world into agreement, whatever happened to it.

    Never raises for what time or people heal: those end in a status and a retry. What it raises is ours to fix, but
    Deposed: a database says that we lead no more.
    """
    controller = key.kind.kind.lower()
    with (
        structlog.contextvars.bound_contextvars(
            kind=key.kind.kind, namespace=key.namespace, name=key.name, reconcile_id=secrets.token_hex(4)
        ),
        context.metrics.reconcile_seconds.labels(controller).time(),
    ):
        try:
            result = await _reconcile(context, key)
        except errors.Deposed:
            # Not about this object: who leads has to know.
            context.metrics.reconciles.labels(controller, "error").inc()
            raise
        except errors.OperatorError as error:
            _log.warning("reconcile_postponed", error=type(error).__name__, detail=str(error))
            context.metrics.reconciles.labels(controller, "error").inc()
            return Result(retry=True)
        except Exception:
            context.metrics.reconciles.labels(controller, "error").inc()
            raise
    outcome = "requeue" if result.retry else "requeue_after" if result.requeue_after is not None else "success"
    context.metrics.reconciles.labels(controller, outcome).inc()
    _log.debug("reconciled", key=str(key), result=outcome)
    return result


async def _reconcile(context: Context, key: Key) -> Result:
    verbs = _KINDS[key.kind.kind]
    try:
        body = await context.cluster.get(key.kind, key.namespace, key.name)
    except errors.NotFound:
        context.metrics.conditions.forget(key.kind.kind, key.namespace, key.name)
        await verbs.gone(context, key)
        return Result()
    if not serves(context, body):
        context.metrics.conditions.forget(key.kind.kind, key.namespace, key.name)
        return Result()
    try:
        wanted: AnyObject = verbs.parse(body)
    except errors.SpecError as error:
        return await _unread(context, Unread.parse(key.kind, body), error)
    with structlog.contextvars.bound_contextvars(uid=wanted.uid, generation=wanted.generation):
        try:
            if wanted.is_deleting:
                return await verbs.release(context, wanted)
            return await verbs.reconcile(context, wanted)
        except (errors.DatabaseUnavailable, errors.DatabaseRefused) as error:
            return await _without_database(context, wanted, error)
        except errors.Forbidden as error:
            return await _say(context, wanted, Reason.FORBIDDEN, f"The operator may not do this: {error}")
        except errors.SpecError as error:
            await _say(context, wanted, Reason.INVALID_SPEC, str(error))
            return Result()


async def _unread(context: Context, unread: Unread, error: errors.SpecError) -> Result:
    """A shape of a newer schema: its author or a newer operator acts."""
    if not unread.is_deleting:
        await _say(context, unread, Reason.INVALID_SPEC, str(error))
        return Result()
    if names.FINALIZER not in unread.metadata.finalizers:
        return Result()
    if is_abandoned(unread):
        return await abandon(context, unread)
    return await block_deletion(context, unread, Reason.INVALID_SPEC, str(error))


async def _without_database(
    context: Context, wanted: AnyObject, error: errors.DatabaseUnavailable | errors.DatabaseRefused
) -> Result:
    _log.warning("database_away", error=type(error).__name__, detail=str(error))
    away = isinstance(error, errors.DatabaseUnavailable)
    if wanted.is_deleting:
        reason = Reason.DATABASE_UNAVAILABLE if away else Reason.DATABASE_REFUSED
        why = "The database does not answer" if away else f"The database refuses the operator: {error}"
        return await block_deletion(context, wanted, reason, why)
    if not away:
        return await _say(context, wanted, Reason.DATABASE_REFUSED, f"The database refuses the operator: {error}")
    await write_status(context, wanted, database_away_status(wanted, now=context.clock()))
    return Result(retry=True)


async def _say(context: Context, wanted: AnyObject, reason: Reason, message: str) -> Result:
    conditions = (not_ready(reason, message),)
    status = status_of(wanted, conditions=conditions, now=context.clock(), fields=kept_fields(wanted))
    await write_status(context, wanted, status)
    return Result(retry=True)
