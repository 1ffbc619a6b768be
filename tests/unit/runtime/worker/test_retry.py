"""What follows a failed generation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonplace_runtime.domain.retry import (
    Decision,
    Failure,
    FailureKind,
    GiveUp,
    RetryAt,
    Split,
    backoff_seconds,
    decide,
    error_of,
    pause_seconds,
)


def failure(kind: FailureKind, retry_after: float | None = None) -> Failure:
    return Failure(kind=kind, reason="r", retry_after_seconds=retry_after)


@pytest.mark.parametrize(
    ("given_failure", "attempt", "batch", "wanted"),
    [
        pytest.param(failure("transient"), 1, 5, RetryAt(after_seconds=12.5, counted=True), id="transient"),
        pytest.param(failure("transient"), 2, 5, RetryAt(after_seconds=62.5, counted=True), id="transient-again"),
        pytest.param(failure("transient"), 3, 5, GiveUp(), id="transient-for-the-last-time"),
        pytest.param(failure("invalid_output"), 1, 1, RetryAt(after_seconds=12.5, counted=True), id="invalid"),
        pytest.param(failure("invalid_output"), 3, 1, GiveUp(), id="invalid-for-the-last-time"),
        pytest.param(failure("throttled", 20), 3, 1, RetryAt(after_seconds=21, counted=False), id="throttled"),
        pytest.param(failure("throttled"), 3, 1, RetryAt(after_seconds=31.5, counted=False), id="throttled-untold"),
        pytest.param(failure("throttled", 1e12), 1, 1, RetryAt(after_seconds=3780, counted=False), id="absurd-wait"),
        pytest.param(failure("configuration"), 3, 1, RetryAt(after_seconds=63, counted=False), id="configuration"),
        pytest.param(failure("poison"), 1, 5, Split(keep=2), id="poison-in-a-batch"),
        pytest.param(failure("poison"), 1, 1, GiveUp(), id="poison"),
        pytest.param(failure("refusal"), 1, 2, Split(keep=1), id="refusal-in-a-batch"),
        pytest.param(failure("refusal"), 1, 1, GiveUp(), id="refusal"),
        pytest.param(failure("splittable"), 3, 30, Split(keep=15), id="too-much"),
        pytest.param(failure("splittable"), 1, 1, GiveUp(), id="too-much-in-one"),
    ],
)
def test_each_failure_has_its_answer(given_failure: Failure, attempt: int, batch: int, wanted: Decision) -> None:
    assert decide(given_failure, attempt=attempt, max_attempts=3, batch=batch, jitter=0.5) == wanted


@given(attempt=st.integers(1, 60), jitter=st.floats(0, 1, exclude_max=True))
def test_a_wait_is_never_negative_nor_longer_than_ten_minutes(attempt: int, jitter: float) -> None:
    assert 0 <= backoff_seconds(attempt, jitter=jitter) < 600


@pytest.mark.parametrize(
    ("given_failure", "seconds"),
    [
        (failure("throttled", 5), 5),
        (failure("throttled", -5), 0),
        (failure("configuration"), 60),
        (failure("poison"), 0),
    ],
)
def test_only_what_is_not_the_jobs_fault_pauses_the_provider(given_failure: Failure, seconds: float) -> None:
    assert pause_seconds(given_failure) == seconds


def test_the_stored_error_has_the_wires_fields() -> None:
    assert error_of(Failure(kind="transient", reason="why", request_id="req_1")) == {
        "reason": "why",
        "classification": "transient",
        "providerRequestId": "req_1",
    }
