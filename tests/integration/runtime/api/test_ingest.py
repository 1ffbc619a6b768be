import asyncio
import gzip
import json
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest

from commonplace_runtime.observability import SECRETS_REDACTED
from commonplace_runtime.store.pool import Pool
from tests.factories import Key, Team, make_event, make_key, make_project, make_session, make_team
from tests.integration.runtime.conftest import CountingDoorbell

GITHUB = "ghp_" + "a1B2" * 9


async def make_world(admin_pool: Pool) -> tuple[Team, Key]:
    team = await make_team(admin_pool)
    return team, await make_key(admin_pool, team.id, project_id=team.project_id)


async def send(http: httpx2.AsyncClient, key: Key, query: str = "", /, **changes: Any) -> dict[str, Any]:
    answer = await http.post(f"/v1/events{query}", json=make_event(**changes), headers=key.headers)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def first_job(admin_pool: Pool) -> str:
    async with asyncio.timeout(3):
        while (job_id := await admin_pool.fetchval("SELECT id::text FROM commonplace.jobs")) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return str(job_id)


async def finish_job(admin_pool: Pool, job_id: str, status: str = "completed") -> None:
    """End a job the way a worker does: row and notice in one transaction."""
    async with admin_pool.acquire() as connection, connection.transaction():
        await connection.execute(
            f"UPDATE commonplace.jobs SET status = '{status}', {status}_at = now() WHERE id = $1::text::uuid", job_id
        )
        await connection.execute("SELECT pg_notify('commonplace_jobs', $1)", job_id)


