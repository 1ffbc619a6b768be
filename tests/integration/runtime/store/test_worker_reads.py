"""Look-ups by file and by repository stay quick where a project has many memories, and old rows are found as well."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from commonplace_runtime.embedded import EmbeddedPostgres
from commonplace_runtime.store import migrate
from commonplace_runtime.store.pool import Pool, open_pool
from commonplace_runtime.store.roles import ensure_groups
from tests.factories import Team, make_memory, make_team

FILL = """
    INSERT INTO commonplace.memories (id, team_id, project_id, owner_actor, visibility, kind, title, content, metadata)
    SELECT gen_random_uuid(), $1, $2, 'a', 'team', CASE WHEN n % 50 = 0 THEN 'summary' ELSE 'x' END, 'Title ' || n,
        'word',
        jsonb_build_object('project', 'repo-' || n % 10,
            'files_read', jsonb_build_array('src/part' || n % 500 || '/file' || n % 2000 || '.ts', 'src/index.ts'))
    FROM generate_series(1, 10000) AS n
"""
CALLS = {
    "by_file_v1": "SELECT commonplace.by_file_v1($1, NULL, $2, 'a', 'r', ARRAY['repo-7'], ARRAY['file7.ts'],"
    " ARRAY['src/part7/file7.ts'], ARRAY['/src/part7/file7.ts'], 40)",
    "by_file_v1 of a common name": "SELECT commonplace.by_file_v1($1, NULL, $2, 'a', 'r', ARRAY['repo-7'],"
    " ARRAY['index.ts'], ARRAY['src/index.ts'], '{}', 40)",
    "context_inject_v1": "SELECT commonplace.context_inject_v1($1, NULL, $2, 'a', 'r', ARRAY['repo-7'], 'claude', 50)",
    "context_inject_v1 of a project": "SELECT commonplace.context_inject_v1($1, NULL, $2, 'a', 'r', ARRAY['default'],"
    " NULL, 50)",
    "timeline_v1": "SELECT commonplace.timeline_v1($1, NULL, $2, 'a', 'r', 'repo-7', '15007', NULL, NULL, 10, 10)",
}


@pytest.fixture
async def crowded(admin_pool: Pool) -> Team:
    """A team whose project has 10,000 memories, of ten repositories and beside another team's."""
    team, other = await make_team(admin_pool), await make_team(admin_pool)
    for each in (other, team):
        await admin_pool.execute(FILL, UUID(each.id), UUID(each.project_id))
    await admin_pool.execute("ANALYZE commonplace.memories, commonplace.memory_files, commonplace.memory_repositories")
    return team


async def rows_read(runtime_pool: Pool, team: Team, call: str) -> dict[str, int]:
    """How many rows of each table the call looked at, as Postgres counts them."""
    counted = (
        "SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) AS read FROM pg_stat_xact_user_tables"
        " WHERE schemaname = 'commonplace'"
    )
    async with runtime_pool.acquire() as connection, connection.transaction():
        before = {row["relname"]: row["read"] for row in await connection.fetch(counted)}
        await connection.fetchval(call, UUID(team.id), UUID(team.project_id))
        return {row["relname"]: row["read"] - before.get(row["relname"], 0) for row in await connection.fetch(counted)}


@pytest.mark.parametrize("call", CALLS)
async def test_a_look_up_among_ten_thousand_reads_a_few_hundred_rows(
    crowded: Team, runtime_pool: Pool, call: str
) -> None:
    for _ in range(7):  # past the point where plans become generic
        read = await rows_read(runtime_pool, crowded, CALLS[call])
    assert read["audit_log"] == 0
    tables = ("memories", "memory_files", "memory_repositories")
    assert 0 < sum(read.get(table, 0) for table in tables) < 2500, read


async def test_the_policies_leave_the_indexes_in_use(crowded: Team, runtime_pool: Pool) -> None:
    questions = {
        "memory_files_by_name": "SELECT path FROM commonplace.memory_files WHERE team_id = $1 AND project_id = $2"
        " AND name = 'file7.ts' ORDER BY number DESC LIMIT 40",
        "memory_repositories_newest": "SELECT memory_id FROM commonplace.memory_repositories WHERE team_id = $1"
        " AND project_id = $2 AND repository = 'repo-7' ORDER BY number DESC LIMIT 40",
    }
    for index, question in questions.items():
        async with runtime_pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT set_config('app.team_id', $1, true)", crowded.id)
            rows = await connection.fetch(f"EXPLAIN {question}", UUID(crowded.id), UUID(crowded.project_id))
        plan = "\n".join(row[0] for row in rows)
        assert index in plan, plan
        assert "name = 'file7.ts'" in plan.split("Index Cond")[1] or "repo-7" in plan.split("Index Cond")[1], plan
        assert "Sort" not in plan, plan


