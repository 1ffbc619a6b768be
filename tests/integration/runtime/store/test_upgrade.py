"""Workers of the version before go on while the schema of this one comes, and after it has come."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest

from commonplace_runtime.domain.models import KeyId, Principal, ProjectId, Recall, TeamId
from commonplace_runtime.embedded import EmbeddedPostgres
from commonplace_runtime.ids import uuid7
from commonplace_runtime.services.search import recall_memories
from commonplace_runtime.store import memories, migrate
from commonplace_runtime.store.pool import Pool, open_pool
from commonplace_runtime.store.roles import ensure_groups
from tests.integration.runtime.indexes import merge_all
from tests.integration.runtime.worker.support import Tenant, make_tenant, put_event, until

Claim = dict[str, Any]
_MIGRATIONS = migrate.migrations


async def bring_to(pool: Pool, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the migrations up to this one."""

    def wanted() -> Sequence[migrate.Migration]:
        return [migration for migration in _MIGRATIONS() if migration.version <= version]

    monkeypatch.setattr(migrate, "migrations", wanted)
    async with pool.acquire() as connection:
        await ensure_groups(connection, (), may_create=True)
        await migrate.apply_migrations(connection)


@pytest.fixture
async def old_pool(postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pool]:
    """A database at schema 4, reached as its superuser."""
    connection = await asyncpg.connect(postgres.url())
    try:
        await connection.execute("CREATE DATABASE upgraded")
        async with await open_pool(
            postgres.url(database="upgraded"), size=5, connect_timeout=5, statement_timeout=60, application="t"
        ) as pool:
            await bring_to(pool, 4, monkeypatch)
            yield pool
    finally:
        await connection.execute("DROP DATABASE IF EXISTS upgraded WITH (FORCE)")
        await connection.close()


async def put_old_event(pool: Pool, tenant: Tenant, session: str) -> None:
    """An event and its job as schema 4 keeps them."""
    place = (tenant.team_id, tenant.project_id, session)
    event = uuid7()
    await pool.execute(
        "INSERT INTO commonplace.job_groups (team_id, project_id, session_key, available_at)"
        " VALUES ($1, $2, $3, now())",
        *place,
    )
    await pool.execute(
        "INSERT INTO commonplace.events (id, team_id, project_id, source_adapter, idempotency_key, event_type, actor,"
        " payload, occurred_at) VALUES ($1, $2, $3, 'hook', $4, 'x', 'human:ada', '{}', now())",
        event,
        *place,
    )
    await pool.execute(
        "INSERT INTO commonplace.jobs (id, team_id, project_id, session_key, event_id, source_type, source_id,"
        " job_type, actor) VALUES ($1, $2, $3, $4, $5, 'agent_event', $5, 'event', 'human:ada')",
        uuid7(),
        *place,
        event,
    )


async def claim_as_before(pool: Pool) -> Claim | None:
    """What the worker of the version before asks, in its words."""
    claim: Claim | None = await pool.fetchval("SELECT commonplace.claim_v1('old'::text, 60, 30)")
    return claim


async def claim_one(pool: Pool) -> Claim:
    claim = await claim_as_before(pool)
    assert claim is not None
    assert claim["jobs"]
    return claim


async def complete_as_before(pool: Pool, claim: Claim) -> str:
    results = {
        "provider": "anthropic",
        "model": "m",
        "inputTokens": 10,
        "outputTokens": 10,
        "jobs": [{"id": job["id"], "memories": []} for job in claim["jobs"]],
    }
    written = await pool.fetchval(
        "SELECT commonplace.complete_jobs_v1($1::uuid, $2::uuid, $3, $4, $5)",
        claim["team"]["id"],
        claim["project"]["id"],
        claim["sessionKey"],
        claim["leaseToken"],
        results,
    )
    outcome: str = written["outcome"]
    return outcome


