"""What a team may spend: nothing is called beyond its limits, every call is counted once, everything else goes on."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from commonplace_runtime.domain.observations import Generated
from commonplace_runtime.domain.retry import Failure, FailureKind
from commonplace_runtime.ids import uuid7
from commonplace_runtime.llm.chain import ChainedGenerator, Step
from commonplace_runtime.llm.ports import Batch, Estimate, GenerationFailed
from commonplace_runtime.services.generate import Terms, run_group
from commonplace_runtime.store import jobs as store
from commonplace_runtime.store.jobs import Lease
from commonplace_runtime.store.pool import Pool
from tests.integration.runtime.worker.support import (
    ScriptedGenerator,
    Tenant,
    background,
    expire_lease,
    make_due,
    make_tenant,
    one_each,
    put_event,
    statuses,
    take,
    terms,
    until,
)

CALL_TOKENS = 15
CALL_COST = 10 * 10 + 5 * 50
ESTIMATE_TOKENS = 150
CALL = {"provider": "scripted", "model": "scripted-1", "inputTokens": 100, "outputTokens": 50, "costMicrousd": 3500}


async def limit(pool: Pool, tenant: Tenant, **limits: float) -> None:
    names = ", ".join(limits)
    places = ", ".join(f"${place}::numeric" for place in range(2, len(limits) + 2))
    assignments = ", ".join(f"{name} = excluded.{name}" for name in limits)
    await pool.execute(
        f"INSERT INTO commonplace.team_limits (team_id, {names}) VALUES ($1, {places}) "
        f"ON CONFLICT (team_id) DO UPDATE SET {assignments}",
        tenant.team_id,
        *limits.values(),
    )


async def spend(pool: Pool, tenant: Tenant, *, tokens: int = 0, microusd: int = 0) -> None:
    await pool.executemany(
        "INSERT INTO commonplace.usage_counters (team_id, project_id, month, kind, model, quantity) "
        "VALUES ($1, $2, date_trunc('month', now() AT TIME ZONE 'UTC')::date, $3, 'earlier', $4)",
        [
            (tenant.team_id, tenant.project_id, kind, quantity)
            for kind, quantity in (("tokens", tokens), ("cost_microusd", microusd))
        ],
    )


async def spent(pool: Pool, tenant: Tenant, *, model: str = "scripted-1") -> dict[str, int]:
    rows = await pool.fetch(
        "SELECT kind, sum(quantity)::bigint AS quantity FROM commonplace.usage_counters "
        "WHERE team_id = $1 AND model = $2 GROUP BY kind ORDER BY kind",
        tenant.team_id,
        model,
    )
    return {row["kind"]: row["quantity"] for row in rows}


async def held(pool: Pool, tenant: Tenant) -> str | None:
    reason: str | None = await pool.fetchval(
        "SELECT reason FROM commonplace.team_holds WHERE team_id = $1 AND held_until > now()", tenant.team_id
    )
    return reason


async def reservations(pool: Pool) -> int:
    count: int = await pool.fetchval("SELECT count(*) FROM commonplace.reservations")
    return count


async def reserve(pool: Pool, lease: Lease) -> str:
    answer = await store.reserve(pool, lease, CALL)
    return str(answer.get("reason", answer["outcome"]))


async def drain(pool: Pool, generator: ScriptedGenerator, ours: Terms | None = None) -> list[str]:
    ours = ours or terms()
    kinds: list[str] = []
    while (outcome := await run_group(pool, generator, ours)).kind != "idle":
        kinds.append(outcome.kind)
    return kinds


@asynccontextmanager
async def call_under_way(pool: Pool, generator: ScriptedGenerator) -> AsyncIterator["asyncio.Task[Any]"]:
    """A turn whose call has been made and has not come back."""
    generator.go_on.clear()
    async with background(run_group(pool, generator, terms())) as running:
        await generator.called.wait()
        yield running


def failing(kind: FailureKind) -> ScriptedGenerator:
    def answer(_: Batch) -> Generated:
        failure = Failure(
            kind=kind, reason="told to", provider="scripted", model="scripted-1", input_tokens=10, output_tokens=5
        )
        raise GenerationFailed(failure)

    return ScriptedGenerator(answer)


async def test_a_team_without_a_budget_never_asks_for_one(
    admin_pool: Pool, runtime_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, metered = await make_tenant(admin_pool), await make_tenant(admin_pool)
    await limit(admin_pool, free, requests_per_month=1)
    await limit(admin_pool, metered, soft_tokens_per_month=1000)
    await put_event(admin_pool, free)
    await put_event(admin_pool, metered)
    asked: list[UUID] = []

    async def noted(pool: Pool, lease: Lease, call: Mapping[str, Any], ask: Any = store.reserve) -> Any:
        asked.append(lease.team_id)
        return await ask(pool, lease, call)

    monkeypatch.setattr(store, "reserve", noted)
    await drain(runtime_pool, ScriptedGenerator())

    assert asked == [metered.team_id]
    assert await reservations(admin_pool) == 0


async def test_what_costs_nothing_needs_no_budget(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=0)
    put = await put_event(admin_pool, tenant)

    class Free(ScriptedGenerator):
        def estimate(self, batch: Batch) -> Estimate | None:
            return None

    await drain(runtime_pool, Free())

    assert await statuses(admin_pool, [put]) == ["completed"]


@pytest.mark.parametrize(("own", "ours", "is_held"), [(None, 1000, True), (5000, 1000, True), (None, 1001, False)])
async def test_a_workers_own_limit_of_tokens_holds_beside_the_teams(
    admin_pool: Pool, runtime_pool: Pool, own: int | None, ours: int, is_held: bool
) -> None:
    tenant = await make_tenant(admin_pool)
    if own is not None:
        await limit(admin_pool, tenant, tokens_per_month=own)
    await spend(admin_pool, tenant, tokens=1000)
    await put_event(admin_pool, tenant)

    kinds = await drain(runtime_pool, ScriptedGenerator(), replace(terms(), tokens_per_month=ours))

    assert (kinds, await held(admin_pool, tenant)) == ((["held"], "tokens") if is_held else (["completed"], None))
    hours = await admin_pool.fetchval("SELECT max(held_until - now()) <= interval '1 hour' FROM commonplace.team_holds")
    assert hours is (True if is_held else None), "nobody lifts it when the worker's limit is raised"


async def test_a_workers_looser_limit_changes_nothing_of_the_teams(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=10)
    await spend(admin_pool, tenant, tokens=1000)
    await put_event(admin_pool, tenant)

    assert await drain(runtime_pool, ScriptedGenerator(), replace(terms(), tokens_per_month=5000)) == ["held"]

    month = "(date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC'"
    assert await admin_pool.fetchval(f"SELECT held_until = {month} FROM commonplace.team_holds")


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"tokens_per_month": 1000}, "tokens"), ({"cost_per_month_usd": 0.5}, "cost")],
    ids=["tokens", "cost"],
)
async def test_a_spent_budget_stops_generation_and_nothing_else(
    admin_pool: Pool, runtime_pool: Pool, limits: Mapping[str, float], reason: str
) -> None:
    tenant, other = await make_tenant(admin_pool), await make_tenant(admin_pool)
    await limit(admin_pool, tenant, **limits)
    await spend(admin_pool, tenant, tokens=1000, microusd=500_000)
    puts = [await put_event(admin_pool, tenant, session=f"c:-:{n}", payload=n) for n in range(3)]
    await put_event(admin_pool, other, payload="other")
    generator = ScriptedGenerator()

    kinds = await drain(runtime_pool, generator)

    assert sorted(kinds) == ["completed", "held"]
    assert generator.batches == [["other"]]
    rows = await admin_pool.fetch(
        "SELECT status, attempts, last_error FROM commonplace.jobs WHERE team_id = $1", tenant.team_id
    )
    assert [tuple(row) for row in rows] == [("queued", 0, None)] * 3
    assert await held(admin_pool, tenant) == reason
    assert await admin_pool.fetchval(
        "SELECT held_until AT TIME ZONE 'UTC' = date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month' "
        "FROM commonplace.team_holds"
    )
    assert await reservations(admin_pool) == 0
    puts.append(await put_event(admin_pool, tenant, session="c:-:0", payload="captured meanwhile"))
    assert await drain(runtime_pool, generator) == []
    assert await statuses(admin_pool, puts) == ["queued"] * 4


async def test_capture_goes_on_while_generation_is_held(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=0)
    await put_event(admin_pool, tenant)
    await drain(runtime_pool, ScriptedGenerator())
    event = {
        "id": str(uuid7()), "jobId": str(uuid7()), "project": str(tenant.project_id), "sourceAdapter": "hook",
        "eventType": "assistant_message", "payload": "kept", "metadata": {}, "occurredAt": 1_700_000_000_000,
        "digest": "d", "privateParts": 0, "redactedSecrets": 0, "platformGiven": False,
    }  # fmt: skip

    [stored] = await runtime_pool.fetchval(
        "SELECT commonplace.ingest_v1($1, $2, NULL, 'human:ada', 'r', true, false, $3)",
        tenant.team_id,
        tenant.key_id,
        [event],
    )

    assert stored["job"]["status"] == "queued"
    assert await drain(runtime_pool, ScriptedGenerator()) == []


async def test_a_hold_is_audited_once(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=1000)
    for n in range(3):
        await put_event(admin_pool, tenant, session=f"c:-:{n}")
    leases = [(await take(runtime_pool))[0] for _ in range(3)]
    await spend(admin_pool, tenant, tokens=1000)

    assert [await reserve(runtime_pool, lease) for lease in leases] == ["tokens"] * 3

    rows = await admin_pool.fetch(
        "SELECT resource_id, details FROM commonplace.audit_log WHERE action = 'generation.held'"
    )
    assert [row["resource_id"] for row in rows] == [str(tenant.team_id)]
    assert (rows[0]["details"]["reason"], rows[0]["details"]["tokens"]) == ("tokens", 1000)


_VERDICT = """
SELECT refusal, until AT TIME ZONE 'UTC' AS until FROM commonplace.budget_verdict(
    jsonb_populate_record(NULL::commonplace.team_limits, $1), $2, $3, $4, $5, $6::timestamp AT TIME ZONE 'UTC')
