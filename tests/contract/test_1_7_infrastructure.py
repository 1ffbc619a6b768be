"""Section 1.7: routes that need no key."""

import os
import sys

import asyncpg
import httpx2
import pytest
from pydantic import SecretStr

from commonplace_runtime import contract
from commonplace_runtime.embedded import EmbeddedPostgres, EmbeddedRedis
from commonplace_runtime.entrypoints.doorbell import TaskiqDoorbell
from commonplace_runtime.entrypoints.http.app import create_app
from commonplace_runtime.settings import Settings
from tests.api_server import served
from tests.contract.support import Api, has_shape

LANE = {
    **dict.fromkeys(("kind", "name"), (str,)),
    **dict.fromkeys(("waiting", "active", "completed", "failed", "delayed", "stalled"), (int,)),
    "unavailable": (bool,),
}


@pytest.mark.parametrize(
    "path", ["/healthz", "/v1/info", "/api/health", "/api/readiness", "/api/version", "/api/instructions"]
)
async def test_1_7_needs_no_key(api: Api, path: str) -> None:
    assert (await api.send("GET", path)).status_code == 200
    assert (await api.send("GET", path, headers={"Authorization": "Bearer nonsense"})).status_code == 200


async def test_1_7_healthz(api: Api) -> None:
    assert await api.get("/healthz") == {"status": "ok", "runtime": "server-beta"}


async def test_1_7_info(api: Api) -> None:
    """The name is ours: no product of ours claims to be claude-mem. The runtime literal stays."""
    info = await api.get("/v1/info")
    assert info["name"] == "commonplace"
    assert (info["runtime"], info["authMode"]) == ("server-beta", "api-key")
    assert info["postgres"] == {"initialized": True, "schemaVersion": contract.SCHEMA_VERSION}
    assert set(info["boundaries"]) == {"queueManager", "generationWorkerManager"}
    for boundary in info["boundaries"].values():
        assert boundary["status"] in ("active", "disabled", "errored")
        assert isinstance(boundary["reason"], str)
    assert isinstance(info["queueLanes"], list)


async def test_1_7_info_with_a_queue(api: Api) -> None:
    info = await api.get("/v1/info")
    manager = info["boundaries"]["queueManager"]
    assert manager["status"] == "active"
    assert {"engine", "mode", "host", "port", "prefix", "lanes"} <= set(manager["details"])
    assert manager["details"]["engine"] == "bullmq"
    assert [set(lane) for lane in manager["details"]["lanes"]] == [{"kind", "name"}] * 2
    assert [lane["kind"] for lane in info["queueLanes"]] == ["event", "summary"]
    assert all(has_shape(lane, LANE) for lane in info["queueLanes"])


async def test_1_7_info_without_a_queue_has_no_lanes(api_settings: Settings) -> None:
    async with served(create_app(api_settings)) as url, httpx2.AsyncClient(timeout=20) as http:
        info = (await http.get(f"{url}/v1/info")).json()
        health = (await http.get(f"{url}/api/health")).json()
    assert (info["queueLanes"], info["boundaries"]["queueManager"]["status"]) == ([], "disabled")
    assert "queue" not in health


async def test_1_7_health(api: Api) -> None:
    health = await api.get("/api/health")
    assert (health["status"], health["runtime"], health["workerPath"]) == ("ok", "server-beta", "")
    assert isinstance(health["version"], str)
    assert health["uptime"] >= 0
    assert health["platform"] == sys.platform
    assert health["pid"] == os.getpid()
    assert (health["managed"], health["hasIpc"]) == (False, False)
    assert (health["initialized"], health["mcpReady"]) == (True, True)
    assert health["ai"] == {"provider": "disabled", "authMethod": "api-key", "lastInteraction": None}
    assert set(health["dependencies"]) == {"degraded", "statuses"}
    assert health["dependencies"]["degraded"] is False
    assert health["rateLimits"] == {}


