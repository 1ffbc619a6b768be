"""Who reaches a memory: nobody of another team, no key of a sibling project, and a private one its actor only."""

from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest

from commonplace_runtime.ids import uuid7
from commonplace_runtime.store import jobs as queue
from commonplace_runtime.store.pool import Pool
from tests.conftest import Database
from tests.factories import Key, make_event, make_key, make_memory, make_project, make_session, make_team
from tests.integration.runtime.api.memories import (
    GONE,
    audits,
    listed,
    make_world,
    patch,
    post,
    read,
    supersede,
    write,
)


async def assert_out_of_reach(http: httpx2.AsyncClient, key: Key, memory_id: str) -> None:
    """Answered like what is not there, whatever is tried."""
    for answer in (
        await http.get(f"/v1/memories/{memory_id}", headers=key.headers),
        await patch(http, key, memory_id, content="taken over"),
        await patch(http, key, memory_id, visibility="team"),
        await supersede(http, key, memory_id, content="taken over"),
        await supersede(http, key, memory_id, by=memory_id),
    ):
        assert (answer.status_code, answer.json()) == (404, GONE)
    observation = await http.get(f"/v1/observations/{memory_id}", headers=key.headers)
    assert (observation.status_code, observation.json()["message"]) == (404, "Observation not found")
    assert memory_id not in (await http.get("/v1/memories?includeSuperseded=true", headers=key.headers)).text


async def assert_no_successor(http: httpx2.AsyncClient, key: Key, memory_id: str) -> None:
    """It is not told apart from an id that nobody has, and stays as it is."""
    mine = await write(http, key, content="mine")
    for successor in (memory_id, str(uuid7())):
        answer = await supersede(http, key, mine["id"], by=successor)
        assert answer.status_code == 400
        assert [(issue["path"], issue["message"]) for issue in answer.json()["issues"]] == [
            (["by"], "No such memory in this project")
        ]
        for refused in (
            await post(http, key, projectId=mine["projectId"], content="x", supersedes=successor),
            await patch(http, key, mine["id"], supersedes=successor),
        ):
            assert refused.status_code == 400
            assert [issue["path"] for issue in refused.json()["issues"]] == [["supersedes"]]
    assert await read(http, key, mine["id"]) == mine


