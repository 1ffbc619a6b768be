"""Section 1.5.14: POST /v1/sessions/start."""

import asyncio
from uuid import uuid4

import pytest

from tests.contract.support import FOREIGN_PROJECT, OTHER_PROJECT, SESSION, Api, World, has_shape


async def test_1_5_14_a_fresh_session_is_201(api: Api, world: World) -> None:
    """The docker E2E requires 201 for a fresh start with a contentSessionId only."""
    session = await api.session(world.bound, world.project_id, 201, contentSessionId=str(uuid4()))
    assert has_shape(session, SESSION)
    assert session["projectId"] == world.project_id


async def test_1_5_14_a_known_external_id_is_200_with_the_same_id(api: Api, world: World) -> None:
    fields = {"externalSessionId": "e-1", "contentSessionId": "e-1", "platformSource": "claude"}
    first = await api.session(world.bound, world.project_id, 201, **fields)
    again = await api.session(world.bound, world.project_id, 200, **fields)
    assert again["id"] == first["id"]
    assert again["startedAtEpoch"] == first["startedAtEpoch"]


async def test_1_5_14_a_known_external_id_merges_metadata_and_is_open_again(api: Api, world: World) -> None:
    """Section 11.6: the peer discards what later calls say; each prompt of a session is kept here."""
    first = await api.session(
        world.bound, world.project_id, 201, externalSessionId="e", metadata={"prompt": "one", "project": "repo"}
    )
    await api.post(f"/v1/sessions/{first['id']}/end", world.bound, {})
    again = await api.session(world.bound, world.project_id, 200, externalSessionId="e", metadata={"prompt": "two"})
    assert (again["id"], again["endedAtEpoch"]) == (first["id"], None)
    assert again["metadata"]["project"] == "repo"
    assert "one" in str(again["metadata"])
    assert "two" in str(again["metadata"])


async def test_1_5_14_external_ids_are_apart_by_normalised_platform(api: Api, world: World) -> None:
    async def start(status: int, platform: str | None) -> str:
        session = await api.session(
            world.bound, world.project_id, status, externalSessionId="e", platformSource=platform
        )
        return str(session["id"])

    claude, cursor, bare = await start(201, "claude"), await start(201, "cursor"), await start(201, None)
    assert len({claude, cursor, bare}) == 3
    assert await start(200, "Claude Code") == claude
    assert await start(200, "CURSOR") == cursor
    assert await start(200, None) == bare, "null matches only null"


async def test_1_5_14_external_ids_are_apart_by_project_and_team(api: Api, world: World, other: World) -> None:
    ids = {
        (await api.session(key, project, 201, externalSessionId="e"))["id"]
        for key, project in (
            (world.key, world.project_id),
            (world.key, world.sibling_id),
            (other.key, other.project_id),
        )
    }
    assert len(ids) == 3


async def test_1_5_14_a_new_session_is_audited_and_a_known_one_is_not(api: Api, world: World) -> None:
    session = await api.session(world.bound, world.project_id, 201, externalSessionId="e")
    await api.session(world.bound, world.project_id, 200, externalSessionId="e")
    (row,) = await api.audits(world, "session.write")
    assert (row["resource_type"], row["resource_id"]) == ("server_session", session["id"])
    assert row["details"]["requestId"]


async def test_1_5_14_a_content_id_is_always_201_and_one_row_per_platform_and_agent(api: Api, world: World) -> None:
    first = await api.session(world.bound, world.project_id, 201, contentSessionId="c", agentId="a")
    again = await api.session(world.bound, world.project_id, 201, contentSessionId="c", agentId="a", agentType="t")
    assert again["id"] == first["id"]
    assert again["agentType"] == "t"
    assert again["updatedAtEpoch"] >= first["updatedAtEpoch"]
    agent = await api.session(world.bound, world.project_id, 201, contentSessionId="c", agentId="b")
    platform = await api.session(
        world.bound, world.project_id, 201, contentSessionId="c", agentId="a", platformSource="cursor"
    )
    assert len({first["id"], agent["id"], platform["id"]}) == 3


