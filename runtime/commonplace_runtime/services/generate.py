"""
Turn one session's due events into memories: claim, call the generator, write under the lease.

No database connection is held during the call. A heartbeat keeps the lease; where it is lost all the same (this
process stood still, or Postgres was away for too long) the results are refused by the fence and dropped.
"""

import asyncio
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from time import monotonic
from typing import Any, Final, Literal
from uuid import UUID

import structlog

from commonplace_runtime.domain.condense import Condensed, condense
from commonplace_runtime.domain.errors import Unavailable
from commonplace_runtime.domain.observations import Generated
from commonplace_runtime.domain.payloads import is_heavy
from commonplace_runtime.domain.retry import Failure, GiveUp, RetryAt, Split, decide, error_of, pause_seconds
from commonplace_runtime.llm.ports import Batch, Estimate, GenerationFailed, Generator
from commonplace_runtime.observability import JOBS, JOBS_RUNNING, MODEL_CALLS, MODEL_SECONDS, MODEL_TOKENS
from commonplace_runtime.services.leases import KeptLease
from commonplace_runtime.services.portion import Portion, portion_of
from commonplace_runtime.services.results import Price, results_of, spent_on, storable, summary_of, without_call
from commonplace_runtime.services.slots import CallSlots
from commonplace_runtime.store import jobs as store
from commonplace_runtime.store.jobs import Claimed, ClaimedJob
from commonplace_runtime.store.pool import Pool

log = structlog.get_logger(__name__)

MAX_JOBS: Final = 30
_FEW: Final = 5


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """
    How one turn ended.

    idle: nothing was due. paused: something may be, but nobody may be called for `pause_seconds`. held: the team's
    budget is spent, its jobs wait. lost: somebody else holds the lease now, nothing was written.
    """

    kind: Literal["idle", "paused", "held", "completed", "failed", "lost"]
    jobs: int = 0
    memories: int = 0
    pause_seconds: float = 0.0


@dataclass(kw_only=True)
class Turn:
    """Which team this process served last; its claim loops share one."""

    after: UUID = store.FIRST


@dataclass(frozen=True, kw_only=True)
class Terms:
    """
    Under what terms a worker works. `jitter` gives a number in [0, 1).

    tokens_per_month: what any team may use, beside its own limit; None: what its own says.
    """

    worker: str
    price: Price
    lease_seconds: float = 60.0
    max_jobs: int = MAX_JOBS
    slots: CallSlots = field(default_factory=lambda: CallSlots(1000))
    turn: Turn = field(default_factory=Turn)
    jitter: Callable[[], float] = field(default=random.random)
    tokens_per_month: int | None = None

    @property
    def whole_lease_seconds(self) -> int:
        """What the database is told."""
        return math.ceil(self.lease_seconds)


def _nothing() -> None:
    """What follows a claim unless told otherwise."""


async def run_group(
    pool: Pool, generator: Generator, terms: Terms, *, on_claim: Callable[[], None] = _nothing
) -> Outcome:
    """
    Claim one session and see it through. Cancelling hands the jobs back, their attempt uncounted.

    on_claim: called when there was something to claim, before the work.
    Raises Unavailable when Postgres is away before anything was claimed.
    """
    claim = await store.claim(
        pool,
        worker=terms.worker,
        lease_seconds=terms.whole_lease_seconds,
        max_jobs=terms.max_jobs,
        after=terms.turn.after,
        credentials=generator.credentials,
    )
    if claim is None:
        return Outcome(kind="idle")
    if claim.expired:
        JOBS.labels("failed").inc(claim.expired)
        log.warning("jobs_given_up", classification="lease_expired", jobs=claim.expired)
    if claim.paused_seconds:
        return Outcome(kind="paused", pause_seconds=claim.paused_seconds)
    on_claim()
    if claim.claimed is None:
        return Outcome(kind="failed", jobs=claim.expired)
    terms.turn.after = claim.claimed.lease.team_id
    claimed = replace(claim.claimed, limited=claim.claimed.limited or terms.tokens_per_month is not None)
    work = _Work(pool, generator, terms, claimed, frozenset(claim.paused))
    with JOBS_RUNNING.track_inprogress():
        return await work.under_lease()


