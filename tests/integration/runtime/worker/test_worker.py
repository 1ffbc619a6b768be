"""The worker process against real servers that go away: whatever dies, each event ends in one set of memories."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import asyncpg
import pytest

from commonplace_runtime.embedded import EmbeddedPostgres, EmbeddedRedis
from commonplace_runtime.entrypoints.doorbell import STREAM, TaskiqDoorbell
from commonplace_runtime.entrypoints.worker import Bell
from commonplace_runtime.services.migrate import migrate
from commonplace_runtime.settings import load_settings
from commonplace_runtime.store.pool import Pool, open_pool
from tests.conftest import Database
from tests.fakes.provider import KEY, Answer, FakeProvider, Status
from tests.integration.runtime.worker.support import (
    Put,
    Tenant,
    environ,
    make_tenant,
    memories,
    put_event,
    started_worker,
    statuses,
    until,
    worker_settings,
)

MAIN = """
import asyncio, os
from commonplace_runtime.entrypoints.worker import run_worker
from commonplace_runtime.observability import configure_logging
from commonplace_runtime.settings import load_settings
configure_logging("info", "json")
asyncio.run(run_worker(load_settings(os.environ)))
"""


@pytest.fixture
def redis() -> Iterator[EmbeddedRedis]:
    """A server of the test's own, for it to kill."""
    with EmbeddedRedis() as server:
        yield server


def anthropic_environ(provider: FakeProvider) -> dict[str, str]:
    return {
        "COMMONPLACE_PROVIDER": "anthropic",
        "COMMONPLACE_PROVIDER_BASE_URL": provider.url,
        "ANTHROPIC_API_KEY": KEY,
    }


class Process:
    """A worker process of its own."""

    def __init__(self, child: asyncio.subprocess.Process, log: Path) -> None:
        self.child = child
        self._log = log

    def has_logged(self, event: str) -> bool:
        return f'"event":"{event}"' in self._log.read_text()

    async def ready(self) -> None:
        async def is_started() -> bool:
            assert self.child.returncode is None, self._log.read_text()
            return self.has_logged("worker_started")

        await until(is_started)

    async def ended(self) -> int:
        async with asyncio.timeout(20):
            return await self.child.wait()


@asynccontextmanager
async def process(tmp_path: Path, values: dict[str, str]) -> AsyncIterator[Process]:
    log = tmp_path / f"worker-{monotonic()}.log"
    with log.open("wb") as output:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", MAIN, env={"PATH": os.environ["PATH"]} | values, stdout=output, stderr=output
        )
    try:
        yield Process(child, log)
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def all_done(pool: Pool, puts: Sequence[Put], *, seconds: float = 60.0) -> None:
    async def are_done() -> bool:
        try:
            return set(await statuses(pool, puts)) == {"completed"}
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False

    await until(are_done, seconds=seconds)


async def assert_one_memory_each(pool: Pool, tenant: Tenant, puts: Sequence[Put]) -> None:
    found = await memories(pool, tenant)
    assert sorted(event for memory in found for event in memory["events"]) == sorted(put.event_id for put in puts)
    assert len(found) == len(puts)


async def test_the_doorbell_wakes_an_idle_worker_long_before_its_poll(
    admin_pool: Pool, database: Database, redis: EmbeddedRedis
) -> None:
    tenant = await make_tenant(admin_pool)
    settings = worker_settings(database, COMMONPLACE_REDIS_URL=redis.url, COMMONPLACE_WORKER_POLL_SECONDS="300")
    bell = TaskiqDoorbell(redis.url)
    # A hint that was sent before any worker lived is heard too.
    early = await put_event(admin_pool, tenant, session="c:-:early")
    assert await bell.ring()
    async with started_worker(settings):
        await all_done(admin_pool, [early])
        for n in range(3):
            put = await put_event(admin_pool, tenant, session=f"c:-:{n}")
            assert await bell.ring()
            await all_done(admin_pool, [put], seconds=10)
    await bell.aclose()


async def test_without_redis_the_worker_polls(admin_pool: Pool, database: Database) -> None:
    tenant = await make_tenant(admin_pool)
    async with started_worker(worker_settings(database)):
        await all_done(admin_pool, [await put_event(admin_pool, tenant)])


async def test_redis_killed_emptied_and_restarted_costs_nothing(
    admin_pool: Pool, database: Database, redis: EmbeddedRedis
) -> None:
    tenant = await make_tenant(admin_pool)
    bell = TaskiqDoorbell(redis.url)
    redis.kill()
    async with started_worker(worker_settings(database, COMMONPLACE_REDIS_URL=redis.url)):
        assert not await bell.ring()
        away = await put_event(admin_pool, tenant, session="c:-:away")
        await all_done(admin_pool, [away])
        redis.start()

        async def is_heard() -> bool:
            return await bell.ring() and await groups_of(redis) == 1

        await until(is_heard)
        redis.kill()
        puts = [await put_event(admin_pool, tenant, session=f"c:-:{n}") for n in range(10)]
        await all_done(admin_pool, puts)
        redis.start()
        await until(is_heard)
    await bell.aclose()
    await assert_one_memory_each(admin_pool, tenant, [away, *puts])


