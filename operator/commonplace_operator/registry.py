"""
Postgres, through the operator's versioned SQL functions only.

One typed function per SQL function; SQLSTATEs become the errors of `errors.py`. The operator's role may
execute these functions and nothing else.
"""

import asyncio
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Protocol
from uuid import UUID

import asyncpg

from commonplace_operator import errors
from commonplace_operator.resources.rows import (
    Grant,
    KeyRow,
    NewKey,
    ObservedKeys,
    OtherQueues,
    Published,
    QueueByTeam,
    StoredQuota,
    StoredTeam,
    TeamQueue,
    TeamRow,
    Writer,
)
from commonplace_runtime import contract

POOL_SIZE: Final = 4
POOLS: Final = 16

_BY_SQLSTATE: Final[dict[str, type[errors.OperatorError]]] = {
    contract.SQLSTATE_STALE_GENERATION: errors.Superseded,
    contract.SQLSTATE_NOT_FOUND: errors.RowNotFound,
    contract.SQLSTATE_LIMIT_REACHED: errors.LimitReached,
}
# Classes 08 connection, 53 resources, 57 operator intervention, 40 rollback, 55 lock: time heals them.
_TRANSIENT_CLASSES: Final = frozenset({"08", "53", "57", "40", "55"})


def translated(error: Exception) -> errors.OperatorError:
    """
    The operator's word for what asyncpg raised.

    Messages of our own class CM are shown: our SQL wrote them. Others are named by class and SQLSTATE only, because
    a server's message may repeat a statement's parameters.
    """
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        if state == contract.SQLSTATE_SLUG_CONFLICT:
            return errors.SlugTaken(error.args[0] if error.args else state, holder=_holder(error.detail))
        if state == contract.SQLSTATE_STALE_TERM:
            message = str(error.args[0]) if error.args else state
            return errors.Deposed(message, leader_term=_leader_term(message))
        if state in _BY_SQLSTATE:
            return _BY_SQLSTATE[state](error.args[0] if error.args else state)
        if state[:2] in _TRANSIENT_CLASSES:
            return errors.DatabaseUnavailable(f"{type(error).__name__} ({state})")
        return errors.DatabaseRefused(f"{type(error).__name__} ({state})")
    if isinstance(error, ValueError):
        # Not the parser's message: it repeats parts of the URI, the password maybe among them.
        return errors.DatabaseRefused("the Secret's uri is not a PostgreSQL connection URI")
    if isinstance(error, OSError | TimeoutError | asyncpg.InterfaceError):
        return errors.DatabaseUnavailable(type(error).__name__)
    return errors.DatabaseRefused(type(error).__name__)


def _leader_term(message: str) -> int:
    """From the message of `fence`, which our own SQL wrote."""
    found = re.search(r"term (\d{1,19}) leads", message)
    return int(found.group(1)) if found else 0


def _holder(detail: str | None) -> tuple[str, str] | None:
    holder = json.loads(detail) if detail else {}
    uid, namespace = holder.get("ownerUid"), holder.get("namespace")
    return (uid, namespace) if uid and namespace else None


class Registry(Protocol):
    """The database of one MemoryRuntime, as the reconcilers see it."""

    async def schema_version(self) -> int:
        """Number of the newest migration, 0 where there is none yet."""
        ...

    async def put_team(self, writer: Writer, team: TeamRow, *, gone_owner: str | None = None) -> StoredTeam:
        """Create, adopt or update. gone_owner: uid of an owner known to be gone. Raises SlugTaken, Superseded."""
        ...

    async def release_team(self, writer: Writer, *, delete_data: bool) -> tuple[str, int]:
        """Revoke every key and detach or delete. Gives outcome and number of revoked keys."""
        ...

    async def observe_key(self, writer: Writer) -> ObservedKeys:
        """The live keys of one ApiKey."""
        ...

    async def put_key(self, writer: Writer, team_id: str, key: NewKey) -> None:
        """Step 1 of issuing. Raises RowNotFound, LimitReached, Superseded."""
        ...

    async def publish_key(self, writer: Writer, revision: int, grace_seconds: int) -> Published:
        """Step 3 of issuing. Raises RowNotFound, Superseded."""
        ...

    async def amend_key(self, writer: Writer, grant: Grant) -> int:
        """Let the live keys follow the object. Gives the number of changed rows. Raises RowNotFound."""
        ...

    async def revoke_keys(self, writer: Writer) -> int:
        """Refuse every key of the object from now on. Gives how many were live."""
        ...

    async def put_quota(
        self,
        writer: Writer,
        *,
        quota_id: str,
        team_id: str,
        name: str,
        limits: Mapping[str, int | str],
        enforcement: str,
    ) -> StoredQuota:
        """Set the limits of one Quota. Raises RowNotFound."""
        ...

    async def release_quota(self, writer: Writer) -> bool:
        """Drop them. Gives whether there were any."""
        ...

    async def queue_by_team(self, writer: Writer) -> QueueByTeam:
        """What waits and runs, team by team; `writer` is the MemoryRuntime. Raises Superseded."""
        ...


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _grant_json(grant: Grant) -> dict[str, object]:
    return {
        "project": grant.project,
        "actor": grant.actor,
        "scopes": list(grant.scopes),
        "expiresAt": grant.expires_at.isoformat() if grant.expires_at else None,
    }


