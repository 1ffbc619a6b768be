"""
How many workers a runtime shall have: the need of its teams, bounded, damped and explained.

Up at once and in steps, down slowly and never on what is not known. Times are seconds of a monotonic clock. What one
decision leaves to the next is a value that comes out and goes in, so the benchmark runs the function of the operator.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from commonplace_operator.planning.demand import Demand, Limit, WorkerTargets, demand_of
from commonplace_operator.planning.scaling_words import explain, explain_hold
from commonplace_operator.resources.rows import QueueByTeam

START_SECONDS: Final = 60.0
"""How long a pod may take to start before it counts as one that does not."""
STUCK_SECONDS: Final = 300.0
"""How long no further pods are asked for while those that were do not start; then one more step is tried."""
SHRINK_SECONDS: Final = 60.0
SHRINK_SHARE: Final = 0.25
"""At most this part of the workers goes in SHRINK_SECONDS, or one."""
GROWTH: Final = 2
GROWTH_AT_LEAST: Final = 4
"""One decision at most doubles the workers or adds four."""
LIMITING: Final = frozenset({Limit.MOST, Limit.QUOTA, Limit.NOT_READY})
"""Limits that keep workers from a queue that needs them."""


def shrink_seconds(stabilization_seconds: float) -> float:
    """Least time between two steps down: who looks back for less than a minute wants to be quick."""
    return min(SHRINK_SECONDS, stabilization_seconds)


@dataclass(frozen=True, kw_only=True)
class History:
    """
    What earlier decisions leave to the next.

    since: when the queue was first seen. needs: (when, whole workers needed), each less than the one before, none older
    than the stabilisation. idle_since: since when there is nothing to do. shrunk_at: when pods were last taken away.
    ready: pods ready at the last look. behind_since: since when fewer are ready than are wanted and none became so.
    """

    since: float
    needs: tuple[tuple[float, int], ...] = ()
    idle_since: float | None = None
    shrunk_at: float | None = None
    ready: int = 0
    behind_since: float | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """
    The number of replicas, and why.

    need: workers that the queue asks for before every bound, None where it is not known. explanation: one sentence for
    people. limits: what kept the number from the need. shares: what each listed team may count on, in workers.
    """

    replicas: int
    need: int | None
    explanation: str
    limits: frozenset[Limit]
    history: History
    shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_limited(self) -> bool:
        """Whether a queue that needs more workers is denied them."""
        return not self.limits.isdisjoint(LIMITING)


def decide(
    figures: QueueByTeam | None,
    targets: WorkerTargets,
    history: History | None,
    *,
    now: float,
    replicas: int,
    ready: int,
) -> Decision:
    """
    The number of workers from now on.

    figures: the queue, None where it could not be seen: then the number stays. history: None at the first decision.
    replicas, ready: pods wanted so far, and those of them that are ready. minReplicas and maxReplicas hold at once,
    whatever is known; 0 is given only where minReplicas is 0.
    """
    least, most = targets.scaling.least, targets.scaling.most
    known = _with_pods(history or History(since=now, ready=ready), now=now, replicas=replicas, ready=ready)
    if figures is None:
        number = min(max(replicas, least), most)
        return Decision(
            replicas=number,
            need=None,
            explanation=explain_hold(number),
            limits=frozenset({Limit.NO_FIGURES}),
            history=known,
        )
    demand = demand_of(figures, targets.scaling)
    known = _with_need(known, demand, targets, now)
    wanted, limits = _bounded(demand.whole, targets, known, now=now, replicas=replicas)
    if any(team.is_limited for team in demand.teams):
        limits |= {Limit.QUOTA}
    if wanted > replicas:
        number, damping = _grown(wanted, known, now=now, replicas=replicas, ready=ready)
    else:
        number, damping = _shrunk(wanted, targets, known, now=now, replicas=replicas)
    number = min(max(number, least), most)
    limits |= damping
    return Decision(
        replicas=number,
        need=demand.whole,
        explanation=explain(number, figures, demand, targets, limits=limits, idle_seconds=_idle_seconds(known, now)),
        limits=frozenset(limits),
        history=_with_change(known, now=now, change=number - replicas),
        shares={team.slug: share for team, share in zip(demand.teams, demand.shares, strict=True) if team.slug},
    )


def _with_pods(history: History, *, now: float, replicas: int, ready: int) -> History:
    if ready >= replicas:
        behind_since = None
    elif history.behind_since is None or ready > history.ready:
        behind_since = now
    else:
        behind_since = history.behind_since
    return replace(history, ready=ready, behind_since=behind_since)


def _with_need(history: History, demand: Demand, targets: WorkerTargets, now: float) -> History:
    # A need that is older than a greater one can never be the greatest any more, so the rest is short and falls.
    needs = [
        (at, need) for at, need in history.needs if now - at <= targets.stabilization_seconds and need > demand.whole
    ]
    nothing_to_do = not demand.is_busy and demand.whole == 0
    idle_since = (now if history.idle_since is None else history.idle_since) if nothing_to_do else None
    return replace(history, needs=(*needs, (now, demand.whole)), idle_since=idle_since)


def _with_change(history: History, *, now: float, change: int) -> History:
    if change < 0:
        return replace(history, shrunk_at=now)
    if change > 0 and _behind_seconds(history, now) >= START_SECONDS + STUCK_SECONDS:
        return replace(history, behind_since=now)
    return history


def _idle_seconds(history: History, now: float) -> float | None:
    return None if history.idle_since is None else now - history.idle_since


def _floor(targets: WorkerTargets, history: History, *, now: float, replicas: int) -> int:
    """The last worker stays until there was nothing to do for long enough; one that is not there is not made for it."""
    idle_seconds = _idle_seconds(history, now)
    has_cooled = idle_seconds is not None and idle_seconds >= targets.cooldown_seconds
    return 0 if has_cooled else min(1, replicas)


def _bounded(
    need: int, targets: WorkerTargets, history: History, *, now: float, replicas: int
) -> tuple[int, set[Limit]]:
    least, most = targets.scaling.least, targets.scaling.most
    floor = _floor(targets, history, now=now, replicas=replicas)
    limits = set()
    if need > most:
        limits.add(Limit.MOST)
    elif need < least:
        limits.add(Limit.LEAST)
    elif need < floor:
        limits.add(Limit.COOLDOWN)
    return min(max(need, floor, least), most), limits


def _behind_seconds(history: History, now: float) -> float:
    """For how long pods that were asked for do not start."""
    return 0.0 if history.behind_since is None else now - history.behind_since


def _grown(wanted: int, history: History, *, now: float, replicas: int, ready: int) -> tuple[int, set[Limit]]:
    # From none to one: a pod that wakes says how long its jobs take, and the next look is seconds away.
    step = max(GROWTH * replicas, replicas + GROWTH_AT_LEAST) if replicas > 0 else 1
    number, limits = min(wanted, step), {Limit.STEP} if wanted > step else set()
    bound = max(GROWTH * ready, 1, replicas)
    if number > bound and 0 <= _behind_seconds(history, now) - START_SECONDS < STUCK_SECONDS:
        return bound, {Limit.NOT_READY}
    return number, limits


def _shrunk(
    wanted: int, targets: WorkerTargets, history: History, *, now: float, replicas: int
) -> tuple[int, set[Limit]]:
    if wanted == replicas:
        return replicas, set()
    if now - history.since < targets.stabilization_seconds:
        return replicas, {Limit.WATCHING}
    lowest = min(replicas, max(wanted, history.needs[0][1]))
    if lowest == replicas:
        return replicas, {Limit.STABILIZATION}
    if history.shrunk_at is not None and now - history.shrunk_at < shrink_seconds(targets.stabilization_seconds):
        return replicas, {Limit.SHRINKING}
    number = max(lowest, replicas - max(1, int(replicas * SHRINK_SHARE)))
    return number, {Limit.SHRINKING} if number > lowest else {Limit.STABILIZATION} if lowest > wanted else set()