async def groups_of(redis: EmbeddedRedis) -> int:
    """How many consumer groups listen to the doorbell's stream."""
    import redis.asyncio as client

    async with client.Redis(host="127.0.0.1", port=redis.port) as connection:
        try:
            return len(await connection.xinfo_groups(STREAM))
        except client.ResponseError:
            return 0


async def test_a_flushed_redis_is_listened_to_again(admin_pool: Pool, database: Database, redis: EmbeddedRedis) -> None:
    import redis.asyncio as client

    tenant = await make_tenant(admin_pool)
    bell = TaskiqDoorbell(redis.url)
    settings = worker_settings(database, COMMONPLACE_REDIS_URL=redis.url, COMMONPLACE_WORKER_POLL_SECONDS="300")
    async with started_worker(settings):
        await until(lambda: _is_one(groups_of(redis)))
        async with client.Redis(host="127.0.0.1", port=redis.port) as connection:
            await connection.flushall()
        put = await put_event(admin_pool, tenant)

        async def is_done() -> bool:
            await bell.ring()
            return await statuses(admin_pool, [put]) == ["completed"]

        await until(is_done)
    await bell.aclose()


async def _is_one(number: Any) -> bool:
    return bool(await number == 1)


async def test_a_ring_is_quick_and_quiet_when_redis_is_away_or_hangs() -> None:
    answered = asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answered.wait()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        for url in (f"redis://127.0.0.1:{port}/0", "redis://127.0.0.1:1/0"):
            bell = TaskiqDoorbell(url)
            started = monotonic()
            assert [await bell.ring() for _ in range(5)] == [False] * 5
            assert monotonic() - started < 1.0, "one attempt, then a while without trying"
            await bell.aclose()
        answered.set()


async def test_a_worker_killed_in_mid_call_is_finished_by_another(
    admin_pool: Pool, database: Database, tmp_path: Path
) -> None:
    tenant = await make_tenant(admin_pool)
    puts = [await put_event(admin_pool, tenant, payload=f"The port of node {n} is 54{n}.") for n in range(3)]
    async with FakeProvider() as provider:
        values = environ(database.runtime_url, COMMONPLACE_WORKER_LEASE_SECONDS="3", **anthropic_environ(provider))
        provider.gate.clear()
        async with process(tmp_path, values) as first:
            await provider.called.wait()
            first.child.send_signal(signal.SIGKILL)
            await first.ended()
        provider.gate.set()
        async with process(tmp_path, values):
            await all_done(admin_pool, puts)

    assert len(provider.calls) == 2
    await assert_one_memory_each(admin_pool, tenant, puts)


async def test_sigterm_hands_back_what_does_not_finish_in_time(
    admin_pool: Pool, database: Database, tmp_path: Path
) -> None:
    tenant = await make_tenant(admin_pool)
    put = await put_event(admin_pool, tenant)
    async with FakeProvider() as provider:
        provider.gate.clear()
        values = environ(database.runtime_url, COMMONPLACE_WORKER_GRACE_SECONDS="0.2", **anthropic_environ(provider))
        async with process(tmp_path, values) as running:
            await provider.called.wait()
            running.child.send_signal(signal.SIGTERM)
            assert await running.ended() == 0
            assert running.has_logged("jobs_handed_back")

    job = await admin_pool.fetchrow("SELECT status, attempts FROM commonplace.jobs WHERE id = $1", put.job_id)
    assert job is not None
    assert tuple(job) == ("queued", 0)
    assert await admin_pool.fetchval("SELECT available_at <= now() FROM commonplace.job_groups")


async def test_sigterm_lets_a_running_job_finish(admin_pool: Pool, database: Database, tmp_path: Path) -> None:
    tenant = await make_tenant(admin_pool)
    put = await put_event(admin_pool, tenant)
    async with FakeProvider() as provider:
        provider.gate.clear()
        async with process(tmp_path, environ(database.runtime_url, **anthropic_environ(provider))) as running:
            await provider.called.wait()
            running.child.send_signal(signal.SIGTERM)
            await put_event(admin_pool, tenant, session="c:-:later")

            async def is_stopping() -> bool:
                return running.has_logged("worker_stopping")

            await until(is_stopping)
            provider.gate.set()
            assert await running.ended() == 0

    assert await statuses(admin_pool, [put]) == ["completed"]
    assert len(provider.calls) == 1, "a stopping worker claims nothing more"


async def test_an_idle_worker_stops_at_once(database: Database, tmp_path: Path) -> None:
    async with process(tmp_path, environ(database.runtime_url)) as running:
        await running.ready()
        started = monotonic()
        running.child.send_signal(signal.SIGTERM)
        assert await running.ended() == 0
        assert monotonic() - started < 5


