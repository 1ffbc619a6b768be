"""What a hot path reads does not grow with its team, whatever the planner knew when the connection made its plans."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, TypeAlias, cast
from uuid import uuid4

import pytest

from commonplace_runtime.domain.models import KeyId, Principal, ProjectId, Reach, Recall, TeamId
from commonplace_runtime.domain.ranking import rank
from commonplace_runtime.domain.wire import NewEventRow
from commonplace_runtime.domain.worker_reads import WorkerSearch
from commonplace_runtime.ids import uuid7
from commonplace_runtime.services import worker_reads
from commonplace_runtime.services.search import CANDIDATES, recall_memories
from commonplace_runtime.store import memories
from commonplace_runtime.store.events import _columns, _fields
from commonplace_runtime.store.pool import Connection, Pool, open_pool
from tests.conftest import Database
from tests.integration.runtime.indexes import merge_all
from tests.integration.runtime.worker.support import Tenant, make_tenant

Call: TypeAlias = Callable[[Connection, Tenant], Awaitable[None]]

FILLED = 3000
MOST_READ = 600
"""Entries of one index, rows of one table: far from FILLED."""
MOST_READ_OF_300 = 1500
"""600 candidates, the 300 chosen of them twice, and a page."""
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
        job_id, metadata)
    SELECT memory_id, $1, $2, 'human:ada', 'team', 'title ' || n, 'lease ' || n % 20, job_id,
        jsonb_build_object('project', 'repo-' || n % 10)
    FROM place
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
    return {
        "id": str(uuid7()),
        "jobId": str(uuid7()),
        "project": None,
        "serverSessionId": None,
        "contentSessionId": session,
        "platformGiven": False,
        "platformSource": None,
        "sourceAdapter": "hook",
        "sourceEventId": None,
        "eventType": "x",
        "payload": {},
        "metadata": {},
        "occurredAt": 0,
        "digest": secrets.token_hex(32),
        "privateParts": 0,
        "redactedSecrets": 0,
    }


def _line(event: str) -> dict[str, Any]:
    texts = {"type": "memory", "project": None, "id": str(uuid7()), "kind": "x", "title": None, "content": "x"}
    lists = {"metadata": {}, "tags": [], "keywords": [], "importance": 0.5}
    return {"line": 1, **texts, **lists, "sources": [{"sourceType": "agent_event", "sourceId": event}]}


class _Lent:
    """A pool of one connection, which is in a transaction already."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @asynccontextmanager
    async def acquire(self, timeout: float | None = None) -> AsyncIterator[Connection]:
        yield self._connection


def _function(call: str, *more: Any) -> Call:
    """A function of the database that is told first: team, key, project, actor, request."""

    async def run(connection: Connection, tenant: Tenant) -> None:
        reach = (tenant.team_id, tenant.key_id, tenant.project_id, "human:ada", "r")
        await connection.fetchval(f"SELECT 1 FROM {call} AS called", *reach, *more)

    return run


def _sent_twice(events: list[NewEventRow]) -> Call:
    """A batch, and the same again, which gets ids of its own."""

    async def run(connection: Connection, tenant: Tenant) -> None:
        for _ in range(2):
            sent = [cast("NewEventRow", {**event, "id": str(uuid7()), "jobId": str(uuid7())}) for event in events]
            call = f"commonplace.ingest_batch_v2($1, $2, $3, $4, $5, true, false, {_numbered(6, 13)})"
            await _function(call, *_columns(sent))(connection, tenant)

    return run


def _statement(text: str, *arguments: Any) -> Call:
    """A statement as row-level security lets it be."""

    async def run(connection: Connection, tenant: Tenant) -> None:
        await connection.execute("SELECT set_config('app.team_id', $1, true)", str(tenant.team_id))
        await connection.execute(text, *arguments)

    return run


def _search(query: str, platform: str | None = None) -> Call:
    async def run(connection: Connection, tenant: Tenant) -> None:
        wanted = Recall(mode="search", project=None, query=query, limit=10, platform=platform)
        principal = Principal(
            team_id=TeamId(str(tenant.team_id)),
            team_slug="t",
            key_id=KeyId(str(tenant.key_id)),
            project_id=ProjectId(str(tenant.project_id)),
            project=None,
            actor="human:ada",
            scopes=frozenset(),
        )
        await recall_memories(cast("Pool", _Lent(connection)), principal, wanted, request_id="r")

    return run


def _reach(tenant: Tenant) -> Reach:
    return Reach(
        team_id=TeamId(str(tenant.team_id)),
        project_id=ProjectId(str(tenant.project_id)),
        actor="human:ada",
        key_id=KeyId(str(tenant.key_id)),
        request_id="r",
    )


def _worker_search(*names: str) -> Call:
    async def run(connection: Connection, tenant: Tenant) -> None:
        wanted = WorkerSearch(
            names=names or None,
            query="lease 7",
            platform=None,
            kinds=None,
            no_kinds=(),
            since=None,
            until=None,
            order="relevance",
            limit=20,
            offset=0,
        )
        await worker_reads.search(cast("Pool", _Lent(connection)), _reach(tenant), wanted)

    return run


async def _timeline_of_query(connection: Connection, tenant: Tenant) -> None:
    pool = cast("Pool", _Lent(connection))
    await worker_reads.timeline(
        pool, _reach(tenant), "default", anchor=None, query="lease 7", platform=None, before=5, after=5
    )


