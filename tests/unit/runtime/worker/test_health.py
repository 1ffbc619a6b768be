"""What a worker says to probes, and how the port of the metrics serves it."""

import asyncio
import urllib.error
import urllib.request

from commonplace_runtime import contract
from commonplace_runtime.entrypoints.worker_health import STALE_SECONDS, WorkerHealth
from commonplace_runtime.observability import serve_metrics


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_loop_that_stands_still_is_dead_and_one_that_turns_again_is_not() -> None:
    clock = Clock()
    health = WorkerHealth(clock)
    assert health.death() is None
    clock.now += STALE_SECONDS + 1
    assert "16 s" in str(health.death())
    assert health.unreadiness() == health.death()
    health.beat()
    assert health.death() is None


async def test_who_was_told_to_stop_is_alive_and_not_ready() -> None:
    health = WorkerHealth()
    stop = asyncio.Event()
    async with health.beating(stop):
        assert "not been reached" in str(health.unreadiness())
        stop.set()
        assert health.death() is None
        assert "told to stop" in str(health.unreadiness())


def test_probes_answer_beside_the_metrics() -> None:
    said: list[str | None] = [None]
    port = serve_metrics("127.0.0.1", 0, {contract.HEALTH_PATH: lambda: said[0]})

    assert get(port, contract.HEALTH_PATH) == (200, "ok\n")
    said[0] = "asleep"
    assert get(port, contract.HEALTH_PATH) == (503, "asleep\n")
    status, text = get(port, contract.METRICS_PATH)
    assert status == 200
    assert "commonplace_jobs_running" in text


def test_metrics_are_served_on_ipv6_too() -> None:
    port = serve_metrics("::1", 0)
    with urllib.request.urlopen(f"http://[::1]:{port}/metrics", timeout=10) as answer:
        assert answer.status == 200


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
