"""Whose turn it is: teams in rotation, a team's sessions oldest first, and nobody waits for who cannot be served."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from commonplace_runtime.domain.observations import Generated
from commonplace_runtime.entrypoints.worker import Worker
from commonplace_runtime.llm.ports import Batch
from commonplace_runtime.services.generate import run_group
from commonplace_runtime.store import jobs as store
from commonplace_runtime.store.pool import Pool
from tests.conftest import Database
from tests.integration.runtime.worker.support import (
    ScriptedGenerator,
    Tenant,
    background,
    expire_lease,
    make_tenant,
    put_event,
    statuses,
    take,
    terms,
    until,
    worker_settings,
)

_QUEUE = """
WITH told AS (
    SELECT gen_random_uuid() AS event_id, gen_random_uuid() AS job_id, format('c:-:%s-%s', $3::text, n) AS session_key,
        n
    FROM generate_series(1, $4::integer) n),
grouped AS (
    INSERT INTO commonplace.job_groups (team_id, project_id, session_key, available_at, waiting)
    SELECT $1, $2, session_key, now() - make_interval(secs => 2 * ($4 - n) / 1000.0), 1 FROM told),
stored AS (
    INSERT INTO commonplace.events (id, team_id, project_id, source_adapter, idempotency_key, event_type, actor,
        payload, occurred_at)
    SELECT event_id, $1, $2, 'hook', event_id::text, 'assistant_message', 'human:ada', to_jsonb($3 || ' ' || n), now()
    FROM told)
INSERT INTO commonplace.jobs (id, team_id, project_id, session_key, event_id, source_type, source_id, job_type, actor)
SELECT job_id, $1, $2, session_key, event_id, 'agent_event', event_id, 'event', 'human:ada' FROM told ORDER BY n
"""


async def put_sessions(pool: Pool, tenant: Tenant, name: str, count: int) -> None:
    """`count` sessions of one event `<name> <place>`, due since a while, the first one for longest."""
    await pool.execute(_QUEUE, tenant.team_id, tenant.project_id, name, count)


async def make_tenants(pool: Pool, count: int) -> list[Tenant]:
    """In the order of their teams' ids, which is the order of their turns."""
    return sorted([await make_tenant(pool) for _ in range(count)], key=lambda tenant: tenant.team_id)


async def hold(pool: Pool, *tenants: Tenant) -> None:
    await pool.executemany(
        "INSERT INTO commonplace.team_holds (team_id, held_until, reason) "
        "VALUES ($1, now() + interval '1 h', 'tokens')",
        [(tenant.team_id,) for tenant in tenants],
    )


async def detach(pool: Pool, *tenants: Tenant) -> None:
    await pool.executemany(
        "UPDATE commonplace.teams SET detached_at = now() WHERE id = $1", [(tenant.team_id,) for tenant in tenants]
    )


class Metered(ScriptedGenerator):
    """Each call waits for a permit."""

    def __init__(self) -> None:
        super().__init__()
        self.permits = asyncio.Semaphore(0)

    async def generate(self, batch: Batch, **more: Any) -> Generated:
        answer = await super().generate(batch, **more)
        await self.permits.acquire()
        return answer

    async def reached(self, calls: int) -> None:
        async def are_made() -> bool:
            return len(self.batches) >= calls

        await until(are_made)


@pytest.mark.parametrize("busy", [0, 1], ids=["busy team comes first", "busy team comes last"])
async def test_a_single_job_waits_one_turn_of_a_team_with_thousands(
    admin_pool: Pool, runtime_pool: Pool, busy: int
) -> None:
    tenants = await make_tenants(admin_pool, 2)
    await put_sessions(admin_pool, tenants[busy], "busy", 2000)
    generator, ours = ScriptedGenerator(), terms()
    for _ in range(3):
        await run_group(runtime_pool, generator, ours)
    await put_event(admin_pool, tenants[1 - busy], payload="single")

    for _ in range(2):
        await run_group(runtime_pool, generator, ours)

    assert ["single"] in generator.batches[3:]


