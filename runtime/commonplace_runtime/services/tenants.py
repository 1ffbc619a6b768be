"""
Teams, projects and keys for an administrator at a terminal: what the operator does for objects, done for people.

`pool` is of a role in `commonplace_admin`; ids, tokens and the clock's reading are made here, in the shell.
"""

import re
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from commonplace_runtime import contract
from commonplace_runtime.domain.errors import Conflict, InvalidInput, NotFound
from commonplace_runtime.ids import utc_now, uuid7
from commonplace_runtime.store import tenants as store
from commonplace_runtime.store.pool import Connection, Pool, Record, faults_as_unavailable

_NOT_IN_SLUG = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, kw_only=True)
class IssuedKey:
    """A fresh key. `token` exists only here: the database has its hash."""

    id: UUID
    token: str
    team_id: UUID
    project_id: UUID | None


@asynccontextmanager
async def _transaction(pool: Pool) -> AsyncIterator[Connection]:
    async with faults_as_unavailable(), pool.acquire() as connection, connection.transaction():
        yield connection


async def create_team(pool: Pool, name: str) -> Record:
    """A team with its project `default`. Raises Conflict when the name's slug is taken, InvalidInput for no slug."""
    slug = _NOT_IN_SLUG.sub("-", name.lower()).strip("-")[:253].strip("-")
    if not slug:
        raise InvalidInput(f"{name!r} has no letter or digit to make a slug of: choose another name")
    async with _transaction(pool) as connection:
        team = await store.insert_team(connection, uuid7(), slug, name)
        if team is None:
            raise Conflict(f"the slug {slug} is taken: choose another name, or use that team")
        await store.insert_project(connection, uuid7(), team["id"], contract.DEFAULT_PROJECT)
        await store.audit(connection, team["id"], "team.create", "team", str(team["id"]), {"slug": slug})
        return team


async def list_teams(pool: Pool) -> Sequence[Record]:
    """Every team by slug."""
    async with _transaction(pool) as connection:
        return await store.list_teams(connection)


async def _team(connection: Connection, reference: str) -> Record:
    found = await store.find_teams(connection, reference)
    if not found:
        raise NotFound(f"there is no team {reference!r}: `commonplace teams list` shows them")
    if len(found) > 1 and reference not in (str(found[0]["id"]), found[0]["slug"]):
        raise Conflict(f"several teams are called {reference}: name one by its id or slug")
    return found[0]


async def find_team(pool: Pool, reference: str) -> Record:
    """The team with this id, slug or name. Raises NotFound, and Conflict for a name that several have."""
    async with _transaction(pool) as connection:
        return await _team(connection, reference)


async def find_project(pool: Pool, team: Record, reference: str) -> Record:
    """The team's project with this id or name. Raises NotFound."""
    async with _transaction(pool) as connection:
        project = await store.find_project(connection, team["id"], reference)
    if project is None:
        raise NotFound(f"team {team['slug']} has no project {reference!r}: `commonplace projects list --team …`")
    return project


async def create_project(pool: Pool, team: str, name: str) -> Record:
    """A project of `team` (id, slug or name). Raises NotFound, Conflict, InvalidInput."""
    if not name.strip() or len(name) > 200:
        raise InvalidInput("a project's name has 1 to 200 characters")
    async with _transaction(pool) as connection:
        owner = await _team(connection, team)
        project = await store.insert_project(connection, uuid7(), owner["id"], name)
        if project is None:
            raise Conflict(f"team {owner['slug']} has a project {name} already")
        await store.audit(connection, owner["id"], "project.create", "project", str(project["id"]), {"name": name})
        return project


async def list_projects(pool: Pool, team: str | None) -> Sequence[Record]:
    """The projects of `team`, or of every team."""
    async with _transaction(pool) as connection:
        owner = await _team(connection, team) if team is not None else None
        return await store.list_projects(connection, owner["id"] if owner else None)


