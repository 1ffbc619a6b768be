"""Section 1.6: the compatibility routes for legacy worker payloads."""

from typing import Any
from uuid import UUID

import pytest

from tests.contract.support import MISSING_KEY, REFUSED_KEY, Api, World
from tests.factories import make_key

OBSERVATIONS, SUMMARIZE = "/api/sessions/observations", "/api/sessions/summarize"


def observation(**changes: Any) -> dict[str, Any]:
    return {
        "contentSessionId": "c-1",
        "tool_name": "Bash",
        "tool_input": {"command": "ls"},
        "tool_response": "a b",
        "cwd": "/src",
    } | changes


async def test_1_6_observations_the_legacy_answer(api: Api, world: World) -> None:
    answer = await api.post(OBSERVATIONS, world.bound, observation())
    assert {
        "status",
        "observationCount",
        "sessionId",
        "serverSessionId",
        "eventId",
        "generationJobId",
        "transport",
    } <= set(answer)
    assert (answer["status"], answer["observationCount"]) == ("queued", 1)
    assert answer["transport"] == "enqueued"
    assert answer["sessionId"] == answer["serverSessionId"] or answer["sessionId"] == "c-1"
    job = (await api.get(f"/v1/jobs/{answer['generationJobId']}", world.bound))["generationJob"]
    assert (job["agentEventId"], job["status"]) == (answer["eventId"], "queued")


async def test_1_6_observations_the_stored_event(api: Api, world: World) -> None:
    answer = await api.post(OBSERVATIONS, world.bound, observation(tool_use_id="toolu_1", agentId="a", agentType="t"))
    event = (await api.get(f"/v1/events/{answer['eventId']}", world.bound))["event"]
    assert (event["sourceAdapter"], event["eventType"]) == ("claude-code-compat", "tool_use")
    assert event["sourceEventId"] == "toolu_1"
    assert (event["serverSessionId"], event["platformSource"]) == (answer["serverSessionId"], "claude")
    assert event["payload"] == {
        "contentSessionId": "c-1",
        "tool_name": "Bash",
        "tool_input": {"command": "ls"},
        "tool_response": "a b",
        "cwd": "/src",
        "platformSource": "claude",
        "agentId": "a",
        "agentType": "t",
        "toolUseId": "toolu_1",
    }
    assert event["metadata"]["compat"] == "sessions/observations"
    assert abs(event["occurredAtEpoch"] - event["receivedAtEpoch"]) < 60_000


async def test_1_6_observations_absent_values_are_filled_with_null(api: Api, world: World) -> None:
    answer = await api.post(OBSERVATIONS, world.bound, {"contentSessionId": "c-1", "tool_name": "Bash"})
    payload = (await api.get(f"/v1/events/{answer['eventId']}", world.bound))["event"]["payload"]
    for name in ("tool_input", "tool_response", "cwd", "agentId", "agentType", "toolUseId"):
        assert payload[name] is None


async def test_1_6_observations_find_or_create_the_session(api: Api, world: World) -> None:
    first = await api.post(OBSERVATIONS, world.bound, observation(tool_use_id="1"))
    again = await api.post(OBSERVATIONS, world.bound, observation(tool_use_id="2"))
    assert first["serverSessionId"] == again["serverSessionId"]
    session = (await api.get(f"/v1/sessions/{first['serverSessionId']}", world.bound))["session"]
    assert (session["externalSessionId"], session["contentSessionId"]) == ("c-1", "c-1")
    assert session["platformSource"] == "claude"
    cursor = await api.post(OBSERVATIONS, world.bound, observation(platformSource="Cursor"))
    assert cursor["serverSessionId"] != first["serverSessionId"]


async def test_1_6_observations_find_a_session_that_v1_started(api: Api, world: World) -> None:
    session = await api.session(
        world.bound, world.project_id, 201, externalSessionId="c-1", contentSessionId="c-1", platformSource="claude"
    )
    answer = await api.post(OBSERVATIONS, world.bound, observation())
    assert answer["serverSessionId"] == session["id"]


@pytest.mark.parametrize("field", ["tool_use_id", "toolUseId"])
async def test_1_6_observations_the_same_tool_use_twice_is_one_event(api: Api, world: World, field: str) -> None:
    first, again = [await api.post(OBSERVATIONS, world.bound, observation(**{field: "toolu_9"})) for _ in range(2)]
    assert first["eventId"] == again["eventId"]
    assert first["generationJobId"] == again["generationJobId"]


@pytest.mark.parametrize("missing", ["contentSessionId", "tool_name"])
async def test_1_6_observations_a_body_is_validated(api: Api, world: World, missing: str) -> None:
    body = {name: value for name, value in observation().items() if name != missing}
    answer = await api.post(OBSERVATIONS, world.bound, body, 400)
    assert (answer["error"], answer["issues"][0]["path"]) == ("ValidationError", [missing])
    answer = await api.post(OBSERVATIONS, world.bound, observation(**{missing: 5}), 400)
    assert answer["issues"][0]["path"] == [missing]


