"""How many workers the teams of a runtime need, what their Quotas leave of it, and how a scarce number is shared."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from commonplace_operator.resources.rows import OtherQueues, QueueByTeam, TeamQueue
from commonplace_operator.resources.runtime_spec import WorkersSpec
from commonplace_runtime.scaling import QueueFigures, ScalingTargets, needed_workers, whole_workers

_NOISE: Final = 1e-9


@dataclass(frozen=True, kw_only=True)
class WorkerTargets:
    """The formula's targets; and in seconds how long fewer must have been enough, and how long nothing to do."""

    scaling: ScalingTargets
    stabilization_seconds: float
    cooldown_seconds: float


def worker_targets(workers: WorkersSpec) -> WorkerTargets:
    """What `spec.workers` asks for."""
    wanted = workers.autoscaling
    return WorkerTargets(
        scaling=ScalingTargets(
            drain_seconds=wanted.drain_target_seconds,
            age_seconds=wanted.target_queue_age_seconds,
            concurrency=workers.concurrency,
            least=min(wanted.min_replicas, wanted.max_replicas),
            most=wanted.max_replicas,
        ),
        stabilization_seconds=wanted.scale_down_stabilization_seconds,
        cooldown_seconds=wanted.idle_cooldown_seconds,
    )


class Limit(StrEnum):
    """What kept the number of workers from being what the queue needs."""

    MOST = "maxReplicas"
    LEAST = "minReplicas"
    QUOTA = "Quota"
    STEP = "step"
    NOT_READY = "not ready"
    STABILIZATION = "stabilization"
    WATCHING = "watching"
    SHRINKING = "shrinking"
    COOLDOWN = "cooldown"
    NO_FIGURES = "no figures"


@dataclass(frozen=True, kw_only=True)
class TeamNeed:
    """
    Workers that a team needs, in fractions of one.

    capped: what is left of it under `limit`, its Quota's. teams: how many this entry stands for, 0 for none.
    """

    slug: str
    need: float
    capped: float
    limit: int | None = None
    teams: int = 1
    is_hurried: bool = False
    is_bound_by_sessions: bool = False
    is_held_by_busy: bool = False

    @property
    def is_limited(self) -> bool:
        """Whether the Quota takes something away."""
        return self.capped < self.need - _NOISE


@dataclass(frozen=True, kw_only=True)
class Demand:
    """
    What the queue asks for.

    teams: entry by entry. shares: what each of them gets of maxReplicas. whole: all of it in whole workers, before
    minReplicas and maxReplicas. is_busy: something waits or runs that workers may be had for.
    """

    teams: tuple[TeamNeed, ...]
    shares: tuple[float, ...]
    whole: int
    is_busy: bool

    @property
    def workers(self) -> float:
        """Workers needed, in fractions, Quotas respected."""
        return sum(team.capped for team in self.teams)


def demand_of(figures: QueueByTeam, targets: ScalingTargets) -> Demand:
    """
    The need of each team by the formula, cut to its Quota, and the shares of `targets.most`.

    A service time is known for all teams together only. At least one worker while anything waits that may be worked
    on, and while anything runs.
    """
    teams = tuple(_need_of(part, figures.service_seconds, targets) for part in figures.parts)
    is_busy = figures.in_flight > 0 or any(
        part.backlog > 0 and team.limit != 0 for part, team in zip(figures.parts, teams, strict=True)
    )
    whole = whole_workers(sum(team.capped for team in teams))
    return Demand(
        teams=teams,
        shares=fair_shares([(team.capped, team.teams) for team in teams], targets.most),
        whole=max(whole, 1) if is_busy else whole,
        is_busy=is_busy,
    )


def _need_of(part: TeamQueue | OtherQueues, service_seconds: float | None, targets: ScalingTargets) -> TeamNeed:
    need = needed_workers(
        QueueFigures(
            backlog=part.backlog,
            oldest_seconds=part.oldest_seconds,
            in_flight=part.in_flight,
            busy_sessions=part.busy_sessions,
            service_seconds=service_seconds,
            arrival_rate=part.arrival_rate,
            steady_rate=part.steady_rate,
            sessions=part.sessions,
        ),
        targets,
    )
    is_team = isinstance(part, TeamQueue)
    limit = part.workers if isinstance(part, TeamQueue) else None
    return TeamNeed(
        slug=part.slug if isinstance(part, TeamQueue) else "",
        need=need.workers,
        capped=need.workers if limit is None else min(need.workers, float(limit)),
        limit=limit,
        teams=1 if is_team else part.teams if isinstance(part, OtherQueues) else 0,
        is_hurried=need.is_hurried,
        is_bound_by_sessions=need.is_bound_by_sessions,
        is_held_by_busy=need.is_held_by_busy,
    )


def fair_shares(needs: Sequence[tuple[float, int]], capacity: float) -> tuple[float, ...]:
    """
    Divide `capacity` so that nobody can be given more without taking from somebody who has less (max-min fairness).

    needs: (need, how many equals it is the sum of). Gives for each at most its need; together at most `capacity`.
    Source: Bertsekas, Gallager, Data Networks, section 6.5.2.
    """
    shares = [0.0] * len(needs)
    waiting = [i for i, (need, equals) in enumerate(needs) if need > 0 and equals > 0]
    rest, heads = capacity, sum(needs[i][1] for i in waiting)
    for i in sorted(waiting, key=lambda i: needs[i][0] / needs[i][1]):
        need, equals = needs[i]
        shares[i] = min(need, rest * equals / heads)
        rest -= shares[i]
        heads -= equals
    return tuple(shares)
