"""A project's index is built anew: queued once, taken away whole, and never in anybody's way."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from commonplace_runtime.domain.errors import Unavailable
from commonplace_runtime.domain.models import KeyId, Principal, Reach, Recall, TeamId
from commonplace_runtime.services.keep_index import keep_indexes
from commonplace_runtime.services.reindex import index_state, request_rebuild
from commonplace_runtime.services.search import recall_memories
from commonplace_runtime.store import search_index
from commonplace_runtime.store.pool import Pool
from commonplace_runtime.store.search_index import Project
from tests.factories import Team, make_memory, make_session, make_team
from tests.index_audit import audit_index


def reach(team: Team) -> Reach:
    return Reach(team_id=TeamId(team.id), actor="human:ann")


async def step(pool: Pool, team: Team) -> int:
    """As the keeper takes one."""
    async with search_index.holding(pool, Project(team_id=team.id, project_id=team.project_id)) as held:
        assert held is not None
        return await held.rebuild(100)


async def make_index(pool: Pool, team: Team, memory_ids: list[str]) -> None:
    """An index that has these memories, each with a posting of one word."""
    number = await pool.fetchval(
        "INSERT INTO commonplace.search_indexes (team_id, project_id, owner_actor) VALUES ($1, $2, '')"
        " RETURNING number",
        UUID(team.id),
        UUID(team.project_id),
    )
    await pool.execute("DELETE FROM commonplace.search_tail WHERE memory_id = ANY ($1::text[]::uuid[])", memory_ids)
    await pool.execute(
        "INSERT INTO commonplace.search_documents (index_no, docno, segment, team_id, memory_id)"
        " SELECT $1, place, 1, $2, id::uuid"
        " FROM unnest($3::text[]) WITH ORDINALITY AS given (id, place)",
        number,
        UUID(team.id),
        memory_ids,
    )
    await pool.execute(
        "INSERT INTO commonplace.search_postings (index_no, term, segment, team_id, data)"
        " SELECT $1, commonplace.search_term('uploader'), 1, $2, string_agg(int4send(place * 64 + 30), '')"
        " FROM generate_series(1, $3::integer) AS place",
        number,
        UUID(team.id),
        len(memory_ids),
    )


async def rows_of(pool: Pool, table: str) -> int:
    return int(await pool.fetchval(f"SELECT count(*) FROM commonplace.{table}"))


async def test_one_rebuild_is_pending_however_often_somebody_asks(runtime_pool: Pool, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    await make_memory(admin_pool, team, "one")
    assert (await index_state(runtime_pool, reach(team), None))["status"] == "idle"
    first = await request_rebuild(runtime_pool, reach(team), "default")
    assert first == {**first, "projectId": team.project_id, "status": "queued", "memories": 1, "indexed": 0}
    assert await request_rebuild(runtime_pool, reach(team), team.project_id) == first
    pending = await admin_pool.fetch("SELECT rebuild_from FROM commonplace.search_work WHERE rebuild_from IS NOT NULL")
    assert [row["rebuild_from"] for row in pending] == [-1]
    asked = await admin_pool.fetch(
        "SELECT details FROM commonplace.audit_log WHERE action = 'index.rebuild_requested' ORDER BY number"
    )
    assert [row["details"]["isNew"] for row in asked] == [True, False]


async def test_a_rebuild_that_is_under_way_is_not_begun_again(runtime_pool: Pool, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    for number in range(3):
        await make_memory(admin_pool, team, f"memory {number}")
    await request_rebuild(runtime_pool, reach(team), None)
    assert [await step(runtime_pool, team), await step(runtime_pool, team)] == [1, 3]
    state = await request_rebuild(runtime_pool, reach(team), None)
    assert (state["status"], state["indexed"]) == ("rebuilding", 3)
    assert await step(runtime_pool, team) == 0
    assert await index_state(runtime_pool, reach(team), None) == {
        **state,
        "status": "idle",
        "indexed": 3,
        "queuedAtEpoch": None,
    }


async def test_the_old_index_and_tail_go_whole_and_every_memory_is_read_again(
    runtime_pool: Pool, admin_pool: Pool
) -> None:
    team, other = await make_team(admin_pool), await make_team(admin_pool)
    for each in (team, other):
        await make_index(admin_pool, each, [await make_memory(admin_pool, each, "uploader") for _ in range(3)])
        await make_memory(admin_pool, each, "waits")
    await admin_pool.execute("UPDATE commonplace.search_tail SET terms = '' WHERE team_id = $1", UUID(team.id))
    await request_rebuild(runtime_pool, reach(team), None)
    assert await rows_of(admin_pool, "search_documents") == 6
    await step(runtime_pool, team)
    assert [await rows_of(admin_pool, f"search_{name}") for name in ("indexes", "documents", "postings", "tail")] == [
        1,
        3,
        1,
        1,
    ]
    assert await step(runtime_pool, team) == 4
    terms = "SELECT terms FROM commonplace.search_tail WHERE team_id = $1"
    assert all(row["terms"] for row in await admin_pool.fetch(terms, UUID(team.id)))


@pytest.mark.parametrize(
    "changes",
    ["UPDATE commonplace.memories SET content = content || ' x'", "DELETE FROM commonplace.memories"],
    ids=["changes", "erases"],
)
async def test_it_gives_way_to_a_writer_who_holds_what_is_to_go(
    runtime_pool: Pool, admin_pool: Pool, changes: str
) -> None:
    """The writer holds a document and goes on to its index, which the other side locks first."""
    team = await make_team(admin_pool)
    await make_index(admin_pool, team, [await make_memory(admin_pool, team, "uploader") for _ in range(2)])
    await request_rebuild(runtime_pool, reach(team), None)
    async with admin_pool.acquire() as writer, writer.transaction():
        await writer.execute(f"{changes} WHERE number = (SELECT max(number) FROM commonplace.memories)")
        with pytest.raises(Unavailable):
            await step(runtime_pool, team)
        assert await rows_of(admin_pool, "search_indexes") == 1
        await writer.execute(f"{changes} WHERE number = (SELECT min(number) FROM commonplace.memories)")
    assert (await index_state(runtime_pool, reach(team), None))["status"] == "queued"
    await step(runtime_pool, team)
    assert await rows_of(admin_pool, "search_indexes") == 0
    left = await rows_of(admin_pool, "memories")
    assert await step(runtime_pool, team) == left == await rows_of(admin_pool, "search_tail")


@pytest.mark.parametrize(
    "changes", ["UPDATE commonplace.memories SET content = 'x'", "DELETE FROM commonplace.memories"]
)
async def test_a_writer_who_waited_for_it_leaves_nothing_to_be_purged(admin_pool: Pool, changes: str) -> None:
    team = await make_team(admin_pool)
    await make_index(admin_pool, team, [await make_memory(admin_pool, team, "uploader")])
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query = $1"
    async with (
        asyncio.timeout(30),
        asyncio.TaskGroup() as group,
        admin_pool.acquire() as dropping,
        dropping.transaction(),
    ):
        await dropping.execute("SELECT commonplace.drop_indexes($1, $2)", UUID(team.id), UUID(team.project_id))
        group.create_task(admin_pool.execute(changes))
        while not await admin_pool.fetchval(waits, changes):  # noqa: ASYNC110 - only Postgres knows
            await asyncio.sleep(0.01)
    assert await rows_of(admin_pool, "search_purges") == 0


async def test_a_search_whose_index_goes_meanwhile_finds_its_memories_all_the_same(
    runtime_pool: Pool, admin_pool: Pool
) -> None:
    team = await make_team(admin_pool)
    await make_index(admin_pool, team, [await make_memory(admin_pool, team, "uploader")])
    number = await admin_pool.fetchval("SELECT number FROM commonplace.search_indexes")
    await request_rebuild(runtime_pool, reach(team), None)
    ranking = ([number], [1], [1.0])
    recall = (
        "SELECT count(*) FROM commonplace.recall_v2($1, NULL, NULL, 'human:ann', 'r', 'search', NULL, 'uploader',"
        " 5, NULL, NULL, $2, $3, $4, '{}', '{}', '{}')"
    )
    assert await runtime_pool.fetchval(recall, UUID(team.id), *ranking) == 1
    await step(runtime_pool, team)
    assert await rows_of(admin_pool, "search_documents") == 0
    assert await runtime_pool.fetchval(recall, UUID(team.id), *ranking) == 1


async def test_a_rebuild_that_is_put_off_keeps_its_time(runtime_pool: Pool, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    queued = await request_rebuild(runtime_pool, reach(team), None)
    await search_index.postpone(runtime_pool, Project(team_id=team.id, project_id=team.project_id))
    assert await index_state(runtime_pool, reach(team), None) == queued


def holder(team: Team) -> Principal:
    return Principal(
        key_id=KeyId("0198c5f0-7e3a-7c41-9d0a-2f6b8f1c4e55"),
        team_id=TeamId(team.id),
        team_slug=team.slug,
        project_id=None,
        project=None,
        actor="human:ann",
        scopes=frozenset({"*"}),
    )


async def found(pool: Pool, team: Team, query: str) -> list[str]:
    wanted = Recall(mode="search", project=None, query=query, limit=5)
    return [hit["content"] for hit in await recall_memories(pool, holder(team), wanted, request_id="r")]


@asynccontextmanager
async def running(*loops: AsyncIterator[None]) -> AsyncIterator[None]:
    """Each goes on until the block ends, and its fault is the block's."""

    async def run(steps: AsyncIterator[None]) -> None:
        async for _ in steps:
            if ended.is_set():
                return

    ended = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for one in loops:
            group.create_task(run(one))
        try:
            yield
        finally:
            ended.set()


