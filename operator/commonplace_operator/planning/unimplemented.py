"""Fields that are in the schema from the start and are acted on later: named, never silently ignored."""

from collections.abc import Mapping
from typing import Any, Final

from commonplace_operator.resources.objects import MemoryRuntime, MemoryTeam, Quota

# Path → the value that the schema fills in by itself and that asks for nothing.
_RUNTIME: Final[Mapping[str, Any]] = {
    "version": None,
    "image": None,
    "ingress": None,
    "database.ownerSecretRef": None,
    "database.runtimeSecretRef": None,
    "database.embedded": None,
    "queue": None,
    "provider": None,
    "api.replicas": 2,
    "api.resources": None,
    "workers.replicas": 1,
    "workers.concurrency": 8,
    "workers.resources": None,
    "workers.terminationGracePeriodSeconds": 120,
    "workers.autoscaling": None,
    "monitoring": None,
}


# What authenticate_v2 and put_key_v1 refuse by, reserve_v1 holds generation by, and the scaling counts a team up to.
_ENFORCED: Final = frozenset(
    {
        "hard.requestsPerMinute",
        "hard.requestsPerMonth",
        "hard.apiKeys",
        "hard.workers",
        "hard.tokensPerMonth",
        "hard.costPerMonthUSD",
        "soft.tokensPerMonth",
        "soft.costPerMonthUSD",
    }
)


def _value(spec: Mapping[str, Any], path: str) -> Any:
    value: Any = spec
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _asks(value: Any, default: Any) -> bool:
    return value not in (None, {}, [], default)


def unimplemented_in_runtime(runtime: MemoryRuntime) -> tuple[str, ...]:
    """
    Paths below `spec` that the user set and that nobody acts on.

    For External that is all that concerns pods: they are somebody else's. Managed acts on everything, but data in a
    database of the user's own is never deleted.
    """
    if runtime.spec.management == "Managed":
        asks_for_deletion = runtime.spec.deletion_policy == "Delete" and not runtime.spec.database.embedded
        return ("spec.deletionPolicy",) if asks_for_deletion else ()
    found = [f"spec.{path}" for path, default in _RUNTIME.items() if _asks(_value(runtime.raw_spec, path), default)]
    if runtime.raw_spec.get("deletionPolicy") == "Delete":
        found.append("spec.deletionPolicy")
    return tuple(found)


def unimplemented_in_team(team: MemoryTeam) -> tuple[str, ...]:
    """Paths below `spec` that the user set and that this version does not act on."""
    found = []
    if team.spec.isolation == "Dedicated":
        found.append("spec.isolation")
    if team.spec.policies.retention.events is not None:
        found.append("spec.policies.retention.events")
    if team.spec.members:
        found.append("spec.members")
    return tuple(found)


def _limits(quota: Quota) -> tuple[str, ...]:
    return tuple(f"{part}.{name}" for part in ("hard", "soft") for name in quota.raw_spec.get(part) or {})


def enforces_anything(quota: Quota) -> bool:
    """Whether any limit of it is one that this version acts on."""
    return not _ENFORCED.isdisjoint(_limits(quota))


def unimplemented_in_quota(quota: Quota) -> tuple[str, ...]:
    """Paths below `spec` that the user set and that this version measures at most, but never enforces."""
    return tuple(f"spec.{limit}" for limit in _limits(quota) if limit not in _ENFORCED)
