"""Remove what time has made useless, in small steps."""

from typing import Final

import structlog

from commonplace_runtime.store import jobs
from commonplace_runtime.store.pool import Pool

log = structlog.get_logger(__name__)

BATCH_ROWS: Final = 5000


async def keep_house(pool: Pool) -> bool:
    """One bounded step; True when it was full, so that there may be more. Raises Unavailable."""
    removed = await jobs.housekeeping(pool, batch=BATCH_ROWS)
    if removed is None:
        return False
    if any(removed.values()):
        log.info("house_kept", **removed)
    return max(removed.values()) >= BATCH_ROWS
