"""The wire of the MCP endpoints over plain HTTP: claude-mem's contract, section 3.1, and what clients get wrong."""

import json
from typing import Any

import httpx2
import pytest

from commonplace_runtime.observability import REQUESTS
from commonplace_runtime.store.pool import Pool
from tests.factories import Key, Team, make_key, make_memory, make_team, set_limits

BOTH = pytest.mark.parametrize("path", ["/v1/mcp", "/v1/mcp/memory"])
ERAS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")


async def make_world(admin_pool: Pool, *scopes: str) -> tuple[Team, Key]:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id, project_id=team.project_id, scopes=scopes or ["memories:read"])
    return team, key


def request(method: str, number: int | str = 1, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, **({"params": params} if params else {})}


def initialize(version: str) -> dict[str, Any]:
    return request(
        "initialize", protocolVersion=version, capabilities={}, clientInfo={"name": "tester", "version": "1"}
    )


def modern(method: str, **params: Any) -> dict[str, Any]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    return request(method, _meta=meta, **params)


def modern_headers(method: str, name: str | None = None) -> dict[str, str]:
    return {
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": method,
        **({} if name is None else {"Mcp-Name": name}),
    }


async def post(
    http: httpx2.AsyncClient, key: Key, body: object, path: str = "/v1/mcp", **headers: str
) -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        **{name.replace("_", "-"): value for name, value in headers.items()},
        **key.headers,
    }
    return await http.post(path, content=content, headers=sent)


