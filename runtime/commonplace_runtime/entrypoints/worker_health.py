"""
What a worker says to probes: whether its event loop turns, and whether it can work.

Both are noted in the loop and read by the thread that serves the metrics: a probe asks the database nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, Final

import structlog

from commonplace_runtime import contract
from commonplace_runtime.observability import Probe
from commonplace_runtime.services.readiness import readiness
from commonplace_runtime.store.pool import Pool

log = structlog.get_logger(__name__)

BEAT_SECONDS: Final = 1.0
STALE_SECONDS: Final = 15.0
"""A loop that has not turned for so long does not claim, does not renew its leases and will not stop when told to."""
LOOK_SECONDS: Final = 5.0
RECENT_SECONDS: Final = 15.0
"""Three looks: one that a busy pool kept waiting says nothing."""


class WorkerHealth:
    """Written by one event loop, read from any thread."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._beat_at = clock()
        self._answered_at: float | None = None
        self._problem: str | None = None
        self._stop: asyncio.Event | None = None

    @property
    def probes(self) -> Mapping[str, Probe]:
        """Path → what is wrong there."""
        return {contract.HEALTH_PATH: self.death, contract.WORKER_READINESS_PATH: self.unreadiness}

    def death(self) -> str | None:
        """What only a restart heals; None while the loop turns, with or without a database."""
        age = self._clock() - self._beat_at
        return f"the event loop has not turned for {age:.0f} s" if age > STALE_SECONDS else None

    def unreadiness(self) -> str | None:
        """Why no job is worked on; None while the database has answered recently and its schema is new enough."""
        if (dead := self.death()) is not None:
            return dead
        if self._stop is not None and self._stop.is_set():
            return "the worker was told to stop"
        if self._answered_at is None:
            return self._problem or "the database has not been reached yet"
        age = self._clock() - self._answered_at
        if age > RECENT_SECONDS:
            return f"the database has not answered for {age:.0f} s"
        return self._problem

    def beat(self) -> None:
        """The loop turns."""
        self._beat_at = self._clock()

    async def look(self, pool: Pool) -> None:
        """Ask the database once; takes at most as long as `readiness` waits."""
        found = await readiness(pool)
        if found.schema is not None:
            self._answered_at = self._clock()
            self._problem = found.problem

    @asynccontextmanager
    async def beating(self, stop: asyncio.Event) -> AsyncIterator[None]:
        """Beat for the time of the block; once `stop` is set, no job is claimed any more."""
        self._stop = stop
        async with _beside(self._beat_for_ever()):
            yield

    @asynccontextmanager
    async def looking(self, pool: Pool) -> AsyncIterator[None]:
        """Look at the database for the time of the block."""
        async with _beside(self._look_for_ever(pool)):
            yield

    async def _beat_for_ever(self) -> None:
        while True:
            self.beat()
            await asyncio.sleep(BEAT_SECONDS)

    async def _look_for_ever(self, pool: Pool) -> None:
        while True:
            try:
                await self.look(pool)
            except Exception:
                # What it knew grows old and says so by itself.
                log.exception("look_broke")
            await asyncio.sleep(LOOK_SECONDS)


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
