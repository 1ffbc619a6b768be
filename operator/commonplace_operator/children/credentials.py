"""
The Secrets with the passwords that the operator mints, and the connection URIs made of them.

Only passwords are kept; every URI is derived anew, so that a database that moved is followed.
"""

import base64
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, quote, unquote, urlsplit, urlunsplit

from commonplace_operator.children.installation import (
    OPERATOR_URI,
    OWNER_URI,
    POSTGRES,
    POSTGRES_PORT,
    REDIS,
    REDIS_PORT,
    RUNTIME_URI,
    child_name,
    component_metadata,
    credentials_name,
    service_host,
)
from commonplace_operator.resources import names
from commonplace_operator.resources.objects import MemoryRuntime
from commonplace_operator.resources.runtime_spec import DEFAULT_URI_KEY

OWNER_PASSWORD: Final = "owner-password"  # noqa: S105 - the name of a key
RUNTIME_PASSWORD: Final = "runtime-password"  # noqa: S105
OPERATOR_PASSWORD: Final = "operator-password"  # noqa: S105
REDIS_PASSWORD: Final = "password"  # noqa: S105
EMBEDDED_OWNER: Final = "postgres"
EMBEDDED_DATABASE: Final = "commonplace"
POSTGRES_SCHEMES: Final = ("postgresql", "postgres")
REDIS_SCHEMES: Final = ("redis", "rediss")
_ENCODED: Final = "special characters of its password have to be percent-encoded"


@dataclass(frozen=True, kw_only=True)
class Passwords:
    """What was minted, or found in the Secrets of an earlier pass. Never shown."""

    owner: str = field(repr=False)
    runtime: str = field(repr=False)
    operator: str = field(repr=False)
    redis: str = field(repr=False)


def login_name(purpose: str, runtime: MemoryRuntime, *, installation: str) -> str:
    """
    Log-in role of a runtime: `commonplace_<purpose>_<10 hex>`.

    Roles belong to the whole database server, so two runtimes, or two clusters, on one server must not share a name.
    """
    place = f"{installation}/{runtime.namespace}/{runtime.name}"
    return f"commonplace_{purpose}_{hashlib.sha256(place.encode()).hexdigest()[:10]}"


def embedded_owner_uri(runtime: MemoryRuntime, passwords: Passwords) -> str:
    """The owner of the embedded Postgres."""
    host = service_host(runtime, POSTGRES)
    return f"postgresql://{EMBEDDED_OWNER}:{quote(passwords.owner, safe='')}@{host}:{POSTGRES_PORT}/{EMBEDDED_DATABASE}"


def uri_fault(uri: str, schemes: Collection[str]) -> str | None:
    """What is wrong with a connection URI for pods, without repeating any of it; None when nothing is."""
    try:
        parts = urlsplit(uri)
        query = parse_qs(parts.query, strict_parsing=bool(parts.query), keep_blank_values=True)
        hosts = _hosts(uri)
        _ = [urlsplit(f"//{host}").port for host in hosts]
    except ValueError:
        return f"cannot be read; {_ENCODED}"
    if parts.scheme not in schemes:
        return f"is no {'/'.join(schemes)} URI"
    if parts.fragment or parts.netloc.count("@") > 1 or "@" in parts.path:
        return f"cannot be read; {_ENCODED}"
    if any(unquote(host).startswith("/") for host in hosts):
        return "names a unix socket, which no pod reaches: name a host"
    if not all(urlsplit(f"//{host}").hostname for host in hosts):
        return "names no host"
    if parts.scheme in POSTGRES_SCHEMES:
        database = unquote(parts.path.removeprefix("/")) or _last(query, "dbname") or _last(query, "database")
        if not database:
            return "names no database"
        if database == "*":
            return "names the database *, as a superuser's Secret of CloudNativePG does: name the one to use"
    return None


def with_login(uri: str, *, user: str, password: str) -> str:
    """The same database for another role, options included. `uri` is one without `uri_fault`."""
    parts = urlsplit(uri)
    _, _, host = parts.netloc.rpartition("@")
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    # libpq lets these win over what stands before the host.
    options = [o for o in parts.query.split("&") if o.partition("=")[0] not in {"user", "password", "passfile"}]
    return urlunsplit(parts._replace(netloc=f"{login}@{host}", query="&".join(options)))


def uri_ports(uri: str) -> tuple[int, ...]:
    """The ports that a Postgres or Redis URI names, in order; the usual one for a host without."""
    usual = REDIS_PORT if uri.startswith("redis") else POSTGRES_PORT
    named = parse_qs(urlsplit(uri).query).get("port", [""])[-1]
    elsewhere = {int(port) for port in named.split(",") if port.isdecimal()}
    own = {port for host in _hosts(uri) if (port := urlsplit(f"//{host}").port)}
    is_bare = any(urlsplit(f"//{host}").port is None for host in _hosts(uri))
    return tuple(sorted(own | elsewhere | ({usual} if is_bare and not elsewhere else set())))


def _hosts(uri: str) -> list[str]:
    parts = urlsplit(uri)
    before = parts.netloc.rpartition("@")[2]
    return (before or _last(parse_qs(parts.query), "host")).split(",")


def _last(query: Mapping[str, list[str]], name: str) -> str:
    return query.get(name, [""])[-1]


def credentials_secret(
    runtime: MemoryRuntime, passwords: Passwords, *, owner_uri: str, installation: str
) -> dict[str, Any]:
    """Passwords and URIs of the runtime's and the operator's log-in, and of the embedded owner's."""
    data = {
        RUNTIME_PASSWORD: passwords.runtime,
        OPERATOR_PASSWORD: passwords.operator,
        RUNTIME_URI: with_login(
            owner_uri, user=login_name("runtime", runtime, installation=installation), password=passwords.runtime
        ),
        OPERATOR_URI: with_login(
            owner_uri, user=login_name("operator", runtime, installation=installation), password=passwords.operator
        ),
    }
    if runtime.spec.database.embedded:
        data |= {OWNER_PASSWORD: passwords.owner, OWNER_URI: owner_uri}
    return _secret(runtime, credentials_name(runtime), POSTGRES, data)


def redis_secret(runtime: MemoryRuntime, passwords: Passwords) -> dict[str, Any]:
    """Password and URI of the embedded Redis."""
    uri = f"redis://:{quote(passwords.redis, safe='')}@{service_host(runtime, REDIS)}:{REDIS_PORT}/0"
    data = {REDIS_PASSWORD: passwords.redis, DEFAULT_URI_KEY: uri}
    return _secret(runtime, child_name(runtime, REDIS), REDIS, data)


def _secret(runtime: MemoryRuntime, name: str, component: str, data: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": names.SECRET.api_version,
        "kind": names.SECRET.kind,
        "metadata": component_metadata(runtime, component, name=name),
        "type": "Opaque",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }
