"""What a policy promises of a group's due time. Time passes by moving the group's times back, never by waiting."""

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest

from commonplace_runtime.store.pool import Pool
from tests.factories import Key, Team, make_event, make_key, make_team
from tests.integration.runtime.store.test_operator_functions import put_team
from tests.integration.runtime.worker.support import Tenant, put_event, until

WINDOW = 600


async def make_world(admin_pool: Pool, mode: str, window: int = WINDOW) -> tuple[Team, Key]:
    team = await make_team(admin_pool, generation_mode=mode, generation_window_seconds=window)
    return team, await make_key(admin_pool, team.id, project_id=team.project_id)


async def send(http: httpx2.AsyncClient, key: Key, number: int, **changes: Any) -> dict[str, Any]:
    body = make_event(occurredAtEpoch=number, **changes)
    answer = await http.post("/v1/events", json=body, headers=key.headers)
    assert answer.status_code == 201, answer.text
    stored: dict[str, Any] = answer.json()
    return stored


async def send_batch(http: httpx2.AsyncClient, key: Key, numbers: range, **changes: Any) -> None:
    events = [make_event(occurredAtEpoch=number, **changes) for number in numbers]
    answer = await http.post("/v1/events/batch", json=events, headers=key.headers)
    assert answer.status_code == 201, answer.text


async def start(http: httpx2.AsyncClient, key: Key) -> str:
    body = {"externalSessionId": "session-1", "contentSessionId": "session-1", "platformSource": "claude"}
    answer = await http.post("/v1/sessions/start", json=body, headers=key.headers)
    session_id: str = answer.json()["session"]["id"]
    return session_id


async def end(http: httpx2.AsyncClient, key: Key, session_id: str) -> None:
    assert (await http.post(f"/v1/sessions/{session_id}/end", headers=key.headers)).status_code == 200


async def the_group(admin_pool: Pool) -> asyncpg.Record:
    """The only group. `due_in`: seconds until it may be claimed, at most 0 when it may be now."""
    rows = await admin_pool.fetch(
        "SELECT *, extract(epoch FROM available_at - now())::float AS due_in FROM commonplace.job_groups"
    )
    assert len(rows) == 1
    return rows[0]


async def age(admin_pool: Pool, seconds: int) -> None:
    """Let the group's times lie `seconds` further back."""
    await admin_pool.execute(
        "UPDATE commonplace.job_groups SET available_at = available_at - make_interval(secs => $1),"
        " waiting_since = waiting_since - make_interval(secs => $1)",
        seconds,
    )


async def lease(admin_pool: Pool) -> None:
    await admin_pool.execute(
        "UPDATE commonplace.job_groups SET lease_until = now() + interval '1 minute',"
        " available_at = now() + interval '1 minute', leased_by = 'w'"
    )


async def somebody_waits(admin_pool: Pool) -> bool:
    """A statement of this server waits for another's lock."""
    return bool(await admin_pool.fetchval("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"))


async def test_per_event_is_due_at_once(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool, "per-event")
    await send(http, key, 1)
    first = await the_group(admin_pool)
    await send(http, key, 2)
    group = await the_group(admin_pool)
    assert group["due_in"] <= 0
    assert group["available_at"] == first["available_at"], "it keeps its turn"
    assert (group["waiting"], group["waiting_since"]) == (2, first["waiting_since"])


async def test_per_event_brings_a_waiting_group_forward(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool, "per-event")
    await send(http, key, 1)
    await admin_pool.execute("UPDATE commonplace.job_groups SET available_at = now() + interval '1 hour'")
    await send(http, key, 2)
    assert (await the_group(admin_pool))["due_in"] <= 0