async def _forget(connection: Connection, tenant: Tenant) -> None:
    """What is chosen; to erase it, or to say what that would take, reads all that hangs on it."""
    wanted = Recall(mode="search", project=None, query="lease 7", limit=20)
    parts = await memories.search_parts(cast("Pool", _Lent(connection)), _reach(tenant), wanted)
    ranking = rank(parts, most=CANDIDATES, asks=False)
    assert ranking is not None
    await connection.fetch(
        "SELECT commonplace.forgotten_by_query($1, $2, 'human:ada', 'lease 7', 20, $3)",
        tenant.team_id,
        tenant.project_id,
        {**asdict(ranking), "names": [], "years": [], "months": []},
    )


async def _calls(pool: Pool, tenant: Tenant) -> Mapping[str, Call]:
    memory = await pool.fetchval("SELECT id FROM commonplace.memories ORDER BY number DESC LIMIT 1") or uuid4()
    event = await pool.fetchval("SELECT id FROM commonplace.events ORDER BY number DESC LIMIT 1") or uuid4()
    return {
        "ingest": _function(_INGEST, *_fields(_event("S"))),
        "ingest without a session": _function(_INGEST, *_fields(_event(None))),
        "batch": _function(
            f"commonplace.ingest_batch_v2($1, $2, $3, $4, $5, true, false, {_numbered(6, 13)})",
            *_columns([_event("S"), _event("T"), _event(None)]),
        ),
        "batch that was sent before": _sent_twice([_event("S"), _event("T"), _event(None)]),
        "get": _function("commonplace.get_memory_v1($1, $2, $3, $4, $5, $6, 'x')", str(memory)),
        "recent": _function(
            "commonplace.recall_v2($1, $2, $3, $4, $5, 'recent', NULL, NULL, 10, NULL, NULL,"
            " NULL, NULL, NULL, NULL, NULL, NULL)"
        ),
        "list": _function("commonplace.list_memories_v1($1, $2, $3, $4, $5, $6, NULL, 20)", {}),
        "context": _function("commonplace.context_inject_v1($1, $2, $3, $4, $5, NULL, NULL, 20)"),
        "timeline": _function("commonplace.timeline_v1($1, $2, $3, $4, $5, NULL, $6, NULL, NULL, 5, 5)", str(memory)),
        "import": _function("commonplace.import_v1($1, $2, $3, $4, $5, NULL, false, $6)", [_line(str(event))]),
        "search": _search("lease 7"),
        "search for nothing": _search("zebra"),
        "add": _statement(
            "INSERT INTO commonplace.memories (id, team_id, project_id, owner_actor, visibility, content)"
            " VALUES (gen_random_uuid(), $1, $2, 'human:ada', 'team', 'lease')",
            tenant.team_id,
            tenant.project_id,
        ),
        "change": _statement(
            "UPDATE commonplace.memories SET content = content || ' again' WHERE team_id = $1 AND id = $2",
            tenant.team_id,
            memory,
        ),
        "remove": _statement("DELETE FROM commonplace.memories WHERE team_id = $1 AND id = $2", tenant.team_id, memory),
    }


def _calls_of_300() -> Mapping[str, Call]:
    """What reads some hundred hits, to count them, to look for one under a name, or to see what has the words."""
    return {
        "worker search": _worker_search(),
        "worker search under a project's name": _worker_search("default"),
        "worker search under a repository's name": _worker_search("repo-7"),
        "worker timeline": _timeline_of_query,
        "forget by a query": _forget,
    }


async def _call(connection: Connection, tenant: Tenant, call: Call) -> dict[str, int]:
    """What the call read of each table and index; it leaves nothing behind."""
    transaction = connection.transaction()
    await transaction.start()
    before = {row["relname"]: row["read"] for row in await connection.fetch(_READ)}
    await call(connection, tenant)
    after = {row["relname"]: row["read"] for row in await connection.fetch(_READ)}
    await transaction.rollback()
    return {name: read - before[name] for name, read in after.items()}


@pytest.fixture
async def tenant(admin_pool: Pool) -> Tenant:
    return await make_tenant(admin_pool)


async def test_plans_of_an_empty_database_do_not_read_through_a_full_one(
    database: Database, admin_pool: Pool, runtime_pool: Pool, tenant: Tenant
) -> None:
    other = await make_tenant(admin_pool)
    async with (
        await open_pool(
            database.runtime_url, size=1, connect_timeout=10, statement_timeout=30, application="t"
        ) as pool,
        pool.acquire() as connection,
    ):
        for _ in range(PLANS_MADE):
            for call in (*(await _calls(admin_pool, tenant)).values(), *_calls_of_300().values()):
                await _call(connection, tenant, call)
        await admin_pool.execute(_FILL, tenant.team_id, tenant.project_id, FILLED)
        await merge_all(admin_pool, runtime_pool)
        calls = await _calls(admin_pool, tenant)
        # Beside it another team, all of whose memories wait.
        await admin_pool.execute(_FILL, other.team_id, other.project_id, FILLED)
        # The first to read a tail marks what was taken out of it, as a vacuum would.
        await _call(connection, tenant, calls["search for nothing"])

        read = {name: _above(MOST_READ, await _call(connection, tenant, call)) for name, call in calls.items()}
        more = {
            name: _above(MOST_READ_OF_300, await _call(connection, tenant, call))
            for name, call in _calls_of_300().items()
        }

    assert {name: found for name, found in (read | more).items() if found} == {}


def _above(most: int, read: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in read.items() if count > most}


async def test_a_search_counts_its_project_once(database: Database, admin_pool: Pool, tenant: Tenant) -> None:
    await admin_pool.execute(_FILL, tenant.team_id, tenant.project_id, FILLED)
    search = _function("commonplace.recall_v1($1, $2, $3, $4, $5, 'search', NULL, 'lease 7', 10, NULL, NULL)")
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
