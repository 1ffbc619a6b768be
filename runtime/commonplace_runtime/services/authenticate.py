"""Who is calling, and whether they may do it now."""

from dataclasses import dataclass

import structlog

from commonplace_runtime import contract
from commonplace_runtime.domain.errors import NotAuthenticated, NotPermitted, QuotaExceeded, RateLimited
from commonplace_runtime.domain.models import Principal
from commonplace_runtime.domain.quotas import Limits, Spending, Usage, refusal
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.observability import GUARD_FAILURES
from commonplace_runtime.store import principals
from commonplace_runtime.store.pool import Pool

log = structlog.get_logger(__name__)

NO_KEY = "Missing API key (Authorization: Bearer <key> or X-Api-Key: <key>)"
REFUSED = "Invalid API key or insufficient scope"


@dataclass(frozen=True, kw_only=True)
class Admission:
    """An admitted caller, or why not. `usage`: what was counted, for whoever learns later what is being spent."""

    principal: Principal
    usage: Usage
    refusal: RateLimited | QuotaExceeded | None


async def authenticate(pool: Pool, token: str | None, access: Access, spending: Spending, limits: Limits) -> Admission:
    """
    The holder of `token`, if it opens `access`; the request is counted on the way.

    Raises NotAuthenticated without a token, NotPermitted for one that is unknown, revoked, expired or too narrow
    (the four look alike), Unavailable when the database is away. A used-up limit is part of the answer. A guard whose
    own table fails lets the request pass: a memory that cannot count is better than none.
    """
    if not token:
        raise NotAuthenticated(NO_KEY)
    found = await principals.authenticate(pool, contract.hash_token(token), access.value, limits)
    if found is None:
        raise NotPermitted(REFUSED)
    principal, usage = found
    for failure in usage.guard_failures:
        guard, _, sqlstate = failure.partition(" ")
        GUARD_FAILURES.labels(guard).inc()
        log.warning("guard_failed_open", guard=guard, sqlstate=sqlstate, team_id=principal.team_id)
    return Admission(principal=principal, usage=usage, refusal=refusal(usage, spending))
