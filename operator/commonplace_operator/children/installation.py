"""What the children of a managed MemoryRuntime are built from, and what they are called."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from commonplace_operator.children.metadata import child_metadata
from commonplace_operator.resources import names
from commonplace_operator.resources.objects import MemoryRuntime
from commonplace_operator.resources.runtime_spec import DEFAULT_URI_KEY
from commonplace_operator.resources.wire import SecretRef
from commonplace_runtime import contract

API: Final = "api"
WORKER: Final = "worker"
MIGRATE: Final = "migrate"
POSTGRES: Final = "postgres"
REDIS: Final = "redis"

POSTGRES_PORT: Final = 5432
REDIS_PORT: Final = 6379

_LABEL_CHARACTERS: Final = 63

OWNER_URI: Final = "owner-uri"
RUNTIME_URI: Final = "runtime-uri"
OPERATOR_URI: Final = "operator-uri"


@dataclass(frozen=True, kw_only=True)
class SecretKey:
    """One key of a Secret in the runtime's namespace."""

    name: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Installation:
    """
    A managed MemoryRuntime with everything resolved that its pods need.

    credentials: one fingerprint for each component of the Secrets that its pods read, so that a changed password
    restarts them. database_ports, migration_ports (where the owner's and all log-ins go), queue_ports, provider_ports:
    where pods must be let out to.
    """

    runtime: MemoryRuntime
    image: str
    credentials: dict[str, str] = field(default_factory=dict)
    database_ports: tuple[int, ...] = (POSTGRES_PORT,)
    migration_ports: tuple[int, ...] = (POSTGRES_PORT,)
    queue_ports: tuple[int, ...] = ()
    provider_ports: tuple[int, ...] = ()
    has_provider_url: frozenset[str] = frozenset()

    @property
    def is_embedded(self) -> bool:
        """Whether Postgres runs beside the API."""
        return self.runtime.spec.database.embedded


def child_name(runtime: MemoryRuntime, component: str) -> str:
    """Name of a runtime's child; at most 50 characters, for the schema limits the runtime's own to 40."""
    return f"{runtime.name}-{component}"


def credentials_name(runtime: MemoryRuntime) -> str:
    """The Secret with the passwords that the operator mints."""
    return child_name(runtime, "database")


def selector_labels(runtime: MemoryRuntime, component: str) -> dict[str, str]:
    """What chooses the pods of one component; never changes, for selectors cannot."""
    return {names.LABEL_RUNTIME: runtime.name, names.LABEL_COMPONENT: component}


def component_labels(runtime: MemoryRuntime, component: str) -> dict[str, str]:
    """Labels of a component's objects and pods."""
    return {
        names.LABEL_NAME: "commonplace",
        names.LABEL_INSTANCE: runtime.name,
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        **selector_labels(runtime, component),
    }


def component_metadata(
    runtime: MemoryRuntime, component: str, *, name: str = "", labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Metadata of a component's object, which goes when the runtime goes; named after the component unless `name`."""
    return child_metadata(
        runtime,
        name=name or child_name(runtime, component),
        labels={**(labels or {}), **component_labels(runtime, component)},
        annotations={},
        owned=True,
    )


def owner_key(runtime: MemoryRuntime) -> SecretKey:
    """Where the database owner's URI is."""
    return _key(runtime.spec.database.owner_secret_ref, runtime, OWNER_URI)


def runtime_key(runtime: MemoryRuntime) -> SecretKey:
    """Where the URI of api and workers is."""
    return _key(runtime.spec.database.runtime_secret_ref, runtime, RUNTIME_URI)


def operator_key(runtime: MemoryRuntime) -> SecretKey | None:
    """Where the operator's own URI is; None for an External runtime that names none."""
    reference = runtime.spec.database.operator_secret_ref
    if reference is None and runtime.spec.management == "External":
        return None
    return _key(reference, runtime, OPERATOR_URI)


def queue_key(runtime: MemoryRuntime) -> SecretKey | None:
    """Where the URI of Redis is; None without one."""
    queue = runtime.spec.queue
    if queue is None:
        return None
    if queue.embedded:
        return SecretKey(name=child_name(runtime, REDIS), key=DEFAULT_URI_KEY)
    return _key(queue.secret_ref, runtime, DEFAULT_URI_KEY) if queue.secret_ref else None


def _key(reference: SecretRef | None, runtime: MemoryRuntime, minted: str) -> SecretKey:
    if reference is not None:
        return SecretKey(name=reference.name, key=reference.key or DEFAULT_URI_KEY)
    return SecretKey(name=credentials_name(runtime), key=minted)


def service_host(runtime: MemoryRuntime, component: str) -> str:
    """Host name of a component's Service, as every pod of the cluster resolves it."""
    return f"{child_name(runtime, component)}.{runtime.namespace}.svc"


def endpoint_of(runtime: MemoryRuntime) -> str:
    """Where clients reach the API, without a trailing slash: the public URL, else the Ingress, else the Service."""
    spec = runtime.spec
    if spec.public_url or spec.management == "External":
        return (spec.public_url or "").rstrip("/")
    if spec.ingress is not None:
        return f"{'https' if spec.ingress.tls else 'http'}://{spec.ingress.host}"
    return f"http://{service_host(runtime, API)}:{contract.API_PORT}"


def runtime_label(runtime: MemoryRuntime) -> str:
    """What the queue's metrics call this installation: `<namespace>.<name>`, shortened to what a label may hold."""
    label = f"{runtime.namespace}.{runtime.name}"
    if len(label) <= _LABEL_CHARACTERS:
        return label
    return f"{label[:52].rstrip('.-')}-{hashlib.sha256(label.encode()).hexdigest()[:10]}"
