"""What health and autoscalers are told of the queue: honest when Postgres is away, cheap when the queue is long."""

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import httpx2

from commonplace_runtime.services.watch_queue import LaneBoard
from commonplace_runtime.settings import Settings
from commonplace_runtime.store import job_views
from commonplace_runtime.store import jobs as queue
from commonplace_runtime.store.pool import Pool
from tests.conftest import Database
from tests.factories import Key, Team, make_event, make_key, make_team

_NOT_VACUUMED = """
    SELECT sum(relpages - relallvisible) + CASE WHEN min(relpages) < 100 THEN 1 ELSE 0 END FROM pg_class
    WHERE oid IN ('commonplace.jobs'::regclass, 'commonplace.job_groups'::regclass)
"""
COUNTS = ("waiting", "active", "completed", "failed", "delayed", "stalled")


async def lanes(pool: Pool) -> dict[str, dict[str, int]]:
    """The lanes that are not empty, without zeros."""
    return {
        row["kind"]: counts
        for row in await job_views.lanes(pool)
        if (counts := {name: row[name] for name in COUNTS if row[name]})  # type: ignore[literal-required]
    }


async def fill(pool: Pool, team: Team, *, groups: int, jobs: int, status: str = "queued", kind: str = "c") -> None:
    """Groups that are due, a second apart, and jobs spread over them; version 7 ids, all older than a minute."""
    await pool.execute(
        "INSERT INTO commonplace.job_groups (team_id, project_id, session_key, available_at, waiting, waiting_since)"
        " SELECT $1, $2, $3 || ':' || n, now() - n * interval '1 s', 1, now() FROM generate_series(1, $4::integer) n",
        UUID(team.id),
        UUID(team.project_id),
        kind,
        groups,
    )
    await pool.execute(
        """
        INSERT INTO commonplace.jobs (id, team_id, project_id, session_key, source_type, source_id, job_type, actor,
            status, completed_at, service_seconds)
        SELECT overlay(gen_random_uuid()::text PLACING left(commonplace.first_id_of(now() - interval '2 minutes'
                - n * interval '1 ms')::text, 13) FROM 1)::uuid, $1, $2, $3 || ':' || 1 + n % $4, 'session_summary',
            gen_random_uuid(), 'summary', 'a', $6, CASE $6 WHEN 'completed' THEN now() - n * interval '1 ms' END, 0.5
        FROM generate_series(1, $5::integer) n
        """,
        UUID(team.id),
        UUID(team.project_id),
        kind,
        groups,
        jobs,
        status,
    )


async def cost(database: Database, function: str) -> int:
    """Pages that one call looks at, in memory or on disk; plans and catalogs are warm."""
    connection = await asyncpg.connect(database.superuser_url)
    try:
        async with asyncio.timeout(30):
            # A snapshot of somebody else, an automatic analysis for example, keeps vacuum from finishing.
            while await connection.fetchval(_NOT_VACUUMED) > 0:
                await connection.execute("VACUUM ANALYZE commonplace.jobs, commonplace.job_groups")
        await connection.fetchval(f"SELECT commonplace.{function}()")
        plan = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) SELECT commonplace.{function}()")
    finally:
        await connection.close()
    (told,) = [row[0] for row in plan if "Buffers: shared" in row[0]][:1]
    return sum(int(part.split("=")[1]) for part in told.split() if part.startswith(("hit=", "read=")))


async def tenant(pool: Pool, **columns: Any) -> tuple[Team, Key]:
    team = await make_team(pool, **columns)
    return team, await make_key(pool, team.id)


async def put(http: httpx2.AsyncClient, key: Key, session: str) -> str:
    body = make_event(contentSessionId=session, payload={"text": session})
    answer = await http.post("/v1/events", json=body, headers=key.headers)
    return str(answer.json()["generationJob"]["id"])


