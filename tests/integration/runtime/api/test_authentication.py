from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from commonplace_runtime.store.pool import Pool
from tests.factories import Key, make_event, make_key, make_team, set_limits

REFUSED = {"error": "Forbidden", "message": "Invalid API key or insufficient scope"}
ANYWHERE = [
    ("POST", "/v1/events"),
    ("POST", "/v1/events/batch"),
    ("GET", "/v1/events/x"),
    ("GET", "/v1/jobs/x"),
    ("POST", "/v1/search"),
    ("POST", "/v1/context"),
    ("GET", "/v1/connect"),
    ("POST", "/v1/mcp"),
]


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer"}, {"Authorization": "raw-key"}, {"X-Api-Key": ""}],
    ids=["none", "bearer", "no scheme", "blank"],
)
async def test_without_a_key_it_is_401_everywhere(http: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    for method, path in ANYWHERE:
        answer = await http.request(method, path, headers=headers)
        assert answer.status_code == 401, path
        assert answer.json() == {
            "error": "Unauthorized",
            "message": "Missing API key (Authorization: Bearer <key> or X-Api-Key: <key>)",
        }
        assert "www-authenticate" not in answer.headers


async def test_an_unknown_key_is_403_before_the_body_is_looked_at(http: httpx2.AsyncClient) -> None:
    for method, path in ANYWHERE:
        answer = await http.request(method, path, headers={"X-Api-Key": "cm_nonsense"}, content=b"{broken")
        assert answer.status_code == 403, path
        assert answer.json() == REFUSED


PAST = datetime(2020, 1, 1, tzinfo=UTC)
FUTURE = datetime.now(UTC) + timedelta(days=1)


@pytest.mark.parametrize(
    ("state", "expires_at", "grace_until", "works"),
    [
        ("unpublished", None, None, True),
        ("published", None, None, True),
        ("published", FUTURE, None, True),
        ("published", PAST, None, False),
        ("grace", None, FUTURE, True),
        ("grace", None, PAST, False),
        ("grace", PAST, FUTURE, False),
        ("revoked", None, None, False),
    ],
)
async def test_which_keys_are_good(
    http: httpx2.AsyncClient,
    admin_pool: Pool,
    state: str,
    expires_at: datetime | None,
    grace_until: datetime | None,
    works: bool,
) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id, state=state, expires_at=expires_at, grace_until=grace_until)
    answer = await http.get("/v1/connect", headers=key.headers)
    assert answer.status_code == (200 if works else 403)


