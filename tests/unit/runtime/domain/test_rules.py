"""The small pure rules: limits, scopes, platforms, wire."""

import pytest

from commonplace_runtime import contract
from commonplace_runtime.domain.errors import QuotaExceeded, RateLimited
from commonplace_runtime.domain.platforms import normalise_platform
from commonplace_runtime.domain.quotas import MinuteCount, MonthCount, Spending, Usage, refusal
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.domain.wire import JobRow, queue_id


def minute(requests: int, limit: int = 2) -> MinuteCount:
    return MinuteCount(limit=limit, requests=requests, reset_epoch=60, seconds_left=7)


def month(requests: int = 0, tokens: int = 0) -> MonthCount:
    return MonthCount(requests=requests, request_cap=5, tokens=tokens, token_cap=10)


@pytest.mark.parametrize(
    ("usage", "spending", "message"),
    [
        (Usage(), Spending.TOKENS, None),
        (Usage(minute=minute(2)), Spending.TOKENS, None),
        (Usage(minute=minute(3)), Spending.NOTHING, "Rate limit exceeded (2 requests / 60s)"),
        (Usage(minute=minute(1, limit=0)), Spending.NOTHING, "Rate limit exceeded (0 requests / 60s)"),
        (Usage(month=month(requests=4)), Spending.TOKENS, None),
        (Usage(month=month(requests=5)), Spending.NOTHING, "Monthly request quota reached (5)"),
        (Usage(month=month(tokens=9)), Spending.TOKENS, None),
        (Usage(month=month(tokens=10)), Spending.TOKENS, "Monthly tokens quota reached (10)"),
        (Usage(month=month(tokens=10)), Spending.NOTHING, None),
        (Usage(minute=minute(3), month=month(5, 10)), Spending.TOKENS, "Rate limit exceeded (2 requests / 60s)"),
        (Usage(month=month(5, 10)), Spending.TOKENS, "Monthly request quota reached (5)"),
    ],
)
def test_what_is_refused_and_in_which_order(usage: Usage, spending: Spending, message: str | None) -> None:
    found = refusal(usage, spending)
    assert (None if found is None else found.message) == message


def test_a_refusal_says_when_or_how_much() -> None:
    rate = refusal(Usage(minute=minute(3)), Spending.NOTHING)
    assert isinstance(rate, RateLimited)
    assert rate.retry_after_seconds == 7
    cap = refusal(Usage(month=month(requests=6)), Spending.NOTHING)
    assert isinstance(cap, QuotaExceeded)
    assert (cap.used, cap.cap) == (6, 5)


def test_every_scope_of_a_route_can_be_granted() -> None:
    for access in Access:
        assert access.value <= {
            *contract.SCOPES,
            "admin",
        }  # the peer's word for memories:admin; keys of ours do not carry it


def test_writing_does_not_imply_reading() -> None:
    assert not Access.READ.is_open_to(frozenset({"memories:write", "events:write", "sessions:write"}))
    assert not Access.EVENTS.is_open_to(frozenset({"memories:read", "observations:read", "jobs:read"}))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("Claude Code", "claude"),
        ("  CLAUDE  ", "claude"),
        ("", "claude"),
        (" \t ", "claude"),
        ("transcript", "codex"),
        ("transcripts", "transcripts"),
        ("Codex CLI", "codex"),
        ("my-cursor-thing", "cursor"),
        ("Gemini  CLI", "gemini-cli"),
        (None, None),
        (5, None),
    ],
)
def test_platforms_have_one_name(given: object, name: str | None) -> None:
    assert normalise_platform(given) == name


def test_a_queue_id_is_the_peers_digest() -> None:
    job: JobRow = {
        "id": "j",
        "projectId": "p",
        "teamId": "t",
        "sourceType": "agent_event",
        "sourceId": "e",
        "agentEventId": "e",
        "serverSessionId": None,
        "jobType": "observation_generate_for_event",
        "status": "queued",
        "attempts": 0,
        "maxAttempts": 3,
        "nextAttemptAtEpoch": None,
        "completedAtEpoch": None,
        "failedAtEpoch": None,
        "cancelledAtEpoch": None,
        "lastError": None,
        "createdAtEpoch": 0,
        "updatedAtEpoch": 0,
    }
    # sha256 of {"kind":"event","team_id":"t","project_id":"p","source_type":"agent_event","source_id":"e"}
    assert queue_id(job).startswith("evt_")
    assert queue_id(job) == queue_id({**job, "status": "failed"})
    assert queue_id(job) != queue_id({**job, "sourceId": "f"})
    assert ":" not in queue_id(job)