async def test_the_answer_has_the_shape_of_the_wire(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    body = await send(http, key, metadata={"project": "repo"}, sourceEventId="s-1")
    event = body["event"]
    assert {**event, "id": "", "receivedAtEpoch": 0, "createdAtEpoch": 0} == {
        "id": "",
        "projectId": team.project_id,
        "teamId": team.id,
        "serverSessionId": None,
        "sourceAdapter": "hook",
        "sourceEventId": "s-1",
        "eventType": "tool_use",
        "platformSource": "claude",
        "payload": make_event()["payload"],
        "metadata": {"project": "repo"},
        "privateParts": 0,
        "redactedSecrets": 0,
        "occurredAtEpoch": 1_790_000_000_000,
        "receivedAtEpoch": 0,
        "createdAtEpoch": 0,
    }
    job = body["generationJob"]
    assert set(job) == {
        *("id", "status", "bullmqJobId", "sourceType", "sourceId", "transport", "createdAtEpoch", "updatedAtEpoch")
    }
    assert (job["sourceType"], job["sourceId"], job["status"]) == ("agent_event", event["id"], "queued")
    assert ":" not in job["bullmqJobId"]


ODD_PAYLOAD = {
    "float": [0.1, 1e22, 1e-7, 123456789.125, 2.0, -1.5],
    "integer": [0, -1, 2**53 + 1, 2**63, -(2**63)],
    "text": ["", " ", 'a\\u0041\n\t"', "\u00e9\u4e2d\U0001f600", "null"],
    "nested": {"b": {}, "a": [], "c": [None, True, False, [[]]]},
}


@pytest.mark.parametrize("is_batch", [False, True], ids=["one", "batch"])
async def test_the_answer_says_what_the_event_says_later(
    http: httpx2.AsyncClient, admin_pool: Pool, is_batch: bool
) -> None:
    team, key = await make_world(admin_pool)
    session = await make_session(admin_pool, team, content_session_id="session-1")
    last_moment = 253_402_300_799_999
    odd = make_event(payload=ODD_PAYLOAD, metadata=ODD_PAYLOAD, occurredAtEpoch=last_moment, eventType="\u00e9\n")
    given = [odd, make_event(contentSessionId="session-1", platformSource=None, sourceEventId="x")]

    if is_batch:
        answer = await http.post("/v1/events/batch", json=given, headers=key.headers)
        told = [item["event"] for item in answer.json()["events"]]
    else:
        told = [(await http.post("/v1/events", json=each, headers=key.headers)).json()["event"] for each in given]

    for event in told:
        later = (await http.get(f"/v1/events/{event['id']}", headers=key.headers)).json()["event"]
        assert event == later
    assert (told[0]["occurredAtEpoch"], told[1]["serverSessionId"]) == (last_moment, session)


async def test_events_of_one_batch_go_each_to_its_own_place(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    """One event of it was there before, one stands twice, and two projects and three sessions take turns."""
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    project_id = await make_project(admin_pool, team.id, "second")
    before = (await send(http, key, projectId="default", contentSessionId="a", sourceEventId="before"))["event"]
    given = [
        make_event(contentSessionId=session, projectId=project, sourceEventId=name)
        for session, project, name in (
            ("a", "default", "1"),
            ("b", "second", "2"),
            ("a", "default", "before"),
            ("c", project_id, "3"),
            ("b", "second", "2"),
            ("a", team.project_id, "4"),
        )
    ]

    answer = await http.post("/v1/events/batch", json=given, headers=key.headers)

    told = [item["event"] for item in answer.json()["events"]]
    assert [event["sourceEventId"] for event in told] == ["1", "2", "before", "3", "2", "4"]
    here, there = team.project_id, project_id
    assert [event["projectId"] for event in told] == [here, there, here, there, there, here]
    assert (told[2]["id"], told[4]["id"]) == (before["id"], told[1]["id"])
    rows = await admin_pool.fetch(
        "SELECT right(g.session_key, 1) AS session, g.waiting, count(j.id) AS jobs FROM commonplace.job_groups g"
        " JOIN commonplace.jobs j USING (team_id, project_id, session_key) GROUP BY g.session_key, g.waiting ORDER BY 1"
    )
    assert [(row["session"], row["waiting"], row["jobs"]) for row in rows] == [("a", 3, 3), ("b", 1, 1), ("c", 1, 1)]


async def test_event_job_group_and_audit_commit_together(
    http: httpx2.AsyncClient, admin_pool: Pool, doorbell: CountingDoorbell
) -> None:
    team, key = await make_world(admin_pool)
    body = await send(http, key)
    group = await admin_pool.fetchrow("SELECT * FROM commonplace.job_groups")
    job = await admin_pool.fetchrow("SELECT * FROM commonplace.jobs")
    audit = await admin_pool.fetchrow("SELECT * FROM commonplace.audit_log")
    assert group is not None
    assert job is not None
    assert audit is not None
    assert group["session_key"] == job["session_key"] == "c:12:agent:tester:claude:session-1"
    assert group["available_at"] == job["run_after"]
    assert (str(job["key_id"]), job["actor"]) == (key.id, "agent:tester")
    assert (audit["action"], audit["resource_id"]) == ("event.received", body["event"]["id"])
    assert str(audit["project_id"]) == team.project_id
    assert audit["details"]["generationJobId"] == body["generationJob"]["id"]
    assert audit["request_id"] == audit["details"]["requestId"] == job["request_id"]
    assert doorbell.rings == 1


async def test_generate_false_makes_no_job_and_rings_nobody(
    http: httpx2.AsyncClient, admin_pool: Pool, doorbell: CountingDoorbell
) -> None:
    _, key = await make_world(admin_pool)
    assert "generationJob" not in await send(http, key, "?generate=false")
    waited = await send(http, key, "?generate=false&wait=true", occurredAtEpoch=5)
    assert waited["generationJob"] is None
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.jobs") == 0
    assert doorbell.rings == 0


@pytest.mark.parametrize(
    "identity",
    [
        {"sourceEventId": "s-1"},
        {"payload": {"tool_name": "Read", "tool_use_id": "toolu_1"}},
        {"payload": {"tool_name": "Read", "toolUseId": "toolu_1"}},
        {},
    ],
    ids=["source event id", "tool_use_id", "toolUseId", "content"],
)
async def test_the_same_event_twice_is_one_event_and_one_job(
    http: httpx2.AsyncClient, admin_pool: Pool, identity: dict[str, Any]
) -> None:
    _, key = await make_world(admin_pool)
    first = await send(http, key, **identity, metadata={"a": 1})
    changes: dict[str, Any] = {} if not identity else {"occurredAtEpoch": 1_790_000_000_999}
    again = await send(http, key, **identity, **changes, metadata={"b": 2})
    assert again["event"]["id"] == first["event"]["id"]
    assert again["generationJob"]["id"] == first["generationJob"]["id"]
    assert again["event"]["metadata"] == {"a": 1, "b": 2}
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.events") == 1


@pytest.mark.parametrize(
    "change",
    [
        {"eventType": "tool_result"},
        {"contentSessionId": "session-2"},
        {"platformSource": "cursor"},
        {"payload": {"tool_use_id": "toolu_2"}},
    ],
)
async def test_a_tool_use_id_counts_within_its_session_and_type(
    http: httpx2.AsyncClient, admin_pool: Pool, change: dict[str, Any]
) -> None:
    _, key = await make_world(admin_pool)
    first = await send(http, key, payload={"tool_use_id": "toolu_1"})
    other = await send(http, key, **({"payload": {"tool_use_id": "toolu_1"}} | change))
    assert other["event"]["id"] != first["event"]["id"]


async def test_two_deliveries_at_once_are_one_event(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    answers = await asyncio.gather(*(send(http, key, sourceEventId="s-1") for _ in range(8)))
    assert len({answer["event"]["id"] for answer in answers}) == 1
    assert len({answer["generationJob"]["id"] for answer in answers}) == 1


async def test_the_same_event_in_two_projects_is_two_events(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    await make_project(admin_pool, team.id, "web")
    key = await make_key(admin_pool, team.id)
    one = await send(http, key, projectId="default", sourceEventId="s-1")
    two = await send(http, key, projectId="web", sourceEventId="s-1")
    assert one["event"]["id"] != two["event"]["id"]


async def test_a_project_is_named_by_id_or_name_or_left_out(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    web = await make_project(admin_pool, team.id, "web")
    bound = await make_key(admin_pool, team.id, project_id=web)
    for given in ({}, {"projectId": web}, {"projectId": "web"}, {"projectId": web.upper()}, {"projectId": None}):
        assert (await send(http, bound, **given))["event"]["projectId"] == web
    free = await make_key(admin_pool, team.id)
    assert (await send(http, free, projectId="web"))["event"]["projectId"] == web
    answer = await http.post("/v1/events", json=make_event(), headers=free.headers)
    assert answer.status_code == 400
    assert answer.json()["issues"][0]["path"] == ["projectId"]
    answer = await http.post("/v1/events/batch", json=[make_event(projectId="web"), make_event()], headers=free.headers)
    assert answer.json()["issues"][0]["path"] == [1, "projectId"]


async def test_a_key_of_a_team_with_one_project_need_not_name_it(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    assert (await send(http, key))["event"]["projectId"] == team.project_id


async def test_a_foreign_project_is_403_and_nothing_is_written(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    web = await make_project(admin_pool, team.id, "web")
    other = await make_team(admin_pool)
    bound = await make_key(admin_pool, team.id, project_id=team.project_id)
    free = await make_key(admin_pool, team.id)
    for key, project, message in (
        (bound, web, "API key is scoped to a different project"),
        (bound, other.project_id, "API key is scoped to a different project"),
        (bound, "nonsense", "API key is scoped to a different project"),
        (free, other.project_id, "project_id must belong to team_id"),
        (free, "nonsense", "project_id must belong to team_id"),
    ):
        batch = [make_event(projectId="default"), make_event(projectId=project)]
        for path, body in (("/v1/events", batch[1]), ("/v1/events/batch", batch)):
            answer = await http.post(path, json=body, headers=key.headers)
            assert answer.status_code == 403
            assert answer.json() == {"error": "Forbidden", "message": message}
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.events") == 0


async def test_an_event_is_linked_to_its_session(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    claude = await make_session(admin_pool, team, content_session_id="c-1", platform="claude")
    bare = await make_session(admin_pool, team, content_session_id="c-1", platform=None)
    linked = await send(http, key, contentSessionId="c-1", platformSource="Claude Code")
    assert linked["event"]["serverSessionId"] == claude
    assert (await send(http, key, contentSessionId="c-1", platformSource=None))["event"]["serverSessionId"] == bare
    assert (await send(http, key, contentSessionId="c-1", platformSource="x"))["event"]["serverSessionId"] is None
    event = make_event(contentSessionId="c-1")
    del event["platformSource"]
    answer = await http.post("/v1/events", json=event, headers=key.headers)
    assert answer.json()["event"]["serverSessionId"] == bare, "the newest, on whatever platform"
    assert (await send(http, key, serverSessionId=claude))["event"]["serverSessionId"] == claude
    group = await admin_pool.fetchval(
        "SELECT session_key FROM commonplace.job_groups ORDER BY session_key DESC LIMIT 1"
    )
    assert group.startswith("s:")


@pytest.mark.parametrize("session", ["01890000-0000-7000-8000-000000000000", "not-a-uuid"])
async def test_a_foreign_session_is_403(http: httpx2.AsyncClient, admin_pool: Pool, session: str) -> None:
    _, key = await make_world(admin_pool)
    answer = await http.post("/v1/events", json=make_event(serverSessionId=session), headers=key.headers)
    assert answer.status_code == 403
    assert answer.json()["message"] == "server_session_id must belong to project_id and team_id"


async def test_a_batch_keeps_its_order_and_counts_as_one_read_of_the_audit(
    http: httpx2.AsyncClient, admin_pool: Pool, doorbell: CountingDoorbell
) -> None:
    _, key = await make_world(admin_pool)
    batch = [make_event(contentSessionId=f"s-{n % 3}", payload={"n": n}) for n in range(50)]
    answer = await http.post("/v1/events/batch", json=batch, headers=key.headers)
    assert answer.status_code == 201
    items = answer.json()["events"]
    assert [item["event"]["payload"]["n"] for item in items] == list(range(50))
    assert len({item["generationJob"]["id"] for item in items}) == 50
    rows = await admin_pool.fetch(
        "SELECT (e.payload ->> 'n')::int AS n FROM commonplace.jobs j JOIN commonplace.events e ON e.id = j.event_id"
        " ORDER BY j.session_key, j.number"
    )
    assert [row["n"] for row in rows] == [*range(0, 50, 3), *range(1, 50, 3), *range(2, 50, 3)]
    audit = await admin_pool.fetch("SELECT action, resource_id, details FROM commonplace.audit_log")
    assert [row["action"] for row in audit] == ["event.batch_received"]
    assert audit[0]["details"]["eventCount"] == 50
    assert doorbell.rings == 1


async def test_crossing_batches_do_not_deadlock(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    events = [make_event(contentSessionId=f"s-{n}", payload={"n": n}) for n in range(40)]
    batches = [events if n % 2 else events[::-1] for n in range(8)]
    answers = await asyncio.gather(
        *(http.post("/v1/events/batch", json=batch, headers=key.headers) for batch in batches)
    )
    assert [answer.status_code for answer in answers] == [201] * 8
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.events") == 40


@pytest.mark.parametrize(("mode", "delayed"), [("per-event", False), ("debounce", True), ("end-of-session", True)])
async def test_a_policy_sets_when_the_job_is_due(
    http: httpx2.AsyncClient, admin_pool: Pool, mode: str, delayed: bool
) -> None:
    team = await make_team(admin_pool, generation_mode=mode, generation_window_seconds=600)
    key = await make_key(admin_pool, team.id)
    await send(http, key)
    assert await admin_pool.fetchval("SELECT run_after > now() + interval '9 minutes' FROM commonplace.jobs") == delayed


async def test_a_leased_group_is_not_made_claimable(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    await send(http, key)
    await admin_pool.execute(
        "UPDATE commonplace.job_groups"
        " SET lease_until = now() + interval '1 minute', available_at = now() + interval '1 minute'"
    )
    await send(http, key, occurredAtEpoch=7)
    assert await admin_pool.fetchval("SELECT available_at = lease_until FROM commonplace.job_groups")
    await admin_pool.execute("UPDATE commonplace.job_groups SET lease_until = NULL, available_at = NULL")
    await send(http, key, occurredAtEpoch=8)
    assert await admin_pool.fetchval("SELECT available_at <= now() FROM commonplace.job_groups")


async def test_waiting_ends_when_the_worker_says_so(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    waiting = asyncio.create_task(send(http, key, "?wait=true"))
    job_id = await first_job(admin_pool)
    await finish_job(admin_pool, job_id)
    async with asyncio.timeout(2):
        body = await waiting
    assert body["generationJob"]["status"] == "completed"
    assert body["generationJob"]["maxAttempts"] == 3
    assert body["generationJob"]["attempts"] == 0
    assert "waitTimedOut" not in body
    again = await send(http, key, "?wait=true")
    assert again["generationJob"]["status"] == "completed"


async def test_waiting_in_vain_is_said(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    body = await send(http, key, "?wait=true")
    assert body["waitTimedOut"] is True
    assert body["generationJob"]["status"] == "queued"
    batch = [make_event(occurredAtEpoch=n) for n in (1, 2)]
    answer = await http.post("/v1/events/batch?wait=true", json=batch, headers=key.headers)
    assert answer.json()["waitTimedOut"] is True
    assert [item["waitTimedOut"] for item in answer.json()["events"]] == [True, True]


async def test_waiting_outlives_a_listener_that_was_cut_off(
    http: httpx2.AsyncClient, admin_pool: Pool, database: Any
) -> None:
    _, key = await make_world(admin_pool)
    waiting = asyncio.create_task(send(http, key, "?wait=true"))
    job_id = await first_job(admin_pool)
    superuser = await asyncpg.connect(database.superuser_url)
    cut = await superuser.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name = 'commonplace-api-listener' AND datname = current_database()"
    )
    await superuser.close()
    assert cut == 1
    await finish_job(admin_pool, job_id, "failed")
    assert (await waiting)["generationJob"]["status"] == "failed"


async def test_what_is_private_or_secret_is_never_stored(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    before = SECRETS_REDACTED.labels("github-token")._value.get()
    payload = {
        "tool_input": {"command": f"export T={GITHUB}", GITHUB: "key"},
        "tool_response": json.dumps({"stdout": "<private>only mine</private>fine"}),
        "note": "x\x00y\ud83d",
    }
    raw = json.dumps(make_event(payload=payload, metadata={"t": GITHUB}, eventType="a\x00b"))
    answer = await http.post(
        "/v1/events", content=raw, headers={**key.headers, "Content-Type": "application/json; charset=utf-8"}
    )
    assert answer.status_code == 201, answer.text
    event = answer.json()["event"]
    assert (event["privateParts"], event["redactedSecrets"]) == (1, 3)
    stored = await admin_pool.fetchval("SELECT payload::text || metadata::text || event_type FROM commonplace.events")
    assert GITHUB not in stored
    assert "only mine" not in stored
    assert SECRETS_REDACTED.labels("github-token")._value.get() == before + 3


@pytest.mark.parametrize("payload", [None, 0, True, "text", [], [1, {"a": None}], {}, 1.5, {"big": 2**70}])
async def test_a_payload_may_be_any_json(http: httpx2.AsyncClient, admin_pool: Pool, payload: object) -> None:
    _, key = await make_world(admin_pool)
    body = await send(http, key, payload=payload)
    expected = {} if payload is None else payload
    if payload == {"big": 2**70}:
        expected = {"big": float(2**70)}  # what JavaScript would have made of it
    assert body["event"]["payload"] == expected


async def test_a_packed_body_and_a_large_one_work(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    packed = gzip.compress(json.dumps(make_event()).encode())
    headers = {**key.headers, "Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert (await http.post("/v1/events", content=packed, headers=headers)).status_code == 201
    await send(http, key, payload={"tool_response": "x " * 2_000_000})


BROKEN: dict[str, tuple[bytes, int, str]] = {
    "no json": (b"{", 400, "SyntaxError"),
    "a bare string": (b'"text"', 400, "SyntaxError"),
    "a bare number": (b"5", 400, "SyntaxError"),
    "NaN": (b'{"payload": NaN}', 400, "SyntaxError"),
    "infinite": (b'{"payload": 1e999}', 400, "SyntaxError"),
    "an integer without end": (b'{"payload": ' + b"9" * 5000 + b"}", 400, "SyntaxError"),
    "deep": (b'{"payload": ' + b"[" * 900 + b"]" * 900 + b"}", 400, "ValidationError"),
    "very deep": (b"[" * 150_000, 400, "SyntaxError"),
    "very deep and odd": (b'["\\ud800",' + b"[" * 150_000, 400, "SyntaxError"),
    "too many lists": (b"[" * 300_000, 400, "ValidationError"),
    "too large": (b'{"payload": "' + b"x" * (5 * 1024 * 1024) + b'"}', 413, "PayloadTooLargeError"),
    "a list": (b"[]", 400, "ValidationError"),
    "empty": (b"", 400, "ValidationError"),
    "no type": (b'{"projectId": "default"}', 400, "ValidationError"),
    "year 10000": (json.dumps(make_event(occurredAtEpoch=253_402_300_800_000)).encode(), 400, "ValidationError"),
    "date beyond numbers": (json.dumps(make_event(occurredAtEpoch=2**70)).encode(), 400, "ValidationError"),
    "negative date": (json.dumps(make_event(occurredAtEpoch=-1)).encode(), 400, "ValidationError"),
    "true for a date": (json.dumps(make_event(occurredAtEpoch=True)).encode(), 400, "ValidationError"),
    "half a millisecond": (json.dumps(make_event(occurredAtEpoch=1.5)).encode(), 400, "ValidationError"),
    "text for a date": (json.dumps(make_event(occurredAtEpoch="now")).encode(), 400, "ValidationError"),
    "unknown source": (json.dumps(make_event(sourceType="me")).encode(), 400, "ValidationError"),
    "empty project": (json.dumps(make_event(projectId="")).encode(), 400, "ValidationError"),
    "number for a session": (json.dumps(make_event(contentSessionId=5)).encode(), 400, "ValidationError"),
}


async def test_a_broken_body_is_the_clients_fault(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    for name, (body, status, error) in BROKEN.items():
        headers = {**key.headers, "Content-Type": "text/plain" if name == "no type" else "application/json"}
        answer = await http.post("/v1/events", content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (status, error), f"{name}: {answer.text}"
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("body", "headers", "issue"),
    [
        (b"{}", {}, {"code": "invalid_type", "expected": "object", "path": []}),
        (b"{}", {"Content-Type": "text/plain"}, {"code": "invalid_type", "expected": "object", "path": []}),
        (
            b"{}",
            {"Content-Type": "application/json"},
            {
                "code": "invalid_type",
                "expected": "string",
                "path": ["eventType"],
                "message": "Invalid input: expected string, received undefined",
            },
        ),
    ],
)
async def test_issues_say_where_and_what(
    http: httpx2.AsyncClient, admin_pool: Pool, body: bytes, headers: dict[str, str], issue: dict[str, Any]
) -> None:
    _, key = await make_world(admin_pool)
    answer = await http.post("/v1/events", content=body, headers={**key.headers, **headers})
    assert answer.status_code == 400
    assert issue.items() <= answer.json()["issues"][0].items()


@pytest.mark.parametrize("size", [0, 501])
async def test_a_batch_has_1_to_500_events(http: httpx2.AsyncClient, admin_pool: Pool, size: int) -> None:
    _, key = await make_world(admin_pool)
    answer = await http.post("/v1/events/batch", json=[make_event()] * size, headers=key.headers)
    assert answer.status_code == 400
    assert answer.json()["issues"][0]["code"] in ("too_small", "too_big")


@pytest.mark.parametrize("query", ["generate=1", "wait=yes", "wait=", "generate=true&generate=false"])
async def test_a_flag_is_true_or_false_once(http: httpx2.AsyncClient, admin_pool: Pool, query: str) -> None:
    _, key = await make_world(admin_pool)
    answer = await http.post(f"/v1/events?{query}", json=make_event(), headers=key.headers)
    assert answer.status_code == 400
    assert answer.json()["issues"][0]["code"] == "invalid_union"


@pytest.mark.parametrize("length", [1, 600, 5_000, 100_000])
async def test_long_session_names_group_as_well(http: httpx2.AsyncClient, admin_pool: Pool, length: int) -> None:
    _, key = await make_world(admin_pool)
    await send(http, key, contentSessionId="s" * length)
    await send(http, key, contentSessionId="s" * length, occurredAtEpoch=9)
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.job_groups") == 1


async def test_who_may_read_an_event_and_a_job(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    body = await send(http, key)
    event, job = f"/v1/events/{body['event']['id']}", f"/v1/jobs/{body['generationJob']['id']}"
    sibling = await make_key(admin_pool, team.id, project_id=await make_project(admin_pool, team.id, "web"))
    whole = await make_key(admin_pool, team.id)
    other = await make_key(admin_pool, (await make_team(admin_pool)).id)
    statuses = {}
    for name, reader in {"own": key, "team": whole, "sibling": sibling, "other": other}.items():
        statuses[name] = [(await http.get(path, headers=reader.headers)).status_code for path in (event, job)]
    assert statuses == {"own": [200, 200], "team": [200, 200], "sibling": [403, 404], "other": [404, 404]}
    for path in ("/v1/jobs/nonsense", f"/v1/jobs/{uuid4()}", "/v1/jobs/%00", "/v1/events/%FF%00", "/v1/events/x"):
        assert (await http.get(path, headers=key.headers)).status_code in (400, 404)
    full = (await http.get(job, headers=key.headers)).json()["generationJob"]
    assert (full["jobType"], full["agentEventId"]) == ("observation_generate_for_event", body["event"]["id"])


@pytest.mark.parametrize("session", [None, "one"])
async def test_overlapping_batches_are_all_stored(
    http: httpx2.AsyncClient, admin_pool: Pool, session: str | None
) -> None:
    _, key = await make_world(admin_pool)
    events = [make_event(contentSessionId=session, payload={"n": n}) for n in range(50)]
    batches = [events if n % 2 else events[::-1] for n in range(6)]
    answers = await asyncio.gather(
        *(http.post("/v1/events/batch", json=batch, headers=key.headers) for batch in batches)
    )
    assert [answer.status_code for answer in answers] == [201] * 6
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.jobs") == 50
    for batch, answer in zip(batches, answers, strict=True):
        given = [event["payload"] for event in batch]
        assert [item["event"]["payload"] for item in answer.json()["events"]] == given


async def test_two_actors_of_one_session_are_two_groups(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    other = await make_key(admin_pool, team.id, project_id=team.project_id, actor="agent:other")
    session = await make_session(admin_pool, team, content_session_id="linked", platform="claude")
    for content_session_id in ("shared", "linked", "x" * 600):
        for sender in (key, other):
            await send(http, sender, contentSessionId=content_session_id, payload={"from": sender.id})
    groups = await admin_pool.fetch(
        "SELECT session_key, array_agg(DISTINCT actor) AS actors FROM commonplace.jobs GROUP BY session_key"
    )
    assert sorted(row["actors"] for row in groups) == [["agent:other"]] * 3 + [["agent:tester"]] * 3
    assert {row["session_key"] for row in groups if row["session_key"].startswith("s:")} == {
        f"s:{session}:agent:tester",
        f"s:{session}:agent:other",
    }
    assert max(len(row["session_key"]) for row in groups) < 100


async def test_an_id_with_a_nul_finds_nothing(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    for path in ("/v1/events/%00", "/v1/jobs/%00"):
        assert (await http.get(path, headers=key.headers)).status_code == 404, path


async def test_two_actors_never_share_an_event(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    other = await make_key(admin_pool, team.id, project_id=team.project_id, actor="agent:other")
    second = await make_key(admin_pool, team.id, project_id=team.project_id)
    for identity in ({"sourceEventId": "s-1"}, {"payload": {"tool_use_id": "toolu_1"}}, {}):
        one, two, three = [await send(http, sender, **identity) for sender in (key, other, second)]
        assert one["event"]["id"] != two["event"]["id"]
        assert one["event"]["id"] == three["event"]["id"], "the same actor with another key"
    rows = await admin_pool.fetch("SELECT actor FROM commonplace.jobs ORDER BY number")
    assert [row["actor"] for row in rows] == ["agent:tester", "agent:other"] * 3


async def test_only_jobs_that_somebody_waits_for_are_awaited(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    await send(http, key)
    assert not await admin_pool.fetchval("SELECT awaited FROM commonplace.jobs")
    waiting = asyncio.create_task(send(http, key, "?wait=true"))
    async with asyncio.timeout(3):
        while not await admin_pool.fetchval("SELECT awaited FROM commonplace.jobs"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await finish_job(admin_pool, await first_job(admin_pool))
    assert (await waiting)["generationJob"]["status"] == "completed"
