"""Limits that a process brings from its environment, and what a guard does whose own store fails."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import httpx2
import pytest
from structlog.testing import capture_logs

from commonplace_runtime.entrypoints.http.app import create_app
from commonplace_runtime.observability import GUARD_FAILURES
from commonplace_runtime.settings import load_settings
from commonplace_runtime.store.pool import Pool
from tests.api_server import served
from tests.conftest import Database
from tests.factories import Key, make_event, make_key, make_team, set_limits

REQUESTS = "SELECT coalesce(sum(quantity), 0) FROM commonplace.usage_counters WHERE kind = 'request'"


@asynccontextmanager
async def api(database: Database, **variables: str) -> AsyncIterator[httpx2.AsyncClient]:
    """An api with these further environment variables."""
    settings = load_settings({"COMMONPLACE_DATABASE_URL": database.runtime_url, **variables})
    async with served(create_app(settings)) as url, httpx2.AsyncClient(base_url=url, timeout=20) as client:
        yield client


@asynccontextmanager
async def superuser(database: Database) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(database.superuser_url)
    try:
        yield connection
    finally:
        await connection.close()


async def fresh_key(pool: Pool, **limits: int) -> Key:
    team = await make_team(pool)
    if limits:
        await set_limits(pool, team.id, **limits)
    return await make_key(pool, team.id, project_id=team.project_id)


def failures(guard: str) -> float:
    return float(GUARD_FAILURES.labels(guard)._value.get())


async def statuses(client: httpx2.AsyncClient, key: Key, times: int, path: str = "/v1/connect") -> list[int]:
    return [(await client.get(path, headers=key.headers)).status_code for _ in range(times)]


@pytest.mark.parametrize("variable", ["COMMONPLACE_RATE_LIMIT_PER_MIN", "CLAUDE_MEM_RATE_LIMIT_PER_MIN"])
async def test_a_rate_from_the_environment_limits_teams_without_one(
    database: Database, admin_pool: Pool, variable: str
) -> None:
    key = await fresh_key(admin_pool)
    async with api(database, **{variable: "1000"}) as client:
        answer = await client.get("/v1/connect", headers=key.headers)
    assert (answer.status_code, answer.headers["x-ratelimit-limit"]) == (200, "1000")
    assert answer.headers["ratelimit-remaining"] == "999"


@pytest.mark.parametrize(("own", "given", "holds"), [(50, "70", "50"), (90, "70", "70")])
async def test_of_two_limits_the_stricter_holds(
    database: Database, admin_pool: Pool, own: int, given: str, holds: str
) -> None:
    key = await fresh_key(admin_pool, requests_per_minute=own)
    async with api(database, COMMONPLACE_RATE_LIMIT_PER_MIN=given) as client:
        answer = await client.get("/v1/connect", headers=key.headers)
    assert answer.headers["x-ratelimit-limit"] == holds


async def test_a_request_over_its_rate_counts_for_the_rate_and_is_not_metered(
    database: Database, admin_pool: Pool
) -> None:
    key = await fresh_key(admin_pool)
    async with api(database, COMMONPLACE_RATE_LIMIT_PER_MIN="1", COMMONPLACE_USAGE_METERING="1") as client:
        found = await statuses(client, key, 3)
    windows = await admin_pool.fetch("SELECT requests FROM commonplace.rate_counters")
    assert sum(row["requests"] for row in windows) == 3
    assert await admin_pool.fetchval(REQUESTS) == found.count(200) == len(windows)


async def test_a_monthly_cap_from_the_environment_meters_by_itself(database: Database, admin_pool: Pool) -> None:
    key = await fresh_key(admin_pool)
    async with api(database, CLAUDE_MEM_MONTHLY_REQUEST_CAP="2") as client:
        assert await statuses(client, key, 4) == [200, 200, 402, 402]
        refused = await client.post("/v1/search", json={"query": "x"}, headers=key.headers)
        assert refused.json() == {
            "error": "quota_exceeded",
            "message": "Monthly request quota reached (2)",
            "used": 2,
            "cap": 2,
        }
        assert await statuses(client, key, 1, "/v1/usage") == [200], "what was used can be read above all then"


async def test_a_token_cap_from_the_environment_stops_capture_and_leaves_recall_open(
    database: Database, admin_pool: Pool
) -> None:
    """As claude-mem says of its variable (0066); a Quota's cap leaves capture open."""
    key = await fresh_key(admin_pool)
    await admin_pool.execute(
        "INSERT INTO commonplace.usage_counters (team_id, month, kind, quantity)"
        " SELECT id, date_trunc('month', now() AT TIME ZONE 'UTC')::date, 'tokens', 100 FROM commonplace.teams"
    )
    async with api(database, COMMONPLACE_MONTHLY_TOKEN_CAP="10") as client:
        assert await statuses(client, key, 1) == [200]
        assert (await client.post("/v1/events", json=make_event(), headers=key.headers)).status_code == 402


