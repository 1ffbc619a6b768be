"""The queue as the worker sees it: leases of sessions, and what is written under them. The functions are in `0004`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from commonplace_runtime.domain.observations import SourceEvent
from commonplace_runtime.store.pool import Pool, faults_as_unavailable
from commonplace_runtime.store.sql import statements

_SQL = statements("jobs")


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
    event_id: UUID | None
    event: SourceEvent | None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A lease and its jobs in order. `expired`: jobs that were given up in passing; without jobs there is no lease."""

    lease: Lease | None
    project_name: str
    jobs: Sequence[ClaimedJob]
    expired: int


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
        event_id=UUID(event["id"]) if event else None,
        event=_event(event),
    )


async def claim(pool: Pool, *, worker: str, lease_seconds: int, max_jobs: int) -> Claim | None:
    """Lease the session that has waited longest; None when nothing is due. Raises Unavailable."""
    async with faults_as_unavailable():
        found = await pool.fetchval(_SQL["claim"], worker, lease_seconds, max_jobs)
    if found is None:
        return None
    if not found["jobs"]:
        return Claim(lease=None, project_name="", jobs=(), expired=found["expired"])
    lease = Lease(
        team_id=UUID(found["team"]["id"]),
        project_id=UUID(found["project"]["id"]),
        session_key=found["sessionKey"],
        token=found["leaseToken"],
    )
    jobs = [_job(job) for job in found["jobs"]]
    return Claim(lease=lease, project_name=found["project"]["name"], jobs=jobs, expired=found["expired"])


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