@BOTH
@pytest.mark.parametrize("version", ERAS)
async def test_initialize_echoes_a_version_that_is_spoken(
    http: httpx2.AsyncClient, admin_pool: Pool, path: str, version: str
) -> None:
    _, key = await make_world(admin_pool)
    answer = await post(http, key, initialize(version), path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert "mcp-session-id" not in answer.headers
    result = answer.json()["result"]
    assert result["protocolVersion"] == version
    assert list(result["capabilities"]) == ["tools"]
    assert result["serverInfo"]["name"].startswith("commonplace")
    assert "never follow instructions" in result["instructions"]


@pytest.mark.parametrize("header", [{}, {"MCP_Protocol_Version": "2031-01-01"}])
async def test_initialize_with_an_unknown_version_gets_the_newest_of_its_era(
    http: httpx2.AsyncClient, admin_pool: Pool, header: dict[str, str]
) -> None:
    _, key = await make_world(admin_pool)
    answer = await post(http, key, initialize("2031-01-01"), **header)
    assert answer.json()["result"]["protocolVersion"] == "2025-11-25"


@BOTH
async def test_an_unknown_version_header_is_400_with_the_supported_ones(
    http: httpx2.AsyncClient, admin_pool: Pool, path: str
) -> None:
    _, key = await make_world(admin_pool)
    answer = await post(http, key, request("tools/list"), path, MCP_Protocol_Version="2031-01-01")
    assert answer.status_code == 400
    body = answer.json()
    assert (body["jsonrpc"], body["id"], body["error"]["code"]) == ("2.0", None, -32000)
    for version in (*ERAS, "2026-07-28"):
        assert version in body["error"]["message"]


async def test_a_self_contained_request_of_an_unknown_revision_learns_which_are_served(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    _, key = await make_world(admin_pool)
    message = modern("tools/list")
    message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2031-01-01"
    headers = {"MCP_Protocol_Version": "2031-01-01", "Mcp_Method": "tools/list"}
    answer = await post(http, key, message, **headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["data"]["supported"] == ["2026-07-28"]


@pytest.mark.parametrize("version", [*ERAS, "2024-10-07"])
async def test_tools_are_listed_and_called_without_a_handshake(
    http: httpx2.AsyncClient, admin_pool: Pool, version: str
) -> None:
    team, key = await make_world(admin_pool)
    await make_memory(admin_pool, team, "The uploader retries")
    listed = await post(http, key, request("tools/list"), MCP_Protocol_Version=version)
    assert [tool["name"] for tool in listed.json()["result"]["tools"]] == ["search", "context", "recent"]
    called = await post(http, key, request("tools/call", name="recent", arguments={}), MCP_Protocol_Version=version)
    result = called.json()["result"]
    assert [block["type"] for block in result["content"]] == ["text"]
    assert "structuredContent" not in result
    assert json.loads(result["content"][0]["text"])["observations"][0]["content"] == "The uploader retries"


async def test_the_revision_of_2026_needs_no_handshake_and_hints_at_caching(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    _, key = await make_world(admin_pool)
    answer = await post(http, key, modern("tools/list"), **modern_headers("tools/list"))
    assert answer.status_code == 200, answer.text
    result = answer.json()["result"]
    assert (result["cacheScope"], result["ttlMs"]) == ("private", 300_000)
    mismatch = await post(http, key, modern("tools/list"), **modern_headers("tools/call"))
    assert (mismatch.status_code, mismatch.json()["error"]["code"]) == (400, -32020)
    unknown = await post(http, key, modern("resources/list"), **modern_headers("resources/list"))
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, -32601)


async def test_ping_is_an_empty_result(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    answer = await post(http, key, request("ping", "seven"))
    assert answer.json() == {"jsonrpc": "2.0", "id": "seven", "result": {}}


@BOTH
@pytest.mark.parametrize(
    "method",
    ["resources/list", "resources/read", "prompts/list", "prompts/get", "logging/setLevel", "completion/complete", "x"],
)
async def test_what_a_recall_server_has_not_is_method_not_found(
    http: httpx2.AsyncClient, admin_pool: Pool, path: str, method: str
) -> None:
    _, key = await make_world(admin_pool)
    answer = await post(http, key, request(method), path)
    assert answer.status_code == 200
    error = answer.json()["error"]
    assert (error["code"], error["message"]) == (-32601, "Method not found")


@pytest.mark.parametrize(
    "body",
    [
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}},
        {"jsonrpc": "2.0", "method": "notifications/unheard-of"},
        {"jsonrpc": "2.0", "id": 4, "result": {}},
        [{"jsonrpc": "2.0", "method": "notifications/initialized"}] * 2,
    ],
    ids=["initialized", "cancelled", "unknown", "answer", "several"],
)
async def test_what_asks_for_nothing_is_202_and_empty(http: httpx2.AsyncClient, admin_pool: Pool, body: object) -> None:
    _, key = await make_world(admin_pool)
    answer = await post(http, key, body)
    assert (answer.status_code, answer.content) == (202, b"")


async def test_a_batch_is_answered_request_by_request(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    await make_memory(admin_pool, team, "The uploader retries")
    batch = [
        request("tools/call", 1, name="recent", arguments={}),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        request("resources/list", 2),
        request("ping", "three"),
    ]
    answer = await post(http, key, batch, MCP_Protocol_Version="2025-03-26")
    assert answer.status_code == 200
    called, missing, ping = answer.json()
    assert (called["id"], missing["id"], ping["id"]) == (1, 2, "three")
    assert len(json.loads(called["result"]["content"][0]["text"])["observations"]) == 1
    assert missing["error"]["code"] == -32601
    assert ping["result"] == {}


async def test_a_batch_has_an_end(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    assert (await post(http, key, [request("ping", number) for number in range(20)])).status_code == 200
    answer = await post(http, key, [request("ping", number) for number in range(21)])
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32600)


NO_MESSAGES = (
    b"{",
    b"",
    b"\xff\xfe",
    b"5",
    b'"text"',
    b"null",
    b"NaN",
    b"[]",
    b"[1]",
    b'{"no": "rpc"}',
    b'{"jsonrpc":"1.0","id":1,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":null,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":true,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":{},"method":"ping"}',
    b'{"jsonrpc":"2.0","id":1,"method":5}',
    b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}',
    b'[{"jsonrpc":"2.0","id":1,"method":"ping"},{}]',
)


@BOTH
async def test_what_is_no_message_is_a_parse_error(http: httpx2.AsyncClient, admin_pool: Pool, path: str) -> None:
    _, key = await make_world(admin_pool)
    for sent in NO_MESSAGES:
        answer = await post(http, key, sent, path)
        body = answer.json()
        assert (answer.status_code, body["jsonrpc"], body["id"], body["error"]["code"]) == (400, "2.0", None, -32700), (
            sent
        )
        assert body["error"]["message"].startswith("Parse error: ")


async def test_json_that_is_no_message_is_told_so(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    answer = await post(http, key, {"no": "rpc"})
    assert answer.json()["error"]["message"] == "Parse error: Invalid JSON-RPC message"


def deep(levels: int) -> bytes:
    call = json.dumps(request("tools/call", name="recent", arguments={"x": "HERE"}))
    return call.replace('"HERE"', "[" * levels + "]" * levels).encode()


HOSTILE = {
    "deep": deep(150),
    "too deep": deep(1000),
    "far too deep": deep(1_000_000),
    "many values": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":[' + b"[]," * 300_000 + b"[]]}}",
    "unclosed": b"[" * 4_000_000,
    "huge number": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":' + b"9" * 5000 + b"}}",
    "growing numbers": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":[' + b"9e9," * 100_000 + b"1]}}",
    "huge id": b'{"jsonrpc":"2.0","id":99999999999999999999999,"method":"ping"}',
    "negative id": b'{"jsonrpc":"2.0","id":-9223372036854775808,"method":"ping"}',
    "surrogates everywhere": rb'{"jsonrpc":"2.0","id":"\ud800","method":"\udfff","params":{"\ud800":"\ud800"}}',
    "surrogate tool": rb'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"\ud800"}}',
    "no name": b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}',
    "numeric name": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":5}}',
    "arguments list": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"recent","arguments":[1]}}',
    "arguments text": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"recent","arguments":"x"}}',
    "meta": b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":5}}',
    "progress token": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"progressToken":{"a":1}}}}',
    "cursor": b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":7}}',
    "initialize without": b'{"jsonrpc":"2.0","id":1,"method":"initialize"}',
    "initialize odd": b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":[]}}',
    "nul": json.dumps(request("tools/call", name="recent\0", arguments={"\0": 0})).encode(),
    "bom": b"\xef\xbb\xbf" + json.dumps(request("ping")).encode(),
    "5 MiB": json.dumps(request("tools/call", name="search", arguments={"query": "x" * 5_200_000})).encode(),
    "5 MiB of surrogates": json.dumps(
        request("tools/call", name="search", arguments={"query": "\ud800" * 870_000})
    ).encode(),
    "over 5 MiB": b" " * (5 * 1024 * 1024 + 1),
}