async def test_1_5_14_an_agent_on_a_platform_is_one_row_by_type(api: Api, world: World) -> None:
    fields = {"agentId": "a", "platformSource": "claude"}
    first = await api.session(world.bound, world.project_id, 201, **fields, agentType="t")
    again = await api.session(world.bound, world.project_id, 201, **fields, agentType="t")
    other_type = await api.session(world.bound, world.project_id, 201, **fields, agentType="u")
    assert first["id"] == again["id"] != other_type["id"]


@pytest.mark.parametrize("fields", [{}, {"agentId": "a"}, {"platformSource": "claude"}, {"agentType": "t"}])
async def test_1_5_14_without_an_identity_each_call_is_a_new_row(
    api: Api, world: World, fields: dict[str, str]
) -> None:
    ids = {(await api.session(world.bound, world.project_id, 201, **fields))["id"] for _ in range(2)}
    assert len(ids) == 2


@pytest.mark.parametrize("field", ["contentSessionId", "agentId", "agentType", "platformSource", "externalSessionId"])
async def test_1_5_14_optional_fields_are_null_or_a_string_of_at_least_one_character(
    api: Api, world: World, field: str
) -> None:
    """Section 11.4: a null externalSessionId counts as absent; the peer refuses it."""
    session = await api.session(world.bound, world.project_id, 201, **{field: None})
    assert session[field] is None
    faulty: tuple[object, ...] = ("", 5, [], True)
    for wrong in faulty:
        body = {"projectId": world.project_id, field: wrong}
        answer = await api.post("/v1/sessions/start", world.bound, body, 400)
        assert answer["issues"][0]["path"] == [field]


@pytest.mark.parametrize("metadata", [[], "x", 5, True, None])
async def test_1_5_14_metadata_is_an_object(api: Api, world: World, metadata: object) -> None:
    body = {"projectId": world.project_id, "metadata": metadata}
    answer = await api.post("/v1/sessions/start", world.bound, body, 400)
    assert (answer["issues"][0]["path"], answer["issues"][0]["expected"]) == (["metadata"], "record")


async def test_1_5_14_project_id_is_required_where_none_is_evident(api: Api, world: World) -> None:
    answer = await api.post("/v1/sessions/start", world.key, {}, 400)
    assert answer["issues"][0]["path"] == ["projectId"]


async def test_1_5_14_a_race_has_one_winner(api: Api, world: World) -> None:
    body = {"projectId": world.project_id, "externalSessionId": "e"}
    answers = await asyncio.gather(*(api.send("POST", "/v1/sessions/start", world.bound, body) for _ in range(8)))
    assert len({answer.json()["session"]["id"] for answer in answers}) == 1
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]


async def test_1_5_14_a_foreign_project_is_403(api: Api, world: World, other: World) -> None:
    body = {"projectId": other.project_id}
    assert await api.post("/v1/sessions/start", world.bound, body, 403) == OTHER_PROJECT
    assert await api.post("/v1/sessions/start", world.key, body, 403) == FOREIGN_PROJECT


async def test_1_5_14_as_the_real_hook_sends_it(api: Api, world: World) -> None:
    """Section 7.4: nulls for the agent, any metadata; 7.9.2: a stable id."""
    body = {
        "projectId": world.project_id,
        "externalSessionId": "9f1c",
        "contentSessionId": "9f1c",
        "agentId": None,
        "agentType": None,
        "platformSource": "claude",
        "metadata": {"project": "repo/worktree", "prompt": "[media prompt]"},
    }
    first = await api.post("/v1/sessions/start", world.bound, body, 201)
    second = await api.post("/v1/sessions/start", world.bound, body, 200)
    bare = {name: body[name] for name in ("projectId", "externalSessionId", "contentSessionId", "platformSource")}
    third = await api.post("/v1/sessions/start", world.bound, bare, 200)
    assert first["session"]["id"] == second["session"]["id"] == third["session"]["id"]
