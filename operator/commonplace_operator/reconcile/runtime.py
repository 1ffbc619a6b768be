"""A MemoryRuntime: for `Managed` its pods are run; for both its database is checked and its address published."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from commonplace_operator import errors
from commonplace_operator.children.installation import POSTGRES, endpoint_of
from commonplace_operator.engine.queue import Result
from commonplace_operator.planning.scalingstatus import scaling_conditions, scaling_fields
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
from commonplace_operator.reconcile.managed import Managed, repeat_migration, run_installation
from commonplace_operator.resources import names
from commonplace_operator.resources.conditions import Condition, find
from commonplace_operator.resources.objects import MemoryRuntime
from commonplace_operator.resources.reasons import ConditionType, EventReason, Reason
from commonplace_runtime import contract

UNSETTLED_SECONDS: Final = 60.0
"""How often at least to look at a managed runtime that is not ready: a Secret of somebody else's tells nobody."""


async def reconcile_runtime(context: Context, runtime: MemoryRuntime) -> Result:
    """Bring pods and status up to date, and the teams when something changed for them."""
    managed = await _manage(context, runtime) if runtime.spec.management == "Managed" else None
    conditions, version = await _look(context, runtime, managed)
    is_ready = conditions[0].status == "True"
    fields: dict[str, Any] = kept_fields(runtime) | {
        "endpoint": endpoint_of(runtime) or None,
        "schemaVersion": version if version is not None else runtime.raw_status.get("schemaVersion"),
        "teams": await _count_teams(context, runtime),
        **((managed.fields or {}) if managed else {}),
    }
    conditions += not_implemented(unimplemented_in_runtime(runtime))
    status = status_of(runtime, conditions=conditions, now=context.clock(), fields=fields)
    before = _seen_by_teams(runtime.raw_status)
    await write_status(context, runtime, status)
    _tell(context, runtime, status)
    if before != _seen_by_teams(status) or _was_edited(runtime):
        await context.enqueue_dependents((names.TEAM,), "spec.runtimeRef.name", runtime.name, None)
    return _next_look(context, managed, is_ready=is_ready)


async def _manage(context: Context, runtime: MemoryRuntime) -> Managed:
    """The pods, and what is known of their scaling."""
    managed = await run_installation(context, runtime)
    context.enqueue_scaling(Key(kind=names.RUNTIME, namespace=runtime.namespace, name=runtime.name))
    state = context.scaling.state((runtime.namespace, runtime.name))
    conditions, figures = (
        _recorded_scaling(runtime) if state is None else (scaling_conditions(state), scaling_fields(state))
    )
    fields = dict(managed.fields or {})
    for name, part in figures.items():
        fields[name] = {**(fields.get(name) or {}), **part}
    return replace(managed, conditions=(*managed.conditions, *conditions), fields=fields)


def _recorded_scaling(runtime: MemoryRuntime) -> tuple[tuple[Condition, ...], dict[str, dict[str, Any]]]:
    """What an earlier process said, until this one has looked."""
    types = (ConditionType.SCALING_ACTIVE, ConditionType.SCALING_CONFLICT)
    recorded = [found.condition for type_ in types if (found := find(runtime.conditions, type_)) is not None]
    desired = (runtime.raw_status.get("workers") or {}).get("desiredReplicas")
    return tuple(recorded), {} if desired is None else {"workers": {"desiredReplicas": desired}}


def _next_look(context: Context, managed: Managed | None, *, is_ready: bool) -> Result:
    if managed is not None and managed.look_again is not None:
        return Result(requeue_after=min(managed.look_again, UNSETTLED_SECONDS))
    if is_ready:
        return Result(requeue_after=context.resync_seconds())
    return Result(retry=True, requeue_after=None if managed is None else UNSETTLED_SECONDS)


def _seen_by_teams(status: Mapping[str, Any]) -> tuple[Any, ...]:
    current = {c["type"]: c["status"] for c in status.get("conditions") or ()}
    return current.get("Ready"), current.get("SchemaCurrent"), status.get("endpoint")


def _tell(context: Context, runtime: MemoryRuntime, status: Mapping[str, Any]) -> None:
    version, schema = status.get("version"), status.get("schemaVersion")
    if runtime.spec.management == "Managed":
        if schema and schema != runtime.raw_status.get("schemaVersion"):
            note = f"The database is at schema {schema}"
            context.tell(runtime, "Normal", EventReason.MIGRATED, note, action="Migrate")
        if version and version != runtime.raw_status.get("version"):
            context.tell(runtime, "Normal", EventReason.ROLLED_OUT, f"Version {version} runs", action="RollOut")
    now, before = status["conditions"][0], (runtime.raw_status.get("conditions") or [{}])[0]
    usual = {before.get("reason"), Reason.PROGRESSING, Reason.MIGRATION_PENDING}
    if now["status"] != "True" and now["reason"] not in usual:
        note = f"{now['reason']}: {now['message']}"[:1000]
        context.tell(runtime, "Warning", EventReason.NOT_READY, note, action="Reconcile")


