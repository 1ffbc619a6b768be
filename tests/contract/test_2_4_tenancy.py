"""Section 2.4: each situation of the table. The keys of a World are of the whole team, of `default`, of the sibling."""

from tests.contract.support import FOREIGN_PROJECT, OTHER_PROJECT, Api, World
from tests.factories import make_event, make_memory


async def test_2_4_project_key_body_or_path_names_another_project(api: Api, world: World) -> None:
    project = world.sibling_id
    for path, body in (
        ("/v1/events", make_event(projectId=project)),
        ("/v1/events/batch", [make_event(projectId=project)]),
        ("/v1/sessions/start", {"projectId": project}),
        ("/v1/search", {"projectId": project, "query": "x"}),
        ("/v1/context", {"projectId": project, "query": "x"}),
        ("/v1/memories", {"projectId": project, "content": "x"}),
    ):
        assert await api.post(path, world.bound, body, 403) == OTHER_PROJECT, path
    assert await api.delete(f"/v1/projects/{project}/memory", world.bound, 403) == OTHER_PROJECT


async def test_2_4_project_key_row_in_a_sibling_project(api: Api, world: World) -> None:
    made = await api.event(world.sibling_key, world.sibling_id)
    session = (await api.session(world.sibling_key, world.sibling_id))["id"]
    memory = await make_memory(api.pool, world.team, "x", project_id=world.sibling_id)
    event, job = made["event"]["id"], made["generationJob"]["id"]
    for path in (f"/v1/events/{event}", f"/v1/events/{event}/observations", f"/v1/sessions/{session}"):
        assert await api.get(path, world.bound, 403) == OTHER_PROJECT, path
    assert await api.post(f"/v1/sessions/{session}/end", world.bound, {}, 403) == OTHER_PROJECT
    await api.get(f"/v1/jobs/{job}", world.bound, 404)
    for action in ("retry", "cancel"):
        await api.post(f"/v1/jobs/{job}/{action}", world.bound, {}, 404)
    assert await api.delete(f"/v1/memories/{memory}", world.bound, 404) == {"error": "not_found"}
    await api.get(f"/v1/projects/{world.sibling_id}/jobs", world.bound, 404)
    assert (await api.get(f"/v1/teams/{world.team_id}/jobs", world.bound))["total"] == 0


async def test_2_4_team_key_row_or_project_of_another_team(api: Api, world: World, other: World) -> None:
    made = await api.event(other.bound, other.project_id)
    session = (await api.session(other.bound, other.project_id))["id"]
    memory = await make_memory(api.pool, other.team, "uploader")
    event, job = made["event"]["id"], made["generationJob"]["id"]
    for path in (
        f"/v1/events/{event}",
        f"/v1/events/{event}/observations",
        f"/v1/sessions/{session}",
        f"/v1/jobs/{job}",
        f"/v1/projects/{other.project_id}/jobs",
        f"/v1/teams/{other.team_id}/jobs",
    ):
        assert (await api.get(path, world.key, 404))["error"] == "NotFound", path
    for path in (f"/v1/sessions/{session}/end", f"/v1/jobs/{job}/retry", f"/v1/jobs/{job}/cancel"):
        await api.post(path, world.key, {}, 404)
    assert await api.delete(f"/v1/memories/{memory}", world.key, 404) == {"error": "not_found"}
    assert await api.delete(f"/v1/projects/{other.project_id}/memory", world.key, 404) == {"error": "not_found"}
    for path, body in (
        ("/v1/events", make_event(projectId=other.project_id)),
        ("/v1/sessions/start", {"projectId": other.project_id}),
        ("/v1/memories", {"projectId": other.project_id, "content": "x"}),
    ):
        assert await api.post(path, world.key, body, 403) == FOREIGN_PROJECT, path
    assert await api.search(world.key, other.project_id, "uploader") == []
    assert (await api.post("/v1/context", world.key, {"projectId": other.project_id}))["observations"] == []


async def test_2_4_compat_routes_with_a_team_key(api: Api, world: World) -> None:
    for path, body in (
        ("/api/sessions/observations", {"contentSessionId": "c", "tool_name": "Bash"}),
        ("/api/sessions/summarize", {"contentSessionId": "c"}),
    ):
        assert (await api.post(path, world.key, body, 400))["error"] == "BadRequest"


async def test_2_4_names_of_projects_are_per_team(api: Api, world: World, other: World) -> None:
    """Section 11.10: names are accepted for ids, and never lead into another team."""
    await make_memory(api.pool, other.team, "uploader", project_id=other.sibling_id)
    assert await api.search(world.key, "sibling", "uploader") == []
    assert len(await api.search(other.key, "sibling", "uploader")) == 1
