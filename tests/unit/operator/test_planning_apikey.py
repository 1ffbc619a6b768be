"""Every branch of the decision about an ApiKey, with plain values."""

from datetime import timedelta
from typing import Any

import pytest

from commonplace_operator.children.secret import SecretFacts, key_secret
from commonplace_operator.planning.apikey import (
    Amend,
    DeleteSecret,
    KeyPlan,
    Publish,
    PutRow,
    Revoke,
    WriteSecret,
    plan_api_key,
    wanted_grant,
)
from commonplace_operator.resources.objects import ApiKey
from commonplace_operator.resources.token import Token
from tests.unit.operator.factories import (
    ENDPOINT,
    MAC_KEY,
    NOW,
    TEAM_UID,
    api_key,
    facts,
    keys,
    minted,
    row,
    token,
    world,
)


def secret_of(key: ApiKey, held: Token, revision: int, **metadata: Any) -> SecretFacts:
    manifest = key_secret(key, held, endpoint=ENDPOINT, team_uid=TEAM_UID, revision=revision, mac_key=MAC_KEY)
    manifest["metadata"] |= metadata
    return facts(manifest)


def shape(plan: KeyPlan) -> list[str]:
    return [type(step).__name__ for step in plan.steps]


def test_a_first_issue_puts_writes_and_publishes() -> None:
    key = api_key()
    plan = plan_api_key(key, world(keys(), None), minted())
    put, write, publish = plan.steps
    assert isinstance(put, PutRow)
    assert (put.key.revision, put.key.token_hash, put.key.grant) == (1, token(99).hash, wanted_grant(key))
    assert isinstance(write, WriteSecret)
    assert (write.token, write.revision, write.live) == (token(99), 1, None)
    assert publish == Publish(revision=1, grace_seconds=86400)
    assert plan.outcome == "issued"


def test_a_settled_key_asks_for_nothing() -> None:
    key = api_key()
    plan = plan_api_key(key, world(keys(row(1, "published", token(1))), secret_of(key, token(1), 1)), minted())
    assert plan == KeyPlan(steps=(), outcome="settled")


def test_a_crash_after_the_row_overwrites_it_for_nobody_holds_its_token() -> None:
    plan = plan_api_key(api_key(), world(keys(row(1, "unpublished", token(1))), None), minted())
    assert shape(plan) == ["PutRow", "WriteSecret", "Publish"]
    put = plan.steps[0]
    assert isinstance(put, PutRow)
    assert put.key.revision == 1


@pytest.mark.parametrize(("older", "outcome"), [((), "issued"), ((row(1, "published", token(1)),), "rotated")])
def test_a_crash_after_the_secret_only_publishes(older: tuple[Any, ...], outcome: str) -> None:
    key = api_key()
    plan = plan_api_key(
        key, world(keys(*older, row(2, "unpublished", token(2))), secret_of(key, token(2), 2)), minted()
    )
    assert plan.steps == (Publish(revision=2, grace_seconds=86400),)
    assert plan.outcome == outcome


def test_an_annotation_rotates_once() -> None:
    key = api_key(annotations={"commonplace.dev/rotate": "a"})
    secret = secret_of(key, token(1), 1)
    plan = plan_api_key(key, world(keys(row(1, "published", token(1))), secret), minted())
    assert shape(plan) == ["PutRow", "WriteSecret", "Publish"]
    put, write = plan.steps[:2]
    assert isinstance(put, PutRow)
    assert isinstance(write, WriteSecret)
    assert (put.key.revision, put.key.rotation_mark, write.live) == (2, "a", secret)
    answered = keys(row(1, "published", token(1), rotation_mark="a"))
    assert plan_api_key(key, world(answered, secret), minted()).outcome == "settled"


def test_an_annotation_taken_away_asks_for_nothing_and_its_mark_is_kept() -> None:
    key = api_key()
    held = keys(row(1, "published", token(1), rotation_mark="a"))
    assert plan_api_key(key, world(held, secret_of(key, token(1), 1)), minted()).outcome == "settled"
    put = plan_api_key(key, world(held, None), minted()).steps[0]
    assert isinstance(put, PutRow)
    assert put.key.rotation_mark == "a"


@pytest.mark.parametrize(("age", "outcome"), [(7199, "settled"), (7200, "rotated")])
def test_an_interval_rotates_at_its_moment(age: int, outcome: str) -> None:
    key = api_key(rotation={"interval": "2h", "gracePeriod": "1h"})
    published = row(1, "published", token(1), published_at=NOW - timedelta(seconds=age))
    plan = plan_api_key(key, world(keys(published), secret_of(key, token(1), 1)), minted())
    assert plan.outcome == outcome
    if outcome == "rotated":
        assert plan.steps[-1] == Publish(revision=2, grace_seconds=3600)


@pytest.mark.parametrize("held", [None, Token("cm_edited")], ids=["lost", "edited"])
def test_a_lost_or_edited_token_is_replaced_as_the_next_revision(held: Token | None) -> None:
    key = api_key()
    secret = secret_of(key, held, 1) if held else None
    if secret is not None:
        secret = SecretFacts(**{**secret.__dict__, "annotations": {}})
    plan = plan_api_key(key, world(keys(row(1, "published", token(1))), secret), minted())
    put = plan.steps[0]
    assert isinstance(put, PutRow)
    assert put.key.revision == 2


def test_a_secret_set_back_to_the_key_in_grace_gets_a_new_token() -> None:
    key = api_key()
    live = keys(row(1, "grace", token(1), grace_until=NOW + timedelta(hours=1)), row(2, "published", token(2)))
    plan = plan_api_key(key, world(live, secret_of(key, token(1), 1)), minted())
    assert shape(plan) == ["PutRow", "WriteSecret", "Publish"]