async def test_debounce_waits_for_silence_after_the_newest_event(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool, "debounce")
    await send(http, key, 1)
    assert WINDOW - 60 < (await the_group(admin_pool))["due_in"] <= WINDOW
    await age(admin_pool, WINDOW // 2)
    assert (await the_group(admin_pool))["due_in"] <= WINDOW // 2
    await send(http, key, 2)
    assert WINDOW - 60 < (await the_group(admin_pool))["due_in"] <= WINDOW


async def test_debounce_waits_for_ten_windows_at_most(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool, "debounce")
    await send(http, key, 1)
    await admin_pool.execute(
        "UPDATE commonplace.job_groups SET waiting_since = now() - make_interval(secs => $1)", 10 * WINDOW - 100
    )
    await send(http, key, 2)
    assert 0 < (await the_group(admin_pool))["due_in"] <= 100


@pytest.mark.parametrize("in_one_batch", [True, False], ids=["batch", "one by one"])
async def test_debounce_lets_thirty_jobs_go(http: httpx2.AsyncClient, admin_pool: Pool, in_one_batch: bool) -> None:
    _, key = await make_world(admin_pool, "debounce")
    await send_batch(http, key, range(29))
    group = await the_group(admin_pool)
    assert (group["waiting"], group["due_in"] > WINDOW - 60) == (29, True)
    if in_one_batch:
        await send_batch(http, key, range(20, 40))
    else:
        await send(http, key, 29)
    group = await the_group(admin_pool)
    assert (group["waiting"], group["due_in"] <= 0) == (40 if in_one_batch else 30, True)


@pytest.mark.parametrize("mode", ["debounce", "end-of-session"])
async def test_what_is_due_stays_due(http: httpx2.AsyncClient, admin_pool: Pool, mode: str) -> None:
    _, key = await make_world(admin_pool, mode)
    await send(http, key, 1)
    await age(admin_pool, 2 * 86400)
    due = (await the_group(admin_pool))["available_at"]
    await send(http, key, 2)
    assert (await the_group(admin_pool))["available_at"] == due


async def test_the_same_event_again_neither_counts_nor_pushes(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool, "debounce")
    await send(http, key, 1)
    await age(admin_pool, 100)
    before = await the_group(admin_pool)
    await send(http, key, 1)
    await send_batch(http, key, range(1, 2))
    after = await the_group(admin_pool)
    assert (after["available_at"], after["waiting"]) == (before["available_at"], 1)


@pytest.mark.parametrize(("window", "silence"), [(60, 1800), (7200, 7200)])
async def test_end_of_session_waits_half_an_hour_of_silence_at_least(
    http: httpx2.AsyncClient, admin_pool: Pool, window: int, silence: int
) -> None:
    _, key = await make_world(admin_pool, "end-of-session", window)
    await send_batch(http, key, range(40))
    assert silence - 60 < (await the_group(admin_pool))["due_in"] <= silence
    assert await admin_pool.fetchval(
        "SELECT bool_and(run_after - created_at BETWEEN $1::int * interval '1 s' - interval '1 min'"
        " AND $1::int * interval '1 s') FROM commonplace.jobs",
        silence,
    )


async def test_end_of_session_waits_a_day_at_most(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool, "end-of-session")
    await send(http, key, 1)
    await admin_pool.execute("UPDATE commonplace.job_groups SET waiting_since = now() - interval '86300 seconds'")
    await send(http, key, 2)
    assert 0 < (await the_group(admin_pool))["due_in"] <= 100


@pytest.mark.parametrize("mode", ["debounce", "end-of-session"])
async def test_the_end_of_a_session_releases_what_waits(http: httpx2.AsyncClient, admin_pool: Pool, mode: str) -> None:
    team, key = await make_world(admin_pool, mode)
    other = await make_key(admin_pool, team.id, actor="agent:other")
    session_id = await start(http, key)
    for sender in (key, other):
        await send(http, sender, 1)
    await send(http, key, 2, contentSessionId="elsewhere")
    await end(http, key, session_id)
    rows = await admin_pool.fetch(
        "SELECT session_key, available_at <= now() AS is_due, waiting FROM commonplace.job_groups ORDER BY 1"
    )
    assert [(row["session_key"], row["is_due"], row["waiting"]) for row in rows] == [
        ("c:12:agent:tester:claude:elsewhere", False, 1),
        (f"s:{session_id}:agent:other", True, 1),
        (f"s:{session_id}:agent:tester", True, 2),
    ]


async def test_an_end_makes_no_empty_group_claimable(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool, "debounce")
    other = await make_key(admin_pool, team.id, actor="agent:other")
    session_id = await start(http, key)
    await send(http, other, 1)
    await admin_pool.execute("UPDATE commonplace.job_groups SET available_at = NULL, waiting = 0, waiting_since = NULL")
    await end(http, key, session_id)
    found = await admin_pool.fetchval(
        "SELECT available_at FROM commonplace.job_groups WHERE session_key LIKE '%agent:other'"
    )
    assert found is None


@pytest.mark.parametrize("mode", ["per-event", "debounce", "end-of-session"])
async def test_a_leased_group_is_counted_and_otherwise_left_alone(
    http: httpx2.AsyncClient, admin_pool: Pool, mode: str
) -> None:
    _, key = await make_world(admin_pool, mode)
    session_id = await start(http, key)
    await send(http, key, 1)
    await lease(admin_pool)
    leased = await the_group(admin_pool)
    await send(http, key, 2)
    await send_batch(http, key, range(3, 50))
    await end(http, key, session_id)
    group = await the_group(admin_pool)
    kept = ("available_at", "lease_until", "leased_by", "lease_token", "waiting_since")
    assert {name: group[name] for name in kept} == {name: leased[name] for name in kept}
    assert group["waiting"] == 50


@pytest.mark.parametrize("mode", ["debounce", "end-of-session"])
async def test_an_event_without_a_session_never_waits(http: httpx2.AsyncClient, admin_pool: Pool, mode: str) -> None:
    _, key = await make_world(admin_pool, mode)
    await send(http, key, 1, contentSessionId=None)
    await send_batch(http, key, range(2, 5), contentSessionId=None)
    assert await admin_pool.fetchval(
        "SELECT bool_and(available_at <= now() AND waiting = 1) FROM commonplace.job_groups"
    )
    assert await admin_pool.fetchval("SELECT bool_and(run_after <= now()) FROM commonplace.jobs")


async def test_a_batch_of_several_sessions_counts_each(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool, "debounce")
    events = [make_event(occurredAtEpoch=n, contentSessionId=("a", "b", None)[n % 3]) for n in range(10)]
    answer = await http.post("/v1/events/batch", json=events, headers=key.headers)
    assert answer.status_code == 201
    counted = await admin_pool.fetch(
        "SELECT g.waiting, count(*) AS jobs FROM commonplace.job_groups g JOIN commonplace.jobs j"
        " USING (team_id, project_id, session_key) GROUP BY g.session_key, g.waiting ORDER BY g.waiting DESC"
    )
    assert [(row["waiting"], row["jobs"]) for row in counted] == [(4, 4), (3, 3), (1, 1), (1, 1), (1, 1)]


async def test_groups_from_before_the_count_are_brought_into_it(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool, "debounce")
    await send(http, key, 1)
    await admin_pool.execute("UPDATE commonplace.job_groups SET waiting = 0, waiting_since = NULL, available_at = NULL")
    await send(http, key, 2)
    group = await the_group(admin_pool)
    assert group["waiting"] == 1
    assert group["waiting_since"] is not None
    assert WINDOW - 60 < group["due_in"] <= WINDOW


async def test_the_count_stops_at_a_thousand(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool, "per-event")
    await send(http, key, 1)
    await admin_pool.execute("UPDATE commonplace.job_groups SET waiting = 999")
    await send_batch(http, key, range(2, 20))
    assert (await the_group(admin_pool))["waiting"] == 1000


async def test_who_leaves_a_policy_waits_no_longer_but_for_its_retries(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    _, key = await make_world(admin_pool, "debounce")
    for session in ("fresh", "failed"):
        await send(http, key, 1, contentSessionId=session)
    await admin_pool.execute(
        "UPDATE commonplace.jobs SET attempts = 1, last_error = '{}' WHERE session_key LIKE '%failed'"
    )

    await admin_pool.execute("UPDATE commonplace.teams SET generation_mode = 'per-event'")

    rows = await admin_pool.fetch(
        "SELECT available_at <= now() AS is_due FROM commonplace.job_groups ORDER BY session_key LIKE '%failed'"
    )
    assert [row["is_due"] for row in rows] == [True, False]


async def test_an_ingest_and_a_change_of_policy_wait_for_each_other(admin_pool: Pool, operator_pool: Pool) -> None:
    made = await put_team(operator_pool, policies={"generationMode": "debounce"})
    team = UUID(made["teamId"])
    tenant = Tenant(team_id=team, project_id=UUID(made["projects"][0]["id"]), key_id=UUID(int=1))
    await put_event(admin_pool, tenant, session="c:1", delay=600)
    async with admin_pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM commonplace.job_groups FOR UPDATE")
        changing = asyncio.ensure_future(put_team(operator_pool, generation=2))
        await until(lambda: somebody_waits(admin_pool))
        # What an ingest does last.
        await connection.execute(
            "INSERT INTO commonplace.audit_log (team_id, action, resource_type) VALUES ($1, 'x', 'y')", team
        )
    assert (await changing)["outcome"] == "updated"


async def test_an_end_comes_after_what_it_waited_for(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _, key = await make_world(admin_pool, "debounce")
    session_id = await start(http, key)
    await send(http, key, 1)
    async with admin_pool.acquire() as ingesting, ingesting.transaction():
        await ingesting.execute("SELECT FROM commonplace.job_groups FOR UPDATE")
        ending = asyncio.ensure_future(end(http, key, session_id))
        await until(lambda: somebody_waits(admin_pool))
        await ingesting.execute("UPDATE commonplace.jobs SET created_at = clock_timestamp()")
    await ending
    assert await admin_pool.fetchval(
        "SELECT s.ended_at >= max(j.created_at) FROM commonplace.sessions s JOIN commonplace.jobs j"
        " ON j.session_id = s.id AND j.source_type = 'agent_event' GROUP BY s.id"
    )


async def test_waiting_for_a_job_that_a_policy_holds_back_is_in_vain(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    _, key = await make_world(admin_pool, "debounce")
    session_id = await start(http, key)
    body = make_event(serverSessionId=session_id)
    answer = await http.post("/v1/events?wait=true", json=body, headers=key.headers)
    assert answer.json()["waitTimedOut"] is True
    assert answer.json()["generationJob"]["status"] == "queued"
