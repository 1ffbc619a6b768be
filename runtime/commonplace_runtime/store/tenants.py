"""Teams, projects and keys as an administrator handles them; the statements are in `tenants.sql`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from commonplace_runtime.store.pool import Connection, Record
from commonplace_runtime.store.sql import statements

_SQL = statements("tenants")


async def insert_team(connection: Connection, team_id: UUID, slug: str, name: str) -> Record | None:
    """The new row, or None when the slug is taken."""
    return await connection.fetchrow(_SQL["insert_team"], team_id, slug, name)


async def find_teams(connection: Connection, reference: str) -> Sequence[Record]:
    """At most two teams that `reference` (id, slug or name) may mean, the surest first."""
    return await connection.fetch(_SQL["find_team"], reference)


async def list_teams(connection: Connection) -> Sequence[Record]:
    """Every team by slug."""
    return await connection.fetch(_SQL["list_teams"])


async def insert_project(connection: Connection, project_id: UUID, team_id: UUID, name: str) -> Record | None:
    """The new row, or None when the team has a project of that name."""
    return await connection.fetchrow(_SQL["insert_project"], project_id, team_id, name)


async def find_project(connection: Connection, team_id: UUID, reference: str) -> Record | None:
    """The team's project with this id or name."""
    return await connection.fetchrow(_SQL["find_project"], team_id, reference)


async def list_projects(connection: Connection, team_id: UUID | None) -> Sequence[Record]:
    """The projects of one team, or of all."""
    return await connection.fetch(_SQL["list_projects"], team_id)


async def insert_key(
    connection: Connection,
    *,
    key_id: UUID,
    team_id: UUID,
    project_id: UUID | None,
    name: str,
    actor: str,
    scopes: Sequence[str],
    token_id: str | None,
    token_hash: str,
    expires_at: datetime | None,
) -> None:
    """A key of people: published at once, owned by no object."""
    await connection.execute(
        _SQL["insert_key"], key_id, team_id, project_id, name, actor, list(scopes), token_id, token_hash, expires_at
    )


async def list_keys(connection: Connection, team_id: UUID | None) -> Sequence[Record]:
    """The keys of one team, or of all; never a token."""
    return await connection.fetch(_SQL["list_keys"], team_id)


async def revoke_key(connection: Connection, key_id: UUID) -> Record | None:
    """(team_id, live: it was not revoked before, managed: an ApiKey object owns it), or None for no such key."""
    return await connection.fetchrow(_SQL["revoke_key"], key_id)


async def audit(
    connection: Connection, team_id: UUID, action: str, resource_type: str, resource_id: str, details: dict[str, Any]
) -> None:
    """One audit row in the caller's transaction."""
    await connection.execute(_SQL["audit"], team_id, action, resource_type, resource_id, details)


async def key_is_live(connection: Connection, token_hash: str) -> bool:
    """Whether a published key has this hash."""
    return bool(await connection.fetchval(_SQL["key_is_live"], token_hash))


async def ensure_login(connection: Connection, login: str, role: str) -> None:
    """A log-in role without a password, member of `role`: for servers that trust their socket."""
    statement = await connection.fetchval(_SQL["login_statement"], login, role)
    if statement is not None:
        await connection.execute(statement)