def test_a_changed_secret_is_rewritten_with_the_same_token() -> None:
    key = api_key()
    secret = secret_of(key, token(1), 1)
    edited = SecretFacts(**{**secret.__dict__, "data": {**secret.data, "url": "https://evil"}})
    plan = plan_api_key(key, world(keys(row(1, "published", token(1))), edited), minted())
    assert plan.steps == (WriteSecret(token=token(1), revision=1, live=edited),)
    assert plan.outcome == "repaired"


def test_what_others_add_to_the_secret_is_left_alone() -> None:
    key = api_key()
    secret = secret_of(key, token(1), 1)
    added = SecretFacts(**{**secret.__dict__, "data": {**secret.data, "theirs": "x"}})
    assert plan_api_key(key, world(keys(row(1, "published", token(1))), added), minted()).outcome == "settled"


def test_a_stripped_label_is_put_back_while_the_owner_reference_stands() -> None:
    key = api_key()
    secret = secret_of(key, token(1), 1, labels={})
    assert plan_api_key(key, world(keys(row(1, "published", token(1))), secret), minted()).outcome == "repaired"


def test_a_changed_grant_is_amended_before_anything_else() -> None:
    before = api_key()
    key = api_key(scopes=["*"])
    plan = plan_api_key(
        key, world(keys(row(1, "published", token(1), key=before)), secret_of(key, token(1), 1)), minted()
    )
    assert plan.steps == (Amend(grant=wanted_grant(key)),)


def test_somebody_elses_secret_is_not_touched_but_the_grant_follows() -> None:
    key = api_key(scopes=["*"])
    theirs = SecretFacts(
        uid="u", resource_version="1", labels={}, annotations={}, owner_uids=(), data={"token": "theirs"}
    )
    plan = plan_api_key(key, world(keys(row(1, "published", token(1), key=api_key())), theirs), minted())
    assert plan == KeyPlan(steps=(Amend(grant=wanted_grant(key)),), outcome="conflict")


def test_a_row_that_nobody_holds_goes_when_the_secret_is_somebody_elses() -> None:
    theirs = SecretFacts(uid="u", resource_version="1", labels={}, annotations={}, owner_uids=(), data={})
    plan = plan_api_key(api_key(), world(keys(row(1, "unpublished", token(1))), theirs), minted())
    assert plan == KeyPlan(steps=(Revoke(),), outcome="conflict")


@pytest.mark.parametrize("spec", [{"revoked": True}, {"expiresAt": "2025-12-31T23:59:59Z"}], ids=["revoked", "expired"])
def test_an_ended_key_is_refused_first_and_then_taken_out_of_sight(spec: dict[str, Any]) -> None:
    key = api_key(**spec)
    secret = secret_of(key, token(1), 1)
    plan = plan_api_key(key, world(keys(row(1, "published", token(1))), secret), minted())
    assert plan.steps == (Revoke(), DeleteSecret(name="key", uid=secret.uid))
    assert plan_api_key(key, world(keys(newest=1), None), minted()).steps == ()


def test_an_ended_key_leaves_an_orphan_and_a_strangers_secret() -> None:
    orphan = api_key(revoked=True, secret={"deletionPolicy": "Orphan"})
    live = keys(row(1, "published", token(1)))
    assert shape(plan_api_key(orphan, world(live, secret_of(orphan, token(1), 1)), minted())) == ["Revoke"]
    theirs = SecretFacts(uid="u", resource_version="1", labels={}, annotations={}, owner_uids=(), data={})
    assert shape(plan_api_key(api_key(revoked=True), world(live, theirs), minted())) == ["Revoke"]


def test_a_lost_row_is_readopted_when_the_mac_verifies() -> None:
    key = api_key()
    plan = plan_api_key(key, world(keys(), secret_of(key, token(1), 3)), minted())
    put, publish = plan.steps
    assert isinstance(put, PutRow)
    assert (put.key.revision, put.key.token_hash) == (3, token(1).hash)
    assert publish == Publish(revision=3, grace_seconds=86400)
    assert plan.outcome == "readopted"


@pytest.mark.parametrize("fault", ["revision known", "another team", "mac edited", "revision edited", "no revision"])
def test_a_token_that_is_not_provably_ours_is_not_brought_back(fault: str) -> None:
    key = api_key()
    secret = secret_of(key, token(1), 3)
    annotations = dict(secret.annotations)
    match fault:
        case "mac edited":
            annotations["commonplace.dev/mac"] = "0" * 64
        case "revision edited":
            annotations["commonplace.dev/revision"] = "4"
        case "no revision":
            del annotations["commonplace.dev/revision"]
    observed = world(
        keys(newest=3 if fault == "revision known" else 0),
        SecretFacts(**{**secret.__dict__, "annotations": annotations}),
        team_uid="other" if fault == "another team" else TEAM_UID,
    )
    plan = plan_api_key(key, observed, minted())
    put = plan.steps[0]
    assert isinstance(put, PutRow)
    assert put.key.token_hash == token(99).hash


def test_a_renamed_secret_is_written_before_the_old_one_goes() -> None:
    key = api_key(secret={"name": "other"})
    old = secret_of(api_key(), token(1), 1)
    plan = plan_api_key(key, world(keys(row(1, "published", token(1))), None, stale_secret=("key", old)), minted())
    assert shape(plan) == ["PutRow", "WriteSecret", "Publish", "DeleteSecret"]


def test_no_plan_shows_a_token() -> None:
    plan = plan_api_key(api_key(), world(keys(), None), minted())
    assert token(99).reveal() not in repr(plan)
    assert token(99).reveal() not in f"{plan} {token(99)} {token(99)!s:>40}"
