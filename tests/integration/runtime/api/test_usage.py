"""What a team is told of what it used, of its limits, and of what they hold back."""

from typing import Any
from uuid import UUID

import httpx2
import pytest

from commonplace_runtime.store.pool import Pool
from tests.factories import Key, make_key, make_project, make_team, set_limits

THIS_MONTH = "date_trunc('month', now() AT TIME ZONE 'UTC')::date"


async def count(
    pool: Pool, team_id: str, project_id: str, key_id: str | None, model: str, *, month: str = THIS_MONTH, **kinds: int
) -> None:
    for kind, quantity in kinds.items():
        await pool.execute(
            "INSERT INTO commonplace.usage_counters (team_id, project_id, key_id, month, kind, model, quantity)"
            f" VALUES ($1, $2, $3, {month}, $4, $5, $6)",
            UUID(team_id),
            UUID(project_id),
            None if key_id is None else UUID(key_id),
            kind,
            model,
            quantity,
        )


async def usage(http: httpx2.AsyncClient, key: Key) -> Any:
    answer = await http.get("/v1/usage", headers=key.headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_fresh_team_has_used_nothing(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    key = await make_key(admin_pool, (await make_team(admin_pool)).id)
    told = await usage(http, key)
    assert told["since"] == await admin_pool.fetchval(f"SELECT to_char({THIS_MONTH}, 'YYYY-MM-DD\"T00:00:00.000Z\"')")
    assert (told["usage"], told["costUsd"]) == ({}, 0)
    assert told["limits"] == {"hard": {}, "soft": {}}
    assert told["breakdown"] == {"projects": [], "keys": [], "models": []}
    assert told["generation"] == {"state": "running", "until": None, "reason": None}


async def test_sums_are_the_teams_of_this_month_and_say_where_they_went(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team, other = await make_team(admin_pool), await make_team(admin_pool)
    sibling = await make_project(admin_pool, team.id, "sibling")
    key = await make_key(admin_pool, team.id)
    bound = await make_key(admin_pool, team.id, project_id=team.project_id)
    spent: dict[str, Any] = {
        "model_calls": 2,
        "input_tokens": 900,
        "output_tokens": 100,
        "tokens": 1000,
        "cost_microusd": 1500,
    }
    await count(admin_pool, team.id, team.project_id, key.id, "small", **spent)
    await count(admin_pool, team.id, sibling, None, "large", tokens=5000, cost_microusd=2_000_000, observation=3)
    await count(admin_pool, team.id, sibling, key.id, "old", month="'2020-01-01'::date", tokens=7)
    await count(admin_pool, other.id, other.project_id, None, "small", tokens=9)

    told, told_bound = await usage(http, key), await usage(http, bound)

    assert told["usage"] == {
        "model_calls": 2,
        "input_tokens": 900,
        "output_tokens": 100,
        "tokens": 6000,
        "cost_microusd": 2_001_500,
        "observation": 3,
    }
    assert told["costUsd"] == 2.0015
    models = [(row["id"], row["tokens"], row["costMicrousd"], row["costUsd"]) for row in told["breakdown"]["models"]]
    assert models == [("large", 5000, 2_000_000, 2.0), ("small", 1000, 1500, 0.0015)], "the dearest first"
    assert [(row["id"], row["name"]) for row in told["breakdown"]["projects"]] == [
        (sibling, "sibling"),
        (team.project_id, "default"),
    ]
    assert [(row["id"], row["name"], row["modelCalls"]) for row in told["breakdown"]["keys"]] == [
        (None, None, 0),
        (key.id, "test", 2),
    ]
    assert told_bound["usage"] == told["usage"]
    assert [row["name"] for row in told_bound["breakdown"]["projects"]] == ["default"]
    assert [row["id"] for row in told_bound["breakdown"]["models"]] == ["small"]


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        ("tokens", "stopped"),
        ("cost", "stopped"),
        ("soft_tokens", "deferred"),
        ("soft_cost", "deferred"),
        ("reserved", "waiting"),
    ],
)
async def test_generation_that_is_held_back_says_until_when_and_why(
    http: httpx2.AsyncClient, admin_pool: Pool, reason: str, state: str
) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    await set_limits(admin_pool, team.id, tokens_per_month=10, soft_tokens_per_month=5, requests_per_minute=600)
    await admin_pool.execute(
        "INSERT INTO commonplace.team_holds (team_id, held_until, reason) VALUES ($1, '2999-01-01 01:00+01', $2)",
        UUID(team.id),
        reason,
    )
    told = await usage(http, key)
    assert told["limits"] == {
        "hard": {"tokensPerMonth": 10, "requestsPerMinute": 600},
        "soft": {"tokensPerMonth": 5},
    }
    assert (told["generation"]["state"], told["generation"]["until"]) == (state, "2999-01-01T00:00:00.000Z")
    assert told["generation"]["reason"]
    await admin_pool.execute("UPDATE commonplace.team_holds SET held_until = now() - interval '1 s'")
    assert (await usage(http, key))["generation"]["state"] == "running", "a hold that is over holds nothing"


async def test_usage_can_be_read_when_the_months_requests_are_used_up(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    await set_limits(admin_pool, team.id, requests_per_month=1)
    assert (await http.get("/v1/jobs", headers=key.headers)).status_code == 200
    assert (await http.get("/v1/jobs", headers=key.headers)).status_code == 402
    told = await usage(http, key)
    assert (told["usage"]["request"], told["limits"]["hard"]["requestsPerMonth"]) == (1, 1)


async def test_usage_keeps_to_the_rate_and_needs_a_reading_key(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    writer = await make_key(admin_pool, team.id, scopes=["memories:write"])
    assert (await http.get("/v1/usage", headers=writer.headers)).status_code == 403
    await set_limits(admin_pool, team.id, requests_per_minute=0)
    reader = await make_key(admin_pool, team.id)
    assert (await http.get("/v1/usage", headers=reader.headers)).status_code == 429
