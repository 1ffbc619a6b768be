"""What a generator gave is cleaned before it is stored, and what the database refuses ends with its true reason."""

from collections.abc import Mapping

import pytest

from commonplace_runtime.domain.observations import Generated, Observation
from commonplace_runtime.domain.redaction import redact
from commonplace_runtime.llm.extractive import ExtractiveGenerator
from commonplace_runtime.llm.ports import Batch
from commonplace_runtime.services.generate import run_group
from commonplace_runtime.services.housekeeping import keep_house
from commonplace_runtime.store.pool import Pool
from tests.integration.runtime.worker.support import (
    ScriptedGenerator,
    make_tenant,
    memories,
    put_event,
    statuses,
    terms,
)

GITHUB = "ghp_" + "a1B2" * 9
REVEALED = '{{"stdout":"value is {} and more words" <private>x</private>}}'


def answering(**fields: object) -> ScriptedGenerator:
    """One observation that cites everything, with these fields."""

    def answer(batch: Batch) -> Generated:
        given: dict[str, object] = {"kind": "note", "title": "A title", "narrative": "What happened", **fields}
        evidence = tuple(range(1, len(batch.events) + 1))
        made = Observation(evidence=evidence, **given)  # type: ignore[arg-type]
        return Generated(
            observations=[made], provider="scripted", model="m\x00\ud800", input_tokens=10, output_tokens=5
        )

    return ScriptedGenerator(answer)


@pytest.mark.parametrize("hidden", ["\\u003cprivate\\u003ehidden\\u003c/private\\u003e", "\\u0000 \\ud800"])
@pytest.mark.parametrize("cleaned", [True, False], ids=["as ingest stores it", "as an older ingest stored it"])
async def test_what_only_the_rules_unpack_is_cleaned(
    admin_pool: Pool, runtime_pool: Pool, hidden: str, *, cleaned: bool
) -> None:
    tenant = await make_tenant(admin_pool)
    response = REVEALED.format(hidden)
    if not cleaned:
        response = response.replace("<private>x</private>", "")
    payload = redact({"tool_name": "Bash", "tool_input": {"command": "cat f"}, "tool_response": response}).value
    if not cleaned:
        assert isinstance(payload, dict)
        payload["tool_response"] = response
    put = await put_event(admin_pool, tenant, payload=payload, event_type="tool_use")

    assert (await run_group(runtime_pool, ExtractiveGenerator(), terms())).kind == "completed"

    assert await statuses(admin_pool, [put]) == ["completed"]
    [memory] = await memories(admin_pool, tenant)
    assert "hidden" not in str(dict(memory))
    assert "and more words" in memory["content"]


@pytest.mark.parametrize(
    "fields",
    [
        {"title": f"{GITHUB} \x00 \ud800"},
        {"narrative": f"{GITHUB} \x00 \ud800 <private>{GITHUB}"},
        {"facts": [GITHUB, "\x00", "\ud800"]},
        {"concepts": [GITHUB, "\x00"], "files_read": [f"/{GITHUB}\x00"], "files_modified": ["\ud800"]},
        {"keywords": [GITHUB, "\x00", "\ud800"]},
        {"kind": "\x00\ud800", "subtitle": f"{GITHUB}\x00"},
        {"extra": {"\x00": ["\ud800", {"password": "hunter2222"}], GITHUB: GITHUB}},
    ],
    ids=lambda fields: "-".join(fields),
)
async def test_whatever_a_model_answers_can_be_stored_and_holds_no_secret(
    admin_pool: Pool, runtime_pool: Pool, fields: Mapping[str, object]
) -> None:
    tenant = await make_tenant(admin_pool)
    put = await put_event(admin_pool, tenant)

    assert (await run_group(runtime_pool, answering(**fields), terms())).kind == "completed"

    assert await statuses(admin_pool, [put]) == ["completed"]
    [memory] = await memories(admin_pool, tenant)
    assert GITHUB not in str(dict(memory))
    assert "hunter2222" not in str(dict(memory))


async def test_a_memory_that_is_all_private_is_not_made(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    await put_event(admin_pool, tenant)

    outcome = await run_group(runtime_pool, answering(title="<private>all", narrative=""), terms())

    assert (outcome.kind, outcome.jobs, outcome.memories) == ("completed", 1, 0)


async def test_what_the_database_refuses_fails_alone_and_at_once(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    puts = [await put_event(admin_pool, tenant, payload=word) for word in ("a", "b", "bad", "c", "d")]
    await admin_pool.execute("ALTER TABLE commonplace.memories ADD CHECK (title <> 'seen bad')")

    turns = 0
    while (await run_group(runtime_pool, ScriptedGenerator(), terms())).kind != "idle":
        turns += 1
        assert turns < 10, "it never ends"

    assert await statuses(admin_pool, puts) == ["completed", "completed", "failed", "completed", "completed"]
    job = await admin_pool.fetchrow("SELECT attempts, last_error FROM commonplace.jobs WHERE id = $1", puts[2].job_id)
    assert job is not None
    assert job["attempts"] == 1
    assert job["last_error"] == {
        "classification": "poison",
        "reason": "the memories could not be stored: CheckViolationError",
    }
    assert len(await memories(admin_pool, tenant)) == 4


async def test_what_cannot_even_be_sent_fails_with_its_reason(admin_pool: Pool, runtime_pool: Pool) -> None:
    put = await put_event(admin_pool, await make_tenant(admin_pool))

    outcome = await run_group(runtime_pool, answering(extra={"confidence": float("nan")}), terms())

    assert outcome.kind == "failed"
    error = await admin_pool.fetchval("SELECT last_error FROM commonplace.jobs WHERE id = $1", put.job_id)
    assert error["classification"] == "poison"
    assert error["reason"].startswith("the memories could not be stored: ")
    used = await admin_pool.fetch("SELECT quantity FROM commonplace.usage_counters WHERE kind LIKE '%tokens%'")
    assert sorted(row["quantity"] for row in used) == [5, 10, 15]


async def test_a_fault_in_the_house_does_not_stop_its_keeper(admin_pool: Pool, runtime_pool: Pool) -> None:
    await admin_pool.execute("ALTER TABLE commonplace.rate_counters RENAME COLUMN window_start TO elsewhere")

    assert await keep_house(runtime_pool) is False
