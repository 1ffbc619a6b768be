"""The work queue and the event recorder."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from commonplace_operator.engine.events import BURST, EventRecorder, Regarding
from commonplace_operator.engine.metrics import Metrics
from commonplace_operator.engine.queue import Result, WorkQueue, backoff_seconds
from tests.unit.operator.factories import NOW


def queue_of(work: Callable[[str], Awaitable[Result]], *, workers: int = 4, limit: int = 100) -> WorkQueue[str]:
    return WorkQueue("test", work, workers=workers, metrics=Metrics(), limit=limit, chance=lambda: 0.5)


def test_backoff_doubles_from_one_second_to_five_minutes() -> None:
    assert [backoff_seconds(n, 0.5) for n in (1, 2, 3, 9, 10, 1000)] == [1, 2, 4, 256, 300, 300]
    assert backoff_seconds(1, 0.0) == pytest.approx(0.8)
    assert backoff_seconds(1, 1.0) == pytest.approx(1.2)


async def test_a_key_that_waits_is_worked_on_once() -> None:
    done: list[str] = []
    last = asyncio.Event()

    async def work(key: str) -> Result:
        done.append(key)
        if key == "b":
            last.set()
        return Result()

    queue = queue_of(work, workers=1)
    for _ in range(5):
        queue.add("a")
    queue.add("b")
    queue.start()
    async with asyncio.timeout(5):
        await last.wait()
    await queue.stop(patience=1)
    assert done == ["a", "b"]


async def test_one_key_never_has_two_workers_and_runs_again_when_asked_meanwhile() -> None:
    running = 0
    runs = 0
    begun, go_on, again = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(_: str) -> Result:
        nonlocal running, runs
        running += 1
        runs += 1
        assert running == 1
        begun.set()
        if runs == 2:
            again.set()
        await go_on.wait()
        running -= 1
        return Result()

    queue = queue_of(work)
    queue.start()
    queue.add("a")
    async with asyncio.timeout(5):
        await begun.wait()
        queue.add("a")
        queue.add("a")
        go_on.set()
        await again.wait()
    await queue.stop(patience=1)
    assert runs == 2


async def test_a_failure_backs_off_and_other_keys_go_on() -> None:
    seen: list[str] = []
    other = asyncio.Event()

    async def work(key: str) -> Result:
        seen.append(key)
        if key == "bad":
            raise RuntimeError("boom")
        other.set()
        return Result()

    queue = queue_of(work, workers=1)
    queue.start()
    queue.add("bad")
    queue.add("good")
    async with asyncio.timeout(5):
        await other.wait()
    assert queue.is_alive()
    await queue.stop(patience=1)
    assert seen == ["bad", "good"]


async def test_a_requeue_comes_back_at_its_time() -> None:
    times: list[float] = []
    twice = asyncio.Event()

    async def work(_: str) -> Result:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 2:
            twice.set()
        return Result(requeue_after=0.2) if len(times) == 1 else Result()

    queue = queue_of(work)
    queue.start()
    queue.add("a")
    async with asyncio.timeout(5):
        await twice.wait()
    await queue.stop(patience=1)
    assert times[1] - times[0] >= 0.2


async def test_an_earlier_wish_stands_against_a_later_one() -> None:
    done = asyncio.Event()

    async def work(_: str) -> Result:
        done.set()
        return Result()

    queue = queue_of(work)
    queue.start()
    queue.add_after("a", 0.05)
    queue.add_after("a", 600)
    async with asyncio.timeout(5):
        await done.wait()
    await queue.stop(patience=1)


async def test_a_full_queue_makes_the_watcher_wait() -> None:
    async def work(_: str) -> Result:
        return Result()

    queue = queue_of(work, limit=2)
    await queue.offer("a")
    await queue.offer("b")
    await queue.offer("b")
    blocked = asyncio.create_task(queue.offer("c"))
    await asyncio.sleep(0)
    assert not blocked.done()
    queue.start()
    async with asyncio.timeout(5):
        await blocked
    await queue.stop(patience=1)


async def test_a_held_queue_gathers_each_key_once_and_works_when_it_is_opened() -> None:
    done: list[str] = []
    last = asyncio.Event()

    async def work(key: str) -> Result:
        done.append(key)
        if len(done) == 2:
            last.set()
        return Result()

    queue = queue_of(work, workers=1)
    queue.start(held=True)
    for key in ("a", "b", "a"):
        await queue.offer(key)
    await asyncio.sleep(0)
    assert done == []
    assert len(queue) == 2
    assert queue.is_alive()

    assert queue.open() is False

    async with asyncio.timeout(5):
        await last.wait()
    await queue.stop(patience=1)
    assert done == ["a", "b"]


async def test_a_held_queue_that_is_full_forgets_and_says_so() -> None:
    """A standby may see more in its weeks than it can keep; its watch must neither wait nor grow."""

    async def work(_: str) -> Result:
        return Result()

    queue = queue_of(work, limit=2)
    queue.start(held=True)
    async with asyncio.timeout(5):
        for number in range(100):
            await queue.offer(str(number))
    assert len(queue) == 2
    assert queue.open() is True
    await queue.stop(patience=1)


async def test_a_held_queue_stops() -> None:
    async def work(_: str) -> Result:
        return Result()

    queue = queue_of(work)
    queue.start(held=True)
    queue.add("a")
    async with asyncio.timeout(5):
        await queue.stop(patience=1)
    assert not queue.is_alive()


async def test_stopping_cancels_work_that_takes_too_long() -> None:
    begun = asyncio.Event()

    async def work(_: str) -> Result:
        begun.set()
        await asyncio.Event().wait()
        return Result()

    queue = queue_of(work)
    queue.start()
    queue.add("a")
    async with asyncio.timeout(5):
        await begun.wait()
        await queue.stop(patience=0.05)
    assert not queue.is_alive()


REGARDING = Regarding(api_version="v1", kind="K", namespace="ns", name="n", uid="u")


async def recorded(notes: list[str], *, fail: bool = False) -> tuple[list[Mapping[str, Any]], Metrics]:
    posted: list[Mapping[str, Any]] = []
    metrics = Metrics()

    async def post(event: Mapping[str, Any]) -> None:
        if fail:
            raise OSError("away")
        posted.append(event)

    recorder = EventRecorder(post, clock=lambda: NOW, metrics=metrics, instance="i", controller="c")
    recorder.start()
    for note in notes:
        recorder.record(REGARDING, "Normal", "Reason", note, action="Act")
    await recorder.stop(patience=5)
    return posted, metrics


async def test_the_same_event_is_told_once() -> None:
    posted, _ = await recorded(["a", "a", "b", "a"])
    assert [event["note"] for event in posted] == ["a", "b"]
    assert len({event["metadata"]["name"] for event in posted}) == 2


async def test_one_object_cannot_flood() -> None:
    posted, metrics = await recorded([str(number) for number in range(100)])
    assert len(posted) == BURST
    assert metrics.registry.get_sample_value("commonplace_operator_events_total", {"outcome": "dropped"}) == 75


async def test_an_event_that_cannot_be_posted_is_counted_and_forgotten() -> None:
    _, metrics = await recorded(["a"], fail=True)
    assert metrics.registry.get_sample_value("commonplace_operator_events_total", {"outcome": "failed"}) == 1


def test_objects_are_counted_by_condition_and_not_named() -> None:
    metrics = Metrics()

    def count(status: str, reason: str) -> float | None:
        labels = {"kind": "ApiKey", "condition": "Ready", "status": status, "reason": reason}
        return metrics.registry.get_sample_value("commonplace_operator_conditions", labels)

    well, ill = (
        [{"type": "Ready", "status": status, "reason": reason}]
        for status, reason in (("True", "Available"), ("False", "TeamNotReady"))
    )
    for name in ("a", "b", "c"):
        metrics.conditions.see("ApiKey", "shop", name, well)
    metrics.conditions.see("ApiKey", "shop", "c", ill)
    assert (count("True", "Available"), count("False", "TeamNotReady")) == (2, 1)

    metrics.conditions.forget("ApiKey", "shop", "c")
    metrics.conditions.forget("ApiKey", "shop", "never seen")
    assert count("False", "TeamNotReady") is None
    assert b"shop" not in metrics.render()