def _was_edited(runtime: MemoryRuntime) -> bool:
    # A changed allowedTeams does not show in any condition of the runtime itself.
    return runtime.raw_status.get("observedGeneration") != runtime.generation


async def runtime_gone(context: Context, key: Key) -> None:
    """Its teams say so; its database is needed until the last of them that has rows is gone."""
    bodies = await context.list_naming(names.TEAM, "spec.runtimeRef.name", key.name, None)
    for body in bodies:
        context.enqueue(key_of(names.TEAM, body))
    place = (key.namespace, key.name)
    has_rows = any(_is_of(body, key.namespace) and names.FINALIZER in _finalizers(body) for body in bodies)
    if not has_rows or _was_embedded(context.databases.of(place), key):
        await context.databases.forget(place)


def _was_embedded(uri: str | None, key: Key) -> bool:
    """An embedded database went with its runtime: nobody can release rows in it, and nothing may wait for that."""
    return uri is not None and f"@{key.name}-{POSTGRES}.{key.namespace}.svc:" in uri


def _finalizers(body: Mapping[str, Any]) -> list[str]:
    found: list[str] = body["metadata"].get("finalizers") or []
    return found


def _is_of(body: Mapping[str, Any], namespace: str) -> bool:
    # Read without parsing: a team that this version cannot read must not keep its runtime from being counted.
    reference = (body.get("spec") or {}).get("runtimeRef") or {}
    named: str = reference.get("namespace") or body["metadata"]["namespace"]
    return named == namespace


async def _look(
    context: Context, runtime: MemoryRuntime, managed: Managed | None
) -> tuple[tuple[Condition, ...], int | None]:
    """Conditions, and the schema's version where it could be read."""
    if managed is not None and not managed.is_migrated:
        return (managed.verdict, *managed.conditions), None
    shown = managed.conditions if managed else ()
    wrong = managed.verdict if managed and managed.verdict.status != "True" else None
    uri = await database_uri(context, runtime)
    if isinstance(uri, NotReady):
        return (wrong or not_ready(uri.reason, uri.message), *shown), None
    try:
        async with context.registries.of(uri) as registry:
            version = await registry.schema_version()
    except errors.DatabaseRefused as error:
        if managed is None:
            raise
        await repeat_migration(context, runtime, after_seconds=context.timings.resync_seconds)
        refused = not_ready(Reason.DATABASE_REFUSED, f"The database refuses the operator: {error}")
        return (wrong or refused, *shown), None
    if managed is not None and version < (runtime.raw_status.get("schemaVersion") or 0):
        # An older backup was restored. Once for each: the status is about to say the lower number.
        await repeat_migration(context, runtime, after_seconds=0)
    reachable = positive(ConditionType.DATABASE_REACHABLE, Reason.REACHABLE)
    current = _current(version, runtime)
    verdict = managed.verdict if managed else ready(Reason.AVAILABLE)
    if wrong is None and current.status != "True":
        verdict = not_ready(Reason.MIGRATION_PENDING, current.message)
    return (verdict, reachable, current, *shown), version


def _current(version: int, runtime: MemoryRuntime) -> Condition:
    # A newer schema will do: migrations leave the previous version working.
    if version >= contract.SCHEMA_VERSION:
        return positive(ConditionType.SCHEMA_CURRENT, Reason.SCHEMA_CURRENT, f"Schema version {version}")
    cure = (
        "leave spec.version and spec.image.tag out, or set them to this operator's version"
        if runtime.spec.management == "Managed"
        else f"run `commonplace migrate` with {contract.ENV_ADMIN_DATABASE_URL} set to the owner's URI"
    )
    message = f"The database has schema version {version}, this operator needs {contract.SCHEMA_VERSION}: {cure}"
    return negative(ConditionType.SCHEMA_CURRENT, Reason.MIGRATION_PENDING, message)


async def _count_teams(context: Context, runtime: MemoryRuntime) -> int:
    bodies = await context.list_naming(names.TEAM, "spec.runtimeRef.name", runtime.name, None)
    return sum(_is_of(body, runtime.namespace) for body in bodies)
