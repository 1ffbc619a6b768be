"""Section 2.6: rate limit, monthly caps, metering. From the team's limits; from the environment as in the peer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import httpx2
import pytest

from commonplace_runtime.entrypoints.http.app import create_app
from commonplace_runtime.settings import Settings, load_settings
from tests.api_server import served
from tests.contract.support import Api, World
from tests.factories import make_event, make_key, make_memory, set_limits

RATE_HEADERS = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")


async def use(api: Api, world: World, kind: str, quantity: int) -> None:
    await api.pool.execute(
        "INSERT INTO commonplace.usage_counters (team_id, month, kind, quantity)"
        " VALUES ($1, date_trunc('month', now() AT TIME ZONE 'UTC')::date, $2, $3)",
        UUID(world.team_id),
        kind,
        quantity,
    )


async def used(api: Api, world: World, kind: str = "request") -> int:
    found = await api.pool.fetchval(
        "SELECT coalesce(sum(quantity), 0)::int FROM commonplace.usage_counters WHERE team_id = $1 AND kind = $2",
        UUID(world.team_id),
        kind,
    )
    return int(found)


async def in_one_minute(api: Api, world: World, count: int) -> list[httpx2.Response]:
    """Answers of one window: once more if the minute turned in between."""
    for _ in range(2):
        key = await make_key(api.pool, world.team_id)
        answers = [await api.send("GET", "/v1/connect", key) for _ in range(count)]
        if len({answer.headers["x-ratelimit-reset"] for answer in answers}) == 1:
            return answers
    raise AssertionError("the minute turned twice")


async def test_2_6_rate_limit_the_nth_and_first_request_is_429(api: Api, world: World) -> None:
    await set_limits(api.pool, world.team_id, requests_per_minute=3)
    answers = await in_one_minute(api, world, 5)
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[-1].json() == {"error": "rate_limited", "message": "Rate limit exceeded (3 requests / 60s)"}


async def test_2_6_rate_limit_headers_are_on_every_answer(api: Api, world: World) -> None:
    await set_limits(api.pool, world.team_id, requests_per_minute=2)
    answers = await in_one_minute(api, world, 4)
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["1", "0", "0", "0"]
    for answer in answers:
        assert answer.headers["x-ratelimit-limit"] == "2"
        assert int(answer.headers["x-ratelimit-reset"]) % 60 == 0, "windows are aligned to the epoch"
    assert ["retry-after" in answer.headers for answer in answers] == [False, False, True, True]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60


async def test_2_6_rate_limit_also_for_errors_of_the_handler(api: Api, world: World) -> None:
    await set_limits(api.pool, world.team_id, requests_per_minute=100)
    for answer in (
        await api.send("GET", f"/v1/events/{uuid4()}", world.key),
        await api.send("POST", "/v1/search", world.key, {}),
        await api.send("POST", "/v1/mcp", world.key, {"jsonrpc": "2.0", "id": 1, "method": "ping"}),
    ):
        assert all(name in answer.headers for name in RATE_HEADERS)


async def test_2_6_rate_limit_is_per_key(api: Api, world: World) -> None:
    await set_limits(api.pool, world.team_id, requests_per_minute=0)
    one = await api.send("GET", "/v1/connect", world.key)
    two = await api.send("GET", "/v1/connect", world.bound)
    assert (one.status_code, two.status_code) == (429, 429)
    await api.pool.execute(
        "UPDATE commonplace.team_limits SET requests_per_minute = 1 WHERE team_id = $1", UUID(world.team_id)
    )
    fresh = [await make_key(api.pool, world.team_id) for _ in range(2)]
    assert [(await api.send("GET", "/v1/connect", key)).status_code for key in fresh] == [200, 200]


async def test_2_6_rate_limit_off_has_no_headers(api: Api, world: World) -> None:
    answer = await api.send("GET", "/v1/connect", world.key)
    assert not [name for name in answer.headers if "ratelimit" in name]


async def test_2_6_request_cap_is_402(api: Api, world: World) -> None:
    await set_limits(api.pool, world.team_id, requests_per_month=3)
    answers = [await api.send("GET", "/v1/connect", world.key) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 402, 402]
    assert answers[-1].json() == {
        "error": "quota_exceeded",
        "message": "Monthly request quota reached (3)",
        "used": 3,
        "cap": 3,
    }
    assert not [name for name in answers[-1].headers if "ratelimit" in name]
    assert await used(api, world) == 3, "a refused request is not metered"


async def test_2_6_request_cap_is_of_the_team(api: Api, world: World, other: World) -> None:
    await set_limits(api.pool, world.team_id, requests_per_month=1)
    await api.get("/v1/connect", world.key)
    await api.get("/v1/connect", world.bound, 402)
    await api.get("/v1/connect", other.key)


async def test_2_6_request_cap_of_another_month_counts_nothing(api: Api, world: World) -> None:
    await set_limits(api.pool, world.team_id, requests_per_month=1)
    await api.pool.execute(
        "INSERT INTO commonplace.usage_counters (team_id, month, kind, quantity) VALUES ($1, '2020-01-01', $2, 9)",
        UUID(world.team_id),
        "request",
    )
    await api.get("/v1/connect", world.key)


async def test_2_6_rate_comes_before_the_request_cap(api: Api, world: World) -> None:
    await set_limits(api.pool, world.team_id, requests_per_minute=0, requests_per_month=0)
    await api.get("/v1/connect", world.key, 429)
    assert await used(api, world) == 0


async def test_2_6_usage_is_exempt_from_the_request_cap(api: Api, world: World) -> None:
    """Section 11.12: the peer refuses to tell usage once the cap is hit (9.30)."""
    await set_limits(api.pool, world.team_id, requests_per_month=1)
    await api.get("/v1/connect", world.key)
    await api.get("/v1/connect", world.key, 402)
    assert (await api.get("/v1/usage", world.key))["usage"]["request"] >= 1


async def test_2_6_erasure_is_exempt_from_all_caps(api: Api, world: World) -> None:
    """Section 11.12: the peer's token cap blocks erasure (9.30)."""
    memory = await make_memory(api.pool, world.team, "x")
    await set_limits(api.pool, world.team_id, requests_per_month=0, tokens_per_month=0)
    await api.delete(f"/v1/memories/{memory}", world.key)
    await api.delete(f"/v1/projects/{world.project_id}/memory", world.key)


