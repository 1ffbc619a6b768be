"""
The operator put together from its parts, each of which a test may wrap.

`build` takes the adapters; `Operator.run` starts what is ours before kopf starts, because kopf cancels every task
younger than itself when it ends. Every process watches; the one that leads works.
"""

import asyncio
import base64
import random
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import aiohttp
import structlog

from commonplace_operator import errors
from commonplace_operator.children.secret import MacKey
from commonplace_operator.cluster import Cluster
from commonplace_operator.engine.election import Alone, Election, Elector, LeaseTimings
from commonplace_operator.engine.events import EventRecorder
from commonplace_operator.engine.health import HealthServer
from commonplace_operator.engine.metrics import Metrics
from commonplace_operator.engine.queue import Result, WorkQueue
from commonplace_operator.fencing import ClusterLeases, FencedCluster
from commonplace_operator.handlers.watch import build_registry, watch
from commonplace_operator.reconcile.context import Context, Key, Timings, key_of
from commonplace_operator.reconcile.databases import KnownDatabases
from commonplace_operator.reconcile.dispatch import reconcile
from commonplace_operator.reconcile.scaling import scale
from commonplace_operator.reconcile.scaling_board import ScalingBoard
from commonplace_operator.registry import Registries
from commonplace_operator.resources import names
from commonplace_operator.resources.token import Token
from commonplace_operator.settings import Settings
from commonplace_runtime import contract

OWN_NAME: Final = "commonplace-operator"
OWN_SECRET: Final = OWN_NAME
MAC_KEY: Final = "mac-key"
_MAC_KEY_BYTES: Final = 32
_START_RETRY_LIMIT: Final = 10.0
_END_PATIENCE: Final = 2.0
_ALONE_HINT: Final = (
    "an operator with leader election has written there and this one has none: "
    "end the other, or set COMMONPLACE_OPERATOR_LEADER_ELECTION=true here"
)


def utc_now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)  # noqa: TID251


def mint_token() -> Token:
    """A new token."""
    return Token(contract.make_token(secrets.token_bytes(contract.TOKEN_ENTROPY_BYTES)))


def mint_password() -> str:
    """A new password for a log-in role: 256 bits, of characters that need no encoding in a URI."""
    return secrets.token_urlsafe(32)


def uuid7() -> str:
    """A time-ordered UUID, version 7 of RFC 9562."""
    milliseconds, chance = time.time_ns() // 1_000_000, secrets.randbits(74)
    value = (milliseconds & (2**48 - 1)) << 80 | 0x7 << 76 | (chance >> 62) << 64 | 0b10 << 62 | chance & (2**62 - 1)
    return str(UUID(int=value))


def open_election(settings: Settings, cluster: Cluster, *, metrics: Metrics, clock: Callable[[], datetime]) -> Election:
    """The election that the settings ask for."""
    if not settings.leader_election:
        return Alone(hint=_ALONE_HINT)
    name = f"{OWN_NAME}-{settings.operator_class}"
    return Elector(
        ClusterLeases(cluster, namespace=settings.own_namespace, name=name),
        namespace=settings.own_namespace,
        name=name,
        # As client-go makes it: a process that is started anew on the same host is another one.
        identity=f"{settings.instance}_{uuid7()}",
        timings=LeaseTimings(
            duration=settings.lease_duration_seconds,
            renew_deadline=settings.renew_deadline_seconds,
            retry=settings.lease_retry_seconds,
        ),
        term_annotation=names.ANNOTATION_TERM,
        metrics=metrics,
        clock=clock,
    )


