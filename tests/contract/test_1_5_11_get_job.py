"""Section 1.5.11: GET /v1/jobs/:id."""

from uuid import uuid4

from tests.contract.support import JOB_FULL, Api, World, has_shape

MISSING = {"error": "NotFound", "message": "Generation job not found"}


async def test_1_5_11_the_whole_job(api: Api, world: World) -> None:
    made = await api.event(world.bound, world.project_id)
    answer = await api.get(f"/v1/jobs/{made['generationJob']['id']}", world.bound)
    assert set(answer) == {"generationJob"}
    job = answer["generationJob"]
    assert has_shape(job, JOB_FULL)
    assert job["bullmqJobId"] == made["generationJob"]["bullmqJobId"]
    assert (job["sourceType"], job["agentEventId"]) == ("agent_event", made["event"]["id"])


async def test_1_5_11_the_summary_job_names_its_session(api: Api, world: World) -> None:
    session = (await api.session(world.bound, world.project_id))["id"]
    made = (await api.post(f"/v1/sessions/{session}/end", world.bound, {}))["generationJob"]["id"]
    job = (await api.get(f"/v1/jobs/{made}", world.bound))["generationJob"]
    assert (job["serverSessionId"], job["agentEventId"], job["sourceId"]) == (session, None, session)


async def test_1_5_11_missing_foreign_and_sibling_jobs_are_404(api: Api, world: World, other: World) -> None:
    job = (await api.event(world.bound, world.project_id))["generationJob"]["id"]
    for path, key in (
        (f"/v1/jobs/{job}", other.key),
        (f"/v1/jobs/{job}", world.sibling_key),
        (f"/v1/jobs/{uuid4()}", world.key),
        ("/v1/jobs/evt_123", world.key),
    ):
        assert await api.get(path, key, 404) == MISSING


async def test_1_5_11_is_not_audited(api: Api, world: World) -> None:
    job = (await api.event(world.bound, world.project_id))["generationJob"]["id"]
    await api.get(f"/v1/jobs/{job}", world.bound)
    assert [row["action"] for row in await api.audits(world)] == ["event.received"]
