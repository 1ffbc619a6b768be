"""Memories as resources over HTTP: written, read, listed, changed and superseded, within a key's reach only."""

from typing import Any

import httpx2
import pytest

from commonplace_runtime.store.pool import Pool
from tests.factories import Key, Team, make_event, make_key, make_memory, make_session, make_team

GITHUB = "ghp_" + "a1B2" * 9
GONE = {"error": "NotFound", "message": "Memory not found"}


async def make_world(admin_pool: Pool, **columns: Any) -> tuple[Team, Key]:
    team = await make_team(admin_pool, **columns)
    return team, await make_key(admin_pool, team.id)


async def post(http: httpx2.AsyncClient, key: Key, **body: Any) -> httpx2.Response:
    return await http.post("/v1/memories", json=body, headers=key.headers)


async def write(http: httpx2.AsyncClient, key: Key, **body: Any) -> dict[str, Any]:
    answer = await post(http, key, **body)
    assert answer.status_code == 201, answer.text
    memory: dict[str, Any] = answer.json()["memory"]
    return memory


async def patch(http: httpx2.AsyncClient, key: Key, memory_id: str, **body: Any) -> httpx2.Response:
    return await http.patch(f"/v1/memories/{memory_id}", json=body, headers=key.headers)


async def read(http: httpx2.AsyncClient, key: Key, memory_id: str) -> dict[str, Any]:
    answer = await http.get(f"/v1/memories/{memory_id}", headers=key.headers)
    assert answer.status_code == 200, answer.text
    memory: dict[str, Any] = answer.json()["memory"]
    return memory


async def listed(http: httpx2.AsyncClient, key: Key, **query: Any) -> list[str]:
    answer = await http.get("/v1/memories", params=query, headers=key.headers)
    assert answer.status_code == 200, answer.text
    return [memory["content"] for memory in answer.json()["memories"]]


async def supersede(http: httpx2.AsyncClient, key: Key, memory_id: str, **body: Any) -> httpx2.Response:
    return await http.post(f"/v1/memories/{memory_id}/supersede", json=body, headers=key.headers)


async def audits(admin_pool: Pool, team: Team) -> list[dict[str, Any]]:
    rows = await admin_pool.fetch(
        "SELECT action, resource_type, resource_id, project_id::text, key_id::text, actor, request_id, details"
        " FROM commonplace.audit_log WHERE team_id = $1::text::uuid ORDER BY number",
        team.id,
    )
    return [dict(row) for row in rows]