class Operator:
    """One operator process."""

    def __init__(
        self,
        settings: Settings,
        *,
        cluster: Cluster,
        registries: Registries,
        clock: Callable[[], datetime],
        mint: Callable[[], Token],
        new_id: Callable[[], str],
        lease_cluster: Cluster,
    ) -> None:
        self.metrics = Metrics()
        self._election = open_election(settings, lease_cluster, metrics=self.metrics, clock=clock)
        self.port = 0
        self._settings = settings
        self._cluster = cluster
        self._registries = registries
        self._clock = clock
        self._mint = mint
        self._new_id = new_id
        self._stop = asyncio.Event()
        self._context: Context | None = None
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._log = structlog.get_logger("commonplace_operator")
        self.queue: WorkQueue[Key] = WorkQueue(
            "commonplace", self._work, workers=settings.workers, metrics=self.metrics
        )
        self.scaling_queue: WorkQueue[Key] = WorkQueue(
            "scaling", self._scale, workers=settings.scaling_workers, metrics=self.metrics
        )
        self.recorder = EventRecorder(
            self._post_event,
            clock=clock,
            metrics=self.metrics,
            instance=settings.instance,
            controller=f"{names.GROUP}/operator",
        )
        self._health = HealthServer(metrics=self.metrics, is_alive=self._is_alive, is_ready=lambda: bool(self._tasks))

    async def run(self, *, server: str, open_session: Callable[[], Awaitable[aiohttp.ClientSession]]) -> None:
        """
        Serve until SIGTERM or SIGINT. Raises LeaseLost.

        server, open_session: where kopf watches and with which credentials.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        settings = self._settings
        self.port = await self._health.start(settings.host, settings.port)
        self._log.info("operator_started", host=settings.host, port=self.port, version=contract.VERSION)
        try:
            if await self._unless_stopped(self._prepare()) is None:
                return
            await self._serve(server, open_session)
        except errors.LeaseLost:
            # Somebody else leads, maybe: not one write more.
            await self._stop_queues(patience=0)
            raise
        finally:
            await self._shut_down()

    async def _serve(self, server: str, open_session: Callable[[], Awaitable[aiohttp.ClientSession]]) -> None:
        """Watch until a signal, whoever leads: so a standby knows what there is to do. Work while we lead."""
        namespaces = self._settings.watch_namespaces
        self.recorder.start()
        self.queue.start(held=True)
        self.scaling_queue.start()  # reconciles fill it, and so only while we lead
        electing = asyncio.create_task(self._election.run(), name="election")
        working = asyncio.create_task(self._work_while_leading(), name="work while leading")
        self._log.info("watching", namespaces=list(namespaces) or "all", server=server)
        registry = build_registry(self.queue.offer, server=server, open_session=open_session)
        # The youngest: when it ends, kopf cancels every task that is younger than its own.
        watching = asyncio.create_task(watch(registry, namespaces=namespaces), name="watch")
        self._tasks = watching, electing, working
        ended, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            if task is watching and self._stop.is_set() and not task.cancelled() and (error := task.exception()):
                # kopf 1.45.2 trips over itself when it is told to stop while it still discovers: no fault of ours.
                self._log.warning("watch_ended_badly", error=repr(error))
            elif not task.cancelled():
                task.result()

    async def _work_while_leading(self) -> None:
        await self._election.leading.wait()
        # Read anew: the leader before us has written to our Secret.
        self._context = context = await self._prepare()
        for namespace, name in context.databases.places():
            # No watch tells of a runtime that went while nobody looked.
            self.queue.add(Key(kind=names.RUNTIME, namespace=namespace, name=name))
        if self.queue.open():
            await self._offer_all(context)
        await self._stop.wait()

    async def _offer_all(self, context: Context) -> None:
        """As a standby we saw more than the queue holds."""
        for kind in names.OURS:
            for namespace in context.namespaces or (None,):
                for body in await context.cluster.list(kind, namespace):
                    await self.queue.offer(key_of(kind, body))

    async def _prepare(self) -> Context:
        """Learn who we are, as soon as the API server answers."""
        delay = 1.0
        while True:
            try:
                return await self._make_context()
            except errors.OperatorError as error:
                self._log.warning("waiting_for_cluster", detail=str(error), retry_in_seconds=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _START_RETRY_LIMIT)

    async def _unless_stopped(self, making: Coroutine[Any, Any, Context]) -> Context | None:
        """What `making` gives; None as soon as we are told to stop, for a server that hangs is not waited for."""
        task = asyncio.create_task(making)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            stopping.cancel()
            task.cancel()
            await asyncio.gather(task, stopping, return_exceptions=True)

    async def _make_context(self) -> Context:
        settings = self._settings
        system = await self._cluster.get(names.NAMESPACE, None, "kube-system")
        await self._expect_kinds()
        own_data = await self._own_data()
        # Reconcilers write through this one only.
        cluster = FencedCluster(self._cluster, term=self._election.term)
        databases = KnownDatabases(cluster, namespace=settings.own_namespace, secret=OWN_SECRET)
        databases.load(own_data)
        return Context(
            cluster=cluster,
            registries=self._registries,
            recorder=self.recorder,
            metrics=self.metrics,
            clock=self._clock,
            chance=random.random,
            mint=self._mint,
            mint_password=mint_password,
            new_id=self._new_id,
            enqueue=self.queue.add,
            enqueue_after=self.queue.add_after,
            enqueue_scaling=self.scaling_queue.add,
            installation=f"{system['metadata']['uid']}/{settings.operator_class}",
            term=self._election.term,
            mac_key=self._mac_key(own_data),
            timings=Timings(
                resync_seconds=settings.resync_seconds,
                quota_refresh_seconds=settings.quota_refresh_seconds,
                scaling_seconds=settings.scaling_seconds,
            ),
            databases=databases,
            scaling=ScalingBoard(),
            runtime_image=settings.runtime_image,
            operator_class=settings.operator_class,
            namespaces=settings.watch_namespaces,
        )

    async def _expect_kinds(self) -> None:
        """Where namespaces are named kinds that come later are not noticed, so they are waited for."""
        for namespace in self._settings.watch_namespaces[:1]:
            for kind in names.OURS:
                try:
                    await self._cluster.list(kind, namespace)
                except errors.NotFound:
                    raise errors.Refused(f"{kind.kind} is not known to the cluster: apply crds/") from None

    async def _own_data(self) -> Mapping[str, str]:
        """Our own Secret with the key that signs others: made once by create, so that of two starts one is refused."""
        namespace = self._settings.own_namespace
        fresh = base64.b64encode(secrets.token_bytes(_MAC_KEY_BYTES)).decode()
        try:
            body = await self._cluster.get(names.SECRET, namespace, OWN_SECRET)
        except errors.NotFound:
            try:
                body = await self._cluster.create(names.SECRET, _own_secret(namespace, fresh))
            except errors.NotFound:
                raise errors.Refused(
                    f"namespace {namespace} does not exist: create it or set COMMONPLACE_OPERATOR_NAMESPACE"
                ) from None
            except errors.Conflict:
                body = await self._cluster.get(names.SECRET, namespace, OWN_SECRET)
        return body.get("data") or {}

    def _mac_key(self, own_data: Mapping[str, str]) -> MacKey:
        key = base64.b64decode(own_data.get(MAC_KEY, ""))
        if len(key) != _MAC_KEY_BYTES:
            where = f"Secret {self._settings.own_namespace}/{OWN_SECRET}"
            raise errors.Refused(f"{where} has no {MAC_KEY} of {_MAC_KEY_BYTES} bytes: delete it to have another made")
        return MacKey(key)

    async def _work(self, key: Key) -> Result:
        assert self._context is not None  # noqa: S101 - the queue starts after it was made
        return await self._unless_deposed(reconcile(self._context, key))

    async def _scale(self, key: Key) -> Result:
        assert self._context is not None  # noqa: S101 - a reconcile has had it
        return await self._unless_deposed(scale(self._context, key))

    async def _unless_deposed(self, working: Awaitable[Result]) -> Result:
        try:
            return await working
        except errors.Deposed as error:
            self._election.depose(error)
            return Result(retry=True)

    async def _post_event(self, event: Mapping[str, Any]) -> None:
        await self._cluster.create(names.EVENT, dict(event))

    def _is_alive(self) -> bool:
        return not self._tasks or all(part.is_alive() for part in (self.queue, self.scaling_queue, self._election))

    async def _stop_queues(self, *, patience: float) -> None:
        await asyncio.gather(self.queue.stop(patience=patience), self.scaling_queue.stop(patience=patience))

    async def _shut_down(self) -> None:
        self._log.info("operator_stopping")
        if self._tasks:
            # The lease is renewed meanwhile, and given up when nothing is written any more.
            await self._stop_queues(patience=self._settings.shutdown_seconds)
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=_END_PATIENCE)
            await self._election.release()
            await self.recorder.stop(patience=0.5)
        await self._health.stop()
        await self._registries.close()


def _own_secret(namespace: str, key: str) -> dict[str, Any]:
    return {
        "apiVersion": names.SECRET.api_version,
        "kind": names.SECRET.kind,
        "metadata": {
            "name": OWN_SECRET,
            "namespace": namespace,
            "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY},
        },
        "type": "Opaque",
        "data": {MAC_KEY: key},
    }


def build(
    settings: Settings,
    *,
    cluster: Cluster,
    registries: Registries,
    clock: Callable[[], datetime] = utc_now,
    mint: Callable[[], Token] = mint_token,
    new_id: Callable[[], str] = uuid7,
    lease_cluster: Cluster | None = None,
) -> Operator:
    """
    The operator over these adapters. Call inside a running event loop.

    lease_cluster: `cluster` with connections of its own, so that a renewal never queues behind the work.
    """
    return Operator(
        settings,
        cluster=cluster,
        registries=registries,
        clock=clock,
        mint=mint,
        new_id=new_id,
        lease_cluster=lease_cluster or cluster,
    )
