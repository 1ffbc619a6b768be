"""Values that the runtime's services pass around. Ids are text here: opaque on the wire, UUIDs in the store."""

from dataclasses import dataclass
from typing import Literal, NewType

from typing_extensions import TypeAliasType

KeyId = NewType("KeyId", str)
TeamId = NewType("TeamId", str)
ProjectId = NewType("ProjectId", str)

Json = TypeAliasType("Json", "dict[str, Json] | list[Json] | str | int | float | bool | None")
"""Any JSON value. A named alias: pydantic, which describes the shapes that leave, reads no nameless recursion."""


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Whoever holds a good key: the team it belongs to, the one project it may be bound to, the actor it acts as."""

    key_id: KeyId
    team_id: TeamId
    team_slug: str
    project_id: ProjectId | None
    project: str | None
    actor: str
    scopes: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What somebody may touch, and how audit names them. An administrator has no key and reaches any project."""

    team_id: TeamId
    actor: str
    key_id: KeyId | None = None
    project_id: ProjectId | None = None
    request_id: str | None = None

    @classmethod
    def of(cls, principal: Principal, request_id: str) -> "Reach":
        """What the holder of a key reaches."""
        return cls(
            team_id=principal.team_id,
            key_id=principal.key_id,
            project_id=principal.project_id,
            actor=principal.actor,
            request_id=request_id,
        )

    @property
    def arguments(self) -> tuple[TeamId, KeyId | None, ProjectId | None, str, str | None]:
        """What every tenant function of the database is told first: team, key, key's project, actor, request id."""
        return self.team_id, self.key_id, self.project_id, self.actor, self.request_id


RecallMode = Literal["search", "context", "recent"]


@dataclass(frozen=True, kw_only=True)
class Recall:
    """
    One question to the memories of a project.

    project: id or name, None for the key's own. query: None for the newest. platform: normalised, None for all.
    via: None for REST.
    """

    mode: RecallMode
    project: str | None
    query: str | None
    limit: int
    platform: str | None = None
    via: Literal["mcp"] | None = None