"""
_SOFT = {"soft_tokens_per_month": 10, "soft_cost_per_month_usd": 0.5, "tokens_per_month": 100, "cost_per_month_usd": 1}


@pytest.mark.parametrize(
    ("limits", "figures", "at", "refusal", "held_until"),
    [
        ({}, (10**12, 10**12, 10**12, 10**12), "2026-03-31T12:00", None, None),
        (_SOFT, (9, 499_999, 50, 0), "2026-03-31T12:00", None, None),
        (_SOFT, (10, 0, 0, 0), "2026-03-10T12:00", "soft_tokens", "2026-03-11T02:00"),
        (_SOFT, (0, 500_000, 0, 0), "2026-03-10T23:59:59", "soft_cost", "2026-03-11T02:00"),
        (_SOFT, (10, 0, 0, 0), "2026-03-10T01:59:59", "soft_tokens", "2026-03-10T02:00"),
        (_SOFT, (99, 999_999, 0, 0), "2026-03-10T02:00", None, None),
        (_SOFT, (99, 999_999, 0, 0), "2026-03-10T05:59:59", None, None),
        (_SOFT, (10, 0, 0, 0), "2026-03-10T06:00", "soft_tokens", "2026-03-11T02:00"),
        (_SOFT, (100, 0, 0, 0), "2026-03-10T03:00", "tokens", "2026-04-01T00:00"),
        (_SOFT, (0, 1_000_000, 0, 0), "2026-12-31T23:59:59", "cost", "2027-01-01T00:00"),
        (_SOFT, (99, 0, 1, 0), "2026-03-10T03:00", "reserved", "2026-03-10T03:01"),
        (_SOFT, (9, 0, 90, 0), "2026-03-10T12:00", None, None),
        (_SOFT, (9, 0, 91, 0), "2026-03-10T12:00", "reserved", "2026-03-10T12:01"),
        (_SOFT, (0, 400_000, 0, 600_000), "2026-03-10T12:00", "reserved", "2026-03-10T12:01"),
        ({"tokens_per_month": 0}, (0, 0, 0, 0), "2026-03-10T12:00", "tokens", "2026-04-01T00:00"),
    ],
)
async def test_a_soft_limit_rests_at_night_and_a_hard_one_until_next_month(
    runtime_pool: Pool,
    limits: Mapping[str, float],
    figures: Sequence[int],
    at: str,
    refusal: str | None,
    held_until: str | None,
) -> None:
    verdict = await runtime_pool.fetchrow(_VERDICT, limits, *figures, datetime.fromisoformat(at))

    assert verdict is not None
    assert tuple(verdict) == (refusal, datetime.fromisoformat(held_until) if held_until else None)


async def test_past_a_soft_limit_calls_wait_for_the_night(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, soft_tokens_per_month=10)
    await spend(admin_pool, tenant, tokens=10)
    await put_event(admin_pool, tenant)
    async with runtime_pool.acquire() as connection, connection.transaction():
        # The transaction's own hour, whatever it is.
        is_night = await connection.fetchval("SELECT extract(hour FROM now() AT TIME ZONE 'UTC') BETWEEN 2 AND 5")
        found = await connection.fetchval("SELECT commonplace.claim_v1('w', 60, 10)")
        answer = await connection.fetchval(
            "SELECT commonplace.reserve_v1($1, $2, $3, $4, $5)",
            tenant.team_id,
            tenant.project_id,
            found["sessionKey"],
            found["leaseToken"],
            CALL,
        )
    assert answer.get("reason") == (None if is_night else "soft_tokens")
    assert await held(admin_pool, tenant) == answer.get("reason")


async def test_another_limit_lifts_the_hold_at_once(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=1000)
    await spend(admin_pool, tenant, tokens=1000)
    put = await put_event(admin_pool, tenant)
    assert await drain(runtime_pool, ScriptedGenerator()) == ["held"]
    await limit(admin_pool, tenant, requests_per_minute=5)
    assert await held(admin_pool, tenant) == "tokens"

    await limit(admin_pool, tenant, tokens_per_month=2000)

    assert await held(admin_pool, tenant) is None
    assert await drain(runtime_pool, ScriptedGenerator()) == ["completed"]
    assert await statuses(admin_pool, [put]) == ["completed"]


async def test_a_refusal_by_the_limit_before_does_not_outlive_it(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=1000)
    await spend(admin_pool, tenant, tokens=1000)
    await put_event(admin_pool, tenant)
    lease, _ = await take(runtime_pool)
    async with runtime_pool.acquire() as refusing:
        transaction = refusing.transaction()
        await transaction.start()
        answer = await refusing.fetchval("SELECT commonplace.reserve_v1($1, $2, $3, $4, $5)", *lease._arguments, CALL)
        async with background(limit(admin_pool, tenant, tokens_per_month=2000)) as raising:
            await until_blocked(admin_pool)
            await transaction.commit()
            await raising

    assert answer["outcome"] == "held"
    assert await held(admin_pool, tenant) is None


async def until_blocked(pool: Pool) -> None:
    """Somebody waits for somebody else's lock."""

    async def is_blocked() -> bool:
        return bool(await pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

    await until(is_blocked)


async def test_many_sessions_at_once_overrun_the_limit_by_one_call_at_most(
    admin_pool: Pool, runtime_pool: Pool
) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=1000)
    await spend(admin_pool, tenant, tokens=999)
    for n in range(16):
        await put_event(admin_pool, tenant, session=f"c:-:{n}", payload=n)
    generator = ScriptedGenerator()
    generator.go_on.clear()
    async with asyncio.TaskGroup() as tasks:
        turns = [tasks.create_task(run_group(runtime_pool, generator, terms(f"w{n}"))) for n in range(16)]

        async def are_refused() -> bool:
            return sum(turn.done() for turn in turns) == 15

        await until(are_refused)
        assert len(generator.batches) == 1
        assert await held(admin_pool, tenant) == "reserved"
        generator.go_on.set()

    assert sorted({turn.result().kind for turn in turns} - {"idle"}) == ["completed", "held"]
    assert await drain(runtime_pool, generator) == ["held"]
    assert len(generator.batches) == 1
    assert (await spent(admin_pool, tenant))["tokens"] == CALL_TOKENS
    assert await held(admin_pool, tenant) == "tokens"