async def test_1_7_health_tells_the_queue_as_it_is(api_settings: Settings, redis_server: EmbeddedRedis) -> None:
    """Section 9.45: the peer hard-codes Redis as ok."""
    bell = TaskiqDoorbell(redis_server.url)
    try:
        async with served(create_app(api_settings, doorbell=bell)) as url, httpx2.AsyncClient(timeout=20) as http:
            queue = (await http.get(f"{url}/api/health")).json()["queue"]
            redis_server.kill()
            try:
                degraded = await http.get(f"{url}/api/health")
                ready = await http.get(f"{url}/api/readiness")
            finally:
                redis_server.start()
    finally:
        await bell.aclose()
    assert queue["engine"] == "bullmq"
    assert {"status", "mode", "host", "port", "prefix"} <= set(queue["redis"])
    away = degraded.json()
    assert (queue["redis"]["status"], away["queue"]["redis"]["status"]) == ("ok", "unavailable")
    assert (degraded.status_code, away["status"], away["dependencies"]["degraded"]) == (503, "degraded", True)
    assert (ready.status_code, away["initialized"]) == (200, True), "jobs still run, only later: nothing to restart"
    assert [lane["kind"] for lane in queue["lanes"]] == ["event", "summary"]
    assert all(has_shape(lane, LANE) for lane in queue["lanes"])


async def test_1_7_readiness(api: Api) -> None:
    assert await api.get("/api/readiness") == {"status": "ready", "mcpReady": True}


async def test_1_7_readiness_and_health_of_an_older_schema(
    postgres: EmbeddedPostgres, template_database: str, api_settings: Settings
) -> None:
    """Section 9.45: the peer's readiness looks at its database at start only."""
    name = f"contract_old_{os.getpid()}"
    admin = await asyncpg.connect(postgres.url())
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template_database}")
    own = api_settings.model_copy(update={"database_url": SecretStr(postgres.url(user="test_runtime", database=name))})
    try:
        async with served(create_app(own)) as url, httpx2.AsyncClient(timeout=20) as http:
            assert (await http.get(f"{url}/api/readiness")).status_code == 200
            changed = await asyncpg.connect(postgres.url(database=name))
            await changed.execute("DELETE FROM commonplace.schema_migrations WHERE version > 9")
            await changed.close()
            ready, health = await http.get(f"{url}/api/readiness"), await http.get(f"{url}/api/health")
            alive = await http.get(f"{url}/healthz")
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()
    assert (ready.status_code, ready.json()["status"]) == (503, "initializing")
    assert isinstance(ready.json()["message"], str)
    assert (health.status_code, health.json()["status"], health.json()["initialized"]) == (503, "degraded", False)
    assert health.json()["dependencies"]["degraded"] is True
    assert alive.status_code == 200


async def test_1_7_version(api: Api) -> None:
    assert await api.get("/api/version") == {"version": contract.VERSION}


@pytest.mark.parametrize("topic", ["workflow", "search_params", "examples", "all"])
async def test_1_7_instructions(api: Api, topic: str) -> None:
    answer = await api.get(f"/api/instructions?topic={topic}")
    assert set(answer) == {"content"}
    (part,) = answer["content"]
    assert part["type"] == "text"
    assert part["text"].strip()


async def test_1_7_instructions_refuse_another_topic(api: Api) -> None:
    for topic in ("nonsense", "../../etc/passwd", "%00"):
        assert await api.get(f"/api/instructions?topic={topic}", None, 400) == {"error": "Invalid topic"}


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/admin/restart"), ("POST", "/api/admin/shutdown"), ("GET", "/api/admin/doctor")],
)
async def test_1_7_admin_routes_are_not_replicated(api: Api, method: str, path: str) -> None:
    """Contract: do not replicate without a key. Whoever reaches the port must not restart the server."""
    assert (await api.send(method, path)).status_code in (401, 404)
    assert (await api.get("/healthz"))["status"] == "ok"
