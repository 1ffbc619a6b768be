"""What live Deployments, StatefulSets, Jobs and pods say, read once into plain values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from commonplace_operator.resources import names
from commonplace_operator.resources.reasons import Reason
from commonplace_operator.resources.times import parse_time
from commonplace_runtime.contract import MigrationReport

_PULL: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_NOT_STARTED: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_LONGEST_NOTE: Final = 300


@dataclass(frozen=True, kw_only=True)
class Workload:
    """
    A live Deployment or StatefulSet. `wanted`: its own `spec.replicas`.

    updated: pods of the newest template; available: pods that serve, of any template. content: names what we applied.
    """

    wanted: int
    replicas: int
    updated: int
    available: int
    is_observed: bool
    failure: str | None = None
    content: str = ""

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> "Workload":
        """From the API server's JSON."""
        status = body.get("status") or {}
        conditions = {entry["type"]: entry for entry in status.get("conditions") or ()}
        failed = conditions.get("ReplicaFailure")
        is_failed = failed is not None and failed.get("status") == "True"
        return cls(
            wanted=body["spec"].get("replicas", 1),
            replicas=status.get("replicas", 0),
            updated=status.get("updatedReplicas", 0),
            available=status.get("availableReplicas", status.get("readyReplicas", 0)),
            is_observed=status.get("observedGeneration", 0) >= body["metadata"].get("generation", 0),
            failure=str(failed.get("message", "")) if is_failed and failed else None,
            content=(body["metadata"].get("annotations") or {}).get(names.ANNOTATION_CONTENT_HASH, ""),
        )

    @property
    def is_rolled_out(self) -> bool:
        """Whether every pod is of the newest template and serves."""
        settled = self.replicas == self.updated == self.wanted
        return self.is_observed and settled and self.available >= self.wanted

    @property
    def is_scaling(self) -> bool:
        """Whether every pod is of the newest template and some serve, while their number is still to be reached."""
        return self.is_observed and self.replicas == self.updated and self.available > 0


@dataclass(frozen=True, kw_only=True)
class PodTrouble:
    """Why a pod of a component does not work."""

    component: str
    reason: Reason
    message: str


def pod_troubles(pods: Iterable[Mapping[str, Any]]) -> tuple[PodTrouble, ...]:
    """What keeps pods from working; the newest pod comes first, for it is the one being rolled out."""
    newest = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)
    found = []
    for pod in newest:
        component = (pod["metadata"].get("labels") or {}).get(names.LABEL_COMPONENT, "")
        trouble = None if pod["metadata"].get("deletionTimestamp") else _trouble(pod)
        if trouble is not None:
            reason, message = trouble
            text = f"pod {pod['metadata']['name']}: {message}"
            found.append(PodTrouble(component=component, reason=reason, message=text))
    return tuple(found)


def _trouble(pod: Mapping[str, Any]) -> tuple[Reason, str] | None:
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        why, note = waiting.get("reason", ""), str(waiting.get("message", ""))[:_LONGEST_NOTE]
        if why in _PULL:
            return Reason.IMAGE_PULL_FAILED, f"image {container.get('image', '')} cannot be pulled ({why}): {note}"
        if why in _NOT_STARTED:
            return Reason.PODS_FAILING, f"{why}: {note}"
        if why == "CrashLoopBackOff":
            return Reason.PODS_FAILING, _crash(container)
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Reason.PODS_NOT_CREATED, f"not scheduled: {str(condition.get('message', ''))[:_LONGEST_NOTE]}"
    return None


def _crash(container: Mapping[str, Any]) -> str:
    ended = (container.get("lastState") or {}).get("terminated") or {}
    code = ended.get("exitCode")
    note = str(ended.get("message", "")).strip()[-_LONGEST_NOTE:]
    hint = ": its configuration is unusable" if code == 78 else ""
    return f"ended with exit code {code}{hint}; kubectl logs --previous says more{f': {note}' if note else ''}"


@dataclass(frozen=True, kw_only=True)
class MigrationJob:
    """
    A live migration Job. `fingerprint`: of what it does; `attempt` counts from 1.

    report: what it left behind, once it ended; ended_at: when that was. has_pod: whether it ever got one.
    """

    name: str
    uid: str
    fingerprint: str
    attempt: int
    state: Literal["running", "done", "failed"]
    created_at: datetime
    has_pod: bool
    ended_at: datetime | None = None
    report: MigrationReport | None = None
    note: str = ""

    @classmethod
    def parse(cls, body: Mapping[str, Any], pods: Iterable[Mapping[str, Any]]) -> "MigrationJob | None":
        """From the API server's JSON, with the pods of all migrations; None for a Job that we did not name."""
        metadata = body["metadata"]
        fingerprint = (metadata.get("labels") or {}).get(names.LABEL_MIGRATION, "")
        _, _, attempt = metadata["name"].rpartition("-")
        if not fingerprint or not attempt.isdecimal() or metadata.get("deletionTimestamp"):
            return None
        conditions = {
            entry["type"]: entry
            for entry in (body.get("status") or {}).get("conditions") or ()
            if entry.get("status") == "True"
        }
        failed = conditions.get("Failed")
        ended = (failed or conditions.get("Complete") or {}).get("lastTransitionTime")
        own = [pod for pod in pods if _is_owned(pod, metadata["uid"])]
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            fingerprint=fingerprint,
            attempt=int(attempt),
            state="done" if "Complete" in conditions else "failed" if failed else "running",
            created_at=parse_time(metadata["creationTimestamp"]),
            has_pod=bool(own),
            ended_at=parse_time(ended) if ended else None,
            report=_report(own),
            note=str((failed or {}).get("message", "")),
        )


def _is_owned(pod: Mapping[str, Any], uid: str) -> bool:
    # Not by the label job-name: anybody may set that, and what the pod says is shown to administrators.
    return any(reference.get("uid") == uid for reference in pod["metadata"].get("ownerReferences") or ())


def _report(pods: Iterable[Mapping[str, Any]]) -> MigrationReport | None:
    for pod in pods:
        for container in (pod.get("status") or {}).get("containerStatuses") or ():
            ended = (container.get("state") or {}).get("terminated") or {}
            if report := MigrationReport.from_json(str(ended.get("message", ""))):
                return report
    return None
