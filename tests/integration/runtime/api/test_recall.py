from typing import Any
from uuid import uuid4

import httpx2
import pytest

from commonplace_runtime.store.pool import Pool
from tests.factories import make_event, make_key, make_memory, make_project, make_session, make_team
from tests.integration.runtime.api.searches import found, make_world, search

GITHUB = "ghp_" + "a1B2" * 9


async def test_an_observation_has_the_shape_of_the_wire(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    memory = await make_memory(admin_pool, team, "The uploader retries", title="Uploads", metadata={"facts": ["x"]})
    (observation,) = await search(http, key, "uploader")
    assert observation["score"] > 0
    assert {**observation, "score": 0, "createdAtEpoch": 0, "updatedAtEpoch": 0} == {
        "id": memory,
        "projectId": team.project_id,
        "teamId": team.id,
        "serverSessionId": None,
        "kind": "observation",
        "title": "Uploads",
        "content": "The uploader retries",
        "metadata": {"facts": ["x"]},
        "sources": [],
        "score": 0,
        "createdAtEpoch": 0,
        "updatedAtEpoch": 0,
    }


async def test_a_long_query_is_cut_between_words_before_it_is_cleaned(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team, key = await make_world(admin_pool)
    await make_memory(admin_pool, team, "The uploader retries")

    assert await found(http, key, "uploader " + "<private>" * 100_000) == ["The uploader retries"]
    assert await found(http, key, "uploader " + "x " * 1990 + GITHUB) == ["The uploader retries"]

    audited = await admin_pool.fetch("SELECT details ->> 'query' AS query FROM commonplace.audit_log")
    queries = [row["query"] for row in audited if row["query"] is not None]
    assert len(queries) == 2
    assert all(len(query) <= 4000 and "ghp_" not in query for query in queries)


async def test_a_name_beyond_bounds_names_nothing(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    await make_memory(admin_pool, team, "The uploader retries")

    for fields in ({"projectId": "default " * 100_000}, {"platformSource": "x\x00" * 300}):
        assert await found(http, key, "uploader", **fields) == []


@pytest.mark.parametrize(
    ("query", "content"),
    [
        ("why did we choose kafka over rabbit for messages", "We chose Kafka"),
        ("retrying", "The uploader retries after 40 seconds"),
        ("loadUserProfile", "Fixed loadUserProfile in src/users/profile_store.ts"),
        ("profile_store", "Fixed loadUserProfile in src/users/profile_store.ts"),
        ("where is the user profile loaded", "Fixed loadUserProfile in src/users/profile_store.ts"),
        ("src/users/profile_store.ts", "Fixed loadUserProfile in src/users/profile_store.ts"),
        ("40", "The uploader retries after 40 seconds"),
    ],
)
async def test_any_of_the_words_finds(http: httpx2.AsyncClient, admin_pool: Pool, query: str, content: str) -> None:
    team, key = await make_world(admin_pool)
    for text in (
        "We chose Kafka",
        "The uploader retries after 40 seconds",
        "Fixed loadUserProfile in src/users/profile_store.ts",
        "Nothing of interest",
    ):
        await make_memory(admin_pool, team, text)
    assert (await found(http, key, query))[0] == content


async def test_a_rare_word_outranks_common_ones(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    for number in range(30):
        await make_memory(admin_pool, team, f"ran the tests of the service again, run {number}")
    await make_memory(admin_pool, team, "the flamingo flag turns the cache off")
    for number in range(30):
        await make_memory(admin_pool, team, f"ran the tests of the service once more, run {number}")
    assert (await found(http, key, "which tests of the service ran with flamingo"))[0].startswith("the flamingo")


@pytest.mark.parametrize(
    "query", ["   ", "the of and", "<private>uploader</private>", "!!! ???", "'\\ & | ! <-> :*", "\x00"]
)
async def test_a_query_without_words_finds_nothing(http: httpx2.AsyncClient, admin_pool: Pool, query: str) -> None:
    team, key = await make_world(admin_pool)
    await make_memory(admin_pool, team, "The uploader retries")
    assert await found(http, key, query) == []


@pytest.mark.parametrize("query", ["o'brien \\ uploader", "uploader:*", "!uploader", "'uploader", "x\x00 uploader"])
async def test_a_query_is_never_syntax(http: httpx2.AsyncClient, admin_pool: Pool, query: str) -> None:
    team, key = await make_world(admin_pool)
    await make_memory(admin_pool, team, "The uploader retries")
    assert await found(http, key, query) == ["The uploader retries"]


async def test_private_memories_are_their_owners(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    other = await make_key(admin_pool, team.id, actor="human:other")
    await make_memory(admin_pool, team, "uploader: team")
    await make_memory(admin_pool, team, "uploader: mine", visibility="private")
    assert sorted(await found(http, key, "uploader")) == ["uploader: mine", "uploader: team"]
    assert await found(http, other, "uploader") == ["uploader: team"]
    answer = await http.post("/v1/context", json={}, headers=other.headers)
    assert answer.json()["context"] == "uploader: team"


async def test_a_superseded_memory_gives_its_place_to_its_successor(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    newest = await make_memory(admin_pool, team, "It is 90 now")
    middle = await make_memory(admin_pool, team, "The uploader retries after 60 seconds", superseded_by=newest)
    await make_memory(admin_pool, team, "The uploader retries after 40 seconds", superseded_by=middle)
    hidden = await make_memory(admin_pool, team, "private", visibility="private", owner_actor="human:other")
    await make_memory(admin_pool, team, "The uploader is slow", superseded_by=hidden)
    assert await found(http, key, "uploader") == ["It is 90 now"]
    answer = await http.post("/v1/context", json={}, headers=key.headers)
    assert answer.json()["context"] == "It is 90 now"


async def test_memories_of_a_platform(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    sent = await http.post("/v1/events", json=make_event(platformSource="Cursor"), headers=key.headers)
    await make_memory(admin_pool, team, "uploader: from an event", event_id=sent.json()["event"]["id"])
    session = await make_session(admin_pool, team, content_session_id="c", platform="codex")
    linked = await make_memory(admin_pool, team, "uploader: from a session")
    await admin_pool.execute(
        "UPDATE commonplace.memories SET session_id = $1::text::uuid WHERE id = $2::text::uuid", session, linked
    )
    await make_memory(admin_pool, team, "uploader: by hand")
    assert await found(http, key, "uploader", platformSource="cursor-ide") == ["uploader: from an event"]
    assert await found(http, key, "uploader", platformSource="codex") == ["uploader: from a session"]
    assert len(await found(http, key, "uploader", platformSource=None)) == 3


async def test_context_without_a_query_is_the_newest(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    for number in range(12):
        await make_memory(admin_pool, team, f"fact {number}")
    answer = (await http.post("/v1/context", json={"limit": 2}, headers=key.headers)).json()
    assert answer["context"] == "fact 11\n\nfact 10"
    assert [observation["score"] for observation in answer["observations"]] == [None, None]
    assert len((await http.post("/v1/context", json={}, headers=key.headers)).json()["observations"]) == 10


async def test_which_projects_a_key_reaches(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, bound = await make_world(admin_pool)
    web = await make_project(admin_pool, team.id, "web")
    free = await make_key(admin_pool, team.id)
    other = await make_team(admin_pool)
    await make_memory(admin_pool, team, "uploader: default")
    await make_memory(admin_pool, team, "uploader: web", project_id=web)
    await make_memory(admin_pool, other, "uploader: elsewhere")
    assert await found(http, bound, "uploader") == ["uploader: default"]
    assert await found(http, free, "uploader", projectId="web") == ["uploader: web"]
    for unknown in (other.project_id, str(uuid4()), "nonsense"):
        assert await found(http, free, "uploader", projectId=unknown) == []
        answer = await http.post("/v1/search", json={"query": "x", "projectId": unknown}, headers=bound.headers)
        assert answer.status_code == 403
        assert answer.json()["message"] == "API key is scoped to a different project"
    answer = await http.post("/v1/search", json={"query": "x"}, headers=free.headers)
    assert answer.status_code == 400
    assert answer.json()["issues"][0]["path"] == ["projectId"]


@pytest.mark.parametrize(
    ("path", "body", "field", "code"),
    [
        ("/v1/search", {}, "query", "invalid_type"),
        ("/v1/search", {"query": ""}, "query", "too_small"),
        ("/v1/search", {"query": "x", "limit": 101}, "limit", "too_big"),
        ("/v1/search", {"query": "x", "limit": 0}, "limit", "too_small"),
        ("/v1/search", {"query": "x", "limit": "5"}, "limit", "invalid_type"),
        ("/v1/context", {"limit": 51}, "limit", "too_big"),
        ("/v1/context", {"query": 5}, "query", "invalid_type"),
        ("/v1/search", {"query": "x", "platformSource": 5}, "platformSource", "invalid_type"),
    ],
)
async def test_a_faulty_question_is_400(
    http: httpx2.AsyncClient, admin_pool: Pool, path: str, body: dict[str, Any], field: str, code: str
) -> None:
    _, key = await make_world(admin_pool)
    answer = await http.post(path, json=body, headers=key.headers)
    assert answer.status_code == 400
    assert [(issue["path"], issue["code"]) for issue in answer.json()["issues"]] == [([field], code)]


async def test_each_read_is_audited_without_the_secret_in_the_question(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team, key = await make_world(admin_pool)
    memory = await make_memory(admin_pool, team, "The uploader retries")
    await search(http, key, f"uploader {GITHUB}", limit=7, platformSource=None)
    row = await admin_pool.fetchrow("SELECT * FROM commonplace.audit_log")
    assert row is not None
    assert (row["action"], row["resource_type"]) == ("observation.read", "observation")
    assert row["details"] == {
        "mode": "search",
        "query": "uploader [redacted:github-token]",
        "limit": 7,
        "resultCount": 1,
        "observationIds": [memory],
        "requestId": row["request_id"],
    }


async def test_no_answer_is_larger_than_a_server_can_hold(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    for _ in range(3):
        await make_memory(admin_pool, team, "banana " + "x y " * 750_000)
    numbers = [row["number"] for row in await admin_pool.fetch("SELECT number FROM commonplace.memories")]
    for path, body, name in (
        ("/v1/search", {"query": "banana"}, "observations"),
        ("/v1/context", {}, "observations"),
        ("/api/observations/batch", {"ids": numbers}, None),
    ):
        answer = await http.post(path, json=body, headers=key.headers)
        assert answer.status_code == 200, answer.text[:200]
        found = answer.json() if name is None else answer.json()[name]
        assert len(found) == 2, path
