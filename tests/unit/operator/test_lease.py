"""What is decided about a Lease: who may take it, in which term, and who still holds it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from commonplace_operator.engine.lease import (
    TERM_LIMIT,
    Create,
    Record,
    Take,
    Wait,
    decide,
    is_still_held,
    parse,
    released,
    render,
    renewed,
    taken,
    vacant,
)

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
EPOCH = int(NOW.timestamp())
TERM = "example.dev/term"


def record(holder: str = "other", term: int = EPOCH - 100, duration: int = 15) -> Record:
    return Record(
        holder=holder, term=term, transitions=3, duration_seconds=duration, acquired_at="then", renewed_at="then"
    )


@pytest.mark.parametrize(
    ("found", "age", "wanted"),
    [
        (None, 0.0, Create()),
        (record(""), 0.0, Take(why="nobody holds it")),
        (record("me"), 0.0, Take(why="an earlier attempt had succeeded")),
        (record(), 0.0, Wait(seconds=15.0)),
        (record(), 14.0, Wait(seconds=1.0)),
        (record(), 15.0, Take(why="other has not renewed it in time")),
        (record(duration=60), 15.0, Wait(seconds=45.0)),
    ],
    ids=["absent", "released", "own", "fresh", "old", "expired", "its own duration counts"],
)
def test_a_lease_is_taken_only_where_nobody_can_lead(
    found: Record | None, age: float, wanted: Create | Take | Wait
) -> None:
    assert decide(found, 1000.0, 1000.0 + age, "me") == wanted


def test_a_record_with_times_of_another_clock_is_judged_by_ours_alone() -> None:
    for written in ("1970-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"):
        found = replace(record(), renewed_at=written)
        assert decide(found, 5.0, 19.0, "me") == Wait(seconds=1.0)
        assert isinstance(decide(found, 5.0, 20.0, "me"), Take)


def take(found: Record, *, newest: int = 0, now: datetime = NOW) -> Record:
    return taken(found, newest_term=newest, identity="me", now=now, duration_seconds=15)


def test_a_first_term_is_the_seconds_since_1970() -> None:
    assert take(vacant(0)).term == EPOCH
    assert take(vacant(0)).transitions == 1


@pytest.mark.parametrize("jump", [timedelta(minutes=-10), timedelta(), timedelta(minutes=10)], ids=str)
def test_a_term_grows_whatever_the_clock_says(jump: timedelta) -> None:
    before = record(term=EPOCH)
    after = take(before, newest=EPOCH, now=NOW + jump)
    assert after.term == max(EPOCH + 1, int((NOW + jump).timestamp()))
    assert after.transitions == before.transitions + 1


def test_a_term_that_was_seen_is_remembered_after_the_lease_is_gone() -> None:
    assert take(vacant(0), newest=EPOCH + 500).term == EPOCH + 501


def test_a_leader_that_leaves_leaves_its_term_and_no_holder() -> None:
    left = released(record("me"), now=NOW, term=0)
    assert (left.holder, left.duration_seconds, left.term) == ("", 1, EPOCH - 100)
    assert isinstance(decide(left, 0.0, 0.0, "other"), Take)


def test_a_term_that_a_database_knows_is_left_to_the_next_leader() -> None:
    left = released(record("me"), now=NOW, term=EPOCH + 1000)
    assert take(left, newest=left.term).term == EPOCH + 1001


def test_renewing_changes_nothing_but_the_time() -> None:
    before = record("me")
    after = renewed(before, now=NOW)
    assert after != before
    assert replace(after, renewed_at=before.renewed_at) == before
    assert is_still_held(after, before)


@pytest.mark.parametrize(
    "found", [None, record("thief"), record(""), record("me", term=7)], ids=["gone", "stolen", "emptied", "other term"]
)
def test_a_lease_that_says_something_else_is_lost(found: Record | None) -> None:
    assert not is_still_held(found, record("me"))


def test_a_record_survives_being_written_and_read() -> None:
    body = {"metadata": {"name": "l", "resourceVersion": "5", "labels": {"a": "b"}, "annotations": {"x": "y"}}}
    rendered = render(record("me"), body, term_annotation=TERM)
    assert parse(rendered, term_annotation=TERM) == record("me")
    assert rendered["metadata"]["resourceVersion"] == "5"
    assert rendered["metadata"]["labels"] == {"a": "b"}
    assert rendered["metadata"]["annotations"]["x"] == "y"
    assert body["metadata"]["annotations"] == {"x": "y"}


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("12", 12),
        ("", 0),
        ("-3", 0),
        ("1e9", 0),
        ("\u0663", 0),
        (str(TERM_LIMIT - 1), TERM_LIMIT - 1),
        (str(TERM_LIMIT), 0),
        ("9" * 5000, 0),
    ],
)
def test_a_term_that_the_database_could_not_keep_counts_as_none(text: str, term: int) -> None:
    body = {"metadata": {"annotations": {TERM: text}}}
    assert parse(body, term_annotation=TERM).term == term


def test_a_lease_that_somebody_made_empty_is_free() -> None:
    found = parse({"metadata": {"name": "l"}}, term_annotation=TERM)
    assert isinstance(decide(found, 0.0, 0.0, "me"), Take)
    assert take(found).term == EPOCH
