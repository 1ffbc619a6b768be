"""Rows as the operator's versioned SQL functions take and give them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

KeyState = Literal["unpublished", "published", "grace"]


@dataclass(frozen=True, kw_only=True)
class Writer:
    """On whose behalf a function writes: installation and term fence, uid and generation identify."""

    installation: str
    term: int
    uid: str
    generation: int


@dataclass(frozen=True, kw_only=True)
class ProjectRow:
    """A project as wanted; `id` is used only when the row is new."""

    id: str
    name: str
    display_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class TeamRow:
    """A team as wanted; `id` is used only when the row is new. `policies` has the SQL function's keys."""

    id: str
    slug: str
    name: str
    policies: Mapping[str, str | int]
    projects: tuple[ProjectRow, ...]
    members: tuple[tuple[str, str], ...]
    adopt: bool


@dataclass(frozen=True, kw_only=True)
class StoredTeam:
    """A team as it stands after `put_team_v1`; projects by name."""

    id: str
    slug: str
    outcome: str
    projects: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What a key may do; changes without a new token. `project` is a name."""

    project: str | None
    actor: str
    scopes: tuple[str, ...]
    expires_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class KeyRow:
    """One live key of an ApiKey object as the database has it."""

    id: str
    team_id: str
    revision: int
    state: KeyState
    token_hash: str
    grant: Grant
    rotation_mark: str | None = None
    grace_until: datetime | None = None
    published_at: datetime | None = None
    last_used_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ObservedKeys:
    """The live keys of one ApiKey, by the database's clock `now`; `newest_revision` counts revoked ones too."""

    newest_revision: int
    now: datetime
    keys: tuple[KeyRow, ...]

    def in_state(self, state: KeyState) -> KeyRow | None:
        """The one live key in that state."""
        return next((key for key in self.keys if key.state == state), None)


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """The row of a token that nobody holds yet."""

    id: str
    revision: int
    token_id: str | None
    token_hash: str
    name: str
    grant: Grant
    rotation_mark: str | None


@dataclass(frozen=True, kw_only=True)
class Published:
    """What `publish_key_v1` did: revisions now in grace and revoked before their grace ended."""

    changed: bool
    in_grace: int | None
    revoked_early: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class StoredQuota:
    """What `put_quota_v1` answers; figures under the SQL function's names."""

    outcome: str
    effective: Mapping[str, str]
    used: Mapping[str, Decimal]
    measured_at: datetime


@dataclass(frozen=True, kw_only=True)
class TeamQueue:
    """
    What waits and runs for one team.

    sessions: over how many the backlog is spread. busy_sessions, in_flight: sessions that workers have, and their jobs
    of this moment. arrival_rate: jobs a second; steady_rate: without bursts. workers: the limit of its Quotas.
    """

    team_id: str
    slug: str
    owner_uid: str | None
    backlog: int
    sessions: int
    oldest_seconds: float
    busy_sessions: int
    in_flight: int
    arrival_rate: float
    steady_rate: float
    workers: int | None


@dataclass(frozen=True, kw_only=True)
class OtherQueues:
    """The teams past those that are listed, summed: `teams` of them."""

    teams: int = 0
    backlog: int = 0
    sessions: int = 0
    oldest_seconds: float = 0.0
    busy_sessions: int = 0
    in_flight: int = 0
    arrival_rate: float = 0.0
    steady_rate: float = 0.0


@dataclass(frozen=True, kw_only=True)
class QueueByTeam:
    """
    The queue of one database at `now`, the busiest teams first.

    service_seconds: a worker's time for one job, None while unknown. jobs_of: jobs of each process that holds a lease.
    """

    now: datetime
    service_seconds: float | None
    jobs_of: Mapping[str, int]
    teams: tuple[TeamQueue, ...]
    others: OtherQueues = OtherQueues()

    @property
    def parts(self) -> tuple[TeamQueue | OtherQueues, ...]:
        """Everything that waits and runs, each job once."""
        return (*self.teams, self.others)

    @property
    def backlog(self) -> int:
        """Jobs that wait."""
        return sum(part.backlog for part in self.parts)

    @property
    def in_flight(self) -> int:
        """Jobs that are being worked on."""
        return sum(part.in_flight for part in self.parts)

    @property
    def arrival_rate(self) -> float:
        """Jobs a second over the last minute."""
        return sum(part.arrival_rate for part in self.parts)

    @property
    def steady_rate(self) -> float:
        """Jobs a second that are likely to go on."""
        return sum(part.steady_rate for part in self.parts)

    @property
    def oldest_seconds(self) -> float:
        """How long the session that has waited longest might have been claimed."""
        return max(part.oldest_seconds for part in self.parts)
