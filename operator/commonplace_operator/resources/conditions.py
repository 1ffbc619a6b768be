"""Conditions as the Kubernetes API conventions have them, with a transition time that only moves on change."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from commonplace_operator.resources.times import format_time

Status = Literal["True", "False", "Unknown"]
MESSAGE_LIMIT = 4096


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One line of `status.conditions`. `observed_generation` None means: the generation being reported."""

    type: str
    status: Status
    reason: str
    message: str = ""
    observed_generation: int | None = None


@dataclass(frozen=True, kw_only=True)
class RecordedCondition:
    """A condition as it stands in an object's status, with the time of its last change of status."""

    condition: Condition
    last_transition_time: str

    @classmethod
    def parse(cls, raw: dict[str, object]) -> "RecordedCondition":
        """From the wire; raises KeyError when a required field is missing."""
        status = raw["status"]
        generation = raw.get("observedGeneration")
        return cls(
            condition=Condition(
                type=str(raw["type"]),
                status="True" if status == "True" else "False" if status == "False" else "Unknown",
                reason=str(raw.get("reason", "")),
                message=str(raw.get("message", "")),
                observed_generation=generation if isinstance(generation, int) else None,
            ),
            last_transition_time=str(raw.get("lastTransitionTime", "")),
        )


def find(recorded: Iterable[RecordedCondition], type_: str) -> RecordedCondition | None:
    """The condition of that type, if it is recorded."""
    return next((entry for entry in recorded if entry.condition.type == type_), None)


def render_conditions(
    wanted: Iterable[Condition], recorded: Iterable[RecordedCondition], *, generation: int, now: datetime
) -> list[dict[str, object]]:
    """The wire form of `wanted`, in its order; a condition that keeps its status keeps its transition time."""
    known = {entry.condition.type: entry for entry in recorded}
    rendered: list[dict[str, object]] = []
    for condition in wanted:
        seen = condition.observed_generation
        before = known.get(condition.type)
        same = before is not None and before.condition.status == condition.status and before.last_transition_time != ""
        rendered.append(
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                "message": condition.message[:MESSAGE_LIMIT],
                "observedGeneration": generation if seen is None else seen,
                "lastTransitionTime": before.last_transition_time if before is not None and same else format_time(now),
            }
        )
    return rendered
