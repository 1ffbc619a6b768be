"""
Turn one session's due events into memories: claim, call the generator, write under the lease.

No database connection is held during the call. A heartbeat keeps the lease; where it is lost all the same (this
process stood still, or Postgres was away for too long) the results are refused by the fence and dropped.
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, Literal, cast
from uuid import UUID

import structlog

from commonplace_runtime.domain.errors import Unavailable
from commonplace_runtime.domain.models import Json
from commonplace_runtime.domain.observations import Generated, Observation, bounded, content_of, metadata_of
from commonplace_runtime.domain.redaction import redact
from commonplace_runtime.domain.retry import Failure, GiveUp, RetryAt, Split, decide, error_of, pause_seconds
from commonplace_runtime.ids import uuid7
from commonplace_runtime.llm.ports import Batch, GenerationFailed, Generator
from commonplace_runtime.observability import JOBS, JOBS_RUNNING, MODEL_CALLS, MODEL_SECONDS, MODEL_TOKENS
from commonplace_runtime.store import jobs as store
from commonplace_runtime.store.jobs import Claim, ClaimedJob, Lease
from commonplace_runtime.store.pool import Pool

log = structlog.get_logger(__name__)

MAX_JOBS: Final = 30
_HAND_BACK_SECONDS: Final = 5.0
_WRITE_RETRY_SECONDS: Final = 0.25


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """
    How one turn ended. idle: nothing was due. lost: somebody else holds the lease now, nothing was written.

    `pause_seconds`: for how long the generator should be left alone.
    """

    kind: Literal["idle", "completed", "failed", "lost"]
    jobs: int = 0
    memories: int = 0
    pause_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Under what terms a worker works. `jitter` gives a number in [0, 1)."""

    worker: str
    lease_seconds: float = 60.0
    max_jobs: int = MAX_JOBS
    jitter: Callable[[], float] = field(default=random.random)

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
        pool, worker=terms.worker, lease_seconds=terms.whole_lease_seconds, max_jobs=terms.max_jobs
    )
    if claim is None:
        return Outcome(kind="idle")
    on_claim()
    if claim.expired:
        JOBS.labels("failed").inc(claim.expired)
        log.warning("jobs_given_up", classification="lease_expired", jobs=claim.expired)
    if claim.lease is None:
        return Outcome(kind="failed", jobs=claim.expired)
    with JOBS_RUNNING.track_inprogress():
        try:
            return await _see_through(pool, generator, terms, claim, claim.lease)
        except asyncio.CancelledError:
            await _hand_back(pool, claim.lease, len(claim.jobs))
            raise


async def _see_through(pool: Pool, generator: Generator, terms: Terms, claim: Claim, lease: Lease) -> Outcome:
    work = [job for job in claim.jobs if job.event is not None]
    idle = [job for job in claim.jobs if job.event is None]
    events = [job.event for job in work if job.event is not None]
    work = work[: await asyncio.to_thread(generator.batch_size, events)] if events else []
    spent: list[Failure] = []
    while True:
        answer = await _call_under_lease(pool, generator, terms, claim.project_name, lease, work)
        if answer is None:
            JOBS.labels("lost").inc(len(work))
            log.warning("lease_lost", jobs=len(work))
            return Outcome(kind="lost", jobs=len(work))
        if isinstance(answer, Generated):
            written = await _write_results(pool, terms, lease, [*idle, *work], answer, spent)
            if isinstance(written, Outcome):
                return written
            answer = written
        spent.append(answer)
        blamed = work or idle
        oldest = blamed[0]
        decision = decide(
            answer, attempt=oldest.attempt, max_attempts=oldest.max_attempts, batch=len(work), jitter=terms.jitter()
        )
        if not isinstance(decision, Split):
            return await _write_failure(pool, terms, lease, blamed, decision, spent)
        log.info("batch_split", classification=answer.kind, jobs=len(work), keep=decision.keep)
        # Those left out stay leased and are handed back with the results: they are next in line.
        work = work[: decision.keep]