def _key_row(raw: Mapping[str, Any]) -> KeyRow:
    return KeyRow(
        id=raw["id"],
        team_id=raw["teamId"],
        revision=raw["revision"],
        state=raw["state"],
        token_hash=raw["tokenHash"],
        grant=Grant(
            project=raw["project"],
            actor=raw["actor"],
            scopes=tuple(raw["scopes"]),
            expires_at=_moment(raw["expiresAt"]),
        ),
        rotation_mark=raw["rotationMark"],
        grace_until=_moment(raw["graceUntil"]),
        published_at=_moment(raw["publishedAt"]),
        last_used_at=_moment(raw["lastUsedAt"]),
    )


def _counts(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "backlog": int(raw["backlog"]),
        "sessions": int(raw["sessions"]),
        "oldest_seconds": float(raw["oldestSeconds"]),
        "busy_sessions": int(raw["busySessions"]),
        "in_flight": int(raw["inFlight"]),
        "arrival_rate": float(raw["arrivalRate"]),
        "steady_rate": float(raw["steadyRate"]),
    }


def _queue_by_team(raw: Mapping[str, Any]) -> QueueByTeam:
    return QueueByTeam(
        now=datetime.fromisoformat(raw["now"]),
        service_seconds=raw["serviceSeconds"],
        jobs_of=raw["workers"],
        teams=tuple(
            TeamQueue(
                team_id=team["teamId"],
                slug=team["slug"],
                owner_uid=team["ownerUid"],
                workers=team["workers"],
                **_counts(team),
            )
            for team in raw["teams"]
        ),
        others=OtherQueues(teams=raw["others"]["teams"], **_counts(raw["others"])),
    )


