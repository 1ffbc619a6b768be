"""What a session's calls leave for the next one: what was told, what was made of it, and the running summary."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from commonplace_runtime.domain.observations import Generated, Observation, SessionSummary
from commonplace_runtime.domain.retry import Failure
from commonplace_runtime.ids import uuid7
from commonplace_runtime.llm.ports import Batch, GenerationFailed
from commonplace_runtime.services.generate import run_group
from commonplace_runtime.store.pool import Pool
from tests.integration.runtime.worker.support import (
    Put,
    ScriptedGenerator,
    Tenant,
    background,
    make_due,
    make_tenant,
    memories,
    one_each,
    put_event,
    statuses,
    terms,
)

TODO = {"tool_name": "TodoWrite", "tool_input": {"todos": []}, "tool_response": {"ok": True}}


def read(path: str, text: str) -> dict[str, Any]:
    return {"tool_name": "Read", "tool_input": {"file_path": path}, "tool_response": {"file": {"content": text}}}


class Telling(ScriptedGenerator):
    """Keeps the batches whole, and answers as it is told for each."""

    def __init__(self, answer: Callable[[Batch], Generated] = one_each, *, batch: int = 30) -> None:
        super().__init__(self._tell, batch=batch)
        self.told: list[Batch] = []
        self.answer = answer

    def _tell(self, batch: Batch) -> Generated:
        self.told.append(batch)
        return self.answer(batch)


def summing_up(learned: str) -> Callable[[Batch], Generated]:
    summary = SessionSummary(request="Fix the port", learned=learned)
    return lambda batch: replace(one_each(batch), summary=summary)


def replacing(*places: int) -> Callable[[Batch], Generated]:
    def answer(batch: Batch) -> Generated:
        made = Observation(kind="discovery", title="put right", narrative="now", evidence=(1,), replaces=places)
        return Generated(observations=[made], provider="scripted", model="scripted-1")

    return answer


def refusing(word: str) -> Callable[[Batch], Generated]:
    def answer(batch: Batch) -> Generated:
        if any(word in str(event.payload) for event in batch.events):
            raise GenerationFailed(Failure(kind="poison", reason="told to"))
        return one_each(batch)

    return answer


async def turn(pool: Pool, generator: ScriptedGenerator) -> str:
    return (await run_group(pool, generator, terms())).kind


async def drain(pool: Pool, generator: ScriptedGenerator) -> None:
    while await turn(pool, generator) != "idle":
        pass


async def start_session(pool: Pool, tenant: Tenant) -> UUID:
    session = {"id": str(uuid7()), "externalSessionId": "ours", "identity": "ours", "metadata": {},
               "project": str(tenant.project_id)}  # fmt: skip
    started = await pool.fetchval(
        "SELECT commonplace.start_session_v1($1, $2, $3, $4, 'r', $5)",
        tenant.team_id,
        tenant.key_id,
        tenant.project_id,
        tenant.actor,
        session,
    )
    return UUID(started["session"]["id"])


async def capture(pool: Pool, tenant: Tenant, session: UUID, payload: object) -> Put:
    event: dict[str, Any] = {
        "id": str(uuid7()), "jobId": str(uuid7()), "project": str(tenant.project_id), "serverSessionId": str(session),
        "sourceAdapter": "hook", "eventType": "assistant_message", "payload": payload, "metadata": {},
        "occurredAt": 1_700_000_000_000, "digest": str(uuid7()), "privateParts": 0, "redactedSecrets": 0,
        "platformGiven": False,
    }  # fmt: skip
    await pool.fetchval(
        "SELECT commonplace.ingest_v1($1, $2, $3, $4, 'r', true, false, $5)",
        tenant.team_id,
        tenant.key_id,
        tenant.project_id,
        tenant.actor,
        [event],
    )
    key = f"s:{session}:{tenant.actor}"
    return Put(event_id=UUID(event["id"]), job_id=UUID(event["jobId"]), session_key=key)


async def end_session(pool: Pool, tenant: Tenant, session: UUID) -> UUID:
    """Its summary's job."""
    ended = await pool.fetchval(
        "SELECT commonplace.end_session_v1($1, $2, $3, $4, 'r', $5, $6)",
        tenant.team_id,
        tenant.key_id,
        tenant.project_id,
        tenant.actor,
        str(session),
        uuid7(),
    )
    return UUID(ended["job"]["id"])


