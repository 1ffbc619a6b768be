"""
How many workers a queue needs now: the formula that the runtime exports and the operator acts on.

Depth alone has no unit; what counts is how long it would take. Steady arrivals and draining the backlog add up: a
plain maximum of the two provides too little. A session is worked on by one worker at a time, so slots beyond the
sessions that wait help nobody. Damping the answer, and acting on it, is the operator's `planning/scaling.py`.

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
_NOISE: Final = 1e-9


@dataclass(frozen=True, kw_only=True)
class QueueFigures:
    """
    The queue as it is, of one team or of all.

    backlog, sessions: jobs that wait and the sessions that they are spread over, None where nobody counted those.
    oldest_seconds: age of the oldest. in_flight: jobs being worked on, by so many workers (of one team: what it takes
    of them, in fractions of one). service_seconds: a worker's slot for one job, None while unknown. arrival_rate: jobs
    a second.
    """

    backlog: int
    oldest_seconds: float
    in_flight: int
    workers: float
    service_seconds: float | None
    arrival_rate: float
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
    Workers, in fractions of one, before any limit: for the flow of jobs, and for the age of the oldest, 0 where that
    is young enough.

    is_bound_by_sessions: the backlog has fewer sessions than the slots that would drain it in time.
    """

    flow: float
    age: float
    is_bound_by_sessions: bool = False

    @property
    def workers(self) -> float:
        """The greater of the two."""
        return max(self.flow, self.age)


def needed_workers(queue: QueueFigures, targets: ScalingTargets) -> Need:
    """The workers that keep up with what arrives, drain the backlog in time and keep the oldest job young enough."""
    flow, is_bound = _for_flow(queue, targets)
    return Need(flow=flow, age=_for_age(queue, targets), is_bound_by_sessions=is_bound)


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


def _for_flow(queue: QueueFigures, targets: ScalingTargets) -> tuple[float, bool]:
    """And whether fewer sessions wait than slots are asked for."""
    slots_per_worker = UTILISATION * targets.concurrency
    if queue.service_seconds is None:
        arriving, draining = 0.0, queue.backlog / BACKLOG_PER_WORKER * slots_per_worker
    else:
        service_seconds = max(queue.service_seconds, LEAST_SERVICE_SECONDS)
        arriving = service_seconds * queue.arrival_rate
        draining = service_seconds * queue.backlog / targets.drain_seconds
    is_bound = queue.sessions is not None and queue.sessions < draining
    if is_bound:
        draining = float(queue.sessions or 0)
    return (arriving + draining) / slots_per_worker, is_bound


def _for_age(queue: QueueFigures, targets: ScalingTargets) -> float:
    if queue.backlog == 0 or queue.oldest_seconds <= targets.age_seconds:
        return 0.0
    need = queue.workers * min(2.0, queue.oldest_seconds / targets.age_seconds)
    if queue.sessions is None:
        return need
    return min(need, queue.workers + queue.sessions / targets.concurrency)
