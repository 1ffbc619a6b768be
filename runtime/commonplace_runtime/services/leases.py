"""Keeping a lease for as long as its turn takes, writing under it however long Postgres is away, and giving it back."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Any, Final
from uuid import UUID

import structlog

from commonplace_runtime.domain.errors import Unavailable
from commonplace_runtime.observability import JOBS
from commonplace_runtime.store import jobs as store
from commonplace_runtime.store.jobs import Lease
from commonplace_runtime.store.pool import Pool

log = structlog.get_logger(__name__)

_HAND_BACK_SECONDS: Final = 5.0
_WRITE_RETRY_SECONDS: Final = 0.25


class KeptLease:
    """
    The lease of one turn.

    may_be_written: what ends it was sent, and nobody denied that it was done.
    """

    def __init__(self, pool: Pool, lease: Lease, *, seconds: float) -> None:
        self._pool = pool
        self._lease = lease
        self._seconds = seconds
        # Held by a heartbeat, and by what may end the lease: one that was given back is not taken for a lost one.
        self._in_use = asyncio.Lock()
        self._is_let_go = False
        self.may_be_written = False

    async def keep(self) -> None:
        """Extend it at a third of its length, until it is lost."""
        while True:
            await asyncio.sleep(self._seconds / 3)
            async with self._in_use:
                if self._is_let_go:
                    continue
                try:
                    if not await store.extend_lease(self._pool, self._lease, lease_seconds=math.ceil(self._seconds)):
                        return
                except Unavailable as error:
                    # The turn goes on: if nobody claimed the session meanwhile, its results are still welcome.
                    log.warning("heartbeat_failed", reason=error.message)

    async def tell(self, write: Callable[[], Awaitable[Mapping[str, Any]]]) -> Mapping[str, Any] | None:
        """
        `write`, which ends the lease unless its outcome is "granted"; again and again while Postgres is away.

        A paid answer is worth waiting for. None after two leases: the jobs belong to somebody else by then.
        """
        async with self._in_use:
            self.may_be_written = True
            told = await self._patiently(write)
            self._is_let_go = told is None or told["outcome"] != "granted"
            self.may_be_written = told is None or told["outcome"] == "written"
            return told

    async def _patiently(self, write: Callable[[], Awaitable[Mapping[str, Any]]]) -> Mapping[str, Any] | None:
        deadline = monotonic() + 2 * self._seconds
        delay = _WRITE_RETRY_SECONDS
        while True:
            try:
                return await write()
            except Unavailable as error:
                if monotonic() + delay > deadline:
                    return None
                log.warning("results_waiting", reason=error.message, retry_in_seconds=delay)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)

    async def hand_back(self, count: int) -> None:
        """Best effort: where it fails the lease runs out by itself. count: of its jobs."""
        try:
            async with asyncio.timeout(_HAND_BACK_SECONDS):
                released = await store.release(self._pool, self._lease)
        except (Unavailable, TimeoutError) as error:
            log.warning("hand_back_failed", jobs=count, error=type(error).__name__)
        else:
            JOBS.labels("handed_back").inc(count)
            log.info("jobs_handed_back", jobs=count, held=released)

    async def count_lost(self, payer: UUID | None, spent: Sequence[Mapping[str, Any]]) -> None:
        """Best effort: calls that nobody will write, for the usage of the key `payer`. spent: as in `count_spent`."""
        try:
            async with asyncio.timeout(_HAND_BACK_SECONDS):
                await store.count_lost(self._pool, self._lease, payer, spent)
        except (Unavailable, TimeoutError) as error:
            log.warning("calls_not_counted", calls=len(spent), error=type(error).__name__)