@pytest.mark.parametrize("tool", [None, "text", 5, [1], {"a": 1}])
async def test_1_6_observations_tool_input_and_response_are_any_json(api: Api, world: World, tool: object) -> None:
    answer = await api.post(OBSERVATIONS, world.bound, observation(tool_input=tool, tool_response=tool, extra="x"))
    payload = (await api.get(f"/v1/events/{answer['eventId']}", world.bound))["event"]["payload"]
    assert payload["tool_input"] == payload["tool_response"] == tool
    assert "extra" not in payload


async def test_1_6_refusals_stand_in_order_key_body_project(api: Api, world: World) -> None:
    reader = await make_key(api.pool, world.team_id, scopes=["memories:read"])
    for path, good, name in (
        (OBSERVATIONS, observation(), "observations"),
        (SUMMARIZE, {"contentSessionId": "c-1"}, "summarize"),
    ):
        assert await api.post(path, None, {}, 401) == MISSING_KEY
        assert await api.post(path, reader, {}, 403) == REFUSED_KEY
        assert (await api.post(path, world.key, {}, 400))["error"] == "ValidationError"
        assert await api.post(path, world.key, good, 400) == {
            "error": "BadRequest",
            "message": f"Legacy /api/sessions/{name} requires a project-scoped API key",
        }
    assert await api.count(world, "events") == await api.count(world, "sessions") == 0


async def test_1_6_summarize_ends_and_queues(api: Api, world: World) -> None:
    session = (await api.post(OBSERVATIONS, world.bound, observation()))["serverSessionId"]
    answer = await api.post(SUMMARIZE, world.bound, {"contentSessionId": "c-1", "last_assistant_message": "done"})
    assert {"status", "sessionId", "serverSessionId", "generationJobId", "transport"} <= set(answer)
    assert (answer["status"], answer["serverSessionId"], answer["transport"]) == ("queued", session, "enqueued")
    assert (await api.get(f"/v1/sessions/{session}", world.bound))["session"]["endedAtEpoch"] is not None
    job = (await api.get(f"/v1/jobs/{answer['generationJobId']}", world.bound))["generationJob"]
    assert (job["sourceType"], job["serverSessionId"]) == ("session_summary", session)


async def test_1_6_summarize_again_is_the_same_job(api: Api, world: World) -> None:
    first, again = [await api.post(SUMMARIZE, world.bound, {"contentSessionId": "c-1"}) for _ in range(2)]
    assert first["generationJobId"] == again["generationJobId"]
    assert first["serverSessionId"] == again["serverSessionId"]


async def test_1_6_summarize_of_an_unknown_session_creates_it(api: Api, world: World) -> None:
    answer = await api.post(SUMMARIZE, world.bound, {"contentSessionId": "new"})
    session = (await api.get(f"/v1/sessions/{answer['serverSessionId']}", world.bound))["session"]
    assert (session["externalSessionId"], session["platformSource"]) == ("new", "claude")


async def test_1_6_summarize_skips_a_subagent(api: Api, world: World) -> None:
    answer = await api.post(SUMMARIZE, world.bound, {"contentSessionId": "c-1", "agentId": "a"})
    assert answer == {"status": "skipped", "reason": "subagent_context"}
    assert await api.count(world, "sessions") == await api.count(world, "jobs") == 0


async def test_1_6_summarize_is_scoped_by_platform(api: Api, world: World) -> None:
    ids = {
        (await api.post(SUMMARIZE, world.bound, {"contentSessionId": "c-1", **fields}))["serverSessionId"]
        for fields in ({}, {"platformSource": "claude-code"}, {"platformSource": "cursor"})
    }
    assert len(ids) == 2


async def test_1_6_summarize_a_body_is_validated(api: Api, world: World) -> None:
    answer = await api.post(SUMMARIZE, world.bound, {}, 400)
    assert answer["issues"][0]["path"] == ["contentSessionId"]


async def test_1_6_compat_writes_are_audited_and_metered(api: Api, world: World) -> None:
    """Section 9.29: the peer's compat routes bypass both."""
    answer = await api.post(OBSERVATIONS, world.bound, observation())
    rows = await api.audits(world, "event.received")
    assert [row["resource_id"] for row in rows] == [answer["eventId"]]
    await api.post(SUMMARIZE, world.bound, {"contentSessionId": "c-1"})
    assert [row["resource_id"] for row in await api.audits(world, "session.end")] == [answer["serverSessionId"]]


async def test_1_6_sessions_init_is_deliberately_absent(api: Api, world: World) -> None:
    answer = await api.send("POST", "/api/sessions/init", world.bound, {"contentSessionId": "c"})
    assert (answer.status_code, answer.json()["error"]) == (404, "NotFound")


async def test_1_6_private_parts_are_not_stored(api: Api, world: World) -> None:
    answer = await api.post(OBSERVATIONS, world.bound, observation(tool_response="<private>salary</private> ok"))
    stored = await api.pool.fetchval(
        "SELECT payload::text FROM commonplace.events WHERE id = $1", UUID(answer["eventId"])
    )
    assert "salary" not in stored