async def test_each_job_is_shown_where_it_stands(
    http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool
) -> None:
    _team, key = await tenant(admin_pool)
    _debounced, patient = await tenant(admin_pool, generation_mode="debounce", generation_window_seconds=3600)
    assert await lanes(runtime_pool) == {}
    await put(http, key, "one")
    await put(http, patient, "waits")
    assert await lanes(runtime_pool) == {"event": {"waiting": 1, "delayed": 1}}

    claim = await queue.claim(runtime_pool, worker="w", lease_seconds=60, max_jobs=1)
    assert await lanes(runtime_pool) == {"event": {"active": 1, "delayed": 1}}
    await admin_pool.execute(
        "UPDATE commonplace.job_groups SET lease_until = now() - interval '1 s' WHERE leased_by = 'w'"
    )
    assert await lanes(runtime_pool) == {"event": {"stalled": 1, "delayed": 1}}

    assert claim is not None
    assert claim.claimed is not None
    jobs = [{"id": str(job.id), "memories": []} for job in claim.claimed.jobs]
    await queue.complete(runtime_pool, claim.claimed.lease, {"provider": "p", "model": "m", "spent": [], "jobs": jobs})
    await admin_pool.execute("UPDATE commonplace.jobs SET status = 'failed', failed_at = now() WHERE status = 'queued'")
    assert await lanes(runtime_pool) == {"event": {"completed": 1, "failed": 1}}
    await admin_pool.execute(
        "UPDATE commonplace.jobs SET completed_at = now() - interval '8 days' WHERE status = 'completed'"
    )
    await admin_pool.execute(
        "UPDATE commonplace.jobs SET failed_at = now() - interval '31 days' WHERE status = 'failed'"
    )
    assert await lanes(runtime_pool) == {}


async def test_summaries_have_a_lane_of_their_own_and_the_past_is_counted_to_a_thousand(
    admin_pool: Pool, runtime_pool: Pool
) -> None:
    team, _key = await tenant(admin_pool)
    await fill(admin_pool, team, groups=3, jobs=1200, status="completed")
    assert await lanes(runtime_pool) == {"summary": {"completed": 1000}}


async def test_the_routes_without_a_key_show_names_and_counts(
    http: httpx2.AsyncClient, admin_pool: Pool, api_settings: Settings
) -> None:
    _team, key = await tenant(admin_pool)
    await put(http, key, "one")
    shown = (await http.get("/v1/info")).json()
    zero = {"active": 0, "completed": 0, "failed": 0, "delayed": 0, "stalled": 0, "unavailable": False}
    named = {"event": "server_beta_generate_event", "summary": "server_beta_generate_summary"}
    assert shown["queueLanes"] == [
        {"kind": "event", "name": named["event"], "waiting": 1, **zero},
        {"kind": "summary", "name": named["summary"], "waiting": 0, **zero},
    ]
    assert shown["boundaries"]["queueManager"]["details"]["lanes"] == [
        {"kind": kind, "name": name} for kind, name in named.items()
    ]
    assert (await http.get("/api/health")).json()["queue"]["lanes"] == shown["queueLanes"]


class CountedPool:
    """Counts the questions that reach the database."""

    def __init__(self, pool: Pool) -> None:
        self.asked = 0
        self._pool = pool

    def acquire(self, **options: Any) -> Any:
        self.asked += 1
        return self._pool.acquire(**options)


async def test_however_many_ask_the_database_is_asked_once_in_two_seconds(runtime_pool: Pool) -> None:
    now = 100.0
    counted, board = CountedPool(runtime_pool), LaneBoard(lambda: now)
    await asyncio.gather(*(board.look(counted) for _ in range(50)))  # type: ignore[arg-type]
    now += LaneBoard.KEEP_SECONDS - 0.1
    await board.look(counted)  # type: ignore[arg-type]
    assert counted.asked == 1
    now += 0.2
    await board.look(counted)  # type: ignore[arg-type]
    assert counted.asked == 2


