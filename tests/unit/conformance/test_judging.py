"""A run of the MCP suite is as expected, or it says what is not."""

import pytest

from e2e.conformance.suite import REVISIONS, Outcome, expected_failures, surprises

OUTCOME = Outcome(failed={"ping": [], "prompts-list": ["prompts-list"], "caching": ["one", "two"]}, passed=4)


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        (["prompts-list", "caching"], []),
        (["prompts-list", "caching:one", "caching:two"], []),
        (["prompts-list", "caching:one"], ["caching:two fails"]),
        (["caching"], ["prompts-list:prompts-list fails"]),
        (["prompts-list", "caching", "ping"], ["ping passes: take it from expected.yaml"]),
        (
            ["prompts-list", "caching:one", "caching:two", "caching:three"],
            ["caching:three passes: take it from expected.yaml"],
        ),
        (["prompts-list", "caching", "gone"], ["gone is expected to fail and no longer part of the suite"]),
    ],
    ids=["whole", "by check", "one more check", "one more scenario", "passes", "check passes", "gone"],
)
def test_more_and_less_than_expected_are_surprises(expected: list[str], found: list[str]) -> None:
    assert surprises(OUTCOME, dict.fromkeys(expected, "a reason")) == found


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_expected_failure_has_a_reason(revision: str) -> None:
    for run in ("recall", "memory", "door"):
        expected = expected_failures(run, revision)
        assert expected
        assert all(len(reason) > 20 for reason in expected.values())


def test_our_tools_are_expected_to_fail_what_the_suites_own_do_not() -> None:
    assert set(expected_failures("door", "2025-11-25")) < set(expected_failures("recall", "2025-11-25"))
