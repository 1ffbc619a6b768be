"""
Leader election: one of several processes leads, in a term; the others stand by.

`Elector` does it by a Lease, with the times of client-go's leaderelection. It lets go in two ways: released when the
work has stopped, or lost (`run` raises LeaseLost, and the process has to end). A database that says to know a newer
term makes it look at the Lease, which decides: databases belong to tenants. `Alone` is for a process without rivals.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import structlog

from commonplace_operator import errors
from commonplace_operator.engine import lease
from commonplace_operator.engine.lease import Body, Create, Record, Wait
from commonplace_operator.engine.metrics import Metrics

# A released Lease is found by a standby's next look: with what a leader's work may take to end, within 3 s. client-go
# looks once in 2 to 4 s; a look is one small read.
_LOOKS_PER_RETRY: Final = 4.0
_LOOK_JITTER: Final = 0.2
_FARTHEST_TERM: Final = 86_400
"""How many seconds ahead of now a term may be that a database tells of: by so much a clock may have been wrong."""
_REFUSED_HINT: Final = (
    "the Lease is ours, so work goes on elsewhere. If another operator with a Lease of its own writes there for this "
    "installation, give it a class of its own; if none does, restart this one: the next leader's term is greater"
)


class Leases(Protocol):
    """The one Lease, as the API server keeps it. Every call may raise ClusterUnavailable or Forbidden."""

    async def get(self) -> Body | None:
        """The Lease; None where there is none."""
        ...

    async def create(self, body: Body) -> Body:
        """Raises Conflict when there is one already."""
        ...

    async def update(self, body: Body) -> Body:
        """Replace it. Raises Conflict when its resourceVersion or uid is another by now, NotFound."""
        ...


@dataclass(frozen=True, kw_only=True)
class LeaseTimings:
    """
    Seconds, as client-go names them: retry < renew_deadline < duration.

    duration: how long a silent leader is waited for. renew_deadline: how long a leader works on without having renewed.
    """

    duration: int
    renew_deadline: float
    retry: float

    @property
    def call(self) -> float:
        """Longest call, so that two fit into the deadline."""
        return self.renew_deadline / 2


class Election(Protocol):
    """Who leads, as the operator sees it."""

    leading: asyncio.Event

    async def run(self) -> None:
        """Take part. Raises LeaseLost once leading is over; the process may not write any more then, and ends."""
        ...

    def term(self) -> int:
        """The term in which we lead. Raises Superseded when we do not, or cannot be sure to."""
        ...

    def depose(self, error: errors.Deposed) -> None:
        """A database has refused our term: find out who leads."""
        ...

    async def release(self) -> None:
        """Let the next one lead. To be called when all work has stopped; never raises, takes one call at most."""
        ...

    def is_alive(self) -> bool:
        """False when taking part has got stuck."""
        ...


class Alone:
    """No election: this process leads from the start, in term 0. hint: what to do where a database knows a leader."""

    def __init__(self, *, hint: str) -> None:
        self.leading = asyncio.Event()
        self.leading.set()
        self._hint = hint
        self._log = structlog.get_logger("commonplace_operator.election")

    async def run(self) -> None:
        """See `Election`."""
        await asyncio.Event().wait()

    def term(self) -> int:
        """See `Election`."""
        return 0

    def depose(self, error: errors.Deposed) -> None:
        """See `Election`."""
        self._log.error("term_refused", detail=f"{error}: {self._hint}")

    async def release(self) -> None:
        """See `Election`."""

    def is_alive(self) -> bool:
        """See `Election`."""
        return True


@dataclass(frozen=True, kw_only=True)
class _Held:
    record: Record
    body: Body


class Elector:
    """
    Takes part in the election by the Lease `namespace`/`name` under the name `identity`, unique to this process.

    clock: for the times people read and the first term. monotonic: decides.
    """

    def __init__(
        self,
        leases: Leases,
        *,
        namespace: str,
        name: str,
        identity: str,
        timings: LeaseTimings,
        term_annotation: str,
        metrics: Metrics,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.leading = asyncio.Event()
        self._leases = leases
        self._skeleton: Body = {"metadata": {"namespace": namespace, "name": name}}
        self._identity = identity
        self._timings = timings
        self._term_annotation = term_annotation
        self._clock = clock
        self._monotonic = monotonic
        self._chance = chance
        self._metrics = metrics.of_lease(name)
        self._metrics.leads.set(0)
        self._observed: Record | None = None
        self._observed_at = monotonic()
        self._newest_term = 0
        self._held: _Held | None = None
        self._renewed_at = 0.0
        self._deposed: errors.Deposed | None = None
        self._heard_term = 0
        self._has_news = asyncio.Event()
        self._turned_at: float | None = None
        self._fault = ""
        self._log = structlog.get_logger("commonplace_operator.election").bind(lease=f"{namespace}/{name}")

    def term(self) -> int:
        """See `Election`."""
        if self._held is None or self._deposed or self._left() <= 0:
            raise errors.Superseded("this process does not lead any more")
        return self._held.record.term

    def _left(self) -> float:
        """Seconds until this leader may not be sure of the Lease any more."""
        return self._renewed_at + self._timings.renew_deadline - self._monotonic()

    def is_alive(self) -> bool:
        """See `Election`."""
        # A turn is a call and a pause; both are bounded by the deadline, which is less than the duration.
        return self._turned_at is None or self._monotonic() - self._turned_at < 2 * self._timings.duration

    def depose(self, error: errors.Deposed) -> None:
        """See `Election`."""
        self._deposed = error
        self._has_news.set()

    async def run(self) -> None:
        """See `Election`."""
        try:
            await self._acquire()
            self.leading.set()
            await self._keep()
        finally:
            self._metrics.leads.set(0)

    async def _acquire(self) -> None:
        timings = self._timings
        while True:
            self._turned_at = self._monotonic()
            try:
                async with asyncio.timeout(timings.call):
                    left = await self._try()
                self._fault = ""
                if left is None:
                    return
            except errors.Conflict:
                left = 0.0  # Another one was faster, or the record was renewed meanwhile.
            except (TimeoutError, errors.OperatorError) as error:
                left = timings.retry
                self._complain("lease_not_read", str(error) or "no answer in time")
            look = timings.retry / _LOOKS_PER_RETRY * (1 + _LOOK_JITTER * (2 * self._chance() - 1))
            await asyncio.sleep(min(look, left) if left > 0 else look)

    async def _try(self) -> float | None:
        """Look at the Lease and take it if that is allowed; else the seconds for which it is another's."""
        body = await self._leases.get()
        record = self._parse(body) if body else None
        now = self._monotonic()
        if record != self._observed:
            if record and record.holder and record.holder != (self._observed.holder if self._observed else ""):
                self._log.info("standing_by", leader=record.holder, term=record.term)
            self._observed, self._observed_at = record, now
        decision = lease.decide(record, self._observed_at, now, self._identity)
        if isinstance(decision, Wait):
            return decision.seconds
        if body is None or record is None or isinstance(decision, Create):
            await self._leases.create(self._render(lease.vacant(self._newest_term), self._skeleton))
            return await self._try()
        wanted = lease.taken(
            record,
            newest_term=self._newest_term,
            identity=self._identity,
            now=self._clock(),
            duration_seconds=self._timings.duration,
        )
        # The answer may be late: what is ours is ours from the moment of asking, not of hearing.
        asked_at = self._monotonic()
        answer = await self._leases.update(self._render(wanted, body))
        self._hold(wanted, answer, asked_at)
        self._metrics.leads.set(1)
        self._log.info("leading", term=wanted.term, because=decision.why, transitions=wanted.transitions)
        return None

    async def _keep(self) -> None:
        """Renew until that fails. Raises LeaseLost."""
        timings = self._timings
        fault = "no answer in time"
        while True:
            await self._pause(min(timings.retry, self._left()))
            self._turned_at, claim = self._monotonic(), self._deposed
            if self._left() <= 0:
                self._held = None
                raise errors.LeaseLost(f"not renewed for {timings.renew_deadline:g} s: {fault}")
            try:
                async with asyncio.timeout(min(timings.call, self._left())):
                    await self._write(lambda record: lease.renewed(record, now=self._clock()))
                self._fault = ""
            except errors.LeaseLost as error:
                self._held = None
                if claim is None:
                    raise
                raise errors.LeaseLost(f"a database refuses our term: {claim}; and {error}") from claim
            except (TimeoutError, errors.OperatorError) as error:
                fault = str(error) or "no answer in time"
                self._complain("lease_not_renewed", fault)
            else:
                if claim is not None:
                    self._outlive(claim)

    async def _pause(self, seconds: float) -> None:
        """Until the next renewal is due, or a database's word has to be held against the Lease."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._has_news.wait()
        except TimeoutError:
            return
        self._has_news.clear()

    def _outlive(self, claim: errors.Deposed) -> None:
        """The Lease was still ours after that database had spoken, so nobody of this election leads in a newer term."""
        if self._deposed is claim:
            self._deposed = None
        # A believable one is for the next leader to exceed. Any other would run away with the terms of all databases.
        if claim.leader_term <= self._clock().timestamp() + _FARTHEST_TERM:
            self._heard_term = max(self._heard_term, claim.leader_term)
        self._log.error("term_refused", detail=f"{claim}: {_REFUSED_HINT}")

    async def _write(self, change: Callable[[Record], Record]) -> None:
        """Write over exactly what we hold. Raises LeaseLost when it is not ours any more."""
        for _ in range(2):
            assert self._held is not None  # noqa: S101 - called while it is held only
            held, asked_at = self._held, self._monotonic()
            wanted = change(held.record)
            try:
                answer = await self._leases.update(self._render(wanted, held.body))
            except (errors.Conflict, errors.NotFound):
                self._metrics.conflicts.inc()
            else:
                self._hold(wanted, answer, asked_at)
                return
            body = await self._leases.get()
            record = self._parse(body) if body else None
            if body is None or record is None:
                raise errors.LeaseLost("the Lease was deleted")
            if not lease.is_still_held(record, held.record):
                raise errors.LeaseLost(f"the Lease says that {record.holder or 'nobody'} leads in term {record.term}")
            # A write of ours whose answer was lost, or somebody labelled it.
            self._held = _Held(record=record, body=body)
        raise errors.Conflict("the Lease changes too fast")

    def _hold(self, record: Record, body: Body, since: float) -> None:
        self._held = _Held(record=record, body=body)
        self._renewed_at = since
        self._newest_term = max(self._newest_term, record.term)
        self._metrics.writes.inc()
        self._metrics.transitions.set(record.transitions)

    async def release(self) -> None:
        """See `Election`."""
        if self._held is None:
            return
        # What a database knows goes into the Lease: the next leader's term has to be greater than that.
        known = self._heard_term
        try:
            async with asyncio.timeout(self._timings.call):
                await self._write(lambda record: lease.released(record, now=self._clock(), term=known))
            self._log.info("lease_released")
        except (TimeoutError, errors.OperatorError) as error:
            self._log.warning("lease_not_released", detail=str(error) or "no answer in time")
        self._held = None

    def _render(self, record: Record, body: Body) -> Body:
        return lease.render(record, body, term_annotation=self._term_annotation)

    def _parse(self, body: Body) -> Record:
        record = lease.parse(body, term_annotation=self._term_annotation)
        self._newest_term = max(self._newest_term, record.term)
        self._metrics.transitions.set(record.transitions)
        return record

    def _complain(self, event: str, detail: str) -> None:
        """Once for each fault: a standby looks every second."""
        if detail != self._fault:
            self._log.warning(event, detail=detail)
        self._fault = detail
