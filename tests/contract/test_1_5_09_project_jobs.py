"""Section 1.5.9: GET /v1/projects/:projectId/jobs."""

from uuid import uuid4

from tests.contract.support import Api, World

MISSING = {"error": "NotFound", "message": "Project not found"}


async def test_1_5_9_the_jobs_of_one_project(api: Api, world: World) -> None:
    ours = (await api.event(world.key, world.project_id))["generationJob"]["id"]
    theirs = (await api.event(world.key, world.sibling_id))["generationJob"]["id"]
    for key, project, job in (
        (world.bound, world.project_id, ours),
        (world.key, world.project_id, ours),
        (world.key, world.sibling_id, theirs),
    ):
        answer = await api.get(f"/v1/projects/{project}/jobs", key)
        assert set(answer) == {"jobs", "total", "limit", "offset"}
        assert ([one["id"] for one in answer["jobs"]], answer["total"]) == ([job], 1)


async def test_1_5_9_a_project_out_of_reach_is_404(api: Api, world: World, other: World) -> None:
    assert await api.get(f"/v1/projects/{world.sibling_id}/jobs", world.bound, 404) == MISSING
    for project in (other.project_id, str(uuid4()), "nonsense"):
        assert await api.get(f"/v1/projects/{project}/jobs", world.key, 404) == MISSING


async def test_1_5_9_filters_and_pages_like_the_teams(api: Api, world: World) -> None:
    jobs = [(await api.event(world.bound, world.project_id))["generationJob"]["id"] for _ in range(3)]
    await api.end_job(jobs[1], "cancelled")
    path = f"/v1/projects/{world.project_id}/jobs"
    assert [job["id"] for job in (await api.get(f"{path}?status=cancelled", world.bound))["jobs"]] == [jobs[1]]
    page = await api.get(f"{path}?limit=2&offset=2", world.bound)
    assert (len(page["jobs"]), page["total"], page["limit"], page["offset"]) == (1, 3, 2, 2)
    assert (await api.get(f"{path}?limit=9999", world.bound))["limit"] == 200


async def test_1_5_9_is_audited(api: Api, world: World) -> None:
    await api.get(f"/v1/projects/{world.project_id}/jobs", world.bound)
    (row,) = await api.audits(world, "observation.read")
    assert (row["details"]["mode"], row["details"]["resultCount"]) == ("project_jobs", 0)
