"""What every route shares, and the routes that need no key."""

import asyncio
import gzip

import httpx2
import pytest
from prometheus_client import generate_latest

from commonplace_runtime import contract
from commonplace_runtime.embedded import EmbeddedRedis
from commonplace_runtime.entrypoints.doorbell import TaskiqDoorbell
from commonplace_runtime.entrypoints.http.app import create_app
from commonplace_runtime.entrypoints.http.envelope import SECURITY_HEADERS
from commonplace_runtime.observability import QUEUE, REGISTRY, REQUESTS, QueueGauges
from commonplace_runtime.scaling import QueueFigures
from commonplace_runtime.settings import Settings
from commonplace_runtime.store.pool import Pool
from tests.api_server import served
from tests.factories import make_key, make_team


async def test_security_headers_are_everywhere(http: httpx2.AsyncClient) -> None:
    for path in ("/healthz", "/v1/search", "/nowhere", "/v1/info", "/v1/mcp"):
        answer = await http.get(path)
        assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS, path
        assert "server" not in answer.headers
        assert "x-powered-by" not in answer.headers


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-123_X", True), ("a" * 64, True), ("a" * 65, False), ("-abc", False), ("a b", False), ("a/b", False)],
)
async def test_a_safe_request_id_is_kept(http: httpx2.AsyncClient, given: str, kept: bool) -> None:
    answer = await http.post("/v1/search", headers={"X-Request-Id": given})
    assert (answer.headers["x-request-id"] == given) == kept
    assert len(answer.headers["x-request-id"]) == (len(given) if kept else 36)


async def test_case_slash_and_head_do_not_matter(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    key = await make_key(admin_pool, (await make_team(admin_pool)).id)
    for path in ("/V1/Search", "/v1/search/", "/v1/SEARCH/"):
        answer = await http.post(path, json={"query": "x"}, headers=key.headers)
        assert answer.status_code == 200, path
    head = await http.head("/v1/connect", headers=key.headers)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 0


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/search"), ("POST", "/nowhere?x=1"), ("DELETE", "/v1/events/1"), ("PUT", "/")]
)
async def test_an_unknown_route_is_named(http: httpx2.AsyncClient, method: str, path: str) -> None:
    answer = await http.request(method, path)
    assert answer.status_code == 404
    assert answer.json() == {"error": "NotFound", "message": f"Cannot {method} {path.split('?')[0]}"}


async def test_pages_of_this_machine_may_read_and_others_may_not(http: httpx2.AsyncClient) -> None:
    local = await http.get("/healthz", headers={"Origin": "http://localhost:6274"})
    assert local.headers["access-control-allow-origin"] == "http://localhost:6274"
    assert "Origin" in local.headers["vary"]
    foreign = await http.get("/healthz", headers={"Origin": "https://evil.example"})
    assert foreign.status_code == 200
    assert "access-control-allow-origin" not in foreign.headers
    preflight = await http.options("/v1/mcp", headers={"Origin": "http://127.0.0.1:3000"})
    assert preflight.status_code == 204
    assert "X-Api-Key" in preflight.headers["access-control-allow-headers"]
    assert preflight.headers["access-control-allow-origin"] == "http://127.0.0.1:3000"
    plain = await http.get("/healthz")
    assert "vary" not in plain.headers