async def put_summary(pool: Pool, put: Put, *, session: UUID) -> UUID:
    """A further summary's job in the group of `put`, as two ends in a row leave it."""
    job_id = uuid7()
    await pool.execute(
        "INSERT INTO commonplace.jobs (id, team_id, project_id, session_key, session_id, source_type, source_id, "
        "job_type, revision, covers_event, key_id, actor) "
        "SELECT $1, team_id, project_id, session_key, $3, 'session_summary', $3, "
        "'observation_generate_session_summary', 9, 0, key_id, actor FROM commonplace.jobs WHERE id = $2",
        job_id,
        put.job_id,
        session,
    )
    return job_id


async def summaries(pool: Pool, tenant: Tenant) -> list[Any]:
    return [memory for memory in await memories(pool, tenant) if memory["kind"] == "summary"]


async def status(pool: Pool, job_id: UUID) -> tuple[str, int]:
    job = await pool.fetchrow("SELECT status, attempts FROM commonplace.jobs WHERE id = $1", job_id)
    assert job is not None
    return job["status"], job["attempts"]


async def skipped(pool: Pool, job_id: UUID) -> str | None:
    reason: str | None = await pool.fetchval(
        "SELECT details ->> 'skipped' FROM commonplace.audit_log "
        "WHERE action = 'generation_job.completed' AND resource_id = $1",
        str(job_id),
    )
    return reason