async def test_calls_run_side_by_side_while_the_budget_holds_them_all(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=3 * ESTIMATE_TOKENS)
    leases = []
    for n in range(4):
        await put_event(admin_pool, tenant, session=f"c:-:{n}")
        leases.append((await take(runtime_pool))[0])

    answers = [await reserve(runtime_pool, lease) for lease in leases]

    assert answers == ["granted", "granted", "granted", "reserved"]


async def test_the_end_of_a_call_lets_the_next_one_go(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=100)
    first, second = [await put_event(admin_pool, tenant, session=f"c:-:{n}", payload=n) for n in range(2)]
    generator = ScriptedGenerator()
    async with call_under_way(runtime_pool, generator) as running:
        assert (await run_group(runtime_pool, generator, terms())).kind == "held"
        assert await held(admin_pool, tenant) == "reserved"
        assert (await run_group(runtime_pool, generator, terms())).kind == "idle"
        generator.go_on.set()
        await running

    assert await held(admin_pool, tenant) is None
    assert await drain(runtime_pool, generator) == ["completed"]
    assert await statuses(admin_pool, [first, second]) == ["completed", "completed"]


async def test_nobody_is_refused_for_a_call_that_has_just_ended(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=100)
    for n in range(2):
        await put_event(admin_pool, tenant, session=f"c:-:{n}")
    ended, waiting = (await take(runtime_pool))[0], (await take(runtime_pool))[0]
    assert await reserve(runtime_pool, ended) == "granted"
    async with runtime_pool.acquire() as ending:
        transaction = ending.transaction()
        await transaction.start()
        await ending.execute("SELECT commonplace.complete_jobs_v1($1, $2, $3, $4, $5)", *ended._arguments, {"jobs": []})
        async with background(reserve(runtime_pool, waiting)) as asking:
            await until_blocked(admin_pool)
            await transaction.commit()
            assert await asking == "granted"


