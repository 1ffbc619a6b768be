"""Section 2.1: how a key is presented."""

import pytest

from tests.contract.support import MISSING_KEY, REFUSED_KEY, Api, World, raw


@pytest.mark.parametrize(
    "header",
    [
        "Authorization: Bearer {token}",
        "Authorization: bearer {token}",
        "Authorization: BEARER {token}",
        "Authorization:   Bearer    {token}   ",
        "Authorization: Bearer\t{token}",
        "authorization: bEaReR {token}",
        "X-Api-Key: {token}",
        "X-API-Key: {token}",
        "x-api-key:    {token}  ",
        "Authorization: Basic abc\nX-Api-Key: {token}",
        "Authorization: {token}\nX-Api-Key: {token}",
        "Authorization: Bearer\nX-Api-Key: {token}",
        "Authorization: Bearer {token}\nX-Api-Key: wrong",
    ],
)
async def test_2_1_ways_to_present_a_key(api: Api, world: World, header: str) -> None:
    answer = await raw(api.url, f"GET /v1/usage\n{header.format(token=world.key.token)}")
    assert answer.status == 200


async def test_2_1_bearer_wins_when_both_are_present(api: Api, world: World) -> None:
    answer = await raw(api.url, f"GET /v1/usage\nAuthorization: Bearer wrong\nX-Api-Key: {world.key.token}")
    assert (answer.status, answer.json) == (403, REFUSED_KEY)


@pytest.mark.parametrize(
    "header",
    [
        "Accept: */*",
        "Authorization: {token}",
        "Authorization: Basic {token}",
        "Authorization: Bearer",
        "Authorization: Bearer{token}",
        "Authorization: Token {token}",
        "Authorization:",
        "X-Api-Key:",
        "X-Api-Key:    ",
        "Cookie: key={token}",
    ],
)
async def test_2_1_neither_is_401(api: Api, world: World, header: str) -> None:
    for path in ("/v1/usage", f"/v1/usage?key={world.key.token}&access_token={world.key.token}"):
        answer = await raw(api.url, f"GET {path}\n{header.format(token=world.key.token)}")
        assert (answer.status, answer.json) == (401, MISSING_KEY)
        assert answer.header("www-authenticate") is None


async def test_2_1_malformed_authentication_is_never_400(api: Api) -> None:
    """Section 10: seed 003 says 400 and 401; code, E2E and client tests say 403."""
    for value in ("Bearer cm_", "Bearer " + "x" * 5000, "Bearer a b c", "Bearer ünïcode", "Bearer <key>", "Bearer '--"):
        answer = await raw(api.url, f"GET /v1/usage\nAuthorization: {value}")
        assert (answer.status, answer.json) == (403, REFUSED_KEY), value