async def test_2_6_token_cap_of_a_team_leaves_reads_and_capture_open(api: Api, world: World) -> None:
    """
    Section 10: reads stay open over the token budget. Capture too, where the peer answers 402: its hooks drop what
    is refused, and a worker that stops generating loses nothing (7.3: 402 only if dropping capture is intended).
    The peer's own variable intends it: below.
    """
    await set_limits(api.pool, world.team_id, tokens_per_month=100)
    await use(api, world, "tokens", 100)
    await api.search(world.key, world.project_id, "x")
    await api.event(world.key, world.project_id)
    await api.session(world.key, world.project_id)
    await api.get("/v1/jobs", world.key)
    assert (await api.get("/v1/usage", world.key))["usage"]["tokens"] == 100


async def test_2_6_metering_counts_each_admitted_request_once(api: Api, world: World) -> None:
    await set_limits(api.pool, world.team_id, requests_per_month=1000)
    await api.search(world.key, world.project_id, "x")
    await api.event(world.key, world.project_id)
    await api.post("/v1/search", world.key, {}, 400)
    await api.post("/v1/mcp", world.key, {"jsonrpc": "2.0", "id": 1, "method": "ping"})
    assert await used(api, world) == 4


async def test_2_6_a_refused_key_is_neither_counted_nor_metered(api: Api, world: World) -> None:
    await set_limits(api.pool, world.team_id, requests_per_month=1000)
    await api.send("GET", "/v1/connect")
    await api.send("GET", "/v1/connect", headers={"X-Api-Key": "wrong"})
    assert await used(api, world) == 0


async def test_2_6_compat_routes_keep_to_the_guards(api: Api, world: World) -> None:
    """Section 9.29: the peer's compat routes bypass all of them."""
    await set_limits(api.pool, world.team_id, requests_per_minute=0)
    body = {"contentSessionId": "c", "tool_name": "Bash"}
    await api.post("/api/sessions/observations", world.bound, body, 429)


