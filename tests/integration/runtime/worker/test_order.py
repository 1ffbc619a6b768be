"""The order of each session's events under eight workers, whatever comes late or fails, for schedules by Hypothesis."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commonplace_runtime.domain.observations import Generated
from commonplace_runtime.domain.retry import Failure, FailureKind
from commonplace_runtime.llm.ports import Batch, GenerationFailed
from commonplace_runtime.services.generate import run_group
from commonplace_runtime.store.pool import Pool
from tests.integration.runtime.worker.chaos import CHAOS
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

WORKERS = 8
DELAYS = st.sampled_from([0.0, 0.0, 0.001, 0.004, 0.015])
"""Of a call or before an event, in seconds."""


@dataclass(frozen=True)
class Call:
    """How one call goes. failure: None for an answer."""

    delay: float
    failure: FailureKind | None


@dataclass(frozen=True)
class Schedule:
    """
    What comes and how calls go.

    sessions: of each, the delays before its events. calls: in the order in which they are begun, over all sessions;
    what comes after them is answered at once. batch: events that one call takes. claim: jobs that one claim takes.
    """

    sessions: Sequence[Sequence[float]]
    calls: Sequence[Call]
    batch: int
    claim: int


FAILURES = st.sampled_from([None, None, None, "transient", "invalid_output", "splittable", "poison"])
SCHEDULES = st.builds(
    Schedule,
    sessions=st.lists(st.lists(DELAYS, min_size=1, max_size=7), min_size=1, max_size=6),
    calls=st.lists(st.builds(Call, delay=DELAYS, failure=FAILURES), max_size=30),
    batch=st.integers(1, 4),
    claim=st.integers(1, 6),
)


class Watched(ScriptedGenerator):
    """
    A generator that goes by the schedule.

    answered: the events of each session, as they were answered. wrong: what it should not have been asked for.
    """

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(batch=schedule.batch)
        self._script = list(reversed(schedule.calls))
        self._busy: set[str] = set()
        self.answered: dict[str, list[int]] = defaultdict(list)
        self.wrong: list[str] = []

    async def generate(self, batch: Batch, **more: Any) -> Generated:
        """Answer or fail, after a while."""
        told = [str(event.payload).split() for event in batch.events]
        session, numbers = told[0][0], [int(number) for _, number in told]
        self._check(session, {name for name, _ in told}, numbers)
        call = self._script.pop() if self._script else Call(delay=0.0, failure=None)
        self._busy.add(session)
        await asyncio.sleep(call.delay)
        self._busy.discard(session)
        # A single event that can never work is given up: that is another test's.
        if call.failure is not None and (len(numbers) > 1 or call.failure in ("transient", "invalid_output")):
            raise GenerationFailed(Failure(kind=call.failure, reason="the schedule says so"))
        self.answered[session] += numbers
        return one_each(batch)

    def _check(self, session: str, named: set[str], numbers: Sequence[int]) -> None:
        begin = len(self.answered[session])
        if session in self._busy:
            self.wrong.append(f"{session}: two calls at once")
        if named != {session}:
            self.wrong.append(f"one call of {named}")
        if list(numbers) != list(range(begin, begin + len(numbers))):
            self.wrong.append(f"{session}: {numbers} after {self.answered[session]}")


async def put_session(pool: Pool, tenant: Tenant, name: str, delays: Sequence[float]) -> Sequence[Put]:
    """Its events, one after the other."""
    puts = []
    for number, delay in enumerate(delays):
        await asyncio.sleep(delay)
        # More attempts than a schedule has failures.
        puts.append(await put_event(pool, tenant, session=f"c:-:{name}", payload=f"{name} {number}", max_attempts=99))
    return puts


async def play(pool: Pool, admin_pool: Pool, tenant: Tenant, schedule: Schedule) -> Watched:
    """Let eight workers at it until all is done. Retries are due at once, as `terms` has no jitter."""
    generator = Watched(schedule)
    is_over = asyncio.Event()

    async def work(number: int) -> None:
        mine = replace(terms(f"worker-{number}"), max_jobs=schedule.claim)
        while not is_over.is_set():
            outcome = await run_group(pool, generator, mine)
            assert outcome.kind in ("idle", "completed", "failed"), outcome
            if outcome.kind == "idle":
                await asyncio.sleep(0.002)

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for number in range(WORKERS):
            tasks.create_task(work(number))
        async with asyncio.TaskGroup() as posting:
            coming = [
                posting.create_task(put_session(admin_pool, tenant, f"s{place}", delays))
                for place, delays in enumerate(schedule.sessions)
            ]
        puts = [put for one in coming for put in one.result()]
        while set(await statuses(admin_pool, puts)) != {"completed"}:  # noqa: ASYNC110 - only Postgres knows
            await asyncio.sleep(0.005)
        is_over.set()
    return generator


@settings(
    max_examples=80 * CHAOS,
    deadline=None,
    derandomize=CHAOS == 1,
    database=None,
    # The database is shared, the tenant is not.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(schedule=SCHEDULES)
async def test_eight_workers_keep_the_order_of_every_session(
    runtime_pool: Pool, admin_pool: Pool, schedule: Schedule
) -> None:
    tenant = await make_tenant(admin_pool)

    generator = await play(runtime_pool, admin_pool, tenant, schedule)

    assert generator.wrong == []
    titles = [memory["title"].split() for memory in await memories(admin_pool, tenant)]
    for place, delays in enumerate(schedule.sessions):
        mine = [int(number) for _, session, number in titles if session == f"s{place}"]
        assert mine == generator.answered[f"s{place}"] == list(range(len(delays)))
