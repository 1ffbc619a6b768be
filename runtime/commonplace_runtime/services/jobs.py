"""Jobs: looked up, and waited for without polling."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Final, TypeAlias

import structlog

from commonplace_runtime.domain.errors import NotFound, Unavailable
from commonplace_runtime.domain.models import Principal
from commonplace_runtime.domain.wire import FINISHED, JobRow
from commonplace_runtime.store import job_views
from commonplace_runtime.store.pool import Pool

log = structlog.get_logger(__name__)

LOOK_AGAIN_SECONDS: Final = 5.0
"""While notices arrive, a safety net only."""
LOOK_AGAIN_DEAF_SECONDS: Final = 0.5
"""While the listener is down."""
_RECONNECT_SECONDS: Final = (0.2, 5.0)

Listening: TypeAlias = Callable[[Callable[[str], None]], AbstractAsyncContextManager[asyncio.Event]]


async def get_job(pool: Pool, principal: Principal, job_id: str) -> JobRow:
    """One job within the key's reach. Raises NotFound."""
    found = await job_views.get_jobs(pool, principal.team_id, principal.project_id, [job_id])
    for job in found.values():
        return job
    raise NotFound("Generation job not found")


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
