"""Section 1.9: what documentation and seeds promise and the peer lacks, in the shapes of its worker dialect."""

from types import NoneType
from typing import Any
from uuid import uuid4

import pytest

from tests.contract.support import (
    OBSERVATION,
    OTHER_PROJECT,
    REFUSED_KEY,
    Api,
    Shape,
    World,
    has_shape,
)
from tests.factories import make_key, make_memory

PROJECT: Shape = {
    **dict.fromkeys(("id", "name"), (str,)),
    **dict.fromkeys(("slug", "rootPath"), (str, NoneType)),
    "metadata": (dict,),
    **dict.fromkeys(("createdAtEpoch", "updatedAtEpoch"), (int,)),
}
AUDIT: Shape = {
    **dict.fromkeys(("id", "teamId", "actorType", "action", "targetType"), (str,)),
    **dict.fromkeys(("projectId", "actorId", "targetId"), (str, NoneType)),
    "metadata": (dict,),
    "createdAtEpoch": (int,),
}
NO_PROJECT = {"error": "NotFound", "message": "Project not found"}
NO_MEMORY = {"error": "NotFound", "message": "Memory not found"}


async def test_1_9_projects_list(api: Api, world: World, other: World) -> None:
    answer = await api.get("/v1/projects", world.key)
    assert {project["id"] for project in answer["projects"]} == {world.project_id, world.sibling_id}
    assert all(has_shape(project, PROJECT) for project in answer["projects"])
    bound = await api.get("/v1/projects", world.bound)
    assert [project["id"] for project in bound["projects"]] == [world.project_id]
    assert len(await api.audits(world, "projects.list")) == 2
    writer = await make_key(api.pool, world.team_id, scopes=["memories:write"])
    assert await api.get("/v1/projects", writer, 403) == REFUSED_KEY


async def test_1_9_projects_create(api: Api, world: World) -> None:
    body = {"name": "web", "slug": "w", "rootPath": "/src/web", "metadata": {"a": 1}}
    answer = await api.post("/v1/projects", world.key, body, 201)
    assert set(answer) == {"project"}
    project = answer["project"]
    assert has_shape(project, PROJECT)
    assert body.items() <= project.items()
    assert await api.get(f"/v1/projects/{project['id']}", world.key) == {"project": project}
    (row,) = await api.audits(world, "project.create")
    assert row["resource_id"] == project["id"]
    bare = (await api.post("/v1/projects", world.key, {"name": "bare", "rootPath": None}, 201))["project"]
    assert (bare["slug"], bare["rootPath"], bare["metadata"]) == (None, None, {})


async def test_1_9_projects_create_is_not_for_project_scoped_keys(api: Api, world: World) -> None:
    assert await api.post("/v1/projects", world.bound, {"name": "web"}, 403) == {
        "error": "Forbidden",
        "message": "Project-scoped API keys cannot create projects",
    }
    reader = await make_key(api.pool, world.team_id, scopes=["memories:read"])
    assert await api.post("/v1/projects", reader, {"name": "web"}, 403) == REFUSED_KEY


@pytest.mark.parametrize(
    ("body", "path"),
    [({}, "name"), ({"name": ""}, "name"), ({"name": 5}, "name"), ({"name": "x", "metadata": []}, "metadata")],
)
async def test_1_9_projects_create_validates(api: Api, world: World, body: object, path: str) -> None:
    answer = await api.post("/v1/projects", world.key, body, 400)
    assert (answer["error"], answer["issues"][0]["path"]) == ("ValidationError", [path])


async def test_1_9_projects_get(api: Api, world: World, other: World) -> None:
    project = (await api.get(f"/v1/projects/{world.project_id}", world.bound))["project"]
    assert (project["id"], project["name"]) == (world.project_id, "default")
    assert len(await api.audits(world, "project.read")) == 1
    for unknown in (other.project_id, str(uuid4()), "nonsense"):
        assert await api.get(f"/v1/projects/{unknown}", world.key, 404) == NO_PROJECT
    assert await api.get(f"/v1/projects/{world.sibling_id}", world.bound, 403) == OTHER_PROJECT


