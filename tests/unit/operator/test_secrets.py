"""From the Secrets that a managed runtime names to an installation, or to what is missing."""

from collections.abc import Callable
from typing import Any

import pytest

from commonplace_operator.planning.secrets import Missing, kept_passwords, secrets_read
from commonplace_operator.planning.unimplemented import unimplemented_in_runtime
from tests.unit.operator.managed import (
    CLOUDNATIVE_PG,
    EXAMPLES,
    OWN_REGISTRY,
    PASSWORDS,
    PRODUCTION,
    TRIAL,
    Example,
    child,
    clear,
    installed,
    managed,
    resolved,
)


def without(example: Example, secret: str, key: str | None = None) -> Example:
    known = {name: dict(data) for name, data in example.secrets.items()}
    if key is None:
        del known[secret]
    else:
        del known[secret][key]
    return Example(spec=example.spec, secrets=known)


@pytest.mark.parametrize(
    ("example", "reason", "told"),
    [
        (
            without(PRODUCTION, "memory-owner"),
            "SecretNotFound",
            "ns/memory-owner (spec.database.ownerSecretRef) does not",
        ),
        (without(PRODUCTION, "memory-owner", "uri"), "SecretNotFound", "has no key uri; it has: none"),
        (PRODUCTION.with_secret("memory-owner", uri=" \n"), "SecretNotFound", "has no key uri"),
        (PRODUCTION.with_secret("memory-owner", uri="hunter2-x"), "DatabaseRefused", "is no postgresql/postgres URI"),
        (
            PRODUCTION.with_secret("memory-owner", uri="postgresql://app:hunter2/x@db/memory"),
            "DatabaseRefused",
            "percent-encoded",
        ),
        (
            PRODUCTION.with_secret("memory-owner", uri="postgresql:///memory?host=/run"),
            "DatabaseRefused",
            "unix socket",
        ),
        (
            without(PRODUCTION, "memory-queue"),
            "SecretNotFound",
            "ns/memory-queue (spec.queue.secretRef) does not exist",
        ),
        (PRODUCTION.with_secret("memory-queue", uri="http://hunter2-q"), "SecretNotFound", "redis://"),
        (without(PRODUCTION, "model-keys"), "SecretNotFound", "(the Secret of provider anthropic) does not exist"),
        (without(PRODUCTION, "model-keys", "gemini"), "SecretNotFound", "has no key gemini; it has: anthropic"),
        (PRODUCTION.with_secret("model-keys", gemini="hunter2-g\n"), "SecretNotFound", "white space"),
        (without(OWN_REGISTRY, "memory-pooler"), "SecretNotFound", "(spec.database.runtimeSecretRef) does not exist"),
        (
            without(OWN_REGISTRY, "memory-pooler", "operator"),
            "SecretNotFound",
            "(spec.database.operatorSecretRef) has no key operator; it has: runtime",
        ),
        (
            OWN_REGISTRY.with_secret("memory-pooler", runtime="hunter2"),
            "DatabaseRefused",
            "(spec.database.runtimeSecretRef): its key runtime",
        ),
        (without(OWN_REGISTRY, "vllm", "base-url"), "SecretNotFound", "the endpoint's URL in key base-url"),
    ],
)
def test_what_is_missing_is_named_without_what_is_there(example: Example, reason: str, told: str) -> None:
    found = resolved(example)
    assert isinstance(found, Missing)
    assert found.reason == reason
    assert told in found.message
    assert "hunter2" not in found.message
    assert "Secret ns/" in found.message


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_no_repr_shows_a_secret(example: Example) -> None:
    text = repr(resolved(example)) + repr(PASSWORDS)
    assert "password=" not in text
    assert "hunter2" not in text
    assert PASSWORDS.owner not in text


def test_the_trial_needs_nothing_of_the_user() -> None:
    database = clear(child(TRIAL, "Secret", "-database"))
    assert database["owner-uri"] == "postgresql://postgres:owners-password@main-postgres.ns.svc:5432/commonplace"
    assert clear(child(TRIAL, "Secret", "-redis"))["uri"] == "redis://:redis-password@main-redis.ns.svc:6379/0"
    assert secrets_read(managed(TRIAL)) == ("main-database", "main-redis")


def test_the_secret_of_cloudnative_pg_is_taken_as_it_is() -> None:
    data = clear(child(CLOUDNATIVE_PG, "Secret", "-database"))
    assert data["runtime-uri"].endswith(":runtimes-password@memory-rw.ns:5432/app")
    assert set(data) == {"runtime-uri", "runtime-password", "operator-uri", "operator-password"}


def test_only_what_is_missing_is_minted() -> None:
    known = {"main-database": {"runtime-password": "kept", "operator-password": ""}}
    kept = kept_passwords(managed(TRIAL), known, PASSWORDS)
    assert (kept.runtime, kept.operator, kept.redis) == ("kept", PASSWORDS.operator, PASSWORDS.redis)


def test_every_secret_that_decides_is_read() -> None:
    assert secrets_read(managed(OWN_REGISTRY)) == (
        "main-database",
        "main-redis",
        "memory-owner",
        "memory-pooler",
        "vllm",
    )


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        (lambda e: e.with_secret("memory-owner", unrelated="x"), True),
        (lambda e: e.with_secret("memory-queue", uri=e.secrets["memory-queue"]["uri"] + "\n"), True),
        (lambda e: e.with_secret("model-keys", **{"base-url": "https://proxy.example.com"}), False),
    ],
)
def test_fingerprints_follow_the_values_that_are_used(change: Callable[[Example], Example], is_same: bool) -> None:
    one, other = installed(PRODUCTION).credentials, installed(change(PRODUCTION)).credentials
    assert (one == other) is is_same
    assert all(len(value) == 16 for value in one.values())


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"deletionPolicy": "Delete"}, ("spec.deletionPolicy",)),
        ({"deletionPolicy": "Retain"}, ()),
        ({"deletionPolicy": "Delete", "database": {"embedded": True}}, ()),
    ],
)
def test_data_in_somebodys_database_is_never_deleted_and_that_is_said(
    spec: dict[str, Any], expected: tuple[str, ...]
) -> None:
    assert unimplemented_in_runtime(managed(PRODUCTION.changed(**spec))) == expected
