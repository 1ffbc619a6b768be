"""The sentence that says how a number of workers came about: for a condition, for people at 3 a.m."""

from collections.abc import Set
from typing import Final

from commonplace_operator.planning.demand import Demand, Limit, WorkerTargets
from commonplace_operator.resources.rows import QueueByTeam
from commonplace_runtime.scaling import BACKLOG_PER_WORKER, LEAST_SERVICE_SECONDS, UTILISATION

_NAMED_TEAMS: Final = 3


def explain_hold(number: int) -> str:
    """Of a number that stays because the queue is not seen."""
    return f"{_workers(number)}, kept: the queue could not be seen"


def explain(
    number: int,
    figures: QueueByTeam,
    demand: Demand,
    targets: WorkerTargets,
    *,
    limits: Set[Limit],
    idle_seconds: float | None,
) -> str:
    """
    Such as `5 workers: (5.0/s + 1,240 queued / 60 s) x 0.80 s / (8 slots x 0.85) = 3.02; minReplicas 5`.

    idle_seconds: for how long there was nothing to do, None while there is.
    """
    if idle_seconds is not None:
        formula = f"nothing queued or running for {idle_seconds:.0f} s"
    else:
        formula = f"{_formula(figures, targets)} = {demand.workers:.2f}"
    words = [f"{_workers(number)}: {formula}", *_why_so_many(figures, demand, targets)]
    words += [_LIMITS[limit] for limit in Limit if limit in limits and limit in _LIMITS]
    if Limit.MOST in limits:
        sharing = sum(team.teams for team in demand.teams if team.capped > 0)
        shared = f", shared by {sharing} teams" if sharing > 1 else ""
        words.append(f"maxReplicas {targets.scaling.most} of {demand.whole:,} needed{shared}")
    if Limit.LEAST in limits:
        words.append(f"minReplicas {targets.scaling.least}")
    if Limit.STABILIZATION in limits:
        words.append(f"more were needed within the last {targets.stabilization_seconds:.0f} s")
    if Limit.WATCHING in limits:
        words.append(f"none go before the queue was watched for {targets.stabilization_seconds:.0f} s")
    if Limit.COOLDOWN in limits:
        words.append(f"the last goes after {targets.cooldown_seconds:.0f} s")
    return "; ".join(words)


_LIMITS: Final = {
    Limit.STEP: "at most double or four more at a time",
    Limit.NOT_READY: "no more until those that were asked for are ready",
    Limit.SHRINKING: "at most a quarter or one goes in a minute",
}


def _workers(number: int) -> str:
    return f"{number} worker" if number == 1 else f"{number} workers"


def _formula(figures: QueueByTeam, targets: WorkerTargets) -> str:
    scaling = targets.scaling
    if figures.service_seconds is None:
        return f"{figures.backlog:,} queued / {BACKLOG_PER_WORKER} for each worker while no job's time is known"
    service_seconds = max(figures.service_seconds, LEAST_SERVICE_SECONDS)
    return (
        f"({figures.steady_rate:.1f}/s + {figures.backlog:,} queued / {scaling.drain_seconds:.0f} s)"
        f" x {service_seconds:.2f} s / ({scaling.concurrency} slots x {UTILISATION})"
    )


def _why_so_many(figures: QueueByTeam, demand: Demand, targets: WorkerTargets) -> list[str]:
    """What the plain formula does not show: old jobs, few sessions, taken slots, Quotas."""
    words = []
    if any(team.is_hurried for team in demand.teams):
        target = f"{targets.scaling.age_seconds:.0f} s"
        words.append(f"faster, for the oldest waits for {figures.oldest_seconds:.0f} s (target {target})")
    if any(team.is_bound_by_sessions for team in demand.teams):
        sessions = sum(part.sessions for part in figures.parts)
        words.append(f"{sessions:,} sessions fill no more slots" if sessions != 1 else "one session fills one slot")
    if any(team.is_held_by_busy for team in demand.teams):
        words.append(f"{sum(part.busy_sessions for part in figures.parts):,} sessions keep their slots")
    limited = [team for team in demand.teams if team.is_limited]
    if limited:
        named = ", ".join(f"{team.slug} to {team.limit}" for team in limited[:_NAMED_TEAMS])
        more = f" and {len(limited) - _NAMED_TEAMS} more" if len(limited) > _NAMED_TEAMS else ""
        words.append(f"Quota limits {named}{more}")
    return words
