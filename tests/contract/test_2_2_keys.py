"""Section 2.2: which keys are good."""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from tests.contract.support import REFUSED_KEY, Api, World
from tests.factories import make_key

PAST, FUTURE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)


async def test_2_2_hash_is_sha_256_of_the_full_raw_key(api: Api, world: World) -> None:
    stored = await api.pool.fetchval("SELECT token_hash FROM commonplace.api_keys WHERE id = $1", UUID(world.key.id))
    assert stored == hashlib.sha256(world.key.token.encode()).hexdigest()
    everything = await api.pool.fetchval("SELECT string_agg(k::text, '') FROM commonplace.api_keys k")
    assert world.key.token not in everything


@pytest.mark.parametrize(
    "token",
    [
        "cm_" + secrets.token_hex(24),
        "cmem_" + secrets.token_hex(24),
        "cmem_" + secrets.token_urlsafe(32),
        "of any shape, with blanks",
        "!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~",
    ],
)
async def test_2_2_raw_formats_the_prefix_is_never_checked(api: Api, world: World, token: str) -> None:
    """Section 7.9.1: bearer keys of any printable form."""
    token += secrets.token_hex(4)
    key = await make_key(api.pool, world.team_id, token=token)
    await api.get("/v1/usage", key)


async def test_2_2_a_key_is_its_whole_text(api: Api, world: World) -> None:
    for token in (world.key.token[:-1], world.key.token + "x", world.key.token.swapcase()):
        answer = await api.send("GET", "/v1/usage", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()) == (403, REFUSED_KEY)


async def test_2_2_expiry_is_inclusive(api: Api, world: World) -> None:
    for expires_at, status in ((PAST, 403), (FUTURE, 200)):
        key = await make_key(api.pool, world.team_id, expires_at=expires_at)
        assert (await api.send("GET", "/v1/usage", key)).status_code == status
    now = await api.pool.fetchval("SELECT now()")
    key = await make_key(api.pool, world.team_id, expires_at=now)
    assert await api.get("/v1/usage", key, 403) == REFUSED_KEY
    key = await make_key(api.pool, world.team_id, expires_at=now + timedelta(hours=1))
    await api.get("/v1/usage", key)


async def test_2_2_revocation_counts_from_the_next_request_on(api: Api, world: World) -> None:
    await api.get("/v1/usage", world.key)
    await api.pool.execute(
        "UPDATE commonplace.api_keys SET state = 'revoked', revoked_at = now() WHERE id = $1", UUID(world.key.id)
    )
    assert await api.get("/v1/usage", world.key, 403) == REFUSED_KEY
    assert await api.post("/v1/mcp", world.key, {"jsonrpc": "2.0", "id": 1, "method": "ping"}, 403) == REFUSED_KEY
    await api.get("/v1/usage", world.bound)


async def test_2_2_last_use_is_recorded(api: Api, world: World) -> None:
    """The peer records none (9.23)."""
    read = "SELECT last_used_at FROM commonplace.api_keys WHERE id = $1"
    assert await api.pool.fetchval(read, UUID(world.key.id)) is None
    await api.get("/v1/usage", world.key)
    assert await api.pool.fetchval(read, UUID(world.key.id)) is not None