async def test_1_9_memories_get(api: Api, world: World, other: World) -> None:
    memory = await api.memory(world.bound, world.project_id, "The uploader retries")
    answer = await api.get(f"/v1/memories/{memory['id']}", world.bound)
    assert set(answer) == {"memory"}
    assert has_shape(answer["memory"], OBSERVATION)
    assert answer["memory"]["content"] == "The uploader retries"
    rows = await api.audits(world, "memory.read")
    assert [row["resource_id"] for row in rows] == [memory["id"]]
    for path, key in ((memory["id"], other.key), (memory["id"], world.sibling_key), (str(uuid4()), world.key)):
        assert await api.get(f"/v1/memories/{path}", key, 404) == NO_MEMORY


async def test_1_9_memories_get_private_ones_for_their_actor_only(api: Api, world: World) -> None:
    memory = await make_memory(api.pool, world.team, "x", visibility="private", owner_actor="human:ann")
    ann = await make_key(api.pool, world.team_id, actor="human:ann")
    assert await api.get(f"/v1/memories/{memory}", world.key, 404) == NO_MEMORY
    assert (await api.get(f"/v1/memories/{memory}", ann))["memory"]["id"] == memory
    assert await api.patch(f"/v1/memories/{memory}", world.key, {"content": "y"}, 404) == NO_MEMORY


async def test_1_9_memories_patch(api: Api, world: World) -> None:
    memory = await api.memory(world.bound, world.project_id, "one", metadata={"a": 1})
    answer = await api.patch(f"/v1/memories/{memory['id']}", world.bound, {"content": "uploader two"})
    assert set(answer) == {"memory"}
    changed = answer["memory"]
    assert (changed["id"], changed["content"], changed["kind"]) == (memory["id"], "uploader two", "manual")
    assert changed["metadata"]["a"] == 1
    assert changed["updatedAtEpoch"] >= memory["updatedAtEpoch"]
    assert await api.contents(world.bound, world.project_id, "uploader") == ["uploader two"]
    assert (await api.patch(f"/v1/memories/{memory['id']}", world.bound, {"kind": "decision"}))["memory"][
        "kind"
    ] == "decision"
    assert len(await api.audits(world, "memory.update")) == 2


async def test_1_9_memories_patch_cannot_change_the_project(api: Api, world: World) -> None:
    memory = (await api.memory(world.key, world.project_id, "one"))["id"]
    body = {"projectId": world.sibling_id, "content": "two"}
    assert await api.patch(f"/v1/memories/{memory}", world.key, body, 400) == {
        "error": "ValidationError",
        "message": "projectId cannot be changed",
    }
    assert (await api.get(f"/v1/memories/{memory}", world.key))["memory"]["content"] == "one"
    await api.patch(f"/v1/memories/{memory}", world.key, {"projectId": world.project_id, "content": "two"})


async def test_1_9_memories_patch_out_of_reach_is_404(api: Api, world: World, other: World) -> None:
    memory = (await api.memory(world.bound, world.project_id, "one"))["id"]
    for key in (other.key, world.sibling_key):
        assert await api.patch(f"/v1/memories/{memory}", key, {"content": "two"}, 404) == NO_MEMORY
    reader = await make_key(api.pool, world.team_id, scopes=["memories:read"])
    assert await api.patch(f"/v1/memories/{memory}", reader, {"content": "two"}, 403) == REFUSED_KEY
    assert (await api.get(f"/v1/memories/{memory}", world.key))["memory"]["content"] == "one"


async def test_1_9_memories_text_from_other_searchable_fields(api: Api, world: World) -> None:
    """A create needs one searchable text among title, subtitle, text, narrative, facts and concepts."""
    fields: tuple[dict[str, Any], ...] = (
        {"title": "uploader a"},
        {"subtitle": "uploader b"},
        {"text": "uploader c"},
        {"narrative": "uploader d"},
        {"facts": ["uploader e"]},
        {"concepts": ["uploader f"]},
    )
    for given in fields:
        body = {"projectId": world.project_id, "kind": "manual", "type": "note", **given}
        await api.post("/v1/memories", world.bound, body, 201)
    assert len(await api.search(world.bound, world.project_id, "uploader")) == len(fields)
    body = {"projectId": world.project_id, "kind": "manual", "type": "note"}
    assert (await api.post("/v1/memories", world.bound, body, 400))["error"] == "ValidationError"


