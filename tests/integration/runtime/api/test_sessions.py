import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from commonplace_runtime.store.pool import Pool
from tests.factories import Key, Team, make_event, make_key, make_project, make_team
from tests.integration.runtime.conftest import CountingDoorbell

GITHUB = "ghp_" + "a1B2" * 9


async def make_world(admin_pool: Pool) -> tuple[Team, Key]:
    team = await make_team(admin_pool)
    return team, await make_key(admin_pool, team.id, project_id=team.project_id)


def make_start(**changes: Any) -> dict[str, Any]:
    """A body for POST /v1/sessions/start, as the real hook sends it with a prompt."""
    return {
        "externalSessionId": "s-1",
        "contentSessionId": "s-1",
        "agentId": None,
        "agentType": None,
        "platformSource": "claude",
        "metadata": {"project": "repo", "prompt": "fix the tests"},
    } | changes


def make_bare_start(**changes: Any) -> dict[str, Any]:
    """The same, as the real hook sends it before the last event of a turn."""
    return {"externalSessionId": "s-1", "contentSessionId": "s-1", "platformSource": "claude"} | changes


async def start(http: httpx2.AsyncClient, key: Key, body: dict[str, Any], status: int = 201) -> dict[str, Any]:
    answer = await http.post("/v1/sessions/start", json=body, headers=key.headers)
    assert answer.status_code == status, answer.text
    session: dict[str, Any] = answer.json()["session"]
    return session


async def end(http: httpx2.AsyncClient, key: Key, session_id: str) -> dict[str, Any]:
    answer = await http.post(f"/v1/sessions/{session_id}/end", json={}, headers=key.headers)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def read(http: httpx2.AsyncClient, key: Key, session_id: str) -> dict[str, Any]:
    answer = await http.get(f"/v1/sessions/{session_id}", headers=key.headers)
    assert answer.status_code == 200, answer.text
    session: dict[str, Any] = answer.json()["session"]
    return session


async def send(http: httpx2.AsyncClient, key: Key, **changes: Any) -> dict[str, Any]:
    answer = await http.post("/v1/events", json=make_event(**changes), headers=key.headers)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def set_status(admin_pool: Pool, job_id: str, status: str) -> None:
    extra = {"processing": ", locked_by = 'w'", "queued": ""}.get(status, f", {status}_at = now()")
    await admin_pool.execute(
        f"UPDATE commonplace.jobs SET status = '{status}'{extra} WHERE id = $1::text::uuid", job_id
    )


async def actions(admin_pool: Pool) -> list[str]:
    rows = await admin_pool.fetch(
        "SELECT action FROM commonplace.audit_log WHERE resource_type = 'server_session' ORDER BY number"
    )
    return [row["action"] for row in rows]