async def _call_under_lease(
    pool: Pool, generator: Generator, terms: Terms, project_name: str, lease: Lease, work: Sequence[ClaimedJob]
) -> Generated | Failure | None:
    """The generator's answer, or None when the lease was lost while it worked."""
    events = [job.event for job in work if job.event is not None]
    if not events:
        return Generated(observations=(), provider=generator.provider)
    answer: Generated | Failure | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            heartbeat = tasks.create_task(_keep_lease(pool, terms, lease))
            answer = await _call(generator, Batch(project_name=project_name, events=events))
            heartbeat.cancel()
    except* _LeaseLost:
        answer = None
    return answer


class _LeaseLost(Exception):
    """Somebody else may hold the session now."""


async def _keep_lease(pool: Pool, terms: Terms, lease: Lease) -> None:
    """Extend the lease at a third of its length for ever. Raises _LeaseLost."""
    while True:
        await asyncio.sleep(terms.lease_seconds / 3)
        try:
            if not await store.extend_lease(pool, lease, lease_seconds=terms.whole_lease_seconds):
                raise _LeaseLost
        except Unavailable as error:
            # The call goes on: if nobody claimed the session meanwhile, its results are still welcome.
            log.warning("heartbeat_failed", reason=error.message)


async def _call(generator: Generator, batch: Batch) -> Generated | Failure:
    started = monotonic()
    answer: Generated | Failure
    try:
        answer = await generator.generate(batch)
        outcome = "ok"
    except GenerationFailed as error:
        answer, outcome = error.failure, error.failure.kind
    except Exception as error:
        # One event that breaks a generator must not stop the worker.
        log.exception("generator_broke", provider=generator.provider)
        answer = Failure(
            kind="poison", reason=f"the generator broke: {type(error).__name__}", provider=generator.provider
        )
        outcome = "broken"
    MODEL_SECONDS.labels(generator.provider).observe(monotonic() - started)
    MODEL_CALLS.labels(generator.provider, outcome).inc()
    MODEL_TOKENS.labels(generator.provider, "input").inc(answer.input_tokens)
    MODEL_TOKENS.labels(generator.provider, "output").inc(answer.output_tokens)
    return answer


def _memory(
    observation: Observation, generated: Generated, index: int, cited: Sequence[ClaimedJob]
) -> dict[str, Any] | None:
    """One memory as it is written; None when nothing of it may be stored."""
    observation = bounded(observation)
    made = {
        "kind": observation.kind,
        "title": observation.title,
        "content": content_of(observation),
        "metadata": metadata_of(observation, generated),
        "keywords": list(observation.keywords),
    }
    # The events were cleaned, but a generator unpacks them further, and a model writes what it likes.
    clean = cast("dict[str, Any]", redact(cast("Json", made)).value)
    if not clean["content"].strip() or not clean["kind"]:
        return None
    return {
        **clean,
        "id": str(uuid7()),
        "index": index,
        "tags": [],
        "sources": [{"eventId": str(job.event_id), "jobId": str(job.id)} for job in cited],
    }


def _model_of(generated: Generated) -> str | None:
    return None if generated.model is None else cast("str", redact(generated.model).value)


def _results(work: Sequence[ClaimedJob], generated: Generated, spent: Sequence[Failure]) -> dict[str, Any]:
    """What `complete_jobs_v1` takes. A memory belongs to the job of the first event that it cites."""
    numbered = [job for job in work if job.event is not None]
    memories: dict[UUID, list[dict[str, Any]]] = {job.id: [] for job in work}
    for observation in generated.observations:
        # A generator cannot reach beyond its batch: other numbers are dropped, and so is what then cites nothing.
        cited = [numbered[number - 1] for number in observation.evidence if 1 <= number <= len(numbered)]
        if cited:
            mine = memories[cited[0].id]
            memory = _memory(observation, generated, len(mine), cited)
            mine += [memory] if memory is not None else []
    return {
        "provider": generated.provider,
        "model": _model_of(generated),
        "inputTokens": generated.input_tokens + sum(failure.input_tokens for failure in spent),
        "outputTokens": generated.output_tokens + sum(failure.output_tokens for failure in spent),
        "jobs": [{"id": str(job.id), "memories": memories[job.id]} for job in work],
    }


