"""Rows as an ingest leaves them, and ways to wait for what a worker makes of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any
from uuid import UUID

from commonplace_runtime.domain.observations import Generated, Observation, SourceEvent
from commonplace_runtime.entrypoints.worker import run_worker
from commonplace_runtime.ids import uuid7
from commonplace_runtime.llm.ports import Batch, Estimate, MayCall
from commonplace_runtime.services.generate import Terms
from commonplace_runtime.settings import Settings, load_settings
from commonplace_runtime.store import jobs as store
from commonplace_runtime.store.jobs import ClaimedJob, Lease
from commonplace_runtime.store.pool import Pool
from tests.conftest import Database


@dataclass(frozen=True, kw_only=True)
class Tenant:
    team_id: UUID
    project_id: UUID
    key_id: UUID
    actor: str = "human:ada"


@dataclass(frozen=True, kw_only=True)
class Put:
    event_id: UUID
    job_id: UUID
    session_key: str


async def make_tenant(pool: Pool) -> Tenant:
    tenant = Tenant(team_id=uuid7(), project_id=uuid7(), key_id=uuid7())
    await pool.execute(
        "INSERT INTO commonplace.teams (id, slug, name) VALUES ($1, $2, 'Team')", tenant.team_id, f"t-{tenant.team_id}"
    )
    await pool.execute(
        "INSERT INTO commonplace.projects (id, team_id, name) VALUES ($1, $2, 'default')",
        tenant.project_id,
        tenant.team_id,
    )
    return tenant


_INGEST = """
WITH event AS (
    INSERT INTO commonplace.events (id, team_id, project_id, content_session_id, source_adapter, idempotency_key,
        event_type, actor, key_id, payload, occurred_at)
    VALUES ($1, $3, $4, $5, 'hook', $1::uuid::text, $6, $7, $8, $9, now()))
INSERT INTO commonplace.jobs (id, team_id, project_id, session_key, event_id, source_type, source_id, job_type,
    run_after, key_id, actor, max_attempts, awaited)
VALUES ($2, $3, $4, $5, $1, 'agent_event', $1, 'event', now() + make_interval(secs => $10), $8, $7, $11, $12)
"""
_GROUP = """
INSERT INTO commonplace.job_groups AS g (team_id, project_id, session_key, available_at, waiting)
VALUES ($1, $2, $3, now() + make_interval(secs => $4), 1)
ON CONFLICT (team_id, project_id, session_key) DO UPDATE SET waiting = g.waiting + 1, available_at =
    CASE WHEN g.lease_until > now() THEN g.available_at
    ELSE least(coalesce(g.available_at, 'infinity'), excluded.available_at) END
