"""Section 3.2: the bodies that the tools of claude-mem's local stdio server send, and what they read of the answers."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.contract.support import JOB_FULL, Api, World, has_shape
from tests.factories import make_memory


@pytest.mark.parametrize(
    "more", [{}, {"title": "Uploads"}, {"metadata": {"title": "Uploads", "a": 1}}, {"kind": "decision"}]
)
async def test_3_2_observation_add_sends_narrative_and_no_content(api: Api, world: World, more: dict[str, Any]) -> None:
    """Section 0.2, 4: the peer's own tool is always refused by the peer."""
    kind = more.get("kind", "manual")
    body = {"projectId": world.project_id, "kind": kind, "type": kind, "narrative": "The uploader retries", **more}
    memory = (await api.post("/v1/memories", world.bound, body, 201))["memory"]
    assert (memory["kind"], memory["content"]) == (kind, "The uploader retries")
    assert await api.count(world, "jobs") == 0
    assert await api.contents(world.bound, world.project_id, "uploader") == ["The uploader retries"]


async def test_3_2_observation_add_within_a_session(api: Api, world: World) -> None:
    session = (await api.session(world.bound, world.project_id))["id"]
    body = {
        "projectId": world.project_id,
        "kind": "manual",
        "type": "manual",
        "narrative": "x",
        "serverSessionId": session,
    }
    assert (await api.post("/v1/memories", world.bound, body, 201))["memory"]["serverSessionId"] == session


async def test_3_2_observation_record_event_with_its_defaults(api: Api, world: World) -> None:
    body = {
        "projectId": world.project_id,
        "sourceType": "api",
        "eventType": "note",
        "occurredAtEpoch": 1_790_000_000_000,
    }
    answer = await api.post("/v1/events", world.bound, body, 201)
    assert answer["event"]["sourceAdapter"] == "api"
    assert answer["generationJob"]["status"] == "queued"
    silent = await api.post("/v1/events?generate=false", world.bound, body | {"eventType": "quiet"}, 201)
    assert "generationJob" not in silent


async def test_3_2_observation_record_event_with_everything(api: Api, world: World) -> None:
    session = (await api.session(world.bound, world.project_id))["id"]
    body = {
        "projectId": world.project_id,
        "sourceType": "api",
        "eventType": "note",
        "occurredAtEpoch": 1,
        "serverSessionId": session,
        "contentSessionId": "c",
        "memorySessionId": "m",
        "platformSource": "claude",
        "payload": {"note": "x"},
    }
    event = (await api.post("/v1/events", world.bound, body, 201))["event"]
    assert (event["serverSessionId"], event["payload"]) == (session, {"note": "x"})


async def test_3_2_observation_search_and_context(api: Api, world: World) -> None:
    event = (await api.event(world.bound, world.project_id, platformSource="claude"))["event"]["id"]
    memory = await make_memory(api.pool, world.team, "The uploader retries", event_id=event)
    for more in ({}, {"limit": 5}, {"platformSource": "claude-code"}, {"limit": 5, "platformSource": "claude"}):
        body = {"projectId": world.project_id, "query": "uploader", **more}
        found = await api.post("/v1/search", world.bound, body)
        context = await api.post("/v1/context", world.bound, body)
        assert [one["id"] for one in found["observations"]] == [memory]
        assert [one["id"] for one in context["observations"]] == [memory]
        assert context["context"] == "The uploader retries"


async def test_3_2_the_tools_do_not_clamp_the_limit(api: Api, world: World) -> None:
    body = {"projectId": world.project_id, "query": "x", "limit": 500}
    for path in ("/v1/search", "/v1/context"):
        assert (await api.post(path, world.bound, body, 400))["error"] == "ValidationError"


async def test_3_2_observation_generation_status(api: Api, world: World) -> None:
    job = (await api.event(world.bound, world.project_id))["generationJob"]["id"]
    answer = await api.get(f"/v1/jobs/{quote(job, safe='')}", world.bound)
    assert has_shape(answer["generationJob"], JOB_FULL)


async def test_3_2_every_answer_is_json(api: Api, world: World) -> None:
    """Section 7.9.9: a 2xx that is no JSON loses the event."""
    for method, path, body in (
        ("POST", "/v1/events", {"projectId": world.project_id, "sourceType": "hook", "eventType": "x"}),
        ("POST", "/v1/sessions/start", {"projectId": world.project_id}),
        ("POST", "/v1/memories", {"projectId": world.project_id, "narrative": "x"}),
        ("POST", "/v1/search", {"projectId": world.project_id, "query": "x"}),
        ("POST", "/v1/context", {"projectId": world.project_id, "query": "x"}),
        ("POST", "/v1/search", {}),
    ):
        answer = await api.send(method, path, world.bound, body)
        assert answer.headers["content-type"].startswith("application/json")
        answer.json()