async def _write_results(
    pool: Pool,
    terms: Terms,
    lease: Lease,
    work: Sequence[ClaimedJob],
    generated: Generated,
    spent: Sequence[Failure],
) -> Outcome | Failure:
    """How the turn ended, or why the database will never take these results."""
    try:
        results = await asyncio.to_thread(_results, work, generated, spent)
        written = await _write_patiently(terms, lambda: store.complete(pool, lease, results))
    except Exception as error:  # noqa: BLE001 - the driver's errors are the store's, and each of them ends the same way
        # Without its text, which quotes the row.
        log.error("results_refused", error=type(error).__name__, jobs=len(work))  # noqa: TRY400
        return Failure(
            kind="poison",
            reason=f"the memories could not be stored: {type(error).__name__}",
            provider=generated.provider,
            model=_model_of(generated),
            input_tokens=generated.input_tokens,
            output_tokens=generated.output_tokens,
        )
    if written is None or written["outcome"] == "lease_lost":
        JOBS.labels("lost").inc(len(work))
        log.warning("results_dropped", jobs=len(work), stored=written is not None)
        return Outcome(kind="lost", jobs=len(work))
    JOBS.labels("completed").inc(written["jobs"])
    log.info("jobs_completed", jobs=written["jobs"], memories=written["memories"], provider=generated.provider)
    return Outcome(kind="completed", jobs=written["jobs"], memories=written["memories"])


async def _write_failure(
    pool: Pool,
    terms: Terms,
    lease: Lease,
    work: Sequence[ClaimedJob],
    decision: RetryAt | GiveUp,
    spent: Sequence[Failure],
) -> Outcome:
    last = spent[-1]
    verdict: dict[str, object] = {"retryAfterSeconds": None, "counted": True, "error": error_of(last)}
    if isinstance(decision, RetryAt):
        verdict |= {"retryAfterSeconds": decision.after_seconds, "counted": decision.counted}
    failures = {
        "provider": last.provider,
        "model": last.model,
        "inputTokens": sum(failure.input_tokens for failure in spent),
        "outputTokens": sum(failure.output_tokens for failure in spent),
        "jobs": [{"id": str(job.id), **verdict} for job in work],
    }
    written = await _write_patiently(terms, lambda: store.fail(pool, lease, failures))
    if written is None or written["outcome"] == "lease_lost":
        JOBS.labels("lost").inc(len(work))
        return Outcome(kind="lost", jobs=len(work), pause_seconds=pause_seconds(last))
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
    return Outcome(kind="failed", jobs=len(work), pause_seconds=pause_seconds(last))


async def _write_patiently(terms: Terms, write: Callable[[], Awaitable[Mapping[str, Any]]]) -> Mapping[str, Any] | None:
    """
    `write`, again and again while Postgres is away: a paid answer is worth waiting for.

    None after two leases: the jobs belong to somebody else by then.
    """
    deadline = monotonic() + 2 * terms.lease_seconds
    delay = _WRITE_RETRY_SECONDS
    while True:
        try:
            return await write()
        except Unavailable as error:
            if monotonic() + delay > deadline:
                return None
            log.warning("results_waiting", reason=error.message, retry_in_seconds=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 2.0)


async def _hand_back(pool: Pool, lease: Lease, count: int) -> None:
    """Best effort: where it fails the lease runs out by itself."""
    try:
        async with asyncio.timeout(_HAND_BACK_SECONDS):
            released = await store.release(pool, lease)
    except (Unavailable, TimeoutError) as error:
        log.warning("hand_back_failed", jobs=count, error=type(error).__name__)
    else:
        JOBS.labels("handed_back").inc(count)
        log.info("jobs_handed_back", jobs=count, held=released)
