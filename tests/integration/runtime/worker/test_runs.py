"""Runs of events are shown to a model as one: a memory cites all of them, a failure takes none along."""

from collections.abc import Sequence

from commonplace_runtime.domain.observations import Generated
from commonplace_runtime.llm.extractive import ExtractiveGenerator
from commonplace_runtime.llm.ports import Batch
from commonplace_runtime.services.generate import run_group
from commonplace_runtime.store.pool import Pool
from tests.integration.runtime.worker.support import (
    Put,
    ScriptedGenerator,
    Tenant,
    make_tenant,
    memories,
    one_each,
    put_event,
    statuses,
    terms,
)


class Folding(ScriptedGenerator):
    """Asks for runs, as models do."""

    folds_runs = True


async def put_reads(pool: Pool, tenant: Tenant, *texts: str) -> Sequence[Put]:
    return [
        await put_event(
            pool,
            tenant,
            payload={
                "tool_name": "Read",
                "tool_input": {"file_path": f"/shop/{number}.py"},
                "tool_response": f"def total_of_the_cart(): # {text}",
            },
        )
        for number, text in enumerate(texts)
    ]


async def test_a_memory_of_a_run_cites_each_of_its_events(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    puts = await put_reads(admin_pool, tenant, "a", "b", "c")
    generator = Folding()

    outcome = await run_group(runtime_pool, generator, terms())

    assert (outcome.kind, outcome.jobs, len(generator.batches[0])) == ("completed", 3, 1)
    [memory] = await memories(admin_pool, tenant)
    assert memory["events"] == sorted(put.event_id for put in puts)


async def test_of_a_run_only_the_guilty_event_fails(admin_pool: Pool, runtime_pool: Pool) -> None:
    def answer(batch: Batch) -> Generated:
        assert not [part for event in batch.events for part in event.shown if "bad" in str(part.payload)]
        return one_each(batch)

    tenant = await make_tenant(admin_pool)
    puts = await put_reads(admin_pool, tenant, "a", "b", "bad", "c", "d")

    turns = 0
    while (await run_group(runtime_pool, Folding(answer), terms())).kind != "idle":
        turns += 1
        assert turns < 10, "it never ends"

    assert await statuses(admin_pool, puts) == ["completed", "completed", "failed", "completed", "completed"]


async def test_rules_look_at_each_event_of_a_run(admin_pool: Pool, runtime_pool: Pool) -> None:
    tenant = await make_tenant(admin_pool)
    puts = await put_reads(admin_pool, tenant, "a", "b", "c")

    await run_group(runtime_pool, ExtractiveGenerator(), terms())

    cited = [memory["events"] for memory in await memories(admin_pool, tenant)]
    assert cited == [[put.event_id] for put in puts]
