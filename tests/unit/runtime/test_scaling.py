from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonplace_runtime.scaling import BACKLOG_PER_WORKER, QueueFigures, ScalingTargets, desired_workers

IDLE = QueueFigures(
    backlog=0, oldest_seconds=0, in_flight=0, busy_sessions=0, service_seconds=0.8, arrival_rate=0, steady_rate=0
)
TARGETS = ScalingTargets(drain_seconds=60, age_seconds=30, concurrency=8, least=0, most=50)


@pytest.mark.parametrize(
    ("queue", "workers"),
    [
        pytest.param(IDLE, 0, id="nothing to do"),
        pytest.param(replace(IDLE, steady_rate=20.0), 3, id="steady arrivals, 0.8 s each, 8 slots at 85 %"),
        pytest.param(replace(IDLE, steady_rate=20.0, backlog=600), 4, id="arrivals and drain add up"),
        pytest.param(replace(IDLE, backlog=3000), 6, id="a burst, drained in a minute"),
        pytest.param(replace(IDLE, backlog=1), 1, id="one job wakes one worker"),
        pytest.param(replace(IDLE, in_flight=1), 1, id="a running job keeps its worker"),
        pytest.param(replace(IDLE, backlog=1, service_seconds=None), 1, id="no history, one job"),
        pytest.param(replace(IDLE, backlog=4 * BACKLOG_PER_WORKER, service_seconds=None), 4, id="no history"),
        pytest.param(replace(IDLE, backlog=6000, service_seconds=0.0), 1, id="a job takes some time in any case"),
        pytest.param(replace(IDLE, backlog=3000, oldest_seconds=45), 9, id="half as old again, half as fast again"),
        pytest.param(replace(IDLE, backlog=3000, oldest_seconds=900), 12, id="age makes it twice as fast at most"),
        pytest.param(replace(IDLE, backlog=3000, oldest_seconds=30), 6, id="young enough"),
        pytest.param(
            replace(IDLE, backlog=1, oldest_seconds=900, busy_sessions=32), 1, id="one old job, no more workers"
        ),
        pytest.param(replace(IDLE, arrival_rate=50.0, backlog=3000), 6, id="a burst counts once, as backlog"),
        pytest.param(
            replace(IDLE, service_seconds=600, busy_sessions=8, backlog=1, sessions=1), 2, id="slots are taken"
        ),
        pytest.param(replace(IDLE, service_seconds=0.8, busy_sessions=8, in_flight=8), 1, id="slots are soon free"),
        pytest.param(replace(IDLE, backlog=1_000_000), 50, id="never more than the most"),
        pytest.param(replace(IDLE, backlog=3000, sessions=7), 2, id="seven sessions fill seven slots"),
        pytest.param(replace(IDLE, backlog=3000, sessions=3000), 6, id="sessions enough for every slot"),
        pytest.param(replace(IDLE, backlog=3000, oldest_seconds=900, sessions=9), 2, id="old, but nine sessions"),
    ],
)
def test_the_queue_decides_how_many_workers_it_needs(queue: QueueFigures, workers: int) -> None:
    assert desired_workers(queue, TARGETS) == workers


def test_the_least_is_kept_when_nothing_is_to_do() -> None:
    assert desired_workers(IDLE, replace(TARGETS, least=2)) == 2


@given(
    backlog=st.integers(0, 10**6),
    more=st.integers(0, 10**6),
    rate=st.floats(0, 1e4),
    seconds=st.none() | st.floats(0, 600),
    oldest=st.floats(0, 1e6),
    busy=st.integers(0, 10**4),
    sessions=st.none() | st.integers(0, 10**6),
)
def test_more_waiting_jobs_never_ask_for_fewer_workers(
    backlog: int,
    more: int,
    rate: float,
    seconds: float | None,
    oldest: float,
    busy: int,
    sessions: int | None,
) -> None:
    queue = QueueFigures(
        backlog=backlog,
        oldest_seconds=oldest,
        in_flight=0,
        busy_sessions=busy,
        service_seconds=seconds,
        arrival_rate=0,
        steady_rate=rate,
        sessions=sessions,
    )
    fewer, greater = (desired_workers(replace(queue, backlog=n), TARGETS) for n in (backlog, backlog + more))
    assert 0 <= fewer <= greater <= TARGETS.most


@pytest.mark.parametrize("wrong", [{"drain_seconds": 0}, {"age_seconds": 0}, {"concurrency": 0}, {"least": 51}])
def test_targets_that_cannot_be_met_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        replace(TARGETS, **wrong)
