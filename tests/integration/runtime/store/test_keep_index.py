"""The keeper of the search index: what is written comes into it, what goes leaves it, and nobody waits long."""

import asyncio
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from commonplace_runtime.domain.erasure import Selection
from commonplace_runtime.domain.models import ProjectId, Reach, TeamId
from commonplace_runtime.entrypoints.http.app import create_app
from commonplace_runtime.observability import SEARCH_INDEX_FAILURES, SEARCH_INDEX_FULL
from commonplace_runtime.services import forget, keep_index
from commonplace_runtime.services.keep_index import keep_indexes, purge_project_index
from commonplace_runtime.settings import Settings
from commonplace_runtime.store import erasures, search_index
from commonplace_runtime.store.pool import Pool, open_pool
from commonplace_runtime.store.search_index import Project
from tests.api_server import served
from tests.conftest import Database
from tests.factories import Team, make_project, make_session, make_team
from tests.index_audit import audit_index
from tests.indexed import hint, keep, write
from tests.integration.runtime.worker.support import started_worker, until, worker_settings

TABLES = (
    *("search_indexes", "search_documents", "search_sessions", "search_segments"),
    *("search_postings", "search_tail", "search_purges", "search_work"),
)


def project_of(team: Team) -> Project:
    return Project(team_id=team.id, project_id=team.project_id)


def reach_of(team: Team) -> Reach:
    return Reach(
        team_id=TeamId(team.id),
        key_id=None,
        project_id=ProjectId(team.project_id),
        actor="agent:tester",
        request_id="r",
    )


async def fill_every_kind(pool: Pool, runtime_pool: Pool, team: Team) -> list[UUID]:
    """Rows in every table of the index: merged ones, dead ones, such as wait, of a session and of an owner."""
    session = await make_session(pool, team, content_session_id="one")
    ids = await write(pool, team, range(300), session=session)
    await write(pool, team, range(300), owner="human:ada")
    await hint(pool)
    await keep(runtime_pool)
    await pool.execute("DELETE FROM commonplace.memories WHERE id = ANY ($1)", ids[:10])
    await write(pool, team, range(300, 350))
    await hint(pool)
    for table in TABLES:
        assert await count(pool, table) > 0, table
    return ids[10:]


async def count(pool: Pool, table: str) -> int:
    found: int = await pool.fetchval(f"SELECT count(*) FROM commonplace.{table}")
    return found


