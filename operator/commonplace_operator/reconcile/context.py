"""What every reconcile needs, handed in by the composition root."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import structlog

from commonplace_operator.children.secret import MacKey
from commonplace_operator.cluster import Body, Cluster
from commonplace_operator.engine.events import EventRecorder, Regarding
from commonplace_operator.engine.metrics import Metrics
from commonplace_operator.planning.status import AnyObject
from commonplace_operator.reconcile.databases import KnownDatabases
from commonplace_operator.reconcile.scaling_board import ScalingBoard
from commonplace_operator.registry import Registries
from commonplace_operator.resources import names
from commonplace_operator.resources.names import Kind
from commonplace_operator.resources.reasons import EventReason
from commonplace_operator.resources.rows import Writer
from commonplace_operator.resources.token import Token

DEFAULT_CLASS: Final = "default"
_log = structlog.get_logger("commonplace_operator.reconcile")


@dataclass(frozen=True, kw_only=True)
class Key:
    """One object to reconcile: what waits in the queue."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.kind} {self.namespace}/{self.name}"


def key_of(kind: Kind, body: Body) -> Key:
    """The key of an object as it was listed."""
    metadata = body["metadata"]
    return Key(kind=kind, namespace=metadata["namespace"], name=metadata["name"])


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Seconds between looks at what is settled, and at queues."""

    resync_seconds: float
    quota_refresh_seconds: float
    scaling_seconds: float


@dataclass(frozen=True, kw_only=True)
class Context:
    """
    The world of the reconcilers: I/O, clock, chance, and who we are.

    term: the leader's, 0 without an election; raises Superseded when we do not lead any more.
    enqueue, enqueue_after: have other objects looked at, now or in so many seconds.
    enqueue_scaling: have the workers of a managed MemoryRuntime scaled from now on; scaling: what came of it.
    namespaces: those served, empty for all.
    operator_class: only objects of this class are served.
    runtime_image: repository of the image of managed runtimes that name none.
    databases: database of each MemoryRuntime met, so that rows can be released after the runtime is gone.
    """

    cluster: Cluster
    registries: Registries
    recorder: EventRecorder
    metrics: Metrics
    clock: Callable[[], datetime]
    chance: Callable[[], float]
    mint: Callable[[], Token]
    mint_password: Callable[[], str]
    new_id: Callable[[], str]
    enqueue: Callable[[Key], None]
    enqueue_after: Callable[[Key, float], None]
    enqueue_scaling: Callable[[Key], None]
    installation: str
    term: Callable[[], int]
    mac_key: MacKey
    timings: Timings
    databases: KnownDatabases
    scaling: ScalingBoard
    runtime_image: str
    operator_class: str = DEFAULT_CLASS
    namespaces: tuple[str, ...] = ()

    def resync_seconds(self) -> float:
        """When to look again at what is settled, moved by up to 10 % so that not all come at once."""
        return self.timings.resync_seconds * (0.9 + 0.2 * self.chance())

    def scaling_seconds(self) -> float:
        """When to look at a queue again, moved by up to 10 % so that not all runtimes are looked at together."""
        return self.timings.scaling_seconds * (0.9 + 0.2 * self.chance())

    def writer(self, wanted: AnyObject) -> Writer:
        """On whose behalf rows are written."""
        return Writer(installation=self.installation, term=self.term(), uid=wanted.uid, generation=wanted.generation)

    def tell(
        self, wanted: AnyObject, type_: Literal["Normal", "Warning"], reason: EventReason, note: str, *, action: str
    ) -> None:
        """Post an Event about the object and log it; `note` never holds a token."""
        _log.info("told", about=f"{wanted.kind.kind} {wanted.namespace}/{wanted.name}", reason=str(reason), note=note)
        regarding = Regarding(
            api_version=wanted.kind.api_version,
            kind=wanted.kind.kind,
            namespace=wanted.namespace,
            name=wanted.name,
            uid=wanted.uid,
        )
        self.recorder.record(regarding, type_, reason, note, action=action)

    async def enqueue_dependents(self, kinds: Iterable[Kind], field: str, name: str, namespace: str | None) -> None:
        """Have every object looked at that names `name` in the selectable field; namespace None: all that we serve."""
        for kind in kinds:
            for body in await self.list_naming(kind, field, name, namespace):
                self.enqueue(key_of(kind, body))

    async def list_naming(self, kind: Kind, field: str, name: str, namespace: str | None) -> list[Body]:
        """Objects that name `name` in the selectable field; namespace None: in all namespaces that we serve."""
        where: tuple[str | None, ...] = (namespace,) if namespace else self.namespaces or (None,)
        found: list[Body] = []
        for place in where:
            found += await self.cluster.list(kind, place, field_selector=f"{field}={name}")
        return found


def operator_class(body: Mapping[str, Any]) -> str:
    """Which operator serves the object: its annotation says so, and `default` serves those without."""
    annotations = body["metadata"].get("annotations") or {}
    return str(annotations.get(names.ANNOTATION_OPERATOR_CLASS, DEFAULT_CLASS))


def serves(context: Context, body: Mapping[str, Any]) -> bool:
    """Whether the object is this operator's to serve."""
    return operator_class(body) == context.operator_class


def _target(wanted: AnyObject) -> dict[str, str]:
    # The uid keeps an apply from creating anew what was deleted meanwhile.
    return {"namespace": wanted.namespace, "name": wanted.name, "uid": wanted.uid}


async def write_status(context: Context, wanted: AnyObject, status: dict[str, Any]) -> bool:
    """Write the status if it differs from what was read. Gives whether it did."""
    context.metrics.conditions.see(wanted.kind.kind, wanted.namespace, wanted.name, status["conditions"])
    if status == wanted.raw_status:
        return False
    await context.cluster.apply(wanted.kind, {"metadata": _target(wanted), "status": status}, subresource="status")
    context.metrics.writes.labels(wanted.kind.kind, "status").inc()
    return True


async def ensure_finalizer(context: Context, wanted: AnyObject) -> None:
    """Have the object wait for us when it is deleted. Called right before the first row is touched, never earlier."""
    if names.FINALIZER in wanted.metadata.finalizers:
        return
    await context.cluster.apply(wanted.kind, {"metadata": _target(wanted) | {"finalizers": [names.FINALIZER]}})
    context.metrics.writes.labels(wanted.kind.kind, "finalizer").inc()


async def release_finalizer(context: Context, wanted: AnyObject) -> None:
    """
    Let the object go.

    A JSON patch with a test, not an apply: somebody who applied an exported manifest may own our finalizer too.
    """
    if names.FINALIZER not in wanted.metadata.finalizers:
        return
    path = f"/metadata/finalizers/{wanted.metadata.finalizers.index(names.FINALIZER)}"
    await context.cluster.patch(
        wanted.kind,
        wanted.namespace,
        wanted.name,
        [
            {"op": "test", "path": "/metadata/uid", "value": wanted.uid},
            {"op": "test", "path": path, "value": names.FINALIZER},
            {"op": "remove", "path": path},
        ],
    )
    context.metrics.writes.labels(wanted.kind.kind, "release").inc()


def is_abandoned(wanted: AnyObject) -> bool:
    """The documented escape: the annotation `commonplace.dev/abandon` with the object's own name."""
    return wanted.metadata.annotations.get(names.ANNOTATION_ABANDON) == wanted.name
