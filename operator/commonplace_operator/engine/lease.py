"""
The record of a Lease and all that is decided about it, purely; after client-go's leaderelection, with a term added.

Wall clocks are never compared. Whoever looks notes on a monotonic clock when it last saw the record *change*; a leader
that has not changed it for the record's own duration is over. The times in the record are for people to read.

Each taking of the Lease has a term of its own, greater than every term seen before and at least the seconds since 1970:
so it grows even after somebody has deleted the Lease.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

API_VERSION: Final = "coordination.k8s.io/v1"
TERM_LIMIT: Final = 2**63 - 1
"""The database keeps a term as bigint."""
_RELEASED_SECONDS: Final = 1

Body: TypeAlias = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Record:
    """
    What a Lease says.

    holder: identity of the leader, empty for nobody. term: 0 where no term can be read.
    transitions: how often the holder has changed. acquired_at, renewed_at: as written, for people.
    """

    holder: str
    term: int
    transitions: int
    duration_seconds: int
    acquired_at: str
    renewed_at: str


@dataclass(frozen=True, kw_only=True)
class Create:
    """There is no Lease: make a vacant one and look again."""


@dataclass(frozen=True, kw_only=True)
class Take:
    """The Lease may be taken now."""

    why: str


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Somebody leads; unless the record changes, it may be taken in so many seconds."""

    seconds: float


def decide(record: Record | None, observed_at: float, now: float, identity: str) -> Create | Take | Wait:
    """
    Whether the process `identity`, which does not lead, may take the Lease.

    record: None where there is no Lease. observed_at: when it was last seen to change; that and now in seconds of one
    monotonic clock.
    """
    if record is None:
        return Create()
    if not record.holder:
        return Take(why="nobody holds it")
    if record.holder == identity:
        # A write of ours whose answer was lost. Nobody has worked in its term, and nobody will.
        return Take(why="an earlier attempt had succeeded")
    left = observed_at + record.duration_seconds - now
    return Wait(seconds=left) if left > 0 else Take(why=f"{record.holder} has not renewed it in time")


def vacant(newest_term: int) -> Record:
    """
    The record of a new Lease, which nobody holds.

    A create names no version that it builds on, so one that arrives late, after somebody has deleted what came of
    another, would be believed: with a holder in it, in a term that was led before.
    """
    return Record(
        holder="",
        term=newest_term,
        transitions=0,
        duration_seconds=_RELEASED_SECONDS,
        acquired_at="",
        renewed_at="",
    )


def taken(record: Record, *, newest_term: int, identity: str, now: datetime, duration_seconds: int) -> Record:
    """The record with which `identity` takes the Lease. newest_term: the greatest that this process has ever seen."""
    moment = micro_time(now)
    return Record(
        holder=identity,
        term=max(newest_term + 1, record.term + 1, int(now.timestamp())),
        transitions=record.transitions + (record.holder != identity),
        duration_seconds=duration_seconds,
        acquired_at=moment,
        renewed_at=moment,
    )


def renewed(record: Record, *, now: datetime) -> Record:
    """The record of a leader that goes on."""
    return replace(record, renewed_at=micro_time(now))


def released(record: Record, *, now: datetime, term: int) -> Record:
    """The record of a leader that leaves: anybody may take it at once. The term stays, for the next to be greater."""
    return replace(
        record, holder="", duration_seconds=_RELEASED_SECONDS, renewed_at=micro_time(now), term=max(term, record.term)
    )


def is_still_held(record: Record | None, held: Record) -> bool:
    """Whether the Lease as it was read is the one that this leader holds; somebody may have put a label on it."""
    return record is not None and (record.holder, record.term) == (held.holder, held.term)


def parse(body: Mapping[str, Any], *, term_annotation: str) -> Record:
    """The record in the Lease's body; what is missing or unreadable counts as nothing said."""
    spec = body.get("spec") or {}
    annotations = body["metadata"].get("annotations") or {}
    return Record(
        holder=spec.get("holderIdentity") or "",
        term=_term(annotations.get(term_annotation, "")),
        transitions=spec.get("leaseTransitions") or 0,
        duration_seconds=spec.get("leaseDurationSeconds") or _RELEASED_SECONDS,
        acquired_at=spec.get("acquireTime") or "",
        renewed_at=spec.get("renewTime") or "",
    )


def _term(text: str) -> int:
    term = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(TERM_LIMIT)) else 0
    # The greatest has no successor; whoever wrote it did so by hand.
    return term if term < TERM_LIMIT else 0


def render(record: Record, body: Mapping[str, Any], *, term_annotation: str) -> Body:
    """The Lease's body with that record; all else in `body`, its resourceVersion among it, stays as it was."""
    metadata = dict(body["metadata"])
    metadata["annotations"] = {**(metadata.get("annotations") or {}), term_annotation: str(record.term)}
    spec = dict(body.get("spec") or {}) | {
        "holderIdentity": record.holder,
        "leaseDurationSeconds": record.duration_seconds,
        "leaseTransitions": record.transitions,
        "acquireTime": record.acquired_at or None,
        "renewTime": record.renewed_at or None,
    }
    return {"apiVersion": API_VERSION, "kind": "Lease", "metadata": metadata, "spec": spec}


def micro_time(moment: datetime) -> str:
    """Kubernetes' `metav1.MicroTime`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