@pytest.mark.parametrize("busy", [0, 1], ids=["busy team comes first", "busy team comes last"])
async def test_a_full_worker_gives_its_next_free_place_to_the_team_that_waits(
    admin_pool: Pool, runtime_pool: Pool, database: Database, busy: int
) -> None:
    tenants = await make_tenants(admin_pool, 2)
    await put_sessions(admin_pool, tenants[busy], "busy", 2000)
    generator, stop = Metered(), asyncio.Event()
    settings = worker_settings(database, COMMONPLACE_WORKER_CONCURRENCY="4")
    async with background(Worker(runtime_pool, generator, terms(), settings, stop).run()) as working:
        await generator.reached(4)
        await put_event(admin_pool, tenants[1 - busy], payload="single")
        for calls in range(5, 9):
            generator.permits.release()
            await generator.reached(calls)
        stop.set()
        for _ in range(6):
            generator.permits.release()
        await working

    assert ["single"] in generator.batches[4:8], "two sessions were claimed ahead: one job time of four slots"


async def test_teams_take_turns_and_each_ones_sessions_go_oldest_first(admin_pool: Pool, runtime_pool: Pool) -> None:
    for name, tenant in zip("abc", await make_tenants(admin_pool, 3), strict=True):
        await put_sessions(admin_pool, tenant, name, 3)
    generator, ours = ScriptedGenerator(), terms()

    while (await run_group(runtime_pool, generator, ours)).kind != "idle":
        pass

    assert generator.batches == [[f"{name} {n}"] for n in (1, 2, 3) for name in "abc"]


async def test_a_team_whose_turn_passed_without_work_is_not_waited_for(admin_pool: Pool, runtime_pool: Pool) -> None:
    first, second, third = await make_tenants(admin_pool, 3)
    await put_sessions(admin_pool, second, "b", 1)
    generator, ours = ScriptedGenerator(), terms()
    await run_group(runtime_pool, generator, ours)
    await put_event(admin_pool, first, payload="a")
    await put_event(admin_pool, third, payload="c")

    for _ in range(2):
        await run_group(runtime_pool, generator, ours)

    assert generator.batches == [["b 1"], ["c"], ["a"]]


@pytest.mark.parametrize("put_aside", [hold, detach], ids=["held", "detached"])
async def test_teams_that_cannot_be_served_keep_nobody_waiting(
    admin_pool: Pool, runtime_pool: Pool, put_aside: Callable[..., Awaitable[None]]
) -> None:
    *idle, served = await make_tenants(admin_pool, 121)
    for tenant in idle[1:]:
        await put_sessions(admin_pool, tenant, "idle", 1)
    await put_sessions(admin_pool, idle[0], "idle", 150)
    await put_aside(admin_pool, *idle)
    put = await put_event(admin_pool, served, payload="served")
    generator = ScriptedGenerator()

    outcomes = [(await run_group(runtime_pool, generator, terms())).kind for _ in range(2)]

    assert outcomes == ["completed", "idle"]
    assert generator.batches == [["served"]]
    assert await statuses(admin_pool, [put]) == ["completed"]


async def test_a_team_is_served_again_the_moment_it_may_be(admin_pool: Pool, runtime_pool: Pool) -> None:
    held, detached = await make_tenants(admin_pool, 2)
    await put_sessions(admin_pool, held, "held", 1)
    await put_sessions(admin_pool, detached, "detached", 1)
    await hold(admin_pool, held)
    await detach(admin_pool, detached)
    generator, ours = ScriptedGenerator(), terms()
    assert (await run_group(runtime_pool, generator, ours)).kind == "idle"

    await admin_pool.execute("UPDATE commonplace.team_holds SET held_until = now()")
    await admin_pool.execute("UPDATE commonplace.teams SET detached_at = NULL")
    for _ in range(2):
        await run_group(runtime_pool, generator, ours)

    assert generator.batches == [["held 1"], ["detached 1"]]