class _Work:
    """One leased session on its way from events to memories."""

    def __init__(
        self, pool: Pool, generator: Generator, terms: Terms, claimed: Claimed, paused: frozenset[str]
    ) -> None:
        self._pool = pool
        self._generator = generator
        self._terms = terms
        self._claimed = claimed
        self._paused = paused
        self._spent: list[Generated | Failure] = []
        self._settled: list[Generated | Failure] = []
        self._under_way: Batch | None = None
        self._reservations = 0
        self._refused: Outcome | None = None
        self._started = monotonic()
        self._kept = KeptLease(pool, claimed.lease, seconds=terms.lease_seconds)

    async def under_lease(self) -> Outcome:
        """
        The whole turn. The lease is kept for as long as it takes; where it is lost, so is the turn.

        Cancelling hands the jobs back, their attempt uncounted.
        """
        try:
            outcome = await self._turn()
        except asyncio.CancelledError:
            await self._kept.hand_back(len(self._claimed.jobs))
            await self._count_lost()
            raise
        if outcome.kind == "lost":
            await self._count_lost()
        return outcome

    async def _turn(self) -> Outcome:
        turn = asyncio.create_task(self._see_through())
        heartbeat = asyncio.create_task(self._kept.keep())
        try:
            await asyncio.wait({turn, heartbeat}, return_when=asyncio.FIRST_COMPLETED)
            if turn.done():
                return turn.result()
            heartbeat.result()
            return self._lost()
        finally:
            turn.cancel()
            heartbeat.cancel()
            await asyncio.gather(turn, heartbeat, return_exceptions=True)

    async def _count_lost(self) -> None:
        """What a turn spent that writes nothing. Of a team with a budget, what was set aside counts instead."""
        if self._claimed.limited or self._kept.may_be_written:
            return
        spent = list(self._spent)
        if self._under_way is not None:
            # A call that is broken off may be billed, nobody knows how much.
            estimate = await asyncio.to_thread(self._generator.estimate, self._under_way)
            if estimate is not None:
                spent.append(Failure(kind="transient", reason="broken off", **asdict(estimate)))
        if counted := spent_on(spent, self._terms.price):
            await self._kept.count_lost(self._claimed.jobs[0].key_id, counted)

    def _lost(self) -> Outcome:
        JOBS.labels("lost").inc(len(self._claimed.jobs))
        log.warning("lease_lost", jobs=len(self._claimed.jobs))
        return Outcome(kind="lost", jobs=len(self._claimed.jobs))

    async def _see_through(self) -> Outcome:
        condensed, size = await self._condensed(fold_runs=self._generator.folds_runs)
        while True:
            portion = portion_of(self._claimed.jobs, condensed, size)
            batch = self._batch(portion)
            answer: Generated | Failure
            if batch is None:
                answer = without_call(self._claimed.state, self._generator.provider)
            else:
                # As long as writing the prompt: only who has a budget needs it, and nobody else waits for it.
                estimate = await asyncio.to_thread(self._generator.estimate, batch) if self._claimed.limited else None
                if await self._may_call(estimate, self._spent):
                    answer = await self._call(batch)
                if self._refused is not None:
                    return self._refused
            if isinstance(answer, Generated):
                written = await self._write_results(portion, answer, called=batch is not None)
                if isinstance(written, Outcome):
                    return written
                answer = written
            oldest = _blamed(portion)[0]
            decision = decide(
                answer,
                attempt=oldest.attempt,
                max_attempts=oldest.max_attempts,
                batch=sum(len(event.shown) for event in portion.events),
                jitter=self._terms.jitter(),
            )
            if not isinstance(decision, Split):
                return await self._write_failure(portion, answer, decision)
            log.info("batch_split", classification=answer.kind, events=len(portion.events), keep=decision.keep)
            # Those left out stay leased and are handed back with the results: they are next in line.
            # No run is folded any more: one event of it may be at fault.
            condensed, most = await self._condensed(fold_runs=False)
            size = min(decision.keep, most)

    async def _condensed(self, *, fold_runs: bool) -> tuple[Condensed, int]:
        """The claim's events without noise, and how many of them one call takes."""
        events = [job.event for job in self._claimed.jobs if job.event is not None]
        seen = self._claimed.state.get("digests", ())

        def prepare() -> tuple[Condensed, int]:
            condensed = condense(events, seen, fold_runs=fold_runs)
            kept = [one.event for one in condensed.kept]
            return condensed, self._generator.batch_size(kept) if kept else 0

        if not is_heavy([event.payload for event in events]):
            return prepare()
        # In a thread: an agent's megabyte takes its time, and the leases of other sessions need the event loop.
        return await asyncio.to_thread(prepare)

    def _batch(self, portion: Portion) -> Batch | None:
        """What to ask of the generator; None where there is nothing to ask."""
        summary = summary_of(self._claimed.state)
        closes = portion.closing is not None
        if not portion.events and not (closes and summary is None and self._claimed.recent):
            return None
        return Batch(
            project_name=self._claimed.project_name,
            events=portion.events,
            recent=[memory.title for memory in self._claimed.recent],
            request=self._claimed.request,
            summary=summary,
            closes_session=closes,
        )

    async def _may_call(self, estimate: Estimate | None, spent: Sequence[Generated | Failure]) -> bool:
        """
        Whether the budget has room for one more call; asked before each. `spent`: the turn's calls so far.

        What those used is counted along with the question. False: `_refused` says how the turn ended.
        """
        if estimate is None or not self._claimed.limited:
            return True
        unsettled = [one for one in spent if not any(one is settled for settled in self._settled)]
        self._reservations += 1
        payer = self._claimed.jobs[0].key_id
        call = {
            "provider": estimate.provider,
            "model": estimate.model,
            "inputTokens": estimate.input_tokens,
            "outputTokens": estimate.output_tokens,
            "costMicrousd": self._terms.price(estimate.model, estimate.input_tokens, estimate.output_tokens),
            "keyId": str(payer) if payer else None,
            "place": self._reservations,
            "spent": spent_on(unsettled, self._terms.price),
            "leaseSeconds": self._terms.whole_lease_seconds,
            "tokensPerMonth": self._terms.tokens_per_month,
        }
        answer = await self._kept.tell(lambda: store.reserve(self._pool, self._claimed.lease, call))
        if answer is not None and answer["outcome"] != "lease_lost":
            self._settled += unsettled
        if answer is not None and answer["outcome"] == "granted":
            return True
        if answer is None or answer["outcome"] == "lease_lost":
            self._refused = self._lost()
            return False
        jobs = len(self._claimed.jobs)
        JOBS.labels("held").inc(jobs)
        log.info("team_held", team=str(self._claimed.lease.team_id), reason=answer["reason"], until=answer["heldUntil"])
        self._refused = Outcome(kind="held", jobs=jobs)
        return False

    def _unsettled(self) -> Sequence[Mapping[str, Any]]:
        """`spent` of the turn's calls that were not counted along with a reservation."""
        counted = [one for one in self._spent if not any(one is settled for settled in self._settled)]
        return spent_on(counted, self._terms.price)

    async def _call(self, batch: Batch) -> Generated | Failure:
        started = monotonic()
        answer: Generated | Failure
        earlier: Sequence[Failure]
        try:
            async with self._terms.slots.taken():
                self._under_way = batch
                may_call = self._may_call if self._claimed.limited else None
                answer = await self._generator.generate(batch, avoid=self._paused, may_call=may_call)
            earlier = answer.earlier
        except GenerationFailed as error:
            answer, earlier = error.failure, error.earlier
        except Exception as error:
            # One event that breaks a generator must not stop the worker.
            provider = self._generator.provider
            log.exception("generator_broke", provider=provider)
            answer = Failure(kind="poison", reason=f"the generator broke: {type(error).__name__}", provider=provider)
            earlier = ()
        self._under_way = None
        MODEL_SECONDS.labels(answer.provider or self._generator.provider).observe(monotonic() - started)
        for one in (*earlier, answer):
            _count(one, self._generator.provider)
        self._spent += [*earlier, answer]
        for failure in (*earlier, *([answer] if isinstance(answer, Failure) else [])):
            await self._note_pause(failure)
        return answer

    async def _note_pause(self, failure: Failure) -> None:
        """The provider that refused one session now would refuse all others just the same, of every worker."""
        seconds = pause_seconds(failure)
        if failure.credential is None or seconds <= 0:
            return
        log.warning("provider_paused", provider=failure.provider, seconds=seconds, reason=failure.reason)
        try:
            await store.pause(self._pool, failure.credential, seconds=seconds, reason=failure.reason)
        except Unavailable as error:
            log.warning("pause_not_noted", reason=error.message)

    async def _write_results(self, portion: Portion, generated: Generated, *, called: bool) -> Outcome | Failure:
        """How the turn ended, or why the database will never take these results."""
        try:
            spent, seconds = self._unsettled(), monotonic() - self._started
            make = partial(results_of, self._claimed, portion, generated, spent=spent, seconds=seconds)
            # Observations are bounded each; many of them take milliseconds to clean.
            results = make() if len(generated.observations) <= _FEW else await asyncio.to_thread(make)
            written = await self._kept.tell(lambda: store.complete(self._pool, self._claimed.lease, results))
        except Exception as error:  # noqa: BLE001 - the driver's errors are the store's, and each of them ends the same way
            # Without its text, which quotes the row.
            log.error("results_refused", error=type(error).__name__, jobs=len(portion.jobs))  # noqa: TRY400
            return Failure(
                kind="poison",
                reason=f"the memories could not be stored: {type(error).__name__}",
                provider=generated.provider,
                model=generated.model,
            )
        if written is None or written["outcome"] == "lease_lost":
            log.warning("results_dropped", jobs=len(portion.jobs), stored=written is not None)
            return self._lost()
        JOBS.labels("completed").inc(written["jobs"])
        log.info(
            "jobs_completed",
            jobs=written["jobs"],
            memories=written["memories"],
            provider=generated.provider,
            called=called,
            skipped=len(portion.skipped),
        )
        return Outcome(kind="completed", jobs=written["jobs"], memories=written["memories"])

    async def _write_failure(self, portion: Portion, last: Failure, decision: RetryAt | GiveUp) -> Outcome:
        verdict: dict[str, object] = {"retryAfterSeconds": None, "counted": True, "error": error_of(last)}
        if isinstance(decision, RetryAt):
            verdict |= {"retryAfterSeconds": decision.after_seconds, "counted": decision.counted}
        failures = {
            "provider": last.provider,
            "model": storable(last.model),
            "spent": self._unsettled(),
            "seconds": monotonic() - self._started,
            "jobs": [{"id": str(job.id), **verdict} for job in _blamed(portion)],
        }
        written = await self._kept.tell(lambda: store.fail(self._pool, self._claimed.lease, failures))
        if written is None or written["outcome"] == "lease_lost":
            return self._lost()
        JOBS.labels("retried").inc(written["retried"])
        JOBS.labels("failed").inc(written["failed"])
        log.warning(
            "jobs_failed",
            classification=last.kind,
            reason=last.reason,
            retried=written["retried"],
            failed=written["failed"],
            provider_request_id=last.request_id,
        )
        return Outcome(kind="failed", jobs=len(portion.jobs))


def _blamed(portion: Portion) -> Sequence[ClaimedJob]:
    """
    Whose attempt failed; the others are handed back.

    Those whose events were sent. The summary asked for along with them is not at fault: it is next in line, alone.
    """
    sent = [job for jobs in portion.stands_for for job in jobs]
    return sent or ([portion.closing] if portion.closing is not None else portion.jobs)


def _count(answer: Generated | Failure, provider: str) -> None:
    provider = answer.provider or provider
    MODEL_CALLS.labels(provider, answer.kind if isinstance(answer, Failure) else "ok").inc()
    MODEL_TOKENS.labels(provider, "input").inc(answer.input_tokens)
    MODEL_TOKENS.labels(provider, "output").inc(answer.output_tokens)
