"""Jobs: looked up, retried and cancelled by people, and waited for without polling."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

import structlog

from commonplace_runtime.domain.errors import Conflict, NotFound, Unavailable
from commonplace_runtime.domain.models import Principal, Reach
from commonplace_runtime.domain.wire import FINISHED, JobPage, JobRow
from commonplace_runtime.services.doorbell import Doorbell
from commonplace_runtime.store import job_views
from commonplace_runtime.store.job_views import Wanted
from commonplace_runtime.store.pool import Pool

log = structlog.get_logger(__name__)

LOOK_AGAIN_SECONDS: Final = 5.0
"""While notices arrive, a safety net only."""
LOOK_AGAIN_DEAF_SECONDS: Final = 0.5
"""While the listener is down."""
_RECONNECT_SECONDS: Final = (0.2, 5.0)

Listening: TypeAlias = Callable[[Callable[[str], None]], AbstractAsyncContextManager[asyncio.Event]]


MAX_OFFSET: Final = 100_000
"""How far one may page; older jobs are found by a filter."""
MAX_RETRIES: Final = 1000
"""Jobs that one call may put back."""
_NOT_RETRIED: Final = {
    "processing": "Generation job is currently processing; cancel or wait for completion before retrying",
    "completed": "Generation job already completed; retrying would duplicate observations",
}


@dataclass(frozen=True, kw_only=True)
class JobQuery:
    """Which jobs are to be listed. project: id or name, None for all in reach. mode: what audit calls the question."""

    mode: str
    project: str | None
    wanted: Wanted
    limit: int
    offset: int
    with_payload: bool = False


async def get_job(pool: Pool, reach: Reach, job_id: str) -> JobRow:
    """One job within reach, with what holds it back. Raises NotFound."""
    job = await job_views.show_job(pool, reach.team_id, reach.project_id, job_id)
    if job is None:
        raise NotFound("Generation job not found")
    return job


async def list_jobs(pool: Pool, reach: Reach, query: JobQuery) -> JobPage:
    """A page of jobs, newest first. Raises NotFound for a project out of reach."""
    page = await job_views.list_jobs(
        pool,
        reach,
        mode=query.mode,
        project=query.project,
        wanted=query.wanted,
        limit=query.limit,
        offset=query.offset,
        with_payload=query.with_payload,
    )
    if page is None:
        raise NotFound("Project not found")
    return page


@dataclass(frozen=True, kw_only=True)
class Retried:
    """A job that waits for a worker, again or still; `times`: how often somebody asked for it."""

    job: JobRow
    times: int
    was_queued: bool


async def retry_job(pool: Pool, doorbell: Doorbell, reach: Reach, job_id: str) -> Retried:
    """
    Put a failed, cancelled or stranded job back into the queue, to be claimed now; a queued one is let go at once.

    Raises NotFound, and Conflict for one that is completed or being worked on.
    """
    found = await job_views.retry_job(pool, reach, job_id)
    if found is None:
        raise NotFound("Generation job not found")
    if found["outcome"] in _NOT_RETRIED:
        raise Conflict(_NOT_RETRIED[found["outcome"]])
    await doorbell.ring()
    return Retried(job=found["job"], times=found["retriedCount"], was_queued=found["outcome"] == "already_queued")


async def retry_jobs(pool: Pool, doorbell: Doorbell, reach: Reach, wanted: Wanted, *, limit: int) -> Mapping[str, int]:
    """
    Put up to `limit` failed (or, by `wanted`, cancelled) jobs back, all in one transaction: `{"retried", "remaining"}`.

    Raises NotFound for a project out of reach.
    """
    done = await job_views.retry_jobs(pool, reach, wanted={"status": "failed", **wanted}, limit=limit)
    if done is None:
        raise NotFound("Project not found")
    if done["retried"]:
        await doorbell.ring()
    return done


async def cancel_job(pool: Pool, reach: Reach, job_id: str) -> tuple[JobRow, bool]:
    """The cancelled job, and whether it was cancelled already. Raises NotFound, and Conflict for a completed one."""
    found = await job_views.cancel_job(pool, reach, job_id)
    if found is None:
        raise NotFound("Generation job not found")
    if found["outcome"] == "completed":
        raise Conflict("Generation job already completed; cannot cancel")
    return found["job"], found["outcome"] == "already_cancelled"


class JobNotices:
    """Wakes whoever waits for a job when Postgres says that it ended. One listening connection a process."""

    def __init__(self, listening: Listening) -> None:
        self._listening = listening
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._is_hearing = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen, reconnecting with growing pauses, as long as the block runs."""
        async with asyncio.TaskGroup() as tasks:
            listener = tasks.create_task(self._listen())
            try:
                yield
            finally:
                listener.cancel()

    async def _listen(self) -> None:
        pause, longest = _RECONNECT_SECONDS
        while True:
            try:
                async with self._listening(self._heard) as lost:
                    self._is_hearing = True
                    self._wake_all()  # notices sent while nobody listened are gone
                    pause = _RECONNECT_SECONDS[0]
                    await lost.wait()
            except Unavailable as error:
                log.warning("job_notices_lost", error=error.message, retry_in_seconds=pause)
            self._is_hearing = False
            self._wake_all()
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)

    def _heard(self, job_id: str) -> None:
        for event in self._waiting.get(job_id, ()):
            event.set()

    def _wake_all(self) -> None:
        for events in self._waiting.values():
            for event in events:
                event.set()

    async def wait(
        self, pool: Pool, principal: Principal, job_ids: Sequence[str], *, seconds: float
    ) -> Mapping[str, JobRow]:
        """
        The jobs as they are once all have ended, or after `seconds`, whichever is first.

        A database that goes away in between does not end the wait: the events are stored, and the caller is told.
        """
        woken = asyncio.Event()
        for job_id in job_ids:
            self._waiting.setdefault(job_id, set()).add(woken)
        jobs: Mapping[str, JobRow] = {}
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            while True:
                woken.clear()
                with suppress(Unavailable):
                    jobs = await job_views.get_jobs(pool, principal.team_id, None, job_ids)
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0 or (jobs and all(job["status"] in FINISHED for job in jobs.values())):
                    return jobs
                pause = LOOK_AGAIN_SECONDS if self._is_hearing else LOOK_AGAIN_DEAF_SECONDS
                with suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), min(left, pause))
        finally:
            self._forget(job_ids, woken)

    def _forget(self, job_ids: Sequence[str], woken: asyncio.Event) -> None:
        for job_id in job_ids:
            events = self._waiting.get(job_id)
            if events is not None:
                events.discard(woken)
                if not events:
                    del self._waiting[job_id]
