"""Members of teams as an administrator handles them; the statements are in `members.sql`."""

from collections.abc import Sequence
from uuid import UUID

from commonplace_runtime.store.pool import Connection, Record
from commonplace_runtime.store.sql import statements

_SQL = statements("members")


async def list_members(connection: Connection, team_id: UUID | None) -> Sequence[Record]:
    """The members of one team, or of all."""
    return await connection.fetch(_SQL["list"], team_id)


async def add(connection: Connection, team_id: UUID, actor: str, role: str) -> bool:
    """False when the actor is a member already."""
    return await connection.fetchrow(_SQL["add"], team_id, actor, role) is not None


async def set_role(connection: Connection, team_id: UUID, actor: str, role: str) -> str | None:
    """The role until now, or None for no such member."""
    before: str | None = await connection.fetchval(_SQL["set_role"], team_id, actor, role)
    return before


async def remove(connection: Connection, team_id: UUID, actor: str) -> str | None:
    """The role until now, or None for no such member."""
    before: str | None = await connection.fetchval(_SQL["remove"], team_id, actor)
    return before