async def test_metering_alone_counts_and_refuses_nothing(database: Database, admin_pool: Pool) -> None:
    key = await fresh_key(admin_pool)
    async with api(database, CLAUDE_MEM_USAGE_METERING="1") as client:
        answer = await client.get("/v1/connect", headers=key.headers)
    assert (answer.status_code, "x-ratelimit-limit" in answer.headers) == (200, False)
    assert await admin_pool.fetchval(REQUESTS) == 1
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.rate_counters") == 0


async def test_a_request_that_its_key_may_not_make_is_not_counted(database: Database, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    writer = await make_key(admin_pool, team.id, scopes=["memories:write"])
    async with api(database, COMMONPLACE_RATE_LIMIT_PER_MIN="9", COMMONPLACE_USAGE_METERING="1") as client:
        assert await statuses(client, writer, 2) == [403, 403]
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.rate_counters") == 0
    assert await admin_pool.fetchval(REQUESTS) == 0


@pytest.mark.parametrize(
    ("guard", "breakage"),
    [
        ("rate_limit", "DROP TABLE commonplace.rate_counters"),
        ("rate_limit", "REVOKE ALL ON commonplace.rate_counters FROM commonplace_owner"),
        ("rate_limit", "ALTER TABLE commonplace.rate_counters ADD CHECK (requests < 0)"),
        ("monthly_caps", "ALTER TABLE commonplace.usage_counters RENAME COLUMN quantity TO elsewhere"),
        ("monthly_caps", "REVOKE ALL ON commonplace.usage_counters FROM commonplace_owner"),
        ("metering", "ALTER TABLE commonplace.usage_counters ADD CHECK (quantity < 0)"),
    ],
)
async def test_a_guard_whose_store_fails_lets_the_request_pass_and_is_told(
    database: Database, admin_pool: Pool, guard: str, breakage: str
) -> None:
    key = await fresh_key(admin_pool, requests_per_minute=1, requests_per_month=1)
    async with superuser(database) as connection:
        await connection.execute(breakage)
    before = failures(guard)
    async with api(database) as client:
        with capture_logs() as lines:
            answer = await client.get("/v1/connect", headers=key.headers)
    assert answer.status_code == 200
    assert failures(guard) == before + 1
    assert [line["guard"] for line in lines if line["event"] == "guard_failed_open"] == [guard]
    assert ("x-ratelimit-limit" in answer.headers) == (guard != "rate_limit")


async def test_a_guard_that_fails_takes_no_other_with_it(database: Database, admin_pool: Pool) -> None:
    key = await fresh_key(admin_pool, requests_per_minute=1, requests_per_month=2)
    async with superuser(database) as connection:
        await connection.execute("DROP TABLE commonplace.rate_counters")
    async with api(database) as client:
        assert await statuses(client, key, 3) == [200, 200, 402]


async def test_a_locked_counter_holds_a_request_up_for_a_second_at_most(database: Database, admin_pool: Pool) -> None:
    key = await fresh_key(admin_pool, requests_per_minute=100)
    before = failures("rate_limit")
    async with api(database) as client, superuser(database) as connection, connection.transaction():
        await connection.execute("LOCK TABLE commonplace.rate_counters IN ACCESS EXCLUSIVE MODE")
        answer = await client.get("/v1/connect", headers=key.headers)
        assert answer.status_code == 200, "answered while the lock is still held"
    assert failures("rate_limit") == before + 1


async def test_usage_tells_the_stricter_limit(database: Database, admin_pool: Pool) -> None:
    key = await fresh_key(admin_pool, requests_per_minute=50, requests_per_month=1000)
    given = {"RATE_LIMIT_PER_MIN": "70", "MONTHLY_REQUEST_CAP": "900", "MONTHLY_TOKEN_CAP": "5"}
    async with api(database, **{f"COMMONPLACE_{name}": value for name, value in given.items()}) as client:
        told = (await client.get("/v1/usage", headers=key.headers)).json()
    assert told["limits"]["hard"] == {"requestsPerMinute": 50, "requestsPerMonth": 900, "tokensPerMonth": 5}