async def test_another_teams_memory_is_not_there(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    _other, stranger = await make_world(admin_pool)
    memory = await write(http, key, content="ours")
    await assert_out_of_reach(http, stranger, memory["id"])
    await assert_no_successor(http, stranger, memory["id"])
    assert await listed(http, stranger, projectId=team.project_id) == []
    assert await read(http, key, memory["id"]) == memory


async def test_nothing_is_written_into_another_teams_project_or_session(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team, key = await make_world(admin_pool)
    other, _stranger = await make_world(admin_pool)
    session = await make_session(admin_pool, other, content_session_id="c")
    refused = await post(http, key, projectId=other.project_id, content="x")
    assert (refused.status_code, refused.json()) == (
        403,
        {"error": "Forbidden", "message": "project_id must belong to team_id"},
    )
    mine = await write(http, key, content="mine")
    for answer in (
        await post(http, key, content="x", serverSessionId=session),
        await post(http, key, content="x", serverSessionId="nonsense"),
        await patch(http, key, mine["id"], serverSessionId=session),
        await supersede(http, key, mine["id"], content="x", serverSessionId=session),
    ):
        assert (answer.status_code, answer.json()["message"]) == (
            403,
            "server_session_id must belong to project_id and team_id",
        )
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.memories") == 1
    sibling = await make_project(admin_pool, team.id, "sibling")
    elsewhere = await make_session(admin_pool, team, content_session_id="c", project_id=sibling)
    refused = await post(http, key, projectId="default", content="x", serverSessionId=elsewhere)
    assert refused.status_code == 403, "of the same team, but of another project"


async def test_a_bound_key_does_not_reach_a_sibling_project(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    sibling = await make_project(admin_pool, team.id, "sibling")
    bound = await make_key(admin_pool, team.id, project_id=team.project_id)
    memory = await write(http, key, projectId=sibling, content="of the sibling")
    await assert_out_of_reach(http, bound, memory["id"])
    await assert_no_successor(http, bound, memory["id"])
    for answer in (
        await post(http, bound, projectId=sibling, content="x"),
        await http.get("/v1/memories?projectId=sibling", headers=bound.headers),
    ):
        assert (answer.status_code, answer.json()["message"]) == (403, "API key is scoped to a different project")
    assert (await write(http, bound, content="own"))["projectId"] == team.project_id


async def test_a_private_memory_is_there_for_its_actor_only(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    colleague = await make_key(admin_pool, team.id, actor="human:b")
    second = await make_key(admin_pool, team.id)
    memory = await write(http, key, content="a private thought", visibility="private")
    await assert_out_of_reach(http, colleague, memory["id"])
    await assert_no_successor(http, colleague, memory["id"])
    assert await read(http, second, memory["id"]) == memory, "another key of the same actor"
    for path in ("/v1/search", "/v1/context"):
        answer = await http.post(path, json={"query": "private thought"}, headers=colleague.headers)
        assert memory["id"] not in answer.text
    assert memory["id"] not in str([row for row in await audits(admin_pool, team) if row["key_id"] == colleague.id])


async def test_only_its_actor_says_who_sees_a_memory(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    colleague = await make_key(admin_pool, team.id, actor="human:b")
    memory = await write(http, key, content="ours")
    refused = await patch(http, colleague, memory["id"], visibility="private", content="mine")
    assert (refused.status_code, refused.json()["message"]) == (
        403,
        "only the actor who wrote a memory may change its visibility",
    )
    assert await read(http, colleague, memory["id"]) == memory
    assert (await patch(http, colleague, memory["id"], visibility="team", content="better")).status_code == 200
    assert (await patch(http, key, memory["id"], visibility="private")).status_code == 200
    await assert_out_of_reach(http, colleague, memory["id"])


async def test_what_the_team_sees_gives_way_to_nothing_private(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    old = await write(http, key, content="ours")
    mine = await write(http, key, content="mine", visibility="private")
    assert (await supersede(http, key, old["id"], by=mine["id"])).status_code == 409
    assert (await patch(http, key, mine["id"], supersedes=old["id"])).status_code == 409
    new = (await supersede(http, key, old["id"], content="ours too")).json()["memory"]
    hidden = await patch(http, key, new["id"], visibility="private")
    assert hidden.status_code == 409, "it would take the old one with it"
    colleague = await make_key(admin_pool, team.id, actor="human:b")
    assert await listed(http, colleague) == ["ours too"]


async def test_what_takes_the_place_of_a_private_memory_stays_private(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    _team, key = await make_world(admin_pool)
    old = await write(http, key, content="mine", visibility="private")
    new = (await supersede(http, key, old["id"], content="mine, again")).json()["memory"]
    assert new["visibility"] == "private"
    told = (await supersede(http, key, new["id"], content="for all", visibility="team")).json()["memory"]
    assert told["visibility"] == "team"


async def test_a_key_needs_the_scope(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    memory = await write(http, key, content="x")
    reader = await make_key(admin_pool, team.id, scopes=["memories:read"])
    writer = await make_key(admin_pool, team.id, scopes=["memories:write"])
    for answer in (
        await post(http, reader, nonsense=1),
        await patch(http, reader, memory["id"], content="y"),
        await supersede(http, reader, memory["id"], content="y"),
        await http.get(f"/v1/memories/{memory['id']}", headers=writer.headers),
        await http.get(f"/v1/observations/{memory['id']}", headers=writer.headers),
        await http.get("/v1/memories", headers=writer.headers),
        await http.get(f"/v1/events/{memory['id']}/observations", headers=writer.headers),
    ):
        assert (answer.status_code, answer.json()["message"]) == (403, "Invalid API key or insufficient scope")
    assert await read(http, reader, memory["id"]) == memory


async def test_what_was_made_of_an_event_is_for_those_who_reach_the_event(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team, key = await make_world(admin_pool)
    sibling = await make_project(admin_pool, team.id, "sibling")
    bound = await make_key(admin_pool, team.id, project_id=sibling)
    _other, stranger = await make_world(admin_pool)
    body = make_event(projectId="default")
    event = (await http.post("/v1/events?generate=false", json=body, headers=key.headers)).json()["event"]
    await make_memory(admin_pool, team, "made of it", event_id=event["id"])
    path = f"/v1/events/{event['id']}/observations"
    refused = await http.get(path, headers=bound.headers)
    assert (refused.status_code, refused.json()["message"]) == (403, "API key is scoped to a different project")
    for answer in (
        await http.get(path, headers=stranger.headers),
        await http.get("/v1/events/nonsense/observations", headers=key.headers),
        await http.get("/v1/events/a%00b/observations", headers=key.headers),
    ):
        assert (answer.status_code, answer.json()) == (404, {"error": "NotFound", "message": "Event not found"})


@pytest.mark.parametrize(
    ("default", "said", "visibility"),
    [(None, None, "team"), ("private", None, "private"), ("private", "team", "team"), ("team", "private", "private")],
)
async def test_a_memory_is_seen_as_it_says_or_as_its_team_says(
    http: httpx2.AsyncClient, admin_pool: Pool, default: str | None, said: str | None, visibility: str
) -> None:
    team, key = await make_world(admin_pool, default_visibility=default)
    colleague = await make_key(admin_pool, team.id, actor="human:b")
    memory = await write(http, key, content="x", visibility=said)
    assert memory["visibility"] == visibility
    assert await listed(http, colleague) == (["x"] if visibility == "team" else [])


async def test_a_default_private_team_supersedes_what_all_see_only_on_purpose(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    _team, key = await make_world(admin_pool, default_visibility="private")
    old = await write(http, key, content="ours", visibility="team")
    assert (await supersede(http, key, old["id"], content="new")).status_code == 409
    assert (await supersede(http, key, old["id"], content="new", visibility="team")).status_code == 201


async def test_what_is_generated_for_a_default_private_team_is_its_actors_own(
    http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool
) -> None:
    team, key = await make_world(admin_pool, default_visibility="private")
    colleague = await make_key(admin_pool, team.id, actor="human:b")
    event = (await http.post("/v1/events", json=make_event(), headers=key.headers)).json()["event"]
    claim = await queue.claim(runtime_pool, worker="w", lease_seconds=60, max_jobs=10)
    assert claim is not None
    assert claim.claimed is not None
    (job,) = claim.claimed.jobs
    memory_id = str(uuid7())
    memory = {
        "id": memory_id,
        "index": 0,
        "kind": "discovery",
        "title": "Generated",
        "content": "generated",
        "metadata": {},
        "keywords": [],
        "tags": [],
        "replaces": [],
        "sources": [{"eventId": event["id"], "jobId": str(job.id)}],
    }
    results = {"provider": "p", "spent": [], "jobs": [{"id": str(job.id), "memories": [memory]}]}
    written = await queue.complete(runtime_pool, claim.claimed.lease, results)
    assert written["memories"] == 1
    path = f"/v1/events/{event['id']}/observations"
    (mine,) = (await http.get(path, headers=key.headers)).json()["observations"]
    assert (mine["visibility"], mine["actor"]) == ("private", "agent:tester")
    assert (mine["createdByJobId"], mine["source"]["generationJobId"]) == (str(job.id), str(job.id))
    assert mine["generationKey"] == f"{job.id}:0"
    assert (await http.get(path, headers=colleague.headers)).json()["observations"] == []
    await assert_out_of_reach(http, colleague, memory_id)
    for path in ("/v1/search", "/v1/context"):
        found = await http.post(path, json={"query": "generated"}, headers=colleague.headers)
        assert found.json()["observations"] == [], path
    recent = await http.post("/v1/context", json={}, headers=colleague.headers)
    assert recent.json()["observations"] == []


async def test_the_database_itself_holds_the_teams_apart(admin_pool: Pool, runtime_pool: Pool) -> None:
    """Even with arguments that only a bug could mix up: another team's ids."""
    team = await make_team(admin_pool)
    memory = await make_memory(admin_pool, team, "ours")
    other = await make_team(admin_pool)
    reach: list[Any] = [UUID(other.id), None, UUID(team.project_id), "agent:tester", "r"]
    get = "SELECT commonplace.get_memory_v1($1, $2, $3, $4, $5, $6, 'memory.read')"
    assert await runtime_pool.fetchval(get, *reach, memory) is None
    update = "SELECT commonplace.update_memory_v1($1, $2, $3, $4, $5, NULL, $6, $7)"
    assert await runtime_pool.fetchval(update, *reach, memory, {"content": "theirs"}) is None
    supersede_by = "SELECT commonplace.supersede_memory_v1($1, $2, $3, $4, $5, NULL, $6, $6)"
    assert await runtime_pool.fetchval(supersede_by, *reach, memory) is None
    listing = "SELECT commonplace.list_memories_v1($1, $2, $3, $4, $5, '{}', NULL, 10)"
    assert await runtime_pool.fetchval(listing, *reach) == {"memories": [], "last": None}
    projects = "SELECT commonplace.list_projects_v1($1, $2, $3, $4, $5, NULL, 10)"
    assert await runtime_pool.fetchval(projects, *reach) == []


@pytest.mark.parametrize("project", [None, "default"])
@pytest.mark.parametrize("is_analyzed", [False, True])
async def test_a_list_reads_past_nobody_elses_memories(
    admin_pool: Pool, runtime_pool: Pool, database: Database, project: str | None, is_analyzed: bool
) -> None:
    team, other = await make_team(admin_pool), await make_team(admin_pool)
    fill = (
        "INSERT INTO commonplace.memories (id, team_id, project_id, owner_actor, visibility, content)"
        " SELECT gen_random_uuid(), $1::text::uuid, $2::text::uuid, 'a', 'team', n::text FROM generate_series(1, $3) n"
    )
    for owner, count in ((team, 1000), (other, 3000)):
        await admin_pool.execute(fill, owner.id, owner.project_id, count)
    if is_analyzed:
        superuser = await asyncpg.connect(database.superuser_url)
        await superuser.execute("ANALYZE commonplace.memories")
        await superuser.close()
    listing = "SELECT commonplace.list_memories_v1($1::text::uuid, NULL, NULL, 'a', 'r', $2, NULL, 10)"
    async with runtime_pool.acquire() as connection, connection.transaction():
        page = await connection.fetchval(listing, team.id, {"project": project})
        rows_read = await connection.fetchval(
            "SELECT sum(pg_stat_get_xact_tuples_returned(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid ="
            " c.relnamespace WHERE n.nspname = 'commonplace' AND c.relname LIKE 'memories%'"
        )
    assert len(page["memories"]) == 10
    assert rows_read <= 21, "the page and one more, then each of its memories by its id"


async def test_raw_events_behind_private_memories_are_neither_read_nor_forgotten_by_others(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team = await make_team(admin_pool, default_visibility="private")
    mine = await make_key(admin_pool, team.id, actor="human:me")
    yours = await make_key(admin_pool, team.id, actor="human:you")
    session = await make_session(admin_pool, team, content_session_id="session-1")
    body = make_event(serverSessionId=session, payload={"tool_input": {"file_path": "src/secret.py"}})
    event = (await http.post("/v1/events", json=body, headers=mine.headers)).json()["event"]["id"]

    assert (await http.get(f"/v1/events/{event}", headers=yours.headers)).status_code == 404
    for selection in ({"file": "secret.py", "projectId": "default"}, {"contentSessionId": "session-1"}):
        for dry_run in (True, False):
            told = await http.post("/v1/forget", json={**selection, "dryRun": dry_run}, headers=yours.headers)
            assert told.status_code == 200, told.text
            assert set(told.json()["counts"].values()) == {0}
    assert (await http.get(f"/v1/events/{event}", headers=mine.headers)).status_code == 200
    told = await http.post("/v1/forget", json={"contentSessionId": "session-1"}, headers=mine.headers)
    assert (told.json()["counts"]["agentEvents"], told.json()["counts"]["sessions"]) == (1, 1)