async def test_without_postgres_the_lanes_are_said_to_be_unknown(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    async with admin_pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE commonplace.jobs")  # it is there and does not answer
        shown = (await http.get("/v1/info")).json()
    assert [(lane["unavailable"], lane["unavailableReason"]) for lane in shown["queueLanes"]] == [
        (True, "the database does not answer")
    ] * 2
    assert {lane["waiting"] for lane in shown["queueLanes"]} == {0}


async def test_the_backlog_is_what_a_worker_could_claim(admin_pool: Pool, runtime_pool: Pool) -> None:
    (free, _), (held, _), (detached, _) = [await tenant(admin_pool) for _ in range(3)]
    for team in (free, held, detached):
        await fill(admin_pool, team, groups=3, jobs=3)
    await admin_pool.execute("UPDATE commonplace.job_groups SET waiting = 4 WHERE session_key = 'c:3'")
    await admin_pool.execute(
        "UPDATE commonplace.job_groups SET available_at = now() + interval '1 h' WHERE session_key = 'c:1'"
    )
    await admin_pool.execute(
        "INSERT INTO commonplace.team_holds (team_id, held_until, reason) VALUES ($1, now() + interval '1 h', 'cost')",
        UUID(held.id),
    )
    await admin_pool.execute("UPDATE commonplace.teams SET detached_at = now() WHERE id = $1", UUID(detached.id))

    seen = await queue.queue_stats(runtime_pool)
    await admin_pool.execute("UPDATE commonplace.team_holds SET held_until = now() - interval '1 s'")
    lifted = await queue.queue_stats(runtime_pool)

    assert (seen["backlog"], seen["inFlight"], seen["workers"]) == (5, 0, 0)
    assert 3 <= seen["oldestSeconds"] < 60
    assert lifted["backlog"] == 10


async def test_arrivals_workers_and_service_times_are_measured(
    http: httpx2.AsyncClient, admin_pool: Pool, runtime_pool: Pool
) -> None:
    team, key = await tenant(admin_pool)
    await fill(admin_pool, team, groups=1, jobs=300, status="completed")
    for n in range(6):
        await put(http, key, f"session-{n}")
    await admin_pool.execute("UPDATE commonplace.job_groups SET available_at = NULL WHERE session_key LIKE 'c:1'")
    for worker in ("v", "w", "w"):
        await queue.claim(runtime_pool, worker=worker, lease_seconds=60, max_jobs=1)
    seen = await queue.queue_stats(runtime_pool)
    assert (seen["inFlight"], seen["workers"], seen["backlog"]) == (3, 2, 3)
    assert seen["arrivalRate"] == 0.1
    assert seen["serviceSeconds"] == 0.5
    await admin_pool.execute(
        "UPDATE commonplace.jobs SET completed_at = now() - interval '61 min' WHERE status = 'completed'"
    )
    assert (await queue.queue_stats(runtime_pool))["serviceSeconds"] is None


async def test_figures_of_a_long_queue_are_read_from_indexes(admin_pool: Pool, database: Database) -> None:
    team, _key = await tenant(admin_pool)
    await fill(admin_pool, team, groups=120_000, jobs=1)
    await fill(admin_pool, team, groups=1, jobs=80_000, status="completed", kind="d")
    await fill(admin_pool, team, groups=1, jobs=120_000, kind="e")
    connection = await asyncpg.connect(database.superuser_url)
    try:
        tables = await connection.fetchval(
            "SELECT pg_relation_size('commonplace.jobs') / 8192 + pg_relation_size('commonplace.job_groups') / 8192"
        )
    finally:
        await connection.close()
    stats, lane_cost = await cost(database, "queue_stats_v1"), await cost(database, "queue_lanes_v1")
    assert tables > 5000, "as large as it is meant to be"
    assert stats < 1500, "100,000 entries of the index by availability, and 200 completed jobs"
    assert lane_cost < 1500, "100,000 entries of the index of queued jobs, 1,000 completed ones"