async def test_the_same_read_in_two_batches_is_sent_once(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant, generator = await make_tenant(admin_pool), Telling()
    await put_event(admin_pool, tenant, payload=read("a.py", "port = 5433"))
    await drain(runtime_pool, generator)
    again = await put_event(admin_pool, tenant, payload=read("a.py", "port = 5433"))
    changed = await put_event(admin_pool, tenant, payload=read("a.py", "port = 5434"))
    await drain(runtime_pool, generator)

    assert generator.batches == [[read("a.py", "port = 5433")], [read("a.py", "port = 5434")]]
    assert await statuses(admin_pool, [again, changed]) == ["completed", "completed"]
    assert await skipped(admin_pool, again.job_id) == "seen before"
    assert await skipped(admin_pool, changed.job_id) is None


async def test_what_another_session_was_told_is_news_here(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant, generator = await make_tenant(admin_pool), Telling()
    for session in ("c:-:one", "c:-:two"):
        await put_event(admin_pool, tenant, session=session, payload=read("a.py", "port = 5433"))

    await drain(runtime_pool, generator)

    assert generator.batches == [[read("a.py", "port = 5433")]] * 2


async def test_what_a_dead_letter_told_is_not_taken_as_told(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant, generator = await make_tenant(admin_pool), Telling(refusing("a.py"))
    dead = await put_event(admin_pool, tenant, payload=read("a.py", "port = 5433"))
    await drain(runtime_pool, generator)
    generator.answer = one_each
    again = await put_event(admin_pool, tenant, payload=read("a.py", "port = 5433"))
    await drain(runtime_pool, generator)

    assert await statuses(admin_pool, [dead, again]) == ["failed", "completed"]
    assert len(generator.batches) == 2


async def test_what_was_split_off_is_not_taken_as_told(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant, generator = await make_tenant(admin_pool), Telling(batch=1)
    payloads = [read("a.py", "port = 5433"), read("b.py", "port = 5433")]
    for payload in payloads:
        await put_event(admin_pool, tenant, payload=payload)

    await drain(runtime_pool, generator)

    assert generator.batches == [[payload] for payload in payloads]


async def test_events_that_say_the_same_are_sent_once_and_cited_all(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant, generator = await make_tenant(admin_pool), Telling()
    puts = [
        await put_event(admin_pool, tenant, payload=payload)
        for payload in (read("a.py", "x = 1"), "Between them.", read("a.py", "x = 1"))
    ]

    await drain(runtime_pool, generator)

    assert generator.batches == [[read("a.py", "x = 1"), "Between them."]]
    first, second = await memories(admin_pool, tenant)
    assert first["events"] == sorted([puts[0].event_id, puts[2].event_id])
    assert second["events"] == [puts[1].event_id]
    assert await statuses(admin_pool, puts) == ["completed"] * 3


async def test_noise_alone_needs_no_call_and_the_audit_says_why(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant, generator = await make_tenant(admin_pool), Telling()
    puts = [await put_event(admin_pool, tenant, payload=TODO, event_type="tool_use") for _ in range(2)]

    assert await turn(runtime_pool, generator) == "completed"

    assert generator.batches == []
    assert await statuses(admin_pool, puts) == ["completed"] * 2
    assert [await skipped(admin_pool, put.job_id) for put in puts] == ["a tool that lists or keeps books"] * 2
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.usage_counters") == 0


async def test_the_next_batch_is_shown_what_was_made(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant, generator = await make_tenant(admin_pool), Telling()
    for n in range(10):
        await put_event(admin_pool, tenant, payload=n)
    await drain(runtime_pool, generator)
    await put_event(admin_pool, tenant, payload="next")
    await drain(runtime_pool, generator)

    assert [list(batch.recent) for batch in generator.told] == [[], [f"seen {n}" for n in range(2, 10)]]


async def test_an_erased_memory_is_not_shown_again(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant, generator = await make_tenant(admin_pool), Telling()
    for word in ("kept", "erased", "kept too"):
        await put_event(admin_pool, tenant, payload=word)
    await drain(runtime_pool, generator)
    await admin_pool.execute("DELETE FROM commonplace.memories WHERE title = 'seen erased'")
    await put_event(admin_pool, tenant, payload="next")
    generator.answer = replacing(2)
    await drain(runtime_pool, generator)

    assert generator.told[1].recent == ["seen kept", "seen kept too"]
    stale = await admin_pool.fetch("SELECT title FROM commonplace.memories WHERE superseded_by IS NOT NULL")
    assert [row["title"] for row in stale] == ["seen kept too"]


async def test_a_memory_is_replaced_by_what_puts_it_right(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant, generator = await make_tenant(admin_pool), Telling()
    await put_event(admin_pool, tenant, payload="first")
    await put_event(admin_pool, tenant, payload="second")
    await drain(runtime_pool, generator)
    generator.answer = replacing(1, 9, -1)
    await put_event(admin_pool, tenant, payload="third")
    await drain(runtime_pool, generator)
    generator.answer = one_each
    await put_event(admin_pool, tenant, payload="fourth")
    await drain(runtime_pool, generator)

    first, second, third, _ = await memories(admin_pool, tenant)
    assert (first["superseded_by"], first["valid_to"] is not None) == (third["id"], True)
    assert (second["superseded_by"], second["valid_to"]) == (third["superseded_by"], None) == (None, None)
    assert generator.told[2].recent == ["seen second", "put right"]


@pytest.mark.parametrize(
    "taken_away",
    [
        "UPDATE commonplace.memories SET owner_actor = 'human:eve'",
        "UPDATE commonplace.memories SET project_id = $1",
    ],
    ids=["another actor's", "another project's"],
)
async def test_a_memory_of_somebody_else_is_never_replaced(
    admin_pool: Pool, runtime_pool: Pool, taken_away: str
) -> None:
    tenant, generator = await make_tenant(admin_pool), Telling()
    await put_event(admin_pool, tenant, payload="first")
    await drain(runtime_pool, generator)
    other = uuid7()
    await admin_pool.execute(
        "INSERT INTO commonplace.projects (id, team_id, name) VALUES ($1, $2, 'elsewhere')", other, tenant.team_id
    )
    await admin_pool.execute(taken_away, *([other] if "$1" in taken_away else []))
    generator.answer = replacing(1)
    await put_event(admin_pool, tenant, payload="second")
    await drain(runtime_pool, generator)

    assert generator.told[1].recent == ["seen first"]
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.memories WHERE superseded_by IS NOT NULL") == 0
    assert len(await memories(admin_pool, tenant)) == 2


async def test_the_summary_of_one_call_is_shown_to_the_next_and_stored_without_one(
    admin_pool: Pool, runtime_pool: Pool
) -> None:
    tenant, generator = await make_tenant(admin_pool), Telling(summing_up("It is 5433."))
    session = await start_session(runtime_pool, tenant)
    await capture(runtime_pool, tenant, session, "first")
    await drain(runtime_pool, generator)
    generator.answer = one_each
    await capture(runtime_pool, tenant, session, "second")
    await drain(runtime_pool, generator)

    job_id = await end_session(runtime_pool, tenant, session)
    await drain(runtime_pool, generator)

    assert generator.batches == [["first"], ["second"]]
    assert generator.told[1].summary == SessionSummary(request="Fix the port", learned="It is 5433.")
    [summary] = await summaries(admin_pool, tenant)
    assert summary["content"] == "Request: Fix the port\n\nLearned: It is 5433."
    assert (summary["title"], summary["job_id"]) == ("Session summary: Fix the port", job_id)
    assert (summary["session_id"], summary["owner_actor"]) == (session, tenant.actor)
    assert (summary["model"], summary["metadata"]["provider"]) == ("scripted-1", "scripted")
    source = await admin_pool.fetchrow("SELECT * FROM commonplace.memory_sources WHERE memory_id = $1", summary["id"])
    assert source is not None
    assert (source["source_type"], source["source_id"], source["event_id"]) == ("session_summary", session, None)
    assert await status(admin_pool, job_id) == ("completed", 1)


async def test_events_and_end_in_one_claim_take_one_call(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant, generator = await make_tenant(admin_pool), Telling(summing_up("It is 5433."))
    session = await start_session(runtime_pool, tenant)
    await capture(runtime_pool, tenant, session, "first")
    await end_session(runtime_pool, tenant, session)

    await drain(runtime_pool, generator)

    assert [batch.closes_session for batch in generator.told] == [True]
    assert len(await summaries(admin_pool, tenant)) == 1


async def test_an_end_with_news_replaces_the_summary_before(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant, generator = await make_tenant(admin_pool), Telling(summing_up("It is 5433."))
    session = await start_session(runtime_pool, tenant)
    await capture(runtime_pool, tenant, session, "first")
    once = await end_session(runtime_pool, tenant, session)
    await drain(runtime_pool, generator)
    assert await end_session(runtime_pool, tenant, session) == once
    generator.answer = summing_up("It is 5434.")
    await capture(runtime_pool, tenant, session, "second")

    twice = await end_session(runtime_pool, tenant, session)
    await drain(runtime_pool, generator)

    before, now = await summaries(admin_pool, tenant)
    assert (before["job_id"], now["job_id"]) == (once, twice)
    assert (before["superseded_by"], before["valid_to"] is not None) == (now["id"], True)
    assert now["superseded_by"] is None
    assert "5434" in now["content"]


async def test_a_summary_that_did_not_change_is_not_stored_again(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant, generator = await make_tenant(admin_pool), Telling(summing_up("It is 5433."))
    session = await start_session(runtime_pool, tenant)
    for word in ("first", "second"):
        await capture(runtime_pool, tenant, session, word)
        await end_session(runtime_pool, tenant, session)
        await drain(runtime_pool, generator)

    [summary] = await summaries(admin_pool, tenant)
    assert summary["superseded_by"] is None


async def test_an_end_after_calls_without_a_summary_asks_for_one(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant, generator = await make_tenant(admin_pool), Telling()
    session = await start_session(runtime_pool, tenant)
    await capture(runtime_pool, tenant, session, "first")
    await drain(runtime_pool, generator)
    generator.answer = summing_up("It is 5433.")
    await end_session(runtime_pool, tenant, session)
    await drain(runtime_pool, generator)

    assert generator.batches == [["first"], []]
    assert generator.told[1].recent == ["seen first"]
    assert generator.told[1].closes_session
    assert len(await summaries(admin_pool, tenant)) == 1


async def test_the_end_of_a_session_without_news_needs_no_call(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant, generator = await make_tenant(admin_pool), Telling(summing_up("nothing"))
    session = await start_session(runtime_pool, tenant)
    job_id = await end_session(runtime_pool, tenant, session)

    await drain(runtime_pool, generator)

    assert generator.batches == []
    assert await status(admin_pool, job_id) == ("completed", 1)
    assert await memories(admin_pool, tenant) == []


async def test_of_several_summaries_in_one_claim_the_last_is_written(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant, generator = await make_tenant(admin_pool), Telling(summing_up("It is 5433."))
    session = await start_session(runtime_pool, tenant)
    put = await capture(runtime_pool, tenant, session, "first")
    first = await end_session(runtime_pool, tenant, session)
    last = await put_summary(admin_pool, put, session=session)

    await drain(runtime_pool, generator)

    assert [summary["job_id"] for summary in await summaries(admin_pool, tenant)] == [last]
    assert [await status(admin_pool, job) for job in (first, last)] == [("completed", 1)] * 2
    assert [await skipped(admin_pool, job) for job in (first, last)] == ["told by a later summary", None]


async def test_a_summary_that_was_cancelled_meanwhile_is_not_written_until_it_is_asked_for_again(
    admin_pool: Pool, runtime_pool: Pool
) -> None:
    tenant, generator = await make_tenant(admin_pool), Telling(summing_up("It is 5433."))
    session = await start_session(runtime_pool, tenant)
    await capture(runtime_pool, tenant, session, "first")
    await end_session(runtime_pool, tenant, session)
    await drain(runtime_pool, generator)
    generator.answer = summing_up("It is 5434.")
    put = await capture(runtime_pool, tenant, session, "second")
    job_id = await end_session(runtime_pool, tenant, session)
    generator.called.clear()
    generator.go_on.clear()
    async with background(turn(runtime_pool, generator)) as running:
        await generator.called.wait()
        await admin_pool.execute(
            "UPDATE commonplace.jobs SET status = 'cancelled', cancelled_at = now(), locked_by = NULL WHERE id = $1",
            job_id,
        )
        generator.go_on.set()
        assert await running == "completed"

    assert await statuses(admin_pool, [put]) == ["completed"]
    assert len(await summaries(admin_pool, tenant)) == 1
    await put_summary(admin_pool, put, session=session)
    await make_due(admin_pool, put)
    await drain(runtime_pool, generator)
    before, now = await summaries(admin_pool, tenant)
    assert (before["superseded_by"], "5434" in now["content"]) == (now["id"], True)
    assert len(generator.batches) == 2


async def test_a_poisonous_event_does_not_take_the_summary_with_it(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant, generator = await make_tenant(admin_pool), Telling(refusing("bad"))
    session = await start_session(runtime_pool, tenant)
    puts = [await capture(runtime_pool, tenant, session, word) for word in ("good", "bad")]
    job_id = await end_session(runtime_pool, tenant, session)

    await drain(runtime_pool, generator)

    assert await statuses(admin_pool, puts) == ["completed", "failed"]
    assert await status(admin_pool, job_id) == ("completed", 1)


async def test_a_failure_is_the_fault_of_those_sent_and_the_rest_goes_back(
    admin_pool: Pool, runtime_pool: Pool
) -> None:
    tenant = await make_tenant(admin_pool)

    def answer(_: Batch) -> Generated:
        raise GenerationFailed(Failure(kind="transient", reason="told to"))

    generator = Telling(answer, batch=2)
    session = await start_session(runtime_pool, tenant)
    noise, *sent, beyond = [
        await capture(runtime_pool, tenant, session, payload) for payload in (TODO, "first", "second", "third")
    ]
    job_id = await end_session(runtime_pool, tenant, session)

    assert await turn(runtime_pool, generator) == "failed"

    assert generator.batches == [["first", "second"]]
    assert [await status(admin_pool, put.job_id) for put in (noise, *sent, beyond)] == [
        ("queued", 0),
        ("queued", 1),
        ("queued", 1),
        ("queued", 0),
    ]
    assert await status(admin_pool, job_id) == ("queued", 0)
    errors = await admin_pool.fetch("SELECT last_error IS NULL AS is_clean FROM commonplace.jobs ORDER BY number")
    assert [row["is_clean"] for row in errors] == [True, False, False, True, True]
