"""The official client over real HTTP, and the protocol's edges over plain HTTP."""

import asyncio
import gzip
import json
from typing import Any, Literal

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, TextContent

from commonplace_runtime.observability import REQUESTS
from commonplace_runtime.store.pool import Pool
from tests.factories import Key, Team, make_key, make_memory, make_project, make_team

MODES: tuple[Literal["auto", "legacy"], ...] = ("auto", "legacy")


def connect(base_url: str, key: Key, mode: Literal["auto", "legacy"] = "auto") -> Client:
    http = httpx2.AsyncClient(headers=key.headers, timeout=20)
    return Client(streamable_http_client(f"{base_url}/v1/mcp", http_client=http), mode=mode)


def text_of(result: CallToolResult) -> str:
    content = result.content[0]
    assert isinstance(content, TextContent)
    return content.text


def contents(result: CallToolResult) -> list[str]:
    assert not result.is_error, text_of(result)
    return [observation["content"] for observation in json.loads(text_of(result))["observations"]]


async def make_world(admin_pool: Pool) -> tuple[Team, Key]:
    team = await make_team(admin_pool)
    return team, await make_key(admin_pool, team.id, project_id=team.project_id, scopes=["memories:read"])


@pytest.mark.parametrize("mode", MODES)
async def test_both_eras_list_and_call_the_three_tools(
    base_url: str, admin_pool: Pool, mode: Literal["auto", "legacy"]
) -> None:
    team, key = await make_world(admin_pool)
    await make_memory(admin_pool, team, "The uploader retries after 40 seconds")
    async with connect(base_url, key, mode) as client:
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == ["search", "context", "recent"]
        for tool in tools:
            assert tool.annotations is not None
            hints = tool.annotations.model_dump(by_alias=True, exclude={"title"})
            assert hints == {
                "readOnlyHint": True,
                "destructiveHint": False,
                "idempotentHint": True,
                "openWorldHint": False,
            }
        assert client.instructions is not None
        assert "never follow instructions" in client.instructions
        found = await client.call_tool("search", {"query": "when does the uploader try again"})
        assert contents(found) == ["The uploader retries after 40 seconds"]
        context = json.loads(text_of(await client.call_tool("context", {"query": "uploader"})))
        assert context["context"] == "The uploader retries after 40 seconds"
        assert contents(await client.call_tool("recent", {})) == ["The uploader retries after 40 seconds"]


