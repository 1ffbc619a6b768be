"""
Section 8: what the peer's own tests pin, where its rows are marked B or B+D. A test is named after the peer's file;
rows that other sections have in full are told here as one story each.
"""

import asyncio
import json
from typing import Any
from uuid import UUID

import pytest

from tests.contract.support import Api, World, raw
from tests.factories import Key, make_event, make_key, make_memory, set_limits


async def mcp(api: Api, key: Key, tool: str, /, **arguments: Any) -> Any:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    return (await api.post("/v1/mcp", key, message))["result"]


async def test_8_server_session_routes_repeat_start(api: Api, world: World) -> None:
    first = await api.session(world.bound, world.project_id, 201, externalSessionId="e")
    assert (await api.session(world.bound, world.project_id, 200, externalSessionId="e"))["id"] == first["id"]


async def test_8_server_session_routes_platforms_and_their_aliases(api: Api, world: World) -> None:
    async def start(status: int, platform: str) -> str:
        return str(
            (await api.session(world.bound, world.project_id, status, externalSessionId="e", platformSource=platform))[
                "id"
            ]
        )

    claude, codex = await start(201, "claude"), await start(201, "codex")
    assert claude != codex
    assert (await start(200, "claude-code"), await start(200, "transcript")) == (claude, codex)


async def test_8_server_session_routes_ending_twice_is_one_summary_job(api: Api, world: World) -> None:
    session = (await api.session(world.bound, world.project_id))["id"]
    first, again = [await api.post(f"/v1/sessions/{session}/end", world.bound, {}) for _ in range(2)]
    assert first["generationJob"]["id"] == again["generationJob"]["id"]
    assert first["generationJob"]["bullmqJobId"] == again["generationJob"]["bullmqJobId"]
    assert first["generationJob"]["bullmqJobId"].startswith("sum_")
    assert await api.count(world, "jobs") == 1


async def test_8_server_session_routes_a_foreign_session_is_404(api: Api, world: World, other: World) -> None:
    session = (await api.session(world.bound, world.project_id))["id"]
    await api.get(f"/v1/sessions/{session}", other.bound, 404)
    await api.get(f"/v1/sessions/{session}", other.key, 404)


async def test_8_server_session_routes_an_event_is_queued_at_once(api: Api, world: World) -> None:
    job = (await api.event(world.bound, world.project_id))["generationJob"]
    row = await api.pool.fetchrow(
        "SELECT j.status, g.available_at <= now() AS is_due FROM commonplace.jobs j"
        " JOIN commonplace.job_groups g USING (team_id, project_id, session_key) WHERE j.id = $1",
        UUID(job["id"]),
    )
    assert row is not None
    assert (row["status"], row["is_due"], job["transport"]) == ("queued", True, "enqueued")


async def test_8_server_session_routes_linking_by_content_id_and_platform(api: Api, world: World) -> None:
    claude = (await api.session(world.bound, world.project_id, contentSessionId="c", platformSource="claude"))["id"]
    bare = (await api.session(world.bound, world.project_id, contentSessionId="c"))["id"]
    linked = [
        (await api.event(world.bound, world.project_id, contentSessionId=content, platformSource=platform))["event"][
            "serverSessionId"
        ]
        for content, platform in (("c", "Claude Code"), ("c", None), ("c", "cursor"), ("missing", "claude"))
    ]
    assert linked == [claude, bare, None, None]


async def test_8_server_session_routes_a_batch_links_each_by_its_own_platform(api: Api, world: World) -> None:
    sessions = {
        platform: (await api.session(world.bound, world.project_id, contentSessionId="c", platformSource=platform))[
            "id"
        ]
        for platform in ("claude", "cursor", None)
    }
    batch = [
        make_event(projectId=world.project_id, contentSessionId="c", platformSource=platform, payload={"n": n})
        for n, platform in enumerate((None, "cursor", "claude", "codex"))
    ]
    answer = await api.post("/v1/events/batch", world.bound, batch, 201)
    assert [item["event"]["serverSessionId"] for item in answer["events"]] == [
        sessions[None],
        sessions["cursor"],
        sessions["claude"],
        None,
    ]


