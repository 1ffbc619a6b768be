"""What claude-mem's older hooks send, and that it ends where everything else does."""

from typing import Any
from uuid import UUID

import httpx2
import pytest

from commonplace_runtime.store.pool import Pool
from tests.factories import Key, Team, make_key, make_team, set_limits
from tests.integration.runtime.conftest import CountingDoorbell

GITHUB = "ghp_" + "a1B2" * 9
OBSERVATIONS = "/api/sessions/observations"
SUMMARIZE = "/api/sessions/summarize"


async def make_world(admin_pool: Pool, **key: Any) -> tuple[Team, Key]:
    team = await make_team(admin_pool)
    return team, await make_key(admin_pool, team.id, **{"project_id": team.project_id, **key})


def make_use(**changes: Any) -> dict[str, Any]:
    """A body as the older PostToolUse hook sends it."""
    return {
        "contentSessionId": "c-1",
        "tool_name": "Bash",
        "tool_input": {"command": "ls"},
        "tool_response": "a b",
        "cwd": "/src/repo",
        "tool_use_id": "toolu_1",
    } | changes


async def post(http: httpx2.AsyncClient, key: Key, path: str, body: Any, status: int = 200) -> dict[str, Any]:
    answer = await http.post(path, json=body, headers=key.headers)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def event(http: httpx2.AsyncClient, key: Key, event_id: str) -> dict[str, Any]:
    answer = await http.get(f"/v1/events/{event_id}", headers=key.headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["event"]
    return found


async def test_a_tool_use_is_stored_as_an_event_of_its_session(
    http: httpx2.AsyncClient, admin_pool: Pool, doorbell: CountingDoorbell
) -> None:
    team, key = await make_world(admin_pool)
    answer = await post(http, key, OBSERVATIONS, make_use(agentType="explorer", ignored=1))
    session = (await http.get(f"/v1/sessions/{answer['sessionId']}", headers=key.headers)).json()["session"]
    assert {name: session[name] for name in ("externalSessionId", "contentSessionId", "platformSource")} == {
        "externalSessionId": "c-1",
        "contentSessionId": "c-1",
        "platformSource": "claude",
    }
    assert {**answer, "eventId": "", "generationJobId": ""} == {
        "status": "queued",
        "observationCount": 1,
        "sessionId": session["id"],
        "serverSessionId": session["id"],
        "eventId": "",
        "generationJobId": "",
        "transport": "enqueued",
    }
    assert doorbell.rings == 1
    job = await http.get(f"/v1/jobs/{answer['generationJobId']}", headers=key.headers)
    assert job.json()["generationJob"]["agentEventId"] == answer["eventId"]
    stored = await event(http, key, answer["eventId"])
    assert stored["projectId"] == team.project_id
    assert stored["serverSessionId"] == session["id"]
    assert stored["sourceAdapter"] == "claude-code-compat"
    assert stored["eventType"] == "tool_use"
    assert stored["sourceEventId"] == "toolu_1"
    assert stored["metadata"] == {"compat": "sessions/observations"}
    assert stored["payload"] == {
        "contentSessionId": "c-1",
        "tool_name": "Bash",
        "tool_input": {"command": "ls"},
        "tool_response": "a b",
        "cwd": "/src/repo",
        "platformSource": "claude",
        "agentId": None,
        "agentType": "explorer",
        "toolUseId": "toolu_1",
    }


async def test_what_is_left_out_is_null_in_the_payload(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    answer = await post(http, key, OBSERVATIONS, {"contentSessionId": "c-1", "tool_name": "Bash"})
    payload = (await event(http, key, answer["eventId"]))["payload"]
    absent = ("tool_input", "tool_response", "cwd", "agentId", "agentType", "toolUseId")
    assert {name: payload[name] for name in absent} == dict.fromkeys(absent)


async def test_the_same_tool_use_is_one_event_inside_its_session(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    first = await post(http, key, OBSERVATIONS, make_use())
    again = await post(http, key, OBSERVATIONS, make_use(tool_response="late"))
    camel = {name: value for name, value in make_use(toolUseId="toolu_1").items() if name != "tool_use_id"}
    assert again == first
    assert await post(http, key, OBSERVATIONS, camel) == first
    other = await post(http, key, OBSERVATIONS, make_use(contentSessionId="c-2"))
    assert other["eventId"] != first["eventId"]


async def test_a_session_is_one_for_its_id_on_its_platform(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    first = await post(http, key, OBSERVATIONS, make_use())
    for same in ("claude", "Claude Code", ""):
        use = make_use(platformSource=same, tool_use_id=f"t-{same}")
        assert (await post(http, key, OBSERVATIONS, use))["sessionId"] == first["sessionId"], same
    assert (await post(http, key, OBSERVATIONS, make_use(platformSource="cursor")))["sessionId"] != first["sessionId"]
    start = {"externalSessionId": "c-1", "contentSessionId": "c-1", "platformSource": "claude"}
    started = await http.post("/v1/sessions/start", json=start, headers=key.headers)
    assert (started.status_code, started.json()["session"]["id"]) == (200, first["sessionId"])


@pytest.mark.parametrize("path", [OBSERVATIONS, SUMMARIZE])
async def test_refusals_come_in_the_order_key_body_project(
    http: httpx2.AsyncClient, admin_pool: Pool, path: str
) -> None:
    team = await make_team(admin_pool)
    assert (await http.post(path, content=b"{")).status_code == 401
    reader = await make_key(admin_pool, team.id, scopes=("memories:read",))
    assert (await post(http, reader, path, {}, 403))["error"] == "Forbidden"
    unbound = await make_key(admin_pool, team.id)
    refused = await post(http, unbound, path, {}, 400)
    assert refused["error"] == "ValidationError"
    assert ["contentSessionId"] in [issue["path"] for issue in refused["issues"]]
    assert await post(http, unbound, path, make_use(), 400) == {
        "error": "BadRequest",
        "message": f"Legacy {path} requires a project-scoped API key",
    }


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (OBSERVATIONS, {"contentSessionId": ""}),
        (OBSERVATIONS, {"contentSessionId": 1}),
        (OBSERVATIONS, {"tool_name": None}),
        (OBSERVATIONS, {"cwd": None}),
        (OBSERVATIONS, {"platformSource": 1}),
        (OBSERVATIONS, {"toolUseId": []}),
        (SUMMARIZE, {"contentSessionId": ""}),
        (SUMMARIZE, {"last_assistant_message": {}}),
        (SUMMARIZE, {"agentId": None}),
    ],
)
async def test_a_field_of_another_type_is_named(
    http: httpx2.AsyncClient, admin_pool: Pool, path: str, change: dict[str, Any]
) -> None:
    _, key = await make_world(admin_pool)
    refused = await post(http, key, path, make_use(**change), 400)
    assert [issue["path"] for issue in refused["issues"]] == [list(change)]


async def test_any_tool_input_is_taken_and_cleaned(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    for value in (1, "x", [1], {"a": "\x00"}, None, False):
        use = make_use(tool_input=value, tool_use_id=f"t-{value}")
        await post(http, key, OBSERVATIONS, use)
    use = make_use(tool_use_id="t", tool_response=f"<private>mine</private> {GITHUB} \x00 \ud800 kept")
    raw = b'{"contentSessionId":"c\\u0000","tool_name":"\\ud800","tool_use_id":"u"}'
    odd = await http.post(OBSERVATIONS, content=raw, headers={**key.headers, "Content-Type": "application/json"})
    assert odd.status_code == 200, odd.text
    use["tool_response"] = use["tool_response"].replace("\ud800", "")
    stored = await event(http, key, (await post(http, key, OBSERVATIONS, use))["eventId"])
    response = stored["payload"]["tool_response"]
    assert "kept" in response
    assert "mine" not in response
    assert GITHUB not in response
    assert (stored["privateParts"], stored["redactedSecrets"]) == (1, 1)


async def test_the_end_of_a_turn_keeps_what_was_said_and_asks_for_a_summary(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    _, key = await make_world(admin_pool)
    use = await post(http, key, OBSERVATIONS, make_use())
    body = {"contentSessionId": "c-1", "last_assistant_message": "The tests pass now. <private>x</private>"}
    ended = await post(http, key, SUMMARIZE, body)
    assert {**ended, "generationJobId": ""} == {
        "status": "queued",
        "sessionId": use["sessionId"],
        "serverSessionId": use["sessionId"],
        "generationJobId": "",
        "transport": "enqueued",
    }
    job = (await http.get(f"/v1/jobs/{ended['generationJobId']}", headers=key.headers)).json()["generationJob"]
    assert (job["sourceType"], job["sourceId"]) == ("session_summary", use["sessionId"])
    rows = await admin_pool.fetch(
        "SELECT e.event_type, e.payload, e.session_id, e.number <= (SELECT max(covers_event) FROM commonplace.jobs)"
        " AS covered FROM commonplace.events e WHERE event_type = 'assistant_message'"
    )
    assert [dict(row) for row in rows] == [
        {
            "event_type": "assistant_message",
            "payload": {"last_assistant_message": "The tests pass now. ", "platformSource": "claude"},
            "session_id": UUID(use["sessionId"]),
            "covered": True,
        }
    ]
    session = (await http.get(f"/v1/sessions/{use['sessionId']}", headers=key.headers)).json()["session"]
    assert session["endedAtEpoch"] is not None


async def test_the_same_end_again_is_the_same_summary_and_other_words_are_a_further_one(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    _, key = await make_world(admin_pool)
    body = {"contentSessionId": "c-1", "last_assistant_message": "Done."}
    first = await post(http, key, SUMMARIZE, body)
    assert await post(http, key, SUMMARIZE, body) == first
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.events") == 1
    await admin_pool.execute(
        "UPDATE commonplace.jobs SET status = 'completed', completed_at = now() WHERE source_type = 'session_summary'"
    )
    assert await post(http, key, SUMMARIZE, body) == first
    other = await post(http, key, SUMMARIZE, {**body, "last_assistant_message": "Done again."})
    assert other["generationJobId"] != first["generationJobId"]


async def test_an_end_without_words_starts_and_ends_the_session(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    for body in ({"contentSessionId": "c-1"}, {"contentSessionId": "c-1", "last_assistant_message": " \n"}):
        assert (await post(http, key, SUMMARIZE, body))["status"] == "queued"
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.events") == 0


async def test_a_subagents_end_does_nothing(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    answer = await post(
        http, key, SUMMARIZE, {"contentSessionId": "c-1", "agentId": "a", "last_assistant_message": "x"}
    )
    assert answer == {"status": "skipped", "reason": "subagent_context"}
    for table in ("sessions", "events", "jobs"):
        assert await admin_pool.fetchval(f"SELECT count(*) FROM commonplace.{table}") == 0, table


async def test_compatibility_routes_are_audited_limited_and_named_like_the_rest(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team, key = await make_world(admin_pool)
    headers = key.headers | {"X-Request-Id": "rq-1"}
    answer = await http.post(OBSERVATIONS, json=make_use(), headers=headers)
    assert answer.headers["x-request-id"] == "rq-1"
    await post(http, key, SUMMARIZE, {"contentSessionId": "c-1"})
    rows = await admin_pool.fetch("SELECT action, request_id, key_id FROM commonplace.audit_log ORDER BY number")
    assert [row["action"] for row in rows] == ["session.write", "session.start", "event.received", "session.end"]
    assert [row["request_id"] for row in rows[:3]] == ["rq-1"] * 3
    assert {str(row["key_id"]) for row in rows} == {key.id}
    await set_limits(admin_pool, team.id, requests_per_minute=1)
    for path, status in ((OBSERVATIONS, 200), (SUMMARIZE, 429)):
        limited = await http.post(path, json=make_use(), headers=key.headers)
        assert limited.status_code == status
        assert limited.headers["x-ratelimit-limit"] == "1"


@pytest.mark.parametrize(("scope", "path"), [("events:write", OBSERVATIONS), ("sessions:write", SUMMARIZE)])
async def test_the_installers_scopes_are_enough(
    http: httpx2.AsyncClient, admin_pool: Pool, scope: str, path: str
) -> None:
    _, key = await make_world(admin_pool, scopes=(scope,))
    assert (await post(http, key, path, make_use()))["status"] == "queued"


@pytest.mark.parametrize(
    "path", ["/api/sessions/init", "/api/admin/restart", "/api/admin/shutdown", "/api/admin/doctor"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_the_worker_alone_offers_is_not_there(
    http: httpx2.AsyncClient, admin_pool: Pool, method: str, path: str
) -> None:
    _, key = await make_world(admin_pool)
    answer = await http.request(method, path, headers=key.headers)
    assert answer.status_code == 404
    assert answer.json() == {"error": "NotFound", "message": f"Cannot {method} {path}"}
