"""What one search reads, however long, many or common the words are."""

from itertools import islice, product
from uuid import UUID

from commonplace_runtime.domain.models import Reach, Recall, TeamId
from commonplace_runtime.domain.ranking import MOST_POSTINGS, Part
from commonplace_runtime.store import memories, search_index
from commonplace_runtime.store.pool import Pool
from commonplace_runtime.store.search_index import Project
from tests.factories import Team, make_memory, make_project, make_team
from tests.index_audit import audit_index
from tests.indexed import hint, keep, write

WORDS = ["".join(letters) for letters in islice(product("bcdfghjklmnpqrstvwxz", repeat=4), 12_000)]
"""As many as a memory is searched by; none of them is a stop word or has a stem of its own."""


async def parts_of(pool: Pool, team: Team, query: str) -> list[Part]:
    reach = Reach(team_id=TeamId(team.id), actor="human:ann")
    return await memories.search_parts(
        pool, reach, Recall(mode="search", project=team.project_id, query=query, limit=10)
    )


async def test_the_commonest_words_are_not_read(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    await admin_pool.execute(
        "INSERT INTO commonplace.memories (id, team_id, project_id, owner_actor, visibility, content)"
        " SELECT gen_random_uuid(), $1, $2, 'agent:tester', 'team',"
        " array_to_string(($3::text[])[1:1 + n % 64], ' ') || CASE WHEN n = 100 THEN ' zebra' ELSE '' END"
        " FROM generate_series(1, 3200) AS n",
        UUID(team.id),
        UUID(team.project_id),
        WORDS[:64],
    )
    await hint(admin_pool)
    await keep(runtime_pool)
    # As many as are worth looking at the lists before they are read.
    await admin_pool.execute("UPDATE commonplace.search_segments SET documents = 10 * documents")

    parts = await parts_of(runtime_pool, team, " ".join([*WORDS[:62], "zebra", "nowhere"]))
    read = {part.number for part in parts if part.part == "list"}
    assert 2 < len(read) < 62
    assert sum(len(part.data) for part in parts if part.part == "list") <= 4 * MOST_POSTINGS
    assert await admin_pool.fetchval("SELECT commonplace.search_term('zebra')") in read
    # A word that was left out is none of the tail's either, where it would seem to be rare.
    assert len(next(part for part in parts if part.part == "words").data) == 4 * (len(read) + 1)


async def test_one_word_is_read_however_common_it_is(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    await write(admin_pool, team, range(300))
    await hint(admin_pool)
    await keep(runtime_pool)
    await admin_pool.execute("UPDATE commonplace.search_segments SET documents = $1", 10 * MOST_POSTINGS)
    await admin_pool.execute(
        "UPDATE commonplace.search_postings SET data = $1 WHERE term = commonplace.search_term('w0')",
        bytes(4 * MOST_POSTINGS + 4),
    )
    for query, word in (("w0 nowhere", "w0"), ("w0 only7", "only7")):
        term = await admin_pool.fetchval("SELECT commonplace.search_term($1)", word)
        parts = await parts_of(runtime_pool, team, query)
        assert [part.number for part in parts if part.part == "list"] == [term]


async def test_long_memories_are_merged_before_many_wait(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    for n in range(8):
        await make_memory(admin_pool, team, " ".join(WORDS[n:]))
    await keep(runtime_pool)
    assert await audit_index(admin_pool) == {"merged": 8, "tail": 0}


async def test_a_merge_takes_few_of_those_that_are_long(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    for n in range(8):
        await make_memory(admin_pool, team, " ".join(WORDS[n:]))
    async with search_index.holding(
        runtime_pool, Project(team_id=team.id, project_id=team.project_id), patient=True
    ) as held:
        assert held is not None
        assert [len(await held.tail("", most)) for most in (1, 40, 512)] == [1, 2, 8]


async def test_a_search_reads_the_rows_before_a_tail_of_megabytes(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    await make_memory(admin_pool, team, "zebra")
    assert Part("rows") not in await parts_of(runtime_pool, team, "zebra")
    await admin_pool.execute("UPDATE commonplace.search_tail SET terms = decode(repeat('00', 2001 * 2048), 'hex')")
    assert await parts_of(runtime_pool, team, "zebra") == [Part("rows")]


async def test_no_owner_is_hidden_behind_others_who_wait(admin_pool: Pool, runtime_pool: Pool) -> None:
    team = await make_team(admin_pool)
    await admin_pool.execute(
        "INSERT INTO commonplace.search_tail (team_id, project_id, owner_actor, number, memory_id, terms)"
        " SELECT $1, $2, 'human:' || to_char(n / 255, 'FM000'), n, gen_random_uuid(), ''"
        " FROM generate_series(0, 255 * 100 - 1) AS n",
        UUID(team.id),
        UUID(team.project_id),
    )
    state = await search_index.state(runtime_pool, Project(team_id=team.id, project_id=team.project_id))
    assert state.tails == {f"human:{n:03}": 255 for n in range(100)}


async def test_no_team_waits_for_all_projects_of_another(admin_pool: Pool, runtime_pool: Pool) -> None:
    busy, other = await make_team(admin_pool), await make_team(admin_pool)
    projects = [await make_project(admin_pool, busy.id, f"p{n}") for n in range(5)]
    for team_id, project_id in [*((busy.id, project_id) for project_id in projects), (other.id, other.project_id)]:
        await admin_pool.execute(
            "INSERT INTO commonplace.search_work (team_id, project_id) VALUES ($1, $2)", UUID(team_id), UUID(project_id)
        )
    due = await search_index.work(runtime_pool, most=4)
    assert [project.project_id for project in due] == [projects[0], other.project_id, *projects[1:3]]