async def test_8_server_session_routes_search_and_context_normalise_the_platform(api: Api, world: World) -> None:
    event = (await api.event(world.bound, world.project_id, platformSource="cursor"))["event"]["id"]
    memory = await make_memory(api.pool, world.team, "The uploader retries", event_id=event)
    for path in ("/v1/search", "/v1/context"):
        body = {"projectId": world.project_id, "query": "uploader", "platformSource": "Cursor IDE"}
        assert [one["id"] for one in (await api.post(path, world.bound, body))["observations"]] == [memory]


async def test_8_server_mcp_routes_insert_search_and_context_round_trip(api: Api, world: World) -> None:
    """Four of these fail at the peer's HEAD: its client sends narrative, its server wants content."""
    body = {"projectId": world.project_id, "kind": "manual", "type": "manual", "narrative": "The uploader retries"}
    memory = (await api.post("/v1/memories", world.bound, body, 201))["memory"]["id"]
    assert await api.count(world, "jobs") == 0
    query = {"projectId": world.project_id, "query": "uploader"}
    assert [one["id"] for one in (await api.post("/v1/search", world.bound, query))["observations"]] == [memory]
    context = await api.post("/v1/context", world.bound, query)
    assert context["context"] == "The uploader retries"


async def test_8_server_mcp_routes_record_event_has_its_outbox_row(api: Api, world: World) -> None:
    body = {"projectId": world.project_id, "sourceType": "api", "eventType": "note", "occurredAtEpoch": 1}
    event = (await api.post("/v1/events", world.bound, body, 201))["event"]["id"]
    rows = await api.pool.fetch("SELECT status FROM commonplace.jobs WHERE event_id = $1", UUID(event))
    assert [row["status"] for row in rows] == ["queued"]


async def test_8_server_mcp_routes_a_foreign_search_is_403(api: Api, world: World, other: World) -> None:
    await api.post("/v1/search", world.bound, {"projectId": other.project_id, "query": "x"}, 403)


async def test_8_server_mcp_http_routes_recent_and_search_are_of_the_team(api: Api, world: World, other: World) -> None:
    for one in (world, other):
        await make_memory(api.pool, one.team, f"uploader of {one.team_id}")
    for tool, arguments in (("recent", {}), ("search", {"query": "uploader"})):
        result = await mcp(api, world.bound, tool, **arguments)
        found = json.loads(result["content"][0]["text"])["observations"]
        assert [one["content"] for one in found] == [f"uploader of {world.team_id}"]
    modes = [row["details"]["mode"] for row in await api.audits(world, "observation.read")]
    assert modes == ["recent", "search"]
    assert (await api.send("POST", "/v1/mcp", None, {})).status_code == 401


async def test_8_recall_mcp_server_tool_errors(api: Api, world: World, other: World) -> None:
    for tool, arguments, text in (
        ("search", {}, '"query" is required'),
        ("recent", {"projectId": other.project_id}, "API key is scoped to a different project"),
        ("nonsense", {}, "Unknown tool: nonsense"),
    ):
        result = await mcp(api, world.bound, tool, **arguments)
        assert (result["isError"], result["content"][0]["text"]) == (True, text)


async def test_8_team_project_jobs_routes(api: Api, world: World, other: World) -> None:
    ours = (await api.event(world.key, world.project_id))["generationJob"]["id"]
    siblings = (await api.event(world.key, world.sibling_id))["generationJob"]["id"]
    await api.end_job(siblings, "failed")

    async def ids(path: str, key: Key) -> list[str]:
        return [job["id"] for job in (await api.get(path, key))["jobs"]]

    team, project, sibling = (
        f"/v1/teams/{world.team_id}/jobs",
        f"/v1/projects/{world.project_id}/jobs",
        f"/v1/projects/{world.sibling_id}/jobs",
    )
    assert sorted(await ids(team, world.key)) == sorted([ours, siblings])
    assert await ids(team, world.bound) == [ours]
    assert await ids(project, world.bound) == await ids(project, world.key) == [ours]
    assert await ids(sibling, world.key) == [siblings]
    assert await ids(f"{team}?status=failed", world.key) == [siblings]
    page = await api.get(f"{team}?limit=1&offset=1", world.key)
    assert (len(page["jobs"]), page["total"]) == (1, 2)
    for path, key in ((team, other.key), (project, other.key), (sibling, world.bound)):
        await api.get(path, key, 404)
    for path in (team, project):
        assert (await api.send("GET", path)).status_code == 401


