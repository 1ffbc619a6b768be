"""
Events of `events.k8s.io/v1`, told once.

The same (object, reason, message) is posted at most once in `QUIET_SECONDS`; each object has a burst of
`BURST` and then one a minute; the process has a bounded queue. An Event that cannot be posted is dropped and
counted: no reconcile ever waits for one.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import structlog

from commonplace_operator.engine.metrics import Metrics

QUIET_SECONDS: Final = 600.0
BURST: Final = 25.0
REFILL_PER_SECOND: Final = 1 / 60
QUEUE_LIMIT: Final = 1000
REMEMBERED: Final = 5000
_NOTE_LIMIT: Final = 1024


@dataclass(frozen=True, kw_only=True)
class Regarding:
    """The object that an Event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


@dataclass
class _Bucket:
    tokens: float
    at: float


class EventRecorder:
    """Takes events at once and posts them by one task of its own."""

    def __init__(
        self,
        post: Callable[[Mapping[str, Any]], Awaitable[None]],
        *,
        clock: Callable[[], datetime],
        metrics: Metrics,
        instance: str,
        controller: str,
    ) -> None:
        self._post = post
        self._clock = clock
        self._metrics = metrics
        self._instance = instance
        self._controller = controller
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(QUEUE_LIMIT)
        self._seen: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._number = 0
        self._task: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("commonplace_operator.events")

    def record(
        self, regarding: Regarding, type_: Literal["Normal", "Warning"], reason: str, note: str, *, action: str
    ) -> None:
        """Tell `note` about the object, unless it was told lately. Never blocks, never raises."""
        now = asyncio.get_running_loop().time()
        if not self._is_new((regarding.uid, reason, note), now):
            self._metrics.events.labels("deduplicated").inc()
            return
        if not self._has_room(regarding.uid, now) or self._queue.full():
            self._metrics.events.labels("dropped").inc()
            return
        self._number += 1
        moment = self._clock()
        self._queue.put_nowait(
            {
                "metadata": {
                    "namespace": regarding.namespace,
                    # As client-go names them: the object's name and a number that does not repeat.
                    "name": f"{regarding.name[:200]}.{int(moment.timestamp() * 1e6):x}{self._number:x}",
                },
                "eventTime": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                "type": type_,
                "reason": reason,
                "action": action,
                "note": note[:_NOTE_LIMIT],
                "reportingController": self._controller,
                "reportingInstance": self._instance[:128],
                "regarding": {
                    "apiVersion": regarding.api_version,
                    "kind": regarding.kind,
                    "namespace": regarding.namespace,
                    "name": regarding.name,
                    "uid": regarding.uid,
                },
            }
        )

    def _is_new(self, key: tuple[str, str, str], now: float) -> bool:
        last = self._seen.pop(key, None)
        fresh = last is None or now - last >= QUIET_SECONDS
        self._seen[key] = now if fresh or last is None else last
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return fresh

    def _has_room(self, uid: str, now: float) -> bool:
        bucket = self._buckets.pop(uid, None) or _Bucket(tokens=BURST, at=now)
        tokens = min(BURST, bucket.tokens + (now - bucket.at) * REFILL_PER_SECOND)
        self._buckets[uid] = _Bucket(tokens=tokens - 1 if tokens >= 1 else tokens, at=now)
        while len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        return tokens >= 1

    def start(self) -> None:
        """Start posting."""
        self._task = asyncio.create_task(self._run(), name="event recorder")

    async def stop(self, *, patience: float) -> None:
        """Give what is queued `patience` seconds, then stop."""
        if self._task is None:
            return
        try:
            async with asyncio.timeout(patience):
                await self._queue.join()
        except TimeoutError:
            self._log.warning("events_dropped", count=self._queue.qsize())
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            event = await self._queue.get()
            try:
                await self._post(event)
                self._metrics.events.labels("posted").inc()
            except Exception as error:  # noqa: BLE001 - an Event is a courtesy; its failure is counted and logged
                self._metrics.events.labels("failed").inc()
                regarding = event["regarding"]
                self._log.warning(
                    "event_not_posted",
                    about=f"{regarding['kind']} {regarding['namespace']}/{regarding['name']}",
                    reason=event["reason"],
                    error=str(error),
                )
            finally:
                self._queue.task_done()
