"""Who a token belongs to."""

from collections.abc import Iterable
from typing import Any

from commonplace_runtime.domain.models import KeyId, Principal, ProjectId, TeamId
from commonplace_runtime.domain.quotas import Limits, MinuteCount, MonthCount, Usage
from commonplace_runtime.store.calls import fetch_value
from commonplace_runtime.store.pool import Pool
from commonplace_runtime.store.sql import statements

_SQL = statements("principals")


async def authenticate(
    pool: Pool, token_hash: str, scopes: Iterable[str], limits: Limits
) -> tuple[Principal, Usage] | None:
    """
    The holder of a token that is good at this moment and what was used; None too without any of `scopes`.

    Counts the request.
    """
    row: dict[str, Any] | None = await fetch_value(
        pool,
        _SQL["authenticate"],
        token_hash,
        list(scopes),
        limits.requests_per_minute,
        limits.requests_per_month,
        limits.tokens_per_month,
        limits.metered,
    )
    if row is None:
        return None
    minute, month = row["minute"], row["month"]
    principal = Principal(
        key_id=KeyId(row["keyId"]),
        team_id=TeamId(row["teamId"]),
        team_slug=row["teamSlug"],
        project_id=None if row["projectId"] is None else ProjectId(row["projectId"]),
        project=row["project"],
        actor=row["actor"],
        scopes=frozenset(row["scopes"]),
    )
    usage = Usage(
        minute=None
        if minute is None
        else MinuteCount(
            limit=minute["limit"],
            requests=minute["requests"],
            reset_epoch=minute["resetEpoch"],
            seconds_left=minute["secondsLeft"],
        ),
        month=None
        if month is None
        else MonthCount(
            requests=month["requests"],
            request_cap=month["requestCap"],
            tokens=month["tokens"],
            token_cap=month["tokenCap"],
            capture_cap=limits.tokens_per_month,
        ),
        guard_failures=tuple(row["guardFailures"]),
    )
    return principal, usage
