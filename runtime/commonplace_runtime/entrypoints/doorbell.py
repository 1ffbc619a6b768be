"""
The doorbell: a hint over Redis that work is waiting, sent and heard with taskiq.

The job is a row in Postgres; a hint that is lost, doubled or late costs one poll at most. So nothing here is
retried, stored or waited for, and Redis may vanish at any moment.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, Final

import redis.asyncio
import redis.exceptions
import structlog
from taskiq import AsyncTaskiqDecoratedTask
from taskiq.receiver import Receiver
from taskiq_redis import RedisStreamBroker

from commonplace_runtime.observability import DOORBELL

log = structlog.get_logger(__name__)

TASK_NAME: Final = "commonplace.run_due"
"""One name for ever: taskiq acknowledges and drops a name that it does not know, as an older worker would."""
STREAM: Final = "commonplace:doorbell"
GROUP: Final = "workers"
STREAM_LENGTH: Final = 1000
RING_SECONDS: Final = 0.25
COOL_DOWN_SECONDS: Final = 1.0
READ_BLOCK_MILLISECONDS: Final = 2000
HEARD_SECONDS: Final = 2.0
RECONNECT_SECONDS: Final = 5.0
LEAVE_SECONDS: Final = 1.0


class _HintBroker(RedisStreamBroker):
    """A stream broker for hints: an acknowledgement that does not arrive is nobody's loss."""

    def _ack_generator(self, id: str, queue_name: str) -> Callable[[], Awaitable[None]]:  # noqa: A002 - its parent's name
        acknowledge = super()._ack_generator(id, queue_name)

        async def quietly() -> None:
            try:
                await acknowledge()
            except (redis.exceptions.RedisError, OSError):
                log.debug("hint_not_acknowledged")

        return quietly


def _broker(url: str, *, read_timeout: float, connections: int) -> _HintBroker:
    return _HintBroker(
        url,
        queue_name=STREAM,
        consumer_group_name=GROUP,
        # From the stream's beginning: a hint that was sent before the first worker came is still heard.
        consumer_id="0",
        maxlen=STREAM_LENGTH,
        xread_block=READ_BLOCK_MILLISECONDS,
        xread_count=1,
        max_connection_pool_size=connections,
        timeout=read_timeout,
        socket_connect_timeout=min(read_timeout, 2.0),
        socket_timeout=read_timeout,
    )


def _task(broker: _HintBroker, run: Callable[[], Awaitable[None]]) -> AsyncTaskiqDecoratedTask[..., Any]:
    async def run_due() -> None:
        await run()

    # Registered at this broker only, so that several can live in one process.
    return broker.register_task(run_due, task_name=TASK_NAME)


async def _nothing() -> None:
    """The sender's half of the task: it is never run there."""


class TaskiqDoorbell:
    """Rings through a Redis stream. Connects on the first ring, so that Redis may be away at start."""

    def __init__(self, url: str) -> None:
        self._broker = _broker(url, read_timeout=RING_SECONDS, connections=20)
        self._task = _task(self._broker, _nothing)
        self._silent_until = 0.0
        self._works = True

    async def ring(self) -> bool:
        """
        Hint that work is waiting; True when Redis took it. Never raises, takes at most RING_SECONDS.

        After a failure it does not try for COOL_DOWN_SECONDS: a Redis that hangs must not slow every request.
        """
        if monotonic() < self._silent_until:
            DOORBELL.labels("skipped").inc()
            return False
        try:
            async with asyncio.timeout(RING_SECONDS):
                await self._task.kiq()
        except Exception as error:  # noqa: BLE001 - whatever ails the doorbell, the event is stored
            self._silent_until = monotonic() + COOL_DOWN_SECONDS
            DOORBELL.labels("failed").inc()
            if self._works:
                log.warning("doorbell_unreachable", error=_cause(error))
            self._works = False
            return False
        if not self._works:
            log.info("doorbell_reachable")
        self._works = True
        DOORBELL.labels("sent").inc()
        return True

    async def answers(self) -> bool:
        """Whether Redis answers a PING within RING_SECONDS. Never raises."""
        try:
            async with asyncio.timeout(RING_SECONDS):
                async with redis.asyncio.Redis(connection_pool=self._broker.connection_pool) as connection:
                    await connection.execute_command("PING")  # type: ignore[no-untyped-call]
        except (redis.exceptions.RedisError, OSError):
            return False
        return True

    async def aclose(self) -> None:
        """Close the connections to Redis."""
        await self._broker.shutdown()


def _cause(error: BaseException) -> str:
    """The name of the fault at the bottom; its text may hold the address with a password."""
    if isinstance(error, BaseExceptionGroup):
        return _cause(error.exceptions[0])
    return _cause(error.__cause__) if error.__cause__ is not None else type(error).__name__


async def listen(url: str, heard: Callable[[], Awaitable[None]]) -> None:
    """
    Call `heard` for every hint, one at a time, until cancelled. Survives a Redis that is away, restarted or emptied.

    `heard` may wait until somebody is free to work (at most HEARD_SECONDS): meanwhile the next hints stay for other
    workers.
    """
    logging.getLogger("taskiq").setLevel(logging.ERROR)
    works = True

    async def run() -> None:
        try:
            async with asyncio.timeout(HEARD_SECONDS):
                await heard()
        except TimeoutError:
            log.debug("hint_dropped_all_busy")

    def connected() -> None:
        nonlocal works
        if not works:
            log.info("doorbell_heard_again")
        works = True

    while True:
        started = monotonic()
        try:
            await _listen_once(url, run, connected)
        except Exception as error:  # noqa: BLE001 - polling goes on; this comes back when Redis does
            if works:
                log.warning("doorbell_lost", error=_cause(error), meanwhile="polling")
            works = False
        # Quick when it worked for a while, patient when Redis stays away.
        away = monotonic() - started < RECONNECT_SECONDS
        await asyncio.sleep(random.uniform(0.5, 1.0) * (1.0 if away else 0.2))  # noqa: S311 - spreads reconnections


async def _listen_once(url: str, run: Callable[[], Awaitable[None]], connected: Callable[[], None]) -> None:
    """Until the connection breaks or this is cancelled. Raises whatever broke."""
    broker = _broker(url, read_timeout=READ_BLOCK_MILLISECONDS / 1000 + 3, connections=4)
    broker.is_worker_process = True
    _task(broker, run)
    with ThreadPoolExecutor(max_workers=1) as unused:
        receiver = Receiver(broker, executor=unused, max_async_tasks=1, max_prefetch=0, run_startup=False)
        try:
            await broker.startup()
            connected()
            await receiver.listen(asyncio.Event())
        finally:
            await _leave(broker)


async def _leave(broker: _HintBroker) -> None:
    """Take this consumer out of the group, so that dead ones do not pile up, and close. Best effort, never raises."""
    try:
        async with asyncio.timeout(LEAVE_SECONDS):
            async with redis.asyncio.Redis(connection_pool=broker.connection_pool) as connection:
                await connection.xgroup_delconsumer(STREAM, GROUP, broker.consumer_name)
            await broker.shutdown()
    except (redis.exceptions.RedisError, OSError):
        log.debug("doorbell_left_behind")
