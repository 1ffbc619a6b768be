"""
The Secrets with the passwords that the operator mints, and the connection URIs made of them.

Only passwords are kept; every URI is derived anew, so that a database that moved is followed.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

from commonplace_operator.children.installation import (
    OPERATOR_URI,
    OWNER_URI,
    POSTGRES,
    POSTGRES_PORT,
    REDIS,
    REDIS_PORT,
    RUNTIME_URI,
    child_name,
    component_labels,
    credentials_name,
    service_host,
)
from commonplace_operator.children.metadata import child_metadata
from commonplace_operator.resources import names
from commonplace_operator.resources.objects import MemoryRuntime
from commonplace_operator.resources.runtime_spec import DEFAULT_URI_KEY

OWNER_PASSWORD: Final = "owner-password"  # noqa: S105 - the name of a key
RUNTIME_PASSWORD: Final = "runtime-password"  # noqa: S105
OPERATOR_PASSWORD: Final = "operator-password"  # noqa: S105
REDIS_PASSWORD: Final = "password"  # noqa: S105
EMBEDDED_OWNER: Final = "postgres"
EMBEDDED_DATABASE: Final = "commonplace"


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


def with_login(uri: str, *, user: str, password: str) -> str:
    """The same database for another role. Raises ValueError for what is no URI."""
    parts = urlsplit(uri)
    _, _, host = parts.netloc.rpartition("@")
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return urlunsplit(parts._replace(netloc=f"{login}@{host}"))


def database_port(uri: str) -> int:
    """The port that a Postgres or Redis URI names; the usual one where it names none or cannot be read."""
    usual = REDIS_PORT if uri.startswith("redis") else POSTGRES_PORT
    try:
        # Of several hosts the last one's: a URI of libpq may name several, normally with one port.
        return urlsplit(f"//{urlsplit(uri).netloc.rpartition('@')[2].rpartition(',')[2]}").port or usual
    except ValueError:
        return usual


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
        "metadata": child_metadata(
            runtime, name=name, labels=component_labels(runtime, component), annotations={}, owned=True
        ),
        "type": "Opaque",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }
