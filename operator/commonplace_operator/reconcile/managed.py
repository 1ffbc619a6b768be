"""
A managed MemoryRuntime: Secrets, children, migration, rollout, status.

The order is the safety: what a step needs is there before it, and a step that fails leaves what runs running. Pods of a
new template come only after the migration of that template's version succeeded.
"""

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from commonplace_operator import errors
from commonplace_operator.children.autoscaling import worker_hpa
from commonplace_operator.children.credentials import Passwords
from commonplace_operator.children.installation import (
    API,
    POSTGRES,
    REDIS,
    WORKER,
    Installation,
    child_name,
    endpoint_of,
    selector_labels,
)
from commonplace_operator.children.migration import migration_hash, migration_job
from commonplace_operator.children.order import after_migration, before_migration, optional
from commonplace_operator.planning.managed import (
    Pods,
    component_condition,
    image_name,
    migration_condition,
    overall,
    pod_counts,
    trial_conditions,
    unready_server,
    wanted_version,
)
from commonplace_operator.planning.migration import MigrationPlan, plan_migration
from commonplace_operator.planning.secrets import Missing, Resolved, kept_passwords, resolve, secrets_read
from commonplace_operator.planning.status import not_ready
from commonplace_operator.planning.workloads import MigrationJob, PodTrouble, Workload, pod_troubles
from commonplace_operator.reconcile import children
from commonplace_operator.reconcile.context import Context
from commonplace_operator.resources import names
from commonplace_operator.resources.conditions import Condition, find
from commonplace_operator.resources.objects import MemoryRuntime
from commonplace_operator.resources.reasons import ConditionType, Reason

PROGRESS_SECONDS: Final = 10.0
"""How often to look while something is under way: that an image cannot be pulled is in no event that we watch."""


@dataclass(frozen=True, kw_only=True)
class Managed:
    """
    What one pass came to. verdict: `Ready` as far as pods tell. is_migrated: the database may be asked. look_again:
    seconds until the next look is due for a reason of its own.
    """

    verdict: Condition
    conditions: tuple[Condition, ...] = ()
    fields: Mapping[str, Any] | None = None
    is_migrated: bool = False
    look_again: float | None = None


async def run_installation(context: Context, runtime: MemoryRuntime) -> Managed:
    """Bring the children of a managed runtime into agreement with it, as far as is possible now."""
    found = await _resolve(context, runtime)
    if isinstance(found, Missing):
        pods = await _pods(context, runtime)
        return _result(runtime, pods, ready=not_ready(found.reason, found.message), is_held=True)
    this = found.installation
    try:
        for secret in found.secrets:
            await children.put(context, runtime, secret)
        for manifest in before_migration(this):
            await children.put(context, runtime, manifest)
        await _drop_unwanted(context, this)
        unknown = await _optional(context, this)
        pods = await _pods(context, runtime)
        servers = [POSTGRES] if this.is_embedded else []
        if waiting := unready_server(pods, servers):
            return _result(runtime, pods, ready=waiting, is_held=True)
        migration, troubles = await _migrate(context, this)
        if migration.is_done:
            for manifest in after_migration(this):
                await children.put(context, runtime, manifest)
            pods = _since(runtime, pods, await _pods(context, runtime))
            if all(
                component in pods.workloads and pods.workloads[component].is_rolled_out for component in (API, WORKER)
            ):
                await _drop_servers(context, this)
        else:
            pods = replace(pods, troubles=(*pods.troubles, *troubles))
    except children.ChildTaken as error:
        pods = await _pods(context, runtime)
        return _result(runtime, pods, ready=not_ready(Reason.CHILD_CONFLICT, str(error)), is_held=True)
    except (errors.Refused, errors.Forbidden) as error:
        # The API server, a quota or an admission policy says no to a child: its author or the platform acts.
        reason = Reason.FORBIDDEN if isinstance(error, errors.Forbidden) else Reason.INVALID_SPEC
        pods = await _pods(context, runtime)
        return _result(runtime, pods, ready=not_ready(reason, f"A child was refused: {error}"), is_held=True)
    wrong = migration_condition(migration, pods) or unknown
    return _result(runtime, pods, ready=wrong, is_held=not migration.is_done, migration=migration)


