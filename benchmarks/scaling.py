"""
How many pods does a queue cost, how long do its jobs wait, and how often does the number change?

`python -m benchmarks.scaling` plays loads through a simulated runtime four times: scaled by the operator's own
`decide`, by the plain `ceil(backlog / 20)`, by a HorizontalPodAutoscaler on 20 waiting jobs a pod, and by one on
`commonplace_queue_desired_workers`. Pods, jobs and clocks are simulated; what decides is the product's code, and for
the HPA its documented algorithm with its default behaviour. Reproducible by seed; writes docs/scaling.svg.
"""

import argparse
import heapq
import json
import random
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from math import ceil, pi, sin
from pathlib import Path
from statistics import median
from typing import Final, Protocol

from benchmarks.scaling_plot import Panel, plot
from commonplace_operator.planning.demand import WorkerTargets
from commonplace_operator.planning.scaling import History, decide
from commonplace_operator.resources.rows import QueueByTeam, TeamQueue
from commonplace_runtime.scaling import QueueFigures, ScalingTargets, desired_workers

ROOT: Final = Path(__file__).resolve().parent.parent
RECORDED: Final = ROOT / "docs" / "samples" / "agent-session.ndjson"
PICTURE: Final = ROOT / "docs" / "scaling.svg"
CONCURRENCY: Final = 8
POD_START: Final = 20.0
RATE_PARTS: Final = 6
"""Of the last minute; their median is the rate, as in queue_stats_v1."""
MEASURED_JOBS: Final = 200
EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Load:
    """Jobs as (time of arrival in seconds, session), sorted; the seconds that a job takes on average."""

    name: str
    seconds: float
    jobs: Sequence[tuple[float, int]]
    service: float
    least: int = 1
    most: int = 20


@dataclass(frozen=True, kw_only=True)
class Look:
    """What an autoscaler sees at a moment: the queue, and the pods that are wanted and ready."""

    now: float
    queue: QueueFigures
    wanted: int
    ready: int


class Scaler(Protocol):
    """Gives the number of pods at each look, `period` seconds apart."""

    period: float

    def __call__(self, look: Look) -> int: ...


class Operator:
    """The operator's own loop."""

    period = 5.0

    def __init__(self, load: Load) -> None:
        self._targets = WorkerTargets(scaling=targets_of(load), stabilization_seconds=300, cooldown_seconds=300)
        # An operator that has watched for long.
        self._history: History | None = History(since=-1e6)

    def __call__(self, look: Look) -> int:
        queue = look.queue
        team = TeamQueue(
            team_id="t",
            slug="t",
            owner_uid=None,
            backlog=queue.backlog,
            sessions=queue.sessions or 0,
            oldest_seconds=queue.oldest_seconds,
            busy_sessions=queue.busy_sessions,
            in_flight=queue.in_flight,
            arrival_rate=queue.arrival_rate,
            steady_rate=queue.steady_rate,
            workers=None,
        )
        figures = QueueByTeam(now=EPOCH, service_seconds=queue.service_seconds, jobs_of={}, teams=(team,))
        told = decide(figures, self._targets, self._history, now=look.now, replicas=look.wanted, ready=look.ready)
        self._history = told.history
        return told.replicas


class Plain:
    """`ceil(backlog / 20)` every 5 s, as many a script has it."""

    period = 5.0
    backlog_per_pod: Final = 20

    def __init__(self, load: Load) -> None:
        self._load = load

    def __call__(self, look: Look) -> int:
        return min(max(ceil(look.queue.backlog / self.backlog_per_pod), self._load.least), self._load.most)