async def test_a_session_that_another_claim_holds_is_skipped_not_waited_for(
    admin_pool: Pool, runtime_pool: Pool
) -> None:
    tenant = await make_tenant(admin_pool)
    await put_sessions(admin_pool, tenant, "a", 2)
    async with admin_pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM commonplace.job_groups WHERE session_key = 'c:-:a-1' FOR UPDATE")

        lease, _ = await take(runtime_pool)

        assert lease.session_key == "c:-:a-2"
        assert await store.claim(runtime_pool, worker="w", lease_seconds=60, max_jobs=10) is None


async def test_sessions_without_due_work_are_put_right_in_passing(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await put_sessions(admin_pool, tenant, "cancelled", 50)
    await admin_pool.execute("UPDATE commonplace.jobs SET status = 'cancelled', cancelled_at = now()")
    await put_event(admin_pool, tenant, payload="left")
    generator = ScriptedGenerator()

    while (await run_group(runtime_pool, generator, terms())).kind != "idle":
        pass

    assert generator.batches == [["left"]]
    rows = await admin_pool.fetch("SELECT DISTINCT available_at, waiting, waiting_since FROM commonplace.job_groups")
    assert [tuple(row) for row in rows] == [(None, 0, None)]


async def test_sessions_that_are_put_right_keep_no_other_team_waiting(admin_pool: Pool, runtime_pool: Pool) -> None:
    first, second = await make_tenants(admin_pool, 2)
    await put_sessions(admin_pool, first, "cancelled", 150)
    await admin_pool.execute("UPDATE commonplace.jobs SET status = 'cancelled', cancelled_at = now()")
    await put_event(admin_pool, second, payload="single")
    generator = ScriptedGenerator()

    await run_group(runtime_pool, generator, terms())

    assert generator.batches == [["single"]]


async def test_a_claim_that_only_put_right_is_followed_by_another(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await put_sessions(admin_pool, tenant, "cancelled", 2)
    await admin_pool.execute("UPDATE commonplace.jobs SET status = 'cancelled', cancelled_at = now()")
    generator = ScriptedGenerator()

    assert (await run_group(runtime_pool, generator, terms())).kind != "idle"
    assert (await run_group(runtime_pool, generator, terms())).kind == "idle"


async def test_a_claim_that_breaks_for_one_team_leaves_the_others_their_turns(
    admin_pool: Pool, runtime_pool: Pool, database: Database
) -> None:
    held, broken, served = await make_tenants(admin_pool, 3)
    for tenant in (held, broken):
        await put_event(admin_pool, tenant, payload="broken")
    await hold(admin_pool, held)
    connection = await asyncpg.connect(database.superuser_url)
    try:
        await connection.execute(
            "ALTER TABLE commonplace.job_groups ADD CONSTRAINT breaks_a_claim"
            f" CHECK (leased_by IS NULL OR team_id <> '{broken.team_id}')"
        )
    finally:
        await connection.close()
    put = await put_event(admin_pool, served, session="c:-:served")
    settings, stop = worker_settings(database, COMMONPLACE_WORKER_CONCURRENCY="1"), asyncio.Event()

    async def is_done() -> bool:
        return await statuses(admin_pool, [put]) == ["completed"]

    async with background(Worker(runtime_pool, ScriptedGenerator(), terms(), settings, stop).run()) as working:
        await until(is_done)
        stop.set()
        await working


async def test_a_dead_workers_session_comes_back_in_its_teams_turn(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant, other = await make_tenants(admin_pool, 2)
    put = await put_event(admin_pool, tenant, payload="again")
    await take(runtime_pool)
    await put_sessions(admin_pool, other, "other", 2)
    await expire_lease(admin_pool, put)
    generator = ScriptedGenerator()
    ours = terms()

    for _ in range(3):
        await run_group(runtime_pool, generator, ours)

    assert generator.batches == [["again"], ["other 1"], ["other 2"]]