async def test_1_9_observations_get(api: Api, world: World, other: World) -> None:
    """Seed 003: a scoped read."""
    memory = (await api.memory(world.bound, world.project_id, "one"))["id"]
    observation = (await api.get(f"/v1/observations/{memory}", world.bound))["observation"]
    assert has_shape(observation, OBSERVATION)
    for path, key in ((memory, other.key), (memory, world.sibling_key), (str(uuid4()), world.key)):
        assert (await api.get(f"/v1/observations/{path}", key, 404))["error"] == "NotFound"


async def test_1_9_memories_supersede(api: Api, world: World) -> None:
    """Seed 004."""
    old = (await api.memory(world.bound, world.project_id, "uploader old"))["id"]
    await api.post(f"/v1/memories/{old}/supersede", world.bound, {"content": "uploader new"}, 201)
    assert await api.contents(world.bound, world.project_id, "uploader") == ["uploader new"]
    assert (await api.get(f"/v1/memories/{old}", world.bound))["memory"]["supersededBy"] is not None


async def test_1_9_audit_needs_a_project(api: Api, world: World) -> None:
    for query in ("", "?projectId="):
        assert await api.get(f"/v1/audit{query}", world.key, 400) == {
            "error": "ValidationError",
            "message": "projectId query parameter is required",
        }


async def test_1_9_audit_is_newest_first_in_its_shape(api: Api, world: World) -> None:
    event = (await api.event(world.bound, world.project_id))["event"]["id"]
    await api.search(world.bound, world.project_id, "uploader")
    answer = await api.get(f"/v1/audit?projectId={world.project_id}", world.bound)
    rows = answer["audit"]
    assert all(has_shape(row, AUDIT) for row in rows)
    own = [row for row in rows if row["action"] in ("observation.read", "event.received")]
    assert [row["action"] for row in own] == ["observation.read", "event.received"]
    assert (own[1]["targetType"], own[1]["targetId"]) == ("agent_event", event)
    assert own[1]["metadata"]["requestId"]
    assert (own[0]["teamId"], own[0]["projectId"]) == (world.team_id, world.project_id)
    times = [row["createdAtEpoch"] for row in rows]
    assert times == sorted(times, reverse=True)


async def test_1_9_audit_has_100_rows_at_most_unless_told(api: Api, world: World) -> None:
    for _ in range(101):
        await api.search(world.bound, world.project_id, "x")
    assert len((await api.get(f"/v1/audit?projectId={world.project_id}", world.bound))["audit"]) == 100


async def test_1_9_audit_of_a_project_out_of_reach(api: Api, world: World, other: World) -> None:
    await api.event(other.bound, other.project_id)
    assert await api.get(f"/v1/audit?projectId={world.sibling_id}", world.bound, 403) == OTHER_PROJECT
    answer = await api.send("GET", f"/v1/audit?projectId={other.project_id}", world.key)
    assert answer.status_code in (200, 404)
    assert other.team_id not in answer.text


async def test_1_9_audit_has_a_scope_of_its_own(api: Api, world: World) -> None:
    """Seed 003: `audit:read`."""
    key = await make_key(api.pool, world.team_id, scopes=["audit:read"])
    await api.get(f"/v1/audit?projectId={world.project_id}", key)
    writer = await make_key(api.pool, world.team_id, scopes=["memories:write"])
    assert await api.get(f"/v1/audit?projectId={world.project_id}", writer, 403) == REFUSED_KEY


async def test_1_9_forget_by_id_and_in_a_dry_run(api: Api, world: World) -> None:
    """Seed 004."""
    memory = (await api.memory(world.bound, world.project_id, "uploader"))["id"]
    tried = await api.post("/v1/forget", world.bound, {"memoryId": memory, "dryRun": True})
    assert (tried["dryRun"], tried["counts"]["observations"]) == (True, 1)
    assert len(await api.search(world.bound, world.project_id, "uploader")) == 1
    done = await api.post("/v1/forget", world.bound, {"memoryId": memory})
    assert (done["dryRun"], done["counts"]["observations"]) == (False, 1)
    assert await api.search(world.bound, world.project_id, "uploader") == []


