"""Teams, quotas, statuses: what is asked of the database and what is said about it."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from commonplace_operator.planning.hints import did_you_mean
from commonplace_operator.planning.keystatus import key_fields, next_look
from commonplace_operator.planning.quota import (
    effective_limits,
    is_news,
    over_limit,
    over_soft_limit,
    use_message,
    wanted_limits,
)
from commonplace_operator.planning.status import database_away_status, kept_fields, ready, status_of
from commonplace_operator.planning.team import ids_needed, is_permitted, may_adopt, slug_fault, team_row, wanted_slug
from commonplace_operator.planning.unimplemented import (
    enforces_anything,
    unimplemented_in_quota,
    unimplemented_in_runtime,
    unimplemented_in_team,
)
from commonplace_operator.resources.reasons import Reason
from commonplace_operator.resources.times import format_time
from tests.unit.operator.factories import NOW, api_key, keys, quota, row, runtime, team, token


@pytest.mark.parametrize(
    ("namespace", "allowed", "labels", "permitted"),
    [
        ("ns", {}, {}, True),
        ("other", {}, {}, False),
        ("other", {"from": "All"}, {}, True),
        ("other", {"from": "Selector", "selector": {"matchLabels": {"tier": "gold"}}}, {"tier": "gold"}, True),
        ("other", {"from": "Selector", "selector": {"matchLabels": {"tier": "gold"}}}, {}, False),
        (
            "other",
            {"from": "Selector", "selector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}},
            {},
            True,
        ),
    ],
)
def test_a_runtimes_owner_says_who_may_come(
    namespace: str, allowed: dict[str, Any], labels: dict[str, str], permitted: bool
) -> None:
    assert is_permitted(team(namespace=namespace), runtime(allowedTeams=allowed), labels) is permitted


def test_a_team_row_always_has_the_default_project() -> None:
    wanted = team(projects=[{"name": "web", "displayName": "Web"}, {"name": "default", "displayName": "All"}])
    assert ids_needed(wanted) == 3
    row = team_row(wanted, new_ids=("t", "a", "b"), adopt=False)
    assert [(p.id, p.name, p.display_name) for p in row.projects] == [("a", "default", "All"), ("b", "web", "Web")]
    assert (row.id, row.slug, row.name) == ("t", "ns.team", "team")


def test_policies_are_in_the_databases_words() -> None:
    wanted = team(policies={"retention": {"events": "90d"}, "defaultVisibility": "team"})
    assert team_row(wanted, new_ids=("t", "a"), adopt=False).policies == {
        "namespace": "ns",
        "generationMode": "per-event",
        "eventRetentionSeconds": 7_776_000,
        "defaultVisibility": "team",
    }
    with pytest.raises(ValueError, match="not positive"):
        team_row(team(policies={"retention": {"events": "0"}}), new_ids=("t", "a"), adopt=False)


@pytest.mark.parametrize("mode", ["per-event", "debounce", "end-of-session"])
@pytest.mark.parametrize("window", [None, 90])
def test_the_generation_policy_is_passed_on_as_it_was_asked_for(mode: str, window: int | None) -> None:
    asked = team(policies={"generation": {"mode": mode, "windowSeconds": window}})
    policies = team_row(asked, new_ids=("t", "a"), adopt=False).policies
    assert (policies["generationMode"], policies.get("windowSeconds")) == (mode, window)


@pytest.mark.parametrize(
    ("slug", "namespace", "fault"),
    [(None, "ns", False), ("search", "b", False), ("ns.search", "b", True), ("b.x", "b", False), ("a.b", "ns", False)],
)
def test_the_slugs_of_a_namespace_are_kept_for_it(slug: str | None, namespace: str, fault: bool) -> None:
    asked = team(namespace=namespace, slug=slug)
    assert (slug_fault(asked, runtime()) is not None) is fault
    assert wanted_slug(asked) == (slug or f"{namespace}.team")


@pytest.mark.parametrize(
    ("slug", "namespace", "annotation", "may"),
    [
        (None, "b", "true", True),
        (None, "b", "yes", False),
        ("search", "b", "true", False),
        ("search", "ns", "true", True),
    ],
)
def test_a_foreign_slug_is_not_adopted(slug: str | None, namespace: str, annotation: str, may: bool) -> None:
    asked = team(namespace=namespace, annotations={"commonplace.dev/adopt": annotation}, slug=slug)
    assert may_adopt(asked, runtime()) is may


def test_limits_are_in_the_databases_words() -> None:
    wanted = quota(
        hard={"storage": "1Ki", "apiKeys": 2, "costPerMonthUSD": 49.9, "requestsPerMinute": "1k"},
        soft={"costPerMonthUSD": 40, "tokensPerMonth": "1M"},
    )
    limits = wanted_limits(wanted)
    assert limits == {
        "storageBytes": 1024,
        "apiKeys": 2,
        "costPerMonthUSD": "49.9",
        "requestsPerMinute": 1000,
        "softCostPerMonthUSD": "40",
        "softTokensPerMonth": 1_000_000,
    }
    used = {"apiKeys": Decimal(2), "memories": Decimal(5), "costPerMonthUSD": Decimal("41.5")}
    assert over_limit(limits, used) == ("apiKeys",)
    assert over_soft_limit(limits, used) == ("costPerMonthUSD",)
    assert effective_limits({"storage_bytes": "9", "soft_tokens_per_month": "1"}) == {"storage": "9"}


def test_defaults_are_not_called_unimplemented_and_wishes_are() -> None:
    workers = {"replicas": 1, "concurrency": 8, "terminationGracePeriodSeconds": 120}
    assert unimplemented_in_runtime(runtime(workers=workers, deletionPolicy="Retain")) == ()
    wished = runtime(
        workers={"replicas": 2}, provider={"name": "gemini", "secretRef": {"name": "k"}}, deletionPolicy="Delete"
    )
    assert set(unimplemented_in_runtime(wished)) == {"spec.workers.replicas", "spec.provider", "spec.deletionPolicy"}
    assert unimplemented_in_team(team(policies={"generation": {"mode": "per-event"}})) == ()
    assert unimplemented_in_team(team(isolation="Dedicated")) == ("spec.isolation",)


def test_an_absent_database_keeps_what_was_known_for_this_generation_only() -> None:
    key = api_key()
    status = status_of(key, conditions=[ready(Reason.ISSUED)], now=NOW, fields={"revision": 3})
    known = api_key(status=status)
    later = NOW + timedelta(hours=1)

    away = database_away_status(known, now=later)
    assert [(c["type"], c["status"]) for c in away["conditions"]] == [("Ready", "True"), ("DatabaseReachable", "False")]
    assert away["conditions"][1]["lastTransitionTime"] == "2026-01-01T01:00:00Z"
    assert away["revision"] == 3
    assert database_away_status(api_key(status=away), now=later + timedelta(hours=1)) == away

    changed = known.model_copy(update={"metadata": known.metadata.model_copy(update={"generation": 2})})
    assert database_away_status(changed, now=later)["conditions"][0]["status"] == "False"
    assert kept_fields(changed) == {"revision": 3}


def test_a_keys_status_shows_who_works_until_when() -> None:
    key = api_key(rotation={"interval": "2h", "gracePeriod": "1h"})
    grace = NOW + timedelta(minutes=30)
    observed = keys(
        row(1, "grace", token(1), grace_until=grace), row(2, "published", token(2)), row(3, "unpublished", token(3))
    )
    fields = key_fields(key, observed, team_id="team-id")
    assert [(entry["revision"], entry["state"]) for entry in fields["keys"]] == [(2, "Active"), (1, "Grace")]
    assert (fields["keyId"], fields["revision"]) == ("row-2", 2)
    assert fields["nextRotationTime"] == "2026-01-01T02:00:00Z"
    assert next_look(key, observed) == 1800
    assert [entry["state"] for entry in key_fields(key, replace(observed, now=grace), team_id="t")["keys"]] == [
        "Active"
    ]


def test_a_busy_key_does_not_rewrite_its_status_all_day() -> None:
    def last_used(recorded: str | None, minutes: int) -> str:
        key = api_key(status={"lastUsedTime": recorded} if recorded else {})
        used = row(1, "published", token(1), last_used_at=NOW + timedelta(minutes=minutes))
        return str(key_fields(key, keys(used), team_id="t")["lastUsedTime"])

    assert last_used(None, 0) == "2026-01-01T00:00:00Z"
    assert last_used("2026-01-01T00:00:00Z", 9) == "2026-01-01T00:00:00Z"
    assert last_used("2026-01-01T00:00:00Z", 10) == "2026-01-01T00:10:00Z"


def test_a_hint_names_the_nearest_and_nothing_far() -> None:
    assert did_you_mean("searhc", ["search", "web"]) == "; did you mean search?"
    assert did_you_mean("xyz", ["search"]) == ""


def test_limits_that_nothing_enforces_are_named() -> None:
    asked = quota(
        hard={"requestsPerMinute": 1, "requestsPerMonth": 2, "apiKeys": 3, "memories": 4, "storage": "5Gi"},
        soft={"tokensPerMonth": 6},
    )
    assert set(unimplemented_in_quota(asked)) == {"spec.hard.memories", "spec.hard.storage"}
    assert unimplemented_in_quota(quota(hard={"apiKeys": 3})) == ()


@pytest.mark.parametrize("part", ["hard", "soft"])
@pytest.mark.parametrize("budget", [{"tokensPerMonth": "5M"}, {"costPerMonthUSD": 20}])
def test_a_budget_alone_counts_as_enforced(part: str, budget: dict[str, Any]) -> None:
    asked = quota(**{part: budget})
    assert enforces_anything(asked)
    assert unimplemented_in_quota(asked) == ()


def test_a_limit_that_is_only_measured_does_not_count_as_enforced() -> None:
    assert not enforces_anything(quota(hard={"memories": 4, "storage": "5Gi"}))
    assert enforces_anything(quota(hard={"memories": 4, "workers": 2}))


STOPS = "Generation stops until the month ends (UTC) or the limit is raised; capture and search go on."
WAITS = "Generation waits for 02:00 to 06:00 UTC or a higher limit; capture and search go on."


@pytest.mark.parametrize(
    ("over", "near", "is_enforced", "message"),
    [
        ((), (), True, ""),
        (("apiKeys",), (), True, "Used up: apiKeys."),
        (("tokensPerMonth",), ("tokensPerMonth",), True, f"Used up: tokensPerMonth. {STOPS}"),
        (
            ("tokensPerMonth",),
            ("costPerMonthUSD",),
            True,
            f"Used up: tokensPerMonth. Over the soft limit: costPerMonthUSD. {STOPS}",
        ),
        (("apiKeys",), ("tokensPerMonth",), True, f"Used up: apiKeys. Over the soft limit: tokensPerMonth. {WAITS}"),
        ((), ("tokensPerMonth",), True, f"Over the soft limit: tokensPerMonth. {WAITS}"),
        (("costPerMonthUSD",), (), False, "Used up: costPerMonthUSD."),
        ((), ("tokensPerMonth",), False, "Over the soft limit: tokensPerMonth."),
    ],
)
def test_what_follows_from_a_used_up_limit_is_said(
    over: tuple[str, ...], near: tuple[str, ...], is_enforced: bool, message: str
) -> None:
    assert use_message(over, near, is_enforced=is_enforced) == message


def test_policies_that_nothing_acts_on_are_named() -> None:
    asked = team(
        members=[{"actor": "human:ada", "role": "owner"}],
        policies={"generation": {"mode": "debounce", "windowSeconds": 5}, "retention": {"events": "90d"}},
    )
    assert set(unimplemented_in_team(asked)) == {"spec.members", "spec.policies.retention.events"}


@pytest.mark.parametrize(
    ("used", "minutes", "news"),
    [
        ("1000", 1, False),
        ("1049", 1, False),
        ("1051", 1, True),
        ("949", 1, True),
        ("1001", 11, True),
        ("1000", 11, False),
    ],
)
def test_a_busy_quota_does_not_rewrite_its_status_all_day(used: str, minutes: int, news: bool) -> None:
    recorded = {"conditions": ["same"], "used": {"memories": "1000"}, "measuredAt": format_time(NOW)}
    measured = format_time(NOW + timedelta(minutes=minutes))
    assert is_news(recorded, recorded | {"used": {"memories": used}, "measuredAt": measured}) is news
    assert is_news(recorded, recorded | {"conditions": ["other"]})
    assert is_news({}, recorded)
