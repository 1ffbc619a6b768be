"""Jobs for people: what the lists tell, and what retrying and cancelling do to job, group, audit and worker."""

import asyncio
from typing import Any
from uuid import UUID

import httpx2
import pytest

from commonplace_runtime.ids import uuid7
from commonplace_runtime.store import jobs as queue
from commonplace_runtime.store.job_views import CHANNEL
from commonplace_runtime.store.jobs import Claimed
from commonplace_runtime.store.pool import Pool, Record
from tests.factories import Key, Team, make_event, make_key, make_project, make_team
from tests.integration.runtime.conftest import CountingDoorbell

ENDED = {"failed": "failed_at = now()", "cancelled": "cancelled_at = now()", "completed": "completed_at = now()"}


async def tenant(pool: Pool, **columns: Any) -> tuple[Team, Key]:
    team = await make_team(pool, **columns)
    return team, await make_key(pool, team.id)


async def put(http: httpx2.AsyncClient, key: Key, **event: Any) -> str:
    """The id of the job of a new event."""
    body = make_event(payload={"text": str(uuid7())}, projectId=event.pop("projectId", None), **event)
    answer = await http.post("/v1/events", json=body, headers=key.headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["generationJob"]["id"])


async def end(pool: Pool, job_id: str, status: str, *, classification: str = "poison", attempts: int = 3) -> None:
    """As a worker or a person leaves a job, its group with nothing to do."""
    row = await pool.fetchrow(
        f"UPDATE commonplace.jobs SET status = $2, {ENDED[status]}, attempts = $3, last_error = $4 WHERE id = $1"
        " RETURNING team_id, project_id, session_key",
        UUID(job_id),
        status,
        attempts,
        {"reason": "it broke", "classification": classification},
    )
    assert row is not None
    await pool.execute("SELECT commonplace.free_group($1, $2, $3)", *row)


async def claim(pool: Pool, *, lease_seconds: int = 60, worker: str = "w") -> Claimed:
    found = await queue.claim(pool, worker=worker, lease_seconds=lease_seconds, max_jobs=30)
    assert found is not None
    assert found.claimed is not None
    return found.claimed


async def expire_leases(pool: Pool) -> None:
    await pool.execute(
        "UPDATE commonplace.job_groups SET lease_until = now() - interval '1 s', available_at = now() - interval '1 s'"
        " WHERE lease_until IS NOT NULL"
    )


async def job_row(pool: Pool, job_id: str) -> Record:
    row = await pool.fetchrow(
        "SELECT j.*, g.waiting, g.waiting_since, g.lease_until, g.available_at <= now() AS is_claimable"
        " FROM commonplace.jobs j JOIN commonplace.job_groups g USING (team_id, project_id, session_key)"
        " WHERE j.id = $1",
        UUID(job_id),
    )
    assert row is not None
    return row


async def audits(pool: Pool, action: str) -> list[Record]:
    return list(await pool.fetch("SELECT * FROM commonplace.audit_log WHERE action = $1 ORDER BY number", action))


async def retry(http: httpx2.AsyncClient, key: Key, job_id: str) -> httpx2.Response:
    return await http.post(f"/v1/jobs/{job_id}/retry", headers=key.headers)


async def cancel(http: httpx2.AsyncClient, key: Key, job_id: str) -> httpx2.Response:
    return await http.post(f"/v1/jobs/{job_id}/cancel", headers=key.headers)


def completion(claimed: Claimed) -> dict[str, Any]:
    jobs = [{"id": str(job.id), "memories": []} for job in claimed.jobs]
    spent = [{"model": "m", "inputTokens": 70, "outputTokens": 30, "costMicrousd": 5}]
    return {"provider": "p", "model": "m", "spent": spent, "seconds": 1.0, "jobs": jobs}


