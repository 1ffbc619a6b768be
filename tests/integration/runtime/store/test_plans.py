"""What a hot path reads does not grow with its team, whatever the planner knew when the connection made its plans."""

import secrets
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest

from commonplace_runtime.domain.wire import NewEventRow
from commonplace_runtime.ids import uuid7
from commonplace_runtime.store.events import _columns, _fields
from commonplace_runtime.store.pool import Connection, Pool, open_pool
from tests.conftest import Database
from tests.integration.runtime.worker.support import Tenant, make_tenant

FILLED = 3000
MOST_READ = 600
"""Entries of one index, rows of one table: far from FILLED."""
PLANS_MADE = 7
"""After five runs Postgres keeps a plan."""

_FILL = """
WITH place AS (
    SELECT n, gen_random_uuid() AS event_id, gen_random_uuid() AS job_id, gen_random_uuid() AS memory_id
    FROM generate_series(1, $3::integer) AS n
), grouped AS (
    INSERT INTO commonplace.job_groups (team_id, project_id, session_key) SELECT $1, $2, 'c:' || n FROM place
), captured AS (
    INSERT INTO commonplace.events (id, team_id, project_id, source_adapter, idempotency_key, event_type, actor,
        payload,
        occurred_at)
    SELECT event_id, $1, $2, 'hook', event_id::text, 'x', 'human:ada', '{}', now() FROM place
), queued AS (
    INSERT INTO commonplace.jobs (id, team_id, project_id, session_key, event_id, source_type, source_id, job_type,
        actor, status, completed_at)
    SELECT job_id, $1, $2, 'c:' || n, event_id, 'agent_event', event_id, 'observation_generate_for_event', 'human:ada',
        'completed', now()
    FROM place
), made AS (
    INSERT INTO commonplace.memories (id, team_id, project_id, owner_actor, visibility, title, content,
        job_id)
    SELECT memory_id, $1, $2, 'human:ada', 'team', 'title ' || n, 'lease ' || n % 20, job_id FROM place
)
INSERT INTO commonplace.memory_sources (memory_id, team_id, source_type, source_id, event_id, job_id)
SELECT memory_id, $1, 'agent_event', event_id, event_id, job_id FROM place
"""
_READ = """
SELECT relname, pg_stat_get_xact_tuples_returned(oid) AS read FROM pg_class
WHERE relnamespace = 'commonplace'::regnamespace AND relkind IN ('r', 'i')
"""


def _numbered(first: int, count: int) -> str:
    return ", ".join(f"${number}" for number in range(first, first + count))


_INGEST = (
    f"commonplace.ingest_v2($1, $2, $3, $4, $5, true, true, {_numbered(6, 10)}, $16::text::jsonb, $17::text::jsonb,"
    f" {_numbered(18, 4)})"
)


def _event(session: str | None) -> NewEventRow:
    given: Any = {"id": str(uuid7()), "jobId": str(uuid7()), "project": None, "contentSessionId": session}
    told = {"platformGiven": False, "platformSource": None, "sourceAdapter": "hook", "sourceEventId": None}
    rest = {"eventType": "x", "payload": {}, "metadata": {}, "occurredAt": 0, "digest": secrets.token_hex(32)}
    return {**given, **told, **rest, "privateParts": 0, "redactedSecrets": 0}  # type: ignore[typeddict-item]


def _line(event: str) -> dict[str, Any]:
    texts = {"type": "memory", "project": None, "id": str(uuid7()), "kind": "x", "title": None, "content": "x"}
    lists = {"metadata": {}, "tags": [], "keywords": [], "importance": 0.5}
    return {"line": 1, **texts, **lists, "sources": [{"sourceType": "agent_event", "sourceId": event}]}


