"""Section 1.5.3: GET /v1/connect."""

from tests.contract.support import Api, World


async def test_1_5_3_shows_a_placeholder_and_mints_nothing(api: Api, world: World) -> None:
    before = await api.count(world, "api_keys")
    answer = await api.get("/v1/connect", world.bound)
    assert {"mcpUrl", "connectCommand", "hint"} <= set(answer)
    assert answer["mcpUrl"] == f"{api.url}/v1/mcp"
    assert '--header "Authorization: Bearer <YOUR_API_KEY>"' in answer["connectCommand"]
    assert answer["connectCommand"].startswith("claude mcp add --transport http ")
    assert answer["mcpUrl"] in answer["connectCommand"]
    assert world.bound.token not in str(answer)
    assert await api.count(world, "api_keys") == before


async def test_1_5_3_the_hint_points_at_post_v1_keys(api: Api, world: World) -> None:
    assert "POST /v1/keys" in (await api.get("/v1/connect", world.bound))["hint"]


async def test_1_5_3_is_not_audited(api: Api, world: World) -> None:
    await api.get("/v1/connect", world.bound)
    assert await api.audits(world) == []


async def test_1_5_3_forwarded_headers_are_ignored(api: Api, world: World) -> None:
    headers = {"Host": "memory.test", "X-Forwarded-Host": "evil.test", "X-Forwarded-Proto": "https"}
    answer = await api.send("GET", "/v1/connect", world.bound, headers=headers)
    assert answer.json()["mcpUrl"] == "http://memory.test/v1/mcp"