async def test_a_list_is_newest_first_and_paged(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await tenant(admin_pool)
    made = []
    for _ in range(5):
        made.append(await put(http, key))
        await asyncio.sleep(0.002)  # ids order by milliseconds
    answer = (await http.get("/v1/jobs?limit=2&offset=1", headers=key.headers | {"X-Request-Id": "rq-1"})).json()
    assert [job["id"] for job in answer["jobs"]] == [made[3], made[2]]
    assert (answer["total"], answer["limit"], answer["offset"], answer["requestId"]) == (5, 2, 1, "rq-1")
    assert set(answer["jobs"][0]) == {
        *("id", "projectId", "teamId", "sourceType", "sourceId", "status", "attempts", "maxAttempts"),
        *("createdAtEpoch", "completedAtEpoch", "failedAtEpoch", "lastError"),
    }
    assert answer["jobs"][0]["teamId"] == team.id


@pytest.mark.parametrize(
    ("asked", "clamped"),
    [
        ("", (50, 0)),
        ("?limit=0&offset=-4", (1, 0)),
        ("?limit=1000&offset=3", (200, 3)),
        ("?limit=ten&offset=x", (50, 0)),
        ("?limit=7.9&offset=2e3", (7, 2)),
        ("?offset=99999999999", (50, 100_000)),
        ("?status=nonsense&source_type=nonsense&since=yesterday", (50, 0)),
    ],
)
async def test_what_cannot_be_a_page_is_clamped(
    http: httpx2.AsyncClient, admin_pool: Pool, asked: str, clamped: tuple[int, int]
) -> None:
    _team, key = await tenant(admin_pool)
    await put(http, key)
    answer = (await http.get(f"/v1/jobs{asked}", headers=key.headers)).json()
    assert (answer["limit"], answer["offset"]) == clamped
    assert answer["total"] == 1


async def test_lists_are_filtered(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _team, key = await tenant(admin_pool)
    waiting, throttled, poisoned = [await put(http, key) for _ in range(3)]
    await end(admin_pool, throttled, "failed", classification="throttled")
    await end(admin_pool, poisoned, "failed")

    async def ids(asked: str) -> set[str]:
        answer = (await http.get(f"/v1/jobs?{asked}", headers=key.headers)).json()
        assert answer["total"] == len(answer["jobs"])
        return {job["id"] for job in answer["jobs"]}

    assert await ids("status=failed") == {throttled, poisoned}
    assert await ids("status=queued") == {waiting}
    assert await ids("status=failed&classification=throttled") == {throttled}
    assert await ids("source_type=session_summary") == set()
    assert await ids("source_type=agent_event") == {waiting, throttled, poisoned}
    assert await ids("since=2020-01-01") == {waiting, throttled, poisoned}
    for later in ("2999", "2999-11", "2999-11-21T10:30", "Nov 21, 2999", "11/21/2999"):
        assert await ids(f"since={later}") == set(), later
    assert await ids("since=Wed, 01 Jan 2020 00:00:00 GMT") == {waiting, throttled, poisoned}
    assert await ids("since=2999-01-01T00:00:00Z") == set()
    assert await ids("since=0001-01-01T00:00:00%2B23:00") == {waiting, throttled, poisoned}, "no such moment: ignored"
    assert await ids("classification=a%00b") == set()


async def test_a_total_is_exact_up_to_its_bound_and_never_dear(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await tenant(admin_pool)
    await put(http, key)
    await admin_pool.execute(
        """
        INSERT INTO commonplace.jobs (id, team_id, project_id, session_key, source_type, source_id, job_type, actor)
        SELECT commonplace.first_id_of(now() - n * interval '1 ms'), team_id, project_id, session_key,
            'session_summary', gen_random_uuid(), 'summary', 'a'
        FROM commonplace.jobs, generate_series(1, 10100) n WHERE team_id = $1
        """,
        UUID(team.id),
    )
    first = (await http.get("/v1/jobs?limit=1", headers=key.headers)).json()
    last = (await http.get("/v1/jobs?limit=200&offset=10050", headers=key.headers)).json()
    assert (first["total"], last["total"], len(last["jobs"])) == (10_000, 10_101, 51)


async def test_payloads_are_for_administrators(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await tenant(admin_pool)
    job_id = await put(http, key)
    admin = await make_key(admin_pool, team.id, scopes=["memories:read", "memories:admin"])
    only_admin = await make_key(admin_pool, team.id, scopes=["memories:admin"])
    refused = await http.get("/v1/jobs?include=payload", headers=key.headers)
    assert (refused.status_code, refused.json()["message"]) == (403, "`include=payload` requires admin scope")
    assert (await http.get("/v1/jobs", headers=only_admin.headers)).status_code == 403
    payload = (await http.get("/v1/jobs?include=payload", headers=admin.headers)).json()["jobs"][0]["payload"]
    assert (payload["kind"], payload["generation_job_id"], payload["team_id"]) == ("event", job_id, team.id)
    assert (payload["source_adapter"], payload["api_key_id"]) == ("hook", key.id)
    (noted,) = [row["details"] for row in await audits(admin_pool, "observation.read")]
    assert (noted["mode"], noted["includePayload"], noted["resultCount"]) == ("jobs_list", True, 1)


async def test_a_key_sees_the_jobs_that_it_reaches(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await tenant(admin_pool)
    other_team, other_key = await tenant(admin_pool)
    sibling = await make_project(admin_pool, team.id, "sibling")
    bound = await make_key(admin_pool, team.id, project_id=team.project_id)
    ours, theirs = await put(http, key, projectId="default"), await put(http, key, projectId="sibling")
    foreign = await put(http, other_key)

    async def answer(path: str, by: Key) -> tuple[int, Any]:
        got = await http.get(path, headers=by.headers)
        body = got.json()
        return got.status_code, {job["id"] for job in body["jobs"]} if got.status_code == 200 else body["message"]

    assert await answer("/v1/jobs", key) == (200, {ours, theirs})
    assert await answer("/v1/jobs", bound) == (200, {ours})
    assert await answer("/v1/jobs?projectId=sibling", key) == (200, {theirs})
    assert await answer("/v1/jobs?projectId=nothing", key) == (200, set())
    assert await answer(f"/v1/jobs?projectId={other_team.project_id}", key) == (200, set())
    assert await answer("/v1/jobs?projectId=sibling", bound) == (200, set())
    assert await answer(f"/v1/teams/{team.id}/jobs", key) == (200, {ours, theirs})
    assert await answer(f"/v1/teams/{team.id}/jobs", bound) == (200, {ours})
    assert await answer(f"/v1/teams/{other_team.id}/jobs", key) == (404, "Team not found")
    assert await answer(f"/v1/projects/{sibling}/jobs", key) == (200, {theirs})
    assert await answer(f"/v1/projects/{sibling}/jobs", bound) == (404, "Project not found")
    assert await answer(f"/v1/projects/{other_team.project_id}/jobs", key) == (404, "Project not found")
    assert await answer(f"/v1/projects/{team.project_id}/jobs?status=failed", bound) == (200, set())
    modes = [row["details"]["mode"] for row in await audits(admin_pool, "observation.read")]
    assert {mode: modes.count(mode) for mode in modes} == {"jobs_list": 3, "team_jobs": 2, "project_jobs": 2}
    for job_id, by in ((foreign, key), (theirs, bound), ("no-id", key), ("%00", key)):
        for method, path in (("GET", ""), ("POST", "/retry"), ("POST", "/cancel")):
            got = await http.request(method, f"/v1/jobs/{job_id}{path}", headers=by.headers)
            assert (got.status_code, got.json()["message"]) == (404, "Generation job not found")


async def test_who_only_reads_or_only_captures_changes_no_job(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await tenant(admin_pool)
    job_id = await put(http, key)
    narrow = await make_key(admin_pool, team.id, scopes=["memories:read", "jobs:read", "events:write"])
    assert (await http.get(f"/v1/jobs/{job_id}", headers=narrow.headers)).status_code == 200
    for path in (f"{job_id}/retry", f"{job_id}/cancel", "retry"):
        assert (await http.post(f"/v1/jobs/{path}", json={}, headers=narrow.headers)).status_code == 403


async def test_a_job_says_what_holds_it_back(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await tenant(admin_pool)
    job_id = await put(http, key)
    free = (await http.get(f"/v1/jobs/{job_id}", headers=key.headers)).json()["generationJob"]
    await admin_pool.execute(
        "INSERT INTO commonplace.team_holds (team_id, held_until, reason) VALUES ($1, '2999-01-01Z', 'cost')",
        UUID(team.id),
    )
    held = (await http.get(f"/v1/jobs/{job_id}", headers=key.headers)).json()["generationJob"]
    assert "heldUntil" not in free
    assert (held["heldUntil"], held["holdReason"]) == ("2999-01-01T00:00:00.000Z", "cost")
    assert held["retriedCount"] == 0


@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_an_ended_job_is_retried_with_exactly_one_more_attempt(
    http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool, doorbell: CountingDoorbell, status: str
) -> None:
    _team, key = await tenant(admin_pool)
    job_id = await put(http, key)
    await end(admin_pool, job_id, status)
    rings = doorbell.rings
    assert await queue.claim(runtime_pool, worker="w", lease_seconds=60, max_jobs=10) is None

    answer = await retry(http, key, job_id)

    body = answer.json()
    job = body["generationJob"]
    assert (answer.status_code, body["retriedCount"], body["alreadyQueued"]) == (200, 1, False)
    assert (job["status"], job["attempts"], job["lastError"], job["failedAtEpoch"], job["cancelledAtEpoch"]) == (
        *("queued", 2, None),
        *(None, None),
    )
    row = await job_row(admin_pool, job_id)
    assert (row["waiting"], row["is_claimable"], row["waiting_since"]) == (1, True, row["created_at"])
    assert row["payload"] == {
        "retried_count": 1,
        "last_retried_by_actor": "agent:tester",
        "last_retried_request_id": body["requestId"],
    }
    assert doorbell.rings == rings + 1
    (noted,) = await audits(admin_pool, "generation_job.retried_by_operator")
    assert noted["details"] == {
        "previousStatus": status,
        "currentStatus": "queued",
        "retriedCount": 1,
        "requestId": body["requestId"],
    }
    assert (noted["resource_id"], str(noted["key_id"]), noted["actor"]) == (job_id, key.id, "agent:tester")
    claimed = await claim(runtime_pool)
    assert [(str(one.id), one.attempt, one.max_attempts) for one in claimed.jobs] == [(job_id, 3, 3)]


async def test_a_queued_job_that_waits_for_its_retry_is_let_go_now(
    http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool, doorbell: CountingDoorbell
) -> None:
    _team, key = await tenant(admin_pool)
    older, younger = await put(http, key), await put(http, key)
    await admin_pool.execute(
        "UPDATE commonplace.jobs SET attempts = 1, run_after = now() + interval '1 hour', last_error = '{}'"
    )
    await admin_pool.execute("UPDATE commonplace.job_groups SET available_at = now() + interval '1 hour'")
    rings = doorbell.rings

    body = (await retry(http, key, younger)).json()

    assert (body["alreadyQueued"], body["retriedCount"], body["generationJob"]["attempts"]) == (True, 0, 1)
    assert doorbell.rings == rings + 1
    assert [str(job.id) for job in (await claim(runtime_pool)).jobs] == [older, younger], (
        "the older one stands before it"
    )
    (noted,) = await audits(admin_pool, "generation_job.retried_by_operator")
    assert (noted["details"]["outcome"], noted["details"]["currentAttempts"]) == ("noop_already_queued", 1)


async def test_a_policy_does_not_hold_what_a_person_asks_for(
    http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool
) -> None:
    _team, key = await tenant(admin_pool, generation_mode="debounce", generation_window_seconds=3600)
    job_id = await put(http, key)
    assert await queue.claim(runtime_pool, worker="w", lease_seconds=60, max_jobs=10) is None
    await retry(http, key, job_id)
    assert [str(job.id) for job in (await claim(runtime_pool)).jobs] == [job_id]


async def test_a_job_under_a_lease_or_completed_is_not_retried(
    http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool
) -> None:
    _team, key = await tenant(admin_pool)
    job_id = await put(http, key)
    claimed = await claim(runtime_pool)
    running = await retry(http, key, job_id)
    await queue.complete(runtime_pool, claimed.lease, completion(claimed))
    done = await retry(http, key, job_id)
    assert (running.status_code, running.json()) == (
        409,
        {
            "error": "Conflict",
            "message": "Generation job is currently processing; cancel or wait for completion before retrying",
        },
    )
    assert (done.status_code, done.json()["message"]) == (
        409,
        "Generation job already completed; retrying would duplicate observations",
    )
    assert await audits(admin_pool, "generation_job.retried_by_operator") == []


async def test_a_job_whose_worker_died_on_its_last_attempt_is_queued_again(
    http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool
) -> None:
    _team, key = await tenant(admin_pool)
    job_id = await put(http, key)
    await admin_pool.execute("UPDATE commonplace.jobs SET attempts = 2")
    lost = await claim(runtime_pool)
    await expire_leases(admin_pool)

    body = (await retry(http, key, job_id)).json()

    assert (body["generationJob"]["status"], body["retriedCount"], body["alreadyQueued"]) == ("queued", 1, False)
    late = await queue.complete(runtime_pool, lost.lease, completion(lost))
    assert (late["jobs"], (await job_row(admin_pool, job_id))["status"]) == (0, "queued"), "the old call is discarded"
    again = await claim(runtime_pool)
    assert [(str(job.id), job.attempt) for job in again.jobs] == [(job_id, 3)]


async def test_a_retry_beside_a_running_call_waits_for_its_worker(
    http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool
) -> None:
    _team, key = await tenant(admin_pool)
    dead = await put(http, key)
    await end(admin_pool, dead, "failed")
    await put(http, key)
    claimed = await claim(runtime_pool)

    await retry(http, key, dead)

    assert (await job_row(admin_pool, dead))["lease_until"] is not None
    assert await queue.claim(runtime_pool, worker="v", lease_seconds=60, max_jobs=10) is None
    await queue.complete(runtime_pool, claimed.lease, completion(claimed))
    assert [str(job.id) for job in (await claim(runtime_pool)).jobs] == [dead]


async def test_cancelling_is_final_and_said_once(
    http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool
) -> None:
    _team, key = await tenant(admin_pool)
    job_id = await put(http, key)
    first, second = await cancel(http, key, job_id), await cancel(http, key, job_id)
    assert (first.json()["generationJob"]["status"], first.json()["alreadyCancelled"]) == ("cancelled", False)
    assert (second.status_code, second.json()["alreadyCancelled"]) == (200, True)
    row = await job_row(admin_pool, job_id)
    assert (row["waiting"], row["is_claimable"]) == (0, None)
    assert await queue.claim(runtime_pool, worker="w", lease_seconds=60, max_jobs=10) is None
    details = [row["details"] for row in await audits(admin_pool, "generation_job.cancelled_by_operator")]
    assert details == [
        {"previousStatus": "queued", "currentStatus": "cancelled", "requestId": first.json()["requestId"]},
        {"outcome": "noop_already_cancelled", "requestId": second.json()["requestId"]},
    ]


async def test_a_failed_job_can_be_cancelled_and_a_completed_one_cannot(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    _team, key = await tenant(admin_pool)
    failed, completed = await put(http, key), await put(http, key)
    await end(admin_pool, failed, "failed")
    await end(admin_pool, completed, "completed")
    given_up = (await cancel(http, key, failed)).json()["generationJob"]
    assert (given_up["status"], given_up["failedAtEpoch"], given_up["lastError"]["reason"]) == (
        *("cancelled", None),
        "it broke",
    )
    refused = await cancel(http, key, completed)
    assert (refused.status_code, refused.json()["message"]) == (
        409,
        "Generation job already completed; cannot cancel",
    )


async def test_the_result_of_a_cancelled_call_is_discarded_and_its_tokens_count(
    http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool
) -> None:
    _team, key = await tenant(admin_pool)
    job_id = await put(http, key)
    claimed = await claim(runtime_pool)

    await cancel(http, key, job_id)

    younger = await put(http, key)
    results = completion(claimed)
    memory = {"id": str(uuid7()), "index": 0, "kind": "observation", "title": "t", "content": "c", "metadata": {}}
    sources = [{"eventId": str(claimed.jobs[0].event_id), "jobId": job_id}]
    results["jobs"][0]["memories"] = [memory | {"keywords": [], "tags": [], "replaces": [], "sources": sources}]
    written = await queue.complete(runtime_pool, claimed.lease, results)
    assert (written["outcome"], written["jobs"], written["memories"]) == ("written", 0, 0)
    assert (await job_row(admin_pool, job_id))["status"] == "cancelled"
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.memories") == 0
    assert (await http.get("/v1/usage", headers=key.headers)).json()["usage"]["tokens"] == 100
    assert [str(job.id) for job in (await claim(runtime_pool)).jobs] == [younger], "the group is free again"


async def test_who_waits_for_a_job_is_told_that_it_was_cancelled(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _team, key = await tenant(admin_pool)
    job_id = await put(http, key)
    heard: list[str] = []

    def hear(*notice: object) -> None:
        heard.append(str(notice[-1]))

    async with admin_pool.acquire() as listener:
        await listener.add_listener(CHANNEL, hear)
        await cancel(http, key, job_id)
        await cancel(http, key, job_id)
        await listener.fetchval("SELECT 1")
        await listener.remove_listener(CHANNEL, hear)
    assert heard == [job_id]


async def test_many_dead_letters_are_put_back_at_once(
    http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool, doorbell: CountingDoorbell
) -> None:
    _team, key = await tenant(admin_pool)
    throttled = [await put(http, key, contentSessionId=f"session-{n % 3}") for n in range(7)]
    poisoned, cancelled = await put(http, key), await put(http, key)
    for job_id in throttled:
        await end(admin_pool, job_id, "failed", classification="throttled", attempts=1)
    await end(admin_pool, poisoned, "failed")
    await end(admin_pool, cancelled, "cancelled")
    rings = doorbell.rings
    asked = {"classification": "throttled", "limit": 5}

    first = (await http.post("/v1/jobs/retry", json=asked, headers=key.headers)).json()
    second = (await http.post("/v1/jobs/retry", json=asked, headers=key.headers)).json()
    third = (await http.post("/v1/jobs/retry", json=asked, headers=key.headers)).json()

    assert [(done["retried"], done["remaining"]) for done in (first, second, third)] == [(5, 2), (2, 0), (0, 0)]
    assert doorbell.rings == rings + 2
    assert (await job_row(admin_pool, poisoned))["status"] == "failed"
    assert (await job_row(admin_pool, cancelled))["status"] == "cancelled"
    assert len(await audits(admin_pool, "generation_job.retried_by_operator")) == 7
    bulk = [row["details"] for row in await audits(admin_pool, "generation_jobs.retried_by_operator")]
    assert [noted["retriedCount"] for noted in bulk] == [5, 2, 0]
    assert (bulk[0]["classification"], bulk[0]["status"]) == ("throttled", "failed")
    claimed = [str(job.id) for _ in range(3) for job in (await claim(runtime_pool)).jobs]
    assert sorted(claimed) == sorted(throttled)


async def test_a_bulk_retry_stays_within_what_the_key_reaches(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await tenant(admin_pool)
    _other, other_key = await tenant(admin_pool)
    await make_project(admin_pool, team.id, "sibling")
    bound = await make_key(admin_pool, team.id, project_id=team.project_id)
    ours, theirs = await put(http, key, projectId="default"), await put(http, key, projectId="sibling")
    foreign = await put(http, other_key)
    for job_id in (ours, theirs, foreign):
        await end(admin_pool, job_id, "failed")
    refused = await http.post("/v1/jobs/retry", json={"projectId": "sibling"}, headers=bound.headers)
    assert (refused.status_code, refused.json()["message"]) == (404, "Project not found")
    assert (await http.post("/v1/jobs/retry", headers=bound.headers, json={})).json()["retried"] == 1
    assert [(await job_row(admin_pool, job_id))["status"] for job_id in (ours, theirs, foreign)] == [
        *("queued", "failed"),
        "failed",
    ]


@pytest.mark.parametrize(
    ("body", "path"),
    [({"limit": 1001}, "limit"), ({"limit": 0}, "limit"), ({"status": "queued"}, "status"), ({"since": "x"}, "since")],
)
async def test_a_bulk_retry_that_is_not_understood_does_nothing(
    http: httpx2.AsyncClient, admin_pool: Pool, body: dict[str, Any], path: str
) -> None:
    _team, key = await tenant(admin_pool)
    job_id = await put(http, key)
    await end(admin_pool, job_id, "failed")
    answer = await http.post("/v1/jobs/retry", json=body, headers=key.headers)
    assert (answer.status_code, answer.json()["issues"][0]["path"]) == (400, [path])
    assert (await job_row(admin_pool, job_id))["status"] == "failed"


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (rb'{"classification": "a\ud800\u0000b"}', 200),
        (rb'{"projectId": "a\udfffb"}', 404),
        (rb'{"since": "\ud800"}', 400),
        (rb'{"status": "\ud800"}', 400),
    ],
)
async def test_what_postgres_cannot_hold_is_no_name(
    http: httpx2.AsyncClient, admin_pool: Pool, asked: bytes, status: int
) -> None:
    _team, key = await tenant(admin_pool)
    job_id = await put(http, key)
    await end(admin_pool, job_id, "failed")
    headers = key.headers | {"Content-Type": "application/json"}
    answer = await http.post("/v1/jobs/retry", content=asked, headers=headers)
    assert answer.status_code == status, answer.text
    assert (await job_row(admin_pool, job_id))["status"] == "failed"


async def test_no_secret_of_a_filter_is_audited(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _team, key = await tenant(admin_pool)
    secret = "sk-ant-api03-" + "aB3" * 30
    assert (await http.get(f"/v1/jobs?classification={secret}", headers=key.headers)).status_code == 200
    await http.post("/v1/jobs/retry", json={"classification": f"{secret} {'x' * 10_000}"}, headers=key.headers)
    noted = [
        row["details"]["classification"]
        for action in ("observation.read", "generation_jobs.retried_by_operator")
        for row in await audits(admin_pool, action)
    ]
    assert len(noted) == 2
    assert all(secret not in text and len(text) < 300 for text in noted)


async def test_retries_cancels_and_captures_of_one_session_do_not_block_each_other(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    _team, key = await tenant(admin_pool)
    jobs = [await put(http, key, contentSessionId=f"session-{n % 4}") for n in range(24)]
    for job_id in jobs:
        await end(admin_pool, job_id, "failed")
    batch = [make_event(contentSessionId=f"session-{n % 4}", payload={"n": n}) for n in range(20)]
    answers = await asyncio.gather(
        *(http.post("/v1/jobs/retry", json={"limit": 10}, headers=key.headers) for _ in range(4)),
        *(http.post("/v1/events/batch", json=batch, headers=key.headers) for _ in range(3)),
        *(retry(http, key, job_id) for job_id in jobs[:8]),
        *(cancel(http, key, job_id) for job_id in jobs[8:16]),
    )
    assert {answer.status_code for answer in answers} <= {200, 201}
    wrong = await admin_pool.fetch(
        """
        SELECT g.session_key, g.waiting, count(j.id) FROM commonplace.job_groups g
        LEFT JOIN commonplace.jobs j ON j.project_id = g.project_id AND j.session_key = g.session_key
            AND j.status IN ('queued', 'processing')
        GROUP BY g.team_id, g.project_id, g.session_key HAVING g.waiting <> count(j.id)
            OR (count(j.id) > 0) <> (g.available_at IS NOT NULL)
        """
    )
    assert [tuple(row) for row in wrong] == [], "every group counts its open jobs"
