"""From the Secrets that a managed runtime names to an installation that can run, or to what is missing."""

import base64
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from commonplace_operator.children.credentials import (
    OPERATOR_PASSWORD,
    OWNER_PASSWORD,
    POSTGRES_SCHEMES,
    REDIS_PASSWORD,
    REDIS_SCHEMES,
    RUNTIME_PASSWORD,
    Passwords,
    credentials_secret,
    embedded_owner_uri,
    redis_secret,
    uri_fault,
    uri_ports,
)
from commonplace_operator.children.installation import (
    API,
    MIGRATE,
    POSTGRES,
    REDIS,
    WORKER,
    Installation,
    SecretKey,
    child_name,
    credentials_name,
    operator_key,
    owner_key,
    queue_key,
    runtime_key,
)
from commonplace_operator.children.network import HTTPS_PORT
from commonplace_operator.children.secret import MacKey
from commonplace_operator.children.worker import BASE_URL_KEY, provider_key
from commonplace_operator.resources.objects import MemoryRuntime
from commonplace_operator.resources.reasons import Reason
from commonplace_operator.resources.runtime_spec import ProviderSpec

Data = Mapping[str, str]
HTTP_PORT: Final = 80


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Why no pod can be made, and what to do about it."""

    reason: Reason
    message: str


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """An installation and the Secrets that the operator writes for it."""

    installation: Installation
    secrets: tuple[dict[str, object], ...] = field(repr=False)


def secrets_read(runtime: MemoryRuntime) -> tuple[str, ...]:
    """Names of every Secret that decides about a managed runtime, those of our own making included."""
    keys = [owner_key(runtime), runtime_key(runtime), operator_key(runtime), queue_key(runtime)]
    keys += [provider_key(provider) for provider in providers(runtime)]
    found = {key.name for key in keys if key is not None} | {credentials_name(runtime), child_name(runtime, REDIS)}
    return tuple(sorted(found))


def providers(runtime: MemoryRuntime) -> tuple[ProviderSpec, ...]:
    """The provider and its fallbacks."""
    chain = runtime.spec.provider
    return (chain, *chain.fallbacks)


def kept_passwords(runtime: MemoryRuntime, known: Mapping[str, Data], minted: Passwords) -> Passwords:
    """The passwords in use; those that are missing come from `minted`. known: Secrets of ours only."""
    database = known.get(credentials_name(runtime), {})
    redis = known.get(child_name(runtime, REDIS), {})
    return Passwords(
        owner=database.get(OWNER_PASSWORD) or minted.owner,
        runtime=database.get(RUNTIME_PASSWORD) or minted.runtime,
        operator=database.get(OPERATOR_PASSWORD) or minted.operator,
        redis=redis.get(REDIS_PASSWORD) or minted.redis,
    )


def resolve(
    runtime: MemoryRuntime,
    *,
    known: Mapping[str, Data],
    passwords: Passwords,
    image: str,
    mac_key: MacKey,
    installation: str,
) -> Resolved | Missing:
    """
    Everything that the children are built from.

    known: the Secrets of the namespace by name, in clear. installation: which operator's, for names of log-in roles.
    """
    is_embedded = runtime.spec.database.embedded
    owner_uri = embedded_owner_uri(runtime, passwords) if is_embedded else ""
    if not is_embedded:
        owner = owner_key(runtime)
        found = _uri(runtime, known, owner, "spec.database.ownerSecretRef", POSTGRES_SCHEMES)
        if isinstance(found, Missing):
            return found
        owner_uri = found
    made = [credentials_secret(runtime, passwords, owner_uri=owner_uri, installation=installation)]
    embeds_queue = runtime.spec.queue is not None and runtime.spec.queue.embedded
    if embeds_queue:
        made.append(redis_secret(runtime, passwords))
    # What is about to be written counts as there.
    data = {**known, **{secret["metadata"]["name"]: _clear(secret) for secret in made}}
    fault = _references(runtime, data)
    if fault is not None:
        return fault
    values = {name: _value(data, key) for name, key in _used(runtime).items()}
    queue_uri = values.get("queue")
    ports = tuple(sorted({_provider_port(data, provider) for provider in providers(runtime) if provider.secret_ref}))
    database = values["runtime"]
    fingerprints = {
        API: mac_key.fingerprint(database, queue_uri or ""),
        WORKER: mac_key.fingerprint(database, queue_uri or "", *_provider_values(runtime, data)),
        MIGRATE: mac_key.fingerprint(owner_uri, database, values.get("operator", "")),
    }
    if is_embedded:
        fingerprints[POSTGRES] = mac_key.fingerprint(passwords.owner)
    if embeds_queue:
        fingerprints[REDIS] = mac_key.fingerprint(passwords.redis)
    built = Installation(
        runtime=runtime,
        image=image,
        credentials=fingerprints,
        database_ports=uri_ports(database),
        migration_ports=_ports(owner_uri, database, values.get("operator")),
        queue_ports=uri_ports(queue_uri) if queue_uri else (),
        provider_ports=ports,
        has_provider_url=frozenset(
            provider.secret_ref.name
            for provider in providers(runtime)
            if provider.secret_ref and data.get(provider.secret_ref.name, {}).get(BASE_URL_KEY)
        ),
    )
    return Resolved(installation=built, secrets=tuple(made))


def _ports(*uris: str | None) -> tuple[int, ...]:
    return tuple(sorted({port for uri in uris if uri for port in uri_ports(uri)}))


def _used(runtime: MemoryRuntime) -> dict[str, SecretKey]:
    keys = {"runtime": runtime_key(runtime), "operator": operator_key(runtime), "queue": queue_key(runtime)}
    return {name: key for name, key in keys.items() if key is not None}


def _references(runtime: MemoryRuntime, data: Mapping[str, Data]) -> Missing | None:
    database, queue = runtime.spec.database, runtime.spec.queue
    for reference, key, field_name in (
        (database.runtime_secret_ref, runtime_key(runtime), "runtimeSecretRef"),
        (database.operator_secret_ref, operator_key(runtime), "operatorSecretRef"),
    ):
        if reference is not None and key is not None:
            found = _uri(runtime, data, key, f"spec.database.{field_name}", POSTGRES_SCHEMES)
            if isinstance(found, Missing):
                return found
    if queue is not None and queue.secret_ref is not None and (key := queue_key(runtime)):
        found = _uri(runtime, data, key, "spec.queue.secretRef", REDIS_SCHEMES)
        if isinstance(found, Missing):
            return found
    return next((fault for fault in (_provider_fault(runtime, data, p) for p in providers(runtime)) if fault), None)


def _provider_fault(runtime: MemoryRuntime, data: Mapping[str, Data], provider: ProviderSpec) -> Missing | None:
    key = provider_key(provider)
    if key is None or provider.name == "extractive":
        return None
    where = f"the Secret of provider {provider.name}"
    if fault := _absent(runtime, data, key, where):
        return fault
    if data[key.name][key.key] != _value(data, key):
        message = (
            f"Secret {runtime.namespace}/{key.name}: its key {key.key} ({where}) begins or ends with white space, "
            "which would be sent too: make it with printf or --from-literal"
        )
        return Missing(reason=Reason.SECRET_NOT_FOUND, message=message)
    if provider.name == "openai" and not data[key.name].get(BASE_URL_KEY):
        message = (
            f"Secret {runtime.namespace}/{key.name}: provider openai needs the endpoint's URL in key {BASE_URL_KEY}"
        )
        return Missing(reason=Reason.SECRET_NOT_FOUND, message=message)
    return None


def _absent(runtime: MemoryRuntime, data: Mapping[str, Data], key: SecretKey, where: str) -> Missing | None:
    place = f"Secret {runtime.namespace}/{key.name}"
    if key.name not in data:
        return Missing(reason=Reason.SECRET_NOT_FOUND, message=f"{place} ({where}) does not exist: create it")
    if not data[key.name].get(key.key, "").strip():
        known = ", ".join(sorted(data[key.name])) or "none"
        message = f"{place} ({where}) has no key {key.key}; it has: {known}"
        return Missing(reason=Reason.SECRET_NOT_FOUND, message=message)
    return None


def _uri(
    runtime: MemoryRuntime, data: Mapping[str, Data], key: SecretKey, where: str, schemes: Collection[str]
) -> str | Missing:
    if fault := _absent(runtime, data, key, where):
        return fault
    uri = _value(data, key)
    wrong = uri_fault(uri, schemes)
    if wrong is None:
        return uri
    is_database = schemes is POSTGRES_SCHEMES
    wanted = "postgresql://user:password@host:5432/database" if is_database else "redis://:password@host:6379/0"
    # Not the value itself: it may hold a password.
    message = f"Secret {runtime.namespace}/{key.name} ({where}): its key {key.key} {wrong}; wanted is {wanted}"
    return Missing(reason=Reason.DATABASE_REFUSED if is_database else Reason.SECRET_NOT_FOUND, message=message)


def _value(data: Mapping[str, Data], key: SecretKey) -> str:
    return data.get(key.name, {}).get(key.key, "").strip()


def _provider_values(runtime: MemoryRuntime, data: Mapping[str, Data]) -> list[str]:
    found = []
    for provider in providers(runtime):
        if key := provider_key(provider):
            found += [_value(data, key), data.get(key.name, {}).get(BASE_URL_KEY, "")]
    return found


def _provider_port(data: Mapping[str, Data], provider: ProviderSpec) -> int:
    url = data.get(provider.secret_ref.name, {}).get(BASE_URL_KEY, "") if provider.secret_ref else ""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return HTTPS_PORT
    return port or (HTTP_PORT if parts.scheme == "http" else HTTPS_PORT)


def _clear(secret: Mapping[str, object]) -> Data:
    data = secret["data"]
    assert isinstance(data, Mapping)  # noqa: S101 - we built it
    return {key: base64.b64decode(value).decode() for key, value in data.items()}
