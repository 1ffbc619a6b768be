"""
The worker process: claims due sessions while it has room, sleeps until the doorbell rings or a poll is due.

A ring wakes one claim loop; a loop that found something wakes the next before it sets to work. So an idle worker
costs one empty claim a poll, whatever its concurrency, and a burst fills it within a few round trips.
"""

import asyncio
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic
from typing import Any, Final, TypeVar
from uuid import UUID

import structlog

from commonplace_runtime import contract
from commonplace_runtime.domain.errors import Unavailable
from commonplace_runtime.domain.prices import cost_microusd
from commonplace_runtime.entrypoints import doorbell
from commonplace_runtime.entrypoints.worker_health import WorkerHealth
from commonplace_runtime.llm.build import build_generator
from commonplace_runtime.llm.ports import Generator
from commonplace_runtime.services.generate import Outcome, Terms, run_group
from commonplace_runtime.services.housekeeping import keep_house
from commonplace_runtime.services.keep_index import watch_indexes
from commonplace_runtime.services.readiness import readiness
from commonplace_runtime.services.slots import CallSlots
from commonplace_runtime.settings import EXIT_MISCONFIGURED, Settings
from commonplace_runtime.store import jobs
from commonplace_runtime.store.pool import Pool, open_pool_patiently

log = structlog.get_logger(__name__)
Result = TypeVar("Result")

HOUSEKEEPING_SECONDS: Final = 60.0
INDEX_SECONDS: Final = 2.0
DATABASE_AWAY_SECONDS: Final = 0.5
DATABASE_AWAY_LONGEST_SECONDS: Final = 5.0
CANCEL_SECONDS: Final = 6.0
LONGEST_PAUSE_SECONDS: Final = 30.0
CLOSE_SECONDS: Final = 2.0
SCHEMA_POLL_SECONDS: Final = 1.0


class Bell:
    """Wakes one waiting claim loop a ring; one ring is kept while all are busy; `close` wakes all for ever."""

    def __init__(self) -> None:
        self._rings: asyncio.Queue[bool] = asyncio.Queue(maxsize=1)

    def ring(self) -> None:
        """Wake one loop, now or when it next waits."""
        if not self._rings.full():
            self._rings.put_nowait(True)

    async def ring_when_free(self) -> None:
        """Wake one loop; waits while a ring is kept already."""
        await self._rings.put(True)

    def close(self) -> None:
        """No loop waits any more."""
        if self._rings.full():
            self._rings.get_nowait()
        self._rings.put_nowait(False)

    async def wait(self) -> None:
        """Until it rings or is closed."""
        if not await self._rings.get():
            # The closing ring is passed on to the next loop.
            self._rings.put_nowait(False)


