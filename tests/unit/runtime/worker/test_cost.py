"""The benchmark of cost: its sessions are what it says, and a day stays cheap."""

import json

from benchmarks.cost import DOLLARS_A_DAY, EVENTS_A_DAY, debounced, run, run_plain
from benchmarks.sessions import FEATURE_WORK, OPERATIONS, make_session


def test_a_session_is_the_same_for_the_same_seed() -> None:
    first, again, other = (make_session(FEATURE_WORK, events=80, seed=seed) for seed in (1, 1, 2))

    assert json.dumps([event.payload for event in first]) == json.dumps([event.payload for event in again])
    assert first != other


def test_a_day_of_events_stays_within_its_price() -> None:
    events = make_session(OPERATIONS, events=EVENTS_A_DAY, seed=2)
    batched, plain = run(debounced(events)), run_plain(events)

    assert batched.microusd <= DOLLARS_A_DAY * 1e6
    assert batched.microusd * 4 < plain.microusd
    assert batched.calls <= 25
