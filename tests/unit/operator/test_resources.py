"""Durations, quantities, conditions, selectors, tokens: the small words of our API."""

import pickle
from datetime import UTC, datetime, timedelta

import pytest

from commonplace_operator.errors import SpecError
from commonplace_operator.reconcile.context import operator_class
from commonplace_operator.resources.conditions import Condition, RecordedCondition, render_conditions
from commonplace_operator.resources.durations import parse_duration
from commonplace_operator.resources.names import TEAM
from commonplace_operator.resources.objects import InvalidObject, MemoryTeam, Unread
from commonplace_operator.resources.quantities import parse_quantity
from commonplace_operator.resources.reasons import NEGATIVE, ConditionType
from commonplace_operator.resources.runtime_spec import LabelSelector
from tests.unit.operator.factories import NOW, api_key, token


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90d", timedelta(days=90)),
        ("1h30m", timedelta(minutes=90)),
        ("1.5h", timedelta(minutes=90)),
        ("2 weeks", timedelta(weeks=2)),
        ("1w2d", timedelta(days=9)),
        ("500ms", timedelta(milliseconds=500)),
        ("0", timedelta(0)),
        ("-24h", timedelta(hours=-24)),
        ("3 days", timedelta(days=3)),
    ],
)
def test_durations_are_read_as_the_api_server_reads_them(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "90", "d", "1h30", "h1", "1 fortnight", "1h,30m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5Gi", 5 * 2**30), ("100k", 100_000), ("1e3", 1000), (7, 7), ("1.5Ki", 1536), ("100m", 1), ("2M", 2_000_000)],
)
def test_quantities_are_whole_units(text: str | int, expected: int) -> None:
    assert parse_quantity(text) == expected


@pytest.mark.parametrize("text", ["", "5gb", "Gi", "1 Gi", "0x10", "5mi", "1e"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        parse_quantity(text)


def test_a_transition_time_moves_only_when_the_status_does() -> None:
    def rendered(status: str, recorded: list[dict[str, object]], now: datetime) -> list[dict[str, object]]:
        wanted = Condition(type="Ready", status="True" if status == "True" else "False", reason="R", message=str(now))
        return render_conditions([wanted], [RecordedCondition.parse(r) for r in recorded], generation=2, now=now)

    later = NOW + timedelta(hours=1)
    first = rendered("True", [], NOW)
    assert first[0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert first[0]["observedGeneration"] == 2
    assert rendered("True", first, later)[0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert rendered("False", first, later)[0]["lastTransitionTime"] == "2026-01-01T01:00:00Z"


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, True),
        ({"matchExpressions": [{"key": "b", "operator": "In", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_selectors_match_as_kubernetes_does(selector: dict[str, object], matches: bool) -> None:
    assert LabelSelector.model_validate(selector).matches({"a": "1"}) is matches


def test_a_token_cannot_be_shown_by_accident() -> None:
    secret = token(1)
    assert secret.reveal() not in f"{secret} {secret!r} {[secret]} {secret:>80}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_an_invalid_object_names_the_field_and_not_its_value() -> None:
    with pytest.raises(InvalidObject) as caught:
        MemoryTeam.parse({"metadata": {"name": "t"}, "spec": {"runtimeRef": {"name": ["hunter2"]}}})
    assert "runtimeRef" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_key_without_an_actor_acts_under_its_own_name() -> None:
    assert api_key().actor == "key:ns/key"
    assert api_key(actor="agent:ci").actor == "agent:ci"


def test_ready_is_no_condition_of_negative_polarity() -> None:
    assert ConditionType.READY not in NEGATIVE


def test_times_are_utc() -> None:
    key = api_key(expiresAt="2026-01-01T01:00:00+01:00")
    assert key.spec.expires_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_an_object_of_a_newer_shape_can_still_be_spoken_of() -> None:
    body = {
        "metadata": {"name": "t", "namespace": "ns", "uid": "u", "generation": 4, "finalizers": ["x"]},
        "spec": {"runtimeRef": {"name": "rt"}, "isolation": "Quantum"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    with pytest.raises(SpecError, match="isolation"):
        MemoryTeam.parse(body)
    unread = Unread.parse(TEAM, body)
    assert (unread.name, unread.generation, unread.metadata.finalizers, unread.is_ready()) == ("t", 4, ("x",), True)


@pytest.mark.parametrize(
    ("annotations", "served_by"), [(None, "default"), ({"commonplace.dev/operator-class": "blue"}, "blue")]
)
def test_an_object_chooses_its_operators_class(annotations: dict[str, str] | None, served_by: str) -> None:
    assert operator_class({"metadata": {"name": "t", "annotations": annotations}}) == served_by
