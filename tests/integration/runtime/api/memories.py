"""Calls to /v1/memories that tests of them share."""

from typing import Any

import httpx2

from commonplace_runtime.store.pool import Pool
from tests.factories import Key, Team, make_key, make_team

GONE = {"error": "NotFound", "message": "Memory not found"}


async def make_world(admin_pool: Pool, **columns: Any) -> tuple[Team, Key]:
    team = await make_team(admin_pool, **columns)
    return team, await make_key(admin_pool, team.id)


async def post(http: httpx2.AsyncClient, key: Key, **body: Any) -> httpx2.Response:
    return await http.post("/v1/memories", json=body, headers=key.headers)


async def write(http: httpx2.AsyncClient, key: Key, **body: Any) -> dict[str, Any]:
    answer = await post(http, key, **body)
    assert answer.status_code == 201, answer.text
    memory: dict[str, Any] = answer.json()["memory"]
    return memory


async def patch(http: httpx2.AsyncClient, key: Key, memory_id: str, **body: Any) -> httpx2.Response:
    return await http.patch(f"/v1/memories/{memory_id}", json=body, headers=key.headers)


async def read(http: httpx2.AsyncClient, key: Key, memory_id: str) -> dict[str, Any]:
    answer = await http.get(f"/v1/memories/{memory_id}", headers=key.headers)
    assert answer.status_code == 200, answer.text
    memory: dict[str, Any] = answer.json()["memory"]
    return memory


async def listed(http: httpx2.AsyncClient, key: Key, **query: Any) -> list[str]:
    """The contents of the memories that the list shows."""
    answer = await http.get("/v1/memories", params=query, headers=key.headers)
    assert answer.status_code == 200, answer.text
    return [memory["content"] for memory in answer.json()["memories"]]


async def supersede(http: httpx2.AsyncClient, key: Key, memory_id: str, **body: Any) -> httpx2.Response:
    return await http.post(f"/v1/memories/{memory_id}/supersede", json=body, headers=key.headers)


async def audits(admin_pool: Pool, team: Team) -> list[dict[str, Any]]:
    """The team's audit rows, oldest first."""
    rows = await admin_pool.fetch(
        "SELECT action, resource_type, resource_id, project_id::text, key_id::text, actor, request_id, details"
        " FROM commonplace.audit_log WHERE team_id = $1::text::uuid ORDER BY number",
        team.id,
    )
    return [dict(row) for row in rows]
