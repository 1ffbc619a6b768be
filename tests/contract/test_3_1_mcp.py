"""Section 3.1: the remote recall server at `/v1/mcp`. Answers are plain JSON here, which its clients accept as well."""

import json
from typing import Any

import httpx2
import pytest

from tests.contract.support import MISSING_KEY, OBSERVATION, REFUSED_KEY, Api, World, has_shape, raw
from tests.factories import Key, make_key, make_memory

BOTH = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05", "2024-10-07")


def request(method: str, number: object = 1, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, **({"params": params} if params else {})}


async def send(api: Api, key: Key | None, message: object, **headers: str) -> httpx2.Response:
    sent = {**BOTH, **{name.replace("_", "-"): value for name, value in headers.items()}}
    content = message if isinstance(message, bytes) else json.dumps(message).encode()
    return await api.send("POST", "/v1/mcp", key, headers=sent, content=content)


async def rpc(api: Api, key: Key, method: str, **params: Any) -> Any:
    answer = await send(api, key, request(method, **params))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def call(api: Api, key: Key, tool: str, /, **arguments: Any) -> tuple[bool, str]:
    """Whether it is an error, and the text of the one block."""
    result = (await rpc(api, key, "tools/call", name=tool, arguments=arguments))["result"]
    (block,) = result["content"]
    assert block["type"] == "text"
    assert "structuredContent" not in result
    return bool(result.get("isError", False)), str(block["text"])


async def observations(api: Api, key: Key, tool: str, /, **arguments: Any) -> list[Any]:
    is_error, text = await call(api, key, tool, **arguments)
    assert not is_error, text
    found: list[Any] = json.loads(text)["observations"]
    return found


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/json, text/event-stream"])
async def test_3_1_accept_of_json_is_enough(api: Api, world: World, accept: str | None) -> None:
    """Section 11, traps: both types only as strictly as the peer does, being lenient is fine."""
    lines = f"POST /v1/mcp\nAuthorization: Bearer {world.bound.token}\nContent-Type: application/json"
    if accept is not None:
        lines += f"\nAccept: {accept}"
    answer = await raw(api.url, lines, json.dumps(request("ping")).encode())
    assert (answer.status, answer.json["result"]) == (200, {})


@pytest.mark.parametrize("accept", ["text/plain", "text/event-stream", "image/*"])
async def test_3_1_accept_without_json_is_406(api: Api, world: World, accept: str) -> None:
    answer = await send(api, world.bound, request("ping"), Accept=accept)
    assert answer.status_code == 406
    assert answer.json() == {
        "jsonrpc": "2.0",
        "error": {
            "code": -32000,
            "message": "Not Acceptable: Client must accept both application/json and text/event-stream",
        },
        "id": None,
    }


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_3_1_wrong_content_type_is_415(api: Api, world: World, content_type: str | None) -> None:
    headers = {"Accept": BOTH["Accept"]} | ({} if content_type is None else {"Content-Type": content_type})
    answer = await api.send("POST", "/v1/mcp", world.bound, headers=headers, content=b"{}")
    assert answer.status_code == 415
    assert answer.json() == {
        "jsonrpc": "2.0",
        "error": {"code": -32000, "message": "Unsupported Media Type: Content-Type must be application/json"},
        "id": None,
    }


@pytest.mark.parametrize("content", [b"{", b"", b"[", b"\xff"])
async def test_3_1_malformed_json_is_400(api: Api, world: World, content: bytes) -> None:
    """Section 11.5: where the peer answers 500."""
    answer = await send(api, world.bound, content)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == -32700


@pytest.mark.parametrize("message", [{}, {"no": "rpc"}, {"jsonrpc": "1.0", "id": 1, "method": "ping"}, [{}], "x"])
async def test_3_1_json_that_is_no_json_rpc_is_400(api: Api, world: World, message: object) -> None:
    answer = await send(api, world.bound, message)
    assert answer.status_code == 400
    assert (answer.json()["error"]["code"], answer.json()["id"]) == (-32700, None)
    if isinstance(message, dict):
        assert answer.json()["error"]["message"] == "Parse error: Invalid JSON-RPC message"


async def test_3_1_an_unknown_protocol_version_is_400_with_those_supported(api: Api, world: World) -> None:
    answer = await send(api, world.bound, request("tools/list"), MCP_Protocol_Version="1999-01-01")
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == -32000
    assert all(version in error["message"] for version in VERSIONS)


@pytest.mark.parametrize("version", VERSIONS)
async def test_3_1_each_supported_protocol_version_is_taken(api: Api, world: World, version: str) -> None:
    answer = await send(api, world.bound, request("tools/list"), MCP_Protocol_Version=version)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        [{"jsonrpc": "2.0", "method": "notifications/initialized"}] * 2,
    ],
)
async def test_3_1_notifications_only_are_202_and_empty(api: Api, world: World, message: object) -> None:
    answer = await send(api, world.bound, message)
    assert (answer.status_code, answer.content) == (202, b"")