class Hpa:
    """
    A HorizontalPodAutoscaler on an external metric with an AverageValue.

    Source: Kubernetes, replica_calculator.go (GetExternalPerPodMetricReplicas) and horizontal.go (behavior): sync 15 s,
    tolerance 10 %, the newest metric LAG old (scrape and adapter). Without minReplicas 0: its least is one.
    """

    period = 15.0
    LAG: Final = 30.0
    TOLERANCE: Final = 0.1

    def __init__(
        self, load: Load, metric: Callable[[Look], float], *, target: float, down_percent: int, down_period: float
    ) -> None:
        self._load = load
        self._metric = metric
        self._target = target
        self._down = down_percent, down_period
        self._seen: deque[tuple[float, float]] = deque()
        self._advice: deque[tuple[float, int]] = deque()
        self._numbers: deque[tuple[float, int]] = deque()

    def __call__(self, look: Look) -> int:
        self._seen.append((look.now, self._metric(look)))
        while len(self._seen) > 1 and self._seen[1][0] <= look.now - self.LAG:
            self._seen.popleft()
        value = self._seen[0][1]
        ratio = value / (self._target * look.wanted)
        wanted = look.wanted if abs(1 - ratio) <= self.TOLERANCE else ceil(value / self._target)
        wanted = min(max(wanted, 1, self._load.least), self._load.most)
        self._advice.append((look.now, wanted))
        while self._advice[0][0] < look.now - 300:
            self._advice.popleft()
        # Down: the greatest advice of the window, and at most so much within the period.
        damped = max(wanted, min(look.wanted, max(advice for _, advice in self._advice)))
        if damped > look.wanted:
            before = self._number(look.now - 15, look.wanted)
            damped = min(damped, max(2 * before, before + 4))
        elif damped < look.wanted:
            percent, period = self._down
            before = self._number(look.now - period, look.wanted)
            damped = max(damped, min(ceil(before * (1 - percent / 100)), before - 1 if percent < 100 else before))
        self._numbers.append((look.now, damped))
        return damped

    def _number(self, at: float, otherwise: int) -> int:
        """The number of pods then."""
        while len(self._numbers) > 1 and self._numbers[1][0] <= at:
            self._numbers.popleft()
        return self._numbers[0][1] if self._numbers else otherwise


def targets_of(load: Load) -> ScalingTargets:
    """The defaults of `spec.workers.autoscaling`, within the load's limits."""
    return ScalingTargets(drain_seconds=60, age_seconds=30, concurrency=CONCURRENCY, least=load.least, most=load.most)


def hpa_on_backlog(load: Load) -> Hpa:
    """20 waiting jobs a pod, default behaviour: down by any amount once the window is over."""
    return Hpa(load, lambda look: float(look.queue.backlog), target=20, down_percent=100, down_period=15)


def hpa_on_ours(load: Load) -> Hpa:
    """Mode HPA: our metric, our behaviour."""
    targets = targets_of(load)
    return Hpa(
        load, lambda look: float(desired_workers(look.queue, targets)), target=1, down_percent=25, down_period=60
    )


SCALERS: Final[dict[str, Callable[[Load], Scaler]]] = {
    "operator": Operator,
    "backlog / 20": Plain,
    "HPA on backlog": hpa_on_backlog,
    "HPA on ours": hpa_on_ours,
}


# The runtime


@dataclass(kw_only=True, eq=False)
class Pod:
    """A pod from its creation to its end; it takes new sessions while it is ready and not draining."""

    born: float
    is_ready: bool = False
    is_draining: bool = False
    busy: int = 0


@dataclass(kw_only=True)
class Outcome:
    """What one run came to. replicas: (time, number wanted) at each change."""

    pod_minutes: float = 0.0
    waits: list[float] = field(default_factory=list)
    replicas: list[tuple[float, int]] = field(default_factory=list)

    def wait(self, share: float) -> float:
        """The wait that this share of the jobs does not exceed, seconds."""
        return sorted(self.waits)[min(len(self.waits) - 1, int(share * len(self.waits)))]

    @property
    def changes(self) -> int:
        """How often the number was changed."""
        return len(self.replicas) - 1

    @property
    def most(self) -> int:
        """The greatest number."""
        return max(number for _, number in self.replicas)


