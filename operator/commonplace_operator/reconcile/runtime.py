"""A MemoryRuntime: for `External` its database is checked and its address published; `Managed` comes later."""

from collections.abc import Mapping
from typing import Any

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
from commonplace_operator.planning.unimplemented import unimplemented_in_runtime
from commonplace_operator.reconcile.access import NotReady, database_uri
from commonplace_operator.reconcile.context import Context, Key, key_of, write_status
from commonplace_operator.resources import names
from commonplace_operator.resources.conditions import Condition
from commonplace_operator.resources.objects import MemoryRuntime
from commonplace_operator.resources.reasons import ConditionType, Reason
from commonplace_runtime import contract


async def reconcile_runtime(context: Context, runtime: MemoryRuntime) -> Result:
    """Bring the status up to date, and the teams when something changed for them."""
    conditions, version = await _look(context, runtime)
    is_ready = conditions[0].status == "True"
    fields: dict[str, Any] = kept_fields(runtime) | {
        "endpoint": (runtime.spec.public_url or "").rstrip("/") or None,
        "schemaVersion": version,
        "teams": await _count_teams(context, runtime),
    }
    conditions += not_implemented(unimplemented_in_runtime(runtime))
    status = status_of(runtime, conditions=conditions, now=context.clock(), fields=fields)
    before = runtime.is_ready(), runtime.raw_status.get("endpoint")
    await write_status(context, runtime, status)
    if before != (is_ready, fields["endpoint"]) or _was_edited(runtime):
        await context.enqueue_dependents((names.TEAM,), "spec.runtimeRef.name", runtime.name, None)
    if conditions[0].reason == Reason.NOT_IMPLEMENTED_YET:
        return Result()
    return Result(requeue_after=context.resync_seconds()) if is_ready else Result(retry=True)


def _was_edited(runtime: MemoryRuntime) -> bool:
    # A changed allowedTeams does not show in any condition of the runtime itself.
    return runtime.raw_status.get("observedGeneration") != runtime.generation


async def runtime_gone(context: Context, key: Key) -> None:
    """Its teams say so; its database is needed until the last of them that has rows is gone."""
    bodies = await context.list_naming(names.TEAM, "spec.runtimeRef.name", key.name, None)
    for body in bodies:
        context.enqueue(key_of(names.TEAM, body))
    if not any(_is_of(body, key.namespace) and names.FINALIZER in _finalizers(body) for body in bodies):
        await context.databases.forget((key.namespace, key.name))


def _finalizers(body: Mapping[str, Any]) -> list[str]:
    found: list[str] = body["metadata"].get("finalizers") or []
    return found


def _is_of(body: Mapping[str, Any], namespace: str) -> bool:
    # Read without parsing: a team that this version cannot read must not keep its runtime from being counted.
    reference = (body.get("spec") or {}).get("runtimeRef") or {}
    named: str = reference.get("namespace") or body["metadata"]["namespace"]
    return named == namespace


async def _look(context: Context, runtime: MemoryRuntime) -> tuple[tuple[Condition, ...], int | None]:
    """Conditions, and the schema's version where it could be read."""
    if runtime.spec.management == "Managed":
        message = "management: Managed is not there yet: run api and worker yourself and set management: External"
        return (not_ready(Reason.NOT_IMPLEMENTED_YET, message),), None
    uri = await database_uri(context, runtime)
    if isinstance(uri, NotReady):
        return (not_ready(uri.reason, uri.message),), None
    async with context.registries.of(uri) as registry:
        version = await registry.schema_version()
    reachable = positive(ConditionType.DATABASE_REACHABLE, Reason.REACHABLE)
    return (_ready(version), reachable, _current(version)), version


def _ready(version: int) -> Condition:
    if version >= contract.SCHEMA_VERSION:
        return ready(Reason.AVAILABLE)
    return not_ready(Reason.MIGRATION_PENDING, _current(version).message)


def _current(version: int) -> Condition:
    # A newer schema will do: migrations leave the previous version working.
    if version >= contract.SCHEMA_VERSION:
        return positive(ConditionType.SCHEMA_CURRENT, Reason.SCHEMA_CURRENT, f"Schema version {version}")
    message = (
        f"The database has schema version {version}, this operator needs {contract.SCHEMA_VERSION}: run "
        f"`commonplace migrate` with {contract.ENV_ADMIN_DATABASE_URL} set to the owner's URI"
    )
    return negative(ConditionType.SCHEMA_CURRENT, Reason.MIGRATION_PENDING, message)


async def _count_teams(context: Context, runtime: MemoryRuntime) -> int:
    bodies = await context.list_naming(names.TEAM, "spec.runtimeRef.name", runtime.name, None)
    return sum(_is_of(body, runtime.namespace) for body in bodies)