async def test_3_1_a_batch_has_several_answers(api: Api, world: World) -> None:
    answer = await send(api, world.bound, [request("ping", 1), request("tools/list", 2)])
    assert answer.status_code == 200
    assert [one["id"] for one in answer.json()] == [1, 2]


@pytest.mark.parametrize("version", VERSIONS)
async def test_3_1_initialize_echoes_a_supported_version(api: Api, world: World, version: str) -> None:
    """The name is ours; instructions are added, which the peer lacks."""
    hello = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    result = (await rpc(api, world.bound, "initialize", **hello))["result"]
    assert result["protocolVersion"] == version
    assert set(result["capabilities"]) == {"tools"}
    assert result["serverInfo"]["name"] == "commonplace"
    assert result["serverInfo"]["version"]


async def test_3_1_initialize_with_another_version_is_2025_11_25(api: Api, world: World) -> None:
    hello = {"protocolVersion": "1999-01-01", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    assert (await rpc(api, world.bound, "initialize", **hello))["result"]["protocolVersion"] == "2025-11-25"


async def test_3_1_it_is_stateless(api: Api, world: World) -> None:
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    answer = await send(api, world.bound, request("initialize", **hello))
    assert "mcp-session-id" not in answer.headers
    stale = await send(api, world.bound, request("ping"), Mcp_Session_Id="of-another-server")
    assert stale.status_code == 200


async def test_3_1_ping_is_an_empty_object(api: Api, world: World) -> None:
    assert await rpc(api, world.bound, "ping") == {"jsonrpc": "2.0", "id": 1, "result": {}}


@pytest.mark.parametrize("method", ["resources/list", "resources/read", "prompts/list", "prompts/get", "nonsense"])
async def test_3_1_other_methods_are_not_found(api: Api, world: World, method: str) -> None:
    error = (await rpc(api, world.bound, method))["error"]
    assert (error["code"], error["message"]) == (-32601, "Method not found")


async def test_3_1_tools_call_without_a_name_is_an_rpc_error(api: Api, world: World) -> None:
    answer = await send(api, world.bound, request("tools/call", arguments={}))
    assert answer.status_code == 200
    assert answer.json()["error"]["code"] in (-32602, -32603)


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH", "HEAD"])
@pytest.mark.parametrize("accept", ["text/event-stream", "*/*"])
async def test_3_1_any_other_method_is_405_with_allow(api: Api, world: World, method: str, accept: str) -> None:
    """Section 10: every method in MCP terms. The peer keeps a dead stream open on GET and answers 404 to DELETE."""
    for key in (None, world.bound):
        answer = await api.send(method, "/v1/mcp", key, headers={"Accept": accept})
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_3_1_authentication_failures_are_plain_json(api: Api, world: World) -> None:
    missing = await send(api, None, request("tools/list"))
    assert (missing.status_code, missing.json()) == (401, MISSING_KEY)
    assert "www-authenticate" not in missing.headers
    writer = await make_key(api.pool, world.team_id, scopes=["memories:write"])
    for key in (Key(id="", token="cm_unknown"), writer):
        refused = await send(api, key, b"{")
        assert (refused.status_code, refused.json()) == (403, REFUSED_KEY)


async def test_3_1_tools_are_exactly_three_in_this_order(api: Api, world: World) -> None:
    """Whatever the key's scopes: writing is another endpoint's."""
    for scopes in (["memories:read"], ["*"]):
        key = await make_key(api.pool, world.team_id, scopes=scopes)
        tools = (await rpc(api, key, "tools/list"))["result"]["tools"]
        assert [tool["name"] for tool in tools] == ["search", "context", "recent"]
        for tool in tools:
            properties = tool["inputSchema"]["properties"]
            assert properties["projectId"]["type"] == "string"
            assert properties["limit"]["type"] == "integer"
            assert ("query" in properties) == (tool["name"] != "recent")
            assert "outputSchema" not in tool
            assert tool["annotations"]["readOnlyHint"] is True


async def test_3_1_search(api: Api, world: World) -> None:
    memory = await make_memory(api.pool, world.team, "The uploader retries")
    await make_memory(api.pool, world.team, "Lunch is at noon")
    (found,) = await observations(api, world.key, "search", projectId=world.project_id, query="uploader")
    assert found["id"] == memory
    assert has_shape(found, OBSERVATION)


async def test_3_1_context_packs_the_joined_text(api: Api, world: World) -> None:
    for n in range(2):
        await make_memory(api.pool, world.team, f"uploader {n}")
    _, text = await call(api, world.bound, "context", projectId=world.project_id, query="uploader")
    packed = json.loads(text)
    assert set(packed) == {"observations", "context"}
    assert packed["context"] == "\n\n".join(one["content"] for one in packed["observations"])
    assert len(packed["observations"]) == 2


async def test_3_1_recent_is_newest_first(api: Api, world: World) -> None:
    made = [await make_memory(api.pool, world.team, f"fact {n}") for n in range(3)]
    found = await observations(api, world.bound, "recent", projectId=world.project_id)
    assert [one["id"] for one in found] == made[::-1]


@pytest.mark.parametrize(("tool", "usual", "most"), [("search", 20, 100), ("context", 10, 50), ("recent", 20, 100)])
async def test_3_1_limits_are_clamped_and_nonsense_is_the_default(
    api: Api, world: World, tool: str, usual: int, most: int
) -> None:
    await api.pool.execute(
        "INSERT INTO commonplace.memories (id, team_id, project_id, owner_actor, visibility, content)"
        " SELECT gen_random_uuid(), $1::text::uuid, $2::text::uuid, 'a', 'team', 'uploader ' || n"
        " FROM generate_series(1, 101) n",
        world.team_id,
        world.project_id,
    )
    limits: tuple[tuple[object, int], ...] = (
        (9999, most),
        (0, 1),
        (-7, 1),
        (2.9, 2),
        ("5", usual),
        (None, usual),
        ([], usual),
    )
    for limit, count in limits:
        arguments: dict[str, Any] = {"projectId": world.project_id, "limit": limit}
        if tool != "recent":
            arguments["query"] = "uploader"
        assert len(await observations(api, world.bound, tool, **arguments)) == count, limit


@pytest.mark.parametrize("query", [None, "", "  ", 5, []])
async def test_3_1_a_missing_query_is_a_tool_error(api: Api, world: World, query: object) -> None:
    arguments = {} if query is None else {"query": query}
    found = await call(api, world.bound, "search", projectId=world.project_id, **arguments)
    assert found == (True, '"query" is required')


async def test_3_1_context_without_a_query_is_the_newest(api: Api, world: World) -> None:
    """Section 11.3."""
    memory = await make_memory(api.pool, world.team, "fact")
    assert [one["id"] for one in await observations(api, world.bound, "context")] == [memory]


@pytest.mark.parametrize("project", [None, "", "  ", 5])
async def test_3_1_a_missing_project_id_is_a_tool_error_where_none_is_evident(
    api: Api, world: World, project: object
) -> None:
    """Section 11.10: it defaults to the key's project."""
    arguments = {} if project is None else {"projectId": project}
    assert await call(api, world.key, "recent", **arguments) == (True, '"projectId" is required')
    assert await call(api, world.key, "search", query="x", **arguments) == (True, '"projectId" is required')
    assert await observations(api, world.bound, "recent", **arguments) == []


async def test_3_1_a_project_may_be_named(api: Api, world: World) -> None:
    """Section 11.10."""
    memory = await make_memory(api.pool, world.team, "fact", project_id=world.sibling_id)
    assert [one["id"] for one in await observations(api, world.key, "recent", projectId="sibling")] == [memory]


async def test_3_1_an_unknown_tool_is_a_tool_error(api: Api, world: World) -> None:
    assert await call(api, world.bound, "nonsense") == (True, "Unknown tool: nonsense")
    assert await call(api, world.bound, "memory_add", content="x") == (True, "Unknown tool: memory_add")


async def test_3_1_a_scope_violation_is_a_tool_error(api: Api, world: World, other: World) -> None:
    refused = (True, "API key is scoped to a different project")
    for project in (world.sibling_id, other.project_id, "sibling"):
        assert await call(api, world.bound, "recent", projectId=project) == refused
        assert await call(api, world.bound, "search", projectId=project, query="x") == refused


async def test_3_1_a_foreign_project_under_a_team_key_is_empty(api: Api, world: World, other: World) -> None:
    await make_memory(api.pool, other.team, "The uploader retries")
    for project in (other.project_id, "nonsense"):
        assert await observations(api, world.key, "recent", projectId=project) == []
        assert await observations(api, world.key, "search", projectId=project, query="uploader") == []


async def test_3_1_the_text_is_json_indented_by_two(api: Api, world: World) -> None:
    await make_memory(api.pool, world.team, "naïve – 数据")
    _, text = await call(api, world.bound, "recent")
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False)


async def test_3_1_each_call_is_audited_with_its_mode(api: Api, world: World) -> None:
    memory = await make_memory(api.pool, world.team, "The uploader retries")
    await call(api, world.bound, "search", query="uploader")
    await call(api, world.bound, "context", query="uploader", limit=3)
    await call(api, world.bound, "recent")
    rows = [row["details"] for row in await api.audits(world, "observation.read")]
    assert [row["mode"] for row in rows] == ["search", "context", "recent"]
    assert [row["limit"] for row in rows] == [20, 3, 20]
    assert [row.get("query") for row in rows] == ["uploader", "uploader", None]
    for row in rows:
        assert (row["via"], row["resultCount"], row["observationIds"]) == ("mcp", 1, [memory])
        assert row["requestId"]
