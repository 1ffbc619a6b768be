"""What the scaling loops know, kept in memory: what the status shows of it, and what a loop needs at its next look."""

from dataclasses import dataclass
from typing import Final

from commonplace_operator.planning.rivals import Rival
from commonplace_operator.planning.scaling import History
from commonplace_operator.planning.scalingstatus import ScalingState, scaling_conditions, scaling_fields
from commonplace_operator.resources.conditions import find
from commonplace_operator.resources.objects import MemoryRuntime
from commonplace_operator.resources.reasons import ConditionType

Place = tuple[str, str]
"""Namespace and name of a MemoryRuntime."""

SHOW_SECONDS: Final = 60.0
"""Figures that differ are shown no more often than this: each write of a status wakes everybody who watches it."""
SHOW_AGAIN_SECONDS: Final = 600.0
"""And those that do not differ, so that the time of the sample tells whether anybody looks."""


@dataclass(kw_only=True)
class Memory:
    """
    Of one runtime's loop; times are monotonic seconds.

    shown: the state that the status is to show, None while what an earlier process wrote there still holds. last, at:
    the state that later ones are compared with. generation: of the object, at the last look. overruled_at: when a hand
    that had set the number was overruled.
    """

    uid: str
    shown: ScalingState | None = None
    last: ScalingState | None = None
    last_at: float = 0.0
    looked_at: float | None = None
    generation: int = 0
    history: History | None = None
    rival: Rival | None = None
    rival_looked_at: float | None = None
    note: str = ""
    overruled_at: float | None = None


class ScalingBoard:
    """The memory of every runtime whose workers are scaled by this process."""

    def __init__(self) -> None:
        self._memories: dict[Place, Memory] = {}

    def state(self, place: Place) -> ScalingState | None:
        """
        What the status is to show; None while that is what it shows already, or before the first look.

        Stays the same between what is worth a write.
        """
        memory = self._memories.get(place)
        return None if memory is None else memory.shown

    def memory(self, place: Place, uid: str) -> Memory:
        """The loop's memory; a new one for an object of another uid."""
        known = self._memories.get(place)
        if known is None or known.uid != uid:
            known = self._memories[place] = Memory(uid=uid)
        return known

    def forget(self, place: Place) -> None:
        """The runtime is gone, or no longer ours to scale."""
        self._memories.pop(place, None)


def show(memory: Memory, state: ScalingState, runtime: MemoryRuntime, *, now: float) -> bool:
    """Have the status of `runtime` show `state` if that is worth a write. Gives whether it is."""
    before, age = memory.last, now - memory.last_at
    if before is None and _is_recorded(state, runtime):
        # A restart alone is no reason to write.
        memory.last, memory.last_at = state, now
        return False
    worth = (
        before is None
        or _told(before) != _told(state)
        or (age >= SHOW_SECONDS and _figures(before) != _figures(state))
        or age >= SHOW_AGAIN_SECONDS
    )
    if worth:
        memory.shown = memory.last = state
        memory.last_at = now
    return worth


def _is_recorded(state: ScalingState, runtime: MemoryRuntime) -> bool:
    """Whether the status says so already, times and sentences aside."""
    types = (ConditionType.SCALING_ACTIVE, ConditionType.SCALING_CONFLICT)
    recorded = {
        (found.condition.type, found.condition.status, found.condition.reason)
        for found in (find(runtime.conditions, type_) for type_ in types)
        if found is not None
    }
    fields = scaling_fields(state)
    workers, queue = (runtime.raw_status.get(name) or {} for name in ("workers", "queue"))
    return (
        recorded == {(str(c.type), c.status, str(c.reason)) for c in scaling_conditions(state)}
        and workers.get("desiredReplicas") == fields["workers"]["desiredReplicas"]
        and queue.get("backlog") == fields.get("queue", {}).get("backlog")
    )


def _told(state: ScalingState) -> object:
    conditions = [(c.type, c.status, c.reason) for c in scaling_conditions(state)]
    return state.mode, state.replicas, state.decision and state.decision.replicas, conditions, state.rival, state.note


def _figures(state: ScalingState) -> object:
    queue, decision = state.queue, state.decision
    return (
        queue and (queue.backlog, int(queue.oldest_seconds)),
        decision and (decision.need, decision.limits),
        state.unseen,
    )
