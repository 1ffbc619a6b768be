"""The keeper of the search index: what is written comes into it, what goes leaves it, whoever does what meanwhile."""

from uuid import UUID

from commonplace_runtime.ids import uuid7
from commonplace_runtime.services import keep_index
from commonplace_runtime.services.keep_index import keep_indexes, purge_project_index
from commonplace_runtime.store.pool import Pool
from commonplace_runtime.store.search_index import Project
from tests.factories import Team, make_session, make_team
from tests.index_audit import audit_index

WORDS = [f"w{number}" for number in range(400)]


def text_of(number: int) -> str:
    """Twelve words; some of them stand in many texts, some in few."""
    return (
        " ".join(WORDS[(number * step + step * step) % (40 * step)] for step in range(1, 10))
        + f" only{number} readFile"
    )


async def write(
    pool: Pool,
    team: Team,
    numbers: range,
    *,
    session: str | None = None,
    owner: str | None = None,
    project: str | None = None,
) -> list[UUID]:
    """Memories with the texts of these numbers; private ones where an owner is named."""
    ids = [uuid7() for _ in numbers]
    await pool.execute(
        "INSERT INTO commonplace.memories (id, team_id, project_id, owner_actor, visibility, content, session_id)"
        " SELECT id, $1, $2, $3, $4, content, $5 FROM unnest($6::uuid[], $7::text[]) AS m (id, content)",
        UUID(team.id),
        UUID(project or team.project_id),
        owner or "agent:tester",
        "team" if owner is None else "private",
        None if session is None else UUID(session),
        ids,
        [text_of(number) for number in numbers],
    )
    return ids


async def keep(pool: Pool) -> None:
    """Until there is nothing to do."""
    while await keep_indexes(pool):
        pass


async def hint(pool: Pool) -> None:
    """As every 32nd memory does."""
    await pool.execute(
        "INSERT INTO commonplace.search_work (team_id, project_id)"
        " SELECT DISTINCT team_id, project_id FROM commonplace.search_tail"
    )


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
    await keep(runtime_pool)
    assert (await audit_index(admin_pool))["merged"] >= 900 - keep_index.MERGE_FROM
    assert await count(admin_pool, "search_work") == 0