async def test_whatever_is_written_meanwhile_every_memory_is_found_at_every_moment(
    runtime_pool: Pool, admin_pool: Pool
) -> None:
    """Writers, readers and two keepers go on while a project is built anew several times."""
    team = await make_team(admin_pool)
    session = await make_session(admin_pool, team, content_session_id="c")
    await admin_pool.execute(
        "INSERT INTO commonplace.memories (id, team_id, project_id, owner_actor, visibility, content, session_id)"
        " SELECT gen_random_uuid(), $1, $2, CASE WHEN n % 5 = 0 THEN 'human:ann' ELSE 'agent:tester' END,"
        " CASE WHEN n % 5 = 0 THEN 'private' ELSE 'team' END, 'old' || n || ' uploader',"
        " CASE WHEN n % 2 = 0 THEN $3::uuid END"
        " FROM generate_series(1, 1500) AS n",
        UUID(team.id),
        UUID(team.project_id),
        UUID(session),
    )
    while await keep_indexes(runtime_pool):
        pass
    assert (await audit_index(admin_pool))["merged"] > 1000
    told: Counter[str] = Counter()

    async def keeps() -> AsyncIterator[None]:
        while True:
            await keep_indexes(runtime_pool)
            await asyncio.sleep(0.001)
            yield

    async def writes() -> AsyncIterator[None]:
        while True:
            told["written"] += 1
            text = f"new{told['written']} uploader"
            await make_memory(admin_pool, team, text)
            assert text in await found(runtime_pool, team, f"new{told['written']}"), text
            await admin_pool.execute(
                "UPDATE commonplace.memories SET content = content || ' x' WHERE team_id = $1 AND content LIKE $2",
                UUID(team.id),
                f"old{1000 + told['written'] % 500} %",
            )
            yield

    async def reads() -> AsyncIterator[None]:
        number = 0
        while True:
            number = number % 999 + 1
            told[(await index_state(runtime_pool, reach(team), None))["status"]] += 1
            assert (await found(runtime_pool, team, f"old{number}"))[:1] == [f"old{number} uploader"]
            yield

    async with asyncio.timeout(120), running(keeps(), keeps(), writes(), reads(), reads()):
        for _ in range(3):
            await request_rebuild(runtime_pool, reach(team), None)
            while (await index_state(runtime_pool, reach(team), None))["status"] != "idle":  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            before = told["idle"]
            while told["idle"] < before + 5:  # noqa: ASYNC110 - the readers count
                await asyncio.sleep(0.005)
    assert min(told["idle"], told["queued"] + told["rebuilding"], told["written"]) > 5, told
    while await keep_indexes(runtime_pool):
        pass
    assert sum((await audit_index(admin_pool)).values()) == 1500 + told["written"]
