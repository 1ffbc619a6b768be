"""What every case needs: a team with its keys, one way to ask, shapes, and sockets where a client would tidy up."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, Final, TypeAlias
from uuid import UUID, uuid4

import httpx2

from commonplace_runtime.store.pool import Pool, Record
from tests.factories import Key, Team, make_event, make_key, make_project, make_team

Shape: TypeAlias = Mapping[str, tuple[type, ...]]

SESSION: Final[Shape] = {
    **dict.fromkeys(("id", "projectId", "teamId", "generationStatus"), (str,)),
    **dict.fromkeys(
        ("externalSessionId", "contentSessionId", "agentId", "agentType", "platformSource"), (str, NoneType)
    ),
    "metadata": (dict,),
    **dict.fromkeys(("startedAtEpoch", "createdAtEpoch", "updatedAtEpoch"), (int,)),
    **dict.fromkeys(("endedAtEpoch", "lastGeneratedAtEpoch"), (int, NoneType)),
}
EVENT: Final[Shape] = {
    **dict.fromkeys(("id", "projectId", "teamId", "sourceAdapter", "eventType"), (str,)),
    **dict.fromkeys(("serverSessionId", "sourceEventId", "platformSource"), (str, NoneType)),
    "payload": (object,),
    "metadata": (dict,),
    **dict.fromkeys(("occurredAtEpoch", "receivedAtEpoch", "createdAtEpoch"), (int,)),
}
JOB_BRIEF: Final[Shape] = {
    **dict.fromkeys(("id", "status", "bullmqJobId", "sourceType", "sourceId", "transport"), (str,)),
    **dict.fromkeys(("createdAtEpoch", "updatedAtEpoch"), (int,)),
}
JOB_WAIT: Final[Shape] = {**JOB_BRIEF, "attempts": (int,), "maxAttempts": (int,)}
JOB_FULL: Final[Shape] = {
    **dict.fromkeys(("id", "projectId", "teamId", "sourceType", "sourceId", "jobType", "status"), (str,)),
    **dict.fromkeys(("agentEventId", "serverSessionId", "bullmqJobId"), (str, NoneType)),
    **dict.fromkeys(("attempts", "maxAttempts", "createdAtEpoch", "updatedAtEpoch"), (int,)),
    **dict.fromkeys(("nextAttemptAtEpoch", "completedAtEpoch", "failedAtEpoch", "cancelledAtEpoch"), (int, NoneType)),
    "lastError": (dict, NoneType),
}
JOB_LISTED: Final[Shape] = {
    **dict.fromkeys(("id", "projectId", "teamId", "sourceType", "sourceId", "status"), (str,)),
    **dict.fromkeys(("attempts", "maxAttempts", "createdAtEpoch"), (int,)),
    **dict.fromkeys(("completedAtEpoch", "failedAtEpoch"), (int, NoneType)),
    "lastError": (dict, NoneType),
}
OBSERVATION: Final[Shape] = {
    **dict.fromkeys(("id", "projectId", "teamId", "kind", "content"), (str,)),
    "serverSessionId": (str, NoneType),
    "metadata": (dict,),
    **dict.fromkeys(("createdAtEpoch", "updatedAtEpoch"), (int,)),
}
MISSING_KEY: Final = {
    "error": "Unauthorized",
    "message": "Missing API key (Authorization: Bearer <key> or X-Api-Key: <key>)",
}
REFUSED_KEY: Final = {"error": "Forbidden", "message": "Invalid API key or insufficient scope"}
OTHER_PROJECT: Final = {"error": "Forbidden", "message": "API key is scoped to a different project"}
FOREIGN_PROJECT: Final = {"error": "Forbidden", "message": "project_id must belong to team_id"}
FOREIGN_SESSION: Final = {"error": "Forbidden", "message": "server_session_id must belong to project_id and team_id"}
JSON: Final = {"Content-Type": "application/json"}
_NOTHING: Final = object()


def has_shape(value: Any, shape: Shape) -> bool:
    """All fields there, none of another type; further fields are allowed. Fails with what is wrong."""
    wrong = {
        name: repr(value.get(name, "missing"))
        for name, types in shape.items()
        if name not in value or not isinstance(value[name], types) or (int in types and isinstance(value[name], bool))
    }
    assert not wrong, wrong
    return True


@dataclass(frozen=True, kw_only=True)
class World:
    """A team with two projects, and keys: of the whole team, bound to `default`, bound to the sibling."""

    team: Team
    sibling_id: str
    key: Key
    bound: Key
    sibling_key: Key

    @property
    def project_id(self) -> str:
        return self.team.project_id

    @property
    def team_id(self) -> str:
        return self.team.id


async def make_world(pool: Pool) -> World:
    team = await make_team(pool)
    sibling_id = await make_project(pool, team.id, "sibling")
    return World(
        team=team,
        sibling_id=sibling_id,
        key=await make_key(pool, team.id),
        bound=await make_key(pool, team.id, project_id=team.project_id),
        sibling_key=await make_key(pool, team.id, project_id=sibling_id),
    )


@dataclass(frozen=True, kw_only=True)
class Api:
    """The server as a client reaches it, and the database behind it as an administrator sees it."""

    url: str
    http: httpx2.AsyncClient
    pool: Pool

    async def send(
        self,
        method: str,
        path: str,
        key: Key | None = None,
        body: Any = _NOTHING,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx2.Response:
        """The answer, whatever it is. `content`: raw bytes instead of a JSON body."""
        sent = {**(key.headers if key else {}), **(headers or {})}
        if body is _NOTHING:
            return await self.http.request(method, path, headers=sent, content=content)
        return await self.http.request(method, path, headers={**JSON, **sent}, content=json.dumps(body).encode())

    async def get(self, path: str, key: Key | None = None, status: int = 200) -> Any:
        """The JSON of an answer that has this status."""
        return _json(await self.send("GET", path, key), status)

    async def post(self, path: str, key: Key | None, body: Any = _NOTHING, status: int = 200) -> Any:
        return _json(await self.send("POST", path, key, body), status)

    async def patch(self, path: str, key: Key | None, body: Any, status: int = 200) -> Any:
        return _json(await self.send("PATCH", path, key, body), status)

    async def delete(self, path: str, key: Key | None, status: int = 200) -> Any:
        return _json(await self.send("DELETE", path, key), status)

    async def event(self, key: Key, project_id: str, query: str = "", /, **changes: Any) -> Any:
        """The answer to a new event, with a payload of its own unless one is given."""
        body = make_event(projectId=project_id, **({"payload": {"text": str(uuid4())}} | changes))
        return await self.post(f"/v1/events{query}", key, body, 201)

    async def session(self, key: Key, project_id: str, status: int = 201, /, **fields: Any) -> Any:
        answer = await self.post("/v1/sessions/start", key, {"projectId": project_id, **fields}, status)
        return answer["session"]

    async def memory(self, key: Key, project_id: str, content: str, /, **fields: Any) -> Any:
        answer = await self.post("/v1/memories", key, {"projectId": project_id, "content": content, **fields}, 201)
        return answer["memory"]

    async def search(self, key: Key, project_id: str, query: str, /, **fields: Any) -> list[Any]:
        answer = await self.post("/v1/search", key, {"projectId": project_id, "query": query, **fields})
        found: list[Any] = answer["observations"]
        return found

    async def contents(self, key: Key, project_id: str, query: str, /, **fields: Any) -> list[str]:
        return [one["content"] for one in await self.search(key, project_id, query, **fields)]

    async def audits(self, world: World, action: str | None = None) -> list[Record]:
        """The team's rows of the log, oldest first."""
        return list(
            await self.pool.fetch(
                "SELECT * FROM commonplace.audit_log WHERE team_id = $1 AND ($2::text IS NULL OR action = $2)"
                " ORDER BY number",
                UUID(world.team_id),
                action,
            )
        )

    async def count(self, world: World, table: str) -> int:
        found = await self.pool.fetchval(
            f"SELECT count(*) FROM commonplace.{table} WHERE team_id = $1", UUID(world.team_id)
        )
        return int(found)

    async def end_job(self, job_id: str, status: str, *, attempts: int = 3) -> None:
        """Leave a job as a worker or a person does, its group with nothing to do; whoever waits is told."""
        async with self.pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(
                f"UPDATE commonplace.jobs SET status = $2, {status}_at = now(), attempts = $3, last_error = $4"
                " WHERE id = $1 RETURNING team_id, project_id, session_key",
                UUID(job_id),
                status,
                attempts,
                {"reason": "it broke", "classification": "poison"} if status == "failed" else None,
            )
            assert row is not None
            await connection.fetch("SELECT commonplace.free_group($1, $2, $3)", *row)
            await connection.execute("SELECT pg_notify('commonplace_jobs', $1)", job_id)


