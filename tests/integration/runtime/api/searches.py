"""Calls to /v1/search that tests of it share."""

from typing import Any

import httpx2

from commonplace_runtime.store.pool import Pool
from tests.factories import Key, Team, make_key, make_team


async def make_world(admin_pool: Pool) -> tuple[Team, Key]:
    team = await make_team(admin_pool)
    return team, await make_key(admin_pool, team.id, project_id=team.project_id)


async def search(http: httpx2.AsyncClient, key: Key, query: str, **fields: Any) -> list[dict[str, Any]]:
    answer = await http.post("/v1/search", json={"query": query, **fields}, headers=key.headers)
    assert answer.status_code == 200, answer.text
    observations: list[dict[str, Any]] = answer.json()["observations"]
    return observations


async def found(http: httpx2.AsyncClient, key: Key, query: str, **fields: Any) -> list[str]:
    return [observation["content"] for observation in await search(http, key, query, **fields)]
