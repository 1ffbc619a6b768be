"""What a request refers to is erased while it runs: it looks again, and nobody sees a fault of ours."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import UUID

import httpx2

from commonplace_runtime.ids import uuid7
from commonplace_runtime.store.pool import Pool
from tests.factories import make_event, make_key, make_session, make_team
from tests.integration.runtime.api.test_transfer import HEADER, NDJSON, memory, ndjson
from tests.integration.runtime.worker.support import until

T = TypeVar("T")


@asynccontextmanager
async def _erasing(pool: Pool, statement: str, row_id: str) -> AsyncIterator[None]:
    """An erasure that has taken the row and has not committed; at the end, once somebody waits for it, it does."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(statement, UUID(row_id))
        yield
        await until(lambda: _somebody_waits(pool))


async def _somebody_waits(pool: Pool) -> bool:
    waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"
    return bool(await pool.fetchval(waiting))


def _begun(asked: Awaitable[T]) -> "asyncio.Future[T]":
    return asyncio.ensure_future(asked)


async def test_an_event_of_a_session_that_is_erased_meanwhile_stands_alone(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id, project_id=team.project_id)
    for path, body in (
        ("/v1/events", make_event(contentSessionId="S", platformSource=None)),
        ("/v1/events/batch", [make_event(contentSessionId="S", platformSource=None, sourceEventId="another")]),
    ):
        session = await make_session(admin_pool, team, content_session_id="S")
        async with _erasing(admin_pool, "DELETE FROM commonplace.sessions WHERE id = $1", session):
            sending = _begun(http.post(path, json=body, headers=key.headers))
        answer = await sending
        assert answer.status_code == 201, answer.text
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.events WHERE session_id IS NULL") == 2


async def test_a_memory_of_a_session_that_is_erased_meanwhile_is_refused_as_of_any_other_that_is_not_there(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id, project_id=team.project_id)
    session = await make_session(admin_pool, team, content_session_id="S")

    async with _erasing(admin_pool, "DELETE FROM commonplace.sessions WHERE id = $1", session):
        sending = _begun(
            http.post("/v1/memories", json={"content": "x", "serverSessionId": session}, headers=key.headers)
        )

    assert (await sending).status_code == 403


async def test_an_import_whose_source_is_erased_meanwhile_keeps_its_id_without_the_link(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id, project_id=team.project_id)
    event = str(uuid7())
    await admin_pool.execute(
        "INSERT INTO commonplace.events (id, team_id, project_id, source_adapter, idempotency_key, event_type, actor,"
        " payload, occurred_at) VALUES ($1, $2, $3, 'hook', 'k', 'x', 'agent:tester', '{}', now())",
        UUID(event),
        UUID(team.id),
        UUID(team.project_id),
    )
    line = memory("Leases end.", sources=[{"sourceType": "agent_event", "sourceId": event}])

    async with _erasing(admin_pool, "DELETE FROM commonplace.events WHERE id = $1", event):
        sending = _begun(http.post("/v1/import", content=ndjson([HEADER, line]), headers={**key.headers, **NDJSON}))

    answer = await sending
    assert (answer.status_code, answer.json()["imported"]) == (200, 1), answer.text
    sources = await admin_pool.fetch("SELECT source_id, event_id FROM commonplace.memory_sources")
    assert [(str(row["source_id"]), row["event_id"]) for row in sources] == [(event, None)]
