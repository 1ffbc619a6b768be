"""The queue as the worker sees it: leases of sessions, and what is written under them. The functions are in `0007`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from commonplace_runtime.domain.observations import SourceEvent
from commonplace_runtime.store.pool import Pool, faults_as_unavailable
from commonplace_runtime.store.sql import statements

_SQL = statements("jobs")
FIRST: Final = UUID(int=0)
"""Before every team."""


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to work on one session's jobs until somebody else claims them; the token proves it."""

    team_id: UUID
    project_id: UUID
    session_key: str
    token: int

    @property
    def _arguments(self) -> tuple[UUID, UUID, str, int]:
        return self.team_id, self.project_id, self.session_key, self.token


@dataclass(frozen=True, kw_only=True)
class ClaimedJob:
    """One job of a lease. `attempt` counts from 1; `event` is None for jobs about no event."""

    id: UUID
    attempt: int
    max_attempts: int
    created_at: datetime
    source_type: str
    source_id: UUID
    key_id: UUID | None
    event_id: UUID | None
    event: SourceEvent | None


@dataclass(frozen=True, kw_only=True)
class Recent:
    """A memory that an earlier call of the session made and that still stands."""

    id: UUID
    title: str


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """
    A leased session: its jobs in order, and what earlier calls left for this one.

    limited: the team has a budget, so a call needs a reservation. request: what the person asked for last, or empty.
    """

    lease: Lease
    project_name: str
    limited: bool
    request: str
    state: Mapping[str, Any]
    recent: Sequence[Recent]
    jobs: Sequence[ClaimedJob]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """
    What a claim found.

    expired: jobs that were given up in passing. paused: credentials that nobody should call now; where those are all
    that were named, nothing was leased, for `paused_seconds`.
    """

    claimed: Claimed | None
    expired: int = 0
    paused: Sequence[str] = ()
    paused_seconds: float = 0.0


_BUDGETS: Final = ("tokens_per_month", "cost_per_month_usd", "soft_tokens_per_month", "soft_cost_per_month_usd")


def _event(found: Mapping[str, Any] | None) -> SourceEvent | None:
    if found is None:
        return None
    return SourceEvent(
        event_type=found["eventType"],
        source_adapter=found["sourceAdapter"],
        platform_source=found["platformSource"],
        occurred_at=datetime.fromisoformat(found["occurredAt"]),
        payload=found["payload"],
    )


def _job(found: Mapping[str, Any]) -> ClaimedJob:
    event = found["event"]
    return ClaimedJob(
        id=UUID(found["id"]),
        attempt=found["attempt"],
        max_attempts=found["maxAttempts"],
        created_at=datetime.fromisoformat(found["createdAt"]),
        source_type=found["sourceType"],
        source_id=UUID(found["sourceId"]),
        key_id=UUID(found["keyId"]) if found["keyId"] else None,
        event_id=UUID(event["id"]) if event else None,
        event=_event(event),
    )


def _claimed(found: Mapping[str, Any]) -> Claimed:
    limits = found["limits"] or {}
    return Claimed(
        lease=Lease(
            team_id=UUID(found["team"]["id"]),
            project_id=UUID(found["project"]["id"]),
            session_key=found["sessionKey"],
            token=found["leaseToken"],
        ),
        project_name=found["project"]["name"],
        limited=any(limits.get(name) is not None for name in _BUDGETS),
        request=found["request"] or "",
        state=found["state"],
        recent=[Recent(id=UUID(memory["id"]), title=memory["title"]) for memory in found["recent"]],
        jobs=[_job(job) for job in found["jobs"]],
    )


async def claim(
    pool: Pool, *, worker: str, lease_seconds: int, max_jobs: int, after: UUID = FIRST, credentials: Sequence[str] = ()
) -> Claim | None:
    """
    Lease a session of the next team after `after` that has due work; None when nothing is due.

    credentials: whom the worker may call. Raises Unavailable.
    """
    async with faults_as_unavailable():
        found = await pool.fetchval(_SQL["claim"], worker, lease_seconds, max_jobs, after, list(credentials))
    if found is None:
        return None
    return Claim(
        claimed=_claimed(found) if found["jobs"] else None,
        expired=found["expired"],
        paused=found["paused"],
        paused_seconds=float(found.get("pausedSeconds", 0.0)),
    )


async def next_team(pool: Pool, after: UUID) -> UUID:
    """Whose turn it is after that team's; `FIRST` where the round is over. Raises Unavailable."""
    async with faults_as_unavailable():
        team: UUID | None = await pool.fetchval(_SQL["next_team"], after)
    return team or FIRST


async def reserve(pool: Pool, lease: Lease, call: Mapping[str, Any]) -> Mapping[str, Any]:
    """Set aside what a call may cost; the shapes stand above `reserve_v1`. Safe to run again. Raises Unavailable."""
    async with faults_as_unavailable():
        answer: Mapping[str, Any] = await pool.fetchval(_SQL["reserve"], *lease._arguments, call)
    return answer


async def pause(pool: Pool, credential: str, *, seconds: float, reason: str) -> None:
    """Nobody calls this provider with this endpoint and key for so long. Raises Unavailable."""
    async with faults_as_unavailable():
        await pool.execute(_SQL["pause"], credential, seconds, reason)


async def extend_lease(pool: Pool, lease: Lease, *, lease_seconds: int) -> bool:
    """Heartbeat; False when the lease was lost. Raises Unavailable."""
    async with faults_as_unavailable():
        return bool(await pool.fetchval(_SQL["extend_lease"], *lease._arguments, lease_seconds))


async def complete(pool: Pool, lease: Lease, results: Mapping[str, Any]) -> Mapping[str, Any]:
    """
    Write memories and complete jobs; the shapes stand above `complete_jobs_v1`. Safe to run again.

    Raises Unavailable, also when nobody knows whether the transaction was committed.
    """
    async with faults_as_unavailable():
        written: Mapping[str, Any] = await pool.fetchval(_SQL["complete"], *lease._arguments, results)
    return written


async def fail(pool: Pool, lease: Lease, failures: Mapping[str, Any]) -> Mapping[str, Any]:
    """End an attempt without memories; the shapes stand above `fail_jobs_v1`. Safe to run again. Raises Unavailable."""
    async with faults_as_unavailable():
        written: Mapping[str, Any] = await pool.fetchval(_SQL["fail"], *lease._arguments, failures)
    return written


async def count_lost(pool: Pool, lease: Lease, payer: UUID | None, spent: Sequence[Mapping[str, Any]]) -> None:
    """Count calls whose results nobody writes; not to be run again. spent: as in `count_spent`. Raises Unavailable."""
    async with faults_as_unavailable():
        await pool.execute(_SQL["count_lost"], lease.team_id, lease.project_id, payer, list(spent))


async def release(pool: Pool, lease: Lease) -> bool:
    """Hand the lease back unused; False when it was lost. Raises Unavailable."""
    async with faults_as_unavailable():
        return bool(await pool.fetchval(_SQL["release"], *lease._arguments))


async def queue_stats(pool: Pool) -> Mapping[str, float]:
    """`{"backlog", "oldestSeconds", "inFlight"}` over all teams. Raises Unavailable."""
    async with faults_as_unavailable():
        stats: Mapping[str, float] = await pool.fetchval(_SQL["queue_stats"])
    return stats


async def housekeeping(pool: Pool, *, batch: int) -> Mapping[str, int] | None:
    """Remove what time has made useless; None while another worker is at it. Raises Unavailable."""
    async with faults_as_unavailable():
        removed: Mapping[str, int] | None = await pool.fetchval(_SQL["housekeeping"], batch)
    return removed
