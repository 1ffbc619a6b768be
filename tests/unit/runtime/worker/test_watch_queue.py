"""The queue's gauges outlive whatever a look at the queue runs into."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from commonplace_runtime.services import watch_queue
from commonplace_runtime.settings import load_settings
from commonplace_runtime.store import jobs


async def test_a_look_that_breaks_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    looked_again = asyncio.Event()

    async def queue_stats(_pool: object) -> Mapping[str, float]:
        nonlocal looks
        looks += 1
        if looks == 2:
            looked_again.set()
        return {"backlog": 1}

    monkeypatch.setattr(jobs, "queue_stats", queue_stats)
    monkeypatch.setattr(watch_queue, "REFRESH_SECONDS", 0.01)
    pool: Any = None
    watching = asyncio.ensure_future(watch_queue.watch_queue(pool, load_settings({})))
    try:
        async with asyncio.timeout(5):
            await asyncio.wait(
                {watching, waiting := asyncio.ensure_future(looked_again.wait())}, return_when="FIRST_COMPLETED"
            )
        waiting.cancel()
        assert looked_again.is_set()
        assert not watching.done()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
