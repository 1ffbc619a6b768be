"""Section 1.5.8: GET /v1/teams/:teamId/jobs."""

import pytest

from tests.contract.support import JOB_LISTED, Api, World, has_shape
from tests.factories import make_event


async def make_jobs(api: Api, world: World) -> list[str]:
    """Ids of two jobs of `default` and one of the sibling project."""
    projects = (world.project_id, world.project_id, world.sibling_id)
    return [(await api.event(world.key, project))["generationJob"]["id"] for project in projects]


async def test_1_5_8_a_team_key_sees_all_jobs(api: Api, world: World, other: World) -> None:
    made = await make_jobs(api, world)
    await api.event(other.bound, other.project_id)
    answer = await api.get(f"/v1/teams/{world.team_id}/jobs", world.key)
    assert set(answer) == {"jobs", "total", "limit", "offset"}
    assert (answer["total"], answer["limit"], answer["offset"]) == (3, 50, 0)
    assert {job["id"] for job in answer["jobs"]} == set(made)
    assert all(has_shape(job, JOB_LISTED) for job in answer["jobs"])


async def test_1_5_8_newest_first_within_a_batch_too(api: Api, world: World) -> None:
    """Section 11, traps: times are ambiguous inside a batch."""
    batch = [make_event(projectId=world.project_id, payload={"n": n}) for n in range(50)]
    answer = await api.post("/v1/events/batch", world.bound, batch, 201)
    made = [item["generationJob"]["id"] for item in answer["events"]] + await make_jobs(api, world)
    listed = (await api.get(f"/v1/teams/{world.team_id}/jobs?limit=200", world.key))["jobs"]
    assert [job["id"] for job in listed] == made[::-1]
    times = [job["createdAtEpoch"] for job in listed]
    assert times == sorted(times, reverse=True)


async def test_1_5_8_another_team_is_404(api: Api, world: World, other: World) -> None:
    for team in (other.team_id, "teamB", "%00"):
        answer = await api.get(f"/v1/teams/{team}/jobs", world.key, 404)
        assert answer == {"error": "NotFound", "message": "Team not found"}


async def test_1_5_8_a_project_key_silently_sees_only_its_project(api: Api, world: World) -> None:
    first, second, _third = await make_jobs(api, world)
    answer = await api.get(f"/v1/teams/{world.team_id}/jobs", world.bound)
    assert ({job["id"] for job in answer["jobs"]}, answer["total"]) == ({first, second}, 2)


async def test_1_5_8_status_filters_and_an_unknown_one_is_ignored(api: Api, world: World) -> None:
    made = await make_jobs(api, world)
    await api.end_job(made[0], "failed")
    path = f"/v1/teams/{world.team_id}/jobs"
    assert [job["id"] for job in (await api.get(f"{path}?status=failed", world.key))["jobs"]] == [made[0]]
    assert (await api.get(f"{path}?status=failed", world.key))["total"] == 1
    assert (await api.get(f"{path}?status=nonsense", world.key))["total"] == 3


@pytest.mark.parametrize(
    ("query", "limit", "offset"),
    [
        ("", 50, 0),
        ("limit=2", 2, 0),
        ("limit=0", 1, 0),
        ("limit=-5", 1, 0),
        ("limit=201", 200, 0),
        ("limit=abc", 50, 0),
        ("limit=", 50, 0),
        ("offset=-1", 50, 0),
        ("offset=abc", 50, 0),
        ("limit=1&offset=2", 1, 2),
    ],
)
async def test_1_5_8_limit_and_offset_are_clamped(api: Api, world: World, query: str, limit: int, offset: int) -> None:
    await make_jobs(api, world)
    answer = await api.get(f"/v1/teams/{world.team_id}/jobs?{query}", world.key)
    assert (answer["limit"], answer["offset"], answer["total"]) == (limit, offset, 3)
    assert len(answer["jobs"]) == min(limit, 3 - offset)


async def test_1_5_8_is_audited(api: Api, world: World) -> None:
    await make_jobs(api, world)
    await api.get(f"/v1/teams/{world.team_id}/jobs?status=queued", world.key)
    (row,) = await api.audits(world, "observation.read")
    assert (row["details"]["mode"], row["details"]["resultCount"]) == ("team_jobs", 3)
    assert row["details"]["requestId"]
