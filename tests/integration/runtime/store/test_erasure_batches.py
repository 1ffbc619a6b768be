"""Erasure in short transactions: bounded, taken over when its process dies, and fenced against workers."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from commonplace_runtime.domain.erasure import MOST_ROWS, Selection, next_rows
from commonplace_runtime.domain.errors import Unavailable
from commonplace_runtime.domain.models import Json, KeyId, ProjectId, Reach, TeamId
from commonplace_runtime.entrypoints.http.app import create_app
from commonplace_runtime.ids import uuid7
from commonplace_runtime.services import forget, housekeeping
from commonplace_runtime.services.generate import run_group
from commonplace_runtime.services.housekeeping import keep_house
from commonplace_runtime.settings import Settings
from commonplace_runtime.store import erasures, jobs
from commonplace_runtime.store.erasures import Erasure
from commonplace_runtime.store.pool import Pool
from tests.api_server import served
from tests.conftest import Database
from tests.integration.runtime.worker.support import (
    ScriptedGenerator,
    Tenant,
    background,
    make_tenant,
    memories,
    put_event,
    take,
    terms,
    until,
)


def reach_of(tenant: Tenant) -> Reach:
    return Reach(
        team_id=TeamId(str(tenant.team_id)),
        key_id=KeyId(str(tenant.key_id)),
        project_id=ProjectId(str(tenant.project_id)),
        actor=tenant.actor,
        request_id="r",
    )


async def begin_purge(pool: Pool, tenant: Tenant) -> Erasure:
    asked: dict[str, Json] = {
        "id": str(uuid7()),
        "what": "project",
        "action": "project.memory_purged",
        "isDry": False,
        "via": "api",
    }
    begun = await erasures.begin(pool, reach_of(tenant), asked)
    assert begun is not None
    assert begun.erasure is not None
    return begun.erasure


_FILL = """
WITH numbered AS (SELECT n, gen_random_uuid() AS event, gen_random_uuid() AS job, gen_random_uuid() AS memory,
    'c:x:' || n % $3 AS key FROM generate_series(1, $4) AS n),
grouped AS (INSERT INTO commonplace.job_groups (team_id, project_id, session_key, state)
    SELECT DISTINCT $1::uuid, $2::uuid, key, '{"digests": ["a"]}'::jsonb FROM numbered RETURNING 1),
captured AS (INSERT INTO commonplace.events (id, team_id, project_id, source_adapter, idempotency_key, event_type,
        actor, payload, occurred_at)
    SELECT event, $1, $2, 'hook', event::text, 'tool_use', 'human:ada', jsonb_build_object('n', n), now()
    FROM numbered RETURNING 1),
queued AS (INSERT INTO commonplace.jobs (id, team_id, project_id, session_key, event_id, source_type, source_id,
        job_type, status, completed_at, actor)
    SELECT job, $1, $2, key, event, 'agent_event', event, 'event', 'completed', now(), 'human:ada'
    FROM numbered, (SELECT count(*) FROM grouped) AS a, (SELECT count(*) FROM captured) AS b RETURNING 1),
made AS (INSERT INTO commonplace.memories (id, team_id, project_id, owner_actor, visibility, title, content, job_id,
        generation_key)
    SELECT memory, $1, $2, 'human:ada', 'team', 'seen ' || n, 'it was seen ' || n, job, job || ':0'
    FROM numbered, (SELECT count(*) FROM queued) AS c RETURNING 1),
sourced AS (INSERT INTO commonplace.memory_sources (memory_id, team_id, source_type, source_id, event_id, job_id)
    SELECT memory, $1, 'agent_event', event, event, job FROM numbered, (SELECT count(*) FROM made) AS d RETURNING 1)
INSERT INTO commonplace.audit_log (team_id, project_id, action, resource_type, resource_id, details)
SELECT $1, $2, 'event.received', 'agent_event', event::text, '{"sourceEventId": "x"}' FROM numbered,
    (SELECT count(*) FROM sourced) AS e