async def test_a_memory_is_stored_as_it_was_meant_and_makes_no_job(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    session = await make_session(admin_pool, team, content_session_id="c")
    memory = await write(
        http,
        key,
        projectId="default",
        content="Staging is reset on Mondays",
        title="Staging",
        kind="note",
        type="discovery",
        subtitle="weekly",
        facts=["06:00 UTC"],
        concepts=["environments"],
        filesRead=["a.py"],
        files_modified=["b.py"],
        serverSessionId=session,
        metadata={"ticket": 7},
        tags=["ops", " ops ", "", "db"],
        importance=0.7,
        visibility="private",
        validFrom=0,
        validTo="2030-01-01T00:00:00Z",
    )
    assert memory == {
        "id": memory["id"],
        "projectId": team.project_id,
        "teamId": team.id,
        "serverSessionId": session,
        "kind": "note",
        "title": "Staging",
        "content": "Staging is reset on Mondays",
        "metadata": {
            "ticket": 7,
            "title": "Staging",
            "type": "discovery",
            "subtitle": "weekly",
            "facts": ["06:00 UTC"],
            "concepts": ["environments"],
            "files_read": ["a.py"],
            "files_modified": ["b.py"],
        },
        "sources": [],
        "score": None,
        "tags": ["ops", "db"],
        "importance": 0.7,
        "visibility": "private",
        "actor": "agent:tester",
        "supersededBy": None,
        "validFromEpoch": 0,
        "validToEpoch": 1_893_456_000_000,
        "createdAtEpoch": memory["createdAtEpoch"],
        "updatedAtEpoch": memory["updatedAtEpoch"],
    }
    assert await read(http, key, memory["id"]) == memory
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.jobs") == 0
    author = await admin_pool.fetchval("SELECT author_key_id::text FROM commonplace.memories")
    assert author == key.id


@pytest.mark.parametrize(
    ("body", "content"),
    [
        ({"content": "c", "narrative": "n", "text": "t"}, "c"),
        ({"content": None, "narrative": "n", "text": "t"}, "n"),
        ({"narrative": "", "text": "t"}, "t"),
        ({"kind": "manual", "type": "manual", "narrative": "as the real tool sends it"}, "as the real tool sends it"),
        ({"title": "only a title"}, "only a title"),
        ({"title": "T", "subtitle": "S", "facts": ["f", "g"], "concepts": ["c"]}, "T\n\nS\n\n- f\n- g\n\nc"),
        ({"concepts": ["c", "d"]}, "c, d"),
        ({"content": " \n\t"}, " \n\t"),
        ({"content": "x", "unknown": {"a": 1}, "facts": None, "tags": None, "metadata": None}, "x"),
    ],
)
async def test_the_text_is_what_the_client_calls_it(
    http: httpx2.AsyncClient, admin_pool: Pool, body: Any, content: str
) -> None:
    _team, key = await make_world(admin_pool)
    memory = await write(http, key, **body)
    assert (memory["content"], memory["kind"], memory["importance"]) == (content, "manual", 0.5)


async def test_a_narrative_beside_the_content_is_kept(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _team, key = await make_world(admin_pool)
    memory = await write(http, key, content="c", narrative="n")
    assert memory["metadata"] == {"narrative": "n"}


async def test_what_is_written_down_is_found_by_words(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _team, key = await make_world(admin_pool)
    memory = await write(http, key, narrative="The uploader retries", concepts=["backpressure"])
    for query in ("uploader", "backpressure"):
        answer = await http.post("/v1/search", json={"query": query}, headers=key.headers)
        assert [found["id"] for found in answer.json()["observations"]] == [memory["id"]], query


async def test_an_observation_is_the_same_memory_by_another_name(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    memory = await write(http, key, content="x")
    answer = await http.get(f"/v1/observations/{memory['id'].upper()}", headers=key.headers)
    assert answer.json() == {"observation": memory}
    missing = await http.get(f"/v1/observations/{team.id}", headers=key.headers)
    assert (missing.status_code, missing.json()["message"]) == (404, "Observation not found")


async def test_a_page_goes_on_where_the_one_before_ended_whatever_comes_in_between(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team, key = await make_world(admin_pool)
    for number in range(5):
        await make_memory(admin_pool, team, str(number))
    seen: list[str] = []
    params: dict[str, str | int] = {"limit": 2}
    while True:
        page = (await http.get("/v1/memories", params=params, headers=key.headers)).json()
        seen += [memory["content"] for memory in page["memories"]]
        await make_memory(admin_pool, team, "late")
        if page["nextCursor"] is None:
            break
        params["cursor"] = page["nextCursor"]
    assert seen == ["4", "3", "2", "1", "0"]


async def test_a_memory_can_be_superseded_by_a_new_one_and_by_one_that_is_there(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    _team, key = await make_world(admin_pool)
    old, there = await write(http, key, content="old"), await write(http, key, content="there")
    by_new = await supersede(http, key, old["id"], content="new", title="T")
    assert by_new.status_code == 201, by_new.text
    new, gone = by_new.json()["memory"], by_new.json()["superseded"]
    assert (new["content"], new["title"], gone["id"], gone["supersededBy"]) == ("new", "T", old["id"], new["id"])
    assert gone["validToEpoch"] is not None
    by_there = await supersede(http, key, new["id"], by=there["id"])
    assert by_there.status_code == 200
    assert by_there.json()["memory"] == there
    again = await supersede(http, key, new["id"], by=there["id"])
    assert (again.status_code, again.json()) == (200, by_there.json()), "an answer may be lost"
    assert await listed(http, key) == ["there"]
    assert await listed(http, key, includeSuperseded="true") == ["new", "there", "old"]


async def test_a_change_says_only_what_changes(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    memory = await write(http, key, content="a", title="T", tags=["x"], metadata={"keep": 1, "drop": 2}, importance=0.9)
    answer = await patch(
        http, key, memory["id"], content="b", metadata={"drop": None, "more": 3}, tags=None, importance=None
    )
    assert answer.status_code == 200, answer.text
    after = answer.json()["memory"]
    expected = {"content": "b", "metadata": {"keep": 1, "more": 3, "title": "T"}, "tags": [], "importance": 0.5}
    assert {**memory, **expected, "updatedAtEpoch": after["updatedAtEpoch"]} == after
    assert after["updatedAtEpoch"] >= memory["updatedAtEpoch"]
    assert await read(http, key, memory["id"]) == after
    (update,) = [row for row in await audits(admin_pool, team) if row["action"] == "memory.update"]
    assert update["details"]["changed"] == ["content", "importance", "metadata", "tags"]
    assert "b" not in update["details"].values()


async def test_what_was_made_of_an_event_is_told_with_its_link(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    event = (await http.post("/v1/events?generate=false", json=make_event(), headers=key.headers)).json()["event"]
    path = f"/v1/events/{event['id']}/observations"
    assert (await http.get(path, headers=key.headers)).json() == {"eventId": event["id"], "observations": []}
    first, second = [await make_memory(admin_pool, team, text, event_id=event["id"]) for text in ("1", "2")]
    await make_memory(admin_pool, team, "hidden", event_id=event["id"], visibility="private", owner_actor="agent:b")
    await make_memory(admin_pool, team, "of nothing")
    answer = (await http.get(path, headers=key.headers)).json()
    assert [found["id"] for found in answer["observations"]] == [first, second]
    found = answer["observations"][0]
    assert (found["generationKey"], found["createdByJobId"]) == (None, None)
    assert found["source"] == {
        "id": found["source"]["id"],
        "sourceType": "agent_event",
        "sourceId": event["id"],
        "generationJobId": None,
        "createdAtEpoch": found["source"]["createdAtEpoch"],
    }
    assert answer == (await http.get(path, headers=key.headers)).json(), "a link's id stays"
    row = (await audits(admin_pool, team))[-1]
    assert (row["action"], row["resource_type"], row["details"]["mode"]) == (
        "observation.read",
        "observation",
        "event_observations",
    )
    assert (row["details"]["eventId"], row["details"]["observationIds"]) == (event["id"], [first, second])
