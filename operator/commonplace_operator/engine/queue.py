"""
A work queue as controller-runtime has it: a key waits once, one worker at a time has it, failures back off.

Backoff lives in memory and costs no write. A key that is asked for while it is being worked on runs again
afterwards. Times are seconds of a monotonic clock.
"""

import asyncio
import heapq
import itertools
import random
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import structlog

from commonplace_operator.engine.metrics import Metrics

K = TypeVar("K", bound=Hashable)

BACKOFF_FIRST: Final = 1.0
BACKOFF_LIMIT: Final = 300.0
JITTER: Final = 0.2


@dataclass(frozen=True, kw_only=True)
class Result:
    """
    What a reconcile asks of the queue. Neither field: settled until something changes.

    retry: come back with backoff; requeue_after: come back in that many seconds.
    """

    retry: bool = False
    requeue_after: float | None = None


def backoff_seconds(attempt: int, chance: float) -> float:
    """Delay before attempt number `attempt + 1` (first attempt: 1): 1 s doubling to 5 min, moved by up to 20 %."""
    delay: float = min(BACKOFF_LIMIT, BACKOFF_FIRST * 2.0 ** min(attempt - 1, 20))
    return delay * (1 + JITTER * (2 * chance - 1))


@dataclass(order=True)
class _Due:
    at: float
    number: int
    key: object = field(compare=False)


class WorkQueue(Generic[K]):
    """
    Keys to `work` on, by `workers` tasks.

    `offer` waits while `limit` different keys are already waiting; nothing else grows with load. Started as `held`, it
    gathers keys only, until `open`; what is offered beyond the limit meanwhile is forgotten, and `open` says so.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[K], Awaitable[Result]],
        *,
        workers: int,
        metrics: Metrics,
        limit: int = 100_000,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._name = name
        self._work = work
        self._workers = workers
        self._metrics = metrics.of_queue(name)
        self._limit = limit
        self._chance = chance
        self._waiting: dict[K, float] = {}
        self._running: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._due: dict[K, _Due] = {}
        self._schedule: list[_Due] = []
        self._numbers = itertools.count()
        self._wake_worker = asyncio.Semaphore(0)
        self._wake_timer = asyncio.Event()
        self._opened = asyncio.Event()
        self._has_forgotten = False
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: list[asyncio.Task[None]] = []
        self._log = structlog.get_logger("commonplace_operator.queue")

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: K) -> None:
        """Have `key` worked on as soon as a worker is free."""
        self._metrics.adds.inc()
        self._forget_schedule(key)
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting[key] = asyncio.get_running_loop().time()
            self._metrics.depth.set(len(self._waiting))
            if len(self._waiting) >= self._limit:
                self._room.clear()
            self._wake_worker.release()

    async def offer(self, key: K) -> None:
        """`add`, but wait first while the queue is full."""
        if key not in self._waiting and not self._room.is_set():
            if self._is_holding():
                # Nobody makes room, maybe for weeks: the watcher must not wait, nor pile up what it sees.
                self._has_forgotten = True
                return
            await self._room.wait()
        self.add(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Have `key` worked on in `seconds`, or earlier when that was asked for before."""
        known = self._due.get(key)
        due = _Due(asyncio.get_running_loop().time() + max(0.0, seconds), next(self._numbers), key)
        if known is not None and known.at <= due.at:
            return
        self._due[key] = due
        heapq.heappush(self._schedule, due)
        self._wake_timer.set()

    def _forget_schedule(self, key: K) -> None:
        self._due.pop(key, None)
        if len(self._schedule) > 2 * len(self._due) + 1000:
            live = set(map(id, self._due.values()))
            self._schedule = [due for due in self._schedule if id(due) in live]
            heapq.heapify(self._schedule)

    def start(self, *, held: bool = False) -> None:
        """Start the workers. Before kopf starts: it cancels every task that is younger than itself."""
        if not held:
            self.open()
        self._tasks = [asyncio.create_task(self._timer(), name=f"{self._name} timer")]
        self._tasks += [
            asyncio.create_task(self._worker(), name=f"{self._name} worker {number}") for number in range(self._workers)
        ]

    def open(self) -> bool:
        """Let a held queue work. Gives whether keys were forgotten, so that all objects have to be listed."""
        now = asyncio.get_running_loop().time()
        self._waiting = dict.fromkeys(self._waiting, now)
        self._opened.set()
        return self._has_forgotten

    def _is_holding(self) -> bool:
        return bool(self._tasks) and not self._opened.is_set()

    async def stop(self, *, patience: float) -> None:
        """Take no more keys; give running work `patience` seconds, then cancel it."""
        self._waiting.clear()
        self._again.clear()
        if not self._tasks:
            return
        self._tasks[0].cancel()
        try:
            async with asyncio.timeout(patience):
                await self._idle.wait()
        except TimeoutError:
            self._log.warning("work_cancelled", keys=[str(key) for key in self._running])
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def is_alive(self) -> bool:
        """Whether the timer and every worker still run."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    async def _timer(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake_timer.clear()
            while self._schedule and self._schedule[0].at <= loop.time():
                due = heapq.heappop(self._schedule)
                key: K = due.key  # type: ignore[assignment]
                if self._due.get(key) is due:
                    self.add(key)
            pause = self._schedule[0].at - loop.time() if self._schedule else None
            try:
                async with asyncio.timeout(pause):
                    await self._wake_timer.wait()
            except TimeoutError:
                continue

    async def _worker(self) -> None:
        loop = asyncio.get_running_loop()
        await self._opened.wait()
        while True:
            await self._wake_worker.acquire()
            if not self._waiting:
                continue
            key, since = next(iter(self._waiting.items()))
            del self._waiting[key]
            self._room.set()
            self._running.add(key)
            self._idle.clear()
            started = loop.time()
            self._metrics.depth.set(len(self._waiting))
            self._metrics.queue_seconds.observe(started - since)
            try:
                result = await self._work(key)
            except Exception:  # noqa: BLE001
                # The queue outlives whatever a reconcile does; it is logged as ours to fix and tried again.
                self._log.exception("reconcile_failed", key=str(key))
                result = Result(retry=True)
            finally:
                self._running.discard(key)
                if not self._running:
                    self._idle.set()
                self._metrics.work_seconds.observe(loop.time() - started)
            self._settle(key, result)

    def _settle(self, key: K, result: Result) -> None:
        if key in self._again:
            # Something changed meanwhile: what this pass wanted to wait for is decided anew.
            self._again.discard(key)
            if not result.retry:
                self._failures.pop(key, None)
            self.add(key)
            return
        if result.retry:
            attempt = self._failures[key] = self._failures.get(key, 0) + 1
            self._metrics.retries.inc()
            delay = backoff_seconds(attempt, self._chance())
            if result.requeue_after is not None:
                delay = min(delay, result.requeue_after)
            self.add_after(key, delay)
            return
        self._failures.pop(key, None)
        if result.requeue_after is not None:
            self.add_after(key, result.requeue_after)