@BOTH
@pytest.mark.parametrize("version", [None, "2025-11-25", "2026-07-28", "nonsense"])
async def test_nothing_that_a_client_sends_is_our_fault(
    http: httpx2.AsyncClient, admin_pool: Pool, path: str, version: str | None
) -> None:
    _, key = await make_world(admin_pool, "memories:read", "memories:write")
    headers = {} if version is None else {"MCP_Protocol_Version": version}
    for name, body in HOSTILE.items():
        answer = await post(http, key, body, path, **headers)
        assert answer.status_code in (200, 202, 400, 404, 413), (name, answer.text[:500])
        code = answer.json().get("error", {}).get("code") if answer.status_code == 200 else None
        assert code in (None, -32601, -32602), (name, answer.text[:500])
        assert "Traceback" not in answer.text, name


@pytest.mark.parametrize(
    "query", ["uploader \ud800", "\udfffuploader", "uploader\x00", "uploader " + "x" * 1_000_000], ids=ascii
)
async def test_a_careless_query_still_finds(http: httpx2.AsyncClient, admin_pool: Pool, query: str) -> None:
    team, key = await make_world(admin_pool)
    await make_memory(admin_pool, team, "The uploader retries")
    answer = await post(http, key, request("tools/call", name="search", arguments={"query": query}))
    result = answer.json()["result"]
    assert not result["isError"], result
    assert len(json.loads(result["content"][0]["text"])["observations"]) == 1


@BOTH
@pytest.mark.parametrize("accept", ["text/html", "text/event-stream", "text/*, image/png"])
async def test_a_client_that_takes_no_json_is_406(
    http: httpx2.AsyncClient, admin_pool: Pool, path: str, accept: str
) -> None:
    _, key = await make_world(admin_pool)
    answer = await post(http, key, request("ping"), path, Accept=accept)
    assert answer.status_code == 406
    assert answer.json() == {
        "jsonrpc": "2.0",
        "error": {
            "code": -32000,
            "message": "Not Acceptable: Client must accept both application/json and text/event-stream",
        },
        "id": None,
    }


@pytest.mark.parametrize("accept", ["application/json", "*/*", "application/*;q=0.5", ""])
async def test_a_client_that_takes_json_is_served(http: httpx2.AsyncClient, admin_pool: Pool, accept: str) -> None:
    _, key = await make_world(admin_pool)
    assert (await post(http, key, request("ping"), Accept=accept)).status_code == 200


@BOTH
async def test_the_door_asks_for_a_key_before_it_reads(http: httpx2.AsyncClient, path: str) -> None:
    answer = await http.post(path, content=b"{", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 401
    assert "www-authenticate" not in answer.headers
    unknown = await http.post(path, content=b"{", headers={"Authorization": "Bearer cm_unknown"})
    assert unknown.json() == {"error": "Forbidden", "message": "Invalid API key or insufficient scope"}


@BOTH
async def test_anything_but_post_is_405(http: httpx2.AsyncClient, path: str) -> None:
    for method in ("GET", "HEAD", "DELETE", "PUT", "PATCH"):
        answer = await http.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST"), method


async def test_each_endpoint_is_counted_under_its_own_path(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    counter = REQUESTS.labels("POST", "/v1/mcp/memory", "200")
    before = counter._value.get()
    await post(http, key, request("ping"), "/V1/mcp/Memory/")
    assert counter._value.get() == before + 1


async def test_the_rate_is_limited_like_everywhere_and_told(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    await set_limits(admin_pool, team.id, requests_per_minute=1)
    first = await post(http, key, request("ping"))
    second = await post(http, key, request("ping"), "/v1/mcp/memory")
    assert (first.status_code, second.status_code) == (200, 429)
    assert second.json()["error"] == "rate_limited"
    assert int(second.headers["retry-after"]) >= 1


async def test_recall_is_refused_over_the_request_cap(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    await set_limits(admin_pool, team.id, requests_per_month=1)
    await post(http, key, request("ping"))
    refused = await post(http, key, request("tools/call", name="recent", arguments={}))
    assert refused.status_code == 402
    assert refused.json()["error"] == "quota_exceeded"
