"""What a team used this month, for the people who pay for it."""

from typing import Any, Final

from commonplace_runtime.domain.models import ProjectId, TeamId
from commonplace_runtime.domain.quotas import Limits
from commonplace_runtime.store import usage as store
from commonplace_runtime.store.pool import Pool

_STATES: Final = {
    "tokens": ("stopped", "the month's tokens are used up; the next month or a higher limit lets generation go on"),
    "cost": ("stopped", "the month's budget is used up; the next month or a higher limit lets generation go on"),
    "soft_tokens": (
        "deferred",
        "the soft limit of tokens is reached; what waits is generated between 02:00 and 06:00 UTC",
    ),
    "soft_cost": ("deferred", "the soft budget is reached; what waits is generated between 02:00 and 06:00 UTC"),
    "reserved": ("waiting", "calls under way may use up the rest; generation goes on when they have ended"),
}
_HARD: Final = {
    "requests_per_minute": "requestsPerMinute",
    "requests_per_month": "requestsPerMonth",
    "tokens_per_month": "tokensPerMonth",
    "cost_per_month_usd": "costPerMonthUsd",
    "memories": "memories",
    "storage_bytes": "storageBytes",
    "api_keys": "apiKeys",
    "workers": "workers",
}
_EVERYBODYS: Final = ("requests_per_minute", "requests_per_month", "tokens_per_month")
_NO_LIMITS: Final = Limits()
_SOFT: Final = {"soft_tokens_per_month": "tokensPerMonth", "soft_cost_per_month_usd": "costPerMonthUsd"}
_MICRO: Final = 1_000_000


async def get_usage(
    pool: Pool, team_id: TeamId, project_id: ProjectId | None, everybodys: Limits = _NO_LIMITS
) -> dict[str, Any]:
    """
    The team's month so far: `since`, `usage` by kind, `limits`, `breakdown` and whether generation runs.

    `limits` are the stricter of the team's own and `everybodys`.

    With a project the breakdown tells of that one only; the sums are the team's. Costs are whole micro-USD, beside them
    `costUsd` for people. Raises Unavailable.
    """
    found = await store.read_usage(pool, team_id, project_id)
    usage, limits, hold = found["usage"], found["limits"], found["hold"]
    for name in _EVERYBODYS:
        known = [limit for limit in (limits.get(name), getattr(everybodys, name)) if limit is not None]
        if known:
            limits[name] = min(known)
    state, reason = _STATES[hold["reason"]] if hold else ("running", None)
    return {
        "since": f"{found['since']}T00:00:00.000Z",
        "usage": usage,
        "costUsd": usage.get("cost_microusd", 0) / _MICRO,
        "limits": {
            "hard": {shown: limits[name] for name, shown in _HARD.items() if name in limits},
            "soft": {shown: limits[name] for name, shown in _SOFT.items() if name in limits},
        },
        "breakdown": {
            part: [{**row, "costUsd": row["costMicrousd"] / _MICRO} for row in found[part]]
            for part in ("projects", "keys", "models")
        },
        "generation": {"state": state, "until": hold and hold["until"], "reason": reason},
    }
