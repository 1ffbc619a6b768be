"""A project's index is built anew: queued once, taken away whole, and never in anybody's way."""

from uuid import UUID

import pytest

from commonplace_runtime.domain.models import Reach, TeamId
from commonplace_runtime.services.reindex import index_state, request_rebuild
from commonplace_runtime.store.pool import Connection, Pool
from tests.factories import Team, make_memory, make_team

REBUILD = "SELECT commonplace.rebuild_index_v1($1, $2, 100)"


def reach(team: Team) -> Reach:
    return Reach(team_id=TeamId(team.id), actor="human:ann")


async def step(pool: Pool, team: Team) -> int:
    return int(await pool.fetchval(REBUILD, UUID(team.id), UUID(team.project_id)))


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
        "INSERT INTO commonplace.search_documents SELECT $1, place, $2, id::uuid"
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
    writer: Connection
    async with admin_pool.acquire() as writer:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute(f"{changes} WHERE number = (SELECT max(number) FROM commonplace.memories)")
        assert await step(runtime_pool, team) == 1
        assert await rows_of(admin_pool, "search_indexes") == 1
        await writer.execute(f"{changes} WHERE number = (SELECT min(number) FROM commonplace.memories)")
        await transaction.commit()
    assert (await index_state(runtime_pool, reach(team), None))["status"] == "queued"
    await step(runtime_pool, team)
    assert await rows_of(admin_pool, "search_indexes") == 0
    left = await rows_of(admin_pool, "memories")
    assert await step(runtime_pool, team) == left == await rows_of(admin_pool, "search_tail")


async def test_a_search_whose_index_goes_meanwhile_finds_its_memories_all_the_same(
    runtime_pool: Pool, admin_pool: Pool
) -> None:
    team = await make_team(admin_pool)
    await make_index(admin_pool, team, [await make_memory(admin_pool, team, "uploader")])
    number = await admin_pool.fetchval("SELECT number FROM commonplace.search_indexes")
    await request_rebuild(runtime_pool, reach(team), None)
    ranking = ([number], [1], [1.0])
    recall = (
        "SELECT jsonb_array_length(commonplace.recall_v2($1, NULL, NULL, 'human:ann', 'r', 'search', NULL, 'uploader',"
        " 5, NULL, NULL, $2, $3, $4, '{}', '{}', '{}'))"
    )
    assert await runtime_pool.fetchval(recall, UUID(team.id), *ranking) == 1
    await step(runtime_pool, team)
    assert await rows_of(admin_pool, "search_documents") == 0
    assert await runtime_pool.fetchval(recall, UUID(team.id), *ranking) == 1