"""


async def put_event(
    pool: Pool,
    tenant: Tenant,
    *,
    session: str = "c:claude:one",
    payload: object = "The staging database listens on port 5433.",
    event_type: str = "assistant_message",
    delay: float = 0.0,
    max_attempts: int = 3,
    awaited: bool = False,
) -> Put:
    put = Put(event_id=uuid7(), job_id=uuid7(), session_key=session)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(_GROUP, tenant.team_id, tenant.project_id, session, delay)
        await connection.execute(
            _INGEST,
            put.event_id,
            put.job_id,
            tenant.team_id,
            tenant.project_id,
            session,
            event_type,
            tenant.actor,
            tenant.key_id,
            payload,
            delay,
            max_attempts,
            awaited,
        )
    return put


async def statuses(pool: Pool, puts: Sequence[Put]) -> list[str]:
    rows = await pool.fetch(
        "SELECT status FROM commonplace.jobs WHERE id = ANY($1::uuid[]) ORDER BY number", [put.job_id for put in puts]
    )
    return [row["status"] for row in rows]


async def make_due(pool: Pool, put: Put) -> None:
    """Let the retry that the job waits for be now."""
    await pool.execute("UPDATE commonplace.jobs SET run_after = now() WHERE id = $1", put.job_id)
    await pool.execute(
        "UPDATE commonplace.job_groups SET available_at = now() WHERE session_key = $1 AND lease_until IS NULL",
        put.session_key,
    )


async def expire_lease(pool: Pool, put: Put) -> None:
    """What a minute of silence does."""
    await pool.execute(
        "UPDATE commonplace.job_groups SET lease_until = now() - interval '1 s', available_at = now() - interval '1 s' "
        "WHERE session_key = $1 AND lease_until IS NOT NULL",
        put.session_key,
    )


async def memories(pool: Pool, tenant: Tenant) -> Sequence[Any]:
    return await pool.fetch(
        "SELECT m.*, array_agg(s.event_id ORDER BY s.event_id) AS events FROM commonplace.memories m "
        "JOIN commonplace.memory_sources s ON s.memory_id = m.id WHERE m.team_id = $1 GROUP BY m.id ORDER BY m.number",
        tenant.team_id,
    )


async def take(pool: Pool, *, worker: str = "w") -> tuple[Lease, Sequence[ClaimedJob]]:
    """Claim as a worker does, and be sure that there was something."""
    claim = await store.claim(pool, worker=worker, lease_seconds=60, max_jobs=10)
    assert claim is not None
    assert claim.claimed is not None
    return claim.claimed.lease, claim.claimed.jobs


async def until(holds: Callable[[], Awaitable[bool]], *, seconds: float = 30.0) -> None:
    deadline = monotonic() + seconds
    while not await holds():
        assert monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.02)


def terms(worker: str = "test", *, lease_seconds: float = 60.0, jitter: float = 0.0) -> Terms:
    return Terms(worker=worker, lease_seconds=lease_seconds, jitter=lambda: jitter, price=price)


def price(_model: str, input_tokens: int, output_tokens: int) -> int:
    """Ten micro-USD an input token, fifty an output token."""
    return 10 * input_tokens + 50 * output_tokens


class ScriptedGenerator:
    """A generator whose answer is a function; it notes what it was asked, and can be held."""

    provider = "scripted"
    credentials = ("scripted:1",)
    folds_runs = False

    def __init__(self, answer: Callable[[Batch], Generated] | None = None, *, batch: int = 30) -> None:
        self._answer = answer or one_each
        self._batch = batch
        self.batches: list[list[object]] = []
        self.called = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    def batch_size(self, events: Sequence[SourceEvent]) -> int:
        return min(len(events), self._batch)

    def estimate(self, batch: Batch) -> Estimate | None:
        return Estimate(provider="scripted", model="scripted-1", input_tokens=100 * len(batch.events), output_tokens=50)

    async def generate(
        self, batch: Batch, *, avoid: Collection[str] = (), may_call: MayCall | None = None
    ) -> Generated:
        self.avoided = set(avoid)
        self.batches.append([event.payload for event in batch.events])
        self.called.set()
        await self.go_on.wait()
        return self._answer(batch)

    async def aclose(self) -> None:
        pass


def one_each(batch: Batch) -> Generated:
    return Generated(
        observations=[
            Observation(kind="discovery", title=f"seen {event.payload}", narrative="it was seen", evidence=(number,))
            for number, event in enumerate(batch.events, start=1)
        ],
        provider="scripted",
        model="scripted-1",
        input_tokens=10,
        output_tokens=5,
    )


@asynccontextmanager
async def background(work: Awaitable[Any]) -> AsyncIterator["asyncio.Task[Any]"]:
    """Run `work` beside the test, and end it with the test."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def environ(database_url: str, **more: str) -> dict[str, str]:
    return {"COMMONPLACE_DATABASE_URL": database_url, "COMMONPLACE_WORKER_POLL_SECONDS": "0.3"} | more


def worker_settings(database: Database, **more: str) -> Settings:
    return load_settings(environ(database.runtime_url, **more))


@asynccontextmanager
async def started_worker(settings: Settings) -> AsyncIterator["asyncio.Task[None]"]:
    """A worker beside the test; it is asked to stop at the end and must do so."""
    stop = asyncio.Event()
    async with background(run_worker(settings, stop=stop)) as task:
        yield task
        stop.set()
        async with asyncio.timeout(15):
            await task
