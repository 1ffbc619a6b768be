"""
A real worker process, killed with SIGKILL at every step of claiming, calling and committing; then another takes over.

Each event ends in one set of memories, no answer that was committed is bought again, and the budget's figures are
never below what the provider was asked for.
"""

import random
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from commonplace_runtime.store.pool import Connection, Pool
from tests.conftest import Database
from tests.factories import set_limits
from tests.integration.runtime.worker.chaos import CHAOS, WORKER, Process, Provider, process, provider
from tests.integration.runtime.worker.crashing_worker import APPLICATION
from tests.integration.runtime.worker.support import (
    Put,
    Tenant,
    environ,
    expire_lease,
    make_tenant,
    memories,
    put_event,
    started_worker,
    statuses,
    until,
    worker_settings,
)

CRASHING = "tests.integration.runtime.worker.crashing_worker"
TOKENS_A_CALL = 120


@dataclass(frozen=True)
class Step:
    """
    Where the worker dies, and how often the one batch is then asked for and counted.

    calls: that reach the provider. aside: a reservation was left behind, and counts as spent.
    """

    moment: str
    step: str
    calls: int
    aside: bool

    def __str__(self) -> str:
        return f"{self.moment}-{self.step}"


SUICIDES = [
    Step("before", "claim", calls=1, aside=False),
    Step("after", "claim", calls=1, aside=False),
    Step("before", "reserve", calls=1, aside=False),
    Step("after", "reserve", calls=1, aside=True),
    Step("before", "call", calls=1, aside=True),
    Step("after", "call", calls=2, aside=True),
    Step("before", "complete", calls=2, aside=True),
    Step("after", "complete", calls=1, aside=False),
]
COMMITTED = [
    Step("sent", "claim", calls=1, aside=False),
    Step("sent", "reserve", calls=1, aside=True),
    Step("sent", "complete", calls=1, aside=False),
]
ROLLED_BACK = [
    Step("sent", "claim", calls=1, aside=False),
    Step("sent", "reserve", calls=1, aside=False),
    Step("sent", "complete", calls=2, aside=True),
]
SIZES = [pytest.param(1, id="one-event"), pytest.param(5, id="five-events")]


def at(steps: Sequence[Step]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("step", steps, ids=str)


@pytest.fixture(scope="module")
async def counted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Provider]:
    async with provider(tmp_path_factory.mktemp("provider") / "log") as running:
        yield running


class Scene:
    """One session of a team with a budget, the worker that dies over it, and the one that comes after."""

    def __init__(
        self, pool: Pool, server: Connection, database: Database, log: Path, tenant: Tenant, puts: Sequence[Put]
    ) -> None:
        self.pool = pool
        self.server = server
        self.database = database
        self.tenant = tenant
        self.puts = puts
        self._log = log

    @asynccontextmanager
    async def crashing(self, step: Step, asked: Provider) -> AsyncIterator[Process]:
        values = environ(self.database.runtime_url, COMMONPLACE_WORKER_CONCURRENCY="1", **self._values(asked))
        async with process(self._log, "-m", CRASHING, step.moment, step.step, **values) as running:
            yield running

    def _values(self, asked: Provider) -> dict[str, str]:
        return asked.environ | {"COMMONPLACE_WORKER_LEASE_SECONDS": "3"}

    async def killed_itself(self, running: Process) -> None:
        assert await running.ended() == -signal.SIGKILL, self._log.read_text()

    async def taken_over(self, asked: Provider) -> None:
        """The lease of the dead runs out, and another worker completes what it left."""
        await expire_lease(self.pool, self.puts[0])
        async with started_worker(worker_settings(self.database, **self._values(asked))):

            async def are_done() -> bool:
                return set(await statuses(self.pool, self.puts)) == {"completed"}

            await until(are_done)

    async def holds(self, step: Step, asked: Provider, before: int) -> None:
        """What was promised. before: the provider's calls when the scene began."""
        await assert_one_memory_each(self.pool, self.tenant, self.puts)
        calls = (await asked.calls())[before:]
        assert len(calls) == step.calls
        assert len({call["prompt"] for call in calls}) == 1, "the batch is asked for again as it was"
        spent = await usage(self.pool)
        assert spent["model_calls"] == 1 + step.aside, "one for the answer that was written, one that nobody knows of"
        if step.aside:
            assert spent["tokens"] > TOKENS_A_CALL * step.calls
        else:
            assert spent["tokens"] == TOKENS_A_CALL * step.calls
        assert await self.pool.fetchval("SELECT count(*) FROM commonplace.reservations") == 0
        group = await self.pool.fetchrow("SELECT * FROM commonplace.job_groups")
        assert group is not None
        assert (group["lease_until"], group["available_at"], group["waiting"]) == (None, None, 0)


