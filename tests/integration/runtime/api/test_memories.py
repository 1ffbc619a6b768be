"""Memories as resources over HTTP: written, read, listed, changed and superseded, within a key's reach only."""

import asyncio
from typing import Any

import httpx2
import pytest

from commonplace_runtime.domain.cursors import write_cursor
from commonplace_runtime.store.pool import Pool
from tests.factories import make_event, make_key, make_memory, make_project, make_session, set_limits
from tests.integration.runtime.api.memories import audits, listed, make_world, patch, post, read, supersede, write
from tests.integration.runtime.worker.support import until


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


async def test_the_list_shows_what_is_asked_for(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    other = await make_key(admin_pool, team.id, actor="human:b")
    sibling = await make_project(admin_pool, team.id, "sibling")
    session = await make_session(admin_pool, team, content_session_id="c")
    in_default = {"projectId": "default"}
    await write(http, key, content="tagged", tags=["ops"], **in_default)
    await write(http, key, content="kind", kind="decision", **in_default)
    await write(http, key, content="session", serverSessionId=session, **in_default)
    await write(http, other, content="other", **in_default)
    await write(http, key, content="mine", visibility="private", **in_default)
    sibling_memory = await write(http, key, content="sibling", projectId=sibling)
    await admin_pool.execute("UPDATE commonplace.memories SET created_at = '2020-06-01Z' WHERE content = 'tagged'")
    everything = ["sibling", "mine", "other", "session", "kind", "tagged"]
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({}, everything),
        ({"projectId": "sibling"}, ["sibling"]),
        ({"projectId": sibling}, ["sibling"]),
        ({"projectId": "no such"}, []),
        ({"projectId": "x" * 300}, []),
        ({"tag": "ops"}, ["tagged"]),
        ({"tag": "op"}, []),
        ({"kind": "decision"}, ["kind"]),
        ({"serverSessionId": session}, ["session"]),
        ({"serverSessionId": "nonsense"}, []),
        ({"actor": "human:b"}, ["other"]),
        ({"visibility": "private"}, ["mine"]),
        ({"since": "2021"}, everything[:-1]),
        ({"until": "2021-01-01T00:00:00Z"}, ["tagged"]),
        ({"until": 1_590_969_600_000}, []),
        ({"since": 1_590_969_600_000, "until": 1_590_969_600_001}, ["tagged"]),
        ({"since": 0}, everything),
        ({"kind": "", "tag": "", "cursor": "", "since": ""}, everything),
        ({"kind": "manual", "actor": "agent:tester", "limit": 2}, ["sibling", "mine"]),
        ({"kind": "a\0b", "tag": "\0", "projectId": "\0"}, []),
        ({"unknown": "x"}, everything),
    ]
    for query, expected in cases:
        assert await listed(http, key, **query) == expected, query
    bound = await make_key(admin_pool, team.id, project_id=sibling)
    assert await listed(http, bound) == ["sibling"]
    assert sibling_memory["projectId"] == sibling


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "201"}, "limit"),
        ({"limit": "1.5"}, "limit"),
        ({"limit": "9" * 30}, "limit"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"cursor": write_cursor(0)}, "cursor"),
        ({"cursor": write_cursor(2**31)}, "cursor"),
        ({"cursor": write_cursor("a")}, "cursor"),
        ({"cursor": "\u00e9"}, "cursor"),
        ({"since": "yesterday"}, "since"),
        ({"until": "10000-01-01"}, "until"),
        ({"until": "253402300800000"}, "until"),
        ({"since": "--5"}, "since"),
        ({"visibility": "public"}, "visibility"),
        ({"includeSuperseded": "yes"}, "includeSuperseded"),
    ],
)
async def test_a_query_that_is_wrong_is_told_where(
    http: httpx2.AsyncClient, admin_pool: Pool, query: dict[str, str], path: str
) -> None:
    _team, key = await make_world(admin_pool)
    answer = await http.get("/v1/memories", params=query, headers=key.headers)
    assert answer.status_code == 400, answer.text
    assert [issue["path"] for issue in answer.json()["issues"]] == [[path]]


