"""
Three candidates, one Lease, and everything that goes wrong between them, at random.

Writes are delayed, lost, or done with the answer lost; wall clocks differ and jump; processes stand still and start
anew; people label, steal, empty and delete the Lease. What must always hold:
L1 every taking has a greater term than all before; L2 no term is led by two; L3 unless people meddle, no two lead at
once.

The model's Lease accepts a write that names its present version, as the API server does. What it promises for a deleted
Lease is promised to those who had seen it: nothing is left of it for others, and the database's fence is their safety.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from commonplace_operator.engine.lease import (
    Create,
    Record,
    Take,
    Wait,
    decide,
    is_still_held,
    released,
    renewed,
    taken,
    vacant,
)

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
DURATION, DEADLINE = 15, 10
CANDIDATES = st.integers(0, 2)


@dataclass
class Candidate:
    identity: str
    clock_offset: float
    wall_skew: float
    observed: Record | None = None
    observed_at: float = -1000.0
    newest_term: int = 0
    held: Record | None = None
    held_version: int = 0
    renewed_at: float = -1000.0
    is_leaving: bool = False


@dataclass(eq=False)
class Write:
    """On its way to the API server. is_awaited: whether who sent it still listens."""

    sender: Candidate
    record: Record
    based_on: int | None
    asked_at: float
    is_taking: bool
    is_awaited: bool = True


@dataclass
class Server:
    record: Record | None = None
    version: int = 0
    versions: "count[int]" = field(default_factory=lambda: count(1))

    def put(self, record: Record | None) -> None:
        self.record, self.version = record, next(self.versions)


class Election(RuleBasedStateMachine):
    """Nobody meddles."""

    may_be_meddled_with = False

    def __init__(self) -> None:
        super().__init__()
        self.names = count(1)
        self.now = 0.0
        self.server = Server()
        self.writes: list[Write] = []
        self.candidates = [self.started(offset * 1000.0, 0.0) for offset in range(3)]
        self.newest_taken = 0
        self.leader_of: dict[int, str] = {}

    def started(self, clock_offset: float, wall_skew: float) -> Candidate:
        return Candidate(identity=f"c{next(self.names)}", clock_offset=clock_offset, wall_skew=wall_skew)

    def monotonic(self, candidate: Candidate) -> float:
        return self.now + candidate.clock_offset

    def wall(self, candidate: Candidate) -> datetime:
        return START + timedelta(seconds=self.now + candidate.wall_skew)

    def leads(self, candidate: Candidate) -> bool:
        is_sure = self.monotonic(candidate) < candidate.renewed_at + DEADLINE
        return candidate.held is not None and not candidate.is_leaving and is_sure

    def awaits(self, candidate: Candidate) -> bool:
        return any(write.sender is candidate and write.is_awaited for write in self.writes)

    def send(self, candidate: Candidate, record: Record, based_on: int | None, *, is_taking: bool = False) -> None:
        at = self.monotonic(candidate)
        self.writes.append(Write(sender=candidate, record=record, based_on=based_on, asked_at=at, is_taking=is_taking))

    @initialize(is_led=st.booleans())
    def begin(self, is_led: bool) -> None:
        if is_led:
            for number in (0, 0, 1, 2):
                self.look(number, is_quick=True)
            assert self.leads(self.candidates[0])

    # What the candidates do

    @rule(number=CANDIDATES, is_quick=st.booleans())
    def look(self, number: int, is_quick: bool) -> None:
        """And take the Lease where that is allowed. is_quick: the write is done and answered at once."""
        self.look_once(number)
        if is_quick and self.writes and self.writes[-1].sender is self.candidates[number]:
            self.arrive(self.writes.pop(), is_answered=True)

    def look_once(self, number: int) -> None:
        me = self.candidates[number]
        if me.held is not None or self.awaits(me):
            return
        found, now = self.server.record, self.monotonic(me)
        if found != me.observed:
            me.observed, me.observed_at = found, now
        me.newest_term = max(me.newest_term, found.term if found else 0)
        match decide(found, me.observed_at, now, me.identity):
            case Create():
                self.send(me, vacant(me.newest_term), None)
            case Take():
                assert found is not None
                wanted = taken(
                    found,
                    newest_term=me.newest_term,
                    identity=me.identity,
                    now=self.wall(me),
                    duration_seconds=DURATION,
                )
                self.send(me, wanted, self.server.version, is_taking=True)
            case Wait(seconds=seconds):
                assert 0 < seconds <= DURATION

    @rule(number=CANDIDATES, is_quick=st.booleans())
    def renew(self, number: int, is_quick: bool) -> None:
        me = self.candidates[number]
        if me.held is not None and self.leads(me) and not self.awaits(me):
            self.send(me, renewed(me.held, now=self.wall(me)), me.held_version)
            if is_quick:
                self.arrive(self.writes.pop(), is_answered=True)

    @rule(number=CANDIDATES, known=st.integers(0, 3))
    def leave(self, number: int, known: int) -> None:
        """Release; a database may have told of a greater term."""
        me = self.candidates[number]
        if me.held is not None and not self.awaits(me):
            me.is_leaving = True
            left = released(me.held, now=self.wall(me), term=me.held.term + known)
            self.send(me, left, me.held_version)

    @rule(number=CANDIDATES)
    def give_up_waiting(self, number: int) -> None:
        for write in self.writes:
            if write.sender is self.candidates[number]:
                write.is_awaited = False

    @rule(number=CANDIDATES)
    def start_anew(self, number: int) -> None:
        """After a kill, or after leadership was lost. What it had seen is forgotten."""
        before = self.candidates[number]
        after = self.started(before.clock_offset, before.wall_skew)
        if self.server.record is None or self.server.record.term < self.newest_taken:
            after.newest_term = self.newest_taken
        self.candidates[number] = after

    # What becomes of a write

    @precondition(lambda self: bool(self.writes))
    @rule(data=st.data(), is_answered=st.booleans())
    def deliver(self, data: st.DataObject, is_answered: bool) -> None:
        self.arrive(self.writes.pop(data.draw(st.integers(0, len(self.writes) - 1))), is_answered)

    def arrive(self, write: Write, is_answered: bool) -> None:
        present = self.server.version if self.server.record else None
        is_accepted = write.based_on == present
        if is_accepted:
            self.server.put(write.record)
            if write.is_taking:
                assert write.record.term > self.newest_taken, "L1"
            self.newest_taken = max(self.newest_taken, write.record.term)
        if is_answered and write.is_awaited:
            self.hear(write, is_accepted)

    def hear(self, write: Write, is_accepted: bool) -> None:
        me = write.sender
        if write.based_on is None:
            return
        if is_accepted:
            if write.is_taking:
                assert self.leader_of.setdefault(write.record.term, me.identity) == me.identity, "L2"
            me.held, me.held_version, me.renewed_at = write.record, self.server.version, write.asked_at
        elif me.held is not None:
            if is_still_held(self.server.record, me.held):
                me.held, me.held_version = self.server.record, self.server.version
            else:
                me.held = None

    @precondition(lambda self: bool(self.writes))
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.writes.pop(data.draw(st.integers(0, len(self.writes) - 1)))

    # The world

    @rule(seconds=st.sampled_from([0.5, 2, 4, 6, 9, 15, 60]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(number=CANDIDATES, seconds=st.integers(-600, 600))
    def jump_clock(self, number: int, seconds: int) -> None:
        self.candidates[number].wall_skew += seconds

    @precondition(lambda self: self.server.record is not None)
    @rule()
    def label(self) -> None:
        self.server.put(self.server.record)

    @precondition(lambda self: self.may_be_meddled_with and self.server.record is not None)
    @rule(holder=st.sampled_from(["thief", ""]))
    def steal(self, holder: str) -> None:
        assert self.server.record is not None
        self.server.put(replace(self.server.record, holder=holder))

    @precondition(lambda self: self.may_be_meddled_with and self.server.record is not None)
    @rule()
    def delete(self) -> None:
        assert self.server.record is not None
        for candidate in self.candidates:
            candidate.newest_term = max(candidate.newest_term, self.server.record.term)
        self.server.put(None)

    @invariant()
    def nobody_leads_beside_another(self) -> None:
        leaders = [candidate for candidate in self.candidates if self.leads(candidate)]
        terms = [candidate.held.term for candidate in leaders if candidate.held]
        assert len(set(terms)) == len(terms), "L2"
        assert self.may_be_meddled_with or len(leaders) <= 1, "L3"


class MeddledElection(Election):
    """People steal, empty and delete the Lease."""

    may_be_meddled_with = True


TestElection = Election.TestCase
TestMeddledElection = MeddledElection.TestCase
TestElection.settings = TestMeddledElection.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