async def usage(pool: Pool) -> dict[str, int]:
    rows = await pool.fetch("SELECT kind, sum(quantity)::bigint AS sum FROM commonplace.usage_counters GROUP BY kind")
    return {row["kind"]: row["sum"] for row in rows}


async def assert_one_memory_each(pool: Pool, tenant: Tenant, puts: Sequence[Put]) -> None:
    found = await memories(pool, tenant)
    assert sorted(event for memory in found for event in memory["events"]) == sorted(put.event_id for put in puts)
    assert len(found) == len(puts)


@pytest.fixture(params=SIZES)
async def scene(
    request: pytest.FixtureRequest, admin_pool: Pool, database: Database, tmp_path: Path
) -> AsyncIterator[Scene]:
    tenant = await make_tenant(admin_pool)
    await set_limits(admin_pool, str(tenant.team_id), tokens_per_month=10_000_000)
    puts = [
        await put_event(admin_pool, tenant, payload=f"Service {n} listens on port {7000 + n}.")
        for n in range(request.param)
    ]
    # Only a superuser sees what others wait for.
    server = await asyncpg.connect(database.superuser_url)
    try:
        yield Scene(admin_pool, server, database, tmp_path / "log", tenant, puts)
    finally:
        await server.close()


@asynccontextmanager
async def held_back(scene: Scene, step: Step) -> AsyncIterator[None]:
    """What the step's statement, and none before it, has to lock stays locked until the end of the block."""
    lock = {
        "claim": "SELECT FROM commonplace.jobs FOR UPDATE",
        "reserve": "SELECT pg_advisory_xact_lock(hashtextextended('commonplace.budget:' || id, 0)) "
        "FROM commonplace.teams",
        "complete": "SELECT FROM commonplace.events FOR UPDATE",
    }
    async with scene.pool.acquire() as connection, connection.transaction():
        await connection.execute(lock[step.step])
        yield


async def waits_for_lock(scene: Scene) -> None:
    async def is_waiting() -> bool:
        return bool(
            await scene.server.fetchval(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock')",
                APPLICATION,
            )
        )

    await until(is_waiting)


async def has_taken_effect(scene: Scene, step: Step) -> None:
    effect = {
        "claim": "SELECT bool_and(status = 'processing') FROM commonplace.jobs",
        "reserve": "SELECT EXISTS (SELECT FROM commonplace.reservations)",
        "complete": "SELECT bool_and(status = 'completed') FROM commonplace.jobs",
    }

    async def is_there() -> bool:
        return bool(await scene.pool.fetchval(effect[step.step]))

    await until(is_there)


@at(SUICIDES)
async def test_a_worker_killed_between_two_steps_loses_and_doubles_nothing(
    scene: Scene, step: Step, counted: Provider
) -> None:
    before = await counted.count()
    async with scene.crashing(step, counted) as dying:
        await scene.killed_itself(dying)
    await scene.taken_over(counted)
    await scene.holds(step, counted, before)


@at([Step("after", "call", calls=2, aside=True)])
async def test_a_worker_killed_while_the_model_thinks_costs_one_call(scene: Scene, step: Step, tmp_path: Path) -> None:
    async with provider(tmp_path / "provider", "--unanswered", "1") as asked:
        async with scene.crashing(step, asked) as dying:

            async def is_called() -> bool:
                return await asked.count() == 1

            await until(is_called)
            await dying.kill()
        await scene.taken_over(asked)
        await scene.holds(step, asked, 0)