async def test_a_dead_workers_call_counts_as_estimated_when_its_lease_is_taken_over(
    admin_pool: Pool, runtime_pool: Pool
) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=100_000)
    put = await put_event(admin_pool, tenant)
    lease, _ = await take(runtime_pool)
    assert await reserve(runtime_pool, lease) == "granted"
    assert await spent(admin_pool, tenant) == {}

    await expire_lease(admin_pool, put)
    await take(runtime_pool, worker="another")

    assert await spent(admin_pool, tenant) == {
        "cost_microusd": 3500, "input_tokens": 100, "model_calls": 1, "output_tokens": 50, "tokens": 150,
    }  # fmt: skip
    assert await reservations(admin_pool) == 0


async def test_a_dead_workers_call_does_not_hold_its_team(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=ESTIMATE_TOKENS + 1)
    dead = await put_event(admin_pool, tenant, session="c:-:dead")
    lease, _ = await take(runtime_pool)
    await spend(admin_pool, tenant, tokens=1)
    assert await reserve(runtime_pool, lease) == "granted"
    await put_event(admin_pool, tenant, session="c:-:alive")
    alive, _ = await take(runtime_pool)
    await expire_lease(admin_pool, dead)

    assert await reserve(runtime_pool, alive) == "tokens"

    assert (await spent(admin_pool, tenant))["tokens"] == ESTIMATE_TOKENS
    assert await reservations(admin_pool) == 0


