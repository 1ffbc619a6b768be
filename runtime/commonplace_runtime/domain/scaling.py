"""
How many workers the queue needs now.

Depth alone has no unit; what counts is how long it would take. Steady arrivals and draining the backlog add up: a
plain maximum of the two provides too little. Damping the answer, and acting on it, is somebody else's.
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


@dataclass(frozen=True, kw_only=True)
class QueueFigures:
    """
    The queue as it is. Waiting jobs; age of the oldest, seconds; jobs being worked on, and by how many processes;
    seconds a job takes a worker, None while unknown; jobs a second that arrive.
    """

    backlog: int
    oldest_seconds: float
    in_flight: int
    workers: int
    service_seconds: float | None
    arrival_rate: float


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


def desired_workers(queue: QueueFigures, targets: ScalingTargets) -> int:
    """
    The workers that keep up with what arrives, drain the backlog in time and keep the oldest job young enough.

    At least one while anything waits or runs, whatever `least` says, and never more than `most`.
    """
    need = max(_for_flow(queue, targets), _for_age(queue, targets))
    if queue.backlog > 0 or queue.in_flight > 0:
        need = max(need, 1)
    return min(max(need, targets.least), targets.most)


def _for_flow(queue: QueueFigures, targets: ScalingTargets) -> int:
    if queue.service_seconds is None:
        return ceil(queue.backlog / BACKLOG_PER_WORKER)
    jobs_per_second = queue.arrival_rate + queue.backlog / targets.drain_seconds
    service_seconds = max(queue.service_seconds, LEAST_SERVICE_SECONDS)
    return ceil(service_seconds * jobs_per_second / (UTILISATION * targets.concurrency))


def _for_age(queue: QueueFigures, targets: ScalingTargets) -> int:
    if queue.backlog == 0 or queue.oldest_seconds <= targets.age_seconds:
        return 0
    return ceil(queue.workers * min(2.0, queue.oldest_seconds / targets.age_seconds))