@at([Step("before", "extend_lease", calls=2, aside=True), Step("after", "extend_lease", calls=2, aside=True)])
async def test_a_worker_killed_at_a_heartbeat_costs_one_call(scene: Scene, step: Step, tmp_path: Path) -> None:
    async with provider(tmp_path / "provider", "--unanswered", "1") as asked:
        async with scene.crashing(step, asked) as dying:
            await scene.killed_itself(dying)
        await scene.taken_over(asked)
        await scene.holds(step, asked, 0)


@at(COMMITTED)
async def test_a_worker_killed_before_it_read_of_its_commit_repeats_nothing(
    scene: Scene, step: Step, counted: Provider
) -> None:
    before = await counted.count()
    async with scene.crashing(step, counted) as dying:
        await has_taken_effect(scene, step)
        await dying.kill()
    await scene.taken_over(counted)
    await scene.holds(step, counted, before)


@at(ROLLED_BACK)
async def test_a_worker_killed_with_its_transaction_leaves_no_trace_of_it(
    scene: Scene, step: Step, counted: Provider
) -> None:
    before = await counted.count()
    async with held_back(scene, step), scene.crashing(step, counted) as dying:
        await waits_for_lock(scene)
        await dying.kill()
        await scene.server.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = $1", APPLICATION
        )
    await scene.taken_over(counted)
    await scene.holds(step, counted, before)


@at(COMMITTED)
async def test_a_statement_that_outlives_its_worker_is_as_good_as_any(
    scene: Scene, step: Step, counted: Provider
) -> None:
    before = await counted.count()
    async with held_back(scene, step), scene.crashing(step, counted) as dying:
        await waits_for_lock(scene)
        await dying.kill()
    await has_taken_effect(scene, step)
    await scene.taken_over(counted)
    await scene.holds(step, counted, before)


async def test_workers_killed_at_any_moment_lose_and_double_nothing(
    admin_pool: Pool, database: Database, tmp_path: Path
) -> None:
    kills, slots, events = 4 * CHAOS, 8, 150 * CHAOS
    chance = random.Random(CHAOS)
    tenant = await make_tenant(admin_pool)
    puts = [
        # Who is killed that often is not to blame: no attempt is the last one.
        await put_event(
            admin_pool, tenant, session=f"c:-:{n % (events // 3)}", payload=f"Port {n} is open.", max_attempts=99
        )
        for n in range(events)
    ]
    async with provider(tmp_path / "provider", "--latency", "0.1") as asked, AsyncExitStack() as stack:
        values = environ(
            database.runtime_url,
            COMMONPLACE_WORKER_CONCURRENCY=str(slots),
            COMMONPLACE_WORKER_LEASE_SECONDS="5",
            **asked.environ,
        )

        async def start(number: int) -> Process:
            return await stack.enter_async_context(process(tmp_path / f"worker-{number}", "-c", WORKER, **values))

        workers = [await start(0), await start(1)]
        for number in range(kills):
            aim = await asked.count() + chance.randrange(2 * slots)

            async def is_reached(aim: int = aim) -> bool:
                return await asked.count() >= aim or set(await statuses(admin_pool, puts)) == {"completed"}

            await until(is_reached, seconds=60)
            await workers.pop(chance.randrange(2)).kill()
            workers.append(await start(number + 2))

        async def are_done() -> bool:
            return set(await statuses(admin_pool, puts)) == {"completed"}

        await until(are_done, seconds=60 * CHAOS)
        calls = await asked.count()

    await assert_one_memory_each(admin_pool, tenant, puts)
    spent = await usage(admin_pool)
    assert spent["model_calls"] <= calls <= spent["model_calls"] + kills * slots
    assert spent["tokens"] == TOKENS_A_CALL * spent["model_calls"]
