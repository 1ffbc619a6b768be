"""Section 1.5.17: POST /v1/memories."""

import pytest

from tests.contract.support import (
    FOREIGN_PROJECT,
    FOREIGN_SESSION,
    OBSERVATION,
    OTHER_PROJECT,
    REFUSED_KEY,
    Api,
    World,
    has_shape,
)
from tests.factories import make_key


async def test_1_5_17_a_memory_is_stored_and_found(api: Api, world: World) -> None:
    answer = await api.post(
        "/v1/memories", world.bound, {"projectId": world.project_id, "content": "The uploader retries"}, 201
    )
    assert set(answer) == {"memory"}
    memory = answer["memory"]
    assert has_shape(memory, OBSERVATION)
    assert (memory["kind"], memory["content"], memory["serverSessionId"]) == ("manual", "The uploader retries", None)
    assert (memory["projectId"], memory["teamId"]) == (world.project_id, world.team_id)
    assert [one["id"] for one in await api.search(world.bound, world.project_id, "uploader")] == [memory["id"]]


async def test_1_5_17_kind_session_and_metadata_are_kept(api: Api, world: World) -> None:
    session = (await api.session(world.bound, world.project_id))["id"]
    memory = await api.memory(
        world.bound, world.project_id, "x", kind="decision", serverSessionId=session, metadata={"a": [1, None]}
    )
    assert (memory["kind"], memory["serverSessionId"]) == ("decision", session)
    assert memory["metadata"]["a"] == [1, None]


async def test_1_5_17_never_creates_a_job(api: Api, world: World) -> None:
    await api.memory(world.bound, world.project_id, "x")
    assert await api.count(world, "jobs") == 0


async def test_1_5_17_there_is_no_de_duplication(api: Api, world: World) -> None:
    ids = {(await api.memory(world.bound, world.project_id, "same"))["id"] for _ in range(2)}
    assert len(ids) == 2


async def test_1_5_17_whitespace_only_content_is_accepted(api: Api, world: World) -> None:
    assert (await api.memory(world.bound, world.project_id, " \n "))["content"].strip() == ""


async def test_1_5_17_a_null_session_is_none(api: Api, world: World) -> None:
    assert (await api.memory(world.bound, world.project_id, "x", serverSessionId=None))["serverSessionId"] is None


async def test_1_5_17_long_content_is_accepted(api: Api, world: World) -> None:
    content = "word " * 200_000
    assert (await api.memory(world.bound, world.project_id, content))["content"] == content


@pytest.mark.parametrize("field", ["narrative", "text"])
async def test_1_5_17_narrative_or_text_is_accepted_for_content(api: Api, world: World, field: str) -> None:
    """Section 11.2: the peer's own tool sends `narrative` and is refused."""
    body = {"projectId": world.project_id, "kind": "manual", "type": "manual", field: "The uploader retries"}
    memory = (await api.post("/v1/memories", world.bound, body, 201))["memory"]
    assert memory["content"] == "The uploader retries"
    assert await api.contents(world.bound, world.project_id, "uploader") == ["The uploader retries"]


async def test_1_5_17_content_wins_over_narrative(api: Api, world: World) -> None:
    body = {"projectId": world.project_id, "content": "one", "narrative": "two", "text": "three"}
    assert (await api.post("/v1/memories", world.bound, body, 201))["memory"]["content"] == "one"
    del body["content"]
    assert (await api.post("/v1/memories", world.bound, body, 201))["memory"]["content"] == "two"


async def test_1_5_17_title_type_facts_and_concepts_are_kept(api: Api, world: World) -> None:
    """Section 11.2."""
    body = {
        "projectId": world.project_id,
        "narrative": "x",
        "title": "Uploads",
        "type": "decision",
        "facts": ["a fact"],
        "concepts": ["a concept"],
        "filesRead": ["a.py"],
        "filesModified": ["b.py"],
    }
    memory = (await api.post("/v1/memories", world.bound, body, 201))["memory"]
    assert memory.get("title") == "Uploads"
    kept = str(memory)
    for word in ("decision", "a fact", "a concept", "a.py", "b.py"):
        assert word in kept


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"content": ""}, "content"),
        ({"content": 5}, "content"),
        ({"content": None}, "content"),
        ({"kind": ""}, "kind"),
        ({"kind": 5}, "kind"),
        ({"projectId": ""}, "projectId"),
        ({"projectId": 5}, "projectId"),
        ({"serverSessionId": ""}, "serverSessionId"),
        ({"serverSessionId": 5}, "serverSessionId"),
        ({"metadata": []}, "metadata"),
        ({"metadata": "x"}, "metadata"),
    ],
)
async def test_1_5_17_a_body_is_validated(api: Api, world: World, change: dict[str, object], path: str) -> None:
    body = {"projectId": world.project_id, "content": "x"} | change
    answer = await api.post("/v1/memories", world.bound, body, 400)
    assert (answer["error"], answer["issues"][0]["path"]) == ("ValidationError", [path])
    assert await api.count(world, "memories") == 0


async def test_1_5_17_no_text_at_all_is_400(api: Api, world: World) -> None:
    answer = await api.post("/v1/memories", world.bound, {"projectId": world.project_id}, 400)
    assert answer["issues"][0]["path"] == ["content"]


async def test_1_5_17_projects_and_sessions_out_of_reach_are_403(api: Api, world: World, other: World) -> None:
    for key, project, refused in (
        (world.bound, world.sibling_id, OTHER_PROJECT),
        (world.bound, other.project_id, OTHER_PROJECT),
        (world.key, other.project_id, FOREIGN_PROJECT),
        (world.key, "nonsense", FOREIGN_PROJECT),
    ):
        assert await api.post("/v1/memories", key, {"projectId": project, "content": "x"}, 403) == refused
    for session in ((await api.session(world.sibling_key, world.sibling_id))["id"], "nonsense"):
        body = {"projectId": world.project_id, "content": "x", "serverSessionId": session}
        assert await api.post("/v1/memories", world.key, body, 403) == FOREIGN_SESSION
    assert await api.count(world, "memories") == 0


@pytest.mark.parametrize("scopes", [["memories:read"], ["events:write"], ["sessions:write", "observations:read"]])
async def test_1_5_17_needs_memories_write(api: Api, world: World, scopes: list[str]) -> None:
    key = await make_key(api.pool, world.team_id, project_id=world.project_id, scopes=scopes)
    assert await api.post("/v1/memories", key, {"content": "x"}, 403) == REFUSED_KEY


async def test_1_5_17_is_audited(api: Api, world: World) -> None:
    memory = await api.memory(world.bound, world.project_id, "x")
    (row,) = await api.audits(world, "memory.write")
    assert (row["resource_type"], row["resource_id"]) == ("observation", memory["id"])
    assert (str(row["project_id"]), row["details"]["requestId"]) == (world.project_id, row["request_id"])


async def test_1_5_17_private_parts_and_secrets_are_not_stored(api: Api, world: World) -> None:
    """Section 11.7, 9.19: the peer stores both verbatim."""
    token = "ghp_" + "a1B2" * 9
    memory = await api.memory(
        world.bound, world.project_id, f"use {token} <private>my salary</private> here", metadata={"t": token}
    )
    assert token not in str(memory)
    assert "salary" not in str(memory)
    stored = await api.pool.fetchval(
        "SELECT m::text FROM commonplace.memories m WHERE id = $1::text::uuid", memory["id"]
    )
    assert token not in stored
    assert "salary" not in stored
