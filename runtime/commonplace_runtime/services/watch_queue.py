"""Keeps the queue's gauges true."""

import asyncio
from typing import Final

import structlog

from commonplace_runtime.domain.errors import Unavailable
from commonplace_runtime.observability import QUEUE
from commonplace_runtime.store import jobs
from commonplace_runtime.store.pool import Pool

log = structlog.get_logger(__name__)

REFRESH_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 5.0


async def watch_queue(pool: Pool) -> None:
    """Look at the queue every REFRESH_SECONDS until cancelled. While Postgres is away the gauges run out."""
    while True:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                QUEUE.show(await jobs.queue_stats(pool))
        except (Unavailable, TimeoutError) as error:
            log.debug("queue_not_seen", error=type(error).__name__)
        await asyncio.sleep(REFRESH_SECONDS)