async def _calls(pool: Pool, tenant: Tenant) -> Mapping[str, tuple[str, tuple[Any, ...]]]:
    memory = await pool.fetchval("SELECT id FROM commonplace.memories ORDER BY number DESC LIMIT 1") or uuid4()
    event = await pool.fetchval("SELECT id FROM commonplace.events ORDER BY number DESC LIMIT 1") or uuid4()
    return {
        "ingest": (_INGEST, _fields(_event("S"))),
        "ingest without a session": (_INGEST, _fields(_event(None))),
        "batch": (
            f"commonplace.ingest_batch_v2($1, $2, $3, $4, $5, true, false, {_numbered(6, 13)})",
            _columns([_event("S"), _event("T"), _event(None)]),
        ),
        "get": ("commonplace.get_memory_v1($1, $2, $3, $4, $5, $6, 'x')", (str(memory),)),
        "recent": (
            "commonplace.recall_v2($1, $2, $3, $4, $5, 'recent', NULL, NULL, 10, NULL, NULL,"
            " NULL, NULL, NULL, NULL, NULL, NULL)",
            (),
        ),
        "list": ("commonplace.list_memories_v1($1, $2, $3, $4, $5, $6, NULL, 20)", ({},)),
        "context": ("commonplace.context_inject_v1($1, $2, $3, $4, $5, NULL, NULL, 20)", ()),
        "timeline": ("commonplace.timeline_v1($1, $2, $3, $4, $5, NULL, $6, NULL, NULL, 5, 5)", (str(memory),)),
        "import": ("commonplace.import_v1($1, $2, $3, $4, $5, NULL, false, $6)", ([_line(str(event))],)),
    }


async def _call(connection: Connection, tenant: Tenant, call: tuple[str, tuple[Any, ...]]) -> dict[str, int]:
    """What the call read of each table and index; it leaves nothing behind."""
    transaction = connection.transaction()
    await transaction.start()
    before = {row["relname"]: row["read"] for row in await connection.fetch(_READ)}
    reach = (tenant.team_id, tenant.key_id, tenant.project_id, "human:ada", "r")
    await connection.fetchval(f"SELECT {call[0]}", *reach, *call[1])
    after = {row["relname"]: row["read"] for row in await connection.fetch(_READ)}
    await transaction.rollback()
    return {name: read - before[name] for name, read in after.items()}


@pytest.fixture
async def tenant(admin_pool: Pool) -> Tenant:
    return await make_tenant(admin_pool)


async def test_plans_of_an_empty_database_do_not_read_through_a_full_one(
    database: Database, admin_pool: Pool, tenant: Tenant
) -> None:
    async with (
        await open_pool(
            database.runtime_url, size=1, connect_timeout=10, statement_timeout=30, application="t"
        ) as pool,
        pool.acquire() as connection,
    ):
        for _ in range(PLANS_MADE):
            for call in (await _calls(admin_pool, tenant)).values():
                await _call(connection, tenant, call)
        await admin_pool.execute(_FILL, tenant.team_id, tenant.project_id, FILLED)

        read = {
            name: {
                index: count for index, count in (await _call(connection, tenant, call)).items() if count > MOST_READ
            }
            for name, call in (await _calls(admin_pool, tenant)).items()
        }

    assert {name: found for name, found in read.items() if found} == {}


async def test_a_search_counts_its_project_once(database: Database, admin_pool: Pool, tenant: Tenant) -> None:
    await admin_pool.execute(_FILL, tenant.team_id, tenant.project_id, FILLED)
    search = ("commonplace.recall_v1($1, $2, $3, $4, $5, 'search', NULL, 'lease 7', 10, NULL, NULL)", ())
    async with (
        await open_pool(
            database.runtime_url, size=1, connect_timeout=10, statement_timeout=30, application="t"
        ) as pool,
        pool.acquire() as connection,
    ):
        read = await _call(connection, tenant, search)

    assert max(read.values()) <= 5 * FILLED, read


async def test_a_search_reads_successors_by_their_ids_whatever_a_plan_thinks_of_the_team(admin_pool: Pool) -> None:
    """A plan for teams of average size would go through a large one for each match."""
    signature = "commonplace.ranked_memories(uuid, uuid, text, text, integer, text)"
    body = await admin_pool.fetchval("SELECT prosrc FROM pg_proc WHERE oid = $1::text::regprocedure", signature)
    for place, name in enumerate(("team_id", "project_id", "actor", "query", "limit", "platform"), start=1):
        body = body.replace(f"p_{name}", f"${place}")
    async with admin_pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        await connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
        await connection.execute(
            f"PREPARE search (uuid, uuid, text, text, integer, text) AS {body.strip().rstrip(';')}"
        )
        try:
            plan = [
                row[0] for row in await connection.fetch("EXPLAIN EXECUTE search (NULL, NULL, 'a', 'lease', 10, NULL)")
            ]
        finally:
            await connection.execute("DEALLOCATE search")
    again = plan[next(place for place, line in enumerate(plan) if "Recursive Union" in line) :]
    assert any("Index Cond" in line and "id = c.superseded_by" in line for line in again), "\n".join(plan)