async def test_a_call_that_is_broken_off_counts_as_estimated(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=100_000)
    put = await put_event(admin_pool, tenant)
    async with call_under_way(runtime_pool, ScriptedGenerator()) as running:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert (await spent(admin_pool, tenant))["tokens"] == ESTIMATE_TOKENS
    assert (await spent(admin_pool, tenant))["cost_microusd"] == 100 * 10 + 50 * 50
    assert await reservations(admin_pool) == 0
    assert await statuses(admin_pool, [put]) == ["queued"]


async def test_what_came_back_counts_instead_of_the_estimate(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=100_000, cost_per_month_usd=10)
    await put_event(admin_pool, tenant)

    await drain(runtime_pool, ScriptedGenerator())

    assert await spent(admin_pool, tenant) == {
        "cost_microusd": CALL_COST, "input_tokens": 10, "model_calls": 1, "observation": 1, "output_tokens": 5,
        "tokens": CALL_TOKENS,
    }  # fmt: skip
    assert await reservations(admin_pool) == 0


@pytest.mark.parametrize("ending", ["complete", "fail"])
async def test_an_end_told_twice_counts_once(admin_pool: Pool, runtime_pool: Pool, ending: str) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=100_000)
    put = await put_event(admin_pool, tenant)
    lease, _ = await take(runtime_pool)
    await reserve(runtime_pool, lease)
    told = {
        "provider": "scripted", "model": "scripted-1",
        "spent": [{"model": "scripted-1", "inputTokens": 10, "outputTokens": 5, "costMicrousd": CALL_COST}],
        "jobs": [{"id": str(put.job_id), "memories": [], "retryAfterSeconds": 5, "counted": True, "error": {}}],
    }  # fmt: skip
    tell = {"complete": store.complete, "fail": store.fail}[ending]

    for _ in range(2):
        assert (await tell(runtime_pool, lease, told))["outcome"] == "written"
    await store.release(runtime_pool, lease)

    assert await spent(admin_pool, tenant) == {
        "cost_microusd": CALL_COST, "input_tokens": 10, "model_calls": 1, "output_tokens": 5, "tokens": CALL_TOKENS,
    }  # fmt: skip