class Runtime:
    """Jobs wait by session; a session is worked on by one slot at a time, the one that waits longest first."""

    def __init__(self, load: Load, scaler: Scaler, seed: int) -> None:
        self._load = load
        self._scaler = scaler
        self._chance = random.Random(seed)
        self._pods: list[Pod] = [Pod(born=0.0, is_ready=True) for _ in range(max(1, load.least))]
        self._wanted = len(self._pods)
        self._sessions: dict[int, deque[float]] = {}
        self._due: deque[tuple[float, int]] = deque()
        self._busy: set[int] = set()
        self._arrivals: deque[float] = deque()
        self._took: deque[float] = deque(maxlen=MEASURED_JOBS)
        self._backlog = 0
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = count()
        self._end = load.seconds
        self.outcome = Outcome(replicas=[(0.0, self._wanted)])

    def run(self) -> Outcome:
        """Play the load, and on until every job is done."""
        for at, session in self._load.jobs:
            self._at(at, lambda now, session=session: self._arrive(now, session))
        self._at(0.0, self._tick)
        now = 0.0
        while self._events:
            now, _, happen = heapq.heappop(self._events)
            happen(now)
        for pod in self._pods:
            self.outcome.pod_minutes += (max(self._end, now) - pod.born) / 60
        return self.outcome

    def _at(self, at: float, happen: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), happen))

    def _arrive(self, now: float, session: int) -> None:
        waiting = self._sessions.setdefault(session, deque())
        waiting.append(now)
        self._arrivals.append(now)
        self._backlog += session not in self._busy
        if session not in self._busy and len(waiting) == 1:
            self._due.append((now, session))
        self._claim(now)

    def _claim(self, now: float) -> None:
        while self._due:
            free = [pod for pod in self._pods if pod.is_ready and not pod.is_draining and pod.busy < CONCURRENCY]
            if not free:
                return
            # Workers poll for themselves: who is free takes it, wherever that is.
            pod = self._chance.choice(free)
            _, session = self._due.popleft()
            waiting = self._sessions[session]
            self._backlog -= len(waiting)  # what is left waits behind a lease, and is not due
            self.outcome.waits.append(now - waiting.popleft())
            self._busy.add(session)
            pod.busy += 1
            seconds = self._chance.gammavariate(4, self._load.service / 4)
            self._at(now + seconds, lambda at, p=pod, s=session, took=seconds: self._finish(at, p, s, took))

    def _finish(self, now: float, pod: Pod, session: int, took: float) -> None:
        self._took.append(took)
        pod.busy -= 1
        self._busy.discard(session)
        waiting = self._sessions[session]
        if waiting:
            self._backlog += len(waiting)
            self._due.append((now, session))
        else:
            del self._sessions[session]
        if pod.is_draining and pod.busy == 0:
            self._remove(pod, now)
        self._claim(now)

    def _remove(self, pod: Pod, now: float) -> None:
        self._pods.remove(pod)
        self.outcome.pod_minutes += (now - pod.born) / 60

    def _tick(self, now: float) -> None:
        number = self._scaler(self._look(now))
        if number != self._wanted:
            self.outcome.replicas.append((now, number))
            self._wanted = number
            self._resize(number, now)
        if now < self._end or self._sessions:
            self._at(now + self._scaler.period, self._tick)

    def _resize(self, number: int, now: float) -> None:
        staying = [pod for pod in self._pods if not pod.is_draining]
        for _ in range(number - len(staying)):
            pod = Pod(born=now)
            self._pods.append(pod)
            self._at(now + POD_START, lambda at, p=pod: self._start(at, p))
        # As the ReplicaSet does: those not ready first, then the idle ones.
        for pod in sorted(staying, key=lambda pod: (pod.is_ready, pod.busy))[: max(0, len(staying) - number)]:
            pod.is_draining = True
            if pod.busy == 0:
                self._remove(pod, now)

    def _start(self, now: float, pod: Pod) -> None:
        pod.is_ready = not pod.is_draining
        self._claim(now)

    def _look(self, now: float) -> Look:
        while self._arrivals and self._arrivals[0] < now - 60:
            self._arrivals.popleft()
        ready = [pod for pod in self._pods if pod.is_ready and not pod.is_draining]
        queue = QueueFigures(
            backlog=self._backlog,
            sessions=len(self._due),
            oldest_seconds=now - self._due[0][0] if self._due else 0.0,
            in_flight=len(self._busy),
            busy_sessions=len(self._busy),
            service_seconds=sum(self._took) / len(self._took) if self._took else None,
            arrival_rate=len(self._arrivals) / 60,
            steady_rate=self._steady_rate(now),
        )
        return Look(now=now, queue=queue, wanted=self._wanted, ready=len(ready))

    def _steady_rate(self, now: float) -> float:
        counts = [0] * RATE_PARTS
        for at in self._arrivals:
            counts[min(int((now - at) / 60 * RATE_PARTS), RATE_PARTS - 1)] += 1
        return median(counts) * RATE_PARTS / 60


# The loads


def poisson(rate: Callable[[float], float], seconds: float, most: float, chance: random.Random) -> Iterator[float]:
    """Moments of arrival at a rate that changes, at most `most` a second (thinning)."""
    now = 0.0
    while (now := now + chance.expovariate(most)) < seconds:
        if chance.random() < rate(now) / most:
            yield now


