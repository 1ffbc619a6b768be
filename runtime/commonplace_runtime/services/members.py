"""Who belongs to a team, for an administrator at a terminal. `pool` is of a role in `commonplace_admin`."""

import re
from collections.abc import Sequence
from typing import Any, Final

from commonplace_runtime.domain.errors import Conflict, InvalidInput, NotFound
from commonplace_runtime.services import tenants
from commonplace_runtime.store import members as store
from commonplace_runtime.store.pool import Connection, Pool, Record, faults_as_unavailable
from commonplace_runtime.store.tenants import audit

ROLES: Final = ("owner", "admin", "member", "viewer")
_ACTOR: Final = re.compile(r"(?:human|system|agent):[^\x00-\x1f\x7f]{1,200}")


async def list_members(pool: Pool, team: str | None) -> Sequence[Record]:
    """Rows of `team` (slug), `actor`, `role`, `managed`, `created_at`. Raises NotFound, Conflict."""
    owner = None if team is None else await tenants.find_team(pool, team)
    async with faults_as_unavailable(), pool.acquire() as connection:
        return await store.list_members(connection, None if owner is None else owner["id"])


async def add_member(pool: Pool, team: str, actor: str, role: str) -> dict[str, str]:
    """A new member. Raises InvalidInput, NotFound, and Conflict for a member or a team that an object owns."""
    owner = await _own_team(pool, team)
    async with faults_as_unavailable(), pool.acquire() as connection, connection.transaction():
        if not await store.add(connection, owner["id"], _actor(actor), _role(role)):
            raise Conflict(f"{actor} is a member of {owner['slug']} already: `commonplace members set-role`")
        await _audit(connection, owner, "team_member.add", actor, {"role": role})
    return {"team": owner["slug"], "actor": actor, "role": role}


async def set_role(pool: Pool, team: str, actor: str, role: str) -> dict[str, str]:
    """Another role for a member. Raises InvalidInput, NotFound, Conflict."""
    owner = await _own_team(pool, team)
    async with faults_as_unavailable(), pool.acquire() as connection, connection.transaction():
        before = await store.set_role(connection, owner["id"], _actor(actor), _role(role))
        if before is None:
            raise NotFound(_missing(owner, actor))
        if before != role:
            await _audit(connection, owner, "team_member.set_role", actor, {"role": role, "before": before})
    return {"team": owner["slug"], "actor": actor, "role": role}


async def remove_member(pool: Pool, team: str, actor: str) -> dict[str, str]:
    """A member less; its keys and memories stay. Raises NotFound, Conflict."""
    owner = await _own_team(pool, team)
    async with faults_as_unavailable(), pool.acquire() as connection, connection.transaction():
        before = await store.remove(connection, owner["id"], _actor(actor))
        if before is None:
            raise NotFound(_missing(owner, actor))
        await _audit(connection, owner, "team_member.remove", actor, {"role": before})
    return {"team": owner["slug"], "actor": actor, "status": "removed"}


async def _own_team(pool: Pool, team: str) -> Record:
    owner = await tenants.find_team(pool, team)
    if owner["managed"]:
        raise Conflict(f"a MemoryTeam object owns {owner['slug']}: change its `spec.members`")
    return owner


async def _audit(connection: Connection, owner: Record, action: str, actor: str, details: dict[str, Any]) -> None:
    await audit(connection, owner["id"], action, "team_member", actor, {**details, "source": "cli"})


def _missing(owner: Record, actor: str) -> str:
    return f"{actor} is no member of {owner['slug']}: `commonplace members list --team {owner['slug']}`"


def _actor(actor: str) -> str:
    if not _ACTOR.fullmatch(actor):
        raise InvalidInput("an actor is human:…, system:… or agent:…")
    return actor


def _role(role: str) -> str:
    if role not in ROLES:
        raise InvalidInput(f"a role is {', '.join(ROLES[:-1])} or {ROLES[-1]}")
    return role
