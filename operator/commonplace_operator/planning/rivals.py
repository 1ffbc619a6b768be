"""Who else sets the number of a runtime's workers: autoscalers of others, as they were listed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from commonplace_operator.children.installation import WORKER, child_name
from commonplace_operator.resources import names
from commonplace_operator.resources.objects import MemoryRuntime

_END_IT = "delete it, or set spec.workers.autoscaling.mode to Manual and point it at the MemoryRuntime"


@dataclass(frozen=True, kw_only=True)
class Rival:
    """Somebody else who sets the number; `message` says who and what to do."""

    message: str


def rival_object(
    runtime: MemoryRuntime, autoscalers: Iterable[Mapping[str, Any]], scaled_objects: Iterable[Mapping[str, Any]] | None
) -> Rival | None:
    """
    The first autoscaler in the runtime's namespace that targets its workers and is not the operator's own.

    scaled_objects: None where the cluster has no KEDA or does not show it. In mode Manual an autoscaler of the
    MemoryRuntime itself is wanted: it sets spec.workers.replicas.
    """
    for kind, bodies in ((names.SCALED_OBJECT, scaled_objects or ()), (names.AUTOSCALER, autoscalers)):
        for body in bodies:
            if kind == names.AUTOSCALER and scaled_objects is not None and _is_of_keda(body):
                continue  # its ScaledObject was judged
            if not _is_ours(body, runtime) and not _is_going(body) and _targets_workers(body, runtime):
                target = body["spec"]["scaleTargetRef"]
                what = f"{target.get('kind', names.DEPLOYMENT.kind)} {target['name']}"
                found = f"{kind.kind} {runtime.namespace}/{body['metadata']['name']} scales {what}"
                return Rival(message=f"{found}, so the operator does not: {_END_IT}")
    return None


def missed_zero(runtime: MemoryRuntime, autoscalers: Iterable[Mapping[str, Any]]) -> str:
    """What is not as asked, empty when all is: an API server may refuse our HPA to go to none."""
    wanted = runtime.spec.workers.autoscaling
    ours = [body for body in autoscalers if _is_ours(body, runtime) and body["spec"].get("minReplicas", 1) > 0]
    if wanted.mode != "HPA" or wanted.min_replicas > 0 or not ours:
        return ""
    return "one worker stays, for this cluster takes no minReplicas 0 (feature gate HPAScaleToZero)"


def rival_manager(runtime: MemoryRuntime, manager: str) -> Rival:
    """A field manager that took the number back after the operator had overruled it."""
    name = f"{runtime.namespace}/{child_name(runtime, WORKER)}"
    return Rival(
        message=f'Field manager "{manager}" sets spec.replicas of Deployment {name} again and again, so the operator'
        " does not: end it, or set spec.workers.autoscaling.mode to Manual and have it set spec.workers.replicas"
    )


def _is_ours(body: Mapping[str, Any], runtime: MemoryRuntime) -> bool:
    labels = body["metadata"].get("labels") or {}
    return labels.get(names.LABEL_MANAGED_BY) == names.MANAGED_BY and labels.get(names.LABEL_OWNER_UID) == runtime.uid


def _is_going(body: Mapping[str, Any]) -> bool:
    return body["metadata"].get("deletionTimestamp") is not None


def _is_of_keda(body: Mapping[str, Any]) -> bool:
    owners = body["metadata"].get("ownerReferences") or ()
    return any(owner.get("kind") == names.SCALED_OBJECT.kind for owner in owners)


def _targets_workers(body: Mapping[str, Any], runtime: MemoryRuntime) -> bool:
    target = body["spec"].get("scaleTargetRef") or {}
    # KEDA's default; an HPA always says it.
    kind = target.get("kind") or names.DEPLOYMENT.kind
    group = str(target.get("apiVersion") or names.DEPLOYMENT.api_version).partition("/")[0]
    if (group, kind) == ("apps", names.DEPLOYMENT.kind):
        return bool(target.get("name") == child_name(runtime, WORKER))
    if (group, kind) == (names.GROUP, names.RUNTIME.kind):
        return bool(target.get("name") == runtime.name) and runtime.spec.workers.autoscaling.mode != "Manual"
    return False
