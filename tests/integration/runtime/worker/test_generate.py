"""One turn of a worker: what it claims, what it writes, and what it must not."""

import asyncio
import secrets
import threading
from datetime import datetime
from typing import Any

import pytest

from commonplace_runtime.domain.condense import Condensed, condense
from commonplace_runtime.domain.observations import Generated, Observation
from commonplace_runtime.domain.retry import Failure, FailureKind
from commonplace_runtime.llm.extractive import ExtractiveGenerator
from commonplace_runtime.llm.ports import Batch, GenerationFailed
from commonplace_runtime.services import generate
from commonplace_runtime.services.generate import run_group
from commonplace_runtime.store import jobs as store
from commonplace_runtime.store.pool import Pool
from tests.integration.runtime.worker.support import (
    ScriptedGenerator,
    background,
    expire_lease,
    make_due,
    make_tenant,
    memories,
    put_event,
    statuses,
    take,
    terms,
    until,
)


async def test_an_event_becomes_a_memory_with_all_that_the_wire_shows(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    put = await put_event(
        admin_pool, tenant, payload={"last_assistant_message": "We decided to use port 5433 for staging."}
    )

    outcome = await run_group(runtime_pool, ExtractiveGenerator(), terms())

    assert (outcome.kind, outcome.jobs, outcome.memories) == ("completed", 1, 1)
    [memory] = await memories(admin_pool, tenant)
    assert memory["events"] == [put.event_id]
    assert (memory["kind"], memory["visibility"], memory["owner_actor"]) == ("decision", "team", "human:ada")
    assert (memory["job_id"], memory["author_key_id"]) == (put.job_id, tenant.key_id)
    assert memory["generation_key"] == f"{put.job_id}:0"
    assert "5433" in memory["content"]
    assert memory["metadata"]["generator"] == memory["metadata"]["provider"] == "extractive"
    assert memory["metadata"]["rule"] == "prose"
    job = await admin_pool.fetchrow("SELECT * FROM commonplace.jobs WHERE id = $1", put.job_id)
    assert job is not None
    assert (job["status"], job["attempts"], job["locked_by"], job["last_error"]) == ("completed", 1, None, None)
    audit = await admin_pool.fetch("SELECT action, details, key_id FROM commonplace.audit_log ORDER BY action")
    assert [row["action"] for row in audit] == [
        "generation_job.completed",
        "generation_job.processing",
        "observation.created",
    ]
    assert audit[0]["details"]["observationIds"] == [str(memory["id"])]
    assert audit[2]["details"]["sourceId"] == str(put.event_id)
    group = await admin_pool.fetchrow("SELECT available_at, lease_until, leased_by FROM commonplace.job_groups")
    assert group is not None
    assert list(group.values()) == [None, None, None]


async def test_the_teams_default_visibility_rules(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await admin_pool.execute("UPDATE commonplace.teams SET default_visibility = 'private'")
    await put_event(admin_pool, tenant)

    await run_group(runtime_pool, ScriptedGenerator(), terms())

    assert [memory["visibility"] for memory in await memories(admin_pool, tenant)] == ["private"]


async def test_noise_completes_without_a_memory(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    payload = {"tool_name": "TodoWrite", "tool_input": {"todos": []}, "tool_response": {"ok": True}}
    put = await put_event(admin_pool, tenant, payload=payload, event_type="tool_use")

    outcome = await run_group(runtime_pool, ExtractiveGenerator(), terms())

    assert (outcome.kind, outcome.memories) == ("completed", 0)
    assert await statuses(admin_pool, [put]) == ["completed"]
    assert await admin_pool.fetchval("SELECT service_seconds FROM commonplace.jobs") > 0, "cheap, not unknown"


async def test_a_jobs_time_is_its_share_of_its_turns_those_that_failed_too(
    admin_pool: Pool, runtime_pool: Pool
) -> None:
    tenant = await make_tenant(admin_pool)
    puts = [await put_event(admin_pool, tenant, payload=n) for n in range(2)]
    lease, jobs = await take(runtime_pool)
    verdict = {"retryAfterSeconds": 0, "counted": True, "error": {"reason": "told to", "classification": "transient"}}
    failed = [{"id": str(job.id), **verdict} for job in jobs]
    await store.fail(runtime_pool, lease, {"seconds": 60, "jobs": failed})
    await make_due(admin_pool, puts[0])
    lease, jobs = await take(runtime_pool)
    results = [{"id": str(job.id), "memories": []} for job in jobs]
    await store.complete(runtime_pool, lease, {"seconds": 4, "jobs": results})

    times = await admin_pool.fetch("SELECT service_seconds FROM commonplace.jobs ORDER BY number")
    assert [row["service_seconds"] for row in times] == [32, 32]
    assert (await store.queue_stats(runtime_pool))["serviceSeconds"] == 32


async def test_a_turn_that_fails_tells_its_time(admin_pool: Pool, runtime_pool: Pool) -> None:
    await put_event(admin_pool, await make_tenant(admin_pool))

    await run_group(runtime_pool, _failing("transient"), terms())

    assert await admin_pool.fetchval("SELECT service_seconds FROM commonplace.jobs") > 0


async def test_a_session_is_served_in_one_call_and_in_order(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    puts = [await put_event(admin_pool, tenant, payload=f"event {n}") for n in range(5)]
    generator = ScriptedGenerator()

    outcome = await run_group(runtime_pool, generator, terms())

    assert generator.batches == [[f"event {n}" for n in range(5)]]
    assert (outcome.jobs, outcome.memories) == (5, 5)
    assert [memory["job_id"] for memory in await memories(admin_pool, tenant)] == [put.job_id for put in puts]


async def test_what_does_not_fit_one_call_is_handed_back_uncounted(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    for n in range(5):
        await put_event(admin_pool, tenant, payload=n)
    generator = ScriptedGenerator(batch=2)

    first = await run_group(runtime_pool, generator, terms())
    left = await admin_pool.fetch("SELECT status, attempts FROM commonplace.jobs WHERE status <> 'completed'")
    while (await run_group(runtime_pool, generator, terms())).kind != "idle":
        pass

    assert first.jobs == 2
    assert [tuple(row) for row in left] == [("queued", 0)] * 3
    assert generator.batches == [[0, 1], [2, 3], [4]]


async def test_a_claim_is_bounded_in_bytes(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    for _ in range(4):
        # Random text, because Postgres compresses what it can.
        await put_event(admin_pool, tenant, payload=secrets.token_hex(1_200_000))

    lease, jobs = await take(runtime_pool)
    assert len(jobs) == 1
    await store.release(runtime_pool, lease)
    await admin_pool.execute("UPDATE commonplace.events SET payload = to_jsonb(repeat('x', 1200000))")
    _, jobs = await take(runtime_pool)
    assert len(jobs) == 4


async def test_two_workers_never_share_a_session(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await put_event(admin_pool, tenant, session="c:-:one", payload="first")
    generator = ScriptedGenerator()
    generator.go_on.clear()
    async with background(run_group(runtime_pool, generator, terms())) as slow:
        await generator.called.wait()
        await put_event(admin_pool, tenant, session="c:-:one", payload="second")
        await put_event(admin_pool, tenant, session="c:-:two", payload="other")
        other = ScriptedGenerator()

        outcomes = [await run_group(runtime_pool, other, terms()) for _ in range(2)]

        assert other.batches == [["other"]]
        assert [outcome.kind for outcome in outcomes] == ["completed", "idle"]
        generator.go_on.set()
        assert (await slow).kind == "completed"


async def test_an_ingest_during_a_run_is_not_lost(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    generator = ScriptedGenerator()
    generator.go_on.clear()
    first = await put_event(admin_pool, tenant, payload="first")
    async with background(run_group(runtime_pool, generator, terms())) as running:
        await generator.called.wait()
        second = await put_event(admin_pool, tenant, payload="second")
        generator.go_on.set()
        await running

    assert await statuses(admin_pool, [first, second]) == ["completed", "queued"]
    assert (await run_group(runtime_pool, generator, terms())).kind == "completed"
    assert await statuses(admin_pool, [first, second]) == ["completed", "completed"]


async def test_an_ingest_that_commits_while_results_are_written_is_not_lost(
    admin_pool: Pool, runtime_pool: Pool
) -> None:
    tenant = await make_tenant(admin_pool)
    await put_event(admin_pool, tenant, payload="first")
    lease, jobs = await take(runtime_pool)
    results = {"provider": "p", "model": None, "jobs": [{"id": str(job.id), "memories": []} for job in jobs]}
    async with admin_pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        # An ingest holds the group's row lock and has not committed its job.
        await connection.execute("UPDATE commonplace.job_groups SET available_at = available_at")
        await connection.execute(
            "INSERT INTO commonplace.jobs "
            "(id, team_id, project_id, session_key, source_type, source_id, job_type, actor) "
            "SELECT gen_random_uuid(), team_id, project_id, session_key, 'session_summary', gen_random_uuid(), 's', "
            "'a' FROM commonplace.job_groups"
        )
        async with background(store.complete(runtime_pool, lease, results)) as completing:
            done, _ = await asyncio.wait({completing}, timeout=0.2)
            assert not done, "the completion waits for the ingest"
            await transaction.commit()
            await completing

    assert await admin_pool.fetchval("SELECT available_at <= now() FROM commonplace.job_groups")


async def test_a_lost_lease_is_fenced_and_writes_nothing(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    put = await put_event(admin_pool, tenant)
    stale = ScriptedGenerator()
    stale.go_on.clear()
    async with background(run_group(runtime_pool, stale, terms(worker="stale"))) as running:
        await stale.called.wait()
        await expire_lease(admin_pool, put)
        fresh = await run_group(runtime_pool, ScriptedGenerator(), terms(worker="fresh"))
        stale.go_on.set()
        late = await running

    assert (fresh.kind, late.kind) == ("completed", "lost")
    assert len(await memories(admin_pool, tenant)) == 1
    assert (
        await admin_pool.fetchval("SELECT count(*) FROM commonplace.audit_log WHERE action = 'observation.created'")
        == 1
    )
    used = await admin_pool.fetchval("SELECT sum(quantity) FROM commonplace.usage_counters WHERE kind = 'tokens'")
    assert used == 2 * 15, "both calls were paid for"


async def test_the_heartbeat_keeps_a_long_call_alive(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await put_event(admin_pool, tenant)
    generator = ScriptedGenerator()
    generator.go_on.clear()
    async with background(run_group(runtime_pool, generator, terms(lease_seconds=1.0))) as running:
        await generator.called.wait()
        for _ in range(4):
            before = await admin_pool.fetchval("SELECT lease_until FROM commonplace.job_groups")

            async def is_extended(before: Any = before) -> bool:
                return bool(await admin_pool.fetchval("SELECT lease_until > $1 FROM commonplace.job_groups", before))

            await until(is_extended)
            assert (await run_group(runtime_pool, ScriptedGenerator(), terms())).kind == "idle"
        generator.go_on.set()
        assert (await running).kind == "completed"


async def test_many_short_calls_of_one_turn_keep_the_lease_as_one_long_call_does(
    admin_pool: Pool, runtime_pool: Pool
) -> None:
    tenant = await make_tenant(admin_pool)
    for word in ("a", "b", "c", "d", "e", "f", "g", "h"):
        await put_event(admin_pool, tenant, payload=word)
    extended: list[Any] = []

    class Slow(ScriptedGenerator):
        async def generate(self, batch: Batch, **_: Any) -> Generated:
            await asyncio.sleep(0.25)  # shorter than a third of the lease, four of them longer than the lease
            self.batches.append([])
            extended.append(await admin_pool.fetchval("SELECT lease_until FROM commonplace.job_groups"))
            raise GenerationFailed(Failure(kind="refusal", reason="told to", provider="scripted"))

    generator = Slow()
    assert (await run_group(runtime_pool, generator, terms(lease_seconds=0.9))).kind == "failed"

    assert len(generator.batches) == 4
    assert extended[0] < extended[-1]


async def test_the_lease_is_kept_while_events_are_condensed(
    admin_pool: Pool, runtime_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_event(admin_pool, await make_tenant(admin_pool))
    go_on = threading.Event()

    def slowly(*arguments: Any, **more: Any) -> Condensed:
        go_on.wait(20)
        return condense(*arguments, **more)

    async def leased_until() -> datetime | None:
        end: datetime | None = await admin_pool.fetchval("SELECT lease_until FROM commonplace.job_groups")
        return end

    async def is_leased() -> bool:
        return await leased_until() is not None

    async def is_extended() -> bool:
        return await leased_until() != first

    monkeypatch.setattr(generate, "is_heavy", lambda _: True)
    monkeypatch.setattr(generate, "condense", slowly)
    async with background(run_group(runtime_pool, ScriptedGenerator(), terms(lease_seconds=1.0))) as running:
        try:
            await until(is_leased)
            first = await leased_until()
            await until(is_extended, seconds=10)
        finally:
            go_on.set()
        assert (await running).kind == "completed"


async def test_a_lease_that_was_given_back_is_not_taken_for_a_lost_one(
    admin_pool: Pool, runtime_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_event(admin_pool, await make_tenant(admin_pool))

    async def slowly(*arguments: Any, complete: Any = store.complete) -> Any:
        written = await complete(*arguments)
        # Several heartbeats long.
        await asyncio.sleep(0.4)
        return written

    monkeypatch.setattr(store, "complete", slowly)

    assert (await run_group(runtime_pool, ScriptedGenerator(), terms(lease_seconds=0.3))).kind == "completed"


async def test_a_heartbeat_that_finds_the_lease_lost_ends_the_call(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    put = await put_event(admin_pool, tenant)
    generator = ScriptedGenerator()
    generator.go_on.clear()
    async with background(run_group(runtime_pool, generator, terms(lease_seconds=0.3))) as running:
        await generator.called.wait()
        await expire_lease(admin_pool, put)
        await store.claim(runtime_pool, worker="other", lease_seconds=60, max_jobs=1)
        assert (await running).kind == "lost"


async def test_completing_twice_writes_once(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    put = await put_event(admin_pool, tenant)
    lease, _ = await take(runtime_pool)
    source = {"eventId": str(put.event_id), "jobId": str(put.job_id)}
    memory = {"id": str(put.job_id), "index": 0, "kind": "note", "title": "t", "content": "c", "metadata": {},
              "keywords": [], "tags": [], "sources": [source]}  # fmt: skip
    results = {
        "provider": "p",
        "model": "m",
        "spent": [{"provider": "p", "model": "m", "inputTokens": 3, "outputTokens": 4, "costMicrousd": 50}],
        "jobs": [{"id": str(put.job_id), "memories": [memory]}],
    }

    first = await store.complete(runtime_pool, lease, results)
    second = await store.complete(runtime_pool, lease, results)

    assert first == {"outcome": "written", "jobs": 1, "memories": 1, "handedBack": 0}
    assert second == {"outcome": "written", "jobs": 0, "memories": 0, "handedBack": 0}
    usage = await admin_pool.fetch("SELECT kind, quantity, model FROM commonplace.usage_counters ORDER BY kind")
    assert [tuple(row) for row in usage] == [
        ("cost_microusd", 50, "m"),
        ("input_tokens", 3, "m"),
        ("model_calls", 1, "m"),
        ("observation", 1, "m"),
        ("output_tokens", 4, "m"),
        ("tokens", 7, "m"),
    ]
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.audit_log") == 3


def _failing(kind: FailureKind, **more: Any) -> ScriptedGenerator:
    def answer(_: Batch) -> Generated:
        raise GenerationFailed(Failure(kind=kind, reason="told to", provider="scripted", model="m", **more))

    return ScriptedGenerator(answer)


async def test_a_transient_failure_is_retried_later_and_then_given_up(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    put = await put_event(admin_pool, tenant)
    generator = _failing("transient", input_tokens=7)

    waits = []
    for _ in range(3):
        outcome = await run_group(runtime_pool, generator, terms(jitter=0.5))
        assert outcome.kind == "failed"
        waits.append(await admin_pool.fetchval(
            "SELECT CASE status WHEN 'queued' THEN extract(epoch FROM run_after - updated_at) END FROM commonplace.jobs"
        ))  # fmt: skip
        assert (await run_group(runtime_pool, generator, terms())).kind == "idle"
        await make_due(admin_pool, put)

    assert [None if wait is None else float(wait) for wait in waits] == [12.5, 62.5, None]
    job = await admin_pool.fetchrow("SELECT status, attempts, last_error FROM commonplace.jobs")
    assert job is not None
    assert (job["status"], job["attempts"]) == ("failed", 3)
    assert job["last_error"] == {"reason": "told to", "classification": "transient"}
    assert (
        await admin_pool.fetchval("SELECT count(*) FROM commonplace.audit_log WHERE action = 'generation_job.failed'")
        == 1
    )
    assert await admin_pool.fetchval("SELECT quantity FROM commonplace.usage_counters WHERE kind = 'tokens'") == 21


@pytest.mark.parametrize("kind", ["throttled", "configuration"])
async def test_what_is_not_the_jobs_fault_costs_no_attempt(
    admin_pool: Pool, runtime_pool: Pool, kind: FailureKind
) -> None:
    await put_event(admin_pool, await make_tenant(admin_pool))

    await run_group(runtime_pool, _failing(kind, retry_after_seconds=7.0), terms())

    job = await admin_pool.fetchrow("SELECT status, attempts, run_after > now() AS later FROM commonplace.jobs")
    assert job is not None
    assert tuple(job) == ("queued", 0, True)


@pytest.mark.parametrize(("kind", "seconds"), [("throttled", 7.0), ("configuration", 60.0)])
async def test_a_refusal_of_everybody_pauses_every_worker(
    admin_pool: Pool, runtime_pool: Pool, kind: FailureKind, seconds: float
) -> None:
    tenant = await make_tenant(admin_pool)
    await put_event(admin_pool, tenant)
    await put_event(admin_pool, tenant, session="c:-:another")
    refused = _failing(kind, retry_after_seconds=7.0, credential="scripted:1")
    await run_group(runtime_pool, refused, terms())

    elsewhere = await run_group(runtime_pool, refused, terms(worker="another process"))

    assert elsewhere.kind == "paused"
    assert 0 < elsewhere.pause_seconds <= seconds
    assert len(refused.batches) == 1
    await admin_pool.execute("UPDATE commonplace.provider_pauses SET paused_until = now()")
    assert (await run_group(runtime_pool, ScriptedGenerator(), terms())).kind == "completed"


async def test_a_younger_job_waits_behind_the_retry_of_an_older_one(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    first = await put_event(admin_pool, tenant, payload="first")
    await run_group(runtime_pool, _failing("transient"), terms(jitter=0.9))
    await put_event(admin_pool, tenant, payload="second")
    generator = ScriptedGenerator()

    while (await run_group(runtime_pool, generator, terms())).kind != "idle":
        pass
    assert not generator.batches
    await make_due(admin_pool, first)
    assert (await run_group(runtime_pool, generator, terms())).kind == "completed"

    assert generator.batches == [["first", "second"]]


@pytest.mark.parametrize("kind", ["poison", "refusal", "splittable"])
async def test_only_the_guilty_event_of_a_batch_fails(admin_pool: Pool, runtime_pool: Pool, kind: FailureKind) -> None:
    tenant = await make_tenant(admin_pool)
    puts = [await put_event(admin_pool, tenant, payload=word) for word in ("a", "b", "bad", "c", "d")]

    def answer(batch: Batch) -> Generated:
        if any(event.payload == "bad" for event in batch.events):
            raise GenerationFailed(Failure(kind=kind, reason="bad is in it"))
        return Generated(observations=(), provider="scripted")

    while (await run_group(runtime_pool, ScriptedGenerator(answer), terms())).kind != "idle":
        pass

    assert await statuses(admin_pool, puts) == ["completed", "completed", "failed", "completed", "completed"]


async def test_a_generator_that_breaks_does_not_break_the_worker(admin_pool: Pool, runtime_pool: Pool) -> None:
    put = await put_event(admin_pool, await make_tenant(admin_pool))

    def answer(_: Batch) -> Generated:
        raise ZeroDivisionError

    assert (await run_group(runtime_pool, ScriptedGenerator(answer), terms())).kind == "failed"
    assert await statuses(admin_pool, [put]) == ["failed"]


async def test_a_job_on_its_last_attempt_is_taken_alone(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    puts = [await put_event(admin_pool, tenant, payload=n) for n in range(3)]
    for _ in range(2):
        _, jobs = await take(runtime_pool)
        assert len(jobs) == 3
        await expire_lease(admin_pool, puts[0])

    _, last = await take(runtime_pool)
    assert [job.id for job in last] == [puts[0].job_id]
    await expire_lease(admin_pool, puts[0])
    generator = ScriptedGenerator()
    while (await run_group(runtime_pool, generator, terms())).kind != "idle":
        pass

    assert await statuses(admin_pool, puts) == ["failed", "completed", "completed"]
    error = await admin_pool.fetchval("SELECT last_error FROM commonplace.jobs WHERE id = $1", puts[0].job_id)
    assert error["classification"] == "lease_expired"
    assert generator.batches == [[1], [2]]


async def test_a_detached_teams_jobs_rest(admin_pool: Pool, runtime_pool: Pool) -> None:
    put = await put_event(admin_pool, await make_tenant(admin_pool))
    await admin_pool.execute("UPDATE commonplace.teams SET detached_at = now()")

    assert (await run_group(runtime_pool, ScriptedGenerator(), terms())).kind == "idle"
    assert await statuses(admin_pool, [put]) == ["queued"]


async def test_cancelling_hands_the_jobs_back_uncounted(admin_pool: Pool, runtime_pool: Pool) -> None:
    await put_event(admin_pool, await make_tenant(admin_pool))
    generator = ScriptedGenerator()
    generator.go_on.clear()
    async with background(run_group(runtime_pool, generator, terms())) as running:
        await generator.called.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    job = await admin_pool.fetchrow("SELECT status, attempts, locked_by FROM commonplace.jobs")
    assert job is not None
    assert tuple(job) == ("queued", 0, None)
    assert (await run_group(runtime_pool, ScriptedGenerator(), terms())).kind == "completed"


async def test_a_memory_cannot_cite_or_reach_beyond_its_batch(admin_pool: Pool, runtime_pool: Pool) -> None:
    ours, theirs = await make_tenant(admin_pool), await make_tenant(admin_pool)
    await put_event(admin_pool, ours, session="c:-:ours")
    await put_event(admin_pool, theirs, session="c:-:theirs", delay=3600)

    def answer(_: Batch) -> Generated:
        return Generated(
            observations=[
                Observation(kind="note", title="kept", narrative="", evidence=(1, 2, 99, -1)),
                Observation(kind="note", title="dropped", narrative="", evidence=(2,)),
                Observation(kind="note", title="dropped too", narrative="", evidence=()),
            ],
            provider="scripted",
        )

    await run_group(runtime_pool, ScriptedGenerator(answer), terms())

    assert [memory["title"] for memory in await memories(admin_pool, ours)] == ["kept"]
    assert not await memories(admin_pool, theirs)


async def test_what_was_cancelled_or_erased_meanwhile_leaves_no_memory(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    kept, erased, cancelled = [await put_event(admin_pool, tenant, payload=n) for n in range(3)]
    generator = ScriptedGenerator()
    generator.go_on.clear()
    async with background(run_group(runtime_pool, generator, terms())) as running:
        await generator.called.wait()
        await admin_pool.execute("DELETE FROM commonplace.events WHERE id = $1", erased.event_id)
        await admin_pool.execute(
            "UPDATE commonplace.jobs SET status = 'cancelled', cancelled_at = now(), locked_by = NULL WHERE id = $1",
            cancelled.job_id,
        )
        generator.go_on.set()
        outcome = await running

    assert (outcome.kind, outcome.jobs) == ("completed", 1)
    assert [memory["events"] for memory in await memories(admin_pool, tenant)] == [[kept.event_id]]


async def test_the_end_of_an_awaited_job_is_announced(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    heard: list[str] = []

    def hear(*notification: object) -> None:
        heard.append(str(notification[-1]))

    async with admin_pool.acquire() as listener:
        await listener.add_listener("commonplace_jobs", hear)
        done = await put_event(admin_pool, tenant, session="c:-:done", awaited=True)
        await run_group(runtime_pool, ScriptedGenerator(), terms())
        failed = await put_event(admin_pool, tenant, session="c:-:failed", awaited=True)
        await run_group(runtime_pool, _failing("poison"), terms())
        await put_event(admin_pool, tenant, session="c:-:retried", awaited=True)
        await run_group(runtime_pool, _failing("transient"), terms(jitter=0.9))
        await put_event(admin_pool, tenant, session="c:-:unawaited")
        await run_group(runtime_pool, ScriptedGenerator(), terms())
        await listener.fetchval("SELECT 1")
        await listener.remove_listener("commonplace_jobs", hear)

    assert heard == [str(done.job_id), str(failed.job_id)]


async def test_the_queues_figures_are_honest(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    assert await store.queue_stats(runtime_pool) == {
        "backlog": 0,
        "oldestSeconds": 0,
        "sessions": 0,
        "inFlight": 0,
        "busySessions": 0,
        "workers": 0,
        "serviceSeconds": None,
        "arrivalRate": 0,
        "steadyRate": 0,
    }
    put = await put_event(admin_pool, tenant, session="c:-:one")
    await put_event(admin_pool, tenant, session="c:-:two")
    await put_event(admin_pool, tenant, session="c:-:later", delay=3600)
    await admin_pool.execute(
        "UPDATE commonplace.job_groups SET available_at = now() - interval '90 s' WHERE session_key = 'c:-:two'"
    )

    waiting = await store.queue_stats(runtime_pool)
    await expire_lease(admin_pool, put)
    await store.claim(runtime_pool, worker="w", lease_seconds=60, max_jobs=10)
    running = await store.queue_stats(runtime_pool)

    assert (waiting["backlog"], waiting["inFlight"]) == (2, 0)
    assert 90 <= waiting["oldestSeconds"] < 100
    assert (running["backlog"], running["inFlight"]) == (1, 1)


async def test_house_is_kept_by_one_worker_at_a_time(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await admin_pool.execute(
        "INSERT INTO commonplace.api_keys (id, team_id, name, actor, scopes, token_hash, state, grace_until) "
        "VALUES ($1, $2, 'k', 'a', '{}', repeat('0', 64), 'grace', now() - interval '1 s')",
        tenant.key_id,
        tenant.team_id,
    )
    await admin_pool.execute(
        "INSERT INTO commonplace.rate_counters "
        "SELECT $1, $2, now() + interval '30 s' - n * interval '1 minute', 1 FROM generate_series(0, 99) n",
        tenant.team_id,
        tenant.key_id,
    )
    async with admin_pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('commonplace.housekeeping', 0))")
        assert await store.housekeeping(runtime_pool, batch=50) is None

    assert await store.housekeeping(runtime_pool, batch=50) == {"rateCounters": 50, "keysRevoked": 1, "groupStates": 0}
    assert await store.housekeeping(runtime_pool, batch=50) == {"rateCounters": 39, "keysRevoked": 0, "groupStates": 0}
    assert await admin_pool.fetchval("SELECT state FROM commonplace.api_keys") == "revoked"


async def test_another_teams_lease_cannot_be_written_under(admin_pool: Pool, runtime_pool: Pool) -> None:
    ours, theirs = await make_tenant(admin_pool), await make_tenant(admin_pool)
    put = await put_event(admin_pool, ours)
    lease, _ = await take(runtime_pool)
    foreign = store.Lease(
        team_id=theirs.team_id, project_id=ours.project_id, session_key=lease.session_key, token=lease.token
    )

    assert (await store.complete(runtime_pool, foreign, {"jobs": []}))["outcome"] == "lease_lost"
    assert not await store.release(runtime_pool, foreign)
    assert await statuses(admin_pool, [put]) == ["processing"]
