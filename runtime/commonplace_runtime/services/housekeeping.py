"""Remove what time has made useless, in small steps, and finish what others left behind."""

import asyncio
import random
from typing import Final

import structlog

from commonplace_runtime.domain.errors import Unavailable
from commonplace_runtime.services.forget import finish_erasures
from commonplace_runtime.store import jobs
from commonplace_runtime.store.pool import Pool

log = structlog.get_logger(__name__)

BATCH_ROWS: Final = 5000
WATCH_SECONDS: Final = 60.0


async def keep_house(pool: Pool) -> bool:
    """
    One bounded step, after the erasures whose process died; True when it was full, so that there may be more.

    Raises Unavailable. Any other fault of the database is logged and left for the next time: a worker has more to do.
    """
    try:
        await finish_erasures(pool)
    except Unavailable as error:
        log.warning("erasures_left_behind", reason=error.message)
    except Exception:
        log.exception("erasing_broke")
    try:
        removed = await jobs.housekeeping(pool, batch=BATCH_ROWS)
    except Unavailable:
        raise
    except Exception:
        log.exception("housekeeping_broke")
        return False
    if removed is None:
        return False
    if any(removed.values()):
        log.info("house_kept", **removed)
    return max(removed.values()) >= BATCH_ROWS


async def watch_erasures(pool: Pool) -> None:
    """
    Finish erasures that others left behind, every WATCH_SECONDS until cancelled.

    For the api: where nothing is queued there may be no worker, and what was to be forgotten must not wait for one.
    """
    while True:
        await asyncio.sleep(WATCH_SECONDS * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
        try:
            await finish_erasures(pool)
        except Unavailable as error:
            log.warning("erasures_left_behind", reason=error.message)
        except Exception:
            log.exception("erasing_broke")