async def test_a_revoked_key_and_a_detached_team_are_refused_on_the_next_request(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team = await make_team(admin_pool)
    one, two = await make_key(admin_pool, team.id), await make_key(admin_pool, team.id)
    assert (await http.get("/v1/connect", headers=one.headers)).status_code == 200
    await admin_pool.execute(
        "UPDATE commonplace.api_keys SET state = 'revoked', revoked_at = now() WHERE id = $1::text::uuid", one.id
    )
    assert (await http.get("/v1/connect", headers=one.headers)).json() == REFUSED
    assert (await http.get("/v1/connect", headers=two.headers)).status_code == 200
    await admin_pool.execute("UPDATE commonplace.teams SET detached_at = now()")
    assert (await http.get("/v1/connect", headers=two.headers)).json() == REFUSED


@pytest.mark.parametrize("token", ["cmem_" + "a1" * 24, "anything at all", "x", "é" * 5, "cm_0_1_2"])
async def test_any_shape_of_key_works(http: httpx2.AsyncClient, admin_pool: Pool, token: str) -> None:
    team = await make_team(admin_pool)
    # What httptools hands over is bytes read as Latin-1, so that is what a client's UTF-8 arrives as.
    key = await make_key(admin_pool, team.id, token=token.encode().decode("latin-1"))
    answer = await http.get("/v1/connect", headers={b"Authorization": b"bEaReR   " + token.encode()})
    assert answer.status_code == 200
    assert key.id


async def test_bearer_wins_over_the_other_header(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    key = await make_key(admin_pool, (await make_team(admin_pool)).id)
    both = {"Authorization": f"Bearer {key.token}", "X-API-Key": "wrong"}
    assert (await http.get("/v1/connect", headers=both)).status_code == 200
    assert (await http.get("/v1/connect", headers={"X-API-Key": key.token})).status_code == 200
    other = {"Authorization": "Basic abc", "x-api-key": key.token}
    assert (await http.get("/v1/connect", headers=other)).status_code == 200


@pytest.mark.parametrize(
    ("scopes", "writes", "reads", "jobs"),
    [
        (["memories:read"], 403, 200, 404),
        (["memories:write"], 201, 403, 403),
        (["events:write"], 201, 403, 403),
        (["observations:read"], 403, 200, 403),
        (["jobs:read"], 403, 403, 404),
        (["*"], 201, 200, 404),
        (["sessions:write", "audit:read", "admin"], 403, 403, 403),
        ([], 403, 403, 403),
    ],
)
async def test_what_each_scope_opens(
    http: httpx2.AsyncClient, admin_pool: Pool, scopes: Sequence[str], writes: int, reads: int, jobs: int
) -> None:
    key = await make_key(admin_pool, (await make_team(admin_pool)).id, scopes=scopes)
    assert (await http.post("/v1/events", json=make_event(), headers=key.headers)).status_code == writes
    assert (await http.post("/v1/search", json={"query": "x"}, headers=key.headers)).status_code == reads
    assert (await http.get("/v1/jobs/unknown", headers=key.headers)).status_code == jobs


async def limited_key(admin_pool: Pool, **limits: int) -> Key:
    team = await make_team(admin_pool)
    await set_limits(admin_pool, team.id, **limits)
    return await make_key(admin_pool, team.id, project_id=team.project_id)


async def test_the_rate_is_counted_per_key_and_told(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    await set_limits(admin_pool, team.id, requests_per_minute=2)
    one, two = await make_key(admin_pool, team.id), await make_key(admin_pool, team.id)
    answers = [await http.get("/v1/connect", headers=one.headers) for _ in range(3)]
    windows = {answer.headers["x-ratelimit-reset"] for answer in answers}
    if len(windows) > 1:
        pytest.skip("the minute turned while the test ran")
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
    refused = answers[-1]
    assert refused.json() == {"error": "rate_limited", "message": "Rate limit exceeded (2 requests / 60s)"}
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["ratelimit-limit"] == refused.headers["x-ratelimit-limit"] == "2"
    assert int(refused.headers["x-ratelimit-reset"]) % 60 == 0
    assert (await http.get("/v1/connect", headers=two.headers)).status_code == 200
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    assert (await http.post("/v1/mcp", json=message, headers=one.headers)).status_code == 429


async def test_the_monthly_request_cap_answers_402_and_stops_metering(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    key = await limited_key(admin_pool, requests_per_month=2)
    answers = [await http.get("/v1/connect", headers=key.headers) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 402, 402]
    assert answers[-1].json() == {
        "error": "quota_exceeded",
        "message": "Monthly request quota reached (2)",
        "used": 2,
        "cap": 2,
    }
    assert "x-ratelimit-limit" not in answers[-1].headers
    assert await admin_pool.fetchval("SELECT sum(quantity) FROM commonplace.usage_counters WHERE kind = 'request'") == 2


async def test_a_used_up_token_budget_stops_neither_recall_nor_capture(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    key = await limited_key(admin_pool, tokens_per_month=100)
    await admin_pool.execute(
        "INSERT INTO commonplace.usage_counters (team_id, month, kind, quantity)"
        " SELECT id, date_trunc('month', now() AT TIME ZONE 'UTC')::date, 'tokens', 100 FROM commonplace.teams"
    )
    assert (await http.post("/v1/search", json={"query": "x"}, headers=key.headers)).status_code == 200
    assert (await http.post("/v1/events", json=make_event(), headers=key.headers)).status_code == 201


async def test_nothing_is_counted_for_a_team_without_limits(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    key = await make_key(admin_pool, (await make_team(admin_pool)).id)
    answer = await http.get("/v1/connect", headers=key.headers)
    assert "x-ratelimit-limit" not in answer.headers
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.rate_counters") == 0
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.usage_counters") == 0


async def test_the_last_use_is_noted_at_most_once_a_minute(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    key = await make_key(admin_pool, (await make_team(admin_pool)).id)
    read = "SELECT last_used_at FROM commonplace.api_keys"
    assert await admin_pool.fetchval(read) is None
    await http.get("/v1/connect", headers=key.headers)
    first = await admin_pool.fetchval(read)
    await http.get("/v1/connect", headers=key.headers)
    assert await admin_pool.fetchval(read) == first
    await admin_pool.execute("UPDATE commonplace.api_keys SET last_used_at = now() - interval '2 minutes'")
    await http.get("/v1/connect", headers=key.headers)
    assert await admin_pool.fetchval(read) > first


async def test_a_locked_key_row_holds_no_request_up(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    key = await make_key(admin_pool, (await make_team(admin_pool)).id)
    async with admin_pool.acquire() as operator, operator.transaction():
        await operator.execute("SELECT FROM commonplace.api_keys FOR UPDATE")
        answer = await http.get("/v1/connect", headers=key.headers, timeout=5)
    assert answer.status_code == 200
