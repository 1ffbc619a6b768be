"""
How many workers a queue needs now: the formula that the runtime exports and the operator acts on.

Depth alone has no unit; what counts is how long it would take. Steady arrivals and draining the backlog add up: a
plain maximum of the two provides too little. A session is worked on by one worker at a time, so slots beyond the
sessions that wait help nobody. Damping the answer, and acting on it, is the operator's `planning/scaling.py`; what was
measured for it is in `docs/decisions/0041-operator-scaling.md`.

Pure, standard library only: besides `contract.py` this is all that the operator imports of the runtime.
"""

from dataclasses import dataclass
from math import ceil
from typing import Final

UTILISATION: Final = 0.85
"""How full a worker may be planned: the rest is for what nobody foresees."""
LEAST_SERVICE_SECONDS: Final = 0.05
"""Below this a job's time is mostly the queue's own."""
BACKLOG_PER_WORKER: Final = 100
"""Waiting jobs that one worker is given while nobody knows how long a job takes."""
MOST_HURRY: Final = 2.0
"""A backlog that got too old is drained so much faster at most."""
_NOISE: Final = 1e-9


@dataclass(frozen=True, kw_only=True)
class QueueFigures:
    """
    The queue as it is, of one team or of all.

    backlog, sessions: jobs that wait and the sessions that they are spread over, None where nobody counted those.
    oldest_seconds: age of the oldest. in_flight, busy_sessions: jobs being worked on, and their sessions, each of which
    has a slot. service_seconds: a slot's time for one job, None while unknown. arrival_rate: jobs a second;
    steady_rate: what of it goes on, without a burst that the backlog tells of already.
    """

    backlog: int
    oldest_seconds: float
    in_flight: int
    busy_sessions: int
    service_seconds: float | None
    arrival_rate: float
    steady_rate: float
    sessions: int | None = None


@dataclass(frozen=True, kw_only=True)
class ScalingTargets:
    """
    What is wanted: the backlog done in `drain_seconds`, no job older than `age_seconds`; between `least` and `most`
    workers, each of which works on `concurrency` sessions at once. Raises ValueError for targets that cannot be met.
    """

    drain_seconds: float
    age_seconds: float
    concurrency: int
    least: int
    most: int

    def __post_init__(self) -> None:
        if min(self.drain_seconds, self.age_seconds, self.concurrency) <= 0 or not 0 <= self.least <= self.most:
            raise ValueError("targets and concurrency are above 0, and least is between 0 and most")


@dataclass(frozen=True, kw_only=True)
class Need:
    """
    Workers, in fractions of one, before any limit, and what else than the plain formula made it so.

    is_hurried: the oldest is too old. is_bound_by_sessions: fewer sessions wait than slots would be used.
    is_held_by_busy: slots that sessions keep for long count for more than what arrives.
    """

    workers: float
    is_hurried: bool = False
    is_bound_by_sessions: bool = False
    is_held_by_busy: bool = False


def needed_workers(queue: QueueFigures, targets: ScalingTargets) -> Need:
    """
    The workers that keep up with what arrives and drain the backlog in time.

    slots = max(service * steady rate, busy sessions * min(1, service / drain))
          + min(service * backlog / drain * hurry, waiting sessions)
    workers = slots / (0.85 * concurrency), where hurry = oldest / age target, from 1 to 2.
    """
    slots_per_worker = UTILISATION * targets.concurrency
    hurry = min(max(queue.oldest_seconds / targets.age_seconds, 1.0), MOST_HURRY) if queue.backlog > 0 else 1.0
    if queue.service_seconds is None:
        arriving, held, draining = 0.0, 0.0, queue.backlog / BACKLOG_PER_WORKER * slots_per_worker
    else:
        service_seconds = max(queue.service_seconds, LEAST_SERVICE_SECONDS)
        arriving = service_seconds * queue.steady_rate
        held = queue.busy_sessions * min(1.0, service_seconds / targets.drain_seconds)
        draining = service_seconds * queue.backlog / targets.drain_seconds
    draining *= hurry
    is_bound = queue.sessions is not None and queue.sessions < draining
    if is_bound:
        draining = float(queue.sessions or 0)
    return Need(
        workers=(max(arriving, held) + draining) / slots_per_worker,
        is_hurried=hurry > 1.0 and not is_bound,
        is_bound_by_sessions=is_bound,
        is_held_by_busy=held > max(arriving, 1.0),
    )


def whole_workers(need: float) -> int:
    """Rounded up, but not for the noise of adding fractions."""
    return ceil(need - _NOISE)


def desired_workers(queue: QueueFigures, targets: ScalingTargets) -> int:
    """
    `needed_workers` within the limits, whole.

    At least one while anything waits or runs, whatever `least` says, and never more than `most`.
    """
    need = whole_workers(needed_workers(queue, targets).workers)
    if queue.backlog > 0 or queue.in_flight > 0:
        need = max(need, 1)
    return min(max(need, targets.least), targets.most)
