"""
The scaling loop of one managed runtime: see the queue, decide, write a number, tell.

It runs on a queue of its own, so that it never waits behind reconciles, and ends by itself when there is nothing of
ours to scale; each reconcile of the runtime starts it again. Only the autoscaler's field manager ever names
`spec.replicas` of the Deployment: `docs/decisions/0041-operator-scaling.md`.
"""

import asyncio
import re
from dataclasses import dataclass
from typing import Any, Final, assert_never

import structlog

from commonplace_operator import errors
from commonplace_operator.children.installation import WORKER, child_name
from commonplace_operator.cluster import Body
from commonplace_operator.engine.queue import Result
from commonplace_operator.planning.demand import worker_targets
from commonplace_operator.planning.rivals import rival_manager, rival_object
from commonplace_operator.planning.scaling import Decision, decide
from commonplace_operator.planning.scalingstatus import QueueSample, ScalingState
from commonplace_operator.reconcile.access import NotReady, database_uri
from commonplace_operator.reconcile.children import is_ours, read
from commonplace_operator.reconcile.context import Context, Key, serves
from commonplace_operator.reconcile.deletion_cost import mark_busy_pods
from commonplace_operator.reconcile.scaling_board import Memory, is_told, show
from commonplace_operator.resources import names
from commonplace_operator.resources.objects import MemoryRuntime
from commonplace_operator.resources.reasons import EventReason
from commonplace_operator.resources.rows import QueueByTeam

IDLE_MODES_SECONDS: Final = 30.0
"""How often to look where somebody else decides: for the figures in the status, and for rivals."""
SLOW_SECONDS: Final = 1.0
SLOW_PAUSES: Final = 10
"""A look that takes longer than SLOW_SECONDS is followed by so many times its length, up to RIVAL_SECONDS."""
RIVAL_SECONDS: Final = 60.0
"""How old the knowledge of other autoscalers may be when nothing is written."""
OVERRULE_SECONDS: Final = 600.0
"""A hand that sets the number once is overruled; one that does it again within this time is a conflict."""
_WITHOUT_DECISION: Final = {
    "Manual": "spec.workers.replicas",
    "HPA": "a HorizontalPodAutoscaler does nothing while there are no replicas",
}
_MANAGER: Final = re.compile(r'conflicts? with "([^"]+)"')
_log = structlog.get_logger("commonplace_operator.scaling")


@dataclass(frozen=True, kw_only=True)
class _Workers:
    """The Deployment of a runtime's workers."""

    uid: str
    replicas: int
    ready: int

    @classmethod
    def parse(cls, body: Body) -> "_Workers":
        return cls(
            uid=body["metadata"]["uid"],
            replicas=body["spec"].get("replicas", 1),
            ready=(body.get("status") or {}).get("readyReplicas", 0),
        )


async def scale(context: Context, key: Key) -> Result:
    """
    One look at one runtime, and when the next is due; no next one where there is nothing of ours to scale.

    Never raises for what time heals. Raises Deposed: a database says that we lead no more.
    """
    with structlog.contextvars.bound_contextvars(kind=key.kind.kind, namespace=key.namespace, name=key.name):
        try:
            return await _scale(context, key)
        except errors.Deposed:
            raise
        except errors.OperatorError as error:
            _log.warning("scaling_postponed", error=type(error).__name__, detail=str(error))
            return Result(retry=True, requeue_after=IDLE_MODES_SECONDS)


async def _scale(context: Context, key: Key) -> Result:
    place = (key.namespace, key.name)
    runtime = await _managed_runtime(context, key)
    body = await read(context, names.DEPLOYMENT, key.namespace, child_name(runtime, WORKER)) if runtime else None
    if runtime is None or body is None or not is_ours(body, runtime):
        context.scaling.forget(place)
        return Result()
    memory, now = context.scaling.memory(place, runtime.uid), asyncio.get_running_loop().time()
    pause = context.scaling_seconds() if _decides(runtime) else max(IDLE_MODES_SECONDS, context.scaling_seconds())
    if wait := _too_early(memory, runtime, now, pause):
        return Result(requeue_after=wait)
    state = await _look_and_write(context, runtime, memory, _Workers.parse(body), now)
    memory.looked_at, memory.generation = now, runtime.generation
    if show(memory, state, now=now, is_recorded=is_told(runtime, state)):
        context.enqueue(key)
    took = asyncio.get_running_loop().time() - now
    if took > SLOW_SECONDS:
        # A database that hangs holds one of the few workers of all loops.
        pause = max(pause, min(SLOW_PAUSES * took, RIVAL_SECONDS))
    return Result(requeue_after=pause)


async def _managed_runtime(context: Context, key: Key) -> MemoryRuntime | None:
    body = await read(context, names.RUNTIME, key.namespace, key.name)
    if body is None or not serves(context, body):
        return None
    try:
        runtime = MemoryRuntime.parse(body)
    except errors.SpecError:
        return None  # its reconcile says so
    return None if runtime.is_deleting or runtime.spec.management != "Managed" else runtime


def _decides(runtime: MemoryRuntime) -> bool:
    return runtime.spec.workers.autoscaling.mode == "Operator"


def _too_early(memory: Memory, runtime: MemoryRuntime, now: float, pause: float) -> float:
    """Seconds to wait: a reconcile asks for a look too, and steps are counted by looks. 0 after an edit."""
    if memory.looked_at is None or memory.generation != runtime.generation:
        return 0.0
    since = now - memory.looked_at
    return 0.0 if since >= pause / 2 else pause - since


