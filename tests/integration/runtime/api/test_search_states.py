"""What a search promises, whatever became of the index: all waits, all is merged, or the index is being built."""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import httpx2
import pytest

from commonplace_runtime.ids import uuid7
from commonplace_runtime.store.pool import Pool
from tests.factories import Key, Team, make_event, make_key, make_memory, make_project, make_session
from tests.integration.runtime.api.memories import audits, patch, supersede, write
from tests.integration.runtime.api.searches import found, make_world, search

Settle = Callable[[], Awaitable[None]]

TURNS = (
    "We looked at the dashboard together",
    "The flamingo exporter writes parquet files nightly",
    "Yes, that is what it does since spring",
    "Lunch was good",
)


async def forget(http: httpx2.AsyncClient, key: Key, **body: Any) -> list[str]:
    """The ids of what went, or would go."""
    answer = await http.post("/v1/forget", json=body, headers=key.headers)
    assert answer.status_code == 200, answer.text
    return [memory["id"] for memory in answer.json()["memories"]]


async def tool(http: httpx2.AsyncClient, key: Key, path: str, name: str, **arguments: Any) -> list[str]:
    """The contents that an MCP tool tells of."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
    answer = await http.post(path, json=message, headers=key.headers)
    assert answer.status_code == 200, answer.text
    told = json.loads(answer.json()["result"]["content"][0]["text"])
    return [observation["content"] for observation in told["observations"]]


# --- what changes -----------------------------------------------------------------------------------------------------


async def test_what_is_written_is_found_at_once_and_ever_after(
    http: httpx2.AsyncClient, admin_pool: Pool, settle: Settle
) -> None:
    _, key = await make_world(admin_pool)
    await write(http, key, content="The uploader retries")
    await settle()

    await write(http, key, content="The uploader gives up after 40 seconds")
    assert sorted(await found(http, key, "uploader")) == [
        "The uploader gives up after 40 seconds",
        "The uploader retries",
    ]

    await settle()
    assert await found(http, key, "gives 40") == ["The uploader gives up after 40 seconds"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"content": "flamingo"}, {"content": "pelican"}),
        ({"content": "x", "title": "A flamingo"}, {"title": "A pelican"}),
        ({"content": "x", "tags": ["flamingo"]}, {"tags": ["pelican"]}),
    ],
    ids=["content", "title", "tags"],
)
async def test_a_changed_memory_is_found_by_its_new_words_alone(
    http: httpx2.AsyncClient, admin_pool: Pool, settle: Settle, before: dict[str, Any], after: dict[str, Any]
) -> None:
    _, key = await make_world(admin_pool)
    memory = await write(http, key, **before)
    await settle()
    assert len(await search(http, key, "flamingo")) == 1

    assert (await patch(http, key, memory["id"], **after)).status_code == 200
    for _ in range(2):
        assert [one["id"] for one in await search(http, key, "pelican")] == [memory["id"]]
        assert await search(http, key, "flamingo") == []
        await settle()


async def test_what_is_deleted_or_forgotten_is_found_no_more(
    http: httpx2.AsyncClient, admin_pool: Pool, settle: Settle
) -> None:
    _, key = await make_world(admin_pool)
    deleted = await write(http, key, content="The uploader retries")
    by_id = await write(http, key, content="The uploader waits")
    await write(http, key, content="The uploader flamingo")
    await write(http, key, content="The uploader stays")
    await settle()

    await http.delete(f"/v1/memories/{deleted['id']}", headers=key.headers)
    await forget(http, key, memoryId=by_id["id"])
    await forget(http, key, query="flamingo")
    for _ in range(2):
        assert await found(http, key, "uploader") == ["The uploader stays"]
        await settle()


async def test_a_superseded_memory_leads_to_its_successor(
    http: httpx2.AsyncClient, admin_pool: Pool, settle: Settle
) -> None:
    _, key = await make_world(admin_pool)
    first = await write(http, key, content="The uploader retries after 40 seconds")
    await settle()
    answer = await supersede(http, key, first["id"], content="It is 60 now")
    await settle()
    await supersede(http, key, answer.json()["memory"]["id"], content="It is 90 now")
    for _ in range(2):
        assert await found(http, key, "uploader") == ["It is 90 now"]
        assert await found(http, key, "uploader 40 60 90") == ["It is 90 now"]
        await settle()


async def test_a_successor_that_is_hidden_hides_what_it_replaced(
    http: httpx2.AsyncClient, admin_pool: Pool, settle: Settle
) -> None:
    team, key = await make_world(admin_pool)
    web = await make_project(admin_pool, team.id, "web")
    hidden = await make_memory(admin_pool, team, "private", visibility="private", owner_actor="human:other")
    elsewhere = await make_memory(admin_pool, team, "elsewhere", project_id=web)
    for successor in (hidden, elsewhere):
        await make_memory(admin_pool, team, "The uploader is slow", superseded_by=successor)
    await make_memory(admin_pool, team, "The uploader retries")
    await settle()
    assert await found(http, key, "uploader") == ["The uploader retries"]
    assert await forget(http, key, query="slow") == []


async def test_private_memories_are_their_owners_and_move_with_their_visibility(
    http: httpx2.AsyncClient, admin_pool: Pool, settle: Settle
) -> None:
    team, key = await make_world(admin_pool)
    other = await make_key(admin_pool, team.id, actor="human:other")
    memory = await write(http, key, content="uploader: mine", visibility="private")
    await write(http, other, content="uploader: theirs", visibility="private")
    await write(http, key, content="uploader: ours", visibility="team")
    for visibility in ("private", "team", "private"):
        assert (await patch(http, key, memory["id"], visibility=visibility)).status_code == 200
        for _ in range(2):
            assert sorted(await found(http, key, "uploader")) == ["uploader: mine", "uploader: ours"]
            seen = ["uploader: ours", "uploader: theirs"] + (["uploader: mine"] if visibility == "team" else [])
            assert sorted(await found(http, other, "uploader")) == sorted(seen)
            await settle()


async def test_what_was_imported_is_found(http: httpx2.AsyncClient, admin_pool: Pool, settle: Settle) -> None:
    _, key = await make_world(admin_pool)
    lines: list[dict[str, Any]] = [{"type": "header", "format": "commonplace", "version": 1}]
    session, memory = str(uuid7()), str(uuid7())
    lines += [{"type": "session", "id": session, "contentSessionId": "s"}]
    lines += [{"type": "memory", "id": memory, "content": "uploader: imported", "session": session}]
    body = "".join(f"{json.dumps(line)}\n" for line in lines)
    headers = {**key.headers, "Content-Type": "application/x-ndjson"}
    for _ in range(2):
        answer = await http.post("/v1/import", content=body, headers=headers)
        assert answer.status_code == 200, answer.text
        assert await found(http, key, "uploader") == ["uploader: imported"]
        await settle()


async def test_where_more_waits_than_a_search_reads_it_finds_the_same(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    """The rows are read then. It lasts until the keeper has merged some."""
    team, key = await make_world(admin_pool)
    await write(http, key, content="The flamingo exporter")
    await admin_pool.execute(
        "INSERT INTO commonplace.memories (id, team_id, project_id, owner_actor, visibility, content)"
        " SELECT gen_random_uuid(), $1, $2, 'a', 'team', 'uploader run ' || n FROM generate_series(1, 2000) AS n",
        UUID(team.id),
        UUID(team.project_id),
    )
    await write(http, key, content="The pelican importer")
    assert await found(http, key, "flamingo") == ["The flamingo exporter"]
    assert await found(http, key, "pelican") == ["The pelican importer"]
    assert await found(http, key, "uploader 1234", limit=1) == ["uploader run 1234"]


# --- whose ------------------------------------------------------------------------------------------------------------


async def test_teams_and_projects_with_the_same_words_do_not_meet(
    http: httpx2.AsyncClient, admin_pool: Pool, settle: Settle
) -> None:
    team, bound = await make_world(admin_pool)
    other, theirs = await make_world(admin_pool)
    free = await make_key(admin_pool, team.id)
    web = await make_project(admin_pool, team.id, "web")
    await make_memory(admin_pool, team, "uploader: default")
    await make_memory(admin_pool, team, "uploader: web", project_id=web)
    await make_memory(admin_pool, other, "uploader: elsewhere")
    await settle()

    assert await found(http, bound, "uploader") == ["uploader: default"]
    assert await found(http, free, "uploader", projectId="web") == ["uploader: web"]
    assert await found(http, theirs, "uploader") == ["uploader: elsewhere"]
    assert await found(http, free, "uploader", projectId=other.project_id) == []
    refused = await http.post("/v1/search", json={"query": "uploader", "projectId": web}, headers=bound.headers)
    assert refused.status_code == 403
    missing = await http.post("/v1/search", json={"query": "uploader"}, headers=free.headers)
    assert (missing.status_code, missing.json()["issues"][0]["path"]) == (400, ["projectId"])


async def test_a_platform_narrows_a_search(http: httpx2.AsyncClient, admin_pool: Pool, settle: Settle) -> None:
    team, key = await make_world(admin_pool)
    sent = await http.post("/v1/events", json=make_event(platformSource="Cursor"), headers=key.headers)
    await make_memory(admin_pool, team, "uploader: from an event", event_id=sent.json()["event"]["id"])
    session = await make_session(admin_pool, team, content_session_id="c", platform="codex")
    await write(http, key, content="uploader: from a session", serverSessionId=session)
    for number in range(120):
        await make_memory(admin_pool, team, f"uploader: by hand {number}")
    await settle()

    assert await found(http, key, "uploader", platformSource="cursor-ide") == ["uploader: from an event"]
    assert await found(http, key, "uploader", platformSource="codex") == ["uploader: from a session"]
    assert await found(http, key, "uploader", platformSource="windsurf") == []


# --- how much, in which order -----------------------------------------------------------------------------------------


async def test_as_many_come_as_are_asked_for_and_always_in_one_order(
    http: httpx2.AsyncClient, admin_pool: Pool, settle: Settle
) -> None:
    """Beside those that others keep to themselves, those that are superseded and those that were just erased."""
    team, key = await make_world(admin_pool)
    for number in range(170):
        await make_memory(admin_pool, team, f"uploader run {number} of {number % 7}")
        await make_memory(admin_pool, team, "uploader: hidden", visibility="private", owner_actor="human:other")
    await settle()
    ids = [row["id"] for row in await admin_pool.fetch("SELECT id FROM commonplace.memories WHERE visibility = 'team'")]
    newest = await write(http, key, content="The uploader is replaced")
    await admin_pool.execute(
        "UPDATE commonplace.memories SET superseded_by = $1 WHERE id = ANY ($2)", UUID(newest["id"]), ids[:30]
    )
    for memory in ids[30:40]:
        await http.delete(f"/v1/memories/{memory}", headers=key.headers)

    every = await search(http, key, "uploader run 3", limit=100)
    assert len({observation["id"] for observation in every}) == 100
    assert not {observation["id"] for observation in every} & {str(memory) for memory in ids[:40]}
    assert "uploader: hidden" not in {observation["content"] for observation in every}
    assert every[0]["id"] == newest["id"], "it counts for those that it has superseded"
    assert "3" in every[1]["content"].split()
    assert [observation["score"] for observation in every] == sorted(
        (observation["score"] for observation in every), reverse=True
    )
    again = await search(http, key, "uploader run 3", limit=100)
    assert [one["id"] for one in again] == [one["id"] for one in every]
    assert len(await search(http, key, "uploader")) == 20
    assert len(await search(http, key, "uploader", limit=1)) == 1


async def test_a_search_is_audited_as_ever(http: httpx2.AsyncClient, admin_pool: Pool, settle: Settle) -> None:
    team, key = await make_world(admin_pool)
    memory = await make_memory(admin_pool, team, "The uploader retries")
    await settle()
    await search(http, key, "uploader", limit=7, platformSource=None)
    [row] = await audits(admin_pool, team)
    assert (row["action"], row["resource_type"], row["project_id"]) == (
        "observation.read",
        "observation",
        team.project_id,
    )
    assert row["details"] == {
        "mode": "search",
        "query": "uploader",
        "limit": 7,
        "resultCount": 1,
        "observationIds": [memory],
        "requestId": row["request_id"],
    }


# --- what is asked ----------------------------------------------------------------------------------------------------

STORED = (
    "The uploader retries after 40 seconds",
    "Fixed loadUserProfile in src/users/profile_store.ts on port 5432",
    "数据库连接超时",
    "Загрузчик повторяет запрос",
    "Postgres was chosen over MySQL",
)


ASKED = (
    ("uploader\x00", 0),
    ("'uploader", 0),
    ('"the uploader"', 0),
    ("uploader & !retries | <-> :* \\", 0),
    ("a & b | !uploader", 0),
    ("uploader " + "zebra " * 700, 0),
    ("loadUserProfile", 1),
    ("load_user_profile", 1),
    ("userProfile", 1),
    ("profile_store", 1),
    ("src/users/profile_store.ts", 1),
    ("users/profile_store", 1),
    ("5432", 1),
    ("数据库", 2),
    ("超时", 2),
    ("загрузчик", 3),
    ("Загрузчик запрос", 3),
    ("MYSQL", 4),
)
NOTHING = ("the of and", "   ", "!!! ???", "'\\ & | ! <-> :*", "\x00", "zebra", "the " * 1000, "。", "👍🏽")


async def test_words_are_words_whatever_stands_in_a_question(
    http: httpx2.AsyncClient, admin_pool: Pool, settle: Settle
) -> None:
    team, key = await make_world(admin_pool)
    for text in STORED:
        await make_memory(admin_pool, team, text)
    await settle()
    first = {query: (await found(http, key, query))[:1] for query, _ in ASKED}
    assert first == {query: [STORED[place]] for query, place in ASKED}


async def test_a_question_without_a_known_word_finds_nothing(
    http: httpx2.AsyncClient, admin_pool: Pool, settle: Settle
) -> None:
    team, key = await make_world(admin_pool)
    for text in STORED:
        await make_memory(admin_pool, team, text)
    await settle()
    nothing: dict[str, list[str]] = {query: [] for query in NOTHING}
    assert {query: await found(http, key, query) for query in NOTHING} == nothing
    assert {query: await forget(http, key, query=query) for query in NOTHING} == nothing


async def test_a_lone_surrogate_in_a_question_is_no_fault_of_ours(
    http: httpx2.AsyncClient, admin_pool: Pool, settle: Settle
) -> None:
    team, key = await make_world(admin_pool)
    await make_memory(admin_pool, team, "The uploader retries")
    await settle()
    body = b'{"query": "uploader \\ud800"}'
    headers = {**key.headers, "Content-Type": "application/json"}
    answer = await http.post("/v1/search", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert [one["content"] for one in answer.json()["observations"]] == ["The uploader retries"]


# --- the other doors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "searching", "gathering"),
    [("/v1/mcp", "search", "context"), ("/v1/mcp/memory", "memory_search", "memory_context")],
    ids=["recall", "memory"],
)
async def test_agents_search_the_same_with_limits_clamped(
    http: httpx2.AsyncClient, admin_pool: Pool, settle: Settle, path: str, searching: str, gathering: str
) -> None:
    team, key = await make_world(admin_pool)
    await make_memory(admin_pool, team, "uploader: hidden", visibility="private", owner_actor="human:other")
    for number in range(130):
        await make_memory(admin_pool, team, f"uploader run {number}")
    old = await make_memory(admin_pool, team, "the flamingo exporter")
    gone = await make_memory(admin_pool, team, "the pelican importer")
    await settle()
    new = (await supersede(http, key, old, content="It is gone")).json()["memory"]["content"]
    await http.delete(f"/v1/memories/{gone}", headers=key.headers)

    for limit, most in ((1000, 100), (100, 100), (7, 7), (0, 1), (None, 20)):
        limited = {} if limit is None else {"limit": limit}
        assert len(await tool(http, key, path, searching, query="uploader", **limited)) == most
    for limit, most in ((1000, 50), (7, 7), (None, 10)):
        limited = {} if limit is None else {"limit": limit}
        assert len(await tool(http, key, path, gathering, query="uploader", **limited)) == most
    limits = {searching: 20, gathering: 10}
    for name in limits:
        assert await tool(http, key, path, name, query="flamingo") == [new]
        assert await tool(http, key, path, name, query="pelican") == []
        assert await tool(http, key, path, name, query="hidden") == []
        assert await tool(http, key, path, name, query="run 17") == await found(http, key, "run 17", limit=limits[name])


# --- forgetting by a query --------------------------------------------------------------------------------------------


async def _conversation(http: httpx2.AsyncClient, admin_pool: Pool, team: Team, key: Key) -> Sequence[dict[str, Any]]:
    session = await make_session(admin_pool, team, content_session_id="talk")
    return [await write(http, key, content=text, serverSessionId=session) for text in TURNS]


async def test_forgetting_by_a_query_takes_nothing_that_has_none_of_its_words(
    http: httpx2.AsyncClient, admin_pool: Pool, settle: Settle
) -> None:
    """Not even what a search shows, because it stands beside what has them."""
    team, key = await make_world(admin_pool)
    turns = await _conversation(http, admin_pool, team, key)
    await write(http, key, content="A parquet floor")
    await settle()
    query = "flamingo exporter parquet"

    would_go = await forget(http, key, query=query, limit=100, dryRun=True)
    went = await forget(http, key, query=query, limit=100)

    assert turns[1]["id"] in went
    assert set(would_go) == set(went)
    left = [
        row["content"] for row in await admin_pool.fetch("SELECT content FROM commonplace.memories ORDER BY number")
    ]
    assert left == [TURNS[0], TURNS[2], TURNS[3]]


async def test_forgetting_by_a_query_takes_nothing_for_its_author_alone(
    http: httpx2.AsyncClient, admin_pool: Pool, settle: Settle
) -> None:
    team, key = await make_world(admin_pool)
    ada = await make_key(admin_pool, team.id, project_id=team.project_id, actor="human:ada")
    await write(http, ada, content="The dashboard is slow")
    wanted = await write(http, ada, content="The flamingo exporter")
    await settle()
    assert await forget(http, key, query="what ada said of the flamingo", limit=100) == [wanted["id"]]
    assert await forget(http, key, query="ada", limit=100) == []


async def test_forgetting_by_a_query_takes_what_a_search_shows_first(
    http: httpx2.AsyncClient, admin_pool: Pool, settle: Settle
) -> None:
    team, key = await make_world(admin_pool)
    for number in range(30):
        await make_memory(admin_pool, team, f"uploader run {number} " + "and more of it " * (number % 5))
    await settle()
    shown = [one["id"] for one in await search(http, key, "which uploader run", limit=5)]
    assert set(await forget(http, key, query="which uploader run", limit=5, dryRun=True)) == set(shown)


async def test_forgetting_by_a_query_reaches_only_what_the_actor_sees(
    http: httpx2.AsyncClient, admin_pool: Pool, settle: Settle
) -> None:
    team, key = await make_world(admin_pool)
    other = await make_key(admin_pool, team.id, actor="human:other")
    await write(http, key, content="uploader: mine", visibility="private")
    hidden = await write(http, other, content="uploader: theirs", visibility="private")
    await settle()
    await forget(http, key, query="uploader")
    assert [one["id"] for one in await search(http, other, "uploader")] == [hidden["id"]]