async def _resolve(context: Context, runtime: MemoryRuntime) -> Resolved | Missing:
    bodies = await asyncio.gather(
        *(children.read(context, names.SECRET, runtime.namespace, name) for name in secrets_read(runtime))
    )
    found = {body["metadata"]["name"]: body for body in bodies if body is not None}
    ours = {name: _clear(body) for name, body in found.items() if children.is_ours(body, runtime)}
    minted = Passwords(
        owner=context.mint_password(),
        runtime=context.mint_password(),
        operator=context.mint_password(),
        redis=context.mint_password(),
    )
    version = wanted_version(runtime)
    return resolve(
        runtime,
        known={name: _clear(body) for name, body in found.items()},
        passwords=kept_passwords(runtime, ours, minted),
        image=image_name(runtime.spec.image, version=version, default_repository=context.runtime_image),
        mac_key=context.mac_key,
        installation=context.installation,
    )


def _clear(body: Mapping[str, Any]) -> dict[str, str]:
    return {key: base64.b64decode(value).decode("utf-8", "replace") for key, value in (body.get("data") or {}).items()}


async def _optional(context: Context, this: Installation) -> Condition | None:
    """Objects of kinds that a cluster may not have; what is missing is told and stops nothing."""
    for manifest in optional(this):
        try:
            await _put_optional(context, this.runtime, manifest)
        except children.KindUnknown as error:
            return not_ready(
                Reason.INVALID_SPEC, f"{error}: install its CustomResourceDefinition, or do not ask for it"
            )
    return None


async def _put_optional(context: Context, runtime: MemoryRuntime, manifest: Mapping[str, Any]) -> None:
    try:
        await children.put(context, runtime, manifest)
    except errors.Refused:
        # Not every API server lets an autoscaler go to none; whether this one does, it alone knows.
        if manifest["kind"] != names.AUTOSCALER.kind or manifest["spec"]["minReplicas"] > 0:
            raise
        await children.put(context, runtime, worker_hpa(runtime, to_zero=False))


async def _drop_unwanted(context: Context, this: Installation) -> None:
    """What an earlier generation of the object asked for."""
    runtime = this.runtime
    unwanted = []
    if runtime.spec.ingress is None:
        unwanted.append((names.INGRESS, child_name(runtime, API)))
    if not runtime.spec.monitoring.service_monitor:
        unwanted.append((names.SERVICE_MONITOR, runtime.name))
    mode = runtime.spec.workers.autoscaling.mode
    for other, kind in (("HPA", names.AUTOSCALER), ("KEDA", names.SCALED_OBJECT)):
        if mode != other:
            unwanted.append((kind, child_name(runtime, WORKER)))
    for kind, name in unwanted:
        await children.drop(context, runtime, kind, name)


async def _drop_servers(context: Context, this: Installation) -> None:
    """
    Embedded servers of an earlier generation, once nothing uses them any more: until then they are what serves.

    Volumes stay: deleting data is never a side effect.
    """
    queue = this.runtime.spec.queue
    unwanted = [] if queue is not None and queue.embedded else [REDIS]
    unwanted += [] if this.is_embedded else [POSTGRES]
    for component in unwanted:
        for kind in (names.STATEFUL_SET, names.SERVICE, names.NETWORK_POLICY):
            await children.drop(context, this.runtime, kind, child_name(this.runtime, component))


async def repeat_migration(context: Context, runtime: MemoryRuntime, *, after_seconds: float) -> None:
    """
    Have the migration run again if it ended so long ago: the database is not what it was then.

    It was restored, or replaced by an empty one under the same name, and lacks roles or versions that a Job had made.
    """
    selector = f"{names.LABEL_RUNTIME}={runtime.name},{names.LABEL_MIGRATION}"
    for body in await context.cluster.list(names.JOB, runtime.namespace, label_selector=selector):
        job = MigrationJob.parse(body, ())
        if job is None or job.state != "done" or job.ended_at is None:
            continue
        if (context.clock() - job.ended_at).total_seconds() >= after_seconds:
            await children.delete(context, names.JOB, runtime.namespace, job.name, uid=job.uid)