def one_session_each(moments: Iterator[float]) -> list[tuple[float, int]]:
    """A session for each job."""
    return [(at, number) for number, at in enumerate(moments)]


def recorded_offsets() -> list[float]:
    """Seconds from a recorded session's first event to each of its events."""
    moments = [json.loads(line)["occurredAtEpoch"] / 1000 for line in RECORDED.read_text().splitlines()]
    return [at - moments[0] for at in moments]


def working_day(hour: float) -> float:
    """How busy a team is at that hour, 0 to 1: two humps around lunch, a little at night."""
    morning, afternoon = (max(0.0, 1 - abs(hour - peak) / 3.2) for peak in (10.5, 15.0))
    return max(morning, 0.9 * afternoon, 0.02)


def make_loads(seed: int) -> list[Load]:
    """Six loads, the same for the same seed."""
    chance = random.Random(seed)
    minute, hour = 60.0, 3600.0
    sessions = sorted(poisson(lambda at: 0.15 * working_day(at / hour), 24 * hour, 0.15, chance))
    day = sorted((start + offset, number) for number, start in enumerate(sessions) for offset in recorded_offsets())
    return [
        Load(
            name="steady, 20 jobs a second",
            seconds=30 * minute,
            jobs=one_session_each(poisson(lambda _: 20.0, 30 * minute, 20.0, chance)),
            service=0.8,
        ),
        Load(
            name="a burst of 3,000 jobs",
            seconds=30 * minute,
            jobs=[(60.0, number) for number in range(3000)],
            service=0.8,
        ),
        Load(
            name="3,000 jobs of 6 sessions",
            seconds=30 * minute,
            jobs=[(60.0, number % 6) for number in range(3000)],
            service=0.8,
        ),
        Load(
            name="a sine, 2 to 30 jobs a second",
            seconds=60 * minute,
            jobs=one_session_each(
                poisson(lambda at: 16 - 14 * sin(2 * pi * at / (20 * minute) + pi / 2), 60 * minute, 30.0, chance)
            ),
            service=0.8,
        ),
        Load(
            name="busy, idle overnight, busy",
            seconds=4 * hour,
            jobs=one_session_each(
                poisson(lambda at: 5.0 if at < hour / 2 or at > 3.5 * hour else 0.0, 4 * hour, 5.0, chance)
            ),
            service=0.8,
            least=0,
        ),
        Load(
            name="recorded sessions over a day",
            seconds=24 * hour,
            jobs=[job for job in day if job[0] < 24 * hour],
            service=4.0,
        ),
    ]


# The report


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def report(loads: Sequence[Load], outcomes: dict[tuple[str, str], Outcome]) -> str:
    """The table, as Markdown."""
    lines = [
        _row(["load", "scaled by", "pod-minutes", "p50 wait, s", "p99 wait, s", "longest, s", "changes", "most pods"]),
        _row(["---", "---", *["---:"] * 6]),
    ]
    for load in loads:
        for scaler in SCALERS:
            found = outcomes[load.name, scaler]
            figures = [found.pod_minutes, found.wait(0.5), found.wait(0.99), found.wait(1.0)]
            numbers = [f"{figure:,.1f}" for figure in figures] + [str(found.changes), str(found.most)]
            lines.append(_row([load.name, scaler, *numbers]))
    return "\n".join(lines)


def ideal(load: Load) -> list[tuple[float, float]]:
    """(time, pods) that what arrived around then would keep busy."""
    step = load.seconds / 200
    moments = [at for at, _ in load.jobs]
    counted = (
        (at, bisect_left(moments, at + step) - bisect_left(moments, at)) for at in (step * n for n in range(200))
    )
    return [(at, jobs / step * load.service / CONCURRENCY) for at, jobs in counted]


def main() -> None:
    """Run all, print the table, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    chosen = parser.parse_args()
    loads = make_loads(chosen.seed)
    outcomes = {
        (load.name, name): Runtime(load, make(load), chosen.seed).run()
        for load in loads
        for name, make in SCALERS.items()
    }
    print(report(loads, outcomes))
    panels = [
        Panel(
            title=load.name,
            seconds=load.seconds,
            ideal=ideal(load),
            lines={name: outcomes[load.name, name].replicas for name in SCALERS},
        )
        for load in loads
    ]
    chosen.picture.write_text(plot(panels))


if __name__ == "__main__":
    main()
