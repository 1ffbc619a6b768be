"""Section 1.5.19: POST /v1/search."""

import pytest

from tests.contract.support import OBSERVATION, OTHER_PROJECT, Api, World, has_shape
from tests.factories import make_key, make_memory


async def test_1_5_19_observations_are_found(api: Api, world: World) -> None:
    memory = await make_memory(api.pool, world.team, "The uploader retries after 40 seconds")
    await make_memory(api.pool, world.team, "Lunch is at noon")
    answer = await api.post("/v1/search", world.bound, {"projectId": world.project_id, "query": "uploader retries"})
    assert set(answer) == {"observations"}
    (found,) = answer["observations"]
    assert has_shape(found, OBSERVATION)
    assert found["id"] == memory


@pytest.mark.parametrize("query", [" ", "\n\t", "the of and", "?!", "--", '"', "(:*", "a & | !b"])
async def test_1_5_19_a_query_that_says_nothing_finds_nothing(api: Api, world: World, query: str) -> None:
    await make_memory(api.pool, world.team, "Lunch is at noon")
    assert await api.search(world.bound, world.project_id, query) == []


@pytest.mark.parametrize("limit", [1, 100, 5.0])
async def test_1_5_19_limit_within_bounds(api: Api, world: World, limit: float) -> None:
    for n in range(7):
        await make_memory(api.pool, world.team, f"uploader {n}")
    assert len(await api.search(world.bound, world.project_id, "uploader", limit=limit)) == min(7, limit)


@pytest.mark.parametrize("limit", [0, -1, 101, 500, 1.5, "5", True, []])
async def test_1_5_19_limit_out_of_bounds_is_400(api: Api, world: World, limit: object) -> None:
    body = {"projectId": world.project_id, "query": "x", "limit": limit}
    answer = await api.post("/v1/search", world.bound, body, 400)
    assert answer["issues"][0]["path"] == ["limit"]


async def test_1_5_19_limit_is_20_unless_told(api: Api, world: World) -> None:
    for n in range(21):
        await make_memory(api.pool, world.team, f"uploader {n}")
    assert len(await api.search(world.bound, world.project_id, "uploader")) == 20


@pytest.mark.parametrize("query", ["", None, 5, []])
async def test_1_5_19_query_is_required(api: Api, world: World, query: object) -> None:
    answer = await api.post("/v1/search", world.bound, {"projectId": world.project_id, "query": query}, 400)
    assert answer["issues"][0]["path"] == ["query"]


async def test_1_5_19_project_id_is_required_where_none_is_evident(api: Api, world: World) -> None:
    """Section 11.10."""
    answer = await api.post("/v1/search", world.key, {"query": "x"}, 400)
    assert answer["issues"][0]["path"] == ["projectId"]
    assert await api.post("/v1/search", world.bound, {"query": "x"}) == {"observations": []}


async def test_1_5_19_a_team_key_finds_nothing_in_a_foreign_project(api: Api, world: World, other: World) -> None:
    await make_memory(api.pool, other.team, "The uploader retries")
    for project in (other.project_id, "nonsense", "teamB"):
        assert await api.search(world.key, project, "uploader") == []


async def test_1_5_19_a_project_key_is_refused_another_project(api: Api, world: World, other: World) -> None:
    for project in (world.sibling_id, other.project_id):
        body = {"projectId": project, "query": "x"}
        assert await api.post("/v1/search", world.bound, body, 403) == OTHER_PROJECT


async def test_1_5_19_projects_and_teams_are_apart(api: Api, world: World, other: World) -> None:
    await make_memory(api.pool, world.team, "uploader ours")
    await make_memory(api.pool, world.team, "uploader siblings", project_id=world.sibling_id)
    await make_memory(api.pool, other.team, "uploader theirs")
    assert await api.contents(world.key, world.project_id, "uploader") == ["uploader ours"]
    assert await api.contents(world.key, world.sibling_id, "uploader") == ["uploader siblings"]


async def test_1_5_19_platform_filters_by_session_or_source_event(api: Api, world: World) -> None:
    for platform in ("claude", "cursor"):
        event = (await api.event(world.bound, world.project_id, platformSource=platform))["event"]["id"]
        await make_memory(api.pool, world.team, f"uploader of {platform}", event_id=event)
    await make_memory(api.pool, world.team, "uploader of nobody")
    found = await api.contents(world.bound, world.project_id, "uploader", platformSource="Claude Code")
    assert found == ["uploader of claude"]
    assert len(await api.contents(world.bound, world.project_id, "uploader", platformSource=None)) == 3


async def test_1_5_19_platform_is_null_or_a_string(api: Api, world: World) -> None:
    for wrong in ("", 5):
        body = {"projectId": world.project_id, "query": "x", "platformSource": wrong}
        assert (await api.post("/v1/search", world.bound, body, 400))["issues"][0]["path"] == ["platformSource"]


async def test_1_5_19_private_memories_are_for_their_actor(api: Api, world: World) -> None:
    await make_memory(api.pool, world.team, "uploader secret", visibility="private", owner_actor="human:ann")
    ann = await make_key(api.pool, world.team_id, actor="human:ann")
    assert await api.contents(world.bound, world.project_id, "uploader") == []
    assert await api.contents(ann, world.project_id, "uploader") == ["uploader secret"]


async def test_1_5_19_is_audited_with_query_and_results(api: Api, world: World) -> None:
    memory = await make_memory(api.pool, world.team, "The uploader retries")
    await api.search(world.bound, world.project_id, "uploader", limit=5, platformSource=None)
    (row,) = await api.audits(world, "observation.read")
    assert row["resource_type"] == "observation"
    assert {
        "mode": "search",
        "query": "uploader",
        "limit": 5,
        "resultCount": 1,
        "observationIds": [memory],
    }.items() <= row["details"].items()
    assert row["details"]["requestId"]