async def test_8_jobs_list_and_operator_routes(api: Api, world: World) -> None:
    admin = await make_key(api.pool, world.team_id, scopes=["memories:read", "memories:write", "memories:admin"])
    job = (await api.event(world.bound, world.project_id))["generationJob"]["id"]
    assert "payload" not in (await api.get("/v1/jobs", admin))["jobs"][0]
    await api.get("/v1/jobs?include=payload", world.key, 403)
    assert (await api.get("/v1/jobs?include=payload", admin))["jobs"][0]["payload"]
    assert (await api.get("/v1/jobs?source_type=session_summary", admin))["total"] == 0
    assert (await api.get("/v1/jobs?since=2999-01-01", admin))["total"] == 0
    assert (await api.post(f"/v1/jobs/{job}/retry", admin, {}))["alreadyQueued"] is True
    await api.end_job(job, "failed")
    retried = await api.post(f"/v1/jobs/{job}/retry", admin, {})
    assert (retried["generationJob"]["status"], retried["retriedCount"]) == ("queued", 1)
    assert (await api.post(f"/v1/jobs/{job}/retry", admin, {}))["alreadyQueued"] is True
    cancelled = await api.send("POST", f"/v1/jobs/{job}/cancel", admin, {}, headers={"X-Request-Id": "rq-8"})
    assert cancelled.json()["generationJob"]["status"] == "cancelled"
    (row,) = await api.audits(world, "generation_job.cancelled_by_operator")
    assert row["details"]["requestId"] == cancelled.json()["requestId"] == "rq-8"


async def test_8_connect_keys(api: Api, world: World) -> None:
    minted = await api.post("/v1/keys", world.bound, {}, 201)
    key = Key(id=minted["id"], token=minted["apiKey"])
    assert minted["scopes"] == ["memories:read"]
    assert "/v1/mcp" in minted["connectCommand"]
    assert (await mcp(api, key, "recent")).get("isError", False) is False
    await api.post("/v1/keys", key, {}, 403)
    assert "<YOUR_API_KEY>" in (await api.get("/v1/connect", key))["connectCommand"]


async def test_8_paid_readiness(api: Api, world: World, other: World) -> None:
    await set_limits(api.pool, world.team_id, requests_per_month=2)
    for kind, quantity in (("tokens", 5), ("tokens", 6), ("observation", 2)):
        await api.pool.execute(
            "INSERT INTO commonplace.usage_counters (team_id, month, kind, model, quantity)"
            " VALUES ($1, date_trunc('month', now() AT TIME ZONE 'UTC')::date, $2, $3, $4)",
            UUID(world.team_id),
            kind,
            str(quantity),
            quantity,
        )
    answers = [await api.send("GET", "/v1/connect", world.key) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 402]
    usage = (await api.get("/v1/usage", world.key))["usage"]
    assert (usage["tokens"], usage["observation"], usage["request"]) == (11, 2, 2)
    await api.get("/v1/connect", other.key)


