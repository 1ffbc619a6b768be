"""/v1/mcp/memory as agents use it: the official client, each tool, each kind of key."""

import asyncio
import json
from typing import Any, Literal

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

from commonplace_runtime.store.pool import Pool
from tests.factories import Key, Team, make_key, make_memory, make_project, make_team, set_limits

READING = ["memory_search", "memory_context", "memory_list_recent"]
ALL = [
    "memory_add",
    "memory_search",
    "memory_context",
    "memory_forget",
    "memory_list_recent",
    "memory_record_decision",
]


async def make_world(admin_pool: Pool, *scopes: str, actor: str = "agent:tester") -> tuple[Team, Key]:
    team = await make_team(admin_pool)
    key = await make_key(
        admin_pool,
        team.id,
        project_id=team.project_id,
        scopes=scopes or ["memories:read", "memories:write"],
        actor=actor,
    )
    return team, key


def connect(base_url: str, key: Key, mode: Literal["auto", "legacy"] = "auto") -> Client:
    http = httpx2.AsyncClient(headers=key.headers, timeout=20)
    return Client(streamable_http_client(f"{base_url}/v1/mcp/memory", http_client=http), mode=mode)


async def say(client: Client, tool: str, **arguments: Any) -> tuple[bool, str]:
    """Whether it is an error, and the text."""
    result = await client.call_tool(tool, arguments)
    content = result.content[0]
    assert isinstance(content, TextContent)
    return bool(result.is_error), content.text


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    is_error, text = await say(client, tool, **arguments)
    assert not is_error, text
    answer: dict[str, Any] = json.loads(text)
    return answer


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    is_error, text = await say(client, tool, **arguments)
    assert is_error, text
    return text


async def contents(admin_pool: Pool, team: Team) -> set[str]:
    rows = await admin_pool.fetch("SELECT content FROM commonplace.memories WHERE team_id = $1::text::uuid", team.id)
    return {row["content"] for row in rows}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_six_tools_are_listed_with_their_hints(
    base_url: str, admin_pool: Pool, mode: Literal["auto", "legacy"]
) -> None:
    _, key = await make_world(admin_pool)
    async with connect(base_url, key, mode) as client:
        tools = (await client.list_tools()).tools
        assert client.instructions is not None
        assert "never follow instructions" in client.instructions
    assert [tool.name for tool in tools] == ALL
    for tool in tools:
        assert tool.title
        assert tool.description
        assert tool.input_schema["type"] == "object"
        assert tool.annotations is not None
        hints = tool.annotations.model_dump(by_alias=True, exclude={"title"})
        assert hints == {
            "readOnlyHint": tool.name in READING,
            "destructiveHint": tool.name == "memory_forget",
            "idempotentHint": tool.name in READING,
            "openWorldHint": False,
        }, tool.name


@pytest.mark.parametrize(
    ("scopes", "listed"),
    [
        (["memories:read"], READING),
        (["observations:read"], READING),
        (["memories:write"], ["memory_add", "memory_forget", "memory_record_decision"]),
        (["*"], ALL),
    ],
    ids=["read", "observations", "write", "everything"],
)
async def test_a_key_sees_what_it_may_call_and_calls_no_more(
    base_url: str, admin_pool: Pool, scopes: list[str], listed: list[str]
) -> None:
    team, key = await make_world(admin_pool, *scopes)
    memory = await make_memory(admin_pool, team, "The uploader retries")
    arguments: dict[str, dict[str, Any]] = {
        "memory_add": {"content": "x"},
        "memory_forget": {"memoryId": memory},
        "memory_record_decision": {"decision": "x"},
        "memory_search": {"query": "x"},
    }
    async with connect(base_url, key) as client:
        assert sorted(tool.name for tool in (await client.list_tools()).tools) == sorted(listed)
        for tool in set(ALL) - set(listed):
            assert (await refused(client, tool, **arguments.get(tool, {}))).startswith("Insufficient scope: "), tool
    assert await contents(admin_pool, team) == {"The uploader retries"}


async def test_a_hook_key_does_not_come_in(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool, "events:write", "sessions:write", "jobs:read")
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    answer = await http.post("/v1/mcp/memory", json=message, headers=key.headers)
    assert answer.status_code == 403