class PostgresRegistry:
    """A `Registry` over one small pool."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", *, acquire_timeout: float) -> None:
        self._pool = pool
        self._acquire_timeout = acquire_timeout

    async def _call(self, statement: str, *arguments: object) -> Any:
        try:
            async with self._pool.acquire(timeout=self._acquire_timeout) as connection:
                return await connection.fetchval(statement, *arguments)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError) as error:
            # `from None`: asyncpg's errors carry the statement's arguments in their context.
            raise translated(error) from None

    async def _json(self, function: str, writer: Writer, *arguments: object) -> Any:
        places = ", ".join(f"${number}" for number in range(1, 5 + len(arguments)))
        statement = f"SELECT commonplace.{function}({places})"
        answer = await self._call(
            statement, writer.installation, writer.term, writer.generation, writer.uid, *arguments
        )
        return json.loads(answer) if isinstance(answer, str) else answer

    async def schema_version(self) -> int:
        """See `Registry`."""
        known = await self._call("SELECT to_regprocedure('commonplace.schema_version_v1()') IS NOT NULL")
        return int(await self._call("SELECT commonplace.schema_version_v1()") or 0) if known else 0

    async def put_team(self, writer: Writer, team: TeamRow, *, gone_owner: str | None = None) -> StoredTeam:
        """See `Registry`."""
        projects = [{"id": p.id, "name": p.name, "displayName": p.display_name} for p in team.projects]
        members = [{"actor": actor, "role": role} for actor, role in team.members]
        answer = await self._json(
            "put_team_v1",
            writer,
            UUID(team.id),
            team.slug,
            team.name,
            json.dumps(dict(team.policies)),
            json.dumps(projects),
            json.dumps(members),
            team.adopt,
            gone_owner,
        )
        return StoredTeam(
            id=answer["teamId"],
            slug=answer["slug"],
            outcome=answer["outcome"],
            projects={project["name"]: project["id"] for project in answer["projects"]},
        )

    async def release_team(self, writer: Writer, *, delete_data: bool) -> tuple[str, int]:
        """See `Registry`."""
        answer = await self._json("release_team_v1", writer, delete_data)
        return answer["outcome"], answer["revokedKeys"]

    async def observe_key(self, writer: Writer) -> ObservedKeys:
        """See `Registry`."""
        answer = await self._json("observe_key_v1", writer)
        return ObservedKeys(
            newest_revision=answer["newestRevision"],
            now=datetime.fromisoformat(answer["now"]),
            keys=tuple(_key_row(raw) for raw in answer["keys"]),
        )

    async def put_key(self, writer: Writer, team_id: str, key: NewKey) -> None:
        """See `Registry`."""
        row = _grant_json(key.grant) | {
            "id": key.id,
            "revision": key.revision,
            "tokenId": key.token_id,
            "tokenHash": key.token_hash,
            "name": key.name,
            "rotationMark": key.rotation_mark,
        }
        await self._json("put_key_v1", writer, UUID(team_id), json.dumps(row))

    async def publish_key(self, writer: Writer, revision: int, grace_seconds: int) -> Published:
        """See `Registry`."""
        answer = await self._json("publish_key_v1", writer, revision, grace_seconds)
        return Published(
            changed=answer["outcome"] == "published",
            in_grace=answer["inGrace"],
            revoked_early=tuple(answer["revokedEarly"]),
        )

    async def amend_key(self, writer: Writer, grant: Grant) -> int:
        """See `Registry`."""
        return int(await self._json("amend_key_v1", writer, json.dumps(_grant_json(grant))))

    async def revoke_keys(self, writer: Writer) -> int:
        """See `Registry`."""
        return int(await self._json("revoke_keys_v1", writer))

    async def put_quota(
        self,
        writer: Writer,
        *,
        quota_id: str,
        team_id: str,
        name: str,
        limits: Mapping[str, int | str],
        enforcement: str,
    ) -> StoredQuota:
        """See `Registry`."""
        arguments = (UUID(quota_id), UUID(team_id), name, json.dumps(dict(limits)), enforcement)
        answer = await self._json("put_quota_v1", writer, *arguments)
        return StoredQuota(
            outcome=answer["outcome"],
            effective={limit: format(Decimal(str(value)), "f") for limit, value in (answer["effective"] or {}).items()},
            used={figure: Decimal(str(value)) for figure, value in answer["used"].items()},
            measured_at=datetime.fromisoformat(answer["measuredAt"]),
        )

    async def release_quota(self, writer: Writer) -> bool:
        """See `Registry`."""
        return bool(await self._json("release_quota_v1", writer))

    async def queue_by_team(self, writer: Writer) -> QueueByTeam:
        """See `Registry`."""
        return _queue_by_team(await self._json("queue_by_team_v1", writer))

    async def close(self) -> None:
        """Let running calls end, then disconnect; a server that does not answer is not waited for."""
        with suppress(TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            async with asyncio.timeout(self._acquire_timeout):
                await self._pool.close()

    def terminate(self) -> None:
        """Disconnect at once."""
        self._pool.terminate()


class Registries(Protocol):
    """Gives the registry behind a database URI."""

    @asynccontextmanager
    def of(self, uri: str) -> AsyncIterator[Registry]:
        """Borrow the registry, open for the whole block. Raises DatabaseUnavailable, DatabaseRefused."""
        ...

    async def close(self) -> None:
        """Close all."""
        ...


class PostgresRegistries:
    """
    One small pool per database URI, kept by the URI's hash, at most `pools` of them.

    The pool unused for longest is closed when another is needed; a pool in use is never closed.
    """

    def __init__(
        self, *, connect_timeout: float, statement_timeout: float, pools: int = POOLS, pool_size: int = POOL_SIZE
    ) -> None:
        self._connect_timeout = connect_timeout
        self._statement_timeout = statement_timeout
        self._pools = pools
        self._pool_size = pool_size
        self._open: OrderedDict[str, PostgresRegistry] = OrderedDict()
        self._users: dict[str, int] = {}
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def of(self, uri: str) -> AsyncIterator[Registry]:
        """See `Registries`."""
        key = hashlib.sha256(uri.encode()).hexdigest()
        registry, unused = await self._get(key, uri)
        try:
            # Not under the lock: one database that hangs must not keep all others waiting.
            for idle in unused:
                await idle.close()
            yield registry
        finally:
            self._users[key] -= 1

    async def _get(self, key: str, uri: str) -> tuple[PostgresRegistry, list[PostgresRegistry]]:
        """The registry, with one user more, and those to be closed for it."""
        unused = []
        async with self._lock:
            registry = self._open.get(key)
            if registry is None:
                registry = PostgresRegistry(await self._connect(uri), acquire_timeout=self._connect_timeout)
                self._open[key] = registry
            self._open.move_to_end(key)
            for idle in [k for k in self._open if k != key and not self._users.get(k)]:
                if len(self._open) <= self._pools:
                    break
                unused.append(self._open.pop(idle))
                self._users.pop(idle, None)
            self._users[key] = self._users.get(key, 0) + 1
        return registry, unused

    async def _connect(self, uri: str) -> "asyncpg.Pool[asyncpg.Record]":
        try:
            # min_size 0: nothing is dialled here, so a database that is away is met inside a call.
            return await asyncpg.create_pool(
                uri,
                min_size=0,
                max_size=self._pool_size,
                timeout=self._connect_timeout,
                command_timeout=self._statement_timeout + 1,
                max_inactive_connection_lifetime=60,
                server_settings={
                    "application_name": "commonplace-operator",
                    "statement_timeout": str(int(self._statement_timeout * 1000)),
                },
            )
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError) as error:
            raise translated(error) from None

    async def close(self) -> None:
        """See `Registries`."""
        for registry in self._open.values():
            registry.terminate()
        self._open.clear()
