"""
kopf gives authentication, watch streams, discovery and signals; a change becomes a key in the queue.

Nothing else happens here: kopf swallows errors of such handlers. It keeps no finalizer, annotation, retry,
timer or daemon of its own.
"""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import aiohttp
import kopf

from commonplace_operator.reconcile.context import Key
from commonplace_operator.resources import names

KOPF_CONNECTIONS: Final = 32
_CHILDREN: Final = (("apps", "v1", "deployments"), ("apps", "v1", "statefulsets"), ("batch", "v1", "jobs"))
"""What a managed runtime consists of and reports by itself. Other children are looked at with each resync."""
_STREAMS_PER_NAMESPACE: Final = len(names.OURS) + len(_CHILDREN) + 1
_UNUSED_FINALIZER: Final = f"{names.GROUP}/kopf-never-uses-this"

Offer = Callable[[Key], Awaitable[None]]


def kopf_connections(namespaces: tuple[str, ...]) -> int:
    """How many connections kopf may hold: 32, or what its watch streams need where many namespaces are named."""
    return max(KOPF_CONNECTIONS, _STREAMS_PER_NAMESPACE * len(namespaces) + 8)


class _Patience:
    """Delays between attempts of kopf's requests, without end: a watch that gave up would be silent for ever."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.5, 1, 2, 3, 5, 8)
        while True:
            yield 10


def build_registry(
    offer: Offer, *, server: str, open_session: Callable[[], Awaitable[aiohttp.ClientSession]]
) -> kopf.OperatorRegistry:
    """Handlers for our four kinds and for the Secrets of ApiKeys."""
    registry = kopf.OperatorRegistry()

    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=server, aiohttp_session=await open_session())

    kopf.on.login(registry=registry)(login)

    for kind in names.OURS:

        async def changed(namespace: str | None, name: str, param: Any = None, **_: Any) -> None:
            if namespace and name:
                await offer(Key(kind=param, namespace=namespace, name=name))

        kopf.on.event(names.GROUP, names.VERSION, kind.plural, registry=registry, id=kind.plural, param=kind)(changed)

    async def secret_changed(namespace: str | None, labels: kopf.Labels, **_: Any) -> None:
        for label, kind in ((names.LABEL_API_KEY, names.API_KEY), (names.LABEL_RUNTIME, names.RUNTIME)):
            owner = labels.get(label)
            if namespace and owner:
                await offer(Key(kind=kind, namespace=namespace, name=owner))

    kopf.on.event("", "v1", names.SECRET.plural, registry=registry, id="secrets")(secret_changed)

    async def child_changed(namespace: str | None, labels: kopf.Labels, **_: Any) -> None:
        owner = labels.get(names.LABEL_RUNTIME)
        if namespace and owner:
            await offer(Key(kind=names.RUNTIME, namespace=namespace, name=owner))

    for group, version, plural in _CHILDREN:
        kopf.on.event(group, version, plural, registry=registry, id=f"runtime-{plural}")(child_changed)
    return registry


def build_settings(*, namespaces: tuple[str, ...]) -> kopf.OperatorSettings:
    """kopf, made to watch and to do nothing else."""
    settings = kopf.OperatorSettings()
    # Scanning, kopf leaves a named namespace as soon as its deletion begins: the finalizers in it would stay for ever.
    settings.scanning.disabled = bool(namespaces)
    settings.posting.enabled = False
    settings.persistence.finalizer = _UNUSED_FINALIZER
    settings.watching.label_selectors["", "v1", names.SECRET.plural] = names.LABEL_OWNER_UID
    for group, version, plural in _CHILDREN:
        settings.watching.label_selectors[group, version, plural] = names.LABEL_OWNER_UID
    settings.networking.error_backoffs = _Patience()
    settings.networking.request_timeout = 60
    settings.networking.connect_timeout = 10
    settings.queueing.idle_timeout = 1.0
    settings.queueing.exit_timeout = 0.2
    return settings


async def watch(
    registry: kopf.OperatorRegistry,
    *,
    namespaces: tuple[str, ...],
) -> None:
    """
    Watch until SIGTERM or SIGINT; raises what kopf gave up on.

    No stop flag: on a signal kopf 1.45.2 leaves the task that waits for one pending, and then waits 5 s for it.
    """
    await kopf.operator(
        registry=registry,
        settings=build_settings(namespaces=namespaces),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
    )
