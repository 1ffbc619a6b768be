"""Connection URIs of every shape, and the log-ins made of them."""

from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonplace_operator.children.credentials import (
    POSTGRES_SCHEMES,
    REDIS_SCHEMES,
    login_name,
    uri_fault,
    uri_ports,
    with_login,
)
from tests.unit.operator.managed import INSTALLATION, PRODUCTION, managed


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("postgresql://app:pw@db/memory", "postgresql://me:new@db/memory"),
        ("postgres://db:6432/memory?sslmode=require", "postgres://me:new@db:6432/memory?sslmode=require"),
        (
            "postgresql://app:p%40ss%2Fword@db/memory?options=-c%20a%3Db&target_session_attrs=any",
            "postgresql://me:new@db/memory?options=-c%20a%3Db&target_session_attrs=any",
        ),
        ("postgresql://app:pw@one:5432,two:5433/memory", "postgresql://me:new@one:5432,two:5433/memory"),
        ("postgresql://app:pw@[2001:db8::1]:5433/memory", "postgresql://me:new@[2001:db8::1]:5433/memory"),
        ("postgresql://app@/memory?host=db&port=5433", "postgresql://me:new@/memory?host=db&port=5433"),
        ("postgresql://db/memory?user=app&password=pw&sslmode=prefer", "postgresql://me:new@db/memory?sslmode=prefer"),
        ("postgresql://app:pw@db/?dbname=memory", "postgresql://me:new@db/?dbname=memory"),
    ],
)
def test_another_login_reaches_the_same_database_in_the_same_way(uri: str, expected: str) -> None:
    assert uri_fault(uri, POSTGRES_SCHEMES) is None
    assert with_login(uri, user="me", password="new") == expected


@given(user=st.text(min_size=1), password=st.text(min_size=1))
def test_whatever_the_password_is_the_uri_gives_it_back(user: str, password: str) -> None:
    try:
        user.encode(), password.encode()
    except UnicodeEncodeError:
        return
    uri = with_login("postgresql://app:pw@db:5433/memory?sslmode=require", user=user, password=password)
    parts = urlsplit(uri)
    assert (unquote(parts.username or ""), unquote(parts.password or "")) == (user, password)
    assert (parts.hostname, parts.port, parts.path, parts.query) == ("db", 5433, "/memory", "sslmode=require")
    assert uri_fault(uri, POSTGRES_SCHEMES) is None


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("postgresql:///memory?host=/run/postgresql", "unix socket"),
        ("postgresql://app@/memory?host=%2Frun%2Fpostgresql", "unix socket"),
        ("postgresql://app@%2Frun%2Fpostgresql/memory", "unix socket"),
        ("postgresql:///memory", "names no host"),
        ("postgresql://app:hunter2@:5432/memory", "names no host"),
        ("postgresql://app:hunter2@db", "names no database"),
        ("postgresql://app:hunter2@db/", "names no database"),
        ("postgresql://postgres:hunter2@memory-rw.ns:5432/*", "CloudNativePG"),
        ("mysql://app:hunter2@db/memory", "no postgresql/postgres URI"),
        ("hunter2", "no postgresql/postgres URI"),
        ("postgresql://app:hunter2@x@db/memory", "percent-encoded"),
        ("postgresql://app:hunter2/x@db/memory", "percent-encoded"),
        ("postgresql://app:hunter2#x@db/memory", "percent-encoded"),
        ("postgresql://app:hunter2?x@db/memory", "percent-encoded"),
        ("postgresql://app:12/x@db/memory", "percent-encoded"),
        ("postgresql://app:12?x@db/memory", "percent-encoded"),
        ("postgresql://app:hunter2[x@db/memory", "percent-encoded"),
        ("postgresql://app:hunter2@db:port/memory", "percent-encoded"),
        ("postgresql://app:hunter2@db:99999/memory", "percent-encoded"),
    ],
)
def test_a_uri_that_no_pod_can_use_is_named_without_its_words(uri: str, told: str) -> None:
    fault = uri_fault(uri, POSTGRES_SCHEMES)
    assert fault is not None
    assert told in fault
    assert "hunter2" not in fault


def test_a_queue_needs_no_database_in_its_uri() -> None:
    assert uri_fault("redis://queue", REDIS_SCHEMES) is None
    assert uri_fault("rediss://:pw@queue:6390/3", REDIS_SCHEMES) is None
    assert uri_fault("unix:///run/redis.sock", REDIS_SCHEMES) == "is no redis/rediss URI"


@pytest.mark.parametrize(
    ("uri", "ports"),
    [
        ("postgresql://db/memory", (5432,)),
        ("postgresql://a:1,b/memory", (1, 5432)),
        ("postgresql://[::1]:7,[::2]:8/memory", (7, 8)),
        ("postgresql://app@/memory?host=a,b&port=1,2", (1, 2)),
        ("rediss://:pw@queue", (6379,)),
        ("redis://queue:6390/0", (6390,)),
    ],
)
def test_every_port_of_a_uri_is_known(uri: str, ports: tuple[int, ...]) -> None:
    assert uri_ports(uri) == ports


def test_names_of_logins_fit_and_differ_by_place() -> None:
    long = managed(PRODUCTION.named("a" * 40))
    names = {login_name(purpose, long, installation=INSTALLATION) for purpose in ("runtime", "operator")}
    names.add(login_name("runtime", managed(PRODUCTION), installation=INSTALLATION))
    names.add(login_name("runtime", managed(PRODUCTION), installation="another-cluster/default"))
    assert len(names) == 4
    assert all(len(name) <= 63 for name in names)