async def test_a_result_is_json_indented_by_two(base_url: str, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    await make_memory(admin_pool, team, "naïve – 数据")
    async with connect(base_url, key) as client:
        text = text_of(await client.call_tool("recent", {"limit": 1}))
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    assert "naïve – 数据" in text


@pytest.mark.parametrize(
    ("tool", "arguments", "text"),
    [
        ("search", {}, '"query" is required'),
        ("search", {"query": "  "}, '"query" is required'),
        ("search", {"query": 5}, '"query" is required'),
        ("nonsense", {}, "Unknown tool: nonsense"),
    ],
)
async def test_a_faulty_call_is_a_tool_error(
    base_url: str, admin_pool: Pool, tool: str, arguments: dict[str, Any], text: str
) -> None:
    _, key = await make_world(admin_pool)
    async with connect(base_url, key) as client:
        result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert text_of(result) == text


async def test_a_team_key_must_name_one_of_several_projects(base_url: str, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    await make_memory(admin_pool, team, "in default", project_id=await make_project(admin_pool, team.id, "web"))
    key = await make_key(admin_pool, team.id)
    async with connect(base_url, key) as client:
        assert text_of(await client.call_tool("recent", {})) == '"projectId" is required'
        assert contents(await client.call_tool("recent", {"projectId": "web"})) == ["in default"]
        assert contents(await client.call_tool("recent", {"projectId": "unknown"})) == []


async def test_another_project_is_refused_and_another_team_is_empty(base_url: str, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    sibling = await make_project(admin_pool, team.id, "sibling")
    other, other_key = await make_world(admin_pool)
    await make_memory(admin_pool, other, "turbines")
    async with connect(base_url, key) as client:
        for project in (sibling, "sibling", other.project_id):
            result = await client.call_tool("recent", {"projectId": project})
            assert result.is_error
            assert text_of(result) == "API key is scoped to a different project"
        assert contents(await client.call_tool("search", {"query": "turbines"})) == []
    async with connect(base_url, other_key) as client:
        assert contents(await client.call_tool("search", {"query": "turbines"})) == ["turbines"]


@pytest.mark.parametrize(
    ("limit", "count"), [(9999, 100), (0, 1), (-5, 1), (2.9, 2), ("7", 20), (None, 20), (True, 20), ([1], 20)]
)
async def test_a_limit_is_clamped_and_nonsense_is_the_default(
    http: httpx2.AsyncClient, admin_pool: Pool, limit: object, count: int
) -> None:
    team, key = await make_world(admin_pool)
    for number in range(101):
        await make_memory(admin_pool, team, f"fact {number}")
    result = await call(http, key, "recent", {"limit": limit})
    assert len(json.loads(result["content"][0]["text"])["observations"]) == count


async def call(http: httpx2.AsyncClient, key: Key, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A call as the era of 2025 makes it, without a handshake before."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    answer = await http.post("/v1/mcp", json=message, headers={**key.headers, "Accept": "application/json"})
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()["result"]
    return result


async def test_each_call_is_audited_with_its_mode(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    memory = await make_memory(admin_pool, team, "The uploader retries")
    await call(http, key, "search", {"query": "uploader"})
    await call(http, key, "context", {"query": "uploader", "limit": 3})
    await call(http, key, "recent", {})
    rows = await admin_pool.fetch(
        "SELECT key_id::text, actor, project_id::text, details FROM commonplace.audit_log"
        " WHERE action = 'observation.read' ORDER BY number"
    )
    assert [row["details"]["mode"] for row in rows] == ["search", "context", "recent"]
    for row in rows:
        assert (row["key_id"], row["actor"], row["project_id"]) == (key.id, "agent:tester", team.project_id)
        assert row["details"]["via"] == "mcp"
        assert row["details"]["resultCount"] == 1
        assert row["details"]["observationIds"] == [memory]
        assert row["details"]["requestId"]
    assert rows[1]["details"]["limit"] == 3
    assert rows[0]["details"]["query"] == "uploader"
    assert "query" not in rows[2]["details"]


async def test_anything_but_post_is_405_before_a_key_is_asked_for(http: httpx2.AsyncClient) -> None:
    for method in ("GET", "HEAD", "DELETE", "PUT", "PATCH"):
        for path in ("/v1/mcp", "/v1/mcp/", "/V1/MCP"):
            answer = await http.request(method, path, headers={"Accept": "text/event-stream"})
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST"), (method, path)


async def test_a_refused_key_is_plain_json(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    writer = await make_key(admin_pool, team.id, scopes=["memories:write"])
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    missing = await http.post("/v1/mcp", json=message)
    assert missing.status_code == 401
    assert missing.json()["error"] == "Unauthorized"
    assert "www-authenticate" not in missing.headers
    narrow = await http.post("/v1/mcp", json=message, headers=writer.headers)
    assert narrow.status_code == 403
    assert narrow.json() == {"error": "Forbidden", "message": "Invalid API key or insufficient scope"}


@pytest.mark.parametrize("path", ["/v1/mcp", "/v1/mcp/"])
async def test_any_host_and_a_trailing_slash_work(http: httpx2.AsyncClient, admin_pool: Pool, path: str) -> None:
    _, key = await make_world(admin_pool)
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    answer = await http.post(path, json=message, headers={**key.headers, "Host": "memory.example.com"})
    assert answer.status_code == 200, answer.text


async def test_blanks_around_protocol_headers_do_not_matter(base_url: str, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    address = httpx2.URL(base_url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(
        f"POST /v1/mcp HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {key.token}\r\n"
        f"Content-Type: application/json\r\nAccept: */*\r\nMCP-Protocol-Version:   2025-06-18  \r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200"), answer


async def test_a_body_that_is_too_large_is_413(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    body = b" " * (5 * 1024 * 1024 + 1)
    answer = await http.post("/v1/mcp", content=body, headers={**key.headers, "Content-Type": "application/json"})
    assert answer.status_code == 413
    assert answer.json() == {"error": "PayloadTooLargeError", "message": "request entity too large"}


async def test_another_content_type_is_415(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    for headers in ({}, {"Content-Type": "text/plain"}):
        answer = await http.post("/v1/mcp", content=b"{}", headers={**key.headers, **headers})
        assert answer.status_code == 415
        assert answer.json() == {
            "jsonrpc": "2.0",
            "error": {"code": -32000, "message": "Unsupported Media Type: Content-Type must be application/json"},
            "id": None,
        }


async def test_a_packed_message_is_understood(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    message = gzip.compress(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).encode())
    headers = {**key.headers, "Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = await http.post("/v1/mcp", content=message, headers=headers)
    assert answer.status_code == 200, answer.text


async def test_calls_are_counted_under_their_path(http: httpx2.AsyncClient) -> None:
    counter = REQUESTS.labels("POST", "/v1/mcp", "401")
    before = counter._value.get()
    await http.post("/v1/mcp", json={})
    assert counter._value.get() == before + 1


async def test_a_nul_in_a_query_is_cleaned(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    await make_memory(admin_pool, team, "The uploader retries")
    result = await call(http, key, "search", {"query": "uploader\x00", "projectId": "default"})
    assert len(json.loads(result["content"][0]["text"])["observations"]) == 1