async def test_what_waits_becomes_a_segment(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    session = (await make_session(admin_pool, team)).id if False else None
    await write(admin_pool, team, range(300), session=session)
    await write(admin_pool, team, range(300, 330), owner="human:ada")
    await hint(admin_pool)
    await keep(runtime_pool)
    assert await audit_index(admin_pool) == {"merged": 300, "tail": 30}
    assert await count(admin_pool, "search_work") == 0


async def test_segments_are_put_together(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    for start in range(0, 2700, 300):
        await write(admin_pool, team, range(start, start + 300))
        await hint(admin_pool)
        await keep(runtime_pool)
    levels = await admin_pool.fetch("SELECT level, documents FROM commonplace.search_segments ORDER BY segment")
    assert [tuple(row) for row in levels] == [(1, 2400), (0, 300)]
    assert await audit_index(admin_pool) == {"merged": 2700, "tail": 0}


async def test_no_posting_of_the_dead_is_left(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    ids = await write(admin_pool, team, range(600))
    await hint(admin_pool)
    await keep(runtime_pool)
    await admin_pool.execute("DELETE FROM commonplace.memories WHERE id = ANY ($1)", ids[::3])
    await purge_project_index(runtime_pool, Project(team_id=team.id, project_id=team.project_id))
    assert await count(admin_pool, "search_purges") == 0
    assert await audit_index(admin_pool) == {"merged": 341, "tail": 59}


async def test_what_was_there_before_is_indexed(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    await write(admin_pool, team, range(900))
    await admin_pool.execute("DELETE FROM commonplace.search_tail")
    await admin_pool.execute("DELETE FROM commonplace.search_work")
    await admin_pool.execute(
        "INSERT INTO commonplace.search_work (team_id, project_id, rebuild_from)"
        " VALUES ($1::text::uuid, $2::text::uuid, 0)",
        team.id,
        team.project_id,
    )
    with capture_logs() as lines:
        await keep(runtime_pool)
    assert [line["project"] for line in lines if line["event"] == "index_rebuilt"] == [team.project_id]
    assert (await audit_index(admin_pool))["merged"] >= 900 - keep_index.MERGE_FROM
    assert await count(admin_pool, "search_work") == 0


async def test_a_changed_memory_is_another_document(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    ids = await write(admin_pool, team, range(300))
    await hint(admin_pool)
    await keep(runtime_pool)
    await admin_pool.execute("UPDATE commonplace.memories SET content = 'other' WHERE id = $1", ids[0])
    await admin_pool.execute("UPDATE commonplace.memories SET visibility = 'private' WHERE id = $1", ids[1])
    await admin_pool.execute("UPDATE commonplace.memories SET importance = 0.9 WHERE id = $1", ids[2])
    assert await audit_index(admin_pool) == {"merged": 298, "tail": 2}
    await keep(runtime_pool)
    assert await count(admin_pool, "search_purges") == 0
    assert await audit_index(admin_pool) == {"merged": 298, "tail": 2}


async def test_an_index_without_a_memory_goes_away(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    await write(admin_pool, team, range(300))
    await hint(admin_pool)
    await keep(runtime_pool)
    await admin_pool.execute("DELETE FROM commonplace.memories")
    await keep(runtime_pool)
    assert {table: await count(admin_pool, table) for table in TABLES} == dict.fromkeys(TABLES, 0)


async def test_memories_without_a_word_are_merged_like_others(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    await write(admin_pool, team, range(300))
    await admin_pool.execute("UPDATE commonplace.memories SET content = 'the'")
    await hint(admin_pool)
    await keep(runtime_pool)
    assert await audit_index(admin_pool) == {"merged": 300, "tail": 0}


async def test_the_rest_of_a_tail_waits_for_more(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    await write(admin_pool, team, range(255))
    await hint(admin_pool)
    assert not await keep_indexes(runtime_pool)
    assert await audit_index(admin_pool) == {"merged": 0, "tail": 255}
    assert await count(admin_pool, "search_work") == 0


async def test_writers_who_take_turns_both_leave_hints(admin_pool: Pool) -> None:
    """Numbers are dealt to all alike: one of two may have the odd ones only."""
    team = await make_team(admin_pool)
    other = await make_project(admin_pool, team.id, "other")
    for number in range(256):
        await write(admin_pool, team, range(number, number + 1))
        await write(admin_pool, team, range(number, number + 1), project=other)
    assert await admin_pool.fetchval("SELECT count(DISTINCT project_id) FROM commonplace.search_work") == 2


async def test_one_project_that_breaks_keeps_no_other_waiting(admin_pool: Pool, runtime_pool: Pool) -> None:
    broken, other = await make_team(admin_pool), await make_team(admin_pool)
    for team in (broken, other):
        await write(admin_pool, team, range(300))
    await admin_pool.execute(
        "UPDATE commonplace.search_tail SET terms = terms || '\\x00' WHERE team_id = $1::text::uuid", broken.id
    )
    await hint(admin_pool)
    told = SEARCH_INDEX_FAILURES._value.get()
    assert not await keep_indexes(runtime_pool), "nothing to do at once: it would spin"
    assert SEARCH_INDEX_FAILURES._value.get() == told + 1
    merged = await admin_pool.fetch("SELECT DISTINCT team_id::text FROM commonplace.search_documents")
    assert [row["team_id"] for row in merged] == [other.id]
    await write(admin_pool, other, range(300, 600))
    await hint(admin_pool)
    first, *_ = await search_index.work(runtime_pool, most=2)
    assert first.team_id == broken.id, "it is tried again"
    await keep_indexes(runtime_pool)
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.search_documents") == 600


async def test_a_full_index_leaves_its_memories_where_a_search_finds_them(
    admin_pool: Pool, runtime_pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    team = await make_team(admin_pool)
    await write(admin_pool, team, range(300))
    await hint(admin_pool)
    await keep(runtime_pool)
    await admin_pool.execute("UPDATE commonplace.search_indexes SET next_single = 16777200")
    await write(admin_pool, team, range(300, 600))
    await write(admin_pool, team, range(300), owner="human:ada")
    await hint(admin_pool)
    told = SEARCH_INDEX_FULL._value.get()
    assert not await keep_indexes(runtime_pool), "it does not spin"
    assert SEARCH_INDEX_FULL._value.get() == told + 1
    assert await count(admin_pool, "search_work") == 0
    assert await audit_index(admin_pool) == {"merged": 600, "tail": 300}, "the other owner's index has room"


async def test_a_deleted_memory_leaves_nothing_behind(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    ids = await fill_every_kind(admin_pool, runtime_pool, team)
    gone = [ids[0], ids[150]]
    numbers = await admin_pool.fetch("SELECT docno FROM commonplace.search_documents WHERE memory_id = ANY ($1)", gone)
    assert len(numbers) == 2
    for memory_id in gone:
        await forget.delete_memory(runtime_pool, reach_of(team), str(memory_id))
        assert await count(admin_pool, "search_purges") == 0
    assert await audit_index(admin_pool) == {"merged": 588, "tail": 50}
    waiting = await admin_pool.fetchval("SELECT memory_id FROM commonplace.search_tail LIMIT 1")
    await forget.delete_memory(runtime_pool, reach_of(team), str(waiting))
    assert await audit_index(admin_pool) == {"merged": 588, "tail": 49}


async def test_an_erased_project_has_no_index(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    await fill_every_kind(admin_pool, runtime_pool, team)
    await forget.purge_project(runtime_pool, reach_of(team), "default")
    left = {table: await count(admin_pool, table) for table in TABLES if table != "search_work"}
    assert left == dict.fromkeys(left, 0)


async def test_an_erasure_that_somebody_else_finishes_purges_the_index_too(
    admin_pool: Pool, runtime_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = await make_team(admin_pool)
    await fill_every_kind(admin_pool, runtime_pool, team)

    async def killed(*_arguments: object, **_named: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(erasures, "step", killed)
        with pytest.raises(asyncio.CancelledError):
            await forget.forget(runtime_pool, reach_of(team), Selection(query="only77"), dry_run=False)
    await admin_pool.execute("UPDATE commonplace.erasures SET lease_until = now() - interval '1 s'")
    assert await forget.finish_erasures(runtime_pool) == 1
    assert await count(admin_pool, "search_purges") == 0
    await audit_index(admin_pool)


async def test_an_erasure_waits_for_a_keeper_at_work(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    ids = await fill_every_kind(admin_pool, runtime_pool, team)
    async with search_index.holding(runtime_pool, project_of(team)) as held:
        assert held is not None
        deleting = asyncio.create_task(forget.delete_memory(runtime_pool, reach_of(team), str(ids[0])))

        async def waits() -> bool:
            return bool(await admin_pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

        await until(waits)
        assert not deleting.done()
    await deleting
    assert await count(admin_pool, "search_purges") == 0


async def test_a_keeper_has_its_turn_among_erasures(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    await write(admin_pool, team, range(300))
    await hint(admin_pool)
    async with search_index.holding(runtime_pool, project_of(team), patient=True):
        keeping = asyncio.create_task(keep_indexes(runtime_pool))

        async def waits() -> bool:
            return bool(await admin_pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

        await until(waits)
    await keeping
    assert await audit_index(admin_pool) == {"merged": 300, "tail": 0}


async def test_long_memories_count_for_several(
    admin_pool: Pool, runtime_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a search would read megabytes of what waits, and a merge would hold all of it."""
    monkeypatch.setattr(keep_index, "MERGE_FROM", 20)
    monkeypatch.setattr(keep_index, "MERGE_MOST", 20)
    team = await make_team(admin_pool)
    await write(admin_pool, team, range(4))
    await admin_pool.execute(
        "UPDATE commonplace.memories SET content ="
        " (SELECT string_agg('w' || n, ' ') FROM generate_series(1, 4900) AS n)"
    )
    await hint(admin_pool)
    await keep(runtime_pool)
    assert await audit_index(admin_pool) == {"merged": 4, "tail": 0}
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.search_segments") == 2


async def test_a_round_goes_on_while_there_are_more_projects(
    admin_pool: Pool, runtime_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keep_index, "PROJECTS", 2)
    for _ in range(5):
        await make_team(admin_pool)
    await hint(admin_pool)
    await keep(runtime_pool)
    assert await count(admin_pool, "search_work") == 0


async def test_a_keeper_gives_way_to_who_holds_what_waits(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    ids = await write(admin_pool, team, range(300))
    await hint(admin_pool)
    async with admin_pool.acquire() as connection, connection.transaction():
        await connection.execute("DELETE FROM commonplace.memories WHERE id = $1", ids[7])
        await keep_indexes(runtime_pool)
        assert await count(admin_pool, "search_documents") == 299
    assert await audit_index(admin_pool) == {"merged": 299, "tail": 0}


async def test_a_team_goes_with_its_index(admin_pool: Pool, runtime_pool: Pool, database: Database) -> None:
    team, other = await make_team(admin_pool), await make_team(admin_pool)
    await fill_every_kind(admin_pool, runtime_pool, team)
    await write(admin_pool, other, range(300))
    await hint(admin_pool)
    await admin_pool.execute("DELETE FROM commonplace.teams WHERE id = $1::text::uuid", team.id)
    for table in TABLES:
        left = await admin_pool.fetch(f"SELECT DISTINCT team_id::text FROM commonplace.{table}")
        assert [row["team_id"] for row in left] in ([], [other.id]), table
    await keep(runtime_pool)
    assert await audit_index(admin_pool) == {"merged": 300, "tail": 0}


async def test_a_project_goes_with_its_index(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    await fill_every_kind(admin_pool, runtime_pool, team)
    await admin_pool.execute("DELETE FROM commonplace.projects WHERE id = $1::text::uuid", team.project_id)
    assert {table: await count(admin_pool, table) for table in TABLES} == dict.fromkeys(TABLES, 0)


async def test_a_session_that_goes_leaves_its_memories_findable(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    await fill_every_kind(admin_pool, runtime_pool, team)
    await admin_pool.execute("DELETE FROM commonplace.sessions")
    assert await audit_index(admin_pool) == {"merged": 300, "tail": 340}
    await keep(runtime_pool)
    assert await audit_index(admin_pool) == {"merged": 640, "tail": 0}


async def test_a_keeper_touches_the_rows_of_its_team_only(admin_pool: Pool, runtime_pool: Pool) -> None:
    mine, theirs = await make_team(admin_pool), await make_team(admin_pool)
    await fill_every_kind(admin_pool, runtime_pool, theirs)
    await write(admin_pool, theirs, range(400, 700))
    known = {table: await admin_pool.fetch(f"SELECT * FROM commonplace.{table} ORDER BY 1, 2, 3") for table in TABLES}
    index_no = await admin_pool.fetchval("SELECT number FROM commonplace.search_indexes WHERE owner_actor = ''")
    mixed = Project(team_id=mine.id, project_id=theirs.project_id)
    state = await search_index.state(runtime_pool, mixed)
    assert (state.hints, state.tails, state.indexes) == ([], {}, [])
    assert await search_index.dead_indexes(runtime_pool, mixed) == []
    async with search_index.holding(runtime_pool, mixed) as held:
        assert held is not None
        assert await held.tail("", 512) == []
        dead = await held.dead(index_no, 10, 1000)
        assert (dead.has_living, dead.documents, dead.lists) == (False, [], [])
        assert not await held.drop(index_no, 10)
        assert await held.compact(index_no, (1, 8), after=search_index.BEFORE_ALL, terms=10) is None
        assert await held.lists(index_no, [(term, 9) for term in range(-5, 5)]) == []
        assert await held.rebuild(10) == 0
    await search_index.postpone(runtime_pool, mixed)
    assert known == {
        table: await admin_pool.fetch(f"SELECT * FROM commonplace.{table} ORDER BY 1, 2, 3") for table in TABLES
    }


async def test_plans_of_an_empty_database_do_not_read_through_a_full_one(
    admin_pool: Pool, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the trigger and of the keeper, on one connection that has known both since there was nothing."""
    monkeypatch.setattr(keep_index, "MERGE_FROM", 2)
    team, other = await make_team(admin_pool), await make_team(admin_pool)
    async with (
        await _one_connection(database.admin_url) as writer,
        await _one_connection(database.runtime_url) as keeper,
        await _one_connection(database.admin_url) as other_writer,
        await _one_connection(database.runtime_url) as other_keeper,
    ):

        async def a_day(start: int) -> None:
            ids = await write(writer, team, range(start, start + 20))
            await hint(other_writer)
            await keep(keeper)
            await writer.execute("UPDATE commonplace.memories SET content = 'x' WHERE id = ANY ($1)", ids[:2])
            await writer.execute("DELETE FROM commonplace.memories WHERE id = ANY ($1)", ids[2:4])
            await keep(keeper)

        for round_ in range(12):
            await a_day(20 * round_)
        for start in range(0, 3000, 300):
            await write(other_writer, other, range(start, start + 300))
        await hint(other_writer)
        await keep(other_keeper)
        # All that read, else one of them tells of it between the two looks.
        every = (writer, keeper, other_writer, other_keeper)
        before = await _scans(admin_pool, *every)
        await a_day(1000)
        after = await _scans(admin_pool, *every)
    assert {table: after[table] - before[table] for table in TABLES} == dict.fromkeys(TABLES, 0)


async def _one_connection(url: str) -> Pool:
    return await open_pool(url, size=1, connect_timeout=10, statement_timeout=30, application="t")


async def _scans(pool: Pool, *connections: Pool) -> dict[str, int]:
    """Rows that were read by going through a whole table, by these connections too."""
    for connection in connections:
        await connection.execute("SELECT pg_stat_force_next_flush()")
    rows = await pool.fetch("SELECT relname, seq_tup_read FROM pg_stat_user_tables WHERE schemaname = 'commonplace'")
    return {row["relname"]: row["seq_tup_read"] for row in rows}


async def test_a_worker_keeps_the_index(database: Database, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    await write(admin_pool, team, range(300))
    await hint(admin_pool)
    async with started_worker(worker_settings(database)):
        await until(lambda: _is_merged(admin_pool))


async def test_an_api_keeps_the_index_where_there_is_no_worker(
    database: Database, admin_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keep_index, "WATCH_SECONDS", 0.05)
    team = await make_team(admin_pool)
    await write(admin_pool, team, range(300))
    await hint(admin_pool)
    async with served(create_app(Settings.model_validate({"database_url": database.runtime_url}))):
        await until(lambda: _is_merged(admin_pool))


async def _is_merged(pool: Pool) -> bool:
    return await count(pool, "search_documents") == 300
