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

    shown: the state that the status shows, and since when. first_at: when there was first one that need not be shown.
    generation: of the object, at the last look. overruled_at: when a hand that had set the number was overruled.
    """

    uid: str
    shown: ScalingState | None = None
    shown_at: float = 0.0
    first_at: float | None = None
    looked_at: float | None = None
    generation: int = 0
    history: History | None = None
    rival: Rival | None = None
    rival_looked_at: float | None = None
    overruled_at: float | None = None


class ScalingBoard:
    """The memory of every runtime whose workers are scaled by this process."""

    def __init__(self) -> None:
        self._memories: dict[Place, Memory] = {}

    def state(self, place: Place) -> ScalingState | None:
        """What the status is to show; None before the first look. Stays the same between what is worth a write."""
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


def show(memory: Memory, state: ScalingState, *, now: float, is_recorded: bool = False) -> bool:
    """
    Have the status show `state` if that is worth a write. Gives whether it is.

    is_recorded: the status says as much already, by an earlier process; then the first figures wait for their turn.
    """
    before = memory.shown
    if before is None and is_recorded:
        memory.first_at = now if memory.first_at is None else memory.first_at
        if now - memory.first_at < SHOW_SECONDS:
            return False
    age = now - memory.shown_at
    worth = (
        before is None
        or _told(before) != _told(state)
        or (age >= SHOW_SECONDS and _figures(before) != _figures(state))
        or age >= SHOW_AGAIN_SECONDS
    )
    if worth:
        memory.shown, memory.shown_at = state, now
    return worth


def is_told(runtime: MemoryRuntime, state: ScalingState) -> bool:
    """Whether the status tells the same already, but for figures."""
    said = {(c.type, c.status, c.reason) for c in scaling_conditions(state)}
    known = {
        (found.condition.type, found.condition.status, found.condition.reason)
        for type_ in (ConditionType.SCALING_ACTIVE, ConditionType.SCALING_CONFLICT)
        if (found := find(runtime.conditions, type_)) is not None
    }
    fields = scaling_fields(state)["workers"].items()
    return said == known and fields <= (runtime.raw_status.get("workers") or {}).items()


def _told(state: ScalingState) -> object:
    conditions = [(c.type, c.status, c.reason) for c in scaling_conditions(state)]
    return state.mode, state.replicas, state.decision and state.decision.replicas, conditions, state.rival


def _figures(state: ScalingState) -> object:
    queue, decision = state.queue, state.decision
    return (
        queue and (queue.backlog, int(queue.oldest_seconds)),
        decision and (decision.need, decision.limits),
        state.unseen,
    )
