"""The queue as autoscalers and probes see it: gauges that run out, and lanes that are asked for every other second."""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final

import structlog

from commonplace_runtime.domain.errors import Unavailable
from commonplace_runtime.domain.models import Json
from commonplace_runtime.domain.wire import LaneRow, lanes_of
from commonplace_runtime.observability import QUEUE
from commonplace_runtime.scaling import QueueFigures, ScalingTargets, desired_workers
from commonplace_runtime.settings import Settings
from commonplace_runtime.store import job_views, jobs
from commonplace_runtime.store.pool import Pool

log = structlog.get_logger(__name__)

REFRESH_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 5.0


def scaling_targets(settings: Settings) -> ScalingTargets:
    """What the settings want of a runtime's workers."""
    return ScalingTargets(
        drain_seconds=settings.scaling_drain_seconds,
        age_seconds=settings.scaling_age_seconds,
        concurrency=settings.worker_concurrency,
        least=min(settings.scaling_min_workers, settings.scaling_max_workers),
        most=settings.scaling_max_workers,
    )


async def watch_queue(pool: Pool, settings: Settings) -> None:
    """
    Look at the queue every REFRESH_SECONDS until cancelled. While Postgres is away the gauges run out.

    So they do where the schema is of another version: its figures are logged as broken, and looked for again.
    """
    targets = scaling_targets(settings)
    while True:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                stats = await jobs.queue_stats(pool)
            queue = QueueFigures(
                backlog=int(stats["backlog"]),
                oldest_seconds=stats["oldestSeconds"],
                in_flight=int(stats["inFlight"]),
                busy_sessions=int(stats["busySessions"]),
                service_seconds=stats["serviceSeconds"],
                arrival_rate=stats["arrivalRate"],
                steady_rate=stats["steadyRate"],
                sessions=int(stats["sessions"]),
            )
            QUEUE.show(settings.runtime_name, queue, desired_workers(queue, targets))
        except (Unavailable, TimeoutError) as error:
            log.debug("queue_not_seen", error=type(error).__name__)
        except Exception:
            log.exception("queue_look_broke")
        await asyncio.sleep(REFRESH_SECONDS)


class LaneBoard:
    """
    The lanes, for routes that ask for no key: however many ask, the database is asked once in KEEP_SECONDS.

    One question at a time; who comes meanwhile waits for its answer, PATIENCE_SECONDS at most.
    """

    KEEP_SECONDS: Final = 2.0
    PATIENCE_SECONDS: Final = 2.0

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._asking = asyncio.Lock()
        self._seen: tuple[float, list[LaneRow] | None] | None = None

    async def look(self, pool: Pool) -> list[dict[str, Json]]:
        """Lanes as the wire has them; said to be unavailable, with the reason, where Postgres does not answer."""
        async with self._asking:
            if self._seen is None or self._clock() - self._seen[0] >= self.KEEP_SECONDS:
                rows = await self._ask(pool)
                self._seen = (self._clock(), rows)
            return lanes_of(self._seen[1], why_not="the database does not answer")

    async def _ask(self, pool: Pool) -> list[LaneRow] | None:
        try:
            async with asyncio.timeout(self.PATIENCE_SECONDS):
                return await job_views.lanes(pool)
        except (Unavailable, TimeoutError) as error:
            log.debug("lanes_not_seen", error=type(error).__name__)
            return None