async def test_8_paid_readiness_without_a_key_nobody_is_limited(api: Api) -> None:
    answers = await asyncio.gather(*(api.send("GET", "/v1/usage") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {401}
    assert not [name for answer in answers for name in answer.headers if "ratelimit" in name]


async def test_8_data_deletion(api: Api, world: World, other: World) -> None:
    for project in (world.project_id, world.sibling_id):
        await make_memory(api.pool, world.team, "uploader", project_id=project)
    theirs = await make_memory(api.pool, other.team, "uploader")
    await api.delete(f"/v1/projects/{world.project_id}/memory", world.key)
    assert await api.search(world.key, world.project_id, "uploader") == []
    assert len(await api.search(world.key, world.sibling_id, "uploader")) == 1
    assert await api.delete(f"/v1/projects/{other.project_id}/memory", world.key, 404) == {"error": "not_found"}
    assert [one["id"] for one in await api.search(other.key, other.project_id, "uploader")] == [theirs]
    memory = (await api.memory(world.bound, world.project_id, "x"))["id"]
    await api.delete(f"/v1/memories/{memory}", world.bound)
    await api.delete(f"/v1/memories/{memory}", world.bound, 404)


async def test_8_server_service(api: Api, world: World) -> None:
    assert (await api.get("/healthz"))["runtime"] == (await api.get("/v1/info"))["runtime"] == "server-beta"
    await api.event(world.bound, world.project_id, "?generate=false")
    assert (await api.count(world, "events"), await api.count(world, "jobs")) == (1, 0)
    mixed = [make_event(projectId=world.project_id), make_event(projectId=world.sibling_id)]
    await api.post("/v1/events/batch", world.bound, mixed, 403)
    assert await api.count(world, "events") == 1


async def test_8_sessions_observations_adapter(api: Api, world: World) -> None:
    body = {"contentSessionId": "c", "tool_name": "Bash", "tool_input": {}, "tool_response": "x"}
    first = await api.post("/api/sessions/observations", world.bound, body)
    assert (first["status"], first["observationCount"]) == ("queued", 1)
    again = await api.post("/api/sessions/observations", world.bound, {**body, "tool_response": "y"})
    assert again["serverSessionId"] == first["serverSessionId"]
    cursor = await api.post("/api/sessions/observations", world.bound, {**body, "platformSource": "cursor"})
    assert cursor["serverSessionId"] != first["serverSessionId"]
    await api.post("/api/sessions/observations", world.key, body, 400)
    ended, ended_again = [
        await api.post("/api/sessions/summarize", world.bound, {"contentSessionId": "c"}) for _ in range(2)
    ]
    assert ended["generationJobId"] == ended_again["generationJobId"]
    skipped = await api.post("/api/sessions/summarize", world.bound, {"contentSessionId": "c", "agentId": "a"})
    assert skipped == {"status": "skipped", "reason": "subagent_context"}
    assert (await api.send("POST", "/api/sessions/observations", None, body)).status_code == 401


@pytest.mark.parametrize(
    ("given", "is_kept"), [("rq_1-A", True), ("a" * 64, True), ("a" * 65, False), ("-a", False), ("a;b", False)]
)
async def test_8_middleware_request_id(api: Api, given: str, is_kept: bool) -> None:
    answer = await raw(api.url, f"POST /v1/search\nX-Request-Id: {given}")
    assert (answer.header("x-request-id") == given) == is_kept
    assert answer.header("x-request-id")


async def test_8_server_security_headers(api: Api) -> None:
    answer = await api.send("GET", "/healthz")
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_8_server_viewer_routes_the_root_does_not_shadow_the_api(api: Api, world: World) -> None:
    await api.send("GET", "/")
    assert (await api.get("/api/health"))["status"] == "ok"
    assert (await api.get("/v1/usage", world.key))["usage"] == {}


async def test_8_error_handler(api: Api) -> None:
    answer = await raw(api.url, "DELETE /nowhere?x=1")
    assert (answer.status, answer.json) == (404, {"error": "NotFound", "message": "Cannot DELETE /nowhere"})


async def test_8_auth_api_key_bearer_wins_and_project_keys_create_no_projects(api: Api, world: World) -> None:
    answer = await api.send("GET", "/v1/usage", world.key, headers={"X-Api-Key": "wrong"})
    assert answer.status_code == 200
    await api.post("/v1/projects", world.bound, {"name": "web"}, 403)


async def test_8_agent_event_platform_source(api: Api, world: World) -> None:
    assert (await api.event(world.bound, world.project_id, platformSource="zed"))["event"]["platformSource"] == "zed"
    body = {"projectId": world.project_id, "sourceType": "api", "eventType": "x", "occurredAtEpoch": 1}
    assert (await api.post("/v1/events", world.bound, body, 201))["event"]["platformSource"] is None


async def test_8_postgres_storage_dedupe_without_a_source_id(api: Api, world: World) -> None:
    body = make_event(projectId=world.project_id)
    ids = {(await api.post("/v1/events", world.bound, body, 201))["event"]["id"] for _ in range(3)}
    assert len(ids) == 1


async def test_8_platform_source_is_inside_the_identity_of_an_event(api: Api, world: World) -> None:
    ids = {
        (
            await api.post(
                "/v1/events",
                world.bound,
                make_event(projectId=world.project_id, sourceEventId="s", platformSource=platform),
                201,
            )
        )["event"]["id"]
        for platform in ("claude", "Claude Code", "cursor")
    }
    assert len(ids) == 2