async def test_a_session_has_the_shape_of_the_wire(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    session = await start(http, key, make_start(agentId="a", agentType="sub", platformSource="Claude Code"))
    times = ("startedAtEpoch", "createdAtEpoch", "updatedAtEpoch")
    assert all(isinstance(session[name], int) for name in times)
    assert {**session, "id": "", **dict.fromkeys(times, 0)} == {
        "id": "",
        "projectId": team.project_id,
        "teamId": team.id,
        "externalSessionId": "s-1",
        "contentSessionId": "s-1",
        "agentId": "a",
        "agentType": "sub",
        "platformSource": "claude",
        "generationStatus": "idle",
        "metadata": {"project": "repo", "prompt": "fix the tests"},
        "startedAtEpoch": 0,
        "endedAtEpoch": None,
        "lastGeneratedAtEpoch": None,
        "createdAtEpoch": 0,
        "updatedAtEpoch": 0,
    }
    assert await read(http, key, session["id"]) == session


async def test_a_known_external_id_is_200_with_the_same_session(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    first = await start(http, key, make_start())
    again = await start(http, key, make_start(platformSource="claude-code"), 200)
    assert again["id"] == first["id"]
    for change in ({"platformSource": "cursor"}, {"platformSource": None}, {"externalSessionId": "s-2"}):
        assert (await start(http, key, make_start(**change)))["id"] != first["id"]
    assert (await start(http, key, make_start(platformSource=None), 200))["id"] != first["id"]


@pytest.mark.parametrize(
    ("identity", "other"),
    [
        ({"contentSessionId": "c"}, {"contentSessionId": "d"}),
        ({"externalSessionId": None, "contentSessionId": "c"}, {"contentSessionId": "c", "agentId": "x"}),
        ({"agentId": "a", "platformSource": "cursor"}, {"agentId": "a", "platformSource": "codex"}),
        ({"agentId": "a", "platformSource": "cursor"}, {"agentId": "a", "platformSource": "cursor", "agentType": "t"}),
    ],
    ids=["content", "null counts as absent", "agent", "agent of a type"],
)
async def test_without_an_external_id_each_start_is_201_of_one_identity(
    http: httpx2.AsyncClient, admin_pool: Pool, identity: dict[str, Any], other: dict[str, Any]
) -> None:
    _, key = await make_world(admin_pool)
    first = await start(http, key, identity)
    again = await start(http, key, {**identity, "metadata": {"a": 1}})
    assert (again["id"], again["metadata"]) == (first["id"], {"a": 1})
    assert (await start(http, key, other))["id"] != first["id"]


async def test_a_start_that_names_nothing_is_a_session_of_its_own(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    for body in ({}, {"agentId": "a"}, {"platformSource": "cursor"}):
        assert (await start(http, key, body))["id"] != (await start(http, key, body))["id"]


async def test_starts_at_once_are_one_session_and_one_of_them_made_it(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    _, key = await make_world(admin_pool)
    answers = await asyncio.gather(
        *(http.post("/v1/sessions/start", json=make_start(), headers=key.headers) for _ in range(8))
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["session"]["id"] for answer in answers}) == 1


async def test_every_prompt_of_a_session_is_kept(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    await start(http, key, make_start())
    await start(http, key, make_bare_start(), 200)
    for prompt in ("now the docs", "now the docs of it" + "x" * 5000):
        session = await start(http, key, make_start(metadata={"prompt": prompt}), 200)
    assert session["metadata"]["project"] == "repo"
    assert session["metadata"]["prompt"] == prompt
    assert session["metadata"]["prompts"] == ["fix the tests", "now the docs", prompt[:2000]]
    for number in range(60):
        session = await start(http, key, make_start(metadata={"prompt": str(number)}), 200)
    assert session["metadata"]["prompts"] == [str(number) for number in range(10, 60)]


async def test_metadata_does_not_grow_for_ever(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    await start(http, key, make_start())
    for number in range(5):
        session = await start(http, key, make_start(metadata={str(number): "x" * 200_000, "prompt": "p"}), 200)
    assert len(str(session["metadata"])) < 700_000
    assert session["metadata"]["prompts"][0] == "fix the tests"
    assert await start(http, key, make_bare_start(), 200) | {"updatedAtEpoch": 0} == session | {"updatedAtEpoch": 0}


async def test_private_parts_and_secrets_of_a_prompt_are_never_stored(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    _, key = await make_world(admin_pool)
    for status in (201, 200):
        prompt = f"use {GITHUB} <private>my salary</private> here\0"
        session = await start(http, key, make_start(metadata={"prompt": prompt, "token": GITHUB}), status)
        assert GITHUB not in str(session)
        assert "salary" not in str(session)
        assert session["metadata"]["prompt"].startswith("use [redacted:")
    stored = await admin_pool.fetchval("SELECT string_agg(s::text, '') FROM commonplace.sessions s")
    assert GITHUB not in stored
    assert "salary" not in stored


async def test_ending_asks_for_one_summary_and_rings(
    http: httpx2.AsyncClient, admin_pool: Pool, doorbell: CountingDoorbell
) -> None:
    team, key = await make_world(admin_pool)
    session = await start(http, key, make_start())
    await send(http, key, serverSessionId=session["id"])
    rings = doorbell.rings
    body = await end(http, key, session["id"])
    assert set(body) == {"session", "generationJob"}
    assert body["session"]["endedAtEpoch"] >= session["startedAtEpoch"]
    job = body["generationJob"]
    assert set(job) == {
        *("id", "status", "bullmqJobId", "sourceType", "sourceId", "transport", "createdAtEpoch", "updatedAtEpoch")
    }
    assert (job["sourceType"], job["sourceId"], job["status"]) == ("session_summary", session["id"], "queued")
    assert job["transport"] == "enqueued"
    assert job["bullmqJobId"].startswith("sum_")
    assert doorbell.rings == rings + 1
    row = await admin_pool.fetchrow("SELECT * FROM commonplace.jobs WHERE id = $1::text::uuid", job["id"])
    group = await admin_pool.fetchrow("SELECT * FROM commonplace.job_groups")
    assert row is not None
    assert group is not None
    assert (row["job_type"], row["event_id"]) == ("observation_generate_session_summary", None)
    assert (row["session_key"], row["session_id"]) == (group["session_key"], UUID(session["id"]))
    assert (row["actor"], str(row["key_id"]), str(row["team_id"])) == ("agent:tester", key.id, team.id)
    assert (group["waiting"], group["session_id"]) == (2, UUID(session["id"]))


async def test_ending_twice_with_nothing_in_between_changes_nothing(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    session = await start(http, key, make_start())
    await send(http, key, serverSessionId=session["id"])
    first = await end(http, key, session["id"])
    for status in ("queued", "processing", "completed", "failed"):
        await set_status(admin_pool, first["generationJob"]["id"], status)
        again = await end(http, key, session["id"])
        assert again["session"] == first["session"] | {"generationStatus": again["session"]["generationStatus"]}
        assert again["generationJob"]["id"] == first["generationJob"]["id"]
        await admin_pool.execute(
            "UPDATE commonplace.jobs SET status = 'queued', locked_by = NULL, completed_at = NULL, failed_at = NULL"
        )
    assert await admin_pool.fetchval("SELECT waiting FROM commonplace.job_groups") == 2


async def test_a_further_turn_gets_a_further_summary_once_the_last_was_taken(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    _, key = await make_world(admin_pool)
    seen: list[str] = []
    for turn, status in enumerate(("completed", "processing", "failed", "cancelled")):
        await start(http, key, make_start() if turn == 0 else make_bare_start(), 201 if turn == 0 else 200)
        event = await send(http, key, contentSessionId="s-1", platformSource="claude", occurredAtEpoch=turn)
        seen.append((await end(http, key, event["event"]["serverSessionId"]))["generationJob"]["id"])
        await set_status(admin_pool, seen[-1], status)
    assert len(set(seen)) == 4
    rows = await admin_pool.fetch(
        "SELECT revision FROM commonplace.jobs WHERE source_type = 'session_summary' ORDER BY number"
    )
    assert [row["revision"] for row in rows] == [1, 2, 3, 4]


async def test_a_summary_still_queued_moves_behind_what_it_now_covers(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    _, key = await make_world(admin_pool)
    session = await start(http, key, make_start())
    await send(http, key, serverSessionId=session["id"])
    first = await end(http, key, session["id"])
    await start(http, key, make_bare_start(), 200)
    await send(http, key, serverSessionId=session["id"], occurredAtEpoch=7)
    again = await end(http, key, session["id"])
    assert again["generationJob"]["id"] == first["generationJob"]["id"]
    rows = await admin_pool.fetch("SELECT source_type FROM commonplace.jobs ORDER BY number")
    assert [row["source_type"] for row in rows] == ["agent_event", "agent_event", "session_summary"]
    assert await admin_pool.fetchval("SELECT max(covers_event) FROM commonplace.jobs") == await admin_pool.fetchval(
        "SELECT max(number) FROM commonplace.events"
    )


async def test_a_session_that_is_started_again_is_open_again(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    session = await start(http, key, make_start())
    ended = (await end(http, key, session["id"]))["session"]["endedAtEpoch"]
    assert (await start(http, key, make_bare_start(), 200))["endedAtEpoch"] is None
    assert (await end(http, key, session["id"]))["session"]["endedAtEpoch"] >= ended


async def test_a_session_without_events_gets_its_summary_job_too(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    session = await start(http, key, {})
    first, again = [await end(http, key, session["id"]) for _ in range(2)]
    assert first["generationJob"]["id"] == again["generationJob"]["id"]
    assert await admin_pool.fetchval("SELECT available_at <= now() FROM commonplace.job_groups")


async def test_ends_at_once_by_two_actors_share_one_summary(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    other = await make_key(admin_pool, team.id, actor="agent:other")
    session = await start(http, key, make_start())
    for sender in (key, other):
        await send(http, sender, serverSessionId=session["id"])
    answers = await asyncio.gather(*(end(http, sender, session["id"]) for sender in (key, other) * 5))
    assert len({answer["generationJob"]["id"] for answer in answers}) == 1
    assert await admin_pool.fetchval("SELECT sum(waiting) FROM commonplace.job_groups") == 3


async def test_ends_and_events_and_workers_at_once_lose_nothing(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    session = await start(http, key, make_start())

    async def turn(number: int) -> None:
        await send(http, key, serverSessionId=session["id"], occurredAtEpoch=number)
        await end(http, key, session["id"])

    await asyncio.gather(*(turn(number) for number in range(12)))
    newest = await admin_pool.fetchval("SELECT max(number) FROM commonplace.events")
    assert await admin_pool.fetchval("SELECT max(covers_event) FROM commonplace.jobs") == newest
    waiting, open_jobs = await admin_pool.fetchval("SELECT waiting FROM commonplace.job_groups"), 13
    assert waiting == open_jobs == await admin_pool.fetchval("SELECT count(*) FROM commonplace.jobs")


async def test_the_generation_status_is_what_its_groups_do(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    session = await start(http, key, make_start())
    seen = [session["generationStatus"]]
    await send(http, key, serverSessionId=session["id"])
    seen.append((await read(http, key, session["id"]))["generationStatus"])
    await admin_pool.execute("UPDATE commonplace.job_groups SET lease_until = now() + interval '1 minute'")
    seen.append((await read(http, key, session["id"]))["generationStatus"])
    await admin_pool.execute("UPDATE commonplace.job_groups SET lease_until = NULL, waiting = 0, available_at = NULL")
    await admin_pool.execute("UPDATE commonplace.sessions SET last_generated_at = now()")
    seen.append((await read(http, key, session["id"]))["generationStatus"])
    assert seen == ["idle", "queued", "processing", "completed"]


async def test_both_vocabularies_are_audited(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    session = await start(http, key, make_start())
    await start(http, key, make_start(), 200)
    assert await actions(admin_pool) == ["session.write", "session.start"]
    await end(http, key, session["id"])
    await end(http, key, session["id"])
    assert await actions(admin_pool) == ["session.write", "session.start", "session.end", "session.end"]
    row = await admin_pool.fetchrow(
        "SELECT * FROM commonplace.audit_log WHERE action = 'session.end' ORDER BY number LIMIT 1"
    )
    assert row is not None
    assert (row["resource_id"], str(row["project_id"]), str(row["key_id"])) == (session["id"], team.project_id, key.id)
    assert row["request_id"] == row["details"]["requestId"]


async def test_who_reaches_a_session(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    session = await start(http, key, make_start())
    path = f"/v1/sessions/{session['id']}"
    callers = {
        "team": await make_key(admin_pool, team.id),
        "sibling": await make_key(admin_pool, team.id, project_id=await make_project(admin_pool, team.id, "web")),
        "other": await make_key(admin_pool, (await make_team(admin_pool)).id),
    }
    seen = {}
    for name, caller in callers.items():
        answers = [await http.get(path, headers=caller.headers), await http.post(f"{path}/end", headers=caller.headers)]
        seen[name] = [(answer.status_code, answer.json().get("message")) for answer in answers]
    assert [status for status, _ in seen["team"]] == [200, 200]
    assert seen["sibling"] == [(403, "API key is scoped to a different project")] * 2
    assert seen["other"] == [(404, "Session not found")] * 2
    for unknown in ("nonsense", str(uuid4()), "%00"):
        answer = await http.get(f"/v1/sessions/{unknown}", headers=key.headers)
        assert (answer.status_code, answer.json()) == (404, {"error": "NotFound", "message": "Session not found"})
        assert (await http.post(f"/v1/sessions/{unknown}/end", headers=key.headers)).status_code == 404


async def test_a_foreign_project_is_403_and_starts_nothing(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    web = await make_project(admin_pool, team.id, "web")
    other = await make_team(admin_pool)
    bound = await make_key(admin_pool, team.id, project_id=team.project_id)
    free = await make_key(admin_pool, team.id)
    for key, project, message in (
        (bound, web, "API key is scoped to a different project"),
        (free, other.project_id, "project_id must belong to team_id"),
        (free, "nonsense", "project_id must belong to team_id"),
    ):
        answer = await http.post("/v1/sessions/start", json=make_start(projectId=project), headers=key.headers)
        assert (answer.status_code, answer.json()) == (403, {"error": "Forbidden", "message": message})
    answer = await http.post("/v1/sessions/start", json=make_start(), headers=free.headers)
    assert answer.json()["issues"][0]["path"] == ["projectId"]
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.sessions") == 0
    assert (await start(http, free, make_start(projectId="web")))["projectId"] == web


@pytest.mark.parametrize(
    ("scopes", "writes", "reads"),
    [
        (("memories:write",), True, False),
        (("sessions:write",), True, False),
        (("*",), True, True),
        (("observations:read", "jobs:read", "memories:read"), False, True),
        (("events:write",), False, False),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, tuple) else None,
)
async def test_which_scopes_open_sessions(
    http: httpx2.AsyncClient, admin_pool: Pool, scopes: tuple[str, ...], writes: bool, reads: bool
) -> None:
    team, owner = await make_world(admin_pool)
    path = f"/v1/sessions/{(await start(http, owner, make_start()))['id']}"
    key = await make_key(admin_pool, team.id, project_id=team.project_id, scopes=scopes)
    begun = await http.post("/v1/sessions/start", json={}, headers=key.headers)
    ended = await http.post(f"{path}/end", headers=key.headers)
    found = await http.get(path, headers=key.headers)
    assert (begun.status_code, ended.status_code) == ((201, 200) if writes else (403, 403))
    assert found.status_code == (200 if reads else 403)


@pytest.mark.parametrize(
    ("change", "path", "expected"),
    [
        ({"externalSessionId": 5}, ["externalSessionId"], "string"),
        ({"metadata": []}, ["metadata"], "record"),
        ({"metadata": "x"}, ["metadata"], "record"),
        ({"agentId": ""}, ["agentId"], None),
        ({"platformSource": 1}, ["platformSource"], "string"),
    ],
)
async def test_issues_of_a_start_say_where_and_what(
    http: httpx2.AsyncClient, admin_pool: Pool, change: dict[str, Any], path: list[str], expected: str | None
) -> None:
    _, key = await make_world(admin_pool)
    answer = await http.post("/v1/sessions/start", json=make_start(**change), headers=key.headers)
    assert answer.status_code == 400
    issue = answer.json()["issues"][0]
    assert (issue["path"], issue.get("expected")) == (path, expected)


async def test_an_end_looks_at_no_body(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    path = f"/v1/sessions/{(await start(http, key, make_start()))['id']}/end"
    for content in (b"", b"{", b"[]"):
        headers = {**key.headers, "Content-Type": "application/json"}
        assert (await http.post(path, content=content, headers=headers)).status_code == 200


async def test_names_of_any_length_start_a_session(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool)
    name = "".join(f"{number:08x}" for number in range(0, 2_000_000_000, 4_000_000))
    first = await start(http, key, make_start(externalSessionId=name))
    assert (await start(http, key, make_start(externalSessionId=name), 200))["id"] == first["id"]


async def test_in_a_private_team_a_prompt_is_its_askers_alone(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool, default_visibility="private")
    ann, bob = [
        await make_key(admin_pool, team.id, project_id=team.project_id, actor=actor)
        for actor in ("human:ann", "human:bob")
    ]
    session = await start(http, ann, make_start(metadata={"project": "repo", "prompt": "only mine"}))
    assert session["metadata"]["prompt"] == "only mine"
    assert (await read(http, ann, session["id"]))["metadata"]["prompt"] == "only mine"
    assert (await read(http, bob, session["id"]))["metadata"] == {"project": "repo"}
    assert (await end(http, bob, session["id"]))["session"]["metadata"] == {"project": "repo"}
    exported = await http.get("/v1/export", params={"include": "sessions"}, headers=bob.headers)
    assert exported.status_code == 200
    assert "only mine" not in exported.text
    seized = await start(http, bob, make_start(metadata={"prompt": "and mine"}), status=200)
    assert seized["metadata"] == {"project": "repo", "prompt": "and mine"}


async def test_in_a_team_that_shares_prompts_are_seen_by_all(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    other = await make_key(admin_pool, team.id, project_id=team.project_id, actor="human:bob")
    session = await start(http, key, make_start())
    assert (await read(http, other, session["id"]))["metadata"]["prompt"] == "fix the tests"
