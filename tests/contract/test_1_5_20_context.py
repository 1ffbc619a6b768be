"""Section 1.5.20: POST /v1/context."""

import pytest

from tests.contract.support import OBSERVATION, OTHER_PROJECT, Api, World, has_shape
from tests.factories import make_memory


async def test_1_5_20_the_contents_are_joined_by_a_blank_line(api: Api, world: World) -> None:
    for n in range(3):
        await make_memory(api.pool, world.team, f"uploader {n}")
    answer = await api.post("/v1/context", world.bound, {"projectId": world.project_id, "query": "uploader"})
    assert set(answer) == {"observations", "context"}
    assert all(has_shape(one, OBSERVATION) for one in answer["observations"])
    assert answer["context"] == "\n\n".join(one["content"] for one in answer["observations"])
    assert len(answer["observations"]) == 3


async def test_1_5_20_nothing_found_is_an_empty_string(api: Api, world: World) -> None:
    body = {"projectId": world.project_id, "query": "nothing"}
    assert await api.post("/v1/context", world.bound, body) == {"observations": [], "context": ""}


async def test_1_5_20_empty_contents_leave_no_gap(api: Api, world: World) -> None:
    await make_memory(api.pool, world.team, "", title="uploader without a text")
    await make_memory(api.pool, world.team, "the uploader retries")
    answer = await api.post("/v1/context", world.bound, {"projectId": world.project_id, "query": "uploader"})
    assert answer["context"] == "the uploader retries"


async def test_1_5_20_limit_is_10_unless_told_and_50_at_most(api: Api, world: World) -> None:
    for n in range(12):
        await make_memory(api.pool, world.team, f"uploader {n}")
    body = {"projectId": world.project_id, "query": "uploader"}
    assert len((await api.post("/v1/context", world.bound, body))["observations"]) == 10
    assert len((await api.post("/v1/context", world.bound, {**body, "limit": 50}))["observations"]) == 12
    for wrong in (0, 51, 1.5, "5", True):
        answer = await api.post("/v1/context", world.bound, {**body, "limit": wrong}, 400)
        assert answer["issues"][0]["path"] == ["limit"]


async def test_1_5_20_without_a_query_the_newest(api: Api, world: World) -> None:
    """Section 11.3, 7.8: newer clients send none and are refused by the peer."""
    made = [await make_memory(api.pool, world.team, f"fact {n}") for n in range(3)]
    answer = await api.post("/v1/context", world.bound, {"projectId": world.project_id, "limit": 2})
    assert [one["id"] for one in answer["observations"]] == [made[2], made[1]]
    assert answer["context"] == "fact 2\n\nfact 1"


@pytest.mark.parametrize("query", ["", 5])
async def test_1_5_20_a_query_that_is_none_is_400(api: Api, world: World, query: object) -> None:
    body = {"projectId": world.project_id, "query": query}
    assert (await api.post("/v1/context", world.bound, body, 400))["issues"][0]["path"] == ["query"]


async def test_1_5_20_projects_out_of_reach(api: Api, world: World, other: World) -> None:
    await make_memory(api.pool, other.team, "The uploader retries")
    for body in ({"projectId": other.project_id}, {"projectId": other.project_id, "query": "uploader"}):
        assert await api.post("/v1/context", world.bound, body, 403) == OTHER_PROJECT
        assert await api.post("/v1/context", world.key, body) == {"observations": [], "context": ""}


async def test_1_5_20_is_audited_as_context(api: Api, world: World) -> None:
    await api.post("/v1/context", world.bound, {"projectId": world.project_id, "query": "uploader"})
    (row,) = await api.audits(world, "observation.read")
    assert {"mode": "context", "query": "uploader", "limit": 10, "resultCount": 0}.items() <= row["details"].items()
