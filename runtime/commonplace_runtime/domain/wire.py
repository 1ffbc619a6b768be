"""The shapes that leave: rows as the store returns them, and what an answer adds."""

import hashlib
import json
from collections.abc import Sequence
from typing import Final, Literal, NotRequired

from typing_extensions import TypedDict

from commonplace_runtime.domain.models import Json

Transport = Literal["enqueued", "queued_only", "skipped"]
RUNTIME: Final = "server-beta"
"""The literal that claude-mem's clients look for; it stayed when their server was renamed."""

FINISHED: Final = frozenset({"completed", "failed", "cancelled"})
"""Statuses in which a job stays."""

_BRIEF: Final = ("id", "status", "sourceType", "sourceId", "createdAtEpoch", "updatedAtEpoch")
_LISTED: Final = (
    *("id", "projectId", "teamId", "sourceType", "sourceId", "status", "attempts", "maxAttempts"),
    *("createdAtEpoch", "completedAtEpoch", "failedAtEpoch", "lastError"),
)
LANE_NAMES: Final = {"event": "server_beta_generate_event", "summary": "server_beta_generate_summary"}
"""What claude-mem's server calls its two queues."""
_LANES: Final = {"agent_event": ("event", "evt"), "session_summary": ("summary", "sum")}


class NewEventRow(TypedDict):
    """One event on its way into `ingest_v1`."""

    id: str
    jobId: str
    project: str | None
    serverSessionId: str | None
    contentSessionId: str | None
    platformGiven: bool
    platformSource: str | None
    sourceAdapter: str
    sourceEventId: str | None
    eventType: str
    payload: Json
    metadata: Json
    occurredAt: int
    digest: str
    privateParts: int
    redactedSecrets: int


class EventRow(TypedDict):
    """An event as it is stored and answered."""

    id: str
    projectId: str
    teamId: str
    serverSessionId: str | None
    sourceAdapter: str
    sourceEventId: str | None
    eventType: str
    platformSource: str | None
    payload: Json
    metadata: dict[str, Json]
    privateParts: int
    redactedSecrets: int
    occurredAtEpoch: int
    receivedAtEpoch: int
    createdAtEpoch: int


class JobRow(TypedDict):
    """A job as it is stored."""

    id: str
    projectId: str
    teamId: str
    sourceType: str
    sourceId: str
    agentEventId: str | None
    serverSessionId: str | None
    jobType: str
    status: str
    attempts: int
    maxAttempts: int
    nextAttemptAtEpoch: int | None
    completedAtEpoch: int | None
    failedAtEpoch: int | None
    cancelledAtEpoch: int | None
    lastError: dict[str, Json] | None
    createdAtEpoch: int
    updatedAtEpoch: int
    retriedCount: NotRequired[int]
    heldUntil: NotRequired[str]
    holdReason: NotRequired[str]
    payload: NotRequired[dict[str, Json]]


JobStatus = Literal["queued", "processing", "completed", "failed", "cancelled"]


class BriefJob(TypedDict):
    """A job in the answer to what caused it; `transport` says whether a worker was woken for it."""

    id: str
    status: JobStatus
    bullmqJobId: str
    sourceType: str
    sourceId: str
    transport: Transport
    createdAtEpoch: int
    updatedAtEpoch: int


class AwaitedJob(BriefJob):
    """A job in the answer to a caller who waited for it."""

    attempts: int
    maxAttempts: int


class FullJob(JobRow):
    """A job asked for by its id; `heldUntil` and `holdReason` while its team's budget holds it back."""

    bullmqJobId: str


class ListedJob(TypedDict):
    """A job in a list; `payload` where it was asked for."""

    id: str
    projectId: str
    teamId: str
    sourceType: str
    sourceId: str
    status: JobStatus
    attempts: int
    maxAttempts: int
    createdAtEpoch: int
    completedAtEpoch: int | None
    failedAtEpoch: int | None
    lastError: dict[str, Json] | None
    payload: NotRequired[dict[str, Json]]


class JobPage(TypedDict):
    """Jobs, newest first, and how many there are; `total` is exact up to 10,000."""

    jobs: list[JobRow]
    total: int


class LaneRow(TypedDict):
    """How many jobs of a kind stand where, over all teams."""

    kind: Literal["event", "summary"]
    waiting: int
    active: int
    completed: int
    failed: int
    delayed: int
    stalled: int


class Lane(LaneRow):
    """One of the two kinds as health shows it; zeros where `unavailable`."""

    name: str
    unavailable: bool
    unavailableReason: NotRequired[str]


class IngestedRow(TypedDict):
    """What became of one event."""

    event: EventRow
    job: JobRow | None


class ObservationRow(TypedDict):
    """A memory as recall answers it; `score` is None where age and not words chose it."""

    id: str
    projectId: str
    teamId: str
    serverSessionId: str | None
    kind: str
    title: str | None
    content: str
    metadata: dict[str, Json]
    sources: list[dict[str, str]]
    score: float | None
    createdAtEpoch: int
    updatedAtEpoch: int


def queue_id(job: JobRow) -> str:
    """The job's name on the queue: a digest of its source, without a colon."""
    kind, prefix = _LANES.get(job["sourceType"], ("event", "evt"))
    named = {
        "kind": kind,
        "team_id": job["teamId"],
        "project_id": job["projectId"],
        "source_type": job["sourceType"],
        "source_id": job["sourceId"],
    }
    return f"{prefix}_{hashlib.sha256(json.dumps(named, separators=(',', ':')).encode()).hexdigest()}"


def brief_job(job: JobRow, transport: Transport) -> dict[str, Json]:
    """A job in the answer to what caused it."""
    return {**{name: job[name] for name in _BRIEF}, "bullmqJobId": queue_id(job), "transport": transport}


def awaited_job(job: JobRow, transport: Transport) -> dict[str, Json]:
    """A job in the answer to a caller who waited for it."""
    return {**brief_job(job, transport), "attempts": job["attempts"], "maxAttempts": job["maxAttempts"]}


def full_job(job: JobRow) -> dict[str, Json]:
    """A job asked for by its id."""
    return {**job, "bullmqJobId": queue_id(job)}  # type: ignore[dict-item]


def listed_job(job: JobRow) -> dict[str, Json]:
    """A job in a list; its payload where it was asked for."""
    names = (*_LISTED, "payload") if "payload" in job else _LISTED
    return {name: job[name] for name in names}  # type: ignore[literal-required]


def lanes_of(rows: Sequence[LaneRow] | None, *, why_not: str) -> list[dict[str, Json]]:
    """The lanes as health shows them; `rows` None: nobody knows, for the reason `why_not`."""
    if rows is None:
        none = dict.fromkeys(("waiting", "active", "completed", "failed", "delayed", "stalled"), 0)
        return [
            {"kind": kind, "name": name, **none, "unavailable": True, "unavailableReason": why_not}
            for kind, name in LANE_NAMES.items()
        ]
    return [{**row, "name": LANE_NAMES[row["kind"]], "unavailable": False} for row in rows]  # type: ignore[dict-item]


def context_of(observations: Sequence[ObservationRow]) -> str:
    """The contents as one text, best first, a blank line between them."""
    return "\n\n".join(observation["content"] for observation in observations if observation["content"])