@pytest.fixture
async def old_pool(postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pool]:
    """A database as it was before names and paths had tables, reached as its superuser."""
    known = migrate.migrations()

    def before() -> Sequence[migrate.Migration]:
        return [migration for migration in known if migration.version <= 12]

    connection = await asyncpg.connect(postgres.url())
    try:
        await connection.execute("CREATE DATABASE before_worker_reads")
        async with await open_pool(
            postgres.url(database="before_worker_reads"),
            size=4,
            connect_timeout=5,
            statement_timeout=60,
            application="t",
        ) as pool:
            with monkeypatch.context() as patch:
                patch.setattr(migrate, "migrations", before)
                await migrate_all(pool)
            yield pool
    finally:
        await connection.execute("DROP DATABASE IF EXISTS before_worker_reads WITH (FORCE)")
        await connection.close()


async def migrate_all(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await ensure_groups(connection, (), may_create=True)
        await migrate.apply_migrations(connection)


async def put_event(pool: Pool, team: Team, payload: Any, session_id: str | None = None) -> str:
    event_id = await pool.fetchval(
        "INSERT INTO commonplace.events (id, team_id, project_id, session_id, source_adapter, idempotency_key,"
        " event_type, actor, payload, occurred_at) VALUES (gen_random_uuid(), $1, $2, $3, 'hook',"
        " gen_random_uuid()::text, 'x', 'a', $4, now()) RETURNING id",
        UUID(team.id),
        UUID(team.project_id),
        session_id,
        payload,
    )
    return str(event_id)


async def put_memories(pool: Pool, team: Team) -> str:
    """Two memories that say by their files, their session and their events where they come from."""
    memory = await make_memory(
        pool,
        team,
        "one",
        event_id=await put_event(pool, team, {"cwd": "/src/one/"}),
        metadata={"files_read": ["src\\a.py", "src/a.py"], "filesModified": ["./b.py", 1], "project": "own"},
    )
    session = await pool.fetchval(
        "INSERT INTO commonplace.sessions (id, team_id, project_id, metadata) VALUES (gen_random_uuid(), $1, $2, $3)"
        " RETURNING id",
        UUID(team.id),
        UUID(team.project_id),
        {"project": "two"},
    )
    payloads: tuple[Any, ...] = ([], "text", {"cwd": None}, {"cwd": "/"}, {"cwd": "/" + "x" * 5000})
    for odd in payloads:
        await make_memory(pool, team, "odd", event_id=await put_event(pool, team, odd), metadata={"project": "x" * 201})
    await pool.execute(
        "INSERT INTO commonplace.memories (id, team_id, project_id, session_id, owner_actor, visibility, content)"
        " VALUES (gen_random_uuid(), $1, $2, $3, 'a', 'team', 'two')",
        UUID(team.id),
        UUID(team.project_id),
        session,
    )
    return memory


async def known(pool: Pool, team: Team) -> tuple[set[str], set[str]]:
    """The repositories and the paths that the team's memories are found by."""
    names = await pool.fetch("SELECT repository FROM commonplace.memory_repositories WHERE team_id::text = $1", team.id)
    paths = await pool.fetch(
        "SELECT name || ':' || path AS p FROM commonplace.memory_files WHERE team_id::text = $1", team.id
    )
    return {row["repository"] for row in names}, {row["p"] for row in paths}


async def test_what_was_stored_before_is_found_like_what_comes_after(old_pool: Pool) -> None:
    before = await make_team(old_pool)
    await put_memories(old_pool, before)
    await migrate_all(old_pool)
    after = await make_team(old_pool)
    await put_memories(old_pool, after)
    expected = ({"one", "src/one", "own", "two"}, {"a.py:src/a.py", "b.py:b.py"})
    assert await known(old_pool, before) == expected
    assert await known(old_pool, after) == expected


async def test_what_is_erased_is_not_found_by_its_file(admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    memory = await put_memories(admin_pool, team)
    await admin_pool.execute("DELETE FROM commonplace.memories WHERE id = $1", UUID(memory))
    assert await known(admin_pool, team) == ({"two"}, set())
    await admin_pool.execute("DELETE FROM commonplace.projects WHERE team_id = $1", UUID(team.id))
    assert await known(admin_pool, team) == (set(), set())


async def test_writers_of_one_memory_do_not_hold_each_other_up(admin_pool: Pool) -> None:
    """Changing a memory's files twice at once ends with those of the later change, and with no fault."""
    team = await make_team(admin_pool)
    memory = await make_memory(admin_pool, team, "m", metadata={"files_read": ["0.py"]})
    await asyncio.gather(
        *(
            admin_pool.execute(
                "UPDATE commonplace.memories SET metadata = $2 WHERE id = $1",
                UUID(memory),
                {"files_read": [f"{n}.py", "same.py"]},
            )
            for n in range(1, 9)
        )
    )
    metadata = await admin_pool.fetchval("SELECT metadata FROM commonplace.memories WHERE id = $1", UUID(memory))
    _, paths = await known(admin_pool, team)
    assert paths == {f"{path}:{path}" for path in metadata["files_read"]}
