"""Values that the runtime's services pass around. Ids are text here: opaque on the wire, UUIDs in the store."""

from dataclasses import dataclass
from typing import Literal, NewType, TypeAlias

KeyId = NewType("KeyId", str)
TeamId = NewType("TeamId", str)
ProjectId = NewType("ProjectId", str)

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"


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
