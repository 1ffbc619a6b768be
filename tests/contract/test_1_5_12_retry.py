"""Section 1.5.12: POST /v1/jobs/:id/retry."""

from uuid import UUID, uuid4

import pytest

from tests.contract.support import JOB_FULL, JSON, REFUSED_KEY, Api, World, has_shape
from tests.factories import make_key


async def put(api: Api, world: World) -> str:
    return str((await api.event(world.bound, world.project_id))["generationJob"]["id"])


async def test_1_5_12_queued_changes_nothing(api: Api, world: World) -> None:
    job = await put(api, world)
    answer = await api.send("POST", f"/v1/jobs/{job}/retry", world.bound, {}, headers={"X-Request-Id": "rq-12"})
    body = answer.json()
    assert (answer.status_code, set(body)) == (200, {"generationJob", "retriedCount", "alreadyQueued", "requestId"})
    assert has_shape(body["generationJob"], JOB_FULL)
    assert (body["generationJob"]["status"], body["alreadyQueued"], body["retriedCount"]) == ("queued", True, 0)
    assert body["requestId"] == "rq-12"
    (row,) = await api.audits(world, "generation_job.retried_by_operator")
    assert row["details"]["outcome"] == "noop_already_queued"
    assert "currentAttempts" in row["details"]


async def test_1_5_12_processing_is_409(api: Api, world: World) -> None:
    job = await put(api, world)
    await api.pool.execute(
        "UPDATE commonplace.job_groups SET lease_until = now() + interval '1 minute', leased_by = 'w'"
        " WHERE team_id = $1",
        UUID(world.team_id),
    )
    await api.pool.execute(
        "UPDATE commonplace.jobs SET status = 'processing', locked_by = 'w' WHERE id = $1", UUID(job)
    )
    assert await api.post(f"/v1/jobs/{job}/retry", world.bound, {}, 409) == {
        "error": "Conflict",
        "message": "Generation job is currently processing; cancel or wait for completion before retrying",
    }


async def test_1_5_12_completed_is_409(api: Api, world: World) -> None:
    job = await put(api, world)
    await api.end_job(job, "completed")
    assert await api.post(f"/v1/jobs/{job}/retry", world.bound, {}, 409) == {
        "error": "Conflict",
        "message": "Generation job already completed; retrying would duplicate observations",
    }


@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_1_5_12_failed_and_cancelled_are_queued_again_with_one_more_attempt(
    api: Api, world: World, status: str
) -> None:
    job = await put(api, world)
    await api.end_job(job, status)
    body = await api.post(f"/v1/jobs/{job}/retry", world.bound, {})
    again = body["generationJob"]
    assert (again["id"], again["status"], again["attempts"], again["maxAttempts"]) == (job, "queued", 2, 3)
    assert again["lastError"] is again["failedAtEpoch"] is again["cancelledAtEpoch"] is None
    assert (body["retriedCount"], body["alreadyQueued"]) == (1, False)
    (row,) = await api.audits(world, "generation_job.retried_by_operator")
    assert (row["resource_type"], row["resource_id"]) == ("observation_generation_job", job)
    assert {"previousStatus": status, "currentStatus": "queued", "retriedCount": 1}.items() <= row["details"].items()
    assert row["details"]["requestId"] == body["requestId"]


async def test_1_5_12_attempts_below_the_most_stay(api: Api, world: World) -> None:
    job = await put(api, world)
    await api.end_job(job, "failed", attempts=1)
    assert (await api.post(f"/v1/jobs/{job}/retry", world.bound, {}))["generationJob"]["attempts"] == 1


async def test_1_5_12_retries_are_counted_and_named_in_the_payload(api: Api, world: World) -> None:
    admin = await make_key(api.pool, world.team_id, scopes=["*"])
    job = await put(api, world)
    for count in (1, 2):
        await api.end_job(job, "failed")
        body = await api.post(f"/v1/jobs/{job}/retry", world.bound, {})
        assert body["retriedCount"] == count
    (listed,) = (await api.get("/v1/jobs?include=payload", admin))["jobs"]
    assert listed["payload"]["retried_count"] == 2
    assert listed["payload"]["last_retried_request_id"] == body["requestId"]
    assert listed["payload"]["last_retried_by_actor"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"5"])
async def test_1_5_12_the_body_is_ignored(api: Api, world: World, content: bytes) -> None:
    job = await put(api, world)
    answer = await api.send("POST", f"/v1/jobs/{job}/retry", world.bound, headers=JSON, content=content)
    assert answer.status_code == 200


async def test_1_5_12_scope_rules_as_for_the_job(api: Api, world: World, other: World) -> None:
    job = await put(api, world)
    for key in (other.key, world.sibling_key):
        answer = await api.post(f"/v1/jobs/{job}/retry", key, {}, 404)
        assert answer == {"error": "NotFound", "message": "Generation job not found"}
    await api.post(f"/v1/jobs/{uuid4()}/retry", world.key, {}, 404)
    for scopes in (["memories:read", "jobs:read"], ["events:write"]):
        key = await make_key(api.pool, world.team_id, scopes=scopes)
        assert await api.post(f"/v1/jobs/{job}/retry", key, {}, 403) == REFUSED_KEY