"""


async def fill(pool: Pool, tenant: Tenant, rows: int, *, sessions: int = 10) -> None:
    """Events with their jobs, memories, sources and audit rows, spread over sessions: as after a day's work."""
    await pool.execute(_FILL, tenant.team_id, tenant.project_id, sessions, rows)


async def left(pool: Pool, tenant: Tenant) -> dict[str, int]:
    return {
        table: await pool.fetchval(f"SELECT count(*) FROM commonplace.{table} WHERE team_id = $1", tenant.team_id)
        for table in ("memories", "memory_sources", "events", "jobs", "job_groups")
    }


async def test_no_transaction_takes_more_than_it_was_told(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await fill(admin_pool, tenant, 95)
    erasure = await begin_purge(runtime_pool, tenant)
    known, outcome, steps = await left(admin_pool, tenant), "going", 0
    while outcome == "going":
        outcome = (await erasures.step(runtime_pool, erasure, rows=20))["outcome"]
        now = await left(admin_pool, tenant)
        gone = {table: known[table] - now[table] for table in known}
        # Groups go with the last of their jobs.
        assert gone["memories"] + gone["events"] <= 20, gone
        assert gone["jobs"] <= 20
        known, steps = now, steps + 1
    assert steps >= 10
    assert set(known.values()) == {0}


async def test_an_erasure_that_dies_is_finished_by_a_worker(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await fill(admin_pool, tenant, 60)
    erasure = await begin_purge(runtime_pool, tenant)
    assert (await erasures.step(runtime_pool, erasure, rows=25))["outcome"] == "going"

    await keep_house(runtime_pool)
    assert (await left(admin_pool, tenant))["memories"] == 35, "its process still has the lease"
    await admin_pool.execute("UPDATE commonplace.erasures SET lease_until = now() - interval '1 s'")
    await keep_house(runtime_pool)

    assert set((await left(admin_pool, tenant)).values()) == {0}
    assert (await erasures.step(runtime_pool, erasure, rows=25))["outcome"] == "lease_lost"
    [purged] = await admin_pool.fetch("SELECT * FROM commonplace.audit_log WHERE action = 'project.memory_purged'")
    assert (purged["actor"], purged["key_id"], purged["request_id"]) == (tenant.actor, tenant.key_id, "r")
    gone = {name: purged["details"]["counts"][name] for name in ("observations", "agentEvents", "jobs", "sources")}
    assert gone == dict.fromkeys(gone, 60)


async def test_an_erasure_that_cannot_be_finished_keeps_no_other_waiting(
    admin_pool: Pool, runtime_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forget, "BUSY_SECONDS", 0.0)
    stuck, other = await make_tenant(admin_pool), await make_tenant(admin_pool)
    for tenant in (stuck, other):
        await fill(admin_pool, tenant, 5)
        await begin_purge(runtime_pool, tenant)
        await admin_pool.execute(
            "UPDATE commonplace.erasures SET lease_until = now() - interval '1 s' WHERE team_id = $1", tenant.team_id
        )
    async with admin_pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM commonplace.memories WHERE team_id = $1 FOR UPDATE", stuck.team_id)
        await keep_house(runtime_pool)

    assert (await left(admin_pool, stuck))["memories"] == 5
    assert set((await left(admin_pool, other)).values()) == {0}


async def test_an_erasure_that_dies_is_finished_where_there_is_no_worker(
    database: Database, admin_pool: Pool, runtime_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "WATCH_SECONDS", 0.05)
    tenant = await make_tenant(admin_pool)
    await fill(admin_pool, tenant, 5)
    await begin_purge(runtime_pool, tenant)
    await admin_pool.execute("UPDATE commonplace.erasures SET lease_until = now() - interval '1 s'")

    async def is_done() -> bool:
        return bool(await admin_pool.fetchval("SELECT bool_and(phase = 'done') FROM commonplace.erasures"))

    async with served(create_app(Settings.model_validate({"database_url": database.runtime_url}))):
        await until(is_done)

    assert set((await left(admin_pool, tenant)).values()) == {0}


async def test_an_audit_row_of_an_odd_shape_does_not_stop_an_erasure(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await fill(admin_pool, tenant, 5)
    await admin_pool.execute("UPDATE commonplace.audit_log SET details = '[\"x\"]' WHERE team_id = $1", tenant.team_id)

    await forget.purge_project(runtime_pool, reach_of(tenant), "default")

    details = await admin_pool.fetch(
        "SELECT DISTINCT details FROM commonplace.audit_log WHERE team_id = $1 AND resource_type = 'agent_event'",
        tenant.team_id,
    )
    assert [row["details"] for row in details] == [{"erased": True}]


async def test_two_never_go_on_with_the_same_erasure(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await fill(admin_pool, tenant, 40)
    await begin_purge(runtime_pool, tenant)
    await admin_pool.execute("UPDATE commonplace.erasures SET lease_until = now() - interval '1 s'")
    taken = await asyncio.gather(*(erasures.resume(runtime_pool) for _ in range(4)))
    [erasure] = [one for one in taken if one is not None]
    stale = replace(erasure, token=erasure.token - 1)

    async def go_on() -> None:
        await until(lambda: _is_done(runtime_pool, erasure))

    await asyncio.gather(go_on(), go_on(), go_on())
    assert (await erasures.step(runtime_pool, stale, rows=20))["outcome"] == "lease_lost"
    counts = await admin_pool.fetchval("SELECT counts FROM commonplace.erasures")
    assert (counts["observations"], counts["agentEvents"], counts["jobs"], counts["sources"]) == (40, 40, 40, 40)
    assert await admin_pool.fetchval(
        "SELECT count(*) FROM commonplace.audit_log WHERE action = 'project.memory_purged'"
    ) == 1  # fmt: skip


async def test_a_cancelled_request_leaves_an_erasure_that_is_finished(
    admin_pool: Pool, runtime_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await make_tenant(admin_pool)
    await fill(admin_pool, tenant, 300)
    real, stepped = erasures.step, asyncio.Event()

    async def one_step(pool: Pool, erasure: Erasure, *, rows: int) -> dict[str, Any]:
        if stepped.is_set():
            await asyncio.Event().wait()
        stepped.set()
        return await real(pool, erasure, rows=rows)

    monkeypatch.setattr(erasures, "step", one_step)
    async with background(forget.purge_project(runtime_pool, reach_of(tenant), "default")):

        async def some_are_gone() -> bool:
            return (await left(admin_pool, tenant))["memories"] < 300

        await until(some_are_gone)
    monkeypatch.setattr(erasures, "step", real)
    assert (await left(admin_pool, tenant))["events"] > 0
    await admin_pool.execute("UPDATE commonplace.erasures SET lease_until = now() - interval '1 s'")
    assert await forget.finish_erasures(runtime_pool) == 1
    assert set((await left(admin_pool, tenant)).values()) == {0}


async def test_what_comes_in_later_stays(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await fill(admin_pool, tenant, 30)
    erasure = await begin_purge(runtime_pool, tenant)
    later = await put_event(admin_pool, tenant, session="c:x:1")
    while (await erasures.step(runtime_pool, erasure, rows=10))["outcome"] == "going":
        pass
    assert await left(admin_pool, tenant) == {
        "memories": 0,
        "memory_sources": 0,
        "events": 1,
        "jobs": 1,
        "job_groups": 1,
    }
    assert (await run_group(runtime_pool, ScriptedGenerator(), terms())).kind == "completed"
    [memory] = await memories(admin_pool, tenant)
    assert memory["events"] == [later.event_id]


async def test_a_read_that_ended_meanwhile_loses_its_words_too(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await fill(admin_pool, tenant, 30)
    named = await admin_pool.fetchval("SELECT id::text FROM commonplace.memories ORDER BY number LIMIT 1")
    erasure = await begin_purge(runtime_pool, tenant)
    while (await erasures.step(runtime_pool, erasure, rows=10))["phase"] != "events":
        pass
    stays = await put_event(admin_pool, tenant)
    later = await _memory_of(admin_pool, tenant, stays.event_id)
    for found in (named, str(later)):
        await admin_pool.execute(
            "INSERT INTO commonplace.audit_log (team_id, project_id, action, resource_type, details)"
            " VALUES ($1, $2, 'observation.read', 'observation', $3)",
            tenant.team_id,
            tenant.project_id,
            {"query": "words", "observationIds": [found]},
        )
    while (await erasures.step(runtime_pool, erasure, rows=10))["outcome"] == "going":
        pass
    reads = "SELECT details FROM commonplace.audit_log WHERE action = 'observation.read' ORDER BY number"
    assert [row["details"] for row in await admin_pool.fetch(reads)] == [
        {"erased": True},
        {"query": "words", "observationIds": [str(later)]},
    ]


async def test_a_row_in_use_is_given_way_to(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await put_event(admin_pool, tenant)
    erasure = await begin_purge(runtime_pool, tenant)
    async with admin_pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM commonplace.job_groups FOR UPDATE")
        with pytest.raises(Unavailable) as refused:
            await erasures.step(runtime_pool, erasure, rows=10)
    assert erasures.was_busy(refused.value)
    assert (await erasures.step(runtime_pool, erasure, rows=10))["outcome"] == "done"


async def test_an_erasure_waits_for_rows_in_use_by_trying_again(
    admin_pool: Pool, runtime_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await make_tenant(admin_pool)
    await put_event(admin_pool, tenant)
    real, refused = erasures.step, asyncio.Event()

    async def noted(pool: Pool, erasure: Erasure, *, rows: int) -> dict[str, Any]:
        try:
            return await real(pool, erasure, rows=rows)
        except Unavailable:
            refused.set()
            raise

    monkeypatch.setattr(erasures, "step", noted)
    async with admin_pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM commonplace.job_groups FOR UPDATE")
        purging = asyncio.create_task(forget.purge_project(runtime_pool, reach_of(tenant), "default"))
        await refused.wait()
    _, counts = await purging
    assert counts["agentEvents"] == 1


@pytest.mark.parametrize("whole", [False, True], ids=["one memory's event", "the project"])
async def test_a_worker_at_work_writes_nothing_of_what_was_erased(
    admin_pool: Pool, runtime_pool: Pool, *, whole: bool
) -> None:
    tenant = await make_tenant(admin_pool)
    gone = await put_event(admin_pool, tenant, payload="to be forgotten")
    manual = await _memory_of(admin_pool, tenant, gone.event_id)
    stays = await put_event(admin_pool, tenant, payload="to be kept")
    generator = ScriptedGenerator()
    generator.go_on.clear()

    async with background(run_group(runtime_pool, generator, terms())) as working:
        await generator.called.wait()
        await admin_pool.execute("UPDATE commonplace.job_groups SET state = $1", {"summary": {"learned": "forgotten"}})
        selection = Selection(project="default") if whole else Selection(memory_id=str(manual))
        await forget.forget(runtime_pool, reach_of(tenant), selection, dry_run=False)
        generator.go_on.set()
        outcome = await working

    assert (outcome.kind, outcome.memories) == ("lost", 0)
    assert await memories(admin_pool, tenant) == []
    if whole:
        assert set((await left(admin_pool, tenant)).values()) == {0}
        return
    group = await admin_pool.fetchrow("SELECT * FROM commonplace.job_groups")
    assert group is not None
    assert (group["state"], group["leased_by"], group["waiting"]) == ({}, None, 1)
    assert (await run_group(runtime_pool, ScriptedGenerator(), terms())).kind == "completed"
    [memory] = await memories(admin_pool, tenant)
    assert memory["events"] == [stays.event_id]
    job = await admin_pool.fetchrow("SELECT attempts, status FROM commonplace.jobs")
    assert job is not None
    assert dict(job) == {"attempts": 1, "status": "completed"}


async def test_a_group_that_comes_again_does_not_take_the_old_lease(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    old = await put_event(admin_pool, tenant)
    lease, _ = await take(runtime_pool)
    await forget.purge_project(runtime_pool, reach_of(tenant), "default")
    again = await put_event(admin_pool, tenant, session=old.session_key)
    newer, _ = await take(runtime_pool)
    assert newer.session_key == lease.session_key
    assert newer.token > lease.token
    assert await jobs.release(runtime_pool, lease) is False
    assert await admin_pool.fetchval("SELECT status FROM commonplace.jobs WHERE id = $1", again.job_id) == "processing"


async def test_a_call_under_way_counts_as_spent(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await admin_pool.execute(
        "INSERT INTO commonplace.team_limits (team_id, tokens_per_month, metered) VALUES ($1, 100000, true)",
        tenant.team_id,
    )
    await put_event(admin_pool, tenant)
    lease, _ = await take(runtime_pool)
    call = {"provider": "p", "model": "m", "inputTokens": 70, "outputTokens": 30, "costMicrousd": 5, "place": 1}
    assert (await jobs.reserve(runtime_pool, lease, {**call, "leaseSeconds": 60, "spent": []}))["outcome"] == "granted"
    await forget.purge_project(runtime_pool, reach_of(tenant), "default")
    spent = "SELECT sum(quantity)::integer FROM commonplace.usage_counters WHERE kind = 'tokens'"
    assert await admin_pool.fetchval(spent) == 100
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.reservations") == 0


async def test_whoever_waits_for_an_erased_job_is_told(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    put = await put_event(admin_pool, tenant, awaited=True)
    heard: list[str] = []
    async with runtime_pool.acquire() as connection:

        def hear(*told: object) -> None:
            heard.append(str(told[-1]))

        await connection.add_listener("commonplace_jobs", hear)
        await forget.purge_project(runtime_pool, reach_of(tenant), "default")

        async def was_heard() -> bool:
            await connection.fetchval("SELECT 1")
            return bool(heard)

        await until(was_heard)
        await connection.remove_listener("commonplace_jobs", hear)
    assert heard == [str(put.job_id)]


_REFERENCES = (
    ("DELETE FROM commonplace.jobs WHERE team_id = $1 AND event_id = $2", "jobs_of_event"),
    ("DELETE FROM commonplace.jobs WHERE team_id = $1 AND session_id = $2", "jobs_of_session"),
    ("UPDATE commonplace.memories SET job_id = NULL WHERE team_id = $1 AND job_id = $2", "memories_of_job"),
    ("UPDATE commonplace.memories SET session_id = NULL WHERE team_id = $1 AND session_id = $2", "memories_of_session"),
    (
        "UPDATE commonplace.memories SET superseded_by = NULL WHERE team_id = $1 AND superseded_by = $2",
        "memories_superseded",
    ),
    ("DELETE FROM commonplace.memory_sources WHERE team_id = $1 AND memory_id = $2", "memory_sources_of_memory"),
    ("UPDATE commonplace.memory_sources SET job_id = NULL WHERE team_id = $1 AND job_id = $2", "memory_sources_of_job"),
)


async def _plan(pool: Pool, statement: str, *arguments: object) -> str:
    async with pool.acquire() as connection, connection.transaction():
        for setting in ("enable_seqscan = off", "plan_cache_mode = force_generic_plan"):
            await connection.execute(f"SET LOCAL {setting}")
        rows = await connection.fetch(f"EXPLAIN {statement}", *arguments)
    return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize(("statement", "index"), _REFERENCES, ids=[index for _, index in _REFERENCES])
async def test_what_refers_to_a_row_that_goes_is_found_by_an_index(
    admin_pool: Pool, statement: str, index: str
) -> None:
    plan = await _plan(admin_pool, statement, uuid4(), uuid4())
    assert f"using {index} " in plan or f"on {index} " in plan


async def test_every_foreign_key_into_what_is_erased_has_an_index(admin_pool: Pool) -> None:
    """So that one that a later migration adds is noticed."""
    missing = await admin_pool.fetch(
        """
        SELECT c.conrelid::regclass::text AS referring, c.conname FROM pg_constraint c
        WHERE c.contype = 'f' AND c.confrelid IN ('commonplace.events'::regclass, 'commonplace.jobs'::regclass,
            'commonplace.memories'::regclass, 'commonplace.sessions'::regclass, 'commonplace.job_groups'::regclass)
        AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.conrelid
            AND (i.indkey::smallint[])[0:cardinality(c.conkey) - 1] @> c.conkey)
        """
    )
    assert [dict(row) for row in missing] == []


async def test_audit_rows_are_found_by_index_not_read_through(admin_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await fill(admin_pool, tenant, 3000)
    body: str = await admin_pool.fetchval("SELECT prosrc FROM pg_proc WHERE proname = 'audit_naming'")
    statement = body.partition("RETURN")[2].rpartition(";")[0]
    for name, value in (("p_team_id", f"'{tenant.team_id}'::uuid"), ("p_ids", "ARRAY['a', 'b']")):
        statement = statement.replace(name, value)
    async with admin_pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE commonplace_owner")
        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN SELECT {statement}"))
    assert "audit_log_of_resource" in plan
    assert "audit_log_observations" in plan
    assert "audit_log_by_time" not in plan
    assert "Seq Scan" not in plan


async def test_the_sweep_of_the_audit_reads_its_project_alone(admin_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await fill(admin_pool, tenant, 3000)
    async with admin_pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE commonplace_owner")
        rows = await connection.fetch(
            "EXPLAIN SELECT * FROM commonplace.audit_log WHERE team_id = $1 AND project_id = $2"
            " AND (created_at, number) > ($3, $4) ORDER BY created_at, number LIMIT 100",
            tenant.team_id,
            tenant.project_id,
            datetime.now(UTC),
            1,
        )
    plan = "\n".join(row[0] for row in rows)
    assert "using audit_log_of_project" in plan
    assert "Sort" not in plan


async def test_audit_loses_content_only_to_an_erasure_of_its_own_team(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await fill(admin_pool, tenant, 1)
    [row] = await admin_pool.fetch("SELECT resource_id, details FROM commonplace.audit_log")
    blank = "SELECT commonplace.blank_audit_v1($1, $2, false)"
    sweep = "SELECT commonplace.sweep_audit_v1($1, $2, '-infinity|0', 'infinity', 100)"
    async with runtime_pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT set_config('app.team_id', $1, true)", str(uuid4()))
        assert await connection.fetchval(blank, tenant.team_id, [row["resource_id"]]) == 0
        assert (await connection.fetchval(sweep, tenant.team_id, tenant.project_id))["blanked"] == 0
    assert await admin_pool.fetchval("SELECT details FROM commonplace.audit_log") == row["details"]


def test_the_next_transaction_is_sized_by_the_last() -> None:
    assert [next_rows(100, seconds) for seconds in (0.2, 0.05, 0.01)] == [50, 100, 200]
    assert (next_rows(1, 9.0), next_rows(MOST_ROWS, 0.0)) == (1, MOST_ROWS)


async def _is_done(pool: Pool, erasure: Erasure) -> bool:
    """One step, which may find another under way."""
    try:
        return bool((await erasures.step(pool, erasure, rows=20))["outcome"] == "done")
    except Unavailable as error:
        if not erasures.was_busy(error):
            raise
        return False


async def _memory_of(pool: Pool, tenant: Tenant, event: UUID) -> UUID:
    memory = uuid7()
    await pool.execute(
        "WITH made AS (INSERT INTO commonplace.memories (id, team_id, project_id, owner_actor, visibility, content)"
        " VALUES ($1, $2, $3, $4, 'team', 'a memory'))"
        " INSERT INTO commonplace.memory_sources (memory_id, team_id, source_type, source_id, event_id)"
        " VALUES ($1, $2, 'agent_event', $5, $5)",
        memory,
        tenant.team_id,
        tenant.project_id,
        tenant.actor,
        event,
    )
    return memory