@pytest.mark.parametrize("path", ["/healthz", "/v1/info", "/api/health"])
async def test_2_6_probes_are_never_limited(api: Api, world: World, path: str) -> None:
    await set_limits(api.pool, world.team_id, requests_per_minute=0)
    assert (await api.send("GET", path, world.key)).status_code == 200


async def test_2_6_batches_count_as_one_request(api: Api, world: World) -> None:
    await set_limits(api.pool, world.team_id, requests_per_month=1000)
    body = [make_event(projectId=world.project_id, payload={"n": n}) for n in range(10)]
    await api.post("/v1/events/batch", world.key, body, 201)
    assert await used(api, world) == 1


async def test_2_6_token_cap_refuses_writing_memories_with_402(api: Api, world: World) -> None:
    await set_limits(api.pool, world.team_id, tokens_per_month=100)
    await use(api, world, "tokens", 101)
    answer = await api.post("/v1/memories", world.bound, {"content": "x"}, 402)
    assert answer == {
        "error": "quota_exceeded",
        "message": "Monthly tokens quota reached (100)",
        "used": 101,
        "cap": 100,
    }
    assert await used(api, world) == 1, "what the token cap refuses is metered"


@asynccontextmanager
async def configured(settings: Settings, **variables: str) -> AsyncIterator[httpx2.AsyncClient]:
    """An api of the same database with these environment variables."""
    assert settings.database_url is not None
    url = settings.database_url.get_secret_value()
    own = load_settings({"COMMONPLACE_DATABASE_URL": url, **variables})
    async with served(create_app(own)) as base, httpx2.AsyncClient(base_url=base, timeout=20) as http:
        yield http


async def test_2_6_env_rate_limit_per_min(api_settings: Settings, world: World) -> None:
    async with configured(api_settings, CLAUDE_MEM_RATE_LIMIT_PER_MIN="2") as http:
        answers = [await http.get("/v1/connect", headers=world.key.headers) for _ in range(5)]
    assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"2"}
    assert 429 in [answer.status_code for answer in answers], "five requests lie in two minutes at most"


async def test_2_6_env_monthly_request_cap(api_settings: Settings, world: World) -> None:
    async with configured(api_settings, CLAUDE_MEM_MONTHLY_REQUEST_CAP="2", CLAUDE_MEM_USAGE_METERING="1") as http:
        statuses = [(await http.get("/v1/connect", headers=world.key.headers)).status_code for _ in range(3)]
    assert statuses == [200, 200, 402]


async def test_2_6_env_monthly_token_cap(api: Api, api_settings: Settings, world: World) -> None:
    await use(api, world, "tokens", 10)
    async with configured(api_settings, CLAUDE_MEM_MONTHLY_TOKEN_CAP="10") as http:
        body = {"projectId": world.project_id, "content": "x"}
        written = await http.post("/v1/memories", json=body, headers=world.key.headers)
        read = await http.get("/v1/jobs", headers=world.key.headers)
        event = await http.post("/v1/events", json=make_event(projectId=world.project_id), headers=world.key.headers)
        start = {"projectId": world.project_id, "contentSessionId": "s"}
        session = await http.post("/v1/sessions/start", json=start, headers=world.key.headers)
    for refused in (written, event, session):
        assert (refused.status_code, refused.json()["message"]) == (402, "Monthly tokens quota reached (10)")
    assert read.status_code == 200


async def test_2_6_env_usage_metering(api: Api, api_settings: Settings, world: World) -> None:
    async with configured(api_settings, CLAUDE_MEM_USAGE_METERING="1") as http:
        for _ in range(3):
            assert (await http.get("/v1/connect", headers=world.key.headers)).status_code == 200
    assert await used(api, world) == 3


async def test_2_6_env_values_of_zero_mean_off(api: Api, api_settings: Settings, world: World) -> None:
    off = dict.fromkeys(
        ("CLAUDE_MEM_RATE_LIMIT_PER_MIN", "CLAUDE_MEM_MONTHLY_REQUEST_CAP", "CLAUDE_MEM_MONTHLY_TOKEN_CAP"), "0"
    )
    async with configured(api_settings, **off, CLAUDE_MEM_USAGE_METERING="0") as http:
        answers = [await http.get("/v1/connect", headers=world.key.headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert not [name for name in answers[0].headers if "ratelimit" in name]
    assert await used(api, world) == 0