class Worker:
    """The claim loops of one process and what they share."""

    def __init__(self, pool: Pool, generator: Generator, terms: Terms, settings: Settings, stop: asyncio.Event) -> None:
        self._pool = pool
        self._generator = generator
        self._terms = terms
        self._settings = settings
        self._stop = stop
        self._bell = Bell()
        self._paused_until = 0.0

    async def run(self) -> None:
        """Until `stop` is set and every loop has ended or handed its jobs back."""
        async with asyncio.TaskGroup() as tasks:
            # Half as many again write results and claim while all slots are busy with calls.
            loops = [
                tasks.create_task(self._claim_loop())
                for _ in range(self._settings.worker_concurrency + self._settings.worker_concurrency // 2)
            ]
            helpers = [
                tasks.create_task(self._poll()),
                tasks.create_task(self._keep_house()),
                tasks.create_task(watch_indexes(self._pool, INDEX_SECONDS)),
            ]
            if self._settings.redis_url is not None:
                url = self._settings.redis_url.get_secret_value()
                helpers.append(tasks.create_task(doorbell.listen(url, self._bell.ring_when_free)))
            await self._stop.wait()
            log.info("worker_stopping", grace_seconds=self._settings.worker_grace_seconds)
            for helper in helpers:
                helper.cancel()
            self._bell.close()
            _, late = await asyncio.wait(loops, timeout=self._settings.worker_grace_seconds)
            for loop in late:
                loop.cancel()
            _, stuck = await asyncio.wait([*late, *helpers], timeout=CANCEL_SECONDS)
            if stuck:
                # A database that hangs holds even a cancelled statement, and Kubernetes would not wait as long.
                log.warning("connections_dropped", tasks=len(stuck))
                self._pool.terminate()

    async def _claim_loop(self) -> None:
        delay = DATABASE_AWAY_SECONDS
        while not self._stop.is_set():
            if (pause := self._paused_until - monotonic()) > 0:
                await self._sleep(pause)
                continue
            await self._terms.slots.room()
            if self._stop.is_set():
                return
            served = self._terms.turn.after
            try:
                outcome = await run_group(self._pool, self._generator, self._terms, on_claim=self._bell.ring)
            except Unavailable as error:
                log.warning("database_unreachable", reason=error.message, retry_in_seconds=delay)
            except Exception:
                # One session that we cannot handle must not end the others; its lease runs out by itself.
                log.exception("turn_broke")
                await self._step_past(served)
            else:
                delay = DATABASE_AWAY_SECONDS
                self._note_pause(outcome)
                if outcome.kind == "idle":
                    await self._bell.wait()
                continue
            await self._sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - spreads the loops
            delay = min(delay * 2, DATABASE_AWAY_LONGEST_SECONDS)

    async def _step_past(self, served: UUID) -> None:
        """If the claim broke it would break again: the team after `served` is left for the next round."""
        try:
            self._terms.turn.after = await jobs.next_team(self._pool, served)
        except Exception as error:  # noqa: BLE001 - the turn has failed already, and the next one asks the database again
            log.warning("turn_not_passed", error=type(error).__name__)

    def _note_pause(self, outcome: Outcome) -> None:
        """Nobody may be called: look again when the first provider is back, or when its pause may have been lifted."""
        if outcome.kind == "paused":
            self._paused_until = monotonic() + min(outcome.pause_seconds, LONGEST_PAUSE_SECONDS)
            log.warning("providers_paused", seconds=round(outcome.pause_seconds, 1))

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but not past the end of the worker."""
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            pass

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._settings.worker_poll_seconds * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
            self._bell.ring()

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
            try:
                while await keep_house(self._pool):
                    log.debug("housekeeping_goes_on")
            except Unavailable as error:
                log.warning("housekeeping_failed", reason=error.message)


@asynccontextmanager
async def _signals_as(stop: asyncio.Event) -> AsyncIterator[None]:
    """SIGTERM and SIGINT set `stop` instead of ending the process."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, Result]) -> Result | None:
    """What `work` returns or raises; None when `stop` was set first, and `work` is cancelled."""
    # No TaskGroup: it would wrap what the work raises.
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        stopped.cancel()
        await asyncio.gather(task, stopped, return_exceptions=True)


async def _wait_for_schema(pool: Pool, stop: asyncio.Event) -> None:
    """Until the migrations have run: they may be under way, and a worker that dies meanwhile helps nobody."""
    told = None
    while not stop.is_set():
        state = await readiness(pool)
        if state.problem is None:
            return
        if state.problem != told:
            log.warning("database_not_ready", problem=state.problem)
            told = state.problem
        try:
            async with asyncio.timeout(SCHEMA_POLL_SECONDS):
                await stop.wait()
        except TimeoutError:
            continue


async def _close(pool: Pool) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await pool.close()
    except (TimeoutError, OSError):
        pool.terminate()


async def run_worker(
    settings: Settings, *, stop: asyncio.Event | None = None, health: WorkerHealth | None = None
) -> None:
    """
    Work until `stop` is set; without one, until SIGTERM or SIGINT. health: told how it goes.

    Then running jobs may finish within `worker_grace_seconds`; what is left is handed back. Raises Unavailable when
    Postgres does not answer within `startup_timeout_seconds`, SystemExit(78) when the configuration cannot work.
    """
    if stop is None:
        stop = asyncio.Event()
        async with _signals_as(stop):
            await run_worker(settings, stop=stop, health=health)
        return
    if settings.database_url is None:
        print(f"the configuration is invalid:\n- {contract.ENV_DATABASE_URL}: is needed", file=sys.stderr)
        raise SystemExit(EXIT_MISCONFIGURED)
    generator = build_generator(settings)
    health = health or WorkerHealth()
    opening = open_pool_patiently(
        settings.database_url.get_secret_value(),
        patience=settings.startup_timeout_seconds,
        size=settings.database_pool_size,
        connect_timeout=settings.database_connect_timeout_seconds,
        statement_timeout=settings.database_statement_timeout_seconds,
        application="commonplace-worker",
    )
    async with health.beating(stop):
        if (pool := await _unless_stopped(stop, opening)) is None:
            return
        async with health.looking(pool):
            try:
                await _wait_for_schema(pool, stop)
                await _work(pool, generator, settings, stop)
            finally:
                await generator.aclose()
                await _close(pool)


async def _work(pool: Pool, generator: Generator, settings: Settings, stop: asyncio.Event) -> None:
    name = f"{socket.gethostname()}-{os.getpid()}"
    terms = Terms(
        slots=CallSlots(settings.worker_concurrency),
        worker=name,
        lease_seconds=settings.worker_lease_seconds,
        price=partial(cost_microusd, prices=settings.prices),
        tokens_per_month=settings.limits.tokens_per_month,
    )
    log.info("worker_started", worker=name, provider=generator.provider, concurrency=settings.worker_concurrency)
    await Worker(pool, generator, terms, settings, stop).run()
    log.info("worker_stopped", worker=name)
