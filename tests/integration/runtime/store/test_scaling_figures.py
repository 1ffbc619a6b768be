"""What the operator is told of the queue, team by team: whose it is, what is left out, and what it costs to ask."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from commonplace_runtime.store import jobs as queue
from commonplace_runtime.store.pool import Pool
from tests.conftest import Database
from tests.factories import make_team, set_limits
from tests.integration.runtime.worker.support import Tenant, expire_lease, make_tenant, put_event, take

_NOT_VACUUMED = """
    SELECT sum(relpages - relallvisible) + CASE WHEN min(relpages) < 100 THEN 1 ELSE 0 END FROM pg_class
    WHERE oid IN ('commonplace.jobs'::regclass, 'commonplace.job_groups'::regclass)
"""


async def look(pool: Pool, *, term: int = 1) -> Any:
    return await pool.fetchval("SELECT commonplace.queue_by_team_v1('cluster-1/default', $1, 1, 'rt-uid')", term)


def of(seen: Any, tenant: Tenant) -> dict[str, Any]:
    return next(dict(team) for team in seen["teams"] if team["teamId"] == str(tenant.team_id))


async def test_each_team_is_told_of_with_its_limit(admin_pool: Pool, runtime_pool: Pool, operator_pool: Pool) -> None:
    busy, quiet = await make_tenant(admin_pool), await make_tenant(admin_pool)
    await set_limits(admin_pool, str(busy.team_id), workers=3)
    for _ in range(2):
        await put_event(admin_pool, busy, session="c:one")
    await take(runtime_pool, worker="pod-1")
    for session in ("c:two", "c:two", "c:three"):
        await put_event(admin_pool, busy, session=session)
    await put_event(admin_pool, quiet, session="c:later", delay=3600)

    seen = await look(operator_pool)

    told = of(seen, busy)
    assert (told["backlog"], told["sessions"], told["workers"]) == (3, 2, 3)
    assert (told["busySessions"], told["inFlight"], seen["workers"]) == (1, 2, {"pod-1": 2})
    assert told["arrivalRate"] == pytest.approx(5 / 60)
    waiting = of(seen, quiet)
    assert (waiting["backlog"], waiting["inFlight"], waiting["workers"]) == (0, 0, None)
    assert (seen["others"]["teams"], seen["others"]["backlog"]) == (0, 0)


async def test_who_is_held_or_dead_does_not_count(admin_pool: Pool, runtime_pool: Pool, operator_pool: Pool) -> None:
    tenant, held = await make_tenant(admin_pool), await make_tenant(admin_pool)
    dead = await put_event(admin_pool, tenant, session="c:dead")
    await take(runtime_pool, worker="dead")
    await expire_lease(admin_pool, dead)
    await put_event(admin_pool, held, session="c:held")
    await admin_pool.execute(
        "INSERT INTO commonplace.team_holds (team_id, held_until, reason) VALUES ($1, now() + interval '1 h', 'cost')",
        held.team_id,
    )

    seen = await look(operator_pool)

    assert [team["teamId"] for team in seen["teams"]] == [str(tenant.team_id)]
    assert (of(seen, tenant)["backlog"], of(seen, tenant)["inFlight"], seen["workers"]) == (1, 0, {})


async def test_the_sum_over_teams_is_what_the_runtime_exports(
    admin_pool: Pool, runtime_pool: Pool, operator_pool: Pool
) -> None:
    for size in (1, 2, 5):
        tenant = await make_tenant(admin_pool)
        for number in range(size):
            await put_event(admin_pool, tenant, session=f"c:{number}")
    for worker in ("a", "b", "b"):
        await take(runtime_pool, worker=worker)

    seen, exported = await look(operator_pool), await queue.queue_stats(runtime_pool)

    for name in ("backlog", "sessions", "busySessions", "inFlight"):
        assert sum(team[name] for team in seen["teams"]) == exported[name], name
    assert sum(team["arrivalRate"] for team in seen["teams"]) == pytest.approx(exported["arrivalRate"])
    assert (seen["workers"], seen["serviceSeconds"]) == ({"a": 1, "b": 2}, exported["serviceSeconds"])


async def put_arrivals(pool: Pool, tenant: Tenant, ages: Sequence[float]) -> None:
    """Jobs that came so many seconds ago, each of a session that waits for later."""
    await pool.execute(
        """
        WITH place AS (
            INSERT INTO commonplace.job_groups (team_id, project_id, session_key) SELECT $1, $2, 'c:' || n
            FROM generate_series(1, cardinality($3::float8[])) n)
        INSERT INTO commonplace.jobs (id, team_id, project_id, session_key, source_type, source_id, job_type, actor)
        SELECT overlay(gen_random_uuid()::text PLACING
                left(commonplace.first_id_of(now() - make_interval(secs => age))::text, 13) FROM 1)::uuid,
            $1, $2, 'c:' || n, 'session_summary', gen_random_uuid(), 's', 'a'
        FROM unnest($3::float8[]) WITH ORDINALITY AS came (age, n)
        """,
        tenant.team_id,
        tenant.project_id,
        list(ages),
    )


@pytest.mark.parametrize(
    ("ages", "steady"),
    [
        pytest.param([1.0 + 2 * n for n in range(29)], 0.5, id="one every other second"),
        pytest.param([3.0] * 300, 0.0, id="a burst"),
        pytest.param([3.0] * 300 + [1.0 + 2 * n for n in range(29)], 0.5, id="a burst on top of the steady"),
        pytest.param([61.0] * 9, 0.0, id="longer ago"),
        pytest.param([], 0.0, id="none"),
    ],
)
async def test_a_burst_does_not_move_the_steady_rate(
    admin_pool: Pool, runtime_pool: Pool, operator_pool: Pool, ages: list[float], steady: float
) -> None:
    tenant = await make_tenant(admin_pool)
    await put_arrivals(admin_pool, tenant, ages)
    exported, seen = await queue.queue_stats(runtime_pool), await look(operator_pool)
    assert exported["steadyRate"] == pytest.approx(steady, abs=0.06)
    assert sum(team["steadyRate"] for team in seen["teams"]) == pytest.approx(steady, abs=0.06)
    assert exported["arrivalRate"] == pytest.approx(sum(age < 60 for age in ages) / 60, abs=0.02)


async def test_an_older_term_is_told_nothing(operator_pool: Pool) -> None:
    await look(operator_pool, term=7)
    with pytest.raises(asyncpg.PostgresError, match="term 7 leads") as caught:
        await look(operator_pool, term=6)
    assert caught.value.sqlstate == "CM001"


async def _fill(pool: Pool, *, teams: int, groups_each: int, jobs: int) -> None:
    """Teams with due groups, the first ones with one more, and completed jobs of another team."""
    await pool.execute(
        "INSERT INTO commonplace.teams (id, slug, name)"
        " SELECT gen_random_uuid(), 't-' || n, 'T' FROM generate_series(1, $1::integer) n",
        teams,
    )
    await pool.execute(
        "INSERT INTO commonplace.projects (id, team_id, name)"
        " SELECT gen_random_uuid(), id, 'default' FROM commonplace.teams"
    )
    await pool.execute(
        "INSERT INTO commonplace.job_groups (team_id, project_id, session_key, available_at, waiting)"
        " SELECT p.team_id, p.id, 'c:' || n, now() - interval '1 min', CASE WHEN t.slug = 't-1' THEN 2 ELSE 1 END"
        " FROM commonplace.projects p JOIN commonplace.teams t ON t.id = p.team_id, generate_series(1, $1::integer) n",
        groups_each,
    )
    old = await make_team(pool)
    await pool.execute(
        "INSERT INTO commonplace.job_groups (team_id, project_id, session_key) VALUES ($1, $2, 'd')",
        UUID(old.id),
        UUID(old.project_id),
    )
    await pool.execute(
        """
        INSERT INTO commonplace.jobs (id, team_id, project_id, session_key, source_type, source_id, job_type, actor,
            status, completed_at, service_seconds)
        SELECT overlay(gen_random_uuid()::text PLACING left(commonplace.first_id_of(now() - interval '2 minutes'
                - n * interval '1 ms')::text, 13) FROM 1)::uuid, $1, $2, 'd', 'session_summary',
            gen_random_uuid(), 'summary', 'a', 'completed', now() - n * interval '1 ms', 0.5
        FROM generate_series(1, $3::integer) n
        """,
        UUID(old.id),
        UUID(old.project_id),
        jobs,
    )


async def _pages(database: Database) -> int:
    """Pages that one call looks at, in memory or on disk; plans and catalogs are warm."""
    question = "SELECT commonplace.queue_by_team_v1('i', 1, 1, 'u')"
    connection = await asyncpg.connect(database.superuser_url)
    try:
        async with asyncio.timeout(30):
            # A snapshot of somebody else, an automatic analysis for example, keeps vacuum from finishing.
            while await connection.fetchval(_NOT_VACUUMED) > 0:
                await connection.execute("VACUUM ANALYZE commonplace.jobs, commonplace.job_groups, commonplace.teams")
        await connection.fetchval(question)
        plan = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) {question}")
    finally:
        await connection.close()
    (told,) = [row[0] for row in plan if "Buffers: shared" in row[0]][:1]
    return sum(int(part.split("=")[1]) for part in told.split() if part.startswith(("hit=", "read=")))


async def test_a_long_queue_of_many_teams_is_read_from_indexes_and_told_of_in_bounds(
    admin_pool: Pool, operator_pool: Pool, database: Database
) -> None:
    await _fill(admin_pool, teams=1200, groups_each=100, jobs=100_000)

    seen, cost = await look(operator_pool), await _pages(database)

    assert (len(seen["teams"]), seen["teams"][0]["slug"]) == (1000, "t-1")
    counted = sum(part["sessions"] for part in (*seen["teams"], seen["others"]))
    assert (seen["others"]["teams"], counted) == (200, 100_000), "counting stops there"
    # 100,000 entries of the index by availability, 200 completed jobs, and two look-ups for each listed team.
    assert cost < 1500 + 1000 * 5
