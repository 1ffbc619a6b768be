"""What a managed MemoryRuntime's status says of its pods."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from commonplace_operator.children.installation import API, MIGRATE, POSTGRES, REDIS, WORKER
from commonplace_operator.planning.migration import MigrationPlan
from commonplace_operator.planning.status import negative, not_ready, positive, ready
from commonplace_operator.planning.workloads import PodTrouble, Workload
from commonplace_operator.resources.conditions import Condition
from commonplace_operator.resources.objects import MemoryRuntime
from commonplace_operator.resources.reasons import ConditionType, Reason
from commonplace_operator.resources.runtime_spec import ImageSpec
from commonplace_runtime import contract

_TRIAL = (
    "Postgres runs as one pod beside the API: for trying out. Without a replica and without a backup; "
    "for production name a database in spec.database.ownerSecretRef"
)


@dataclass(frozen=True, kw_only=True)
class Pods:
    """
    What runs: the workloads by component (absent: not made yet), and what is wrong with their pods.

    steady: components that served when last looked at, and to which we applied nothing since.
    """

    workloads: dict[str, Workload]
    troubles: tuple[PodTrouble, ...] = ()
    steady: frozenset[str] = frozenset()

    def trouble(self, component: str) -> PodTrouble | None:
        """The newest trouble of a component."""
        return next((trouble for trouble in self.troubles if trouble.component == component), None)


def wanted_version(runtime: MemoryRuntime) -> str:
    """The version to run; the operator's own unless the object names one."""
    return runtime.spec.version or contract.VERSION


def image_name(image: ImageSpec, *, version: str, default_repository: str) -> str:
    """`repository:tag`, or `repository@digest` where a digest is given."""
    repository = image.repository or default_repository
    return f"{repository}@{image.digest}" if image.digest else f"{repository}:{image.tag or version}"


def unready_server(pods: Pods, components: Iterable[str]) -> Condition | None:
    """Why the migration has to wait for an embedded server; None when all answer and none is about to restart."""
    for component in components:
        workload = pods.workloads.get(component)
        if workload is not None and workload.is_rolled_out:
            continue
        name = {POSTGRES: "Postgres", REDIS: "Redis"}[component]
        if trouble := pods.trouble(component):
            return not_ready(trouble.reason, f"The embedded {name} does not run: {trouble.message}")
        if workload is not None and workload.failure:
            return not_ready(Reason.PODS_NOT_CREATED, f"The embedded {name} does not run: {workload.failure}")
        return not_ready(Reason.PROGRESSING, f"The embedded {name} starts")
    return None


def component_condition(type_: ConditionType, component: str, pods: Pods, *, is_held: bool) -> Condition | None:
    """
    Whether a component serves; None before it was ever made.

    is_held: a newer template waits for its migration, so what runs is not what is wanted, but runs. Workers come and go
    with the queue: those that are still to come take nothing from those that serve.
    """
    workload = pods.workloads.get(component)
    if workload is None:
        return None
    trouble = pods.trouble(component)
    said = f"{workload.available} of {workload.wanted} pods serve"
    if workload.wanted == 0 and component == WORKER:
        return positive(type_, Reason.SCALED_TO_ZERO, "No worker runs: nothing waits")
    if workload.wanted == 0:
        return negative(type_, Reason.SCALED_TO_ZERO, f"No pod serves: spec.{component}.replicas is 0")
    if workload.is_rolled_out or (is_held and workload.available >= workload.wanted):
        return positive(type_, Reason.AVAILABLE, said)
    if trouble is not None:
        return negative(type_, trouble.reason, f"{said}; {trouble.message}")
    if workload.failure:
        return negative(type_, Reason.PODS_NOT_CREATED, f"{said}; {workload.failure}")
    if component == WORKER and (workload.is_scaling or is_scaled_unseen(component, pods)):
        return positive(type_, Reason.AVAILABLE, said)
    return negative(type_, Reason.PROGRESSING, f"{said}, {workload.updated} of the newest template")


def is_scaled_unseen(component: str, pods: Pods) -> bool:
    """
    Whether somebody changed a number that the Deployment controller has not seen yet.

    Its counts are of before, and say nothing of the template: a rollout is what we apply, and we applied nothing.
    """
    workload = pods.workloads[component]
    return component in pods.steady and not workload.is_observed and workload.available > 0


def migration_condition(migration: MigrationPlan, pods: Pods) -> Condition | None:
    """Why the rollout waits for the migration; None when it does not."""
    if migration.is_done:
        return None
    trouble = pods.trouble(MIGRATE)
    if trouble is not None and migration.reason is Reason.MIGRATION_PENDING:
        return not_ready(trouble.reason, f"The migration cannot start: {trouble.message}")
    return not_ready(migration.reason, migration.message)


def trial_conditions(runtime: MemoryRuntime) -> tuple[Condition, ...]:
    """An embedded database is labelled as what it is."""
    if not runtime.spec.database.embedded:
        return ()
    return (positive(ConditionType.TRIAL_ONLY, Reason.EMBEDDED_DATABASE, _TRIAL),)


def overall(first: Condition | None, others: Iterable[Condition | None], *, version: str, endpoint: str) -> Condition:
    """`Ready`: the first thing that is wrong, else what serves where."""
    if first is not None:
        return first
    for condition in others:
        if condition is not None and condition.status != "True":
            return not_ready(Reason(condition.reason), condition.message)
    return ready(Reason.AVAILABLE, f"Version {version} serves at {endpoint}")


def pod_counts(pods: Pods) -> dict[str, dict[str, Any]]:
    """`status.api` and `status.workers` as far as Deployments tell."""
    return {
        field: {"replicas": workload.replicas, "readyReplicas": workload.available}
        for component, field in ((API, "api"), (WORKER, "workers"))
        if (workload := pods.workloads.get(component)) is not None
    }
