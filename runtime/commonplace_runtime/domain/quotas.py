"""
Whether a request is admitted, from what was counted.

A refusal is a value. Reading is never refused for tokens, nor is capture: tokens are spent by generating, which
the worker stops at the cap, and a refused hook would lose its event for good.
"""

from dataclasses import dataclass
from enum import Enum

from commonplace_runtime.domain.errors import QuotaExceeded, RateLimited


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a process limits by itself, whoever calls; beside a team's own limits the stricter holds. None: no limit."""

    requests_per_minute: int | None = None
    requests_per_month: int | None = None
    tokens_per_month: int | None = None
    metered: bool = False


@dataclass(frozen=True, kw_only=True)
class MinuteCount:
    """One key in this minute; `requests` includes the present one."""

    limit: int
    requests: int
    reset_epoch: int
    seconds_left: int

    @property
    def remaining(self) -> int:
        """Requests still allowed in this minute."""
        return max(0, self.limit - self.requests)


@dataclass(frozen=True, kw_only=True)
class MonthCount:
    """
    One team in this UTC month; `requests` excludes the present one. A cap of None: no such limit.

    capture_cap: tokens from which on nothing more is captured.
    """

    requests: int
    request_cap: int | None
    tokens: int
    token_cap: int | None
    capture_cap: int | None = None


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What was counted; None where nothing is limited. guard_failures: `guard SQLSTATE` of those that let it pass."""

    minute: MinuteCount | None = None
    month: MonthCount | None = None
    guard_failures: tuple[str, ...] = ()


class Spending(Enum):
    """What a route does to the token budget."""

    NOTHING = "nothing"
    """Reading, and what has to do with keys."""
    CAPTURE = "capture"
    """
    Captures. A team's own limit stops generation and never capture; the cap of the environment, which is for whoever
    sells memory, stops both, as claude-mem says it does.
    """
    TOKENS = "tokens"
    """Asks a model on the caller's behalf, or writes what is no capture: over the cap the peer's clients expect 402."""
    EXEMPT = "exempt"
    """Looks at what was used: possible above all when nothing else is any more."""


def refusal(usage: Usage, spending: Spending) -> RateLimited | QuotaExceeded | None:
    """Why the request is refused, or None. The rate comes first, then requests, then tokens."""
    minute, month = usage.minute, usage.month
    if minute is not None and minute.requests > minute.limit:
        message = f"Rate limit exceeded ({minute.limit} requests / 60s)"
        return RateLimited(message, retry_after_seconds=max(1, minute.seconds_left))
    if month is None or spending is Spending.EXEMPT:
        return None
    if month.request_cap is not None and month.requests >= month.request_cap:
        return _over("request", month.requests, month.request_cap)
    cap = {Spending.TOKENS: month.token_cap, Spending.CAPTURE: month.capture_cap}.get(spending)
    if cap is not None and month.tokens >= cap:
        return _over("tokens", month.tokens, cap)
    return None


def _over(kind: str, used: int, cap: int) -> QuotaExceeded:
    return QuotaExceeded(f"Monthly {kind} quota reached ({cap})", used=used, cap=cap)
