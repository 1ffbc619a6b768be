"""From objects to a Secret with a token that works."""

from tests.integration.operator.conftest import OperatorProcess, World


async def test_a_team_and_a_key_end_in_a_secret_whose_token_works(operator: OperatorProcess, world: World) -> None:
    world.runtime()
    world.team()
    world.key(secret={"formats": ["Env", "McpJson"]})

    key = await world.ready("ApiKey", "key")

    secret = world.secret("key")
    assert secret is not None
    assert await world.works(secret["token"])
    assert secret["mcp-url"] == "https://memory.example.com/v1/mcp"
    assert secret["token"] in secret["connect-command"]
    assert secret["MEMORY_API_KEY"] == secret["token"]
    assert key["status"]["revision"] == 1
    assert [row["state"] for row in await world.rows()] == ["published"]