async def test_a_refusal_told_twice_grants_nothing(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=0)
    await put_event(admin_pool, tenant)
    lease, _ = await take(runtime_pool)
    assert await reserve(runtime_pool, lease) == "tokens"
    await limit(admin_pool, tenant, tokens_per_month=1000)

    assert await reserve(runtime_pool, lease) == "lease_lost"
    assert await reservations(admin_pool) == 0


async def test_who_let_the_lease_run_out_may_not_call(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=1000)
    put = await put_event(admin_pool, tenant)
    lease, _ = await take(runtime_pool)
    await expire_lease(admin_pool, put)

    assert await reserve(runtime_pool, lease) == "lease_lost"
    assert await reservations(admin_pool) == 0


async def test_a_call_begins_with_a_whole_lease(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=1000)
    await put_event(admin_pool, tenant)
    lease, _ = await take(runtime_pool)

    assert (await store.reserve(runtime_pool, lease, CALL | {"leaseSeconds": 600}))["outcome"] == "granted"

    group = await admin_pool.fetchrow(
        "SELECT lease_until > now() + interval '9 min' AS kept, available_at = lease_until AS resting "
        "FROM commonplace.job_groups"
    )
    assert group is not None
    assert tuple(group) == (True, True)


async def test_a_permit_told_twice_counts_what_was_spent_once(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=1000)
    await put_event(admin_pool, tenant)
    lease, _ = await take(runtime_pool)
    assert await reserve(runtime_pool, lease) == "granted"
    before = {"model": "scripted-1", "inputTokens": 10, "outputTokens": 5, "costMicrousd": CALL_COST}

    for _ in range(2):
        answer = await store.reserve(runtime_pool, lease, CALL | {"place": 2, "spent": [before]})
        assert answer["outcome"] == "granted"

    assert (await spent(admin_pool, tenant))["tokens"] == CALL_TOKENS
    assert await reservations(admin_pool) == 1


async def test_a_failed_calls_tokens_count(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=100_000)
    put = await put_event(admin_pool, tenant)
    generator = failing("invalid_output")

    await run_group(runtime_pool, generator, terms())
    await make_due(admin_pool, put)
    await run_group(runtime_pool, generator, terms())

    assert await spent(admin_pool, tenant) == {
        "cost_microusd": 2 * CALL_COST, "input_tokens": 20, "model_calls": 2, "output_tokens": 10, "tokens": 30,
    }  # fmt: skip
    assert await reservations(admin_pool) == 0