async def _look_and_write(
    context: Context, runtime: MemoryRuntime, memory: Memory, workers: _Workers, now: float
) -> ScalingState:
    figures, unseen = await _figures(context, runtime)
    mode = runtime.spec.workers.autoscaling.mode
    decision: Decision | None = None
    wanted: int | None = None
    match mode:
        case "Operator":
            decision = decide(
                figures,
                worker_targets(runtime.spec.workers),
                memory.history,
                now=now,
                replicas=workers.replicas,
                ready=workers.ready,
            )
            wanted = decision.replicas
            memory.history = decision.history
        case "Manual":
            wanted = runtime.spec.workers.replicas
        case "HPA":
            wanted = await _woken(context, runtime, workers)
        case "KEDA":
            pass  # it starts workers from none by itself
        case _:
            assert_never(mode)
    if mode != "Operator":
        memory.history = None
    writes = wanted is not None and wanted != workers.replicas
    await _look_for_rivals(context, runtime, memory, now=now, must=writes)
    replicas, forbidden = workers.replicas, ""
    if wanted is not None and writes and memory.rival is None:
        try:
            if await _write(context, runtime, memory, workers, wanted, figures=figures, decision=decision, now=now):
                replicas = wanted
        except errors.Forbidden as error:
            forbidden = str(error)
    return ScalingState(
        mode=mode,
        replicas=replicas,
        decision=decision,
        queue=_sample(figures) or (memory.shown.queue if memory.shown else None),
        unseen=unseen,
        rival=memory.rival,
        forbidden=forbidden,
    )


async def _woken(context: Context, runtime: MemoryRuntime, workers: _Workers) -> int | None:
    """
    The number to start with where nobody else would: an HPA counts as switched off while there are no replicas.

    So it finds them after mode Operator, or an HPA of minReplicas 0, has gone to none. None: it does by itself.
    """
    if workers.replicas > 0:
        return None
    live = await read(context, names.AUTOSCALER, runtime.namespace, child_name(runtime, WORKER))
    if live is None or not is_ours(live, runtime):
        return None
    return int(live["spec"].get("minReplicas", 1)) or None


async def _figures(context: Context, runtime: MemoryRuntime) -> tuple[QueueByTeam | None, str]:
    """The queue, or why it could not be seen."""
    uri = await database_uri(context, runtime)
    if isinstance(uri, NotReady):
        return None, uri.message
    try:
        async with context.registries.of(uri) as registry:
            return await registry.queue_by_team(context.writer(runtime)), ""
    except (errors.DatabaseUnavailable, errors.DatabaseRefused) as error:
        away = isinstance(error, errors.DatabaseUnavailable)
        return None, "the database does not answer" if away else f"the database refuses the operator: {error}"


def _sample(figures: QueueByTeam | None) -> QueueSample | None:
    if figures is None:
        return None
    return QueueSample(backlog=figures.backlog, oldest_seconds=figures.oldest_seconds, at=figures.now)


async def _look_for_rivals(context: Context, runtime: MemoryRuntime, memory: Memory, *, now: float, must: bool) -> None:
    """Bring `memory.rival` up to date: before every write, and once in a while besides."""
    last = memory.rival_looked_at
    if not must and last is not None and now - last < RIVAL_SECONDS and memory.generation == runtime.generation:
        return
    autoscalers = await _list(context, names.AUTOSCALER, runtime.namespace)
    found = rival_object(runtime, autoscalers or (), await _list(context, names.SCALED_OBJECT, runtime.namespace))
    memory.rival, memory.rival_looked_at = found, now


async def _list(context: Context, kind: names.Kind, namespace: str) -> list[Body] | None:
    """None where the cluster has no such kind or does not show it; who it is, a refused write tells as well."""
    try:
        return await context.cluster.list(kind, namespace)
    except errors.NotFound:
        return None
    except errors.Forbidden as error:
        _log.warning("autoscalers_not_seen", autoscaler=kind.kind, detail=str(error))
        return None


async def _write(
    context: Context,
    runtime: MemoryRuntime,
    memory: Memory,
    workers: _Workers,
    wanted: int,
    *,
    figures: QueueByTeam | None,
    decision: Decision | None,
    now: float,
) -> bool:
    """Set the number of replicas. Gives whether it was set: not where a manager took it back that was overruled."""
    if wanted < workers.replicas and figures is not None:
        await mark_busy_pods(context, runtime, figures.jobs_of)
    try:
        await _apply(context, runtime, workers, wanted, force=False)
    except errors.Conflict as error:
        manager = _MANAGER.search(str(error))
        if manager is None:
            raise  # another Deployment by now
        if memory.overruled_at is not None and now - memory.overruled_at < OVERRULE_SECONDS:
            memory.rival = rival_manager(runtime, manager[1])
            return False
        memory.overruled_at = now
        _log.info("replicas_taken_back", manager=manager[1])
        await _apply(context, runtime, workers, wanted, force=True)
    why = decision.explanation if decision is not None else _WITHOUT_DECISION[runtime.spec.workers.autoscaling.mode]
    note = f"From {workers.replicas} to {wanted}: {why}"
    context.tell(runtime, "Normal", EventReason.SCALED, note, action="Scale")
    return True


async def _apply(context: Context, runtime: MemoryRuntime, workers: _Workers, wanted: int, *, force: bool) -> None:
    body: dict[str, Any] = {
        # The uid keeps an apply from making half a Deployment anew.
        "metadata": {"namespace": runtime.namespace, "name": child_name(runtime, WORKER), "uid": workers.uid},
        "spec": {"replicas": wanted},
    }
    await context.cluster.apply(names.DEPLOYMENT, body, manager=names.AUTOSCALER_MANAGER, force=force)
    context.metrics.writes.labels(names.DEPLOYMENT.kind, "scale").inc()
