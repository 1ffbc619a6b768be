"""The autoscaler's decision: up at once, down slowly, never on what is not known, and fair between teams."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonplace_operator.planning.demand import Limit, WorkerTargets, demand_of, fair_shares, worker_targets
from commonplace_operator.planning.scaling import Decision, History, decide
from commonplace_operator.resources.rows import OtherQueues, QueueByTeam, TeamQueue
from commonplace_operator.resources.runtime_spec import WorkersSpec
from commonplace_runtime.scaling import ScalingTargets

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TARGETS = WorkerTargets(
    scaling=ScalingTargets(drain_seconds=60, age_seconds=30, concurrency=8, least=1, most=10),
    stabilization_seconds=300,
    cooldown_seconds=300,
)
WATCHED = History(since=-10_000)
"""Of an operator that has seen the queue for long."""


def within(least: int, most: int) -> WorkerTargets:
    return replace(TARGETS, scaling=replace(TARGETS.scaling, least=least, most=most))


def team(slug: str = "shop", **figures: Any) -> TeamQueue:
    idle: dict[str, Any] = {
        "backlog": 0,
        "sessions": figures.get("backlog", 0),
        "oldest_seconds": 0.0,
        "busy_sessions": 0,
        "in_flight": 0,
        "arrival_rate": figures.get("steady_rate", 0.0),
        "steady_rate": 0.0,
        "workers": None,
    }
    return TeamQueue(team_id=slug, slug=slug, owner_uid=None, **(idle | figures))


def queue(*teams: TeamQueue, service: float | None = 0.8, others: OtherQueues | None = None) -> QueueByTeam:
    return QueueByTeam(now=NOW, service_seconds=service, jobs_of={}, teams=teams, others=others or OtherQueues())


BUSY = queue(team(backlog=3000))  # 40 slots of 0.8 s for a minute: 5.9 workers
IDLE = queue()


def after(
    figures: QueueByTeam | None,
    *,
    replicas: int,
    ready: int | None = None,
    targets: WorkerTargets = TARGETS,
    history: History | None = WATCHED,
    now: float = 0.0,
) -> Decision:
    return decide(figures, targets, history, now=now, replicas=replicas, ready=replicas if ready is None else ready)


def play(
    figures: QueueByTeam | None,
    *,
    seconds: int,
    replicas: int,
    targets: WorkerTargets = TARGETS,
    history: History | None = WATCHED,
    start: float = 0.0,
) -> list[tuple[float, Decision]]:
    """Decisions every 5 s while the queue stays as it is; every pod is ready at once."""
    told = []
    for second in range(0, seconds + 1, 5):
        decision = decide(figures, targets, history, now=start + second, replicas=replicas, ready=replicas)
        replicas, history = decision.replicas, decision.history
        told.append((start + second, decision))
    return told


# What is needed


@pytest.mark.parametrize(
    ("figures", "workers"),
    [
        pytest.param(queue(team(steady_rate=20.0)), 3, id="steady arrivals"),
        pytest.param(queue(team(steady_rate=20.0, backlog=600)), 4, id="arrivals and drain add up"),
        pytest.param(queue(team(backlog=3000, sessions=4)), 1, id="four sessions fill four slots"),
        pytest.param(queue(team(backlog=1)), 1, id="one job, one worker"),
        pytest.param(queue(team(in_flight=1, busy_sessions=1)), 1, id="a running job keeps its worker"),
        pytest.param(queue(team(backlog=250), service=None), 3, id="no job's time is known"),
        pytest.param(queue(team(backlog=1500, oldest_seconds=90)), 6, id="too old: twice as fast"),
        pytest.param(queue(team(backlog=900, sessions=1, oldest_seconds=90)), 1, id="too old, but one session only"),
        pytest.param(
            queue(team(in_flight=20, busy_sessions=20), service=600.0), 3, id="long jobs keep the slots that they have"
        ),
        pytest.param(
            queue(*(team(f"t{n}", backlog=40) for n in range(10))), 1, id="ten teams share what is left of a worker"
        ),
        pytest.param(queue(team(backlog=3000, workers=2)), 2, id="the Quota's limit"),
        pytest.param(queue(team(backlog=3000, workers=2), team("mill", backlog=1500)), 5, id="and another team's need"),
        pytest.param(queue(team(backlog=3000, workers=0)), 0, id="a team that may have no worker wakes none"),
        pytest.param(queue(team(backlog=9, in_flight=1, workers=0)), 1, id="but what runs is not cut off"),
        pytest.param(
            queue(others=OtherQueues(teams=3, backlog=1500, sessions=1500)), 3, id="teams past the list count"
        ),
        pytest.param(queue(), 0, id="nothing"),
    ],
)
def test_the_need_is_that_of_every_team_within_its_quota(figures: QueueByTeam, workers: int) -> None:
    assert demand_of(figures, TARGETS.scaling).whole == workers


def test_the_spec_says_what_is_wanted() -> None:
    spec = WorkersSpec.model_validate(
        {"concurrency": 4, "autoscaling": {"minReplicas": 0, "maxReplicas": 7, "drainTargetSeconds": 20}}
    )
    scaling = ScalingTargets(drain_seconds=20, age_seconds=30, concurrency=4, least=0, most=7)
    assert worker_targets(spec) == WorkerTargets(scaling=scaling, stabilization_seconds=300, cooldown_seconds=300)


# Up


def test_up_goes_at_once_in_steps() -> None:
    assert [d.replicas for _, d in play(BUSY, seconds=10, replicas=1)] == [5, 6, 6]
    great = queue(team(backlog=30_000))
    assert [d.replicas for _, d in play(great, seconds=20, replicas=1, targets=within(1, 50))] == [5, 10, 20, 40, 50]


def test_a_queue_wakes_one_worker_at_once_and_then_as_many_as_it_needs() -> None:
    asleep = within(0, 10)
    assert [d.replicas for _, d in play(BUSY, seconds=15, replicas=0, targets=asleep)] == [1, 5, 6, 6]


def test_pods_that_do_not_start_are_not_asked_for_again_and_again() -> None:
    great = queue(team(backlog=30_000))
    young = replace(WATCHED, ready=2, behind_since=20.0)
    assert decide(great, within(1, 500), young, now=70.0, replicas=8, ready=2).replicas == 16, "a start takes a minute"

    history = replace(WATCHED, ready=2, behind_since=0.0)
    stuck = decide(great, within(1, 500), history, now=70.0, replicas=3, ready=2)
    assert (stuck.replicas, set(stuck.limits), stuck.is_limited) == (4, {Limit.NOT_READY}, True)
    still = decide(great, within(1, 500), stuck.history, now=100.0, replicas=4, ready=2)
    assert still.replicas == 4
    assert "no more until those that were asked for are ready" in still.explanation
    late = replace(still.history, behind_since=0.0)
    assert decide(great, within(1, 500), late, now=360.0, replicas=4, ready=2).replicas == 8, "once more after a while"


def test_a_pod_that_becomes_ready_lets_the_number_go_on() -> None:
    history = replace(WATCHED, ready=2, behind_since=0.0)
    assert decide(BUSY, TARGETS, history, now=70.0, replicas=4, ready=3).replicas == 6


def test_what_maxreplicas_denies_is_said() -> None:
    told = after(queue(team(backlog=30_000), team("mill", backlog=5)), replicas=10)
    assert (told.replicas, told.is_limited, set(told.limits)) == (10, True, {Limit.MOST})
    assert told.explanation.endswith("; maxReplicas 10 of 59 needed, shared by 2 teams")


# Down


def test_down_waits_for_a_whole_window_and_then_goes_a_quarter_a_minute() -> None:
    busy = after(BUSY, replicas=6)
    told = play(queue(team(backlog=1)), seconds=600, replicas=6, history=busy.history, start=5)
    changes = [
        (at, d.replicas) for (at, d), (_, before) in zip(told[1:], told, strict=False) if d.replicas != before.replicas
    ]
    assert changes == [(305, 5), (365, 4), (425, 3), (485, 2), (545, 1)]


def test_who_looks_back_for_less_than_a_minute_shrinks_as_quickly() -> None:
    quick = replace(TARGETS, stabilization_seconds=20)
    told = play(queue(team(backlog=1)), seconds=60, replicas=4, targets=quick)
    pairs = zip(told[1:], told, strict=False)
    assert [(at, d.replicas) for (at, d), (_, before) in pairs if d.replicas != before.replicas] == [(20, 2), (40, 1)]


def test_a_need_within_the_window_keeps_the_number() -> None:
    busy = after(BUSY, replicas=6)
    told = after(IDLE, replicas=10, history=busy.history, now=100)
    assert told.replicas == 8, "never below what was needed 100 s ago"
    kept = after(IDLE, replicas=6, history=told.history, now=200)
    assert (kept.replicas, set(kept.limits)) == (6, {Limit.LEAST, Limit.STABILIZATION})
    assert kept.explanation.endswith("; minReplicas 1; more were needed within the last 300 s")


def test_an_operator_that_has_just_started_takes_nobody_away() -> None:
    told = play(IDLE, seconds=300, replicas=6, history=None)
    assert [d.replicas for at, d in told] == [6] * 60 + [5]
    assert told[0][1].limits == {Limit.LEAST, Limit.WATCHING}


def test_an_idle_runtime_goes_to_none_only_after_the_cooldown_and_only_if_it_may() -> None:
    asleep = replace(within(0, 10), stabilization_seconds=60)
    told = play(IDLE, seconds=400, replicas=1, targets=asleep)
    assert next(at for at, d in told if d.replicas == 0) == 300
    assert "nothing queued or running for 295 s; the last goes after 300 s" in told[59][1].explanation
    assert {d.replicas for _, d in play(IDLE, seconds=900, replicas=1)} == {1}


def test_a_running_job_keeps_the_last_worker() -> None:
    running = queue(team(in_flight=1, busy_sessions=1))
    assert {d.replicas for _, d in play(running, seconds=900, replicas=1, targets=within(0, 10))} == {1}


def test_nothing_wakes_a_runtime_without_work() -> None:
    assert {d.replicas for _, d in play(IDLE, seconds=60, replicas=0, targets=within(0, 10), history=None)} == {0}


def test_without_figures_the_number_stays_and_says_so() -> None:
    told = after(None, replicas=6)
    assert (told.replicas, told.need, set(told.limits)) == (6, None, {Limit.NO_FIGURES})
    assert told.explanation == "6 workers, kept: the queue could not be seen"


def test_limits_hold_at_once() -> None:
    assert after(IDLE, replicas=20, history=None).replicas == 10
    assert after(None, replicas=20).replicas == 10
    assert after(None, replicas=1, targets=within(3, 10)).replicas == 3
    assert after(IDLE, replicas=0).replicas == 1


# The sentence


@pytest.mark.parametrize(
    ("figures", "replicas", "sentence"),
    [
        pytest.param(
            queue(team(steady_rate=5.0, backlog=1240)),
            4,
            "4 workers: (5.0/s + 1,240 queued / 60 s) x 0.80 s / (8 slots x 0.85) = 3.02",
            id="the formula",
        ),
        pytest.param(
            queue(team(backlog=3000, workers=2)),
            1,
            "2 workers: (0.0/s + 3,000 queued / 60 s) x 0.80 s / (8 slots x 0.85) = 2.00; Quota limits shop to 2",
            id="a Quota",
        ),
        pytest.param(
            queue(team(backlog=3000, sessions=4)),
            1,
            "1 worker: (0.0/s + 3,000 queued / 60 s) x 0.80 s / (8 slots x 0.85) = 0.59; 4 sessions fill no more slots",
            id="few sessions",
        ),
        pytest.param(
            queue(team(backlog=250), service=None),
            3,
            "3 workers: 250 queued / 100 for each worker while no job's time is known = 2.50",
            id="no history",
        ),
    ],
)
def test_the_number_explains_itself(figures: QueueByTeam, replicas: int, sentence: str) -> None:
    assert after(figures, replicas=replicas).explanation == sentence


# Whatever comes

counts = st.integers(0, 10**6)
teams = st.lists(
    st.builds(
        team,
        st.uuids().map(str),
        backlog=counts,
        sessions=counts,
        oldest_seconds=st.floats(0, 1e5),
        busy_sessions=st.integers(0, 10**4),
        in_flight=st.integers(0, 10**5),
        steady_rate=st.floats(0, 1e4),
        workers=st.none() | st.integers(0, 50),
    ),
    max_size=6,
)
queues = st.builds(
    lambda teams, service, others: queue(*teams, service=service, others=others),
    teams,
    st.none() | st.floats(0, 600),
    st.builds(OtherQueues, teams=st.integers(1, 5), backlog=counts, sessions=counts, steady_rate=st.floats(0, 1e3))
    | st.just(OtherQueues()),
)
limits = st.tuples(st.integers(0, 20), st.integers(1, 60)).filter(lambda pair: pair[0] <= pair[1])
histories = st.none() | st.builds(
    History,
    since=st.floats(-1e4, 0),
    needs=st.lists(st.tuples(st.floats(-400, 0), st.integers(0, 80)), max_size=4).map(
        lambda pairs: tuple(
            zip(sorted(at for at, _ in pairs), sorted({need for _, need in pairs}, reverse=True), strict=False)
        )
    ),
    idle_since=st.none() | st.floats(-1e4, 0),
    shrunk_at=st.none() | st.floats(-200, 0),
    ready=st.integers(0, 60),
    behind_since=st.none() | st.floats(-600, 0),
)
pods = st.integers(0, 80)


@given(figures=st.none() | queues, pair=limits, history=histories, replicas=pods, ready=pods)
def test_the_number_is_always_within_the_limits(
    figures: QueueByTeam | None, pair: tuple[int, int], history: History | None, replicas: int, ready: int
) -> None:
    told = after(figures, replicas=replicas, ready=ready, targets=within(*pair), history=history)
    assert pair[0] <= told.replicas <= pair[1]
    assert sum(told.shares.values()) <= pair[1] + 1e-6


@given(pair=limits, history=histories, replicas=pods, ready=pods)
def test_what_is_not_known_takes_nobody_away(
    pair: tuple[int, int], history: History | None, replicas: int, ready: int
) -> None:
    told = after(None, replicas=replicas, ready=ready, targets=within(*pair), history=history)
    assert told.replicas >= min(replicas, pair[1])


@given(figures=queues, more=counts, pair=limits, history=histories, replicas=pods, ready=pods)
def test_a_longer_queue_never_gets_fewer_workers(
    figures: QueueByTeam, more: int, pair: tuple[int, int], history: History | None, replicas: int, ready: int
) -> None:
    def with_backlog(extra: int) -> QueueByTeam:
        longer = replace(figures.others, backlog=figures.others.backlog + extra, teams=max(1, figures.others.teams))
        return replace(figures, others=longer)

    fewer, greater = (
        after(with_backlog(extra), replicas=replicas, ready=ready, targets=within(*pair), history=history)
        for extra in (0, more)
    )
    assert fewer.replicas <= greater.replicas


@given(figures=st.lists(st.none() | queues, min_size=2, max_size=8), pair=limits, replicas=pods)
def test_no_decision_grows_or_shrinks_by_more_than_its_step(
    figures: list[QueueByTeam | None], pair: tuple[int, int], replicas: int
) -> None:
    least, most = pair
    history: History | None = None
    for step, seen in enumerate(figures):
        told = decide(seen, within(least, most), history, now=90.0 * step, replicas=replicas, ready=replicas)
        before = min(max(replicas, least), most)
        assert told.replicas <= max(before * 2, before + 4)
        assert told.replicas >= before - max(1, before // 4)
        if step * 90.0 < TARGETS.stabilization_seconds:
            assert told.replicas >= before, "not before a whole window was seen"
        replicas, history = told.replicas, told.history


needs = st.lists(st.tuples(st.floats(0, 100), st.integers(1, 5)), max_size=8)


@given(needs=needs, capacity=st.integers(1, 50))
def test_nobody_is_denied_its_fair_share_while_another_has_more(needs: list[tuple[float, int]], capacity: int) -> None:
    shares = fair_shares(needs, capacity)
    assert sum(shares) <= capacity + 1e-6
    assert sum(shares) == pytest.approx(min(capacity, sum(need for need, _ in needs)))
    heads = sum(equals for need, equals in needs if need > 0)
    levels = [share / equals for share, (_, equals) in zip(shares, needs, strict=True)]
    for share, level, (need, equals) in zip(shares, levels, needs, strict=True):
        assert 0 <= share <= need
        if share < need - 1e-6:
            assert level >= max(levels) - 1e-6, "who is denied something has as much as anybody"
            assert share >= capacity * equals / heads - 1e-6, "and its even part at least"