async def test_a_page_of_large_memories_ends_early_and_loses_none(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    for letter in "abc":
        await make_memory(admin_pool, team, letter * 5_000_000)
    seen: list[str] = []
    cursor: str | None = ""
    pages = 0
    while cursor is not None:
        params = {"cursor": cursor} if cursor else {}
        page = (await http.get("/v1/memories", params=params, headers=key.headers)).json()
        seen += [memory["content"][:1] for memory in page["memories"]]
        cursor = page["nextCursor"]
        pages += 1
    assert (seen, pages) == (["c", "b", "a"], 3)


async def test_what_cannot_be_superseded_says_what_to_do(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _team, key = await make_world(admin_pool)
    a, b, c = [await write(http, key, content=text) for text in "abc"]
    itself = await supersede(http, key, a["id"], by=a["id"])
    assert (itself.status_code, itself.json()["message"]) == (409, "A memory cannot supersede itself")
    assert (await supersede(http, key, a["id"], by=b["id"])).status_code == 200
    assert (await supersede(http, key, b["id"], by=c["id"])).status_code == 200
    circle = await supersede(http, key, c["id"], by=a["id"])
    assert circle.status_code == 409
    assert "superseded by this memory" in circle.json()["message"]
    for body in ({"by": c["id"]}, {"content": "late"}):
        twice = await supersede(http, key, a["id"], **body)
        assert twice.status_code == 409
        assert "supersededBy" in twice.json()["message"]
    twice = await post(http, key, content="late", supersedes=a["id"])
    assert twice.status_code == 409
    private = await supersede(http, key, c["id"], content="mine", visibility="private")
    assert private.status_code == 409
    assert "make the successor visible to the team" in private.json()["message"]
    assert await listed(http, key, includeSuperseded="true") == ["c", "b", "a"], "nothing was stored on the way"
    for body in ({"by": 1}, {"by": ""}, {}, {"content": ""}, {"by": "nonsense"}, {"by": "a\0b"}):
        assert (await supersede(http, key, c["id"], **body)).status_code == 400, body
    for missing in ("nonsense", a["projectId"], "a%00b"):
        assert (await supersede(http, key, missing, content="x")).status_code == 404
        assert (await supersede(http, key, missing, by=a["id"])).status_code == 404


async def test_two_at_once_that_know_nothing_of_each_other_close_no_circle(
    http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool
) -> None:
    """a → b and c → d stand; b → c and d → a share no memory, so that locks on memories would not do."""
    team, key = await make_world(admin_pool)
    a, b, c, d = [(await write(http, key, content=text))["id"] for text in "abcd"]
    assert (await supersede(http, key, a, by=b)).status_code == 200
    assert (await supersede(http, key, c, by=d)).status_code == 200
    call = "SELECT commonplace.supersede_memory_v1($1::text::uuid, NULL, NULL, 'agent:tester', 'r', NULL, $2, $3)"
    blocked = (
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
    )
    async with runtime_pool.acquire() as connection, connection.transaction():
        first = await connection.fetchval(call, team.id, b, c)
        second = asyncio.create_task(supersede(http, key, d, by=a))

        async def is_blocked_or_done() -> bool:
            return second.done() or bool(await admin_pool.fetchval(blocked))

        await until(is_blocked_or_done)
    assert first["outcome"] == "superseded_now"
    assert (await second).status_code == 409


async def test_only_one_takes_the_place_of_a_memory(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _team, key = await make_world(admin_pool)
    old = await write(http, key, content="old")
    answers = await asyncio.gather(*(post(http, key, content=f"{n}", supersedes=old["id"]) for n in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert len(await listed(http, key)) == 1


async def test_a_new_memory_can_say_whom_it_supersedes(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    sibling = await make_project(admin_pool, team.id, "sibling")
    old = await write(http, key, content="old", projectId=sibling)
    new = await write(http, key, content="new", supersedes=old["id"])
    assert new["projectId"] == sibling, "where it names no project it stays in that one"
    assert (await read(http, key, old["id"]))["supersededBy"] == new["id"]
    for supersedes in ("nonsense", team.id):
        unknown = await post(http, key, projectId="default", content="x", supersedes=supersedes)
        assert [issue["path"] for issue in unknown.json()["issues"]] == [["supersedes"]]
    elsewhere = await post(http, key, projectId="default", content="x", supersedes=new["id"])
    assert [issue["path"] for issue in elsewhere.json()["issues"]] == [["supersedes"]]
    moved = await supersede(http, key, new["id"], content="x", projectId="default")
    assert (moved.status_code, moved.json()["message"]) == (400, "projectId cannot be changed")
    kept = await supersede(http, key, new["id"], content="newest", projectId="sibling")
    assert kept.status_code == 201


async def test_recall_answers_with_the_successor(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _team, key = await make_world(admin_pool)
    old = await write(http, key, content="The port is 8080")
    new = (await supersede(http, key, old["id"], content="It moved to 9090")).json()["memory"]
    found = (await http.post("/v1/search", json={"query": "port 8080"}, headers=key.headers)).json()["observations"]
    assert [memory["id"] for memory in found] == [new["id"]]


async def test_each_field_can_be_changed_and_cleared(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    session = await make_session(admin_pool, team, content_session_id="c")
    memory = await write(http, key, content="a")
    changes: dict[str, Any] = {
        "title": "T",
        "kind": "note",
        "type": "discovery",
        "subtitle": "S",
        "facts": ["f"],
        "concepts": ["carrot"],
        "filesRead": ["r"],
        "filesModified": ["m"],
        "serverSessionId": session,
        "tags": ["t"],
        "importance": 1,
        "visibility": "private",
        "validFrom": 5,
        "validTo": "2030-01-01",
        "metadata": {"own": 1},
        "projectId": "default",
    }
    after = (await patch(http, key, memory["id"], **changes)).json()["memory"]
    assert (after["title"], after["kind"], after["serverSessionId"], after["tags"]) == ("T", "note", session, ["t"])
    assert (after["importance"], after["visibility"], after["validFromEpoch"]) == (1, "private", 5)
    assert after["metadata"] == {
        "own": 1,
        "title": "T",
        "type": "discovery",
        "subtitle": "S",
        "facts": ["f"],
        "concepts": ["carrot"],
        "files_read": ["r"],
        "files_modified": ["m"],
    }
    found = await http.post("/v1/search", json={"query": "carrot"}, headers=key.headers)
    assert len(found.json()["observations"]) == 1
    cleared = dict.fromkeys(set(changes) - {"kind", "visibility", "projectId"})
    bare = (await patch(http, key, memory["id"], **cleared, visibility="team")).json()["memory"]
    kept = {"kind": "note", "updatedAtEpoch": bare["updatedAtEpoch"]}
    assert bare == {**memory, **kept}
    again = (await patch(http, key, memory["id"], **memory)).json()["memory"]
    assert again == {**memory, "updatedAtEpoch": again["updatedAtEpoch"]}, "what was read can be sent back"


async def test_nothing_different_writes_nothing_but_the_audit_row(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    memory = await write(http, key, content="a", metadata={"x": 1})
    for body in ({}, {"content": "a", "metadata": {"x": 1}, "unknown": 1}):
        answer = await patch(http, key, memory["id"], **body)
        assert (answer.status_code, answer.json()) == (200, {"memory": memory})
    assert [row["details"]["changed"] for row in (await audits(admin_pool, team))[1:]] == [[], []]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"content": None}, ["content"]),
        ({"content": ""}, ["content"]),
        ({"kind": None}, ["kind"]),
        ({"kind": ""}, ["kind"]),
        ({"visibility": None}, ["visibility"]),
        ({"projectId": None}, ["projectId"]),
        ({"metadata": []}, ["metadata"]),
        ({"validTo": 1}, ["validTo"]),
        ({"validFrom": 2, "validTo": 1}, ["validTo"]),
        ({"title": "x" * 1001}, ["title"]),
        ({"supersedes": "nonsense"}, ["supersedes"]),
    ],
)
async def test_a_change_that_is_wrong_is_told_where_and_changes_nothing(
    http: httpx2.AsyncClient, admin_pool: Pool, body: Any, path: list[str]
) -> None:
    _team, key = await make_world(admin_pool)
    memory = await write(http, key, content="a", validFrom=10)
    answer = await patch(http, key, memory["id"], **{"tags": ["new"], **body})
    assert answer.status_code == 400, answer.text
    assert [issue["path"] for issue in answer.json()["issues"]] == [path]
    assert await read(http, key, memory["id"]) == memory


async def test_a_memory_stays_in_its_project(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    sibling = await make_project(admin_pool, team.id, "sibling")
    memory = await write(http, key, content="a", projectId="default")
    for project in (sibling, "sibling", "no such"):
        answer = await patch(http, key, memory["id"], projectId=project)
        assert answer.status_code == 400
        assert answer.json() == {"error": "ValidationError", "message": "projectId cannot be changed"}


async def test_a_generated_memory_may_be_edited_and_superseded(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    memory = await make_memory(admin_pool, team, "made", owner_actor="agent:other")
    assert (await patch(http, key, memory, content="corrected")).json()["memory"]["actor"] == "agent:other"
    older = await make_memory(admin_pool, team, "older", owner_actor="agent:other")
    assert (await patch(http, key, memory, supersedes=older)).status_code == 200
    assert (await read(http, key, older))["supersededBy"] == memory


async def test_metadata_does_not_grow_without_end(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _team, key = await make_world(admin_pool)
    memory = await write(http, key, content="a")
    statuses = [
        (await patch(http, key, memory["id"], metadata={f"k{part}": "x" * 4_000_000})).status_code for part in range(3)
    ]
    assert statuses == [200, 200, 400]


async def test_each_access_is_audited_without_what_the_memory_says(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    memory = await write(http, key, content="zebra", title="zebra", tags=["zebra"])
    await http.get(f"/v1/memories/{memory['id']}", headers={**key.headers, "X-Request-Id": "r-1"})
    await http.get(f"/v1/observations/{memory['id']}", headers=key.headers)
    await patch(http, key, memory["id"], content="zebras")
    await listed(http, key, kind="manual")
    new = (await supersede(http, key, memory["id"], content="zebra crossing")).json()["memory"]
    there = await write(http, key, content="zebra three")
    await supersede(http, key, new["id"], by=there["id"])
    await http.get(f"/v1/memories/{team.id}", headers=key.headers)
    rows = await audits(admin_pool, team)
    assert [(row["action"], row["resource_id"]) for row in rows] == [
        ("memory.write", memory["id"]),
        ("memory.read", memory["id"]),
        ("observation.read", memory["id"]),
        ("memory.update", memory["id"]),
        ("memory.list", None),
        ("memory.write", new["id"]),
        ("memory.supersede", memory["id"]),
        ("memory.write", there["id"]),
        ("memory.supersede", new["id"]),
    ]
    assert {(row["resource_type"], row["key_id"], row["actor"]) for row in rows} == {
        ("observation", key.id, "agent:tester")
    }
    assert {row["project_id"] for row in rows} == {team.project_id, None}, "a list over all projects is of none"
    assert all(row["request_id"] == row["details"]["requestId"] for row in rows)
    assert rows[1]["request_id"] == "r-1"
    assert rows[3]["details"]["changed"] == ["content"]
    assert (rows[4]["details"]["kind"], rows[4]["details"]["observationIds"]) == ("manual", [memory["id"]])
    assert rows[6]["details"]["supersededBy"] == new["id"]
    assert "zebra" not in str(rows)


async def test_writing_is_refused_over_the_token_cap_and_reading_is_not(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team, key = await make_world(admin_pool)
    memory = await write(http, key, content="x")
    await set_limits(admin_pool, team.id, tokens_per_month=0)
    for answer in (
        await post(http, key, content="y"),
        await patch(http, key, memory["id"], content="y"),
        await supersede(http, key, memory["id"], content="y"),
        await http.post("/v1/projects", json={"name": "y"}, headers=key.headers),
    ):
        assert (answer.status_code, answer.json()["error"]) == (402, "quota_exceeded")
    assert await read(http, key, memory["id"]) == memory
    assert await listed(http, key) == ["x"]


async def test_metadata_of_an_odd_shape_stays_until_it_is_changed(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    memory = await make_memory(admin_pool, team, "Leases end.")
    await admin_pool.execute("UPDATE commonplace.memories SET metadata = '[1]'")

    weighed = await patch(http, key, memory, importance=0.9)
    assert (weighed.status_code, weighed.json()["memory"]["metadata"]) == (200, [1])
    changed = await patch(http, key, memory, metadata={"ticket": 7})
    assert (changed.status_code, changed.json()["memory"]["metadata"]) == (200, {"ticket": 7})