async def test_1_9_keys_are_listed_and_revoked(api: Api, world: World) -> None:
    """Section 9.23."""
    minted = await api.post("/v1/keys", world.bound, {"label": "laptop"}, 201)
    listed = await api.send("GET", "/v1/keys", world.bound)
    assert minted["id"] in listed.text
    assert minted["apiKey"] not in listed.text
    await api.delete(f"/v1/keys/{minted['id']}", world.bound)
    answer = await api.send("GET", "/v1/usage", headers={"X-Api-Key": minted["apiKey"]})
    assert answer.json() == REFUSED_KEY


async def test_1_9_export_and_import_round_trip(api: Api, world: World, other: World) -> None:
    """Seed 004: what is exported can be imported elsewhere, and twice changes nothing."""
    for n in range(3):
        await api.memory(world.bound, world.project_id, f"uploader {n}")
    exported = await api.send("GET", "/v1/export", world.bound)
    assert exported.status_code == 200
    assert exported.headers["content-type"].startswith("application/x-ndjson")
    assert exported.content.count(b"\n") >= 3
    for _ in range(2):
        done = await api.send(
            "POST",
            "/v1/import",
            other.bound,
            headers={"Content-Type": "application/x-ndjson"},
            content=exported.content,
        )
        assert done.status_code == 200, done.text
    assert sorted(await api.contents(other.bound, other.project_id, "uploader")) == [f"uploader {n}" for n in range(3)]


async def test_1_9_reindex(api: Api, world: World, other: World) -> None:
    """Seed 004: asked again it answers the same, and nothing is missing from a search meanwhile."""
    await api.memory(world.bound, world.project_id, "The uploader retries")
    idle = await api.get("/v1/reindex", world.bound)
    assert (idle["status"], idle["memories"], idle["indexed"]) == ("idle", 1, 1)
    answer = await api.post("/v1/reindex", world.bound, {}, 202)
    path = f"/v1/reindex?projectId={world.project_id}"
    assert answer == {"projectId": world.project_id, "memories": 1, "status": "queued", "statusPath": path}
    assert await api.post("/v1/reindex", world.key, {"projectId": "default"}, 202) == answer
    state = await api.get(path, world.key)
    assert state.keys() == {"projectId", "status", "memories", "indexed", "queuedAtEpoch"}
    assert (state["projectId"], state["memories"]) == (world.project_id, 1)
    assert await api.contents(world.bound, world.project_id, "uploader") == ["The uploader retries"]
    rows = await api.audits(world, "index.rebuild_requested")
    assert [(row["resource_type"], row["resource_id"]) for row in rows] == [("project", world.project_id)] * 2


async def test_1_9_reindex_is_for_whoever_may_write_to_the_project(api: Api, world: World, other: World) -> None:
    reader = await make_key(api.pool, world.team_id, scopes=["memories:read"])
    assert await api.post("/v1/reindex", reader, {"projectId": world.project_id}, 403) == REFUSED_KEY
    writer = await make_key(api.pool, world.team_id, scopes=["memories:write"])
    assert await api.get("/v1/reindex", writer, 403) == REFUSED_KEY
    for unknown in (other.project_id, str(uuid4()), "nonsense", "n" * 300):
        assert await api.post("/v1/reindex", world.key, {"projectId": unknown}, 404) == NO_PROJECT
        assert await api.get(f"/v1/reindex?projectId={unknown}", world.key, 404) == NO_PROJECT
    assert await api.post("/v1/reindex", world.bound, {"projectId": world.sibling_id}, 403) == OTHER_PROJECT
    assert await api.get(f"/v1/reindex?projectId={world.sibling_id}", world.bound, 403) == OTHER_PROJECT
    for body in ({"projectId": 5}, {"projectId": ""}):
        assert (await api.post("/v1/reindex", world.key, body, 400))["issues"][0]["path"] == ["projectId"]
    assert await api.audits(world, "index.rebuild_requested") == []
