"""Section 1.5.13: POST /v1/jobs/:id/cancel."""

from uuid import UUID, uuid4

from tests.contract.support import JOB_FULL, REFUSED_KEY, Api, World, has_shape
from tests.factories import make_key


async def put(api: Api, world: World) -> str:
    return str((await api.event(world.bound, world.project_id))["generationJob"]["id"])


async def test_1_5_13_queued_is_cancelled_and_audited(api: Api, world: World) -> None:
    job = await put(api, world)
    body = await api.post(f"/v1/jobs/{job}/cancel", world.bound, {})
    assert set(body) == {"generationJob", "alreadyCancelled", "requestId"}
    assert has_shape(body["generationJob"], JOB_FULL)
    assert (body["generationJob"]["status"], body["alreadyCancelled"]) == ("cancelled", False)
    assert isinstance(body["generationJob"]["cancelledAtEpoch"], int)
    (row,) = await api.audits(world, "generation_job.cancelled_by_operator")
    assert {"previousStatus": "queued", "currentStatus": "cancelled"}.items() <= row["details"].items()
    assert row["details"]["requestId"] == body["requestId"]


async def test_1_5_13_failed_and_processing_are_cancelled(api: Api, world: World) -> None:
    failed, running = await put(api, world), await put(api, world)
    await api.end_job(failed, "failed")
    await api.pool.execute(
        "UPDATE commonplace.jobs SET status = 'processing', locked_by = 'w' WHERE id = $1", UUID(running)
    )
    for job in (failed, running):
        body = await api.post(f"/v1/jobs/{job}/cancel", world.bound, {})
        assert (body["generationJob"]["status"], body["alreadyCancelled"]) == ("cancelled", False)


async def test_1_5_13_cancelled_is_a_no_op(api: Api, world: World) -> None:
    job = await put(api, world)
    first = await api.post(f"/v1/jobs/{job}/cancel", world.bound, {})
    again = await api.post(f"/v1/jobs/{job}/cancel", world.bound, {})
    assert again["alreadyCancelled"] is True
    assert again["generationJob"]["cancelledAtEpoch"] == first["generationJob"]["cancelledAtEpoch"]
    rows = await api.audits(world, "generation_job.cancelled_by_operator")
    assert rows[-1]["details"]["outcome"] == "noop_already_cancelled"


async def test_1_5_13_completed_is_409(api: Api, world: World) -> None:
    job = await put(api, world)
    await api.end_job(job, "completed")
    assert await api.post(f"/v1/jobs/{job}/cancel", world.bound, {}, 409) == {
        "error": "Conflict",
        "message": "Generation job already completed; cannot cancel",
    }


async def test_1_5_13_scope_rules_as_for_the_job(api: Api, world: World, other: World) -> None:
    job = await put(api, world)
    for key in (other.key, world.sibling_key):
        answer = await api.post(f"/v1/jobs/{job}/cancel", key, {}, 404)
        assert answer == {"error": "NotFound", "message": "Generation job not found"}
    await api.post(f"/v1/jobs/{uuid4()}/cancel", world.key, {}, 404)
    reader = await make_key(api.pool, world.team_id, scopes=["memories:read", "jobs:read"])
    assert await api.post(f"/v1/jobs/{job}/cancel", reader, {}, 403) == REFUSED_KEY
    assert (await api.get(f"/v1/jobs/{job}", world.bound))["generationJob"]["status"] == "queued"
