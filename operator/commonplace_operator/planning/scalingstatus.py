"""What a runtime's status says of its scaling."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from commonplace_operator.planning.rivals import Rival
from commonplace_operator.planning.scaling import Decision
from commonplace_operator.planning.status import negative, positive
from commonplace_operator.resources.conditions import Condition
from commonplace_operator.resources.reasons import ConditionType, Reason
from commonplace_operator.resources.runtime_spec import AutoscalingMode
from commonplace_operator.resources.times import format_time


@dataclass(frozen=True, kw_only=True)
class QueueSample:
    """The queue as it was at a moment of the database's clock: jobs that wait, age of the oldest in seconds."""

    backlog: int
    oldest_seconds: float
    at: datetime


@dataclass(frozen=True, kw_only=True)
class ScalingState:
    """
    What is known of one runtime's workers.

    replicas: pods wanted of the Deployment, after the last decision. decision: of mode Operator. queue: the last
    sample; unseen: why there is no newer one, empty when there is. forbidden: what the operator may not do. note: what
    of the spec cannot be had, empty when all can.
    """

    mode: AutoscalingMode
    replicas: int
    decision: Decision | None = None
    queue: QueueSample | None = None
    unseen: str = ""
    rival: Rival | None = None
    forbidden: str = ""
    note: str = ""


def scaling_conditions(state: ScalingState) -> tuple[Condition, ...]:
    """`ScalingActive`, and `ScalingConflict` while somebody else scales."""
    active = _active(state)
    if state.rival is None:
        return (active,)
    return (
        active,
        positive(ConditionType.SCALING_CONFLICT, Reason.EXTERNAL_SCALER_FOUND, state.rival.message),
    )


def scaling_fields(state: ScalingState) -> dict[str, dict[str, Any]]:
    """
    `{"workers": {"desiredReplicas"}, "queue": {…}}` as in `status`, without what is not known.

    The former is to be merged into the fields that the Deployment gives.
    """
    desired = state.decision.replicas if state.decision is not None else state.replicas
    fields: dict[str, dict[str, Any]] = {"workers": {"desiredReplicas": desired}}
    if state.queue is not None:
        fields["queue"] = {
            "backlog": state.queue.backlog,
            "oldestSeconds": int(state.queue.oldest_seconds),
            "sampleTime": format_time(state.queue.at),
        }
    return fields


def _active(state: ScalingState) -> Condition:
    type_ = ConditionType.SCALING_ACTIVE
    if state.forbidden:
        return negative(type_, Reason.FORBIDDEN, f"The operator may not scale the workers: {state.forbidden}")
    if state.rival is not None:
        return negative(type_, Reason.EXTERNAL_AUTOSCALER, "Somebody else scales the workers; see ScalingConflict")
    if state.mode == "Manual":
        return positive(type_, Reason.MANUAL_REPLICAS, f"{state.replicas} workers: spec.workers.replicas")
    if state.mode != "Operator":
        kind = {"HPA": "HorizontalPodAutoscaler", "KEDA": "ScaledObject"}[state.mode]
        note = f"; {state.note}" if state.note else ""
        return positive(type_, Reason.EXTERNAL_AUTOSCALER, f"{kind} of this runtime sets the number of workers{note}")
    assert state.decision is not None  # noqa: S101 - mode Operator always decides
    if state.decision.need is None:
        return negative(type_, Reason.METRICS_UNAVAILABLE, f"{state.decision.explanation}: {state.unseen}")
    reason = Reason.SCALING_LIMITED if state.decision.is_limited else Reason.DESIRED_REPLICAS
    return positive(type_, reason, state.decision.explanation)