async def test_a_worker_that_waits_for_postgres_stops_at_once_too(tmp_path: Path) -> None:
    async with process(tmp_path, environ("postgresql://nobody@127.0.0.1:1/nowhere")) as running:

        async def is_waiting() -> bool:
            return running.has_logged("database_unreachable")

        await until(is_waiting)
        running.child.send_signal(signal.SIGTERM)
        assert await running.ended() == 0


async def test_postgres_restarted_during_work_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with EmbeddedPostgres() as server:
        pool = await open_pool(server.url(), size=5, connect_timeout=5, statement_timeout=30, application="tests")
        async with pool, FakeProvider() as provider:
            await migrate(pool, with_roles=True)
            tenant = await make_tenant(pool)
            puts = [
                await put_event(pool, tenant, session=f"c:-:{n // 2}", payload=f"Port {n} is open.") for n in range(12)
            ]
            settings = load_settings(
                environ(server.url(), COMMONPLACE_WORKER_CONCURRENCY="3", **anthropic_environ(provider))
            )
            provider.gate.clear()
            async with started_worker(settings):
                await provider.called.wait()
                # The answers arrive while Postgres is away: they are kept, not bought again.
                server.kill()
                provider.gate.set()
                await asyncio.to_thread(server.start)
                # A claim whose answer went down with Postgres holds its session until its lease of 60 s ends.
                await all_done(pool, puts, seconds=120)

            assert len(provider.calls) == 6
            await assert_one_memory_each(pool, tenant, puts)


async def test_postgres_away_at_start_is_waited_for() -> None:
    with EmbeddedPostgres() as server:
        pool = await open_pool(server.url(), size=2, connect_timeout=5, statement_timeout=30, application="tests")
        async with pool:
            server.kill()
            async with started_worker(load_settings(environ(server.url()))):
                await asyncio.to_thread(server.start)
                # Its schema is not there yet either.
                await migrate(pool, with_roles=True)
                await all_done(pool, [await put_event(pool, await make_tenant(pool))])


async def test_two_worker_processes_keep_each_sessions_order(
    admin_pool: Pool, database: Database, tmp_path: Path
) -> None:
    tenant = await make_tenant(admin_pool)
    async with FakeProvider(latency_seconds=0.02) as provider:
        values = environ(database.runtime_url, COMMONPLACE_WORKER_CONCURRENCY="4", **anthropic_environ(provider))
        async with process(tmp_path, values), process(tmp_path, values):
            puts = [
                await put_event(admin_pool, tenant, session=f"c:-:{n % 5}", payload=f"{n % 5}:{n:03d} is the number")
                for n in range(60)
            ]
            await all_done(admin_pool, puts)

    await assert_one_memory_each(admin_pool, tenant, puts)
    seen = [event for call in provider.calls for event in call.events]
    for session in range(5):
        mine = [event for event in seen if event.startswith(f"{session}:")]
        assert mine == sorted(mine)
        assert len(mine) == 12


async def test_a_throttled_provider_is_left_alone_for_all_sessions(admin_pool: Pool, database: Database) -> None:
    tenant = await make_tenant(admin_pool)
    async with FakeProvider(otherwise=Status(code=429, headers={"retry-after": "600"})) as provider:
        settings = worker_settings(database, COMMONPLACE_WORKER_CONCURRENCY="1", **anthropic_environ(provider))
        async with started_worker(settings):
            for n in range(5):
                await put_event(admin_pool, tenant, session=f"c:-:{n}")
            await provider.called.wait()

            async def is_paused() -> bool:
                return bool(await admin_pool.fetchval("SELECT count(*) FROM commonplace.jobs WHERE run_after > now()"))

            await until(is_paused)
    assert len(provider.calls) == 1


async def test_a_failing_provider_does_not_lose_the_event(admin_pool: Pool, database: Database) -> None:
    tenant = await make_tenant(admin_pool)
    put = await put_event(admin_pool, tenant, max_attempts=2)

    async def is_failed() -> bool:
        await admin_pool.execute("UPDATE commonplace.jobs SET run_after = now() WHERE status = 'queued'")
        await admin_pool.execute("UPDATE commonplace.job_groups SET available_at = now() WHERE lease_until IS NULL")
        return await statuses(admin_pool, [put]) == ["failed"]

    async with (
        FakeProvider(otherwise=Answer(text="nonsense")) as provider,
        started_worker(worker_settings(database, **anthropic_environ(provider))),
    ):
        await until(is_failed)
    error = await admin_pool.fetchval("SELECT last_error FROM commonplace.jobs")
    assert error["classification"] == "invalid_output"
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.events") == 1


async def test_a_ring_wakes_one_loop_and_closing_wakes_all() -> None:
    bell = Bell()
    woken: list[int] = []

    async def loop(number: int) -> None:
        await bell.wait()
        woken.append(number)

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(loop(number))
        await asyncio.sleep(0)
        bell.ring()
        bell.ring()

        async def is_woken() -> bool:
            return len(woken) == 1

        await until(is_woken)
        bell.close()
    assert sorted(woken) == [0, 1, 2, 3]