async def test_each_call_of_a_turn_counts_under_its_own_model(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await put_event(admin_pool, tenant)
    weaker = Failure(
        kind="invalid_output", reason="no JSON", provider="scripted", model="weaker", input_tokens=7, output_tokens=3
    )

    def answer(batch: Batch) -> Generated:
        made = one_each(batch)
        return Generated(
            observations=made.observations, provider="scripted", model="stronger", input_tokens=20, earlier=[weaker]
        )

    await drain(runtime_pool, ScriptedGenerator(answer))

    assert (await spent(admin_pool, tenant, model="weaker"))["tokens"] == 10
    assert await spent(admin_pool, tenant, model="stronger") == {
        "cost_microusd": 200, "input_tokens": 20, "model_calls": 1, "observation": 1, "tokens": 20,
    }  # fmt: skip


async def test_a_batch_taken_apart_counts_every_one_of_its_calls(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=100_000)
    for n in range(4):
        await put_event(admin_pool, tenant, payload=n)

    def answer(batch: Batch) -> Generated:
        if len(batch.events) > 1:
            raise GenerationFailed(
                Failure(kind="splittable", reason="too much", provider="s", model="scripted-1", input_tokens=10)
            )
        return one_each(batch)

    generator = ScriptedGenerator(answer)
    assert (await run_group(runtime_pool, generator, terms())).kind == "completed"

    assert [len(batch) for batch in generator.batches] == [4, 2, 1]
    figures = await spent(admin_pool, tenant)
    assert (figures["model_calls"], figures["tokens"]) == (3, 10 + 10 + CALL_TOKENS)


async def test_a_batch_taken_apart_asks_before_every_one_of_its_calls(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=1000)
    puts = [await put_event(admin_pool, tenant, payload=word) for word in ("a", "b", "c", "d")]

    def refuse(_: Batch) -> Generated:
        failure = Failure(kind="refusal", reason="told to", provider="scripted", model="scripted-1", input_tokens=600)
        raise GenerationFailed(failure)

    generator = ScriptedGenerator(refuse)
    outcome = await run_group(runtime_pool, generator, terms())

    assert (outcome.kind, len(generator.batches)) == ("held", 2)
    used = await admin_pool.fetchval("SELECT sum(quantity) FROM commonplace.usage_counters WHERE kind = 'tokens'")
    assert used == 1200
    assert await statuses(admin_pool, puts) == ["queued"] * 4
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.reservations") == 0


async def test_a_chain_asks_before_it_goes_on(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=500)
    put = await put_event(admin_pool, tenant)

    def spoil(_: Batch) -> Generated:
        failure = Failure(
            kind="invalid_output", reason="told to", provider="scripted", model="scripted-1", input_tokens=600
        )
        raise GenerationFailed(failure)

    first, stronger = ScriptedGenerator(spoil), ScriptedGenerator()
    chain = ChainedGenerator([Step(generator=first), Step(generator=stronger, is_stronger=True)])
    outcome = await run_group(runtime_pool, chain, terms())

    assert (outcome.kind, len(first.batches), len(stronger.batches)) == ("held", 1, 0)
    assert await statuses(admin_pool, [put]) == ["queued"]
    await limit(admin_pool, tenant, tokens_per_month=5000)
    assert (await run_group(runtime_pool, chain, terms())).kind == "completed"
    assert (len(first.batches), len(stronger.batches)) == (2, 1)
    used = await admin_pool.fetchval("SELECT sum(quantity) FROM commonplace.usage_counters WHERE kind = 'tokens'")
    assert used == 600 + 600 + CALL_TOKENS


async def test_a_fallback_that_is_called_first_is_what_is_set_aside(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=1000)
    await put_event(admin_pool, tenant)

    class Dearer(ScriptedGenerator):
        credentials = ("dearer:1",)

        def estimate(self, batch: Batch) -> Estimate | None:
            return Estimate(provider="dearer", model="dearer-1", input_tokens=900, output_tokens=50)

    await store.pause(runtime_pool, "scripted:1", seconds=60, reason="told to")
    dearer = Dearer()
    dearer.go_on.clear()
    chain = ChainedGenerator([Step(generator=ScriptedGenerator()), Step(generator=dearer)])
    async with background(run_group(runtime_pool, chain, terms())) as running:
        await dearer.called.wait()
        assert await admin_pool.fetchval("SELECT model FROM commonplace.reservations") == "dearer-1"
        dearer.go_on.set()
        assert (await running).kind == "completed"


@pytest.mark.parametrize("slots", [1, 3])
async def test_turns_that_split_side_by_side_overrun_by_one_call_each_at_most(
    admin_pool: Pool, runtime_pool: Pool, slots: int
) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=1000)
    for session in range(slots):
        for n in range(8):
            await put_event(admin_pool, tenant, session=f"c:-:{session}", payload=n)

    def refuse(_: Batch) -> Generated:
        raise GenerationFailed(
            Failure(kind="refusal", reason="told to", provider="scripted", model="scripted-1", input_tokens=400)
        )

    generators = [ScriptedGenerator(refuse) for _ in range(slots)]
    turns = await asyncio.gather(*(run_group(runtime_pool, one, terms()) for one in generators))

    assert {turn.kind for turn in turns} == {"held"}
    assert 1000 <= (await spent(admin_pool, tenant))["tokens"] < 1000 + 400 * slots
    assert await reservations(admin_pool) == 0


