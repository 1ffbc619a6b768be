"""A Quota's limits in the database's units, and what usage says about them."""

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from commonplace_operator.errors import SpecError
from commonplace_operator.resources.objects import Quota
from commonplace_operator.resources.quantities import parse_quantity
from commonplace_operator.resources.times import parse_time

# Field of `spec.hard` → name in put_quota_v1. Storage is named by its unit there.
_HARD: Final = {
    "requests_per_minute": "requestsPerMinute",
    "requests_per_month": "requestsPerMonth",
    "tokens_per_month": "tokensPerMonth",
    "memories": "memories",
    "storage": "storageBytes",
    "api_keys": "apiKeys",
    "workers": "workers",
}

# Column of team_limits → field of `status.effective`, which speaks as the spec does.
_EFFECTIVE: Final = {
    "requests_per_minute": "requestsPerMinute",
    "requests_per_month": "requestsPerMonth",
    "tokens_per_month": "tokensPerMonth",
    "cost_per_month_usd": "costPerMonthUSD",
    "memories": "memories",
    "storage_bytes": "storage",
    "api_keys": "apiKeys",
    "workers": "workers",
}


def _dollars(value: int | float | str) -> str:
    try:
        return format(Decimal(str(value)), "f")
    except InvalidOperation as error:
        raise SpecError(f"{value!r} is not an amount of dollars") from error


def wanted_limits(quota: Quota) -> dict[str, int | str]:
    """Limits under put_quota_v1's names: whole numbers, dollars as decimal text. Raises SpecError."""
    hard, soft = quota.spec.hard, quota.spec.soft
    limits: dict[str, int | str] = {}
    for field, name in _HARD.items():
        value = getattr(hard, field)
        if value is not None:
            limits[name] = parse_quantity(value)
    if hard.cost_per_month_usd is not None:
        limits["costPerMonthUSD"] = _dollars(hard.cost_per_month_usd)
    if soft.tokens_per_month is not None:
        limits["softTokensPerMonth"] = parse_quantity(soft.tokens_per_month)
    if soft.cost_per_month_usd is not None:
        limits["softCostPerMonthUSD"] = _dollars(soft.cost_per_month_usd)
    return limits


def effective_limits(stored: Mapping[str, str]) -> dict[str, str]:
    """The minimum over the team's enforced Quotas, under the spec's names."""
    return {_EFFECTIVE[name]: value for name, value in stored.items() if name in _EFFECTIVE}


USE_STEP: Final = Decimal("0.05")
USE_TIME: Final = timedelta(minutes=10)


def shown_use(used: Mapping[str, Decimal]) -> dict[str, str]:
    """Figures as `status.used` shows them."""
    return {name: format(value.normalize(), "f") for name, value in sorted(used.items())}


def is_news(recorded: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """
    Whether `status` says enough that `recorded` does not: a busy team must not rewrite its Quotas all day.

    Conditions, limits and a figure that moved by more than 5 % are told at once, a smaller move after 10 min, and the
    time of measuring alone never.
    """
    told = {"used", "measuredAt"}
    if {k: v for k, v in status.items() if k not in told} != {k: v for k, v in recorded.items() if k not in told}:
        return True
    before, now = recorded.get("used") or {}, status["used"]
    if before == now:
        return False
    if before.keys() != now.keys() or "measuredAt" not in recorded:
        return True
    if any(abs(Decimal(now[name]) - Decimal(before[name])) > Decimal(before[name]) * USE_STEP for name in now):
        return True
    return parse_time(status["measuredAt"]) - parse_time(recorded["measuredAt"]) >= USE_TIME


# Figure of usage → name of its soft limit in put_quota_v1: what a model call spends.
_SOFT: Final = {"tokensPerMonth": "softTokensPerMonth", "costPerMonthUSD": "softCostPerMonthUSD"}


def over_limit(limits: Mapping[str, int | str], used: Mapping[str, Decimal]) -> tuple[str, ...]:
    """Figures of this Quota whose use has reached the hard limit, sorted."""
    return tuple(sorted(name for name, amount in used.items() if name in limits and amount >= Decimal(limits[name])))


def over_soft_limit(limits: Mapping[str, int | str], used: Mapping[str, Decimal]) -> tuple[str, ...]:
    """Figures of this Quota whose use has reached the soft limit, sorted."""
    return tuple(
        sorted(n for n, soft in _SOFT.items() if soft in limits and used.get(n, Decimal(0)) >= Decimal(limits[soft]))
    )


def use_message(over: tuple[str, ...], near: tuple[str, ...], *, is_enforced: bool) -> str:
    """
    What the condition Exceeded says of figures over the hard (`over`) and over the soft limit (`near`), "" for none.

    is_enforced: with `enforcement: Enforce`; only then does anything follow from a limit of tokens or cost.
    """
    warned = [name for name in near if name not in over]
    parts = [
        f"{title}: {', '.join(names)}."
        for title, names in (("Used up", over), ("Over the soft limit", warned))
        if names
    ]
    if is_enforced and not _SOFT.keys().isdisjoint(over):
        parts.append("Generation stops until the month ends (UTC) or the limit is raised; capture and search go on.")
    elif is_enforced and warned:
        parts.append("Generation waits for 02:00 to 06:00 UTC or a higher limit; capture and search go on.")
    return " ".join(parts)
