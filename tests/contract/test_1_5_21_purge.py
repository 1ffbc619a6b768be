"""Section 1.5.21: DELETE /v1/projects/:projectId/memory."""

from uuid import uuid4

from tests.contract.support import OTHER_PROJECT, REFUSED_KEY, Api, World
from tests.factories import make_key, make_memory


async def fill(api: Api, world: World, project_id: str) -> None:
    session = (await api.session(world.key, project_id))["id"]
    event = (await api.event(world.key, project_id, serverSessionId=session))["event"]["id"]
    await api.event(world.key, project_id, "?generate=false")
    await api.post(f"/v1/sessions/{session}/end", world.key, {})
    await make_memory(api.pool, world.team, "The uploader retries", project_id=project_id, event_id=event)


async def test_1_5_21_counts_what_it_deleted(api: Api, world: World) -> None:
    await fill(api, world, world.project_id)
    answer = await api.delete(f"/v1/projects/{world.project_id}/memory", world.bound)
    assert answer == {
        "purged": True,
        "projectId": world.project_id,
        "counts": {"observations": 1, "agentEvents": 2, "sessions": 1, "jobs": 2},
    }
    for table in ("memories", "events", "sessions", "jobs", "memory_sources"):
        assert await api.count(world, table) == 0, table


async def test_1_5_21_only_that_project_is_purged(api: Api, world: World, other: World) -> None:
    for one, project in ((world, world.project_id), (world, world.sibling_id), (other, other.project_id)):
        await fill(api, one, project)
    await api.delete(f"/v1/projects/{world.project_id}/memory", world.key)
    assert len(await api.search(world.key, world.sibling_id, "uploader")) == 1
    assert len(await api.search(other.key, other.project_id, "uploader")) == 1
    assert (await api.get(f"/v1/projects/{world.sibling_id}/jobs", world.key))["total"] == 2


async def test_1_5_21_project_keys_and_audit_stay(api: Api, world: World) -> None:
    await fill(api, world, world.project_id)
    before = {row["id"] for row in await api.audits(world)}
    await api.delete(f"/v1/projects/{world.project_id}/memory", world.bound)
    assert before <= {row["id"] for row in await api.audits(world)}
    assert (await api.get(f"/v1/projects/{world.project_id}/jobs", world.bound))["total"] == 0
    await api.event(world.bound, world.project_id)


async def test_1_5_21_an_empty_project_is_purged_too(api: Api, world: World) -> None:
    for _ in range(2):
        answer = await api.delete(f"/v1/projects/{world.project_id}/memory", world.bound)
        assert (answer["purged"], set(answer["counts"].values())) == (True, {0})


async def test_1_5_21_project_check_first_then_404(api: Api, world: World, other: World) -> None:
    await fill(api, other, other.project_id)
    for project in (world.sibling_id, other.project_id, str(uuid4())):
        assert await api.delete(f"/v1/projects/{project}/memory", world.bound, 403) == OTHER_PROJECT
    for project in (other.project_id, str(uuid4()), "nonsense", "%00"):
        assert await api.delete(f"/v1/projects/{project}/memory", world.key, 404) == {"error": "not_found"}
    assert len(await api.search(other.key, other.project_id, "uploader")) == 1
    reader = await make_key(api.pool, world.team_id, scopes=["memories:read"])
    assert await api.delete(f"/v1/projects/{world.project_id}/memory", reader, 403) == REFUSED_KEY


async def test_1_5_21_private_memories_are_purged_too(api: Api, world: World) -> None:
    await make_memory(api.pool, world.team, "x", visibility="private", owner_actor="human:ann")
    answer = await api.delete(f"/v1/projects/{world.project_id}/memory", world.key)
    assert answer["counts"]["observations"] == 1


async def test_1_5_21_is_audited_with_the_counts(api: Api, world: World) -> None:
    await fill(api, world, world.project_id)
    answer = await api.delete(f"/v1/projects/{world.project_id}/memory", world.bound)
    (row,) = await api.audits(world, "project.memory_purged")
    assert (row["resource_type"], row["resource_id"]) == ("project", world.project_id)
    assert row["details"]["counts"]["agentEvents"] == answer["counts"]["agentEvents"] == 2
    assert row["details"]["requestId"]
