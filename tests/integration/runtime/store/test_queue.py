"""What a claim hands out is bounded in size and shown to whom it concerns, and what the queue keeps is bounded too."""

import json
from collections.abc import Mapping
from typing import Any

import asyncpg

from commonplace_runtime.ids import uuid7
from commonplace_runtime.store import jobs as store
from commonplace_runtime.store.jobs import Claimed
from commonplace_runtime.store.pool import Pool
from tests.conftest import Database
from tests.integration.runtime.worker.support import Tenant, expire_lease, make_tenant, put_event, take

MB = 1_000_000
BLANK = "x" * MB
"""A megabyte that Postgres stores in a few kilobytes."""


async def ingest(pool: Pool, tenant: Tenant, *payloads: object, actor: str = "human:ada") -> None:
    """One session's events, as the API stores them."""
    events = [
        {
            "id": str(uuid7()),
            "jobId": str(uuid7()),
            "contentSessionId": "one",
            "platformGiven": False,
            "sourceAdapter": "hook",
            "eventType": "tool_use",
            "payload": payload,
            "metadata": {},
            "occurredAt": 1,
            "digest": str(uuid7()),
            "privateParts": 0,
            "redactedSecrets": 0,
        }
        for payload in payloads
    ]
    await pool.fetchval(
        "SELECT commonplace.ingest_v1($1, $2, $3, $4, 'r', true, true, $5)",
        tenant.team_id,
        tenant.key_id,
        tenant.project_id,
        actor,
        events,
    )


async def claim(pool: Pool) -> Claimed:
    found = await store.claim(pool, worker="w", lease_seconds=60, max_jobs=30)
    assert found is not None
    assert found.claimed is not None
    return found.claimed


def size(claimed: Claimed) -> int:
    return sum(len(json.dumps(job.event.payload)) for job in claimed.jobs if job.event)


async def test_a_claim_is_weighed_by_what_it_hands_out(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await ingest(runtime_pool, tenant, *[{"tool_response": BLANK} for _ in range(8)])

    claimed = await claim(runtime_pool)

    assert len(claimed.jobs) == 3
    assert size(claimed) <= 4 * MB


async def test_events_from_before_the_sizes_are_weighed_too(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    for _ in range(12):
        await put_event(admin_pool, tenant, payload=BLANK * 4)
    for _ in range(3):
        await put_event(admin_pool, tenant, session="c:small", payload="small")

    claimed = [await claim(runtime_pool) for _ in range(2)]

    assert len(claimed[0].jobs) <= 5
    assert len(claimed[1].jobs) == 3


async def test_an_event_too_large_for_anybody_is_told_of_not_handed_out(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await ingest(runtime_pool, tenant, {"tool_name": "Read", "tool_response": BLANK * 9})
    await put_event(admin_pool, tenant, session="c:-:before", payload={"tool_response": BLANK * 9})

    for _ in range(2):
        claimed = await claim(runtime_pool)
        assert size(claimed) < 500
        [job] = claimed.jobs
        assert job.event is not None
        assert isinstance(job.event.payload, Mapping)
        assert "too large" in str(job.event.payload["note"])


async def start(pool: Pool, tenant: Tenant, actor: str, metadata: Mapping[str, str]) -> None:
    await pool.fetchval(
        "SELECT commonplace.start_session_v1($1, $2, $3, $4, 'r', $5)",
        tenant.team_id,
        tenant.key_id,
        tenant.project_id,
        actor,
        {"id": str(uuid7()), "identity": "i", "contentSessionId": "one", "metadata": dict(metadata)},
    )


async def test_a_prompt_is_shown_with_its_authors_events_alone(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await start(runtime_pool, tenant, "human:ada", {"prompt": "Ada's question"})
    await start(runtime_pool, tenant, "agent:other", {"cwd": "/x"})
    told = {}
    for actor in ("human:ada", "agent:other"):
        await ingest(runtime_pool, tenant, "an event", actor=actor)
        claimed = await claim(runtime_pool)
        told[actor] = claimed.request

    assert told == {"human:ada": "Ada's question", "agent:other": ""}


async def states(pool: Pool) -> Mapping[str, Any]:
    rows = await pool.fetch("SELECT session_key, state FROM commonplace.job_groups")
    return {row["session_key"]: row["state"] for row in rows}


async def complete(pool: Pool) -> None:
    lease, jobs = await take(pool)
    results = {
        "provider": "p",
        "model": "m",
        "state": {"digests": ["d"]},
        "jobs": [{"id": str(job.id), "memories": []} for job in jobs],
    }
    assert (await store.complete(pool, lease, results))["outcome"] == "written"


async def test_an_event_without_a_session_leaves_no_state(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await put_event(admin_pool, tenant, session=f"e:{uuid7()}")
    await complete(runtime_pool)

    assert list((await states(admin_pool)).values()) == [{}]


async def test_what_a_session_left_is_forgotten_a_month_after_its_last_call(
    admin_pool: Pool, runtime_pool: Pool
) -> None:
    tenant = await make_tenant(admin_pool)
    for session in ("c:old", "c:open", "c:new"):
        await put_event(admin_pool, tenant, session=session)
        await complete(runtime_pool)
    await put_event(admin_pool, tenant, session="c:open", delay=3600)
    await admin_pool.execute(
        "UPDATE commonplace.job_groups SET state_at = now() - interval '31 days' WHERE session_key <> 'c:new'"
    )

    assert await store.housekeeping(runtime_pool, batch=50) == {"rateCounters": 0, "keysRevoked": 0, "groupStates": 1}

    known = {"digests": ["d"]}
    assert await states(admin_pool) == {"c:old": {}, "c:open": known, "c:new": known}


async def test_figures_leave_out_who_is_held_and_who_died(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant, held = await make_tenant(admin_pool), await make_tenant(admin_pool)
    dead = await put_event(admin_pool, tenant, session="c:dead")
    await take(runtime_pool, worker="dead")
    await expire_lease(admin_pool, dead)
    await put_event(admin_pool, held, session="c:held")
    await admin_pool.execute(
        "INSERT INTO commonplace.team_holds (team_id, held_until, reason) VALUES ($1, now() + interval '1 h', 'cost')",
        held.team_id,
    )

    seen = await store.queue_stats(runtime_pool)

    assert (seen["inFlight"], seen["workers"], seen["backlog"]) == (0, 0, 1)
    assert round(seen["arrivalRate"] * 60) == 1


async def test_a_claim_steps_over_the_sessions_that_wait_for_later(admin_pool: Pool, database: Database) -> None:
    busy, waiting, due = sorted([await make_tenant(admin_pool) for _ in range(3)], key=lambda tenant: tenant.team_id)
    for tenant, delay in ((busy, -1), (waiting, 3600)):
        await admin_pool.execute(
            "INSERT INTO commonplace.job_groups (team_id, project_id, session_key, available_at, waiting)"
            " SELECT $1, $2, 'c:' || n, now() + make_interval(secs => $3), 1 FROM generate_series(1, 20000) n",
            tenant.team_id,
            tenant.project_id,
            delay,
        )
    await put_event(admin_pool, due, payload="due")
    connection = await asyncpg.connect(database.superuser_url)
    try:
        await connection.execute("ANALYZE commonplace.job_groups")
        for _ in range(2):
            plan = await connection.fetchval(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM commonplace.next_group('{busy.team_id}', true)"
            )
    finally:
        await connection.close()
    [look] = json.loads(plan)
    assert look["Plan"]["Actual Rows"] == 1
    assert look["Plan"]["Shared Hit Blocks"] + look["Plan"]["Shared Read Blocks"] < 100, "pages of 40,000 sessions"
