"""Before pods go: which of them are busy, so that the ReplicaSet takes the idle ones first."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from commonplace_operator import errors
from commonplace_operator.children.installation import WORKER, selector_labels
from commonplace_operator.cluster import Body
from commonplace_operator.reconcile.context import Context
from commonplace_operator.resources import names
from commonplace_operator.resources.objects import MemoryRuntime

MOST_PATCHES: Final = 50
_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
_HOSTNAME_LENGTH: Final = 63


async def mark_busy_pods(context: Context, runtime: MemoryRuntime, jobs_of: Mapping[str, int]) -> None:
    """
    Note the jobs of each worker pod as its cost of deletion, on at most MOST_PATCHES pods, the busiest first.

    jobs_of: jobs of each worker process, by `<host name>-<process id>`. A pod that is gone meanwhile needs no note.
    """
    jobs = pod_jobs(jobs_of)
    selector = ",".join(f"{key}={value}" for key, value in selector_labels(runtime, WORKER).items())
    pods = await context.cluster.list(names.POD, runtime.namespace, label_selector=selector)
    outdated = [(jobs[host_name(pod)], pod) for pod in pods if jobs[host_name(pod)] != _cost(pod)]
    for cost, pod in sorted(outdated, key=lambda pair: pair[0], reverse=True)[:MOST_PATCHES]:
        metadata = {key: pod["metadata"][key] for key in ("namespace", "name", "uid")}
        body = {"metadata": metadata | {"annotations": {_COST: str(cost)}}}
        try:
            await context.cluster.apply(names.POD, body, manager=names.AUTOSCALER_MANAGER)
        except (errors.NotFound, errors.Conflict):
            continue
        context.metrics.writes.labels(names.POD.kind, "cost").inc()


def pod_jobs(jobs_of: Mapping[str, int]) -> Counter[str]:
    """Jobs by host name: a container that was started again may have left a lease behind."""
    found: Counter[str] = Counter()
    for worker, jobs in jobs_of.items():
        found[worker.rpartition("-")[0]] += jobs
    return found


def host_name(pod: Body) -> str:
    """As the kubelet makes it of the pod's name."""
    return str(pod["metadata"]["name"])[:_HOSTNAME_LENGTH].rstrip("-.")


def _cost(pod: Body) -> int:
    value = (pod["metadata"].get("annotations") or {}).get(_COST, "0")
    try:
        return int(value)
    except ValueError:
        return 0
