"""What follows a failed generation: try the jobs again, try fewer of them, or give up. Pure: chance is an argument."""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, assert_never

FailureKind: TypeAlias = Literal[
    "transient",
    "throttled",
    "configuration",
    "poison",
    "splittable",
    "refusal",
    "invalid_output",
]
"""
transient: time heals it. throttled: the provider said when to come back. configuration: an administrator must act.
poison: this input can never work. splittable: too much at once. refusal: the model will not. invalid_output: it
answered, but not in the agreed form.
"""

FIRST_CEILING_SECONDS: Final = 5.0
GROWTH: Final = 5
CEILING_SECONDS: Final = 600.0
THROTTLED_SECONDS: Final = 30.0
CONFIGURATION_SECONDS: Final = 60.0
LONGEST_THROTTLE_SECONDS: Final = 3600.0


@dataclass(frozen=True, kw_only=True)
class Failure:
    """
    A call that gave no observations. `reason` is safe to store and to show: no content, no key.

    `credential`: what else would be refused likewise: the provider with this endpoint and key.
    """

    kind: FailureKind
    reason: str
    retry_after_seconds: float | None = None
    provider: str | None = None
    model: str | None = None
    credential: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    request_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class RetryAt:
    """Try again `after_seconds` from now; `counted`: whether this attempt is one of the job's few."""

    after_seconds: float
    counted: bool


@dataclass(frozen=True, kw_only=True)
class Split:
    """Try the first `keep` jobs of the batch by themselves, now."""

    keep: int


@dataclass(frozen=True, kw_only=True)
class GiveUp:
    """The job fails for good; its event stays."""


Decision: TypeAlias = RetryAt | Split | GiveUp


def backoff_seconds(attempt: int, *, jitter: float) -> float:
    """
    Exponential with full jitter: somewhere between 0 and min(5 s × 5^attempt, 10 min).

    attempt: counted from 1. jitter: in [0, 1). The ceilings 25 s, 125 s, … are claude-mem's delays.
    """
    return jitter * min(FIRST_CEILING_SECONDS * float(GROWTH**attempt), CEILING_SECONDS)


def decide(failure: Failure, *, attempt: int, max_attempts: int, batch: int, jitter: float) -> Decision:
    """
    What to do with the jobs of a failed call.

    attempt: which attempt this was, from 1. batch: how many jobs the call served; what may be the fault of one of
    them is tried again with half of them, so that only the guilty one fails. jitter: in [0, 1).
    """
    match failure.kind:
        case "throttled" | "configuration":
            return RetryAt(after_seconds=pause_seconds(failure) * (1 + jitter / 10), counted=False)
        case "poison" | "refusal" | "splittable":
            return Split(keep=batch // 2) if batch > 1 else GiveUp()
        case "transient" | "invalid_output":
            if attempt >= max_attempts:
                return GiveUp()
            return RetryAt(after_seconds=backoff_seconds(attempt, jitter=jitter), counted=True)
        case _:
            assert_never(failure.kind)


def pause_seconds(failure: Failure) -> float:
    """For how long calling the same provider again would be in vain, for any job: 0 where only these jobs failed."""
    match failure.kind:
        case "throttled":
            wait = THROTTLED_SECONDS if failure.retry_after_seconds is None else failure.retry_after_seconds
            return min(max(wait, 0.0), LONGEST_THROTTLE_SECONDS)
        case "configuration":
            return CONFIGURATION_SECONDS
        case _:
            return 0.0


def error_of(failure: Failure) -> dict[str, object]:
    """The job's `last_error`."""
    error: dict[str, object] = {"reason": failure.reason, "classification": failure.kind}
    if failure.request_id:
        error["providerRequestId"] = failure.request_id
    return error
