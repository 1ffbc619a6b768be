"""What is written to `/status`: whole, in one apply, and only when it says something new."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from commonplace_operator.resources.conditions import Condition, RecordedCondition, find, render_conditions
from commonplace_operator.resources.objects import ApiKey, MemoryRuntime, MemoryTeam, Quota, Unread
from commonplace_operator.resources.reasons import ConditionType, Reason

AnyObject = MemoryRuntime | MemoryTeam | ApiKey | Quota | Unread

_AWAY = "The database does not answer; what is said here was last known before. Retrying."


def ready(reason: Reason, message: str = "") -> Condition:
    """`Ready=True`."""
    return Condition(type=ConditionType.READY, status="True", reason=reason, message=message)


def not_ready(reason: Reason, message: str) -> Condition:
    """`Ready=False`; `message` says what to do."""
    return Condition(type=ConditionType.READY, status="False", reason=reason, message=message)


def positive(type_: ConditionType, reason: Reason, message: str = "") -> Condition:
    """A condition that holds."""
    return Condition(type=type_, status="True", reason=reason, message=message)


def negative(type_: ConditionType, reason: Reason, message: str) -> Condition:
    """A condition that does not hold."""
    return Condition(type=type_, status="False", reason=reason, message=message)


def not_implemented(fields: Iterable[str]) -> tuple[Condition, ...]:
    """One condition that lists fields which are set and not acted on; none when there are none."""
    names = sorted(fields)
    if not names:
        return ()
    message = "Set, but not acted on in this version: " + ", ".join(names)
    return (positive(ConditionType.NOT_IMPLEMENTED, Reason.NOT_IMPLEMENTED_YET, message),)


def status_of(
    wanted: AnyObject, *, conditions: Iterable[Condition], now: datetime, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """The wire form of a whole status; fields that are None are left out."""
    return {
        "observedGeneration": wanted.generation,
        "conditions": render_conditions(conditions, wanted.conditions, generation=wanted.generation, now=now),
        **{name: value for name, value in fields.items() if value is not None},
    }


def kept_fields(wanted: AnyObject) -> dict[str, Any]:
    """The recorded fields besides conditions: kept while nothing new can be known."""
    return {k: v for k, v in wanted.raw_status.items() if k not in {"conditions", "observedGeneration"}}


def database_away_status(wanted: AnyObject, *, now: datetime) -> dict[str, Any]:
    """
    The last known status, plus since when the database is away (`lastTransitionTime` of DatabaseReachable).

    `Ready` keeps its value when it was decided for this very generation; else nothing is known yet and it is False.
    """
    away = negative(ConditionType.DATABASE_REACHABLE, Reason.DATABASE_UNAVAILABLE, _AWAY)
    others = [
        entry.condition
        for entry in wanted.conditions
        if entry.condition.type not in {ConditionType.READY, ConditionType.DATABASE_REACHABLE}
    ]
    return status_of(wanted, conditions=(_last_ready(wanted), away, *others), now=now, fields=kept_fields(wanted))


def _last_ready(wanted: AnyObject) -> Condition:
    recorded: RecordedCondition | None = find(wanted.conditions, ConditionType.READY)
    if recorded is not None:
        last = recorded.condition
        if last.status == "True" and last.observed_generation == wanted.generation:
            return last
    return not_ready(Reason.DATABASE_UNAVAILABLE, "The database does not answer. Retrying.")