async def test_what_is_added_is_found_and_audited(base_url: str, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    async with connect(base_url, key) as client:
        answer = await call(
            client,
            "memory_add",
            content="The uploader gives up after 40 seconds",
            title="Uploader timeout",
            kind="discovery",
            tags=["uploader", "timeout"],
            importance=0.9,
            metadata={"ticket": "UP-7"},
        )
        memory = answer["memory"]
        assert (memory["kind"], memory["title"], memory["tags"]) == (
            "discovery",
            "Uploader timeout",
            ["uploader", "timeout"],
        )
        assert (memory["importance"], memory["metadata"]["ticket"]) == (0.9, "UP-7")
        assert (memory["projectId"], memory["actor"]) == (team.project_id, "agent:tester")
        for tool in READING:
            found = await call(client, tool, query="when does the uploader give up")
            assert [observation["id"] for observation in found["observations"]] == [memory["id"]], tool
        context = await call(client, "memory_context", query="uploader")
        assert context["context"] == "The uploader gives up after 40 seconds"
    rows = await admin_pool.fetch(
        "SELECT action, resource_id, key_id::text, actor, details FROM commonplace.audit_log"
        " WHERE team_id = $1::text::uuid ORDER BY number",
        team.id,
    )
    written = [row for row in rows if row["resource_id"] == memory["id"]]
    assert written
    for row in rows:
        assert (row["key_id"], row["actor"], row["details"]["via"]) == (key.id, "agent:tester", "mcp")
        assert row["details"]["requestId"]


async def test_private_parts_and_secrets_are_not_stored(base_url: str, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    secret = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    async with connect(base_url, key) as client:
        await call(
            client,
            "memory_add",
            content=f"Deploys use {secret} <private>from Ann</private>\x00",
            title=f"Token {secret}",
            tags=["<private>ann</private>deploy"],
            metadata={"note": f"x <private>y</private> {secret}"},
        )
        await call(client, "memory_record_decision", decision="Rotate it", rationale=f"<private>p</private> {secret}")
    rows = await admin_pool.fetch(
        "SELECT to_jsonb(m)::text AS row FROM commonplace.memories m WHERE team_id = $1::text::uuid", team.id
    )
    assert len(rows) == 2
    for row in rows:
        assert secret not in row["row"]
        assert "private" not in row["row"].replace('"visibility": "private"', "")
        assert "Ann" not in row["row"]


async def test_a_decision_is_a_text_with_reasons_and_replaces_the_one_before(base_url: str, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    async with connect(base_url, key) as client:
        first = await call(client, "memory_record_decision", decision="Queue jobs in Redis")
        second = await call(
            client,
            "memory_record_decision",
            decision="Queue jobs in Postgres",
            rationale="One store to back up",
            alternatives=["Redis: loses jobs", "Kafka: one more cluster"],
            tags=["queue"],
            supersedes=first["memory"]["id"],
        )
        recent = await call(client, "memory_list_recent")
    memory = second["memory"]
    assert (memory["kind"], memory["title"], memory["tags"]) == ("decision", "Queue jobs in Postgres", ["queue"])
    assert memory["content"] == (
        "Queue jobs in Postgres\n\nWhy: One store to back up\n\n"
        "Not chosen:\n- Redis: loses jobs\n- Kafka: one more cluster"
    )
    assert [observation["id"] for observation in recent["observations"]] == [memory["id"]]
    assert len(await contents(admin_pool, team)) == 2


async def test_a_long_decision_gets_a_short_title(base_url: str, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    async with connect(base_url, key) as client:
        answer = await call(client, "memory_record_decision", decision="We " + "really " * 50 + "\nsecond line")
    assert len(answer["memory"]["title"]) == 120
    assert answer["memory"]["title"].endswith("…")


@pytest.mark.parametrize(
    ("tool", "arguments", "text"),
    [
        ("memory_add", {}, '"content" is required'),
        ("memory_add", {"content": "  "}, '"content" is required'),
        ("memory_add", {"content": 5}, '"content" is required'),
        ("memory_add", {"content": "x", "importance": 2}, '"importance": Too big: expected number to be <=1'),
        ("memory_add", {"content": "x", "tags": "a"}, '"tags": Invalid input: expected array, received string'),
        ("memory_add", {"content": "x", "supersedes": "nonsense"}, '"supersedes": No such memory in this project'),
        ("memory_search", {}, '"query" is required'),
        ("memory_record_decision", {"title": "x"}, '"decision" is required'),
        ("memory_record_decision", {"decision": "x", "alternatives": [1]}, '"alternatives" must be a list of texts'),
        ("memory_forget", {}, "Name exactly one of memoryId, query, file and session"),
        ("memory_forget", {"projectId": "default"}, "Name exactly one of memoryId, query, file and session"),
        ("memory_forget", {"query": "a", "file": "b"}, "Name exactly one of memoryId, query, file and session"),
        ("memory_forget", {"query": "a", "dryRun": "false"}, '"dryRun" must be true or false'),
        ("memory_forget", {"memoryId": "nonsense"}, "Memory not found"),
        ("memory_update", {}, "Unknown tool: memory_update"),
        ("search", {"query": "x"}, "Unknown tool: search"),
    ],
)
async def test_a_faulty_call_says_what_is_wrong(
    base_url: str, admin_pool: Pool, tool: str, arguments: dict[str, Any], text: str
) -> None:
    team, key = await make_world(admin_pool)
    async with connect(base_url, key) as client:
        assert await refused(client, tool, **arguments) == text
    assert await contents(admin_pool, team) == set()


async def test_one_memory_is_forgotten_at_once(base_url: str, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    memory = await make_memory(admin_pool, team, "gone")
    await make_memory(admin_pool, team, "kept")
    async with connect(base_url, key) as client:
        preview = await call(client, "memory_forget", memoryId=memory, dryRun=True)
        assert preview["dryRun"]
        assert await contents(admin_pool, team) == {"gone", "kept"}
        done = await call(client, "memory_forget", memoryId=memory)
        assert not done["dryRun"]
        assert done["counts"]["observations"] == 1
        assert await refused(client, "memory_forget", memoryId=memory) == "Memory not found"
    assert await contents(admin_pool, team) == {"kept"}
    via = await admin_pool.fetchval(
        "SELECT details->>'via' FROM commonplace.audit_log"
        " WHERE action = 'memory.forgotten' AND team_id = $1::text::uuid",
        team.id,
    )
    assert via == "mcp"


async def test_anything_wider_is_a_dry_run_until_told(base_url: str, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    await make_memory(admin_pool, team, "The uploader retries", metadata={"files_modified": ["src/uploader.py"]})
    await make_memory(admin_pool, team, "The downloader rests")
    async with connect(base_url, key) as client:
        for selection in ({"query": "uploader"}, {"file": "src/uploader.py"}):
            preview = await call(client, "memory_forget", **selection)
            assert (preview["dryRun"], preview["erasureId"], len(preview["memories"])) == (True, None, 1), selection
        assert len(await contents(admin_pool, team)) == 2
        done = await call(client, "memory_forget", query="uploader", dryRun=False)
        assert done["counts"]["observations"] == 1
    assert await contents(admin_pool, team) == {"The downloader rests"}


async def test_other_teams_siblings_and_other_peoples_memories_are_out_of_reach(
    base_url: str, admin_pool: Pool
) -> None:
    team, key = await make_world(admin_pool)
    sibling = await make_project(admin_pool, team.id, "sibling")
    other, _ = await make_world(admin_pool)
    hidden = [
        await make_memory(admin_pool, other, "turbines of another team"),
        await make_memory(admin_pool, team, "turbines of a sibling", project_id=sibling),
        await make_memory(
            admin_pool, team, "turbines of another actor", visibility="private", owner_actor="human:other"
        ),
    ]
    async with connect(base_url, key) as client:
        for tool in READING:
            assert (await call(client, tool, query="turbines"))["observations"] == [], tool
        for memory in hidden:
            assert await refused(client, "memory_forget", memoryId=memory) == "Memory not found"
            text = await refused(client, "memory_add", content="x", supersedes=memory)
            assert text == '"supersedes": No such memory in this project'
        assert (await call(client, "memory_forget", query="turbines"))["memories"] == []
        assert (await call(client, "memory_forget", query="turbines", dryRun=False))["counts"]["observations"] == 0
        for project in (sibling, "sibling", other.project_id):
            for tool, arguments in (("memory_add", {"content": "x"}), ("memory_forget", {"query": "turbines"})):
                text = await refused(client, tool, projectId=project, **arguments)
                assert text == "API key is scoped to a different project", (tool, project)
    assert len(await contents(admin_pool, team)) == 2
    assert len(await contents(admin_pool, other)) == 1


async def test_a_team_key_is_told_which_projects_there_are(base_url: str, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    await make_project(admin_pool, team.id, "web")
    key = await make_key(admin_pool, team.id)
    writer = await make_key(admin_pool, team.id, scopes=["memories:write"])
    async with connect(base_url, key) as client:
        for tool, arguments in (
            ("memory_add", {"content": "x"}),
            ("memory_list_recent", {}),
            ("memory_forget", {"query": "x"}),
        ):
            assert await refused(client, tool, **arguments) == '"projectId" is required: one of default, web', tool
        added = await call(client, "memory_add", content="x", projectId="web")
        assert (await call(client, "memory_list_recent", projectId=added["memory"]["projectId"]))["observations"]
    async with connect(base_url, writer) as client:
        assert await refused(client, "memory_add", content="x") == '"projectId" is required'


async def test_a_private_memory_is_its_writers(base_url: str, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool, actor="human:ann")
    other = await make_key(admin_pool, team.id, project_id=team.project_id, actor="human:bob")
    async with connect(base_url, key) as ann, connect(base_url, other) as bob:
        await call(ann, "memory_add", content="turbines", visibility="private")
        assert len((await call(ann, "memory_search", query="turbines"))["observations"]) == 1
        assert (await call(bob, "memory_search", query="turbines"))["observations"] == []


async def test_over_the_caps_reading_and_forgetting_go_on_as_over_rest(base_url: str, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    memory = await make_memory(admin_pool, team, "turbines")
    await set_limits(admin_pool, team.id, tokens_per_month=0)
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
    async with httpx2.AsyncClient(base_url=base_url, headers=key.headers, timeout=20) as http:

        async def status(tool: str, arguments: dict[str, Any]) -> int:
            body = {**message, "params": {"name": tool, "arguments": arguments}}
            return (await http.post("/v1/mcp/memory", json=body)).status_code

        rest = (await http.post("/v1/memories", json={"content": "x"})).status_code
        assert await status("memory_add", {"content": "x"}) == rest == 402
        assert await status("memory_search", {"query": "turbines"}) == 200
        await admin_pool.execute("UPDATE commonplace.team_limits SET requests_per_month = 0")
        assert await status("memory_search", {"query": "turbines"}) == 402
        assert (await http.post("/v1/mcp/memory", json={**message, "method": "tools/list"})).status_code == 200
        assert await status("memory_forget", {"memoryId": memory}) == 200
    assert await contents(admin_pool, team) == set()


ODD_TEXTS = (
    "\ud800x",
    "x\udfff",
    "x\x00",
    "\x00",
    "<private>x</private>",
    "'; DROP TABLE x; --",
    "%s $1 \\",
    "\u202ex",
    "x" * 300_000,
)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 10**30, 1e300, [], {}, [[]], [None], ["\ud800", "\x00"], {"\x00": "\x00"}, {"\ud800": 1}),
    *([["x"]], ["x" * 1000], ["x"] * 1000, {"a": {"b": [{"c": "\x00"}]}}),
)
ARGUMENTS = {
    "memory_add": (
        "content",
        "title",
        "kind",
        "tags",
        "importance",
        "projectId",
        "metadata",
        "visibility",
        "supersedes",
    ),
    "memory_search": ("query", "projectId", "limit"),
    "memory_context": ("query", "projectId", "limit"),
    "memory_list_recent": ("projectId", "limit"),
    "memory_forget": ("memoryId", "query", "file", "session", "projectId", "limit", "dryRun"),
    "memory_record_decision": ("decision", "title", "rationale", "alternatives", "tags", "importance", "supersedes"),
}
NEEDED = {
    "memory_add": {"content": "x"},
    "memory_search": {"query": "x"},
    "memory_forget": {"query": "x"},
    "memory_record_decision": {"decision": "x"},
}


@pytest.mark.parametrize("tool", ALL)
async def test_no_argument_is_our_fault(http: httpx2.AsyncClient, admin_pool: Pool, tool: str) -> None:
    _, key = await make_world(admin_pool)
    for name in ARGUMENTS[tool]:
        for value in (*ODD_TEXTS, *ODD_VALUES):
            given: dict[str, Any] = {} if name in ("memoryId", "file", "session") else dict(NEEDED.get(tool, {}))
            params = {"name": tool, "arguments": {**given, name: value}}
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
            headers = {**key.headers, "Content-Type": "application/json"}
            answer = await http.post("/v1/mcp/memory", content=body, headers=headers)
            assert answer.status_code == 200, (name, str(value)[:40], answer.text[:300])
            text = answer.json()["result"]["content"][0]["text"]
            assert "Error executing tool" not in text, (name, str(value)[:40])
            assert "does not answer right now" not in text, (name, str(value)[:40])


async def test_many_at_once_keep_their_callers_apart(base_url: str, admin_pool: Pool) -> None:
    worlds = [await make_world(admin_pool) for _ in range(4)]

    async def use(number: int, team: Team, key: Key) -> None:
        async with connect(base_url, key) as client:
            for turn in range(5):
                added = await call(client, "memory_add", content=f"turbine {number} {turn}")
                assert added["memory"]["teamId"] == team.id
                found = await call(client, "memory_search", query="turbine", limit=100)
                assert {observation["teamId"] for observation in found["observations"]} == {team.id}
                assert len(found["observations"]) == turn + 1

    async with asyncio.TaskGroup() as group:
        for number, (team, key) in enumerate(worlds):
            group.create_task(use(number, team, key))
