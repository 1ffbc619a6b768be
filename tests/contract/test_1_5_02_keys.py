"""Section 1.5.2: POST /v1/keys. What lists and revokes is of our own and tested beside the api."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from commonplace_runtime import contract
from tests.contract.support import OTHER_PROJECT, REFUSED_KEY, Api, World
from tests.factories import Key, make_key


def minted(answer: Any) -> Key:
    return Key(id=answer["id"], token=answer["apiKey"])


async def test_1_5_2_the_answer_has_the_key_once(api: Api, world: World) -> None:
    answer = await api.post("/v1/keys", world.bound, {"label": "laptop"}, 201)
    assert {"id", "apiKey", "scopes", "expiresAt", "mcpUrl", "connectCommand"} <= set(answer)
    assert str(UUID(answer["id"])) == answer["id"]
    assert answer["apiKey"].startswith("cm_")
    assert len(answer["apiKey"]) >= 51
    assert answer["scopes"] == ["memories:read"]
    assert answer["expiresAt"] is None
    stored = await api.pool.fetchval("SELECT k::text FROM commonplace.api_keys k WHERE id = $1", UUID(answer["id"]))
    assert answer["apiKey"] not in stored
    assert contract.hash_token(answer["apiKey"]) in stored


async def test_1_5_2_the_mcp_url_follows_the_host_header(api: Api, world: World) -> None:
    answer = await api.send(
        "POST", "/v1/keys", world.bound, {}, headers={"Host": "memory.test:8443", "X-Forwarded-Host": "evil.test"}
    )
    assert answer.json()["mcpUrl"] == "http://memory.test:8443/v1/mcp"


async def test_1_5_2_the_connect_command_has_url_and_key(api: Api, world: World) -> None:
    """The server's name in it is ours: no product of ours claims to be claude-mem."""
    answer = await api.post("/v1/keys", world.bound, {}, 201)
    assert re.fullmatch(
        rf"claude mcp add --transport http [a-z-]+ {re.escape(answer['mcpUrl'])} "
        rf'--header "Authorization: Bearer {re.escape(answer["apiKey"])}"',
        answer["connectCommand"],
    )


@pytest.mark.parametrize("days", [1, 365])
async def test_1_5_2_expires_in_days_is_now_and_days(api: Api, world: World, days: int) -> None:
    answer = await api.post("/v1/keys", world.bound, {"expiresInDays": days}, 201)
    left = datetime.fromisoformat(answer["expiresAt"]) - datetime.now(UTC)
    assert timedelta(days=days) - timedelta(minutes=5) < left <= timedelta(days=days, minutes=1)


async def test_1_5_2_the_new_key_reads_and_does_not_write(api: Api, world: World) -> None:
    key = minted(await api.post("/v1/keys", world.bound, {}, 201))
    assert await api.search(key, world.project_id, "x") == []
    body = {"projectId": world.project_id, "content": "x"}
    assert await api.post("/v1/memories", key, body, 403) == REFUSED_KEY
    assert await api.post("/v1/keys", key, {}, 403) == REFUSED_KEY


async def test_1_5_2_the_new_key_inherits_team_and_project(api: Api, world: World) -> None:
    bound = minted(await api.post("/v1/keys", world.bound, {}, 201))
    body = {"projectId": world.sibling_id, "query": "x"}
    assert await api.post("/v1/search", bound, body, 403) == OTHER_PROJECT
    free = minted(await api.post("/v1/keys", world.key, {}, 201))
    for project in (world.project_id, world.sibling_id):
        assert await api.search(free, project, "x") == []
    for key in (bound, free):
        assert (await api.get(f"/v1/teams/{world.team_id}/jobs", key))["total"] == 0


@pytest.mark.parametrize("scopes", [["memories:read"], ["events:write"], ["sessions:write", "jobs:read"]])
async def test_1_5_2_a_key_that_may_not_write_memories_mints_nothing(api: Api, world: World, scopes: list[str]) -> None:
    key = await make_key(api.pool, world.team_id, scopes=scopes)
    assert await api.post("/v1/keys", key, {}, 403) == REFUSED_KEY


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ([], []),
        ({"label": "x" * 121}, ["label"]),
        ({"label": 5}, ["label"]),
        ({"expiresInDays": 0}, ["expiresInDays"]),
        ({"expiresInDays": 366}, ["expiresInDays"]),
        ({"expiresInDays": 1.5}, ["expiresInDays"]),
        ({"expiresInDays": "7"}, ["expiresInDays"]),
        ({"expiresInDays": True}, ["expiresInDays"]),
    ],
)
async def test_1_5_2_a_body_is_validated(api: Api, world: World, body: object, path: list[str]) -> None:
    answer = await api.post("/v1/keys", world.bound, body, 400)
    assert (answer["error"], answer["issues"][0]["path"]) == ("ValidationError", path)


async def test_1_5_2_a_label_of_120_characters_is_accepted(api: Api, world: World) -> None:
    await api.post("/v1/keys", world.bound, {"label": "x" * 120}, 201)


async def test_1_5_2_minting_is_audited_without_the_key(api: Api, world: World) -> None:
    """Section 9.22: the peer does not audit it, we do."""
    answer = await api.post("/v1/keys", world.bound, {}, 201)
    rows = await api.audits(world)
    assert [row["resource_id"] for row in rows] == [answer["id"]]
    assert answer["apiKey"] not in str([dict(row) for row in rows])
