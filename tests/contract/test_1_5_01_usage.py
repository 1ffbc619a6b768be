"""Section 1.5.1: GET /v1/usage."""

from datetime import datetime
from uuid import UUID

from tests.contract.support import REFUSED_KEY, Api, World
from tests.factories import make_key, set_limits


async def count(api: Api, world: World, kind: str, quantity: int, month: str = "now()") -> None:
    await api.pool.execute(
        "INSERT INTO commonplace.usage_counters (team_id, month, kind, quantity)"
        f" VALUES ($1, date_trunc('month', ({month}) AT TIME ZONE 'UTC')::date, $2, $3)",
        UUID(world.team_id),
        kind,
        quantity,
    )


async def test_1_5_1_a_fresh_team_has_an_empty_object(api: Api, world: World) -> None:
    assert (await api.get("/v1/usage", world.key))["usage"] == {}


async def test_1_5_1_since_is_the_first_instant_of_the_current_utc_month(api: Api, world: World) -> None:
    since = (await api.get("/v1/usage", world.key))["since"]
    now = await api.pool.fetchval("SELECT now() AT TIME ZONE 'UTC'")
    first = datetime(now.year, now.month, 1)  # noqa: DTZ001 - compared with a plain one
    assert since == first.strftime("%Y-%m-%dT00:00:00.000Z")


async def test_1_5_1_kinds_are_summed_and_those_never_recorded_absent(api: Api, world: World) -> None:
    for kind, quantity in (("observation", 3), ("tokens", 7)):
        await count(api, world, kind, quantity)
    await count(api, world, "tokens", 1000, "now() - interval '40 days'")
    assert (await api.get("/v1/usage", world.key))["usage"] == {"observation": 3, "tokens": 7}


async def test_1_5_1_requests_are_counted_when_metered(api: Api, world: World) -> None:
    await set_limits(api.pool, world.team_id, requests_per_month=1000)
    for _ in range(2):
        await api.get("/v1/connect", world.key)
    assert (await api.get("/v1/usage", world.key))["usage"]["request"] >= 2


async def test_1_5_1_sums_the_whole_team_even_for_a_project_scoped_key(api: Api, world: World) -> None:
    await api.pool.execute(
        "INSERT INTO commonplace.usage_counters (team_id, project_id, month, kind, quantity)"
        " VALUES ($1, $2, date_trunc('month', now() AT TIME ZONE 'UTC')::date, 'tokens', 5)",
        UUID(world.team_id),
        UUID(world.sibling_id),
    )
    assert (await api.get("/v1/usage", world.bound))["usage"] == {"tokens": 5}


async def test_1_5_1_another_teams_usage_is_not_in_it(api: Api, world: World, other: World) -> None:
    await count(api, other, "tokens", 9)
    assert (await api.get("/v1/usage", world.key))["usage"] == {}


async def test_1_5_1_is_not_audited_and_needs_a_reading_key(api: Api, world: World) -> None:
    await api.get("/v1/usage", world.key)
    assert await api.audits(world) == []
    writer = await make_key(api.pool, world.team_id, scopes=["memories:write"])
    assert await api.get("/v1/usage", writer, 403) == REFUSED_KEY