async def _migrate(context: Context, this: Installation) -> tuple[MigrationPlan, tuple[PodTrouble, ...]]:
    """What was decided and begun about the migration, and what keeps its pods from working."""
    runtime = this.runtime
    selector = f"{names.LABEL_RUNTIME}={runtime.name},{names.LABEL_MIGRATION}"
    bodies = await context.cluster.list(names.JOB, runtime.namespace, label_selector=selector)
    pods = await context.cluster.list(
        names.POD, runtime.namespace, label_selector=f"{names.LABEL_RUNTIME}={runtime.name},job-name"
    )
    jobs = [job for job in (MigrationJob.parse(body, pods) for body in bodies) if job is not None]
    plan = plan_migration(jobs, fingerprint=migration_hash(this), version=wanted_version(runtime), now=context.clock())
    for job in plan.delete:
        await children.delete(context, names.JOB, runtime.namespace, job.name, uid=job.uid)
    if plan.start is not None:
        await children.put(context, runtime, migration_job(this, attempt=plan.start))
    return plan, pod_troubles(pods)


async def _pods(context: Context, runtime: MemoryRuntime) -> Pods:
    """What runs; the pods themselves, of which there may be a thousand, are read where something does not."""
    chosen = f"{names.LABEL_RUNTIME}={runtime.name}"
    deployments, sets = await asyncio.gather(
        *(
            context.cluster.list(kind, runtime.namespace, label_selector=chosen)
            for kind in (names.DEPLOYMENT, names.STATEFUL_SET)
        )
    )
    workloads = {
        body["metadata"]["labels"].get(names.LABEL_COMPONENT, ""): Workload.parse(body)
        for body in (*deployments, *sets)
    }
    if all(workload.is_rolled_out for workload in workloads.values()):
        return Pods(workloads=workloads)
    pods = await context.cluster.list(names.POD, runtime.namespace, label_selector=chosen)
    return Pods(workloads=workloads, troubles=pod_troubles(pods))


def _since(runtime: MemoryRuntime, before: Pods, after: Pods) -> Pods:
    """What runs after this pass has applied its part, with what it had no part in."""
    recorded = find(runtime.conditions, ConditionType.WORKERS_AVAILABLE)
    served = recorded is not None and recorded.condition.status == "True"
    old, new = (pods.workloads.get(WORKER) for pods in (before, after))
    is_untouched = old is not None and new is not None and old.content == new.content
    return replace(after, steady=frozenset({WORKER}) if served and is_untouched else frozenset())


def _result(
    runtime: MemoryRuntime,
    pods: Pods,
    *,
    ready: Condition | None,
    is_held: bool,
    migration: MigrationPlan | None = None,
) -> Managed:
    api = component_condition(ConditionType.API_AVAILABLE, API, pods, is_held=is_held)
    workers = component_condition(ConditionType.WORKERS_AVAILABLE, WORKER, pods, is_held=is_held)
    shown = tuple(condition for condition in (api, workers) if condition is not None)
    counts = pod_counts(pods)
    if "workers" in counts:
        chosen = ",".join(f"{key}={value}" for key, value in selector_labels(runtime, WORKER).items())
        counts["workers"]["selector"] = chosen
    fields: dict[str, Any] = {
        "database": "Embedded" if runtime.spec.database.embedded else "External",
        **counts,
    }
    is_migrated = migration is not None and migration.is_done
    if is_migrated and all(c.status == "True" for c in shown):
        fields["version"] = wanted_version(runtime)
    verdict = overall(ready, shown, version=wanted_version(runtime), endpoint=endpoint_of(runtime))
    look_again = migration.look_again if migration else None
    if verdict.status != "True" and verdict.reason in {Reason.PROGRESSING, Reason.MIGRATION_PENDING}:
        look_again = min(look_again or PROGRESS_SECONDS, PROGRESS_SECONDS)
    return Managed(
        verdict=verdict,
        conditions=(*shown, *trial_conditions(runtime)),
        fields=fields,
        is_migrated=is_migrated or was_migrated(runtime),
        look_again=look_again,
    )


def was_migrated(runtime: MemoryRuntime) -> bool:
    """Whether an earlier pass found the schema current: what runs goes on running while a new version fails."""
    recorded = find(runtime.conditions, ConditionType.SCHEMA_CURRENT)
    return recorded is not None and recorded.condition.status == "True"