async def tokens(pool: Pool, tenant: Tenant) -> int:
    total: int = await pool.fetchval(
        "SELECT sum(quantity)::bigint FROM commonplace.usage_counters WHERE team_id = $1 AND kind = 'tokens'",
        tenant.team_id,
    )
    return total


async def test_a_call_that_was_under_way_is_written_and_counted_at_every_step(
    old_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await make_tenant(old_pool)
    for version in (4, 5, 6, 7):
        await put_old_event(old_pool, tenant, f"c:{version}")
    claims = [await claim_one(old_pool) for _ in range(4)]

    for place, claim in enumerate(claims, start=1):
        assert await complete_as_before(old_pool, claim) == "written"
        assert await tokens(old_pool, tenant) == 20 * place
        await bring_to(old_pool, 4 + place, monkeypatch)


async def test_a_worker_that_is_writing_lets_the_migrations_wait_not_fail(
    old_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await make_tenant(old_pool)
    for session in ("c:1", "c:2"):
        await put_old_event(old_pool, tenant, session)

    for version in (5, 6):
        claim = await claim_one(old_pool)
        key = (claim["team"]["id"], claim["project"]["id"], claim["sessionKey"], claim["leaseToken"])
        async with old_pool.acquire() as worker, worker.transaction():
            await worker.fetchval("SELECT commonplace.hold_lease($1::uuid, $2::uuid, $3, $4)", *key)
            migrating = asyncio.ensure_future(bring_to(old_pool, version, monkeypatch))

            async def waits_or_is_done(task: "asyncio.Future[None]" = migrating) -> bool:
                waiting = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"
                return task.done() or bool(await old_pool.fetchval(waiting))

            await until(waits_or_is_done)
            # What complete_jobs_v1 of the version before does last.
            await worker.execute(
                "UPDATE commonplace.sessions SET updated_at = now() WHERE team_id = $1", tenant.team_id
            )
        await migrating


async def test_a_worker_of_before_leaves_summaries_to_those_who_can_write_them(
    old_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bring_to(old_pool, 8, monkeypatch)
    tenant = await make_tenant(old_pool)
    session = uuid7()
    await old_pool.fetchval(
        "SELECT commonplace.start_session_v1($1, $2, $3, 'human:ada', 'r', $4)",
        tenant.team_id,
        tenant.key_id,
        tenant.project_id,
        {"id": str(session), "identity": "i", "metadata": {}, "contentSessionId": "S"},
    )
    await old_pool.fetchval(
        "SELECT commonplace.end_session_v1($1, $2, $3, 'human:ada', 'r', $4, $5)",
        tenant.team_id,
        tenant.key_id,
        tenant.project_id,
        str(session),
        uuid7(),
    )
    await put_event(old_pool, tenant, session="c:other")

    assert (await claim_one(old_pool))["sessionKey"] == "c:other"
    assert await claim_as_before(old_pool) is None
    told = await old_pool.fetchval("SELECT commonplace.claim_v1('new', 60, 30, $1, '{}')", tenant.team_id)
    assert [job["sourceType"] for job in told["jobs"]] == ["session_summary"]


async def test_a_worker_of_before_does_not_serve_the_first_team_alone(
    old_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bring_to(old_pool, 8, monkeypatch)
    first, second = sorted([await make_tenant(old_pool) for _ in range(2)], key=lambda tenant: tenant.team_id)
    for number in range(100):
        await put_event(old_pool, first, session=f"c:{number}")
    await put_event(old_pool, second, session="c:single")

    served = [(await claim_one(old_pool))["team"]["id"] for _ in range(100)]

    assert str(second.team_id) in served


async def test_migrations_come_through_between_those_who_work_on_two_tables(
    old_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bring_to(old_pool, 9, monkeypatch)
    for version, first, second in (
        (10, "memories", "projects"),
        (11, "audit_log", "job_groups"),
        (12, "audit_log", "api_keys"),
        (13, "memory_sources", "memories"),
        (16, "memories", "projects"),
    ):
        async with old_pool.acquire() as worker, worker.transaction():
            await worker.execute(f"LOCK TABLE commonplace.{first} IN ROW EXCLUSIVE MODE")
            migrating = asyncio.ensure_future(bring_to(old_pool, version, monkeypatch))

            async def waits_or_is_done(task: "asyncio.Future[None]" = migrating) -> bool:
                waiting = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"
                return task.done() or bool(await old_pool.fetchval(waiting))

            await until(waits_or_is_done)
            await worker.execute(f"LOCK TABLE commonplace.{second} IN ROW EXCLUSIVE MODE")
        await migrating


async def test_a_migration_says_which_tables_it_locks(old_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    await bring_to(old_pool, 9, monkeypatch)
    for version in range(10, len(_MIGRATIONS()) + 1):
        migration = _MIGRATIONS()[version - 1]
        async with old_pool.acquire() as connection, connection.transaction():
            tables = "SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'commonplace'::regnamespace"
            before = [row["oid"] for row in await connection.fetch(tables)]
            locked = (
                "SELECT DISTINCT relation, mode FROM pg_locks WHERE pid = pg_backend_pid() AND relation = ANY ($1)"
                " AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')"
            )
            asking = connection.transaction()
            await asking.start()
            for lock in migration.locks:
                await connection.execute(lock)
            said = {tuple(row) for row in await connection.fetch(locked, before)}
            await asking.rollback()
            await connection.execute("SET LOCAL ROLE commonplace_owner")
            await connection.execute(migration.text)
            taken = {tuple(row) for row in await connection.fetch(locked, before)}
        strong = {table for table, mode in said if mode == "AccessExclusiveLock"}
        assert {table for table, _ in taken} == {table for table, _ in said}, migration.name
        assert {table for table, mode in taken if mode == "AccessExclusiveLock"} == strong, migration.name


def _principal(tenant: Tenant) -> Principal:
    return Principal(
        key_id=KeyId(str(tenant.key_id)),
        team_id=TeamId(str(tenant.team_id)),
        team_slug="t",
        project_id=ProjectId(str(tenant.project_id)),
        project=None,
        actor="human:ada",
        scopes=frozenset(),
    )


async def found(pool: Pool, tenant: Tenant, query: str) -> list[str]:
    """What a search of this version finds."""
    wanted = Recall(mode="search", project=None, query=query, limit=100)
    return sorted(row["content"] for row in await recall_memories(pool, _principal(tenant), wanted, request_id="r"))


async def call_as_before(pool: Pool, tenant: Tenant, call: str, *more: Any) -> Any:
    """A function of schema 15, in the words of that version."""
    reach = (tenant.team_id, tenant.key_id, tenant.project_id, "human:ada", "r")
    return await pool.fetchval(f"SELECT commonplace.{call}", *reach, *more)


async def write_as_before(pool: Pool, tenant: Tenant, content: str, **fields: Any) -> str:
    given = {"id": str(uuid7()), "kind": "x", "content": content, "metadata": {}, "tags": [], "keywords": []} | fields
    made = await call_as_before(pool, tenant, "create_memory_v1($1, $2, $3, $4, $5, NULL, $6)", given)
    assert made["outcome"] == "created", made
    memory: str = made["memory"]["id"]
    return memory


async def found_as_before(pool: Pool, tenant: Tenant, query: str) -> list[str]:
    call = "recall_v1($1, $2, $3, $4, $5, 'search', NULL, $6, 100, NULL, NULL)"
    return sorted(row["content"] for row in await call_as_before(pool, tenant, call, query))


async def is_indexed(pool: Pool, tenant: Tenant) -> bool:
    wanted = Recall(mode="search", project=None, query="x", limit=1)
    return all(part.part != "rows" for part in await memories.search_parts(pool, _principal(tenant), wanted))


async def test_what_was_remembered_before_is_found_before_and_after_it_is_indexed(
    old_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bring_to(old_pool, 15, monkeypatch)
    tenant, other = await make_tenant(old_pool), await make_tenant(old_pool)
    first = await write_as_before(old_pool, tenant, "The uploader retries after 40 seconds")
    await write_as_before(old_pool, tenant, "uploader: it is 60 now", supersedes=first)
    await write_as_before(old_pool, tenant, "uploader: mine alone", visibility="private")
    await write_as_before(old_pool, tenant, "数据库连接超时")
    await write_as_before(old_pool, other, "uploader: of another team")
    await old_pool.execute(
        "INSERT INTO commonplace.memories (id, team_id, project_id, owner_actor, visibility, content)"
        " VALUES (gen_random_uuid(), $1, $2, 'human:bob', 'private', 'uploader: of another actor')",
        tenant.team_id,
        tenant.project_id,
    )

    await bring_to(old_pool, len(_MIGRATIONS()), monkeypatch)

    expected = ["uploader: it is 60 now", "uploader: mine alone"]
    assert not await is_indexed(old_pool, tenant)
    assert await found(old_pool, tenant, "uploader") == expected
    assert await found(old_pool, tenant, "数据库") == []

    await merge_all(old_pool, old_pool)

    assert await is_indexed(old_pool, tenant)
    assert await found(old_pool, tenant, "uploader") == expected
    assert await found(old_pool, tenant, "数据库") == ["数据库连接超时"]
    assert await found(old_pool, other, "uploader") == ["uploader: of another team"]


@pytest.mark.parametrize("is_built", [False, True], ids=["not built yet", "built"])
async def test_processes_of_before_go_on_with_the_functions_they_know(
    old_pool: Pool, monkeypatch: pytest.MonkeyPatch, is_built: bool
) -> None:
    await bring_to(old_pool, 15, monkeypatch)
    tenant = await make_tenant(old_pool)
    ids = [await write_as_before(old_pool, tenant, f"uploader {number}") for number in range(4)]
    await bring_to(old_pool, len(_MIGRATIONS()), monkeypatch)
    if is_built:
        await merge_all(old_pool, old_pool)

    await write_as_before(old_pool, tenant, "uploader 4")
    await call_as_before(
        old_pool,
        tenant,
        "update_memory_v1($1, $2, $3, $4, $5, NULL, $6, $7)",
        ids[0],
        {"content": "flamingo 0"},
    )
    await call_as_before(old_pool, tenant, "supersede_memory_v1($1, $2, $3, $4, $5, NULL, $6, $7)", ids[1], ids[2])
    begun = await call_as_before(
        old_pool,
        tenant,
        "begin_erasure_v1($1, $2, $3, $4, $5, $6)",
        {
            "id": str(uuid7()),
            "what": "query",
            "value": "3",
            "limit": 20,
            "project": None,
            "isDry": False,
            "action": "memory.forgotten",
            "via": "api",
            "leaseSeconds": 30,
        },
    )
    step = "SELECT commonplace.erase_step_v1($1, $2::text::uuid, $3, 100, 30)"
    await old_pool.fetchval(step, tenant.team_id, begun["erasureId"], begun["leaseToken"])

    for search in (found, found_as_before):
        assert await search(old_pool, tenant, "uploader") == ["uploader 2", "uploader 4"]
        assert await search(old_pool, tenant, "flamingo") == ["flamingo 0"]
    listed = await call_as_before(
        old_pool,
        tenant,
        "worker_search_v1($1, $2, $3, $4, $5, NULL, 'uploader', NULL, NULL, '{}', NULL, NULL, 'date_asc', 10, 0)",
    )
    assert [row["opening"] for row in listed["memories"]] == ["uploader 2", "uploader 4"]
    around = await call_as_before(
        old_pool, tenant, "timeline_v1($1, $2, $3, $4, $5, NULL, NULL, 'flamingo', NULL, 5, 1)"
    )
    assert [row["opening"] for row in around["memories"]] == ["flamingo 0", "uploader 2"]