async def test_what_to_paste_is_told_without_minting(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    key = await make_key(admin_pool, (await make_team(admin_pool)).id)
    answer = await http.get("/v1/connect", headers={**key.headers, "Host": "memory.example.com:8443"})
    body = answer.json()
    assert body["mcpUrl"] == "http://memory.example.com:8443/v1/mcp"
    assert body["connectCommand"] == contract.connect_command(body["mcpUrl"], "<YOUR_API_KEY>")
    assert "<YOUR_API_KEY>" in body["hint"]
    assert key.token not in answer.text


async def test_the_probes_speak_as_the_clients_expect(http: httpx2.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "ok", "runtime": "server-beta"}
    assert (await http.get("/api/readiness")).json() == {"status": "ready", "mcpReady": True}
    health = await http.get("/api/health")
    assert health.status_code == 200
    assert (health.json()["status"], health.json()["initialized"]) == ("ok", True)
    info = (await http.get("/v1/info")).json()
    assert info["runtime"] == "server-beta"
    assert info["postgres"] == {"initialized": True, "schemaVersion": contract.SCHEMA_VERSION}
    assert info["boundaries"]["queueManager"]["status"] == "active"


async def test_probes_have_every_field_of_the_wire(http: httpx2.AsyncClient) -> None:
    health = (await http.get("/api/health")).json()
    assert {name: type(value).__name__ for name, value in health.items()} == {
        **dict.fromkeys(("status", "runtime", "implementation", "version", "workerPath", "platform"), "str"),
        **dict.fromkeys(("managed", "hasIpc", "initialized", "mcpReady"), "bool"),
        **dict.fromkeys(("ai", "dependencies", "rateLimits", "queue"), "dict"),
        "uptime": "float",
        "pid": "int",
    }
    assert health["ai"] == {"provider": "disabled", "authMethod": "api-key", "lastInteraction": None}
    assert health["dependencies"] == {"degraded": False, "statuses": {"postgres": "ok", "redis": "ok"}}
    assert (health["workerPath"], health["rateLimits"], health["mcpReady"]) == ("", {}, True)
    assert set(health["queue"]) == {"engine", "implementation", "redis", "lanes"}
    assert set(health["queue"]["redis"]) == {"status", "mode", "host", "port", "prefix"}
    counts = {"waiting", "active", "completed", "failed", "delayed", "stalled"}
    assert [set(lane) for lane in health["queue"]["lanes"]] == [{"kind", "name", "unavailable", *counts}] * 2
    info = (await http.get("/v1/info")).json()
    boundaries, lanes = info.pop("boundaries"), info.pop("queueLanes")
    assert set(info) == {"name", "version", "runtime", "authMode", "postgres"}
    assert info["authMode"] == "api-key"
    assert set(boundaries) == {"queueManager", "generationWorkerManager"}
    for boundary in boundaries.values():
        assert boundary["status"] in ("active", "disabled", "errored")
        assert boundary["reason"]
    assert set(boundaries["queueManager"]["details"]) >= {"engine", "mode", "host", "port", "prefix", "lanes"}
    assert [lane["kind"] for lane in lanes] == ["event", "summary"]
    assert (await http.get("/api/version")).json() == {"version": contract.VERSION}


async def test_instructions_are_told_by_topic_and_by_tool(http: httpx2.AsyncClient) -> None:
    async def told(query: str) -> str:
        answer = await http.get(f"/api/instructions{query}")
        assert answer.status_code == 200, answer.text
        ((kind, text),) = ((part["type"], part["text"]) for part in answer.json()["content"])
        assert kind == "text"
        return str(text)

    parts = [await told(f"?topic={topic}") for topic in ("workflow", "search_params", "examples")]
    assert len(set(parts)) == 3
    for query in ("", "?topic=all", "?topic="):
        assert await told(query) == "\n\n".join(parts)
    assert await told("?operation=search") == parts[1]
    for odd in ("?topic=other", "?operation=other", "?topic=workflow&operation=../../etc/passwd"):
        answer = await http.get(f"/api/instructions{odd}")
        assert (answer.status_code, answer.json()) == (400, {"error": "Invalid topic"}), odd


async def test_what_a_body_is_packed_in_and_called_does_not_surprise(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    key = await make_key(admin_pool, (await make_team(admin_pool)).id)
    headers = {**key.headers, "Content-Type": "application/json; charset=utf-8", "Content-Encoding": "gzip"}
    packed = await http.post("/v1/search", content=gzip.compress(b'{"query": "x"}'), headers=headers)
    assert packed.status_code == 200
    plain = await http.post("/v1/search", content=b"query=x", headers={**key.headers, "Content-Type": "text/plain"})
    assert (plain.status_code, plain.json()["issues"][0]["message"]) == (
        400,
        "Invalid input: expected object, received undefined",
    )
    empty = await http.post("/v1/context", headers={**key.headers, "Content-Type": "application/json"})
    assert empty.status_code == 200
    for path in ("/api/health/", "/API/Health", "/HEALTHZ/", "/api/version/"):
        assert (await http.get(path)).status_code == 200, path
    head = await http.head("/api/version")
    assert (head.status_code, head.content) == (200, b"")
    assert (await http.options("/nowhere")).status_code == 204


async def test_the_queue_is_told_as_it_is(api_settings: Settings, redis_server: EmbeddedRedis) -> None:
    bell = TaskiqDoorbell(redis_server.url)
    try:
        async with served(create_app(api_settings, doorbell=bell)) as url, httpx2.AsyncClient(timeout=20) as http:
            health = (await http.get(f"{url}/api/health")).json()
            info = (await http.get(f"{url}/v1/info")).json()
            redis_server.kill()
            try:
                without = await http.get(f"{url}/api/health")
            finally:
                redis_server.start()
    finally:
        await bell.aclose()
    details = info["boundaries"]["queueManager"]["details"]
    for told in (health["queue"], details):
        assert (told["engine"], told["implementation"]) == ("bullmq", "taskiq+postgres")
        assert [lane["kind"] for lane in told["lanes"]] == ["event", "summary"]
    assert health["queue"]["redis"]["status"] == "ok"
    assert (without.status_code, without.json()["queue"]["redis"]["status"]) == (503, "unavailable")
    async with served(create_app(api_settings)) as url, httpx2.AsyncClient(timeout=20) as http:
        assert "queue" not in (await http.get(f"{url}/api/health")).json()
        info = (await http.get(f"{url}/v1/info")).json()
    assert (info["boundaries"]["queueManager"]["status"], info["queueLanes"]) == ("disabled", [])


async def test_an_older_schema_is_not_ready(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    await admin_pool.execute("DELETE FROM commonplace.schema_migrations WHERE version = $1", contract.SCHEMA_VERSION)
    answer = await http.get("/api/readiness")
    assert answer.status_code == 503
    assert "commonplace migrate" in answer.json()["message"]
    assert (await http.get("/api/health")).status_code == 503
    assert (await http.get("/healthz")).status_code == 200


async def test_requests_are_counted_by_route_and_never_by_path(http: httpx2.AsyncClient) -> None:
    def count(route: str, status: str) -> float:
        return float(REQUESTS.labels("GET", route, status)._value.get())

    before = count("/v1/jobs/{job_id}", "401"), count("unmatched", "404")
    await http.get("/v1/jobs/123")
    await http.get("/some/path/nobody/knows")
    assert (count("/v1/jobs/{job_id}", "401"), count("unmatched", "404")) == (before[0] + 1, before[1] + 1)


async def test_the_queue_is_shown_and_never_an_old_one(http: httpx2.AsyncClient) -> None:
    async with asyncio.timeout(15):
        while not list(QUEUE.collect()):  # noqa: ASYNC110 - scrapes have no event
            await asyncio.sleep(0.05)
    shown = generate_latest(REGISTRY).decode()
    for name in ("backlog", "oldest_seconds", "in_flight", "arrival_rate"):
        assert f'commonplace_queue_{name}{{runtime="default"}} 0.0' in shown
    assert 'commonplace_queue_desired_workers{runtime="default"} 1.0' in shown, "the least that the settings allow"
    assert "commonplace_queue_service_seconds" not in shown, "nobody has measured one yet"
    now = 100.0
    gauges = QueueGauges(lambda: now)
    queue = QueueFigures(
        backlog=3,
        oldest_seconds=1.5,
        in_flight=1,
        busy_sessions=1,
        service_seconds=0.5,
        arrival_rate=0.1,
        steady_rate=0.1,
    )
    gauges.show("mine", queue, 2)
    samples = [metric.samples[0] for metric in gauges.collect()]
    assert [sample.value for sample in samples] == [3, 1.5, 1, 0.5, 0.1, 2]
    assert {sample.labels["runtime"] for sample in samples} == {"mine"}
    now += QueueGauges.FRESH_SECONDS + 1
    assert not list(gauges.collect())