def _json(answer: httpx2.Response, status: int) -> Any:
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    return answer.json()


@dataclass(frozen=True, kw_only=True)
class RawAnswer:
    """An answer as it came over the socket; header names in small letters."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for found, value in self.headers if found == name), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def raw(url: str, head: str, body: bytes = b"") -> RawAnswer:
    """
    Send a request byte for byte. head: the request line and headers, one a line, Host, Connection and the body's
    length excepted.
    """
    address = httpx2.URL(url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    start, *lines = head.strip().split("\n")
    if not any(line.lower().startswith("host:") for line in lines):
        lines.append("Host: contract.test")
    if body:
        lines.append(f"Content-Length: {len(body)}")
    lines += ["Connection: close", "", ""]
    writer.write("\r\n".join([f"{start} HTTP/1.1", *(line.strip() for line in lines)]).encode("latin-1") + body)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    top, _, rest = answer.partition(b"\r\n\r\n")
    status, *found = top.decode("latin-1").split("\r\n")
    pairs = [line.split(":", 1) for line in found]
    headers = [(name.lower(), value.strip()) for name, value in pairs]
    if ("transfer-encoding", "chunked") in headers:
        rest = _unchunked(rest)
    return RawAnswer(status=int(status.split()[1]), headers=headers, body=rest)


def _unchunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        whole, body = whole + body[:length], body[length + 2 :]
    return whole