async def test_a_lost_turns_calls_are_told_in_usage(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    put = await put_event(admin_pool, tenant)
    generator = ScriptedGenerator()
    async with call_under_way(runtime_pool, generator) as running:
        await expire_lease(admin_pool, put)
        await take(runtime_pool, worker="another")
        generator.go_on.set()
        assert (await running).kind == "lost"

    assert await spent(admin_pool, tenant) == {
        "cost_microusd": CALL_COST, "input_tokens": 10, "model_calls": 1, "output_tokens": 5, "tokens": CALL_TOKENS,
    }  # fmt: skip


async def test_a_lost_turns_calls_count_once_under_a_budget(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=100_000)
    put = await put_event(admin_pool, tenant)
    generator = ScriptedGenerator()
    async with call_under_way(runtime_pool, generator) as running:
        await expire_lease(admin_pool, put)
        await take(runtime_pool, worker="another")
        generator.go_on.set()
        assert (await running).kind == "lost"

    assert (await spent(admin_pool, tenant))["tokens"] == ESTIMATE_TOKENS


async def test_a_call_that_is_broken_off_counts_without_a_budget_too(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await put_event(admin_pool, tenant)
    async with call_under_way(runtime_pool, ScriptedGenerator()) as running:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert (await spent(admin_pool, tenant))["tokens"] == ESTIMATE_TOKENS


async def test_usage_is_told_by_project_and_key(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    elsewhere = Tenant(team_id=tenant.team_id, project_id=uuid7(), key_id=uuid7())
    await admin_pool.execute(
        "INSERT INTO commonplace.projects (id, team_id, name) VALUES ($1, $2, 'elsewhere')",
        elsewhere.project_id,
        elsewhere.team_id,
    )
    for place, count in ((tenant, 2), (elsewhere, 1)):
        for n in range(count):
            await put_event(admin_pool, place, session=f"c:-:{n}")

    await drain(runtime_pool, ScriptedGenerator())

    rows = await admin_pool.fetch(
        "SELECT project_id, key_id, month, sum(quantity)::integer AS calls FROM commonplace.usage_counters "
        "WHERE kind = 'model_calls' GROUP BY project_id, key_id, month"
    )
    month = await admin_pool.fetchval("SELECT date_trunc('month', now() AT TIME ZONE 'UTC')::date")
    assert sorted(tuple(row) for row in rows) == sorted(
        [(tenant.project_id, tenant.key_id, month, 2), (elsewhere.project_id, elsewhere.key_id, month, 1)]
    )


async def test_calls_that_end_at_the_same_time_each_count_once(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await limit(admin_pool, tenant, tokens_per_month=10_000_000)
    for n in range(40):
        await put_event(admin_pool, tenant, session=f"c:-:{n}", payload=n)
    told = {"spent": [{"model": "scripted-1", "inputTokens": 10, "outputTokens": 5, "costMicrousd": 1}], "jobs": []}

    async def work(worker: str, *, is_stopped: bool) -> None:
        for _ in range(10):
            lease, _jobs = await take(runtime_pool, worker=worker)
            assert await reserve(runtime_pool, lease) == "granted"
            await admin_pool.execute(
                "INSERT INTO commonplace.team_holds VALUES ($1, '-infinity', 'reserved') ON CONFLICT DO NOTHING",
                tenant.team_id,
            )
            await (store.release(runtime_pool, lease) if is_stopped else store.complete(runtime_pool, lease, told))

    async with asyncio.TaskGroup() as tasks:
        for n in range(4):
            tasks.create_task(work(f"w{n}", is_stopped=n % 2 == 0))

    assert await reservations(admin_pool) == 0
    assert (await spent(admin_pool, tenant))["tokens"] == 20 * ESTIMATE_TOKENS + 20 * CALL_TOKENS
