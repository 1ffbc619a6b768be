"""Teams, projects, keys, sessions and memories for tests, written as an administrator would. Use with `admin_pool`."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from commonplace_runtime import contract
from commonplace_runtime.ids import uuid7
from commonplace_runtime.store.pool import Pool

ALL_SCOPES = ("memories:read", "memories:write")


@dataclass(frozen=True, kw_only=True)
class Team:
    """A team with its project `default`."""

    id: str
    slug: str
    project_id: str


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key and the token that no table holds."""

    id: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


async def make_team(pool: Pool, slug: str | None = None, **columns: Any) -> Team:
    """`columns`: further ones of commonplace.teams, for example generation_mode."""
    team_id, slug = uuid4(), slug or f"team-{secrets.token_hex(4)}"
    names = ["id", "slug", "name", *columns]
    places = ", ".join(f"${place}" for place in range(1, len(names) + 1))
    await pool.execute(
        f"INSERT INTO commonplace.teams ({', '.join(names)}) VALUES ({places})", team_id, slug, slug, *columns.values()
    )
    return Team(id=str(team_id), slug=slug, project_id=await make_project(pool, str(team_id), "default"))


async def make_project(pool: Pool, team_id: str, name: str) -> str:
    project_id = uuid4()
    await pool.execute(
        "INSERT INTO commonplace.projects (id, team_id, name) VALUES ($1, $2, $3)", project_id, UUID(team_id), name
    )
    return str(project_id)


async def make_key(
    pool: Pool,
    team_id: str,
    *,
    project_id: str | None = None,
    scopes: Sequence[str] = ALL_SCOPES,
    actor: str = "agent:tester",
    state: str = "published",
    expires_at: datetime | None = None,
    grace_until: datetime | None = None,
    token: str | None = None,
) -> Key:
    """`token`: one of a shape of its own; otherwise a fresh one of ours."""
    key_id, token = uuid4(), token or contract.make_token(secrets.token_bytes(contract.TOKEN_ENTROPY_BYTES))
    await pool.execute(
        """
        INSERT INTO commonplace.api_keys (id, team_id, project_id, name, actor, scopes, token_id, token_hash, state,
            expires_at, grace_until, revoked_at)
        VALUES ($1, $2, $3, 'test', $4, $5, $6, $7, $8, $9, $10, CASE WHEN $8 = 'revoked' THEN now() END)
        """,
        key_id,
        UUID(team_id),
        None if project_id is None else UUID(project_id),
        actor,
        list(scopes),
        contract.token_id(token),
        contract.hash_token(token),
        state,
        expires_at,
        grace_until,
    )
    return Key(id=str(key_id), token=token)


async def set_limits(pool: Pool, team_id: str, **limits: int) -> None:
    """`limits`: columns of commonplace.team_limits, for example requests_per_minute."""
    names = ["team_id", "metered", *limits]
    places = ", ".join(f"${place}" for place in range(1, len(names) + 1))
    await pool.execute(
        f"INSERT INTO commonplace.team_limits ({', '.join(names)}) VALUES ({places})",
        UUID(team_id),
        True,
        *limits.values(),
    )


async def make_session(
    pool: Pool, team: Team, *, content_session_id: str, platform: str | None = None, project_id: str | None = None
) -> str:
    session_id = uuid7()
    await pool.execute(
        "INSERT INTO commonplace.sessions (id, team_id, project_id, content_session_id, platform_source)"
        " VALUES ($1, $2, $3, $4, $5)",
        session_id,
        UUID(team.id),
        UUID(project_id or team.project_id),
        content_session_id,
        platform,
    )
    return str(session_id)


async def make_memory(
    pool: Pool,
    team: Team,
    content: str,
    *,
    title: str | None = None,
    project_id: str | None = None,
    visibility: str = "team",
    owner_actor: str = "agent:tester",
    superseded_by: str | None = None,
    event_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> str:
    """`event_id`: the event it came from."""
    memory_id = uuid7()
    await pool.execute(
        """
        INSERT INTO commonplace.memories (id, team_id, project_id, owner_actor, visibility, title, content, metadata,
            superseded_by)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        """,
        memory_id,
        UUID(team.id),
        UUID(project_id or team.project_id),
        owner_actor,
        visibility,
        title,
        content,
        dict(metadata or {}),
        None if superseded_by is None else UUID(superseded_by),
    )
    if event_id is not None:
        await pool.execute(
            "INSERT INTO commonplace.memory_sources (memory_id, team_id, source_type, source_id, event_id)"
            " VALUES ($1, $2, 'agent_event', $3, $3)",
            memory_id,
            UUID(team.id),
            UUID(event_id),
        )
    return str(memory_id)


def make_event(**changes: Any) -> dict[str, Any]:
    """A body for POST /v1/events, as the real hook sends it."""
    return {
        "sourceType": "hook",
        "eventType": "tool_use",
        "occurredAtEpoch": 1_790_000_000_000,
        "contentSessionId": "session-1",
        "platformSource": "claude-code",
        "payload": {"tool_name": "Bash", "tool_input": {"command": "ls"}, "tool_response": "a b", "cwd": "/src"},
    } | changes