async def create_key(
    pool: Pool,
    *,
    team: str,
    project: str | None,
    scopes: Sequence[str],
    expires_at: datetime | None = None,
    actor: str | None = None,
    name: str | None = None,
) -> IssuedKey:
    """
    A key of `team`, for one project or (None) all of them.

    Raises InvalidInput for an unknown scope, an expiry in the past or an actor that is none; NotFound; Conflict.
    """
    unknown = [scope for scope in scopes if scope not in contract.SCOPES]
    if unknown or not scopes:
        raise InvalidInput(f"unknown scope {', '.join(unknown) or '(none)'}: choose from {', '.join(contract.SCOPES)}")
    if expires_at is not None and expires_at <= utc_now():
        raise InvalidInput(f"the key would have expired already at {expires_at.isoformat()}")
    if actor is not None and not re.fullmatch(r"(human|system|agent):.+", actor):
        raise InvalidInput("an actor is human:…, system:… or agent:…")
    key_id = uuid7()
    token = contract.make_token(secrets.token_bytes(contract.TOKEN_ENTROPY_BYTES))
    async with _transaction(pool) as connection:
        owner = await _team(connection, team)
        within = await store.find_project(connection, owner["id"], project) if project is not None else None
        if project is not None and within is None:
            raise NotFound(f"team {owner['slug']} has no project {project!r}: `commonplace projects list --team …`")
        project_id = within["id"] if within else None
        label = name or f"cli-{str(key_id)[-8:]}"
        await store.insert_key(
            connection,
            key_id=key_id,
            team_id=owner["id"],
            project_id=project_id,
            name=label,
            actor=actor or f"key:cli/{label}",
            scopes=scopes,
            token_id=contract.token_id(token),
            token_hash=contract.hash_token(token),
            expires_at=expires_at,
        )
        await store.audit(
            connection, owner["id"], "api_key.create", "api_key", str(key_id), {"source": "cli", "scopes": list(scopes)}
        )
    return IssuedKey(id=key_id, token=token, team_id=owner["id"], project_id=project_id)


async def list_keys(pool: Pool, team: str | None) -> Sequence[Record]:
    """The keys of `team`, or of every team; never a token."""
    async with _transaction(pool) as connection:
        owner = await _team(connection, team) if team is not None else None
        return await store.list_keys(connection, owner["id"] if owner else None)


async def revoke_key(pool: Pool, key_id: UUID) -> bool:
    """
    Refuse this key from its next request on; whether it was live until now.

    Raises NotFound, and Conflict for a key that an ApiKey object owns: the operator would issue another one.
    """
    async with _transaction(pool) as connection:
        found = await store.revoke_key(connection, key_id)
        if found is None:
            raise NotFound(f"there is no key {key_id}: `commonplace keys list` shows them")
        if found["managed"]:
            raise Conflict("an ApiKey object owns this key: set `spec.revoked: true` on it, or delete it")
        if found["live"]:
            await store.audit(connection, found["team_id"], "api_key.revoke", "api_key", str(key_id), {"source": "cli"})
        return bool(found["live"])


async def ensure_login(pool: Pool, login: str, role: str) -> None:
    """A log-in role without a password, member of the group `role`: only for an embedded server."""
    async with _transaction(pool) as connection:
        await store.ensure_login(connection, login, role)


async def reissue_key(pool: Pool, known_token: str | None, *, team: str, name: str, actor: str) -> str:
    """
    `known_token` while it is live, else a fresh key with every scope for the team's project `default`.

    The team is created when it is missing.
    """
    async with _transaction(pool) as connection:
        if known_token and await store.key_is_live(connection, contract.hash_token(known_token)):
            return known_token
        missing = not await store.find_teams(connection, team)
    if missing:
        await create_team(pool, team)
    issued = await create_key(pool, team=team, project=contract.DEFAULT_PROJECT, scopes=["*"], name=name, actor=actor)
    return issued.token
